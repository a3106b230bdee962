"""Header of a raw frame, translated into the Butler's words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Observation:
    """Raw frame, translated: one (exposure, detector) pair."""

    #: The file.
    path: str
    #: The Butler's instrument name.
    instrument: str
    #: Identifiers; ``day_obs`` as YYYYMMDD.
    exposure: int
    detector: int
    day_obs: int
    seq_num: int
    #: The exposure's name.
    obs_id: str
    #: ``bias``, ``dark``, ``flat``, ... in lower case.
    observation_type: str
    #: ``unknown`` where the header has none.
    observation_reason: str
    science_program: str
    #: One of the camera's filters.
    physical_filter: str
    #: Second.
    exposure_time: float
    #: Second; `None` where the header has none.
    dark_time: float | None
    #: ISO-8601, TAI.
    begin: str
    #: Remarks for the operator.
    notes: tuple[str, ...] = ()
    #: Sources of the exposure's id, and a remedy where ids collide.
    id_from: str = ""
