"""Certify calibrations and chain them, as `butler certify-calibrations` and `collection-chain` do, with guards.

A certified calibration is a link from a CALIBRATION collection to a dataset of
the generation RUN, with a validity range. The guards are the operator's: a
partial set, an overlapping range or a chain emptied by mistake is refused
before anything is changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from campaign.butler.records import FIRST, LAST, is_tai, to_iso, to_nsec
from campaign.errors import ConfigurationError, SubmissionRefused, UsageError
from campaign.kinds import table
from campaign.problems import suggest
from campaign.template.vocabulary import is_collection

if TYPE_CHECKING:
    from campaign.butler.repository import Association, Dataset, Repository

DataId = Mapping[str, Any]
MODES = ("redefine", "prepend")


@dataclass(frozen=True)
class Change:
    """Change of a chain, and what it may do."""

    #: ``redefine`` (hold just these) or ``prepend`` (these before the others; one that is there already moves).
    mode: str = "prepend"
    #: Redefine a chain that is not empty.
    yes: bool = False
    #: Change an instrument's top-level ``calib`` chain.
    deploy: bool = False


@dataclass(frozen=True)
class CertifyReport:
    """A certification; ``sources`` are the RUNs, ``begin`` and ``end`` ISO-8601 TAI, `None` where open."""

    dataset_type: str
    sources: tuple[str, ...]
    target: str
    data_ids: tuple[DataId, ...]
    begin: str | None
    end: str | None


@dataclass(frozen=True)
class ChainReport:
    """A chain's children before and after."""

    chain: str
    before: tuple[str, ...]
    after: tuple[str, ...]


def certify(
    repository: Repository,
    *,
    source: str,
    target: str,
    dataset_type: str,
    begin: str | None,
    end: str | None = None,
    search_all_inputs: bool = False,
    expected: Iterable[DataId] = (),
) -> CertifyReport:
    """Certify a set of calibrations for a validity range.

    Parameters
    ----------
    repository : `~campaign.butler.repository.Repository`
        Open for writing.
    source : `str`
        The generation's RUN, or its CHAINED collection: then only the newest
        RUN, its first child, is certified.
    target : `str`
        The CALIBRATION collection; made if missing.
    dataset_type : `str`
        ``bias``, ``dark``, ``flat``, ...
    begin, end : `str` or `None`
        ISO-8601, TAI; the range is [begin, end), `None` leaves it open.
    search_all_inputs : `bool`
        Certify the first dataset found in all of ``source``.
    expected : `~collections.abc.Iterable` [`~collections.abc.Mapping`]
        Data IDs, or parts of them, that the plan asked for, such as
        ``{"detector": 0}``.

    Raises
    ------
    ConfigurationError
        A bad date, an unknown collection or one of the wrong type, no
        calibration found, an overlapping validity range.
    SubmissionRefused
        Calibrations that the plan asked for are missing.
    """
    begin, end = validity_range(begin, end)
    if source == target:
        raise ConfigurationError(f"{source} is both source and target", do="name the generation's run as the source")
    repository.require_collections([source])
    _require_type(repository, target, "CALIBRATION")
    searched = _searched(repository, source, search_all_inputs)
    datasets = repository.datasets(dataset_type, searched)
    if not datasets:
        known = table.dataset_types()
        calibrations = [name for name, kind in known.items() if kind.calibration]
        do = "" if dataset_type in known else suggest(dataset_type, calibrations)
        raise ConfigurationError(f"there is no {dataset_type} in {', '.join(searched)}", do=do)
    _require_expected(dataset_type, datasets, expected, searched)
    _require_no_overlap(repository, dataset_type, datasets, target, (begin, end))
    repository.certify(target, datasets, begin, end)
    sources = tuple(dict.fromkeys(dataset.run for dataset in datasets))
    return CertifyReport(dataset_type, sources, target, tuple(dataset.data_id for dataset in datasets), begin, end)


def _date(option: str, text: str) -> str:
    if not is_tai(text):
        raise ConfigurationError(
            f"{option} date {text!r} is not an ISO-8601 date in TAI (no time zone) from {FIRST[:10]} to {LAST[:10]}",
            do="write it as 2025-02-07T00:00:00",
        )
    return to_iso(to_nsec(text))


def validity_range(begin: str | None, end: str | None) -> tuple[str | None, str | None]:
    """Check a range of dates: ISO-8601, TAI, `None` where it is open.

    Raises
    ------
    ConfigurationError
        A date cannot be read, or the end is not after the beginning.
    """
    first = None if begin is None else _date("begin", begin)
    last = None if end is None else _date("end", end)
    if _key(first, FIRST) >= _key(last, LAST):
        raise ConfigurationError(f"the validity would end at {end or LAST}, before it begins at {begin or FIRST}")
    return first, last


def _key(time: str | None, instead: str) -> int:
    return to_nsec(time or instead)


def _require_type(repository: Repository, name: str, kind: str) -> None:
    """Refuse a name that cannot be a collection's, or that a collection of another type has."""
    if not is_collection(name):
        raise ConfigurationError(f"{name!r} cannot be a collection's name", do="letters, digits, _ . + : @ ~ - and /")
    there = repository.collection_type(name)
    if there not in (None, kind):
        raise ConfigurationError(f"{name} exists as {there}, it should be {kind}", do="choose another name")


def newest_run(repository: Repository, source: str) -> str | None:
    """Name the newest RUN of an output chain: its first child, `None` where it is empty; a RUN is its own."""
    if repository.collection_type(source) != "CHAINED":
        return source
    return next(iter(repository.chain(source)), None)


