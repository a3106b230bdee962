"""Instruments: register them, with their detectors and filters, and list them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lsst.daf.butler import DimensionRecord

from campaign.butler.collections import Collections
from campaign.butler.errors import answers, similar
from campaign.butler.wait import writes
from campaign.errors import ConfigurationError
from campaign.killpoints import reach

Detector = tuple[int, str, str, str, str]
DETECTOR_FIELDS = ("id", "full_name", "raft", "name_in_raft", "purpose")


class Instruments(Collections):
    """Part of a repository: instruments."""

    @answers
    def known_instruments(self) -> tuple[str, ...]:
        """List the registered instruments."""
        return tuple(sorted(record.name for record in self._records("instrument")))

    def require_instrument(self, name: str) -> None:
        """Refuse an instrument that is not registered.

        Raises
        ------
        ConfigurationError
            The instrument is not registered; those that are, are listed.
        """
        known = self.known_instruments()
        if name not in known:
            raise ConfigurationError(f"unknown instrument {name!r}: {similar(name, known)}", where=self.root)

    def _records(self, element: str, **data_id: Any) -> Sequence[DimensionRecord]:
        return self._butler.query_dimension_records(element, explain=False, limit=None, **data_id)

    @writes
    def register_instrument(
        self, name: str, class_name: str, detectors: Sequence[Detector], filters: Sequence[tuple[str, str]]
    ) -> None:
        """Register an instrument, its raw RUN and its chains, as far as they are missing.

        Parameters
        ----------
        name, class_name : `str`
            Fields of the Butler's instrument record.
        detectors : `~collections.abc.Sequence` [`tuple`]
            (id, full name, raft, slot, purpose).
        filters : `~collections.abc.Sequence` [`tuple`]
            (physical filter, band).

        Raises
        ------
        ConfigurationError
            The repository has another detector of this id, or another band of this filter.
        """
        known = name in self.known_instruments()
        if known:
            self._require_same(name, "detector", "id", "full_name", {d[0]: d[1] for d in detectors})
            self._require_same(name, "physical_filter", "name", "band", dict(filters))
        insert = self._butler.registry.insertDimensionData
        limits = {"detector_max": max(d[0] for d in detectors) + 1, "visit_max": 2**52, "exposure_max": 2**52}
        with self._butler.transaction():
            if not known:
                insert("instrument", {"name": name, "class_name": class_name, "visit_system": 0, **limits})
            # A camera without rafts leaves the field out: the Butler refuses an empty name.
            fields = (zip(DETECTOR_FIELDS, d, strict=True) for d in detectors)
            rows = [{"instrument": name} | {key: v for key, v in some if v != ""} for some in fields]
            insert("detector", *rows, skip_existing=True)
            bands = [{"instrument": name, "name": f, "band": band} for f, band in filters]
            insert("physical_filter", *bands, skip_existing=True)
        reach("instrument-recorded")
        self.claim_run(f"{name}/raw/all")
        self.ensure_chain(f"{name}/calib")
        self.ensure_chain(f"{name}/defaults", [f"{name}/raw/all", f"{name}/calib"])

    def _require_same(self, instrument: str, element: str, key: str, field: str, wanted: Mapping[Any, str]) -> None:
        for record in self._records(element, instrument=instrument):
            name, there = getattr(record, key), getattr(record, field)
            if wanted.get(name, there) != there:
                raise ConfigurationError(
                    f"{element.replace('_', ' ')} {name} of {instrument} has {field.replace('_', ' ')} {there!r} in "
                    f"the repository and {wanted[name]!r} in the camera",
                    where=self.root,
                    do="use the camera that the repository was made with",
                )
