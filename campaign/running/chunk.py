"""What a Dask worker runs: a chunk of quanta, which is a job file.

A chunk is given again to another worker where its first one was lost.  What
that one has published stands; what it had in hand is done again, last, and is
left alone once it has cost a few workers.
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
from campaign.lines import read as read_lines

#: What a worker runs, by name: the driver does not import kernels.
EXECUTE = "kernels.run:execute"
#: A quantum that was in hand when so many workers were lost has killed them.
DEATHS = 3
PAUSED_S = 0.5
#: How files end that are being written, or fetched from a site.
TEMPORARY = (".tmp", ".part")


@dataclass(frozen=True)
class Answer:
    """What a worker says of a chunk.

    Parameters
    ----------
    why : `str`
        Why it died; empty where its journal says everything.
    cause : `Cause`
        Of the death.
    killers : `dict`
        Quanta that were left alone, and how many workers each has cost.
    drained : `bool`
        It was not begun, because the run is to end.
    """

    why: str = ""
    cause: Cause = Cause.INFRASTRUCTURE
    killers: Mapping[str, int] = field(default_factory=dict)
    drained: bool = False


@dataclass(frozen=True)
class Rest:
    """What is left of a chunk: a job file, empty where that is nothing, and what is left alone."""

    path: str
    killers: Mapping[str, int] = field(default_factory=dict)


def run(paths: Sequence[str], number: int) -> Answer:
    """Run a chunk.

    Parameters
    ----------
    paths : sequence of `str`
        The job files of all chunks; empty where nothing of a chunk can be done.
    number : `int`
        Which of them.
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
    """Wait as long as the run is paused; say whether it goes on."""
    while asked(folder, PAUSE) and not asked(folder, DRAIN):
        time.sleep(PAUSED_S)
    return not asked(folder, DRAIN)


def unfinished(path: str) -> Rest:
    """The job file of what is left of a chunk: its own, or another one after a worker was lost."""
    plain = json.loads(Path(path).read_text())
    tried, journal = 1, plain["journal"]
    told: set[str] = set()
    begun: Counter[str] = Counter()
    while (events := Path(f"{journal}.r0.jsonl")).exists():
        said = read_lines(events, {"task": str, "event": str})  # a worker that was killed may leave half a line
        told |= {line["task"] for line in said if line["event"] in ("published", "failed")}
        begun.update(line["task"] for line in said if line["event"] == "started")
        tried += 1
        journal = f"{plain['journal']}.again{tried}"
    if tried == 1:
        return Rest(path)
    left = [t for t in plain["tasks"] if t["task"] not in told]
    killers = {t["task"]: begun[t["task"]] for t in left if begun[t["task"]] >= DEATHS}
    # What a worker had in hand when it was lost comes last: it may be what killed it.
    left = sorted((t for t in left if t["task"] not in killers), key=lambda t: begun[t["task"]])
    clear(out for task in left for out in task["outputs"].values())
    if not left:
        return Rest("", killers)
    again = Path(path).with_suffix(f".again{tried}.json")
    attempt = plain["attempt"] + tried - 1
    write_text(again, json.dumps({**plain, "attempt": attempt, "journal": journal, "tasks": left}))
    return Rest(str(again), killers)


def clear(outputs: Iterable[str]) -> None:
    """Remove files that no journal knows: whoever wrote, or fetched, them was lost between the two.

    Parameters
    ----------
    outputs : iterable of `str`
        Final paths; what stands beside them under a temporary name goes too, and under that of a temporary's temporary.
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
