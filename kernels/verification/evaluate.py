"""Evaluate one corrected frame of one detector: from pixels to rows."""

from __future__ import annotations

from kernels.verification import frames, overscans
from kernels.verification.frame import Frame
from kernels.verification.metric import wanted
from kernels.verification.rows import Rows, Sheet

#: Modules whose metrics are of frames.
MODULES = (frames, overscans)


def evaluate(frame: Frame) -> Rows:
    """Measure all metrics whose needs a frame meets.

    Parameters
    ----------
    frame : `Frame`
        A corrected frame of one detector.

    Returns
    -------
    rows : `dict` [`str`, `numpy.ndarray`]
        Columns of `kernels.verification.rows.COLUMNS`; NaN where an amplifier has no value.
    """
    sheet = Sheet(frame.detector.id, [a.name for a in frame.detector.amplifiers], frame.kind)
    for metric in wanted("frame", frame.kind, frame.there):
        sheet.add(metric, metric.compute(frame), frame.exposure, frame.mjd, frame.role)
    return sheet.rows()
