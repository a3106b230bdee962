"""The simulator's truth: the real properties of every pixel of a detector.

The model, in the order in which it makes a frame:

- charge (electron): Poisson noise about dark current x dark time + lamp x
  response + night sky x response (`kernels.simulation.skies`) + spots and
  stars + light that leaks through the shutter, with the
  brighter-fatter effect where `Rates` asks for it
  (`kernels.simulation.brighter`), then cosmic rays, then full well;
- signal (ADU): charge / gain + bias structure (imaging area only), with the
  electronics' non-linearity and crosstalk where `Rates` asks for them;
- raw value (ADU): signal + the amplifier's level and its drift + a row drift
  + Gaussian read noise, rounded and clipped to the converter's range.

Levels and drifts are common to a row, prescan and overscan included, and the
bias structure is 0 outside the imaging area: an overscan subtraction removes
levels and drifts exactly and leaves the structure alone.  Charge is deferred
along the rows where `Rates` asks for it.  Not in the model: transfer
inefficiency along the columns.

Everything is a function of seed and ids: each array has its own random
stream, so that neither ranks nor the order of work change a bit.  Default
values are those of SITCOMTN-148 (LSSTCam, run 7).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.camera.focalplane import radius_mm
from kernels.camera.geometry import Amplifier, Detector
from kernels.simulation import electronics
from kernels.simulation.electronics import Electronics
from kernels.simulation.rates import Rates, Stream, generator
from kernels.simulation.skies import Sky, patterns

F32 = NDArray[np.float32]

#: Radius from which a vampire pixel draws charge, pixels.
VAMPIRE_PX = 3
#: A pixel at the edge that keeps less of its response than this is a defect.
LOST = 0.87


@dataclass(frozen=True)
class Truth:
    """Truth of one detector.

    Images are [y, x], float32, on the assembled detector.
    """

    #: Its gains and read noises are the true ones.
    detector: Detector
    #: [amplifier], float64: Bias levels, ADU.
    levels: NDArray[np.float64]
    #: Bias structure, ADU of the amplifier that reads the pixel.
    structure: F32
    #: Dark current, hot pixels included, electron/second.
    dark: F32
    #: Relative response by physical filter, dead pixels included.
    response: Mapping[str, F32]
    #: bool: The injected defects: pixels and columns that glow, or that respond badly to light; pixels that draw
    #: others' charge, or lose light at an edge.
    hot: NDArray[np.bool_]
    dead: NDArray[np.bool_]
    vampire: NDArray[np.bool_]
    edge: NDArray[np.bool_]
    #: Crosstalk, non-linearity and deferred charge.
    electronics: Electronics
    #: [y, x], float32, or `None`: Full wells, where pixels have their own, electron.
    wells: F32 | None = None
    #: By physical filter: what the night sky shows, where there are exposures of it.
    skies: Mapping[str, Sky] = field(default_factory=dict)


def oriented(image: NDArray[Any], amplifier: Amplifier) -> NDArray[Any]:
    """Mirror an amplifier's imaging area between read-out and detector orientation (its own inverse)."""
    return image[:: -1 if amplifier.flip_y else 1, :: -1 if amplifier.flip_x else 1]


def _axes(shape: tuple[int, int]) -> tuple[F32, F32]:
    """Make coordinates from -1 to 1, [y, 1] and [1, x]."""
    v, u = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    return v[:, None], u[None, :]


def _smooth(rng: np.random.Generator, shape: tuple[int, int]) -> F32:
    """Draw a second-order surface of zero mean, at most 1 in size."""
    v, u = _axes(shape)
    a, b, c, d, e = rng.uniform(-0.2, 0.2, 5).astype(np.float32)
    return a * u + b * v + c * u * v + d * (u * u - 1 / 3) + e * (v * v - 1 / 3)


def _structure(rng: np.random.Generator, amplifier: Amplifier, rates: Rates) -> F32:
    """Draw an amplifier's bias structure in read-out orientation, ADU; [0, 0] is read first."""
    ny, nx = amplifier.data.ny, amplifier.data.nx
    columns = rng.normal(0.0, 0.5, nx)
    reach = max(4.0, 0.1 * min(nx, ny))
    glow = 3.0 * rng.uniform(0.5, 1.5) * np.exp(-np.add.outer(np.arange(ny), np.arange(nx)) / reach)
    return np.asarray(rates.structure * (10 * _smooth(rng, (ny, nx)) + columns + glow), dtype=np.float32)


def _defects(rng: np.random.Generator, shape: tuple[int, int], rates: Rates) -> tuple[NDArray[np.int64], int]:
    """Draw distinct flat indices of hot (the first ``n``) and dead pixels; return them and ``n``."""
    pixels = shape[0] * shape[1]
    hot, dead = (math.ceil(f * pixels) for f in (rates.hot, rates.dead))
    return rng.choice(pixels, hot + dead, replace=False), hot


