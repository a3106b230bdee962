"""Settings of the fused instrument signature removal, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from kernels.errors import JobError

OVERSCANS = ("median", "meanclip", "none")
METHODS = ("AUTO", "COULTON18", "STEPPED")
#: Upstream's switch by the setting of each correction that needs the whole frame.
WHOLE: Final = {
    "brighter_fatter": "doBrighterFatter",
    "flat": "doFlat",
    "fringe": "doFringe",
    "suspect": "doSuspect",
    "bad_regions": "doSetBadRegions",
    "interpolate": "doInterpolate",
}


@dataclass(frozen=True)
class IsrConfig:
    """Settings of the corrections that the pipeline asks for."""

    #: Level of a row's serial overscan: ``median``, ``meanclip`` or ``none``.
    serial: str = "median"
    #: First columns of the serial overscan left out.
    skip_columns: int = 3
    #: Subtract the column level of the parallel overscan.
    parallel: bool = False
    #: Leave out pixels at or above saturation.
    saturation: bool = True
    #: Subtract the combined calibration.
    bias: bool = False
    dark: bool = False
    #: Gains and read noises from the photon transfer curve's file.
    ptc: bool = False
    #: Subtract the signal that other amplifiers leave in one.
    crosstalk: bool = False
    #: Include crosstalk that grows with the square of the source.
    quadratic: bool = True
    #: Subtract the amplifiers' deviation from a straight line.
    linearity: bool = False
    #: Move deferred charge along a row back to its pixel.
    deferred: bool = False
    #: Flag the defects' boxes BAD.
    defects: bool = False
    #: Put charge back that the brighter-fatter effect has moved; of whole frames alone.
    brighter_fatter: bool = False
    #: ``COULTON18``, ``STEPPED``, or ``AUTO``: STEPPED by kernels that were made here, COULTON18 by others.
    brighter_fatter_method: str = "AUTO"
    #: Iterations; 0: as many as the method needs.
    brighter_fatter_rounds: int = 0
    #: Divide by the flat of the frame's filter; this and the following in whole frames alone.
    flat: bool = False
    #: Flag pixels at or above the turnoff of their amplifier's photon transfer curve SUSPECT.
    suspect: bool = False
    #: Give BAD pixels the median of the good ones.
    bad_regions: bool = False
    #: Interpolate pixels of some planes of the mask along their rows.
    interpolate: bool = False
    interpolated_planes: Sequence[str] = ("SAT", "BAD", "UNMASKEDNAN")
    #: Pixels by which SAT is grown before.
    grow_saturated: int = 1

    #: Subtract fringes; of whole frames alone. Number of places where their amplitude is measured, half-sides of the
    #: apertures, pixels of an unscaled camera; rounds and limit of the clip; a number that is added to the seed.
    fringe: bool = False
    fringe_places: int = 30_000
    fringe_small: int = 3
    fringe_large: int = 30
    fringe_rounds: int = 20
    fringe_clip: float = 3.0
    fringe_seed: int = 0

    #: Gains corrected by the factors of a later flat.
    gain_correction: bool = False

    @property
    def whole(self) -> list[str]:
        """Upstream's switches of the corrections that need the whole frame."""
        return [switch for setting, switch in WHOLE.items() if getattr(self, setting)]

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> IsrConfig:
        """Check and freeze.

        Raises
        ------
        JobError
            A key or value is unknown.
        """
        unknown = sorted(set(plain) - {f.name for f in fields(cls)})
        if unknown:
            raise JobError(f"isr: unknown key {unknown[0]!r}")
        config = cls(**plain)
        if config.serial not in OVERSCANS:
            raise JobError(f"isr.serial: {config.serial!r} is none of {', '.join(OVERSCANS)}")
        if config.brighter_fatter_method not in METHODS:
            known = ", ".join(METHODS)
            raise JobError(f"isr.brighter_fatter_method: {config.brighter_fatter_method!r} is none of {known}")
        return config
