"""Draws images of detectors' bins side by side in the focal plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaign.quality.drawing import Shown, draw, places


def assembled(
    images: Mapping[int, NDArray[np.float32]], detectors: Sequence[Mapping[str, Any]], types: Mapping[str, Any]
) -> tuple[NDArray[np.float32], list[tuple[str, Sequence[int]]], int]:
    """Put detectors' images of any binning in their places.

    Parameters
    ----------
    images : mapping
        By detector [bin, bin], float32.
    detectors, types
        Those of a camera file; each detector of ``detectors`` has an image.

    Returns
    -------
    image : `numpy.ndarray` [y, x], float32
        NaN between the detectors.
    names : `list`
        Name and box of each detector.
    binning : `int`
        Pixels of a detector along the side of one of the image's.
    """
    kinds = [types[d["type"]]["size"] for d in detectors]
    binning = max(1, *(round(size[0] / images[d["id"]].shape[1]) for size, d in zip(kinds, detectors, strict=True)))
    boxes = places(detectors, types, binning)
    whole = np.full((max(y + ny for _, y, _, ny in boxes), max(x + nx for x, _, nx, _ in boxes)), np.nan, np.float32)
    for d, (x, y, nx, ny) in zip(detectors, boxes, strict=True):
        turned = np.rot90(images[d["id"]], -round(d["yaw_deg"] / 90))
        rows, columns = (np.arange(n) * m // n for n, m in zip((ny, nx), turned.shape, strict=True))
        whole[y : y + ny, x : x + nx] = turned[np.ix_(rows, columns)]
    return whole, [(d["name"], box) for d, box in zip(detectors, boxes, strict=True)], binning


def draw_tiles(
    images: Mapping[int, NDArray[np.float32]], plain: Mapping[str, Any], path: Path, title: str, unit: str
) -> None:
    """Draw detectors' images at their places in the focal plane; ``plain`` is the camera of a plan."""
    wanted = [d for d in plain["detectors"] if d["id"] in images]
    image, names, binning = assembled(images, wanted, plain["types"])
    axes = f"bin of about {binning} x {binning} pixels of a detector"
    draw(Shown(image, title, unit, axes, names), path)
