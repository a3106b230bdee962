"""Light of single exposures that is no flat: spots in one amplifier, and stars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box, Detector
from kernels.simulation.rates import Rates, Stream, generator

F32 = NDArray[np.float32]

#: Radius to which a spot or star is drawn, in its own sigma: 1e-7 of its peak lies beyond.
RADII = 6.0


def scene(seed: int, detector: Detector, parameters: Mapping[str, Any], rates: Rates) -> F32 | None:
    """Make the expected light of spots and stars of an exposure.

    Parameters
    ----------
    parameters : `dict`
        An exposure's, as `kernels.simulation.simulate` has them: ``spots``,
        number in the amplifier of index ``lit``; ``stars``, number on the
        detector.

    Returns
    -------
    scene : `numpy.ndarray` [y, x], float32, or `None`
        On the assembled detector, electron.
    """
    spots, stars = int(parameters.get("spots", 0)), int(parameters.get("stars", 0))
    if not spots and not stars:
        return None
    image = np.zeros((detector.size[1], detector.size[0]), np.float32)
    rng = generator(seed, Stream.SCENE, parameters["exposure"], detector.id)
    lit = detector.amplifiers[int(parameters.get("lit", 0)) % len(detector.amplifiers)].target
    for _ in range(spots):
        _add(image, _place(rng, lit, rates.spot_sigma), rng.uniform(*rates.spot_peak), rates.spot_sigma, lit)
    every = Box(0, 0, *detector.size)
    for _ in range(stars):
        peak = np.exp(rng.uniform(*np.log(rates.star_peak)))
        _add(image, _place(rng, every, 0.0), peak, rates.star_sigma, every)
    return image


def _place(rng: np.random.Generator, box: Box, margin: float) -> tuple[float, float]:
    """Draw a place (x, y) in a box, away from its edges where it is large enough, pixels."""
    (x, y) = (
        rng.uniform(low + min(2 * margin, n / 4), low + n - 1 - min(2 * margin, n / 4))
        for low, n in ((box.x0, box.nx), (box.y0, box.ny))
    )
    return float(x), float(y)


def _add(image: F32, place: tuple[float, float], peak: float, sigma: float, within: Box) -> None:
    """Add a round Gaussian to an image, inside a box alone."""
    (x, y), reach = place, RADII * sigma
    columns = np.arange(max(within.x0, int(x - reach)), min(within.x1, int(x + reach) + 2))
    rows = np.arange(max(within.y0, int(y - reach)), min(within.y1, int(y + reach) + 2))
    across, along = (np.exp(-0.5 * ((at - centre) / sigma) ** 2) for at, centre in ((columns, x), (rows, y)))
    image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += (peak * np.outer(along, across)).astype(np.float32)
