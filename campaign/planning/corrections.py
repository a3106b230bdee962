"""Choose the calibrations that correct the frames, by find-first or by the operator's names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from campaign.butler.records import Association, CalibrationRef, ExposureRecord, Selection, to_nsec
from campaign.errors import ConfigurationError, SubmissionRefused
from campaign.kinds import table
from campaign.kinds.model import Correction
from campaign.problems import suggest
from campaign.wording import listed

if TYPE_CHECKING:
    from campaign.butler.repository import Repository
    from campaign.kinds.task import PipelineTask

Found = Mapping[tuple[int, int], CalibrationRef]
#: Kind that holds the electronics' level where frames have no overscan.
LEVEL: Final = "bias"
#: Most near misses in a message about a missing calibration.
NEAREST: Final = 3


@dataclass(frozen=True)
class _Miss:
    """A near miss: its distance in days, and the reason in words."""

    days: float
    text: str


def _miss(link: Association, exposure: ExposureRecord) -> _Miss | None:
    """Say why a calibration of the right detector does not fit an exposure."""
    at = to_nsec(exposure.begin)
    what = f"{link.run} in {link.collection}"
    taken = f"exposure {exposure.id} began at {exposure.begin}"
    for bound, word, sign in ((link.begin, "from", 1), (link.end, "until", -1)):
        if bound is not None and sign * (to_nsec(bound) - at) > 0:
            days = sign * (to_nsec(bound) - at) / 86400e9
            return _Miss(days, f"the nearest, {what}, is valid {word} {bound} only: {taken}, {days:.3g} days off")
    physical_filter = link.data_id.get("physical_filter", exposure.physical_filter)
    if physical_filter != exposure.physical_filter:
        return _Miss(
            0.0, f"{what} is of filter {physical_filter}, exposure {exposure.id} of {exposure.physical_filter}"
        )
    return None


@dataclass(frozen=True)
class Corrections:
    """The calibrations of a step."""

    #: Applied calibrations, by kind and detector.
    refs: Mapping[str, Mapping[int, CalibrationRef]]
    #: Kinds that the pipeline asks for and the inputs lack.
    absent: tuple[str, ...]
    #: For the operator.
    notes: tuple[str, ...]
    #: Dataset type, by kind.
    types: Mapping[str, str]
    #: RUN that find-first would give, by kind that the operator named, and detector.
    instead: Mapping[str, Mapping[int, str]]
    #: Applied calibrations by kind, exposure and detector, where each frame is a product of its own; else none.
    each: Mapping[str, Found] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, bool]:
        """Settings of the kernel, which applies only the found calibrations."""
        known = table.corrections().items()
        return {kind.setting: name in self.refs for name, kind in known if not kind.silent or name in self.refs}

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Entries of the file table, by dataset ID."""
        return {ref.dataset_id: {"path": ref.path} for _, _, ref in self._every()}

    def _every(self) -> Iterator[tuple[str, int, CalibrationRef]]:
        """List kind, detector and calibration, each as often as exposures have it."""
        for kind, refs in self.refs.items():
            several = self.each.get(kind)
            pairs = refs.items() if several is None else [(d, ref) for (_, d), ref in several.items()]
            yield from ((kind, d, ref) for d, ref in pairs)

    def of(self, kind: str, detector: int, exposure: int | None = None) -> CalibrationRef:
        """Give the calibration of a detector's frames, or of one frame."""
        several = self.each.get(kind)
        return self.refs[kind][detector] if several is None or exposure is None else several[exposure, detector]

    def inputs(self, detector: int, exposure: int | None = None) -> dict[str, list[str]]:
        """Give the keys of the file table that a detector's task reads, by role."""
        return {kind: [self.of(kind, detector, exposure).dataset_id] for kind in self.refs}

    def summary(self) -> list[dict[str, Any]]:
        """Give the applied calibrations as rows, one for each certification, with its detectors."""
        rows: dict[tuple[str | None, ...], dict[int, None]] = defaultdict(dict)
        for kind, detector, ref in self._every():
            rows[kind, ref.run, ref.collection, ref.begin, ref.end][detector] = None
        names = ("type", "run", "collection", "begin", "end")
        return [
            dict(zip(names, row, strict=True)) | {"dataset_type": self.types[str(row[0])], "detectors": list(detectors)}
            for row, detectors in rows.items()
        ]

    def cards(self, detector: int | None, exposure: int | None = None) -> dict[str, str]:
        """Give the provenance cards: each calibration's ID, RUN, collection and validity; ``none`` for absent kinds."""
        cards: dict[str, str] = {}
        for kind in self.refs:
            if detector is not None:
                ref, key = self.of(kind, detector, exposure), f"CALIB_{kind.upper()}"
                cards |= {f"{key}_ID": ref.dataset_id, f"{key}_RUN": ref.run, f"{key}_COLLECTION": ref.collection}
                cards |= {f"{key}_BEGIN": ref.begin or "unbounded", f"{key}_END": ref.end or "unbounded"}
        for kind, runs in self.instead.items():
            if detector is not None:
                cards[f"CALIB_{kind.upper()}_NAMED"] = f"by the operator, find-first gives {runs[detector]}"
        return cards | {f"CALIB_{kind.upper()}": "none" for kind in self.absent}


