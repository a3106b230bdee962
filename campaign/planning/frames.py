"""Raw frames as the source of a plan: their selection, and the calibrations that correct them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from campaign.butler.records import ExposureRecord
from campaign.kinds import table
from campaign.kinds.model import Frames, ProductKind
from campaign.pipeline.makers import maker, only
from campaign.planning import agreement
from campaign.planning.corrections import Corrections, Finder
from campaign.planning.inputs import absent, allowed, missing, require
from campaign.planning.step import Options, Step, in_unit, select
from campaign.wording import listed

if TYPE_CHECKING:
    from campaign.butler.repository import Repository


class RawFrames:
    """The selected frames of a step.

    Parameters
    ----------
    kind : `ProductKind`
        The product; made of `campaign.kinds.model.Frames`.

    Raises
    ------
    ConfigurationError, SubmissionRefused
        The selection cannot become the product.
    """

    def __init__(self, step: Step, repository: Repository, options: Options, kind: ProductKind) -> None:
        self._step, self._repository, self._options, self._kind = step, repository, options, kind
        self._alone = isinstance(kind.made_of, Frames) and kind.made_of.alone
        camera, self._selection = select(step, repository, options)
        require(self._selection, allowed(kind, step.pipeline), options.allow_missing, step.query_place)
        self._settings = agreement.read(camera, self._selection)
        if not self._alone:
            agreement.require(self._settings, step.query_place)
        self.camera = in_unit(camera, step.pipeline)
        self.detectors: Sequence[int] = self._selection.detectors
        self.raws = [(raw.exposure, raw.detector) for raw in self._selection.raws]
        self.excluded: Sequence[int] = sorted(options.exclude)
        self.physical_filter = self._selection.exposures[0].physical_filter
        self._exposures = {e.id: e for e in self._selection.exposures}
        self._first: dict[tuple[int, tuple[str, ...]], int] = {}
        self._by_detector: dict[int, list[ExposureRecord]] = {d: [] for d in self.detectors}
        for exposure, detector in self.raws:
            self._by_detector[detector].append(self._exposures[exposure])

    @cached_property
    def corrections(self) -> Corrections:
        """The calibrations that are applied."""
        return Finder(
            only(self._step.pipeline, "isr"),
            self._step.pipeline.path,
            self._step.config.in_collections,
            self.camera.unit,
            self._selection,
            self._repository,
            self._options.named,
            self._kind.name,
            any(self.camera.without_overscan(detector) for detector in self.detectors),
            self._alone,
        ).find()

    @cached_property
    def _readings(self) -> dict[str, dict[int, str]]:
        """Paths of the readings that the kind asks for, by dataset type and exposure; absent types have none."""
        config, found = maker(self._step.pipeline).config, dict[str, dict[int, str]]()
        there = [name for name in self._step.config.in_collections if self._repository.collection_type(name)]
        for type, switch in self._kind.readings.items():
            if config[switch]:
                found[type] = self._repository.readings(type, there, self.camera.name, sorted(self._exposures))
        return {type: paths for type, paths in found.items() if paths}

    def _without_readings(self) -> list[str]:
        """Tell which exposures have no reading."""
        config, notes = maker(self._step.pipeline).config, list[str]()
        for type in (type for type, switch in self._kind.readings.items() if config[switch]):
            paths = self._readings.get(type, {})
            lacking = [e for e in self._exposures if e not in paths]
            if not paths:
                notes.append(f"the inputs hold no {type} reading: those beside the frames are taken")
            elif lacking:
                many = f"no {type} reading of {len(lacking)} of {len(self._exposures)} exposures"
                notes.append(f"{many}: {listed(lacking)}")
        return notes

    @property
    def applied(self) -> Sequence[str]:
        """Kinds of the calibrations that are applied."""
        return list(self.corrections.refs)

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """Calibrations by dataset ID, raws by ``<exposure>:<detector>``."""
        raws = {f"{r.exposure}:{r.detector}": {"path": r.path, "bytes": r.bytes} for r in self._selection.raws}
        beside = {
            f"{type}:{exposure}": {"path": path, "bytes": os.stat(path).st_size if os.path.exists(path) else None}
            for type, paths in self._readings.items()
            for exposure, path in paths.items()
        }
        return {**self.corrections.files, **raws, **beside}

    @cached_property
    def shared(self) -> dict[str, Any]:
        """Give the signature removal of pipeline and found calibrations, and the frames' means of identification."""
        isr = only(self._step.pipeline, "isr")
        settings = {**isr.settings, **self.corrections.settings}
        return {"isr": settings, "identity": self.camera.translation.identity}

    @property
    def notes(self) -> list[str]:
        """List what is missing, assumed or left out."""
        first = self.inputs(self.detectors[0])
        images = [role for role in self.corrections.refs if table.kinds()[role].picture == "image"]
        roles = {role: self.files[first[role][0]]["path"] for role in images}
        gone = absent(self._selection, self.camera, self._step.config.data_query)
        without = [e.id for e in self._exposures.values() if e.dark_time is None and e.exposure_time > 0]
        of_all = f"{len(without)} of {len(self._exposures)} exposures"
        return [
            *filter(None, [missing(self._selection)]),
            *self._settings.notes,
            *agreement.against(self.camera, self._settings, roles),
            *([f"no DARKTIME in {of_all}: the exposure time is used"] if without else []),
            *self.corrections.notes,
            *self._without_readings(),
            *([f"no raw of {len(gone)} science detectors is selected: {listed(gone)}"] if gone else []),
        ]

    def inputs(self, detector: int, exposure: int | None = None) -> dict[str, list[str]]:
        """Raws, the calibrations that correct them, and the readings beside them."""
        exposures = [e.id for e in self._some(detector, exposure)]
        beside = {type: [f"{type}:{e}" for e in exposures if e in paths] for type, paths in self._readings.items()}
        raws = [f"{e}:{detector}" for e in exposures]
        return {"raw": raws, **self.corrections.inputs(detector, exposure), **beside}

    def parameters(self, detector: int, exposure: int | None = None) -> dict[str, Any]:
        """IDs, dates and times (second) of the frames; filters where a product may be of several, and is."""
        exposures = self._some(detector, exposure)
        made_of, filters = self._kind.made_of, {e.physical_filter for e in self._exposures.values()}
        several = isinstance(made_of, Frames) and bool(made_of.filters_field) and len(filters) > 1
        return {
            "exposures": [e.id for e in exposures],
            "dates": [e.begin for e in exposures],
            "exposure_times": [e.exposure_time for e in exposures],
            "dark_times": [e.exposure_time if e.dark_time is None else e.dark_time for e in exposures],
            **({"filters": [e.physical_filter for e in exposures]} if several else {}),
        }

    def _some(self, detector: int, exposure: int | None) -> list[ExposureRecord]:
        return self._by_detector[detector] if exposure is None else [self._exposures[exposure]]

    def alike(self, detector: int | None, exposure: int | None) -> int | None:
        """Give the first exposure with the same calibrations, where those of a detector's frames may differ."""
        if not self._alone or detector is None or exposure is None:
            return None
        ids = tuple(self.corrections.of(kind, detector, exposure).dataset_id for kind in self.applied)
        return self._first.setdefault((detector, ids), exposure)

    def cards(self, detector: int | None, exposure: int | None = None) -> dict[str, Any]:
        """List the left-out exposures, the camera's settings, and the calibrations."""
        cards: dict[str, Any] = {
            "EXCLUDED": " ".join(map(str, self.excluded)) or "none",
            "GAINS_FROM": self._gains_from,
            **self._settings.cards,
            **self.corrections.cards(detector, exposure),
        }
        cards |= {f"CALIB_{name.upper()}": "none" for name in self._kind.misses if name not in self.corrections.refs}
        if detector is not None:
            gone = [e for e, d in self._selection.missing if d == detector]
            cards["MISSING"] = " ".join(map(str, gone)) or "none"
        return cards

    @property
    def _gains_from(self) -> str:
        if self.camera.unit != "electron":
            return "not applied"
        asked_by_unit = [name for name, one in table.corrections().items() if not one.switch]
        return next((name for name in asked_by_unit if name in self.corrections.refs), "camera file")

    def summary(self) -> list[dict[str, Any]]:
        """Summarise the applied calibrations, one row for each certification."""
        return self.corrections.summary()
