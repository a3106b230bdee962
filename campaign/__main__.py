"""``python -P -m campaign``: the same as ``campaign``."""

from campaign.cli import main

main()
