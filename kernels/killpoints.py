"""Points where ``CAMPAIGN_KILL_AT=<point>[:n]`` kills this process on the n-th pass, to test recovery.

Only a job's first attempt is killed; later attempts pass.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

#: Points of the commit protocol, in order.
POINTS = {
    "product-written": "the product is whole under its temporary name",
    "product-synced": "it is on disk, with its checksum taken",
    "product-linked": "it has its final name, and its temporary one still",
    "product-published": "it has its final name alone, the journal does not know it",
    "product-journalled": "the journal knows it",
}
VARIABLE = "CAMPAIGN_KILL_AT"
_passed: Counter[str] = Counter()
_disarmed: list[bool] = []


def disarm() -> None:
    """Let this process pass every point."""
    _disarmed.append(True)


def reach(point: str) -> None:
    """Kill this process by SIGKILL if the environment asks for it at this point."""
    wanted, _, times = os.environ.get(VARIABLE, "").partition(":")
    if wanted == point and not _disarmed:
        _passed[point] += 1
        if _passed[point] == int(times or 1):
            os.kill(os.getpid(), signal.SIGKILL)
