"""What a raw frame's header says, in the field's words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Observation:
    """One raw frame: an (exposure, detector) pair, translated.

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
        second.
    dark_time : `float` or `None`
        second; `None` where the header has none.
    begin : `str`
        ISO-8601, TAI.
    notes : `tuple` [`str`]
        What an operator should know of the frame.
    id_from : `str`
        What the exposure's id is made of, and what to do where that is not enough.
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