def require_known(named: Mapping[str, str], wanted: Collection[str], pipeline: str) -> None:
    """Refuse a calibration that the operator names and the pipeline does not ask for.

    Raises
    ------
    ConfigurationError
        With the kinds that the pipeline asks for.
    """
    for name in named.keys() - set(wanted):
        do = suggest(name, wanted) if wanted else "leave --calibration out"
        raise ConfigurationError(f"--calibration {name}: the pipeline asks for no {name}", where=pipeline, do=do)


@dataclass
class Finder:
    """Finds the calibrations of a step."""

    #: The signature removal.
    isr: PipelineTask
    #: Its file, for messages.
    pipeline: str
    #: Collections, in the order of the search.
    inputs: Sequence[str]
    #: Of the camera's frames; ``electron`` asks for gains.
    unit: str
    selection: Selection
    repository: Repository
    #: Collection that replaces find-first, by kind.
    named: Mapping[str, str]
    #: Kind of the product, which does not correct its own frames.
    product: str
    #: Whether frames have no overscan: their level stays in the bias, which is then subtracted in any case.
    without_overscan: bool = False
    #: Whether each frame is a product of its own, and may have other calibrations than the rest.
    alone: bool = False

    def __post_init__(self) -> None:
        self._there = [name for name in self.inputs if self.repository.collection_type(name) is not None]

    def find(self) -> Corrections:
        """Find all calibrations.

        Raises
        ------
        ConfigurationError
            The operator names a kind that nothing asks for, or an unknown collection.
        SubmissionRefused
            A required calibration is missing, or one that other frames have is;
            exposures of one detector need different ones.
        """
        refs, absent, notes, instead = {}, [], [], {}
        each: dict[str, Found] = {}
        wanted = {name: kind for name, kind in table.corrections().items() if self._asked(name, kind)}
        require_known(self.named, wanted, self.pipeline)
        for name, kind in table.corrections().items():
            if kind.filters and name not in wanted and self.isr.config.get(kind.switch) and name != self.product:
                notes.append(f"no {name} is subtracted: the frames' filter is none of {kind.filters}")
        for name, kind in wanted.items():
            used = found = self._search(name, kind, self._there)
            if name in self.named:
                there = [self.named[name]]
                used = self._search(name, kind, there)
                refs[name] = self._one_a_detector(name, kind, used, there)
                instead[name] = {d: self._usual(found, d) for d in self._detectors}
                usual = listed(dict.fromkeys(instead[name].values()))
                notes.append(f"{name} is that of {there[0]}, as --calibration says; find-first gives {usual}")
            elif found or kind.needed:
                refs[name] = self._one_a_detector(name, kind, found, self.inputs)
            else:
                absent.append(name)
            each |= {name: used} if self.alone and name in refs else {}
        notes += self._level_notes()
        notes += self._left_out({name: wanted[name] for name in absent})
        types = {name: self._type(name, table.corrections()[name]) for name in refs}
        return Corrections(refs, tuple(absent), tuple(notes), types, instead, each)

    @property
    def _forced(self) -> list[str]:
        """Kinds that are applied although the pipeline does not ask: without the level, light does not begin at 0."""
        if not self.without_overscan or self.product == LEVEL:
            return []
        kind = table.corrections()[LEVEL]
        return [] if self.isr.config[kind.switch] else [LEVEL]

    def _level_notes(self) -> list[str]:
        """Note the consequences of frames without overscan."""
        notes = [f"no overscan: the {name} holds the level, and is subtracted" for name in self._forced]
        if self.without_overscan and self.product == LEVEL:
            asked = {n: k.switch for n, k in table.corrections().items() if k.from_zero and self.isr.config[k.switch]}
            if asked:
                kinds, switches = ", ".join(asked), ", ".join(asked.values())
                notes.append(f"no overscan: no {kinds} is applied to raw levels ({switches})")
        return notes

    def _search(self, name: str, kind: Correction, there: Sequence[str]) -> Found:
        selection = self.selection
        return self.repository.find_calibrations(
            self._type(name, kind), there, selection.exposures, selection.detectors
        )

    def _usual(self, found: Found, detector: int) -> str:
        """Name the RUN that find-first gives for a detector."""
        pairs = [(e.id, detector) for e in self.selection.exposures]
        runs = dict.fromkeys(found[pair].run if pair in found else "none" for pair in pairs)
        return " and ".join(runs)

    def _asked(self, name: str, kind: Correction) -> bool:
        if name == self.product:
            return False
        if name in self._forced:
            return True
        if kind.from_zero and self.without_overscan and self.product == LEVEL:
            return False
        if not kind.switch:
            return self.unit == "electron"
        return bool(self.isr.config.get(kind.switch)) and (not kind.filters or self._of_filters(kind))

    def _of_filters(self, kind: Correction) -> bool:
        """Whether frames are of a correction's filters; refuses some that are beside others that are not.

        Raises
        ------
        ConfigurationError
            No filter is named.
        SubmissionRefused
            Frames of the filters and of others are selected.
        """
        named = set(self.isr.config[kind.filters])
        if not named:
            what = f"{kind.switch} is true, and {kind.filters} names no filter"
            raise ConfigurationError(what, where=self.pipeline, do=f"{kind.filters}: ['y']")
        of = {e.id: bool(named & {e.physical_filter, e.band}) for e in self.selection.exposures}
        if any(of.values()) and not all(of.values()):
            others = listed(e for e, one in of.items() if not one)
            what = f"{kind.switch} is for {listed(sorted(named))}, exposure {others} is of another filter"
            raise SubmissionRefused(what, where=self.pipeline, do="select the frames of one filter a step")
        return any(of.values())

    def _type(self, name: str, kind: Correction) -> str:
        """Give the dataset type that the pipeline reads."""
        return self.isr.inputs[kind.connection or name]

    def _left_out(self, kinds: Mapping[str, Correction]) -> list[str]:
        """Note the kinds that the inputs lack, and those that do not fit, in a line each."""
        fits = [
            name for name, kind in kinds.items() if self.repository.associations(self._type(name, kind), self._there)
        ]
        texts = []
        for names, where in (
            ([name for name in kinds if name not in fits], "in the inputs"),
            (fits, "of the inputs is for these exposures and detectors"),
        ):
            switched = {name: kinds[name].switch for name in names if kinds[name].switch}
            left = [f"left out ({', '.join(switched.values())})"] if switched else []
            left += ["gains and read noises are the camera file's"] if len(switched) < len(names) else []
            texts += [f"no {', '.join(names)} {where}: {'; '.join(left)}"] if names else []
        return texts

    def _one_a_detector(
        self, name: str, kind: Correction, found: Found, there: Sequence[str]
    ) -> dict[int, CalibrationRef]:
        self._require_all(name, kind, found, there)
        return {d: self._only(name, d, [found[e.id, d] for e in self.selection.exposures]) for d in self._detectors}

    @property
    def _detectors(self) -> Sequence[int]:
        return self.selection.detectors

    def _require_all(self, name: str, kind: Correction, found: Found, there: Sequence[str]) -> None:
        lacking: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for detector in self._detectors:
            exposures = tuple(e.id for e in self.selection.exposures if (e.id, detector) not in found)
            lacking[exposures] += [detector]
        lacking.pop((), None)
        if not lacking:
            return
        which = "; ".join(f"detector {listed(d)} at exposure {listed(e)}" for e, d in lacking.items())
        others = ", while others have one" if found else ""
        begin = f"make a {name} and certify it from before that date on (START_DATE)" if kind.needed else "certify one"
        option = f"--set extraQgraphOptions='--config {self.isr.label}:{kind.switch}=false'"
        without = f", or go without: {option}" if kind.switch else f", or take every {name} out of the inputs"
        if name in self._forced:
            without = f": these frames have no overscan, and the {name} holds their level"
        pairs = [(e, d) for exposures, detectors in lacking.items() for e in exposures for d in detectors]
        known = [collection for collection in there if self.repository.collection_type(collection)]
        near = "".join(f"\n  {text}" for text in self._nearest(self._type(name, kind), pairs, known))
        raise SubmissionRefused(
            f"no {self._type(name, kind)} is valid for {which} in {', '.join(there)}{others}{near}",
            do=f"{begin}{without}",
        )

    def _nearest(self, dataset_type: str, pairs: Sequence[tuple[int, int]], there: Sequence[str]) -> list[str]:
        """Say why the calibrations nearest to some (exposure, detector) do not fit."""
        links, detectors = self.repository.associations(dataset_type, there), {d for _, d in pairs}
        own = [link for link in links if link.data_id.get("detector") in detectors]
        if not own:
            others = sorted({int(link.data_id["detector"]) for link in links if "detector" in link.data_id})
            return [f"those of the inputs are of detector {listed(others)}"] if others else []
        lacking = {e for e, _ in pairs}
        exposures = [e for e in self.selection.exposures if e.id in lacking]
        found = [miss for link in own for e in exposures if (miss := _miss(link, e))]
        texts = dict.fromkeys(miss.text for miss in sorted(found, key=lambda m: m.days))
        return list(texts)[:NEAREST]

    def _only(self, name: str, detector: int, refs: Sequence[CalibrationRef]) -> CalibrationRef:
        several = {ref.dataset_id: ref for ref in refs}
        if len(several) > 1 and not self.alone:
            names = " and ".join(f"{r.run} ({r.begin or 'ever'} to {r.end or 'ever'})" for r in several.values())
            raise SubmissionRefused(
                f"the exposures of detector {detector} need different {name} calibrations: {names}",
                do="split the selection at the validity's limit",
            )
        return refs[0]
