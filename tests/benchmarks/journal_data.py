"""A journal as a survey leaves it: the writers of kernels and drivers, and events of all their kinds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from campaign.journal.events import DriverJournal, EventName
from kernels.jobs.job import VERSION, Job
from kernels.jobs.journal import Journal

RUN, LABEL, GANG = "20261120T224138Z-07d4", "isr", "combine"
DETECTORS, RANKS = 189, 64
DAY = 2026112000000
FOLDER = "/sdf/data/rubin/repo/main/LSSTCam/runs/DRP/DM-1/20261120T224138Z/post_isr_image/20261120/r/r_03"
#: One task in so many fails once, and is made by the next attempt.
FAILING = 200


def _job(folder: Path, attempt: int, worker: int) -> Job:
    where = str(folder / f"workers-{worker}.{attempt}")
    return Job(VERSION, "correct", RUN, attempt, "local", 1, 1, where, {}, {}, {}, ())


def task(number: int) -> str:
    """Name a quantum."""
    return f"{LABEL}:{DAY + number // DETECTORS},{number % DETECTORS}"


def _product(name: str) -> dict[str, Any]:
    """Detail of a published product, of the length that a real one has."""
    path = f"{FOLDER}/postISRCCD_LSSTCam_r_03_{name}_R22_S11_LSSTCam_runs_DRP_DM-1_20261120T224138Z.fits"
    return {
        "postISRCCD": {"path": path, "bytes": 132_491_520, "sha256": "eefc3758" * 8},
        "inputs_used": 1,
        "bad_pixels": 1432,
        "blank_pixels": 0,
        "cpu_s": 1.234,
        "wall_s": 1.345,
        "rss_mib": 311,
    }


def _made(worker: Journal, number: int) -> Iterator[None]:
    """One quantum: it begins; and it ends."""
    name = task(number)
    worker.write(name, "started", {"rank": 0, "pid": os.getpid(), "host": "sdfmilan001"})
    yield
    worker.write(name, "published", _product(name))
    yield


def _failed(worker: Journal, again: Journal, driver: DriverJournal, number: int) -> Iterator[None]:
    """One quantum that fails first: its worker and the driver tell of it."""
    name = task(number)
    worker.write(name, "started", {"rank": 0, "pid": os.getpid(), "host": "sdfmilan001"})
    yield
    detail = {"error": f"{FOLDER}/{name}.fits: cannot be read", "kind": "OSError", "cause": "infrastructure"}
    worker.write(name, "failed", detail)
    yield
    driver.write(EventName.RETRY, {"causes": {"infrastructure": 1}, "resources": {}, "pause_s": 5}, LABEL)
    yield
    yield from _made(again, number)


def _told(folder: Path) -> Iterator[None]:
    """All events of a run, one at a time."""
    driver = DriverJournal(folder, RUN)
    driver.write(EventName.STARTED, {"pid": 1, "host": "sdfiana001", "user": "u", "resumed": False})
    yield
    resources = {"memory_mib": 4096, "cores": 1, "minutes": 60}
    driver.write(EventName.SUBMITTED, {"jobs": RANKS, "quanta": 1, "resources": resources}, LABEL)
    yield
    with ExitStack() as open_files:
        first, second = (
            [open_files.enter_context(Journal(_job(folder, attempt, n), 0)) for n in range(RANKS)] for attempt in (1, 2)
        )
        for n in range(RANKS):
            driver.write(EventName.WORKER, {"name": f"w-{n}", "state": "joined", "why": ""}, "workers")
            yield
        number = 0
        while True:
            worker = number // 20 % RANKS  # a chunk
            if number % FAILING == FAILING - 1:
                yield from _failed(first[worker], second[worker], driver, number)
            else:
                yield from _made(first[worker], number)
            number += 1


def write(folder: Path, many: int) -> None:
    """Write a run's first events, by the product's own writers."""
    for _ in islice(_told(folder), many):
        pass


def more(folder: Path, many: int) -> None:
    """Append events of quanta that were not there before."""
    with Journal(_job(folder, 1, 0), 0) as worker:
        for number in range(10**9, 10**9 + many // 2):
            for _ in _made(worker, number):
                pass


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
