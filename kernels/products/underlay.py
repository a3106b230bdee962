"""Sky and stars of the frames of a combination, taken out of each block of their rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.applied import Calibrations
from kernels.calibrations.config import IsrConfig
from kernels.camera.geometry import Box, Detector
from kernels.errors import DataError, JobError
from kernels.fits.product import BAD, PLANES
from kernels.isr.blanks import oriented
from kernels.isr.channel import Block, Channel, target
from kernels.isr.noise import unlike
from kernels.products.flatlevels import read_json
from kernels.products.packed import unpack
from kernels.statistics.cells import edges
from kernels.statistics.clip import IQR_TO_SIGMA
from kernels.statistics.surface import Surface

F32 = NDArray[np.float32]

#: Robust standard deviations beyond which a pixel is no part of a pattern.
FAR = 5.0
#: Least response of a pixel that is divided by.
LEAST = 0.01
#: Planes of a flat whose pixels have no response.
_DARK = BAD | 1 << PLANES["NO_DATA"] | 1 << PLANES["VIGNETTED"]


def excess(image: F32, variance: F32, mask: NDArray[np.int32]) -> float:
    """Compute the root mean square of the good pixels of an image [y, x] about 0, less its noise.

    Pixels beyond `FAR` robust standard deviations, like a bin with a hot pixel, would hide the pattern: they are left
    out.
    """
    values, noise = image[mask == 0].astype(np.float64), variance[mask == 0]
    if not values.size:
        return 0.0
    lower, centre, upper = np.percentile(values, (25, 50, 75))
    near = np.abs(values - centre) <= FAR * IQR_TO_SIGMA * (upper - lower)
    return math.sqrt(max(float(np.mean(values[near] ** 2 - noise[near])), 0.0)) if near.any() else 0.0


@dataclass(frozen=True)
class Underlay:
    """Contents of ``fringeMeasure`` for a detector's frames, in the order of a task's exposures."""

    path: str
    calibrations: Calibrations
    #: [frame], float64: Level of the sky, in the unit of the frames; 1 where the frame is left out.
    levels: NDArray[np.float64]
    #: [frame], float64: Weight of each frame, sum 1; `None` where all are alike.
    weights: NDArray[np.float64] | None
    #: Background by frame, `None` where the frame is left out.
    surfaces: Sequence[Surface | None]
    #: Detections by frame, packed along the whole image.
    found: Sequence[NDArray[np.uint8] | None]
    #: Why frames are left out, by exposure.
    left_out: Mapping[int, str]

    @classmethod
    def open(
        cls,
        path: str,
        detector: Detector,
        calibrations: Calibrations,
        isr: IsrConfig,
        exposures: Sequence[int],
        weigh: bool,
    ) -> Underlay:
        """Read the measurements.

        Raises
        ------
        DataError
            The file lacks an exposure, or is another detector's.
        JobError
            The frames are to be corrected in a way that rows alone do not allow.
        """
        if isr.brighter_fatter or isr.fringe:
            raise JobError("doBrighterFatter and doFringe need whole frames, a fringe is combined from rows")
        table = read_json(path)
        if list(detector.size) != table["size"] or detector.id != table["detector"]:
            raise DataError(path, f"is of detector {table['detector']}, {table['size']} pixels")
        left = {int(e): str(why) for e, why in table["left_out"].items()}
        at = {e: k for k, e in enumerate(table["exposures"])}
        if missing := [e for e in exposures if e not in at and e not in left]:
            raise DataError(path, f"has no exposure {missing[0]}")
        places = [at.get(e) for e in exposures]
        rows, columns = (edges(n, int(table["cell"])) for n in detector.size[::-1])
        surfaces = [None if k is None else Surface(unpack(path, table["values"][k]), rows, columns) for k in places]
        levels = np.array([1.0 if k is None else table["level"][k] for k in places])
        noises = np.array([np.nan if k is None else table["noise"][k] / table["level"][k] for k in places])
        signals = np.exp2(np.round(-2 * np.log2(noises)) / 2)  # weights as fine as the table of their clips
        signals[~np.isfinite(signals)] = np.nanmin(signals)
        weights = signals**2 / (signals**2).sum() if weigh and unlike(signals, cls.worth()) else None
        found = [None if k is None else unpack(path, table["found"][k]) for k in places]
        return cls(path, calibrations, levels, weights, surfaces, found, left)

    @staticmethod
    def worth() -> float:
        """Give the excess variance of a plain mean from which frames are weighted, relative."""
        from kernels.products.reduce import WORTH

        return WORTH

    @cached_property
    def _flat(self) -> tuple[F32, F32] | None:
        """Response [y, x], NaN where there is none, and its variance, relative; `None` without a flat."""
        flat, (width, height) = self.calibrations.flat, self.calibrations.detector.size
        if flat is None:
            return None
        box = Box(0, 0, width, height)
        response = np.ascontiguousarray(flat.read(box), np.float32)
        response[~(response > LEAST) | flat.flagged(box, _DARK)] = np.nan
        spread = np.zeros_like(response)
        if flat.has("VARIANCE"):
            spread = np.nan_to_num(flat.read(box, "VARIANCE") / response**2, posinf=0, neginf=0).astype(np.float32)
        return response, spread

    def take_out(self, channel: Channel, block: Block, first: int) -> None:
        """Leave the fringes alone in a block of rows from data row ``first`` on, in place.

        Pixels are (S - level) / level before, and (S / flat - background) / level afterwards; +infinity where masked.
        """
        box, width = target(channel.amplifier, first, first + block.rows), self.calibrations.detector.size[0]
        pixels, flat = block.pixels, self._flat
        response = None if flat is None else oriented(flat[0][box.slices], channel.amplifier)
        for frame, level, surface, bits in zip(pixels, self.levels, self.surfaces, self.found, strict=True):
            if surface is None or bits is None:
                frame[:] = np.inf
                continue
            rest = np.zeros((box.ny, box.nx), np.float32)
            surface.subtract(rest, box)
            rows = np.unpackbits(bits[box.y0 * width // 8 : -(-box.y1 * width // 8)])
            start = box.y0 * width % 8
            masked = rows[start : start + box.ny * width].reshape(box.ny, width)[:, box.x0 : box.x1].view(np.bool_)
            frame += 1
            if response is not None:
                frame /= response
            frame += oriented(rest, channel.amplifier) / np.float32(level)
            frame[oriented(masked, channel.amplifier) | ~np.isfinite(frame)] = np.inf

    def add(self, variance: F32, box: Box) -> None:
        """Add the flat's variance to an amplifier's rows [y, x], in place."""
        if self._flat is not None:
            variance += self._flat[1][box.slices]

    @staticmethod
    def error(variance: F32, mask: NDArray[np.int32]) -> float:
        """Give the usual error of a good pixel, relative; 0 where none is good."""
        good = mask == 0
        return math.sqrt(float(np.median(variance[good]))) if good.any() else 0.0

    def plain(self) -> dict[str, Any]:
        """Describe what was left out, for the journal and the header."""
        return {f"{e}": why for e, why in sorted(self.left_out.items())}
