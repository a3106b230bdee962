"""Tables of a flat's levels, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Detector
from kernels.errors import DataError

#: Least level of a live amplifier, relative to the usual level on its detector.
LIT = 0.01


def write_json(path: str, content: Any) -> None:
    """Write a small product; floats keep all bits."""
    Path(path).write_text(json.dumps(content, separators=(",", ":")))


def read_json(path: str) -> dict[str, Any]:
    """Read a small product; raise `DataError` where it is no JSON."""
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise DataError(path, f"not readable as JSON: {error}") from error
    assert isinstance(content, dict)
    return content


def means_of(path: str, exposures: Sequence[int]) -> NDArray[np.float64]:
    """Read the clipped mean of each exposure of a detector [exposure], in the unit of the frames.

    Raises
    ------
    DataError
        An exposure was not measured.
    """
    table = read_json(path)
    means = dict(zip(table["exposures"], table["detector_mean"], strict=True))
    missing = [e for e in exposures if e not in means]
    if missing:
        raise DataError(path, f"has no mean of exposure {missing[0]}")
    return np.array([means[e] for e in exposures], np.float64)


def scales_of(path: str, detector: Detector, exposures: Sequence[int]) -> NDArray[np.float64]:
    """Read the scales that a detector's exposures are divided by.

    Returns
    -------
    scales : `numpy.ndarray` [exposure, amplifier], float64
        In the unit of the frames.

    Raises
    ------
    DataError
        An exposure was not normalised.
    """
    table = read_json(path)
    by_exposure = dict(zip(table["exposures"], table["exposure_scale"], strict=True))
    missing = [e for e in exposures if e not in by_exposure]
    if missing:
        raise DataError(path, f"has no scale for exposure {missing[0]}")
    one = np.array([by_exposure[e] for e in exposures])
    return np.repeat(one[:, np.newaxis], len(detector.amplifiers), axis=1)
