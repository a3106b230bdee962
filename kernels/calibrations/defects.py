"""Defects: unreliable pixels of a detector.

Product: upstream's ``defects``, one row a box of the assembled detector, 0-based:
x0, y0, width, height (pixel).  Boxes may overlap; there may be none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import isrfiles
from kernels.camera.geometry import Box, Camera, Detector
from kernels.errors import DataError
from kernels.fits.product import Card

KIND = "defects"
COLUMNS = ("x0", "y0", "width", "height")


@dataclass(frozen=True)
class Defects:
    """A detector's boxes [box, (x0, y0, width, height)], int64, pixel."""

    boxes: NDArray[np.int64]

    @classmethod
    def open(cls, path: str, camera: Camera, detector: Detector) -> Defects:
        """Read a detector's defects.

        Raises
        ------
        DataError
            See `kernels.calibrations.isrfiles.read` and `IsrCalib.require`; or a box is not of whole pixels, empty,
            or not on the detector.
        """
        found = isrfiles.read(path)
        found.require(KIND, camera, detector)
        given = np.column_stack([found.numbers(name) for name in COLUMNS])
        boxes = given.astype(np.int64)
        if (boxes != given).any():
            raise DataError(path, f"the box {given[(boxes != given).any(axis=1)][0].tolist()} is not of whole pixels")
        first, size = boxes[:, :2], boxes[:, 2:]
        outside = (first < 0).any(axis=1) | (size < 1).any(axis=1) | (first + size > detector.size).any(axis=1)
        if outside.any():
            x0, y0, nx, ny = boxes[outside][0]
            what = f"the box of {nx} x {ny} pixels at ({x0}, {y0})"
            here = f"the detector of {detector.size[0]} x {detector.size[1]}"
            scaled = f", which the camera's scale of {camera.scale} reduces" if camera.scale > 1 else ""
            raise DataError(path, f"{what} is not on {here}{scaled}")
        return cls(boxes)

    def mask(self, box: Box) -> NDArray[np.bool_]:
        """Flag the defects in a box [y, x] of the assembled detector."""
        bad = np.zeros((box.ny, box.nx), np.bool_)
        first = np.maximum(self.boxes[:, :2] - (box.x0, box.y0), 0)
        last = np.minimum(self.boxes[:, :2] + self.boxes[:, 2:] - (box.x0, box.y0), (box.nx, box.ny))
        inside = (last > first).all(axis=1)
        for (x0, y0), (x1, y1) in zip(first[inside], last[inside], strict=True):
            bad[y0:y1, x0:x1] = True
        return bad


def write(
    path: str, camera: Camera, detector: Detector, boxes: NDArray[np.integer], cards: Sequence[Card] = ()
) -> None:
    """Write a detector's defects, ``boxes`` [box, (x0, y0, width, height)]."""
    columns = {name: np.asarray(boxes[:, k], np.int64) for k, name in enumerate(COLUMNS)}
    isrfiles.save(path, KIND, camera, detector, columns, cards)
