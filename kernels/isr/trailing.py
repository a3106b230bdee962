"""Overscan columns behind an amplifier's last data column, where deferred charge appears."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import crosstalk
from kernels.camera.geometry import Box
from kernels.errors import JobError
from kernels.fits.rowbytes import BLANK
from kernels.isr import load
from kernels.isr.blanks import without_blanks
from kernels.isr.reader import Reader
from kernels.jobs.job import File

F32 = NDArray[np.float32]


def trailing(reader: Reader, file: File, columns: int) -> list[F32]:
    """Read each amplifier's last data column, and ``columns`` of the overscan behind it.

    Parameters
    ----------
    columns : `int`
        At most the columns of the overscan.

    Returns
    -------
    images : `list` of `numpy.ndarray` [data row, 1 + column], float32
        In read-out order and the job's unit, corrected from serial overscan
        to linearity; the column levels are not subtracted.

    Raises
    ------
    DataError
        The file cannot be read.
    JobError
        An overscan has fewer columns.
    """
    box, found, raws = reader.channels[0].amplifier.data, [], []
    for channel, stack in zip(reader.channels, reader.stacks([file], 0, reader.height), strict=True):
        amplifier = channel.amplifier
        width, last = amplifier.raw[0], amplifier.read_order(amplifier.data).x1
        if width - last < columns:
            raise JobError(f"amplifier {amplifier.name} has {width - last} columns of overscan: not {columns}")
        raw = np.empty((1, reader.height, width), np.int32)
        stack.rows(box.y0, box.y1, raw)
        level, wanted = channel.levels(raw, stack.blanks), amplifier.read_order(Box(last - 1, 0, 1 + columns, 1))
        image, nothing = np.empty((1, reader.height, 1 + columns), np.float32), np.zeros((1, 1 + columns), np.float32)
        load.signal(raw, wanted.x0, wanted.x1, *level, nothing, channel.gain, image.reshape(1, -1))
        without_blanks(raw, wanted.x0, wanted.x1, stack.blanks, image, 0)
        found.append(np.ascontiguousarray(channel.as_read(image)))
        raws.append(channel.as_read(raw[0, :, wanted.x0 : wanted.x1]) == BLANK)
    signal = np.concatenate(found)
    if reader.calibrations.crosstalk:
        crosstalk.correct(signal, reader.calibrations.crosstalk.c0, reader.calibrations.crosstalk.c1)
    for channel, image, blank in zip(reader.channels, signal, raws, strict=True):
        channel.straighten(channel.as_read(image[np.newaxis]))
        image[blank] = np.nan
    return list(signal)
