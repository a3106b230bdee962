"""Settings of the fused instrument signature removal, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from kernels.errors import JobError

OVERSCANS = ("median", "meanclip", "none")
METHODS = ("AUTO", "COULTON18", "STEPPED")


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
    #: Divide by the combined flat; of whole frames alone.
    flat: bool = False
    #: Gains corrected by the factors of a later flat.
    gain_correction: bool = False

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
