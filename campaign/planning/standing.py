"""Assess the standing of a run: tasks done, stale, damaged.

Journals and file system suffice; neither the Butler nor Dask is asked.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from campaign import release
from campaign.errors import CampaignError
from campaign.journal.events import Journals
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Plan
from campaign.limited import from_json
from campaign.lines import lacking
from campaign.planning.order import Order, fingerprint

BLOCK = 1 << 22
#: Products that are looked at together.
TOGETHER = 256
#: Keys of a product in a journal, with their types.
MADE = {"path": str, "bytes": int, "sha256": str}
#: In place of a file that cannot be read.
DAMAGED: dict[str, Any] = {}


@dataclass(frozen=True)
class Standing:
    """The standing of a run."""

    #: Of its journals.
    outcome: Outcome
    #: Finished tasks whose products differ from those published, and why.
    damaged: Mapping[str, str]
    #: Finished tasks that would be made differently today, and why.
    stale: Mapping[str, str]
    #: Changes that concern the whole run.
    reasons: Sequence[str]


def outcome_of(plan: Plan) -> Outcome:
    """Fold a run's journals."""
    outcome = Outcome()
    for event in Journals(plan.journal).new():
        outcome.fold(event)
    return outcome


def standing(plan: Plan, order: Order | None, verify: bool = False) -> Standing:
    """Look at a run.

    Parameters
    ----------
    order : `Order` or `None`
        The run's order; where known, today's configuration is compared.
    verify : `bool`
        Read every product, and compare its checksum.
    """
    outcome = outcome_of(plan)
    reasons = [*_release(plan), *(_configuration(plan, order) if order else ())]
    stale = dict.fromkeys(outcome.published, "; ".join(reasons)) if reasons else {}
    return Standing(outcome, _damaged(plan, outcome, verify), {**_inputs(plan, outcome), **stale}, reasons)


def _environment(plan: Plan) -> dict[str, Any]:
    path = plan.folder / "env.json"
    try:
        found = from_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    return found if isinstance(found, dict) else DAMAGED


def _release(plan: Plan) -> list[str]:
    """Name the parts of the code that differ from those of the run."""
    environment = _environment(plan)
    if environment is DAMAGED:
        return [f"{plan.folder / 'env.json'} is damaged: what it was made with is not known"]
    known = environment.get("release")
    return [f"the code has changed: {text}" for text in release.differences(release.about(), known)] if known else []


def _configuration(plan: Plan, order: Order) -> list[str]:
    """Name the labels whose configuration or selection differs today."""
    known = _environment(plan).get("pipeline", {})
    try:
        today = fingerprint(order.step(plan.output_run, plan.submit_path))
    except CampaignError as error:
        return [f"the template does not resolve any more: {str(error).splitlines()[0]}"]
    changed = [label for label in {**known, **today} if known.get(label) != today.get(label)]
    return [f"the configuration of {', '.join(changed)} has changed"] if changed else []


def _inputs(plan: Plan, outcome: Outcome) -> dict[str, str]:
    """Find finished tasks with an input of another size, and those that depend on them."""
    sizes = _sizes(file["path"] for file in plan.files.values())
    changed = {
        key: f"{file['path']} has {sizes.get(file['path'], 'no')} bytes, it had {file['bytes']}"
        for key, file in plan.files.items()
        if file.get("bytes") is not None and sizes.get(file["path"]) != file["bytes"]
    }
    if not changed:
        return {}
    found: dict[str, str] = {}
    for task in plan.tasks:
        keys = (key for keys in task.job.inputs.values() for key in keys)
        why = next((changed[key] for key in keys if key in changed), None)
        why = why or next((f"{name}: {found[name]}" for name in task.needs if name in found), None)
        if why is not None and task.name in outcome.published:
            found[task.name] = why
    return found


def _products(plan: Plan, outcome: Outcome) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give task and record of each product; the journals are read once more, so that no list holds all records."""
    for task, detail in outcome.made(Journals(plan.journal).new()):
        yield from ((task, made) for made in detail.values() if isinstance(made, dict) and "sha256" in made)


def _damaged(plan: Plan, outcome: Outcome, verify: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    products, folders = _products(plan, outcome), _Folders()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # hashing releases the interpreter's lock
        while some := list(islice(products, TOGETHER)):
            found |= {task: why for task, made in some if (why := _differs(made, folders))}
            if verify:
                whole = [(task, made) for task, made in some if task not in found]
                sums = pool.map(_sha256, (made["path"] for _, made in whole))
                for (task, made), digest in zip(whole, sums, strict=True):
                    if digest != made["sha256"]:
                        found[task] = f"{made['path']} has another checksum than it was published with"
    return found


def _differs(made: Mapping[str, Any], folders: _Folders) -> str:
    """Say how a product differs from its record; empty where its size is right."""
    if lacking(made, MADE):
        return "its record in the journal is damaged"
    folder, _, name = made["path"].rpartition("/")
    size = folders[folder].get(name)
    if size == made["bytes"]:
        return ""
    return f"{made['path']} " + ("is gone" if size is None else f"has {size} bytes, {made['bytes']} were published")


class _Folders(dict[str, Mapping[str, int]]):
    """By folder, the sizes of its files, byte; each folder is read once."""

    def __missing__(self, folder: str) -> Mapping[str, int]:
        try:
            with os.scandir(folder) as entries:
                self[folder] = {entry.name: entry.stat().st_size for entry in entries}
        except OSError:
            self[folder] = {}
        return self[folder]


def _sizes(paths: Iterator[str]) -> dict[str, int]:
    """Give the sizes of existing files, byte; each folder is read once."""
    folders: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, _, name = path.rpartition("/")
        folders[folder].add(name)
    found: dict[str, int] = {}
    for folder, names in folders.items():
        try:
            with os.scandir(folder) as entries:
                found |= {entry.path: entry.stat().st_size for entry in entries if entry.name in names}
        except OSError:
            continue
    return found


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
