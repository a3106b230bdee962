"""Header of a raw frame, translated into the Butler's words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Observation:
    """Raw frame, translated: one (exposure, detector) pair.

    Parameters
    ----------
    path : `str`
        The file.
    instrument : `str`
        The Butler's instrument name.
    exposure, detector, day_obs, seq_num : `int`
        Identifiers; ``day_obs`` as YYYYMMDD.
    obs_id : `str`
        The exposure's name.
    observation_type : `str`
        ``bias``, ``dark``, ``flat``, ... in lower case.
    observation_reason, science_program : `str`
        ``unknown`` where the header has none.
    physical_filter : `str`
        One of the camera's filters.
    exposure_time : `float`
        Second.
    dark_time : `float` or `None`
        Second; `None` where the header has none.
    begin : `str`
        ISO-8601, TAI.
    notes : `tuple` [`str`]
        Remarks for the operator.
    id_from : `str`
        Sources of the exposure's id, and a remedy where ids collide.
    """

    path: str
    instrument: str
    exposure: int
    detector: int
    day_obs: int
    seq_num: int
    obs_id: str
    observation_type: str
    observation_reason: str
    science_program: str
    physical_filter: str
    exposure_time: float
    dark_time: float | None
    begin: str
    notes: tuple[str, ...] = ()
    id_from: str = ""
