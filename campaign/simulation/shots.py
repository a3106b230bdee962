"""Exposures to be simulated: ids and times that follow from night, number and begin."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final

from campaign.camera.model import Camera
from campaign.camera.translation import lsst_id, timestamp_id, timestamp_seq_num

#: Beginning of the observation ids of the cameras that number their exposures as the LSST camera does.
PREFIX: Final = {"LSSTCam": "MC", "LSSTComCam": "CC", "LATISS": "AT"}
MJD_EPOCH: Final = datetime(1858, 11, 17)


@dataclass(frozen=True)
class Exposure:
    """Exposure to be simulated, as `kernels.simulation.simulate` needs it."""

    exposure: int
    obs_id: str
    day_obs: int
    seq_num: int
    observation_type: str
    exposure_time: float
    dark_time: float
    physical_filter: str | None
    begin: str
    mjd: float
    reason: str
    program: str = "BLOCK-SIM"
    electrons: float | None = None
    leak: float = 0.0
    jump: float = 0.0
    spots: int = 0
    lit: int = 0
    stars: int = 0
    sky: float = 0.0
    fringe: float = 0.0
    diode_scale: float = 1.0

    def plain(self) -> dict[str, Any]:
        """Give the values for a job, without defaults."""
        usual = {f.name: f.default for f in fields(Exposure) if f.default is not MISSING and f.name != "program"}
        return {k: v for k, v in asdict(self).items() if k not in usual or v != usual[k]}


def exposure_at(
    camera: Camera, day: int, number: int, begin: datetime, kind: str, seconds: float, **more: Any
) -> Exposure:
    """Make an exposure, with ids and times that follow from its night, its number and its begin."""
    if camera.name in PREFIX:
        identity, name = lsst_id(day, number, "O"), f"{PREFIX[camera.name]}_O_{day}_{number:06d}"
    else:
        identity, number = timestamp_id(begin), timestamp_seq_num(begin)
        name = f"{camera.name}_{identity}"
    return Exposure(
        exposure=identity,
        obs_id=name,
        day_obs=day,
        seq_num=number,
        observation_type=kind,
        exposure_time=seconds,
        dark_time=seconds + (0.05 if seconds else 0.03),
        begin=begin.isoformat(timespec="milliseconds"),
        mjd=(begin - MJD_EPOCH) / timedelta(days=1),
        **more,
    )
