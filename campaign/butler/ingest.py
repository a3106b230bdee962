"""Sort observations into exposure records: new, existing, refused."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from lsst.daf.butler import Butler, Timespan
from lsst.daf.butler.time_utils import TimeConverter

from campaign.butler.errors import similar
from campaign.butler.records import RefusedFrame, is_tai, to_iso, to_nsec
from campaign.camera.observation import Observation

# Field of an exposure record -> attribute of an observation. In the first group all detectors of an exposure
# must agree, with each other and with what the repository has.
IDENTITY: Mapping[str, str] = {
    "observation_type": "observation_type",
    "physical_filter": "physical_filter",
    "day_obs": "day_obs",
    "seq_num": "seq_num",
    "obs_id": "obs_id",
    "exposure_time": "exposure_time",
}
DESCRIPTION: Mapping[str, str] = {
    "id": "exposure",
    "group": "obs_id",
    "dark_time": "dark_time",
    "observation_reason": "observation_reason",
    "science_program": "science_program",
    "seq_start": "seq_num",
    "seq_end": "seq_num",
}
FIELDS: Mapping[str, str] = {**IDENTITY, **DESCRIPTION}


def timespan(begin: str | None, end: str | None) -> Timespan:
    """Make the Butler's timespan of ISO-8601 TAI times; `None` leaves an end open."""
    times = (None if time is None else TimeConverter().nsec_to_astropy(to_nsec(time)) for time in (begin, end))
    return Timespan(*times)


def exposure_row(observation: Observation) -> dict[str, Any]:
    """Make the exposure record of an observation; fields that the header lacks stay null."""
    end = to_iso(to_nsec(observation.begin) + round(observation.exposure_time * 1e9))
    return {
        "instrument": observation.instrument,
        **{name: getattr(observation, attribute) for name, attribute in FIELDS.items()},
        "timespan": timespan(observation.begin, end),
    }


def insert_exposures(butler: Butler, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert exposure records with the days and groups that they need; inside a transaction."""
    rows = list(rows)
    days = {(row["instrument"], row["day_obs"]) for row in rows}
    groups = {(row["instrument"], row["group"]) for row in rows}
    insert = butler.registry.insertDimensionData
    insert("day_obs", *({"instrument": i, "id": d} for i, d in sorted(days)), skip_existing=True)
    insert("group", *({"instrument": i, "name": g} for i, g in sorted(groups)), skip_existing=True)
    insert("exposure", *rows, skip_existing=True)


def _same_file(path: str, there: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(there) or filecmp.cmp(path, there, shallow=False)


def _id_from(observation: Observation) -> str:
    return f"; the id is made of {observation.id_from}" if observation.id_from else ""


class Sorting:
    """Sort the observations of one instrument into new, existing and refused.

    Parameters
    ----------
    observations : `~collections.abc.Iterable` [`Observation`]
        Observations of one registered instrument.
    detectors, filters : `~collections.abc.Collection`
        The instrument's.
    known : `~collections.abc.Mapping`
        The repository's exposure records, by id.
    there : `~collections.abc.Mapping`
        The paths of the repository's raws, by (exposure, detector).
    limits : `~collections.abc.Mapping`
        The most characters of each field of an exposure record.
    """

    def __init__(
        self,
        observations: Iterable[Observation],
        detectors: Collection[int],
        filters: Collection[str],
        known: Mapping[int, Mapping[str, Any]],
        there: Mapping[tuple[int, int], str],
        limits: Mapping[str, int],
    ) -> None:
        self.new: dict[tuple[int, int], Observation] = {}
        self.rows: dict[int, dict[str, Any]] = {}
        self.existing: list[str] = []
        self.refused: list[RefusedFrame] = []
        self._detectors, self._filters = detectors, filters
        self._known, self._there, self._limits = known, there, limits
        for observation in observations:
            try:
                why = self._unfit(observation) or self._conflict(observation) or self._place(observation)
            except (ValueError, ArithmeticError, TypeError, LookupError) as error:
                why = f"it cannot be recorded: {error!r}"
            if why:
                self.refused.append(RefusedFrame(observation.path, why))

    def _unfit(self, observation: Observation) -> str | None:
        """Say why an observation cannot have a record at all."""
        if observation.detector not in self._detectors:
            return f"{observation.instrument} has no detector {observation.detector}"
        name = observation.physical_filter
        if name not in self._filters:
            return f"unknown filter {name!r}: {similar(name, self._filters)}"
        if not observation.exposure_time >= 0:
            return f"exposure time {observation.exposure_time} s is not a time"
        if not is_tai(observation.begin):
            return f"begin {observation.begin!r} is not an ISO-8601 time in TAI"
        for field, attribute in FIELDS.items():
            value = getattr(observation, attribute)
            if field in self._limits and not 0 < len(value) <= self._limits[field]:
                return f"{field.replace('_', ' ')} {value!r} must have 1 to {self._limits[field]} characters"
        return None

    def _conflict(self, observation: Observation) -> str | None:
        """Say where an observation disagrees with the record of its exposure."""
        record = self._known.get(observation.exposure) or self.rows.get(observation.exposure, {})
        for name, attribute in IDENTITY.items():
            mine = getattr(observation, attribute)
            if record and record[name] != mine:
                what = name.replace("_", " ")
                there = f"exposure {observation.exposure} is there with {what} {record[name]!r}"
                advice = "a repository keeps what it was told first; another one takes them with the right options"
                return f"{there}, this file has {mine!r} ({advice}){_id_from(observation)}"
        return None

    def _place(self, observation: Observation) -> str | None:
        """Take an observation as new or existing, or say which raw is in its place."""
        pair = (observation.exposure, observation.detector)
        there = self.new[pair].path if pair in self.new else self._there.get(pair)
        if there is None:
            self.new[pair] = observation
            if observation.exposure not in self._known:
                self.rows.setdefault(observation.exposure, exposure_row(observation))
            return None
        try:
            if _same_file(observation.path, there):
                self.existing.append(observation.path)
                return None
        except OSError as error:
            return f"it is there already as {there}, which cannot be compared: {error.strerror}"
        what = f"exposure {observation.exposure}, detector {observation.detector} is there already as {there}"
        return f"{what}, which is another file{_id_from(observation)}"
