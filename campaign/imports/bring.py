"""Bring planned calibrations into a repository: files, datasets, certifications, chain, in this order.

Each step may be repeated, and changes nothing that is there: wherever an import
was killed, the same command finishes it.  All certifications are one
transaction, and the chain comes last.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from campaign.certification.certify import ChainReport, Change, chain, check_chain, overlap
from campaign.errors import ConfigurationError, SubmissionRefused, TransientError
from campaign.imports.examine import place, temporary
from campaign.imports.plan import Item, Key, Names, key_of
from campaign.imports.sources import Range
from campaign.journal.owner import importer
from campaign.killpoints import reach
from campaign.problems import Problem, Problems
from campaign.wording import listed

if TYPE_CHECKING:
    from campaign.butler.repository import Association, Dataset, Repository
    from campaign.camera.model import Camera


@dataclass(frozen=True)
class Import:
    """An import that is decided."""

    camera: Camera
    names: Names
    items: Sequence[Item]
    #: Put the collections into the ticket's chain.
    chained: bool = True
    #: Also in front of calibrations that the chain has for the same time.
    hide: bool = False


@dataclass
class Standing:
    """How a repository stands to an import."""

    #: Place of each item's file, in the order of items.
    paths: list[str]
    #: The items that are datasets already.
    there: dict[int, Dataset] = field(default_factory=dict)
    #: The items whose files are missing; of datasets whose files were lost, too.
    absent: list[int] = field(default_factory=list)
    #: Certifications that are missing: place of the item, range.
    missing: list[tuple[int, Range]] = field(default_factory=list)
    #: Collections to be put into the chain, the first one in front.
    to_chain: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return len(self.there) == len(self.paths) and not (self.absent or self.missing or self.to_chain)


def bring(
    repository: Repository, wanted: Import, ranks: int, options: Mapping[str, Any], dry: bool = False
) -> tuple[Standing, ChainReport | None]:
    """Bring calibrations into a repository; tell how it stood before, and the change of the chain.

    Parameters
    ----------
    dry : `bool`
        Only look.

    Raises
    ------
    Problems, ConfigurationError, SubmissionRefused
        Something in the repository is in the way; nothing was changed.
    """
    with nullcontext() if dry else repository.deciding():
        before = look(repository, wanted)
        report = check_chain(repository, wanted.names.chain, before.to_chain) if before.to_chain else None
        if dry or before.done:
            return before, report
        reach("import-decided")
        _record(repository, wanted, before, ranks, options)
        datasets = _datasets(repository, wanted.items)
        repository.certify_all(
            [(wanted.names.target(wanted.items[n].dataset_type), [datasets[n]], *span) for n, span in before.missing]
        )
        reach("import-certified")
        if before.to_chain:
            report = chain(repository, wanted.names.chain, before.to_chain, Change())
    return before, report


def look(repository: Repository, wanted: Import) -> Standing:
    """Compare a repository with an import.

    Raises
    ------
    Problems, SubmissionRefused
        Something is in the way.
    """
    _require_runs(repository, wanted)
    standing = Standing(_paths(repository, wanted.items))
    standing.there = _datasets(repository, wanted.items)
    for n, one in standing.there.items():
        standing.paths[n] = one.path
    standing.absent = [n for n, path in enumerate(standing.paths) if not os.path.exists(path)]
    problems = [*_conflicts(repository, wanted.items, standing), *_certified(repository, wanted, standing)]
    if problems:
        raise Problems(repository.root, problems)
    targets = dict.fromkeys(wanted.names.target(item.dataset_type) for item in wanted.items)
    if wanted.chained:
        there = repository.chain(wanted.names.chain) if repository.collection_type(wanted.names.chain) else ()
        standing.to_chain = [name for name in targets if name not in there]
        if not wanted.hide:
            _require_unhidden(repository, wanted, standing, there)
    return standing


def _require_runs(repository: Repository, wanted: Import) -> None:
    """Refuse RUNs whose names are those of other collections, or will be."""
    new = {wanted.names.chain: "CHAINED"} | {
        wanted.names.target(item.dataset_type): "CALIBRATION" for item in wanted.items
    }
    for run in dict.fromkeys(item.run for item in wanted.items):
        kind = new.get(run) or repository.collection_type(run)
        if kind not in (None, "RUN"):
            what = f"{run} holds calibrations to be imported, and is {kind} here"
            raise ConfigurationError(what, where=repository.root, do="choose another --ticket, --tag or --cert-rerun")


def _paths(repository: Repository, items: Sequence[Item]) -> list[str]:
    runs: dict[str, list[int]] = defaultdict(list)
    for n, item in enumerate(items):
        runs[item.run].append(n)
    paths = [""] * len(items)
    for run, places in runs.items():
        some = repository.predict_paths(run, [(items[n].dataset_type, items[n].data_id) for n in places])
        for n, path in zip(places, some, strict=True):
            paths[n] = path
    return paths


def _datasets(repository: Repository, items: Sequence[Item]) -> dict[int, Dataset]:
    """Find the items that are datasets of their RUNs, by place."""
    known: dict[tuple[str, str], dict[Key, Dataset]] = {}
    found = {}
    for n, item in enumerate(items):
        where = (item.run, item.dataset_type)
        if where not in known:
            there = repository.collection_type(item.run) is not None
            some = repository.datasets(item.dataset_type, [item.run]) if there else ()
            known[where] = {key_of(one.data_id): one for one in some}
        if item.key in known[where]:
            found[n] = known[where][item.key]
    return found


def _conflicts(repository: Repository, items: Sequence[Item], standing: Standing) -> Iterator[Problem]:
    """Find datasets and files that have the names of others."""
    owners = {run: repository.run_owner(run) for run in {item.run for item in items}}
    for n, item in enumerate(items):
        one, path = standing.there.get(n), standing.paths[n]
        if one is None and owners[item.run].run:
            what = f"{item.text}: {item.run} is the output of run {owners[item.run].run} here, which has none"
            yield Problem(what, item.found.path, "import it where that run is not")
        elif one is not None and item.dataset_id not in ("", one.dataset_id):
            yield Problem(f"{item.text} of {item.run} is another dataset here: {one.dataset_id}", item.found.path)
        elif n not in standing.absent and _sha256(path) != item.found.sha256:
            do = "raise --cert-rerun: nothing is overwritten"
            yield Problem(f"{item.text}: another file is there under its name, {path}", item.found.path, do)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _certified(repository: Repository, wanted: Import, standing: Standing) -> Iterator[Problem]:
    """Find the certifications that are missing, and those that are in the way."""
    links: dict[str, Sequence[Association]] = {}
    for n, item in enumerate(wanted.items):
        target = wanted.names.target(item.dataset_type)
        if item.dataset_type not in links:
            there = repository.collection_type(target)
            if there not in (None, "CALIBRATION"):
                what = f"{target} exists as {there}, it should be CALIBRATION"
                raise ConfigurationError(what, do="choose another --tag or --cert-rerun")
            links[item.dataset_type] = repository.associations(item.dataset_type, [target]) if there else ()
        mine = [link for link in links[item.dataset_type] if key_of(link.data_id) == item.key]
        own = standing.there[n].dataset_id if n in standing.there else ""
        for span in item.ranges:
            if any((link.dataset_id, link.begin, link.end) == (own, *span) for link in mine):
                continue
            if other := next((link for link in mine if overlap((link.begin, link.end), span)), None):
                dates = f"{other.begin or 'ever'} to {other.end or 'open'}"
                yield Problem(
                    f"{item.text} is certified already from {dates} in {target}",
                    item.found.path,
                    "raise --cert-rerun (another collection, chained in front), or choose other dates",
                )
            standing.missing.append((n, span))


def _require_unhidden(repository: Repository, wanted: Import, standing: Standing, there: Sequence[str]) -> None:
    """Refuse to put calibrations in front of others for the same time."""
    targets = {wanted.names.target(item.dataset_type) for item in wanted.items}
    behind = repository.flatten([name for name in there if name not in targets])
    unlinked = {n for n, _ in standing.missing}
    hidden: dict[str, str] = {}
    for kind in {item.dataset_type for item in wanted.items} if behind else ():
        fresh = wanted.names.target(kind) in standing.to_chain
        new: dict[Key, list[int]] = defaultdict(list)
        for n, item in enumerate(wanted.items):
            if item.dataset_type == kind and (fresh or n in unlinked):
                new[item.key].append(n)
        for link in repository.associations(kind, behind):
            for n in new[key_of(link.data_id)]:
                item, one = wanted.items[n], standing.there.get(n)
                same = link.dataset_id in (item.dataset_id, one.dataset_id if one else "")
                if not same and any(overlap((link.begin, link.end), span) for span in item.ranges):
                    hidden[item.text] = link.collection
    if hidden:
        texts = listed(f"{text} of {collection}" for text, collection in sorted(hidden.items()))
        raise SubmissionRefused(
            f"what is imported would hide {texts}",
            where=wanted.names.chain,
            do="--yes puts it in front all the same; --no-chain only certifies it",
        )


def _record(repository: Repository, wanted: Import, before: Standing, ranks: int, options: Mapping[str, Any]) -> None:
    """Place the files that are missing, and make them datasets."""
    new = [n for n in range(len(wanted.items)) if n not in before.there]
    for n in new:
        temporary(before.paths[n]).unlink(missing_ok=True)
    if before.absent:
        files = [(wanted.items[n].found, before.paths[n]) for n in before.absent]
        placed = place(files, wanted.camera, ranks, options)
        if failed := [one for one in placed if one.error]:
            raise TransientError(failed[0].error, where=failed[0].path, do="give the same command again")
    reach("import-placed")
    runs: dict[str, list[int]] = defaultdict(list)
    for n in new:
        runs[wanted.items[n].run].append(n)
    for run, places in runs.items():
        some = [wanted.items[n] for n in places]
        repository.claim_run(run, importer())
        items = [(one.dataset_type, one.data_id, before.paths[n]) for n, one in zip(places, some, strict=True)]
        repository.ingest_products(run, items, [one.dataset_id for one in some])
    reach("import-recorded")