def _spoil_column(rng: np.random.Generator, detector: Detector, mask: NDArray[np.bool_], rates: Rates) -> None:
    """Mark a stretch of a column of one amplifier, with gaps."""
    box = detector.amplifiers[rng.integers(len(detector.amplifiers))].target
    length = math.ceil(box.ny * rng.uniform(0.3, 1.0))
    x, y = box.x0 + rng.integers(box.nx), box.y0 + rng.integers(box.ny - length + 1)
    mask[y : y + length, x] |= rng.random(length) < rates.column_fill


def _draw(rng: np.random.Generator, qe: F32, mask: NDArray[np.bool_], rates: Rates) -> None:
    """Let a pixel away from the edges draw its excess light from the pixels around it."""
    y, x = (int(rng.integers(VAMPIRE_PX, n - VAMPIRE_PX)) for n in qe.shape)
    around = qe[y - VAMPIRE_PX : y + VAMPIRE_PX + 1, x - VAMPIRE_PX : x + VAMPIRE_PX + 1]
    v, u = np.mgrid[-VAMPIRE_PX : VAMPIRE_PX + 1, -VAMPIRE_PX : VAMPIRE_PX + 1]
    ring = (np.hypot(u, v) <= VAMPIRE_PX) & ((u != 0) | (v != 0))
    core = rng.uniform(*rates.vampire_response)
    around[ring] *= np.float32(1 - (core - 1) / np.count_nonzero(ring))
    around[VAMPIRE_PX, VAMPIRE_PX] = core
    mask[y, x] = True


def _edges(shape: tuple[int, int], rates: Rates) -> F32:
    """Compute the relative response near the detector's edges."""
    v, u = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in shape)
    depth = np.exp(-np.minimum(v[:, None], u[None, :]) / rates.edge_px)
    return np.asarray(1 - rates.edge_depth * depth, np.float32)


def _vignetting(radius: F32, rates: Rates) -> F32:
    """Compute the fraction of the light at a radius: 3 % down at the first edge, then falling steeply to the second."""
    inner, outer = rates.vignetting_mm
    edge = np.clip((radius - inner) / (outer - inner), 0, 1)
    steps = edge * edge * (3 - 2 * edge)
    return np.asarray((1 - 0.03 * (radius / inner) ** 2) * (1 - (1 - rates.vignetting) * steps), dtype=np.float32)


def _stains(rng: np.random.Generator, shape: tuple[int, int]) -> F32:
    """Draw rings of depth -1, like the stains of drying on a sensor."""
    v, u = _axes(shape)
    image = np.zeros(shape, np.float32)
    for _ in range(3):
        (x, y), r, width = rng.uniform(-0.8, 0.8, 2), rng.uniform(0.2, 0.6), rng.uniform(0.03, 0.1)
        image -= np.exp(-(((np.hypot(u - x, v - y) - r) / width) ** 2)).astype(np.float32)
    return image


def _filter_id(physical_filter: str) -> int:
    return zlib.crc32(physical_filter.encode())


def _response(detector: Detector, physical_filter: str, qe: F32, seed: int, rates: Rates) -> F32:
    x, y, radius = radius_mm(detector)
    lamp = generator(seed, Stream.RESPONSE, _filter_id(physical_filter))
    slope = rates.lamp_gradient * lamp.uniform(-1, 1, 2).astype(np.float32) / 350
    rng = generator(seed, Stream.RESPONSE, _filter_id(physical_filter), detector.id)
    image = qe * _vignetting(radius, rates) * (1 + slope[0] * x + slope[1] * y)
    image *= 1 + np.float32(rates.stain) * rng.uniform(0.3, 1.0) * _stains(rng, image.shape)
    image *= 1 + np.float32(rates.detector_step * rng.standard_normal())
    for amplifier in detector.amplifiers:
        image[amplifier.target.slices] *= 1 + np.float32(rates.amplifier_step * rng.standard_normal())
    return np.asarray(image, dtype=np.float32)


