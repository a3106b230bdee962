"""Failures of a run: like failures are reported once, with their number, place, and a command to look closer."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.home import Home
from campaign.wording import command

if TYPE_CHECKING:
    from campaign.journal.index import Index

#: Lines of a log that are shown.
LAST = 10
#: Differences between failures that are alike: paths, numbers, names of detectors in them.
_PATH, _NUMBER = re.compile(r"(?:/[^\s:,'\"]+)+"), re.compile(r"\d[\d.]*")


@dataclass(frozen=True)
class Failure:
    """A group of failures that are alike."""

    #: Error text of the first.
    cause: str
    error: str

    tasks: list[str]
    #: Numbers in the tasks' names, with ranges written short.
    detectors: str
    exposures: str
    #: Log of the first; empty where there is none.
    log: str
    #: Last lines of the log.
    last: list[str]
    #: Command that makes the first by hand.
    again: str


def ranges(numbers: Iterable[int]) -> str:
    """Write whole numbers short: ``0-3, 7``."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def _alike(error: str) -> str:
    first = error.splitlines()[0] if error else ""
    return _NUMBER.sub("#", _PATH.sub("PATH", first))


def failures(home: Home, entry: Mapping[str, Any]) -> list[Failure]:
    """Group a run's failures by cause and first line; the largest groups come first."""
    from campaign.journal.index import asked

    def ask(index: Index) -> list[dict[str, Any]]:
        index.refresh(entry["run"])
        return index.failures(entry["run"])

    rows = asked(home, ask)
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["label"], row["cause"], _alike(row["error"])].append(row)
    found = [_failure(entry, some) for some in groups.values()]
    return sorted(found, key=lambda one: -len(one.tasks))


def _failure(entry: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Failure:
    tasks = [row["task"] for row in rows]
    ids = [[int(word) for word in task.partition(":")[2].split(",") if word.isdigit()] for task in tasks]
    log = log_of(Path(entry["submit_path"]), tasks[0])
    return Failure(
        cause=rows[0]["cause"],
        error=rows[0]["error"],
        tasks=tasks,
        detectors=ranges(known[-1] for known in ids if known),
        exposures=ranges(known[0] for known in ids if len(known) > 1),
        log=str(log) if log else "",
        last=log.read_text(errors="replace").splitlines()[-LAST:] if log else [],
        again=command("rerun", tasks[0], "--run", entry["run"]),
    )


def log_of(folder: Path, task: str) -> Path | None:
    """Find the log of a task's or group's newest job; for quanta, the latest log of a worker."""
    label = task.partition(":")[0]
    mine = re.compile(
        rf"(?:.+\+)?{re.escape(label)}(?:\+.+)?\.\d+\.log"
    )  # of several labels where they share a process
    own = [path for path in (folder / "logs").glob("*.log") if mine.fullmatch(path.name)]
    if own:
        return max(own, key=lambda path: int(path.name.split(".")[-2]))
    workers = list((folder / "logs").glob("workers*.log"))
    return max(workers, key=lambda path: path.stat().st_mtime) if workers else None
