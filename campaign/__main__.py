"""``python -P -m campaign``: the same as ``campaign``."""

from campaign.cli.root import main

main()
