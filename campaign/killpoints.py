"""Places where ``CAMPAIGN_KILL_AT=<point>[:n]`` kills the driver, the n-th time it passes: for tests of recovery.

Kernels have their own (``kernels/killpoints.py``), which work alike; both are listed here.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

#: Of a kernel, in the order of the commit protocol; a test compares them with the kernels' own.
KERNEL = {
    "product-written": "the product is whole under its temporary name",
    "product-synced": "it is on disk, with its checksum taken",
    "product-linked": "it has its final name, and its temporary one still",
    "product-published": "it has its final name alone, the journal does not know it",
    "product-journalled": "the journal knows it",
}
#: Of the driver, in the order in which a run passes them.
DRIVER = {
    "folder-made": "the submit folder is there, and nothing in it",
    "claim-written": "it says who makes the run",
    "plan-written": "the plan is there, the output RUN is not registered",
    "run-registered": "the output RUN is ours, the run is not in the list of runs",
    "run-listed": "the run is in the list, its journal is not begun",
    "run-started": "the journal is begun",
    "job-written": "a job's file is there, the journal does not know of it",
    "job-submitting": "the journal knows the job's name, nobody has started it",
    "job-accepted": "the scheduler has the job, its id is not recorded",
    "job-queued": "the job's id is recorded",
    "quanta-submitted": "the journal knows a group's quanta, their chunks are given to workers",
    "share-committed": "products of a site are at home, and the journal knows them",
    "job-ended": "the job is over, nobody has looked at its journal",
    "tasks-settled": "the journal knows what became of the job's tasks",
    "index-written": "the index knows what the journals say",
    "products-ingested": "the Butler has the products, the output chain does not",
    "output-chained": "the output chain has the run, the journal does not say that it is over",
    "run-ended": "the journal says that the run is over, the history does not",
}
VARIABLE = "CAMPAIGN_KILL_AT"
_passed: Counter[str] = Counter()


def reach(point: str) -> None:
    """Die here by SIGKILL, where the environment says so."""
    wanted, _, times = os.environ.get(VARIABLE, "").partition(":")
    if wanted == point:
        _passed[point] += 1
        if _passed[point] == int(times or 1):
            os.kill(os.getpid(), signal.SIGKILL)