def make(seed: int, detector: Detector, filters: Iterable[str], rates: Rates, skies: Iterable[str] = ()) -> Truth:
    """Make the truth of one detector.

    Parameters
    ----------
    seed : `int`
        Seed of the whole simulation.
    filters : iterable of `str`
        Physical filters of the wanted responses, which do not depend on one
        another.
    skies : iterable of `str`
        Those of them in which the night sky is exposed.
    """
    shape = detector.size[1], detector.size[0]
    levels = generator(seed, Stream.LEVEL, detector.id).uniform(*rates.level, len(detector.amplifiers))
    structure = np.zeros(shape, np.float32)
    for k, amplifier in enumerate(detector.amplifiers):
        rng = generator(seed, Stream.STRUCTURE, detector.id, k)
        structure[amplifier.target.slices] = oriented(_structure(rng, amplifier, rates), amplifier)
    rng = generator(seed, Stream.DARK, detector.id)
    current = np.float32(rates.dark_current.get(detector.type[:3], min(rates.dark_current.values())))
    dark = current * (1 + np.float32(rates.dark_gradient) * _smooth(rng, shape))
    rng = generator(seed, Stream.DEFECTS, detector.id)
    where, n_hot = _defects(rng, shape, rates)
    hot, dead, vampire = (np.zeros(shape, bool) for _ in range(3))
    hot.flat[where[:n_hot]] = True
    dead.flat[where[n_hot:]] = True
    columns = generator(seed, Stream.COLUMNS, detector.id)
    for mask, number in ((hot, rates.hot_columns), (dead, rates.dead_columns)):
        for _ in range(number):
            _spoil_column(columns, detector, mask, rates)
    dead &= ~hot
    dark[hot] = np.exp(rng.uniform(math.log(rates.hot_rate[0]), math.log(rates.hot_rate[1]), np.count_nonzero(hot)))
    qe = 1 + np.float32(rates.qe) * generator(seed, Stream.QE, detector.id).standard_normal(shape, dtype=np.float32)
    edges = _edges(shape, rates)
    qe *= edges
    qe[dead] = rng.uniform(0, rates.dead_response, np.count_nonzero(dead))
    for _ in range(rates.vampires):
        _draw(columns, qe, vampire, rates)
    for amplifier in detector.amplifiers:
        if rates.dead_amplifiers.get(detector.name) == amplifier.name:
            at = amplifier.target.slices
            dark[at] = qe[at] = 0
            dead[at], hot[at], vampire[at] = True, False, False
    response = {f: _response(detector, f, qe, seed, rates) for f in sorted(filters)}
    made, wells = electronics.make(seed, detector, rates), _wells(seed, detector, rates)
    glows = {f: patterns(seed, detector, f, rates) for f in sorted(skies)}
    return Truth(detector, levels, structure, dark, response, hot, dead, vampire, edges < LOST, made, wells, glows)


def _wells(seed: int, detector: Detector, rates: Rates) -> F32 | None:
    """Draw the full well of each pixel [y, x], electron."""
    if not rates.well_spread:
        return None
    rng, shape = generator(seed, Stream.WELLS, detector.id), (detector.size[1], detector.size[0])
    wells = 1 + np.float32(rates.well_spread) * rng.standard_normal(shape, dtype=np.float32)
    for amplifier in detector.amplifiers:
        wells[amplifier.target.slices] *= np.float32(electronics.full_well(amplifier, rates))
    return wells


def lamp(seed: int, exposure: int, physical_filter: str, exposure_time: float, rates: Rates) -> float:
    """Compute the light of a flat in a pixel of response 1, electron."""
    level = generator(seed, Stream.LAMP, _filter_id(physical_filter)).uniform(0.8, 1.2)
    return float(rates.lamp * level * jitter(seed, exposure, rates) * exposure_time)


def jitter(seed: int, exposure: int, rates: Rates) -> float:
    """Draw the relative brightness of the lamp in one exposure."""
    return float(1 + rates.lamp_jitter * generator(seed, Stream.LAMP, exposure).standard_normal())


@dataclass(frozen=True)
class CosmicRays:
    """Charge of the cosmic rays of one (exposure, detector).

    ``x`` and ``y`` (int32, pixels of the assembled detector) and ``charge``
    (float32, electron), each [hit pixel]; no pixel occurs twice.
    """

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    charge: F32


def _hit(rng: np.random.Generator, rates: Rates) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw offsets [2, pixel] and charge [pixel] of one hit."""
    charge = rng.uniform(*rates.track_charge)
    offsets: NDArray[Any]
    if rng.random() < rates.spots:
        offsets = rng.integers(0, 2, (2, rng.integers(1, 5)))
    else:
        angle, steps = rng.uniform(0, 2 * math.pi), np.arange(rng.integers(*rates.track_px, endpoint=True))
        offsets = np.rint([np.cos(angle) * steps, np.sin(angle) * steps]).astype(int)
    offsets = np.unique(offsets, axis=1)
    return offsets, np.asarray(charge * rng.uniform(0.8, 1.2, offsets.shape[1]))


def cosmic_rays(seed: int, exposure: int, detector: Detector, scale: int, dark_time: float, rates: Rates) -> CosmicRays:
    """Draw straight tracks and spots that hit a detector in one exposure.

    Parameters
    ----------
    scale : `int`
        Scale of the camera, by which the nominal size of a pixel was multiplied.
    dark_time : `float`
        Dark time, second; the read-out time is added.
    """
    rng = generator(seed, Stream.COSMIC, exposure, detector.id)
    nx, ny = detector.size
    area = nx * ny * (detector.pixel_um / scale * 1e-4) ** 2
    image: dict[int, float] = {}
    for _ in range(rng.poisson(rates.cosmic_rays * area * (dark_time + rates.readout_time))):
        start = rng.integers(0, (nx, ny))[:, None]
        offsets, charge = _hit(rng, rates)
        x, y = start + offsets
        for i in np.flatnonzero((x >= 0) & (x < nx) & (y >= 0) & (y < ny)):
            at = int(y[i]) * nx + int(x[i])
            image[at] = image.get(at, 0.0) + charge[i]
    where = np.fromiter(image, np.int64, len(image))
    total = np.fromiter(image.values(), np.float32, len(image))
    return CosmicRays((where % nx).astype(np.int32), (where // nx).astype(np.int32), total)
