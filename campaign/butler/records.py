"""Plain values that the Butler layer hands out and takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from campaign.kinds.model import Flavour

EPOCH = datetime(1970, 1, 1)
FIRST, LAST = "1970-01-01T00:00:00", "2100-01-01T00:00:00"  # what the Butler's timespans can hold


@dataclass(frozen=True)
class ExposureRecord:
    """One exposure of a repository; ``begin`` and ``end`` are ISO-8601 TAI, times in second."""

    instrument: str
    id: int
    obs_id: str
    type: str
    reason: str
    program: str
    day_obs: int
    seq_num: int
    physical_filter: str
    band: str
    exposure_time: float
    dark_time: float | None
    begin: str
    end: str


@dataclass(frozen=True)
class Raw:
    """One raw frame with its path; ``bytes`` is `None` where the file cannot be reached."""

    exposure: int
    detector: int
    path: str
    dataset_id: str
    bytes: int | None


@dataclass(frozen=True)
class Selection:
    """The result of an expression: exposures by id, raws by (exposure, detector)."""

    exposures: tuple[ExposureRecord, ...]
    raws: tuple[Raw, ...]

    @cached_property
    def detectors(self) -> tuple[int, ...]:
        """Every detector that has at least one raw, in order."""
        return tuple(sorted({raw.detector for raw in self.raws}))

    @cached_property
    def missing(self) -> tuple[tuple[int, int], ...]:
        """The (exposure, detector) pairs without a raw, among exposures and detectors that have some."""
        found = {(raw.exposure, raw.detector) for raw in self.raws}
        return tuple((e.id, d) for e in self.exposures for d in self.detectors if (e.id, d) not in found)

    @cached_property
    def unreachable(self) -> tuple[Raw, ...]:
        """Raws of the repository whose files cannot be reached."""
        return tuple(raw for raw in self.raws if raw.bytes is None)


@dataclass(frozen=True)
class RefusedFrame:
    """A file that was not ingested, and the reason."""

    path: str
    why: str


@dataclass(frozen=True)
class IngestReport:
    """The result of an ingest: new paths, paths that were there already, and refused files."""

    new: tuple[str, ...]
    existing: tuple[str, ...]
    refused: tuple[RefusedFrame, ...]


@dataclass(frozen=True)
class Dataset:
    """A dataset that the Butler knows; ``ref`` is the Butler's own and is only handed back to it."""

    dataset_id: str
    type: str
    run: str
    data_id: Mapping[str, Any]
    path: str
    ref: Any


@dataclass(frozen=True)
class Association:
    """A dataset in a collection; the validity is ISO-8601 TAI, `None` where open or where there is none."""

    dataset_id: str
    run: str
    collection: str
    data_id: Mapping[str, Any]
    begin: str | None
    end: str | None


@dataclass(frozen=True)
class CalibrationRef:
    """The calibration that find-first gives for one exposure and detector."""

    dataset_id: str
    path: str
    run: str
    collection: str
    begin: str | None
    end: str | None


@dataclass(frozen=True)
class RepositoryFlavour:
    """Whose storage classes a repository's dataset types have: ``plain`` (ours) or ``rubin``."""

    name: Flavour
    #: Storage classes of our dataset types that are registered otherwise, by name.
    unlike: Mapping[str, str]


def to_iso(nsec: int) -> str:
    """Write a TAI time, given in ns since 1970-01-01T00:00:00 TAI, as ISO-8601, exactly."""
    seconds, fraction = divmod(nsec, 10**9)
    text = (EPOCH + timedelta(seconds=seconds)).isoformat()
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".")


def to_nsec(iso: str) -> int:
    """Read an ISO-8601 time as ns since 1970-01-01T00:00:00 of the same scale.

    Raises
    ------
    ValueError
        The text is not ISO-8601, or carries a time zone, which TAI has not.
    """
    head, _, fraction = iso.strip().partition(".")
    when = datetime.fromisoformat(head)
    if when.tzinfo is not None or (fraction and not (fraction.isdecimal() and fraction.isascii())):
        raise ValueError(f"{iso!r} is not a date and time without time zone")
    return (when - EPOCH) // timedelta(microseconds=1) * 1000 + int(f"{fraction[:9]:0<9}")


def is_tai(iso: str) -> bool:
    """Tell whether a text is an ISO-8601 time without time zone that the Butler can hold."""
    try:
        return to_nsec(FIRST) <= to_nsec(iso) <= to_nsec(LAST)
    except ValueError:
        return False