def _searched(repository: Repository, source: str, search_all_inputs: bool) -> tuple[str, ...]:
    """Name the collections to take calibrations from: datasets are certified from their own RUNs."""
    if not search_all_inputs:
        newest = newest_run(repository, source)
        if newest is None:
            raise ConfigurationError(f"chain {source} is empty: nothing was generated into it")
        source = newest
    flat = repository.flatten([source])
    searched = tuple(name for name in flat if repository.collection_type(name) != "CALIBRATION")
    if not searched:
        raise ConfigurationError(f"{source} holds certified calibrations, not generated ones")
    return searched


def _listed(data_ids: Iterable[DataId]) -> str:
    """Write data IDs for a person: detectors together, by their other dimensions."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for data_id in data_ids:
        others = tuple(str(v) for k, v in data_id.items() if k not in ("instrument", "detector"))
        groups[others] += [data_id["detector"]] if "detector" in data_id else []
    texts = []
    for others, detectors in groups.items():
        text = " ".join(others)
        if detectors:
            text += f" detector{'s' if len(detectors) > 1 else ''} {', '.join(map(str, sorted(detectors)))}"
        texts.append(text.strip())
    return "; ".join(texts)


def _require_expected(
    dataset_type: str, datasets: Sequence[Dataset], expected: Iterable[DataId], searched: Sequence[str]
) -> None:
    missing = [want for want in expected if not any(want.items() <= dataset.data_id.items() for dataset in datasets)]
    if missing:
        raise SubmissionRefused(
            f"{dataset_type} is missing for {_listed(missing)}, which the plan asked for",
            where=", ".join(searched),
            do="mend the cause and submit again, or certify from all runs with --search-all-inputs",
        )


def _require_no_overlap(
    repository: Repository,
    dataset_type: str,
    datasets: Sequence[Dataset],
    target: str,
    validity: tuple[str | None, str | None],
) -> None:
    if repository.collection_type(target) is None:
        return
    new = [dict(dataset.data_id) for dataset in datasets]
    groups: dict[tuple[str | None, str | None, str], list[Association]] = defaultdict(list)
    for link in repository.associations(dataset_type, [target]):
        if link.data_id in new and overlap((link.begin, link.end), validity):
            groups[link.begin, link.end, link.run].append(link)
    if groups:
        texts = (
            f"{_listed(link.data_id for link in links)} ({begin or 'open'} to {end or 'open'}, from {run})"
            for (begin, end, run), links in groups.items()
        )
        raise ConfigurationError(
            f"{dataset_type} is certified already in an overlapping range: {'; '.join(texts)}",
            where=target,
            do="raise CERT_RERUN (another collection, chained in front), or choose other dates",
        )


def overlap(a: tuple[str | None, str | None], b: tuple[str | None, str | None]) -> bool:
    """Whether two ranges of dates overlap."""
    return _key(a[0], FIRST) < _key(b[1], LAST) and _key(b[0], FIRST) < _key(a[1], LAST)


def check_chain(repository: Repository, parent: str, children: Sequence[str], how: Change = Change()) -> ChainReport:
    """Preview `chain`, and refuse what it would refuse; children need not exist yet.

    Call this before `certify` where both follow each other, so that a
    refused chain leaves nothing certified. Parameters and errors are `chain`'s.
    """
    if how.mode not in MODES:
        raise UsageError(f"unknown chain mode {how.mode!r}; known are {', '.join(MODES)}")
    _require_type(repository, parent, "CHAINED")
    _require_deploy(repository, parent, how.deploy)
    _require_no_cycle(repository, parent, children)
    before = repository.chain(parent) if repository.collection_type(parent) else ()
    others = tuple(name for name in before if name not in children)
    after = (*children, *others) if how.mode == "prepend" else tuple(children)
    if how.mode == "redefine" and before not in ((), after) and not how.yes:
        raise SubmissionRefused(
            f"chain {parent} is not empty: before {', '.join(before)}; after {', '.join(after)}",
            do="--mode prepend keeps the others; --yes redefines it",
        )
    return ChainReport(parent, before, after)


def chain(repository: Repository, parent: str, children: Sequence[str], how: Change = Change()) -> ChainReport:
    """Put collections into a chain; make the chain if it is missing.

    Parameters
    ----------
    repository : `~campaign.butler.repository.Repository`
        Open for writing.
    parent : `str`
        The CHAINED collection, as a rule the ticket's.
    children : `~collections.abc.Sequence` [`str`]
        Collections, in the order of the search.

    Raises
    ------
    UsageError
        An unknown mode.
    SubmissionRefused
        ``yes`` or ``deploy`` is wanted; the message shows before and after.
    ConfigurationError
        An unknown collection, one of the wrong type, a cycle.
    """
    repository.require_collections(children)
    planned = check_chain(repository, parent, children, how)
    change = {"redefine": repository.define_chain, "prepend": repository.prepend_chain}[how.mode]
    change(parent, children)
    return ChainReport(parent, planned.before, repository.chain(parent))


def _require_deploy(repository: Repository, parent: str, deploy: bool) -> None:
    if not deploy and parent in {f"{instrument}/calib" for instrument in repository.known_instruments()}:
        raise SubmissionRefused(
            f"{parent} is what everybody's work on this instrument reads",
            do="chain the ticket's collection; --deploy changes it once the calibration is adopted",
        )


def _require_no_cycle(repository: Repository, parent: str, children: Sequence[str]) -> None:
    for child in children:
        if child == parent or (repository.collection_type(child) and parent in repository.nested([child])):
            raise ConfigurationError(f"{child} holds {parent} itself: the chain would have no end")
