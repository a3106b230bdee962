"""Camera geometry as kernels see it: plain boxes, built from a job's plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kernels.errors import JobError

UNITS = ("electron", "adu")


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, 0-based, ``[x0, x0 + nx) x [y0, y0 + ny)``."""

    x0: int
    y0: int
    nx: int
    ny: int

    @property
    def x1(self) -> int:
        """First column beyond the box."""
        return self.x0 + self.nx

    @property
    def y1(self) -> int:
        """First row beyond the box."""
        return self.y0 + self.ny

    @property
    def slices(self) -> tuple[slice, slice]:
        """``[y, x]`` slices of a numpy image."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


@dataclass(frozen=True)
class Amplifier:
    """One read-out channel of a detector."""

    #: As in the camera file, ``C10``.
    name: str
    #: EXTNAME, or the HDU's number (0 the primary).
    hdu: str | int
    #: Width and height of the HDU, prescan and overscan included, pixels.
    raw: tuple[int, int]
    #: Regions of the HDU; the overscans may be `None`.
    data: Box
    serial_overscan: Box | None
    parallel_overscan: Box | None
    #: Region of the assembled detector that ``data`` covers.
    target: Box
    #: Whether ``data`` is mirrored on the assembled detector.
    flip_x: bool
    flip_y: bool
    #: electron / ADU.
    gain: float
    #: electron.
    read_noise: float
    #: electron; infinite where the camera file has none.
    saturation: float
    #: Whether pixels are read towards lower columns: the serial overscan's first column is then its highest.
    leftwards: bool = False
    #: Whether the upper half of an unsigned frame's range stands for negative numbers.
    signed: bool = False

    def read_order(self, box: Box) -> Box:
        """Convert a box to the order of the serial register, where column 0 is read first."""
        return Box(self.raw[0] - box.x1, box.y0, box.nx, box.ny) if self.leftwards else box


@dataclass(frozen=True)
class Detector:
    """One CCD: its amplifiers and its place in the focal plane.

    ``size`` is the width and height of the assembled image in pixels,
    ``position_mm`` its centre in focal-plane coordinates, ``adc_max`` the
    largest raw value (ADU) that the electronics can write.
    """

    id: int
    name: str
    type: str
    size: tuple[int, int]
    position_mm: tuple[float, float]
    yaw_deg: float
    pixel_um: float
    adc_max: int
    amplifiers: tuple[Amplifier, ...]


@dataclass(frozen=True)
class Camera:
    """A job's part of a camera."""

    name: str
    unit: str
    scale: int
    detectors: Mapping[int, Detector]
    #: Further values of INSTRUME that mean this camera.
    aliases: frozenset[str] = frozenset()

    def is_named(self, instrument: str) -> bool:
        """Whether a value of INSTRUME means this camera."""
        return instrument == self.name or instrument in self.aliases


def _box(value: list[int] | None) -> Box | None:
    return None if value is None else Box(*value)


def _amplifier(plain: Mapping[str, Any], detector: Mapping[str, Any], k: int) -> Amplifier:
    data, target = _box(plain["data"]), _box(plain["target"])
    assert data is not None and target is not None
    saturation = detector["saturations"][k]
    return Amplifier(
        name=plain["name"],
        hdu=plain["hdu"],
        raw=(plain["raw"][0], plain["raw"][1]),
        data=data,
        serial_overscan=_box(plain["serial_overscan"]),
        parallel_overscan=_box(plain["parallel_overscan"]),
        target=target,
        flip_x=plain["flip_x"],
        flip_y=plain["flip_y"],
        gain=float(detector["gains"][k]),
        read_noise=float(detector["read_noises"][k]),
        saturation=float("inf") if saturation is None else float(saturation),
        leftwards=plain.get("leftwards", False),
        signed=plain.get("signed", False),
    )


def _detector(plain: Mapping[str, Any], types: Mapping[str, Any]) -> Detector:
    kind = types[plain["type"]]
    return Detector(
        id=plain["id"],
        name=plain["name"],
        type=plain["type"],
        size=(kind["size"][0], kind["size"][1]),
        position_mm=(plain["position_mm"][0], plain["position_mm"][1]),
        yaw_deg=plain["yaw_deg"],
        pixel_um=kind["pixel_um"],
        adc_max=kind["adc_max"],
        amplifiers=tuple(_amplifier(a, plain, k) for k, a in enumerate(kind["amplifiers"])),
    )


def camera(plain: Mapping[str, Any]) -> Camera:
    """Build the geometry from a job's ``camera`` section.

    Parameters
    ----------
    plain : `dict`
        ``{"name", "aliases", "unit": "electron" | "adu", "scale", "types": {T: {"size",
        "pixel_um", "adc_max", "amplifiers": [...]}}, "detectors": [{"id",
        "name", "type", "position_mm", "yaw_deg", "gains", "read_noises",
        "saturations"}]}``; boxes are 0-based ``[x0, y0, nx, ny]``.

    Raises
    ------
    JobError
        A key is missing or of the wrong kind.
    """
    try:
        detectors = {d["id"]: _detector(d, plain["types"]) for d in plain["detectors"]}
        aliases = frozenset(map(str, plain.get("aliases", ())))
        made = Camera(plain["name"], plain["unit"], int(plain["scale"]), detectors, aliases)
    except (KeyError, TypeError, ValueError, IndexError, AssertionError) as error:
        raise JobError(f"the job's camera section is incomplete: {error!r}") from error
    if made.unit not in UNITS:
        raise JobError(f"the job's camera is in unit {made.unit!r}; possible are {', '.join(UNITS)}")
    return made
