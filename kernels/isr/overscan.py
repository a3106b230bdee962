"""Overscan levels: serial, one a row; parallel, one a column."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.config import IsrConfig
from kernels.camera.geometry import Amplifier, Box
from kernels.errors import JobError
from kernels.fits.rowbytes import BLANK
from kernels.isr import load
from kernels.statistics import clip
from kernels.statistics.network import workspace

F32 = NDArray[np.float32]


def serial_region(amplifier: Amplifier, config: IsrConfig) -> Box | None:
    """Choose the columns of a row's level; the columns read first carry deferred charge and are skipped.

    Raises
    ------
    JobError
        Fewer than two columns are left of the overscan, which have no noise.
    """
    box = amplifier.serial_overscan
    if box is None or config.serial == "none":
        return None
    if box.nx < config.skip_columns + 2:
        raise JobError(
            f"amplifier {amplifier.name}: a serial overscan of {box.nx} columns leaves less than two after "
            f"{config.skip_columns}; lower overscan.skipColumns"
        )
    left = 0 if amplifier.leftwards else config.skip_columns
    return Box(box.x0 + left, box.y0, box.nx - config.skip_columns, box.ny)


def serial_levels(rows: NDArray[np.int32], amplifier: Amplifier, config: IsrConfig) -> tuple[F32, F32]:
    """Measure the level of each row, as a whole number and a remainder.

    Parameters
    ----------
    rows : `numpy.ndarray` [frame, row, raw width], int32
        ADU.

    Returns
    -------
    base, rest : `numpy.ndarray` [frame, row], float32
        ADU; the level is their sum, which float32 could not hold.  0 without
        an overscan, NaN where all of a row's overscan is blank.
    """
    base, rest = np.zeros(rows.shape[:2], np.float32), np.zeros(rows.shape[:2], np.float32)
    region = serial_region(amplifier, config)
    if region is None:
        return base, rest
    if config.serial == "median":
        load.median_levels(rows, region.x0, region.x1, base, rest)
        return base, rest
    columns = rows[:, :, region.x0 : region.x1]
    origin = np.where(columns[:, :, 0] == BLANK, columns.min(axis=2), columns[:, :, 0])
    base[:] = np.where(origin == BLANK, np.float32(np.nan), origin)
    values = np.where(columns == BLANK, np.float32(np.inf), columns - origin[:, :, np.newaxis])
    cube = workspace(region.nx, base.size)
    cube[: region.nx, : base.size] = values.reshape(-1, region.nx).T
    width = cube.shape[1]
    image, variance, count = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int16)
    clip.collapse(cube, region.nx, clip.Rule(), image, variance, count)
    rest[:] = image[: base.size].reshape(base.shape)
    return base, rest


def column_levels(parallel: F32) -> F32:
    """Measure the level of each data column.

    Parameters
    ----------
    parallel : `numpy.ndarray` [frame, row, column], float32
        The parallel overscan above its rows' own levels; +infinity where blank.

    Returns
    -------
    levels : `numpy.ndarray` [frame, column], float32
        In the same unit; not finite where all of the column is blank.
    """
    frames, rows, columns = parallel.shape
    cube = workspace(rows, frames * columns)
    cube[:rows, : frames * columns].reshape(rows, frames, columns)[:] = parallel.transpose(1, 0, 2)
    image = np.empty(cube.shape[1], np.float32)
    clip.median(cube, rows, image)
    return image[: frames * columns].reshape(frames, columns)
