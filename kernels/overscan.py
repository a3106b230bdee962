"""Overscan: serial, a level per row; parallel, a level per column."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.clip import clipped_mean
from kernels.errors import JobError
from kernels.geometry import Amplifier, Box
from kernels.isrconfig import IsrConfig


def serial_region(amplifier: Amplifier, config: IsrConfig) -> Box | None:
    """Columns that a row's level is taken from; the first ones carry deferred charge.

    Raises
    ------
    JobError
        The overscan is no wider than what is left out of it.
    """
    box = amplifier.serial_overscan
    if box is None or config.serial == "none":
        return None
    if box.nx <= config.skip_columns:
        raise JobError(
            f"amplifier {amplifier.name}: a serial overscan of {box.nx} columns leaves none after {config.skip_columns}"
        )
    return Box(box.x0 + config.skip_columns, box.y0, box.nx - config.skip_columns, box.ny)


def serial_levels(rows: NDArray[np.int32], amplifier: Amplifier, config: IsrConfig) -> NDArray[np.float64]:
    """Level of each row.

    Parameters
    ----------
    rows : `numpy.ndarray` [row, raw width], int32
        ADU.

    Returns
    -------
    levels : `numpy.ndarray` [row], float64
        ADU; 0 where there is no overscan.
    """
    region = serial_region(amplifier, config)
    if region is None:
        return np.zeros(rows.shape[0])
    columns = rows[:, region.x0 : region.x1]
    if config.serial == "meanclip":
        return np.array([clipped_mean(row.astype(np.float32))[0] for row in columns])
    return np.median(columns, axis=1)


def parallel_levels(rows: NDArray[np.int32], amplifier: Amplifier, config: IsrConfig) -> NDArray[np.float64]:
    """Level of each data column, from the parallel overscan's rows.

    Parameters
    ----------
    rows : `numpy.ndarray` [row, raw width], int32
        The rows of the parallel overscan, ADU.

    Returns
    -------
    levels : `numpy.ndarray` [data width], float64
        ADU above the rows' own serial overscan.
    """
    flat = rows - serial_levels(rows, amplifier, config)[:, np.newaxis]
    return np.median(flat[:, amplifier.data.x0 : amplifier.data.x1], axis=0)
