"""Sky frames that a perfect measurement of the simulated skies would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.camera.focalplane import places_mm
from kernels.camera.geometry import Camera
from kernels.simulation.rates import Rates
from kernels.simulation.skies import Sky, glow, patterns
from kernels.statistics.cells import means
from kernels.transfer.superpixels import Cells, bins, measure, solve

F64 = NDArray[np.float64]


def expected(
    seed: int,
    camera: Camera,
    exposures: Sequence[Mapping[str, Any]],
    rates: Rates,
    size_mm: float,
    bin_px: int,
    weights: Sequence[float] | None = None,
) -> dict[int, F64]:
    """Compute the sky frames of exposures without noise, stars and defects.

    Parameters
    ----------
    exposures : sequence of `dict`
        Parameters of the raw frames of one filter, as `kernels.simulation.simulate` has them.
    size_mm, bin_px
        Superpixel, mm, and bin of an unscaled camera, pixel.
    weights : sequence of `float`, optional
        Of the exposures; alike by default.

    Returns
    -------
    frames : `dict` [`int`, `numpy.ndarray`]
        By detector [bin, bin], float64, relative.
    """
    skies: dict[int, Sky] = {
        d.id: patterns(seed, d, str(exposures[0]["physical_filter"]), rates) for d in camera.detectors.values()
    }
    found: dict[int, list[F64]] = {d: [] for d in camera.detectors}
    for exposure in exposures:
        rows: dict[str, list[list[float]]] = {}
        binned = {}
        for d in camera.detectors.values():
            image = glow(seed, d, skies[d.id], exposure, rates)
            rows.setdefault(d.type, []).extend(measure(d, image, size_mm))
            binned[d.id] = means(image, *bins(d, bin_px, camera.scale)).astype(np.float64)
        pitch = min(d.pixel_um for d in camera.detectors.values()) * 1e-3
        backgrounds = {
            kind: solve(Cells.of(some), size_mm, 0.1 * (size_mm / pitch) ** 2) for kind, some in rows.items()
        }
        for d in camera.detectors.values():
            (high, wide), background = bins(d, bin_px, camera.scale), backgrounds[d.type]
            assert background is not None
            at = places_mm(d, (wide[:-1] + wide[1:] - 1) / 2, (high[:-1] + high[1:] - 1) / 2)
            found[d.id].append((binned[d.id] - background.at(*at)) / background.level)
    return {d: np.asarray(np.average(some, axis=0, weights=weights)) for d, some in found.items()}
