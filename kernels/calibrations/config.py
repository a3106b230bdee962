"""Settings of the fused instrument signature removal, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from kernels.errors import JobError

OVERSCANS = ("median", "meanclip", "none")


@dataclass(frozen=True)
class IsrConfig:
    """Settings of the corrections that the pipeline asks for.

    Parameters
    ----------
    serial : `str`
        Level of a row's serial overscan: ``median``, ``meanclip`` or ``none``.
    skip_columns : `int`
        First columns of the serial overscan left out.
    parallel : `bool`
        Subtract the column level of the parallel overscan.
    saturation : `bool`
        Leave out pixels at or above saturation.
    bias, dark : `bool`
        Subtract the combined calibration.
    ptc : `bool`
        Gains and read noises from the photon transfer curve's file.
    crosstalk : `bool`
        Subtract the signal that other amplifiers leave in one.
    quadratic : `bool`
        Include crosstalk that grows with the square of the source.
    linearity : `bool`
        Subtract the amplifiers' deviation from a straight line.
    deferred : `bool`
        Move deferred charge along a row back to its pixel.
    defects : `bool`
        Flag the defects' boxes BAD.
    """

    serial: str = "median"
    skip_columns: int = 3
    parallel: bool = False
    saturation: bool = True
    bias: bool = False
    dark: bool = False
    ptc: bool = False
    crosstalk: bool = False
    quadratic: bool = True
    linearity: bool = False
    deferred: bool = False
    defects: bool = False

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
        return config
