"""What a Dask worker runs: a chunk of quanta, which is a job file.

A chunk is given again to another worker where its first one was lost.  What
that one has published stands; what it had in hand is done again.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from campaign.jobs import write_text

#: What a worker runs, by name: the driver does not import kernels.
EXECUTE = "kernels.run:execute"


def run(paths: Sequence[str], number: int) -> str:
    """Run a chunk; say why it died, empty where its journal says everything.

    Parameters
    ----------
    paths : sequence of `str`
        The job files of all chunks; empty where nothing of a chunk can be done.
    number : `int`
        Which of them.
    """
    try:
        job = unfinished(paths[number]) if paths[number] else None
        if job is not None:
            module, function = EXECUTE.split(":")
            getattr(importlib.import_module(module), function)(job)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def unfinished(path: str) -> str | None:
    """The job file of what is left of a chunk: its own, another after a worker was lost, `None` when all is done."""
    plain = json.loads(Path(path).read_text())
    tried, journal = 1, plain["journal"]
    told: set[str] = set()
    begun: Counter[str] = Counter()
    while (events := Path(f"{journal}.r0.jsonl")).exists():
        lines = _lines(events)
        told |= {line["task"] for line in lines if line["event"] in ("published", "failed")}
        begun.update(line["task"] for line in lines if line["event"] == "started")
        tried += 1
        journal = f"{plain['journal']}.again{tried}"
    if tried == 1:
        return path
    # What a worker had in hand when it was lost comes last: it may be what killed it.
    left = sorted((t for t in plain["tasks"] if t["task"] not in told), key=lambda t: begun[t["task"]])
    for task in left:
        _clear(task)
    again = Path(path).with_suffix(f".again{tried}.json")
    write_text(again, json.dumps({**plain, "attempt": tried, "journal": journal, "tasks": left}))
    return str(again) if left else None


def _lines(events: Path) -> list[dict[str, Any]]:
    """A journal's events; a worker that was killed may have left half a line."""
    text = events.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _clear(task: Mapping[str, Any]) -> None:
    """Remove files of a task that its journal does not know: the worker was lost between the two."""
    for path in task["outputs"].values():
        Path(path).unlink(missing_ok=True)
