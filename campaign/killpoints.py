"""Places where ``CAMPAIGN_KILL_AT=<point>[:n]`` kills the driver at its n-th passage: for tests of recovery.

Kernels have their own (``kernels/killpoints.py``), which work alike; both are listed here.

``CAMPAIGN_HOLD_AT=<point>[:n]@<file>`` holds the driver there instead: it makes
the file, and continues once the file is removed.  So a test can make two
commands meet at a point.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

#: Points of a kernel, in the order of the commit protocol; a test compares them with the kernels' own list.
KERNEL = {
    "product-written": "the product is whole under its temporary name",
    "product-synced": "it is on disk, with its checksum taken",
    "product-linked": "it has its final name, and its temporary one still",
    "product-published": "it has its final name alone, the journal does not know it",
    "product-journalled": "the journal knows it",
}
#: Points of the driver, in the order in which a run passes them.
DRIVER = {
    "folder-made": "the submit folder is there under another name, and says who makes the run",
    "claim-written": "it has its name",
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
#: Points of commands that decide on runs, certify, or make repositories.
DECISIONS = {
    "folder-named": "a submission has its folder's name, and has not made it",
    "clean-decided": "a run is to be removed, its output RUN is there, nobody else decides meanwhile",
    "clean-removed": "its output RUN is gone, others may decide, its folder is there",
    "clean-unlisted": "its folder is gone, the list of runs has it",
    "certify-decided": "what is certified is decided, nothing is certified, nobody else decides meanwhile",
    "certified": "it is certified, and not chained",
    "import-decided": "what is imported is decided, nothing is written, nobody else decides meanwhile",
    "import-placed": "imported calibrations have their final names, the Butler does not know them",
    "import-recorded": "the Butler has them, none is certified",
    "import-certified": "all are certified, and not chained",
    "restart-looked": "a restart has looked at what is done, and has not the claim",
    "restart-claimed": "a restart has the claim, what is not done is not forgotten",
    "simulation-begun": "a simulation has its folders for itself, and has written nothing",
    "repository-made": "a new repository is whole, under another name",
    "repository-database": "its database has its name, its configuration has not",
    "repository-named": "it has its name, no instrument is registered",
    "instrument-recorded": "the instrument is registered, its collections are not",
    "raws-sorted": "it is decided which raws are new, none is recorded",
}
VARIABLE, HOLD = "CAMPAIGN_KILL_AT", "CAMPAIGN_HOLD_AT"
POLL_S = 0.01
_passed: Counter[tuple[str, str]] = Counter()


def _reached(variable: str, point: str) -> str | None:
    """Give the rest of a variable that names this point, at the passage that the variable means."""
    text, _, rest = os.environ.get(variable, "").partition("@")
    wanted, _, times = text.partition(":")
    if wanted != point:
        return None
    _passed[variable, point] += 1
    return rest if _passed[variable, point] == int(times or 1) else None


def reach(point: str) -> None:
    """Die here by SIGKILL, or wait, if the environment asks for it."""
    if _reached(VARIABLE, point) is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    if file := _reached(HOLD, point):
        Path(file).touch()
        while os.path.exists(file):
            time.sleep(POLL_S)
