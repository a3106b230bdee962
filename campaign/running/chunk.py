"""Runs a chunk of quanta, which is a job file, on a Dask worker.

If a worker is lost, its chunk goes to another one.  Published products stand.
The quantum in hand is done again, last, and is given up once it has cost a
few workers.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from campaign.jobs.death import Cause
from campaign.jobs.file import write_text
from campaign.journal.control import DRAIN, PAUSE, asked
from campaign.journal.events import EventName
from campaign.lines import read as read_lines

#: Runs a job file on a worker; by name, since the driver does not import kernels.
EXECUTE = "kernels.run:execute"
#: Lost workers after which the quantum in hand counts as their killer.
DEATHS = 3
PAUSED_S = 0.5
#: Suffixes of files in the course of being written, or fetched from a site.
TEMPORARY = (".tmp", ".part")


@dataclass(frozen=True)
class Answer:
    """Answer of a worker about a chunk.

    Parameters
    ----------
    why : `str`
        Reason of its death; empty if its journal says everything.
    cause : `Cause`
        Of the death.
    killers : `dict`
        Quanta that were given up, with the number of workers that each has cost.
    drained : `bool`
        Whether it was not begun because the run is to end.
    """

    why: str = ""
    cause: Cause = Cause.INFRASTRUCTURE
    killers: Mapping[str, int] = field(default_factory=dict)
    drained: bool = False


@dataclass(frozen=True)
class Rest:
    """Rest of a chunk: its job file, empty if nothing is left, and the quanta that are given up."""

    path: str
    killers: Mapping[str, int] = field(default_factory=dict)


def run(paths: Sequence[str], number: int) -> Answer:
    """Run a chunk.

    Parameters
    ----------
    paths : sequence of `str`
        Job files of all chunks; empty for a chunk with nothing to do.
    number : `int`
        Of the chunk to run.
    """
    path = paths[number]
    if not path:
        return Answer()
    if not _may_start(Path(path).parent.parent):
        return Answer(drained=True)
    killers: Mapping[str, int] = {}
    try:
        rest = unfinished(path)
        killers = rest.killers
        if rest.path:
            module, function = EXECUTE.split(":")
            getattr(importlib.import_module(module), function)(rest.path)
    except Exception as error:
        return Answer(f"{type(error).__name__}: {error}", _cause(error), killers)
    return Answer(killers=killers)


def _cause(error: Exception) -> Cause:
    """Cause of an error: a kernel's own errors have one, any other is a defect."""
    try:
        return Cause(getattr(error, "cause", Cause.CODE))
    except ValueError:
        return Cause.CODE


def _may_start(folder: Path) -> bool:
    """Wait while the run is paused; say whether work may be started then."""
    while asked(folder, PAUSE) and not asked(folder, DRAIN):
        time.sleep(PAUSED_S)
    return not asked(folder, DRAIN)


def unfinished(path: str) -> Rest:
    """Give the job file of the rest of a chunk: its own, or a new one after a worker was lost."""
    plain = json.loads(Path(path).read_text())
    tried, journal = 1, plain["journal"]
    told: set[str] = set()
    begun: Counter[str] = Counter()
    while (events := Path(f"{journal}.r0.jsonl")).exists():
        said = read_lines(events, {"task": str, "event": str})  # a killed worker may leave half a line
        told |= {line["task"] for line in said if line["event"] in (EventName.PUBLISHED, EventName.FAILED)}
        begun.update(line["task"] for line in said if line["event"] == EventName.STARTED)
        tried += 1
        journal = f"{plain['journal']}.again{tried}"
    if tried == 1:
        return Rest(path)
    left = [t for t in plain["tasks"] if t["task"] not in told]
    killers = {t["task"]: begun[t["task"]] for t in left if begun[t["task"]] >= DEATHS}
    # The quantum that a lost worker had in hand comes last: it may have killed the worker.
    left = sorted((t for t in left if t["task"] not in killers), key=lambda t: begun[t["task"]])
    clear(out for task in left for out in task["outputs"].values())
    if not left:
        return Rest("", killers)
    again = Path(path).with_suffix(f".again{tried}.json")
    attempt = plain["attempt"] + tried - 1
    write_text(again, json.dumps({**plain, "attempt": attempt, "journal": journal, "tasks": left}))
    return Rest(str(again), killers)


def clear(outputs: Iterable[str]) -> None:
    """Remove files that no journal mentions: their writer was lost before it could record them.

    Parameters
    ----------
    outputs : iterable of `str`
        Final paths; files beside them under temporary names go too.
    """
    folders: dict[Path, set[str]] = defaultdict(set)
    for output in outputs:
        folders[Path(output).parent].add(Path(output).name)
    for folder, names in folders.items():
        there = os.listdir(folder) if folder.is_dir() else []
        for name in there:
            hidden = name.startswith(".") and name.endswith(TEMPORARY)
            if name in names or (hidden and any(name.lstrip(".").startswith(f"{one}.") for one in names)):
                (folder / name).unlink(missing_ok=True)
