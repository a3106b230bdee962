"""Brighter-fatter kernels: read and written, not applied yet.

File: upstream's bfk.  Its first table has a row an amplifier, with KERNEL
(1/electron) as one line of KERNEL_DX x KERNEL_DY values; its second one has the
detector's.  Upstream's own code takes axis 0 now for x, now for y, and the
values cannot tell.  So KERNEL_AXES says it in our files, ``xy`` (axis 0 is x)
or ``yx``, and for another file it must be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import isrfiles
from kernels.calibrations.isrcalib import AXES
from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError
from kernels.fits.product import Card

KIND = "bfk"
ORDERS = ("xy", "yx")


@dataclass(frozen=True)
class Kernels:
    """A detector's kernel and those of its amplifiers."""

    #: [y, x], 1/electron; `None` where the file has none.
    detector: NDArray[np.float64] | None
    #: [amplifier, y, x], 1/electron, in the order of the detector's amplifiers; `None` where the file has none.
    amplifiers: NDArray[np.float64] | None

    @classmethod
    def open(cls, path: str, camera: Camera, detector: Detector, axes: str = "") -> Kernels:
        """Read a detector's kernels.

        Parameters
        ----------
        axes : `str`, optional
            Order of the axes in the file, ``xy`` or ``yx``, where it does not say it.

        Raises
        ------
        DataError
            See `kernels.calibrations.isrfiles.read` and `IsrCalib.require`; or the order of the axes is unknown,
            or not the one that was given, or a kernel is of another size or has a value that is no number.
        """
        found = isrfiles.read(path)
        found.require(KIND, camera, detector)
        order = found.axes or axes
        if order not in ORDERS or (axes and axes != order):
            what = f"{AXES} is {found.axes or 'missing'}, {axes or 'no order'} was given"
            raise DataError(path, f"the order of the kernel's axes is unknown: {what}; it is xy or yx")
        shape = tuple(found.whole(name) or 0 for name in ("KERNEL_DX", "KERNEL_DY"))

        def turned(flat: NDArray[np.float64]) -> NDArray[np.float64]:
            if flat[0].size != shape[0] * shape[1]:
                raise DataError(path, f"KERNEL has {flat[0].size} values, not {shape[0]} x {shape[1]}")
            kernels = flat.reshape(len(flat), *(shape if order == "xy" else shape[::-1]))
            return kernels.transpose(0, 2, 1) if order == "xy" else kernels

        whole = amplifiers = None
        if len(found.tables) > 1:
            names = [str(name) for name in found.column("DETECTOR", 1)]
            if detector.name not in names:
                raise DataError(path, f"has no kernel of {detector.name}; it has {', '.join(names[:4])}")
            whole = turned(found.numbers("KERNEL", [names.index(detector.name)], table=1, ndim=2))[0]
        if found.amplifiers and "KERNEL" in found.tables[0].columns:
            amplifiers = turned(found.numbers("KERNEL", found.order(detector), ndim=2))
        return cls(whole, amplifiers)


def write(
    path: str,
    camera: Camera,
    detector: Detector,
    kernels: Kernels,
    valid: Sequence[bool] = (),
    cards: Sequence[Card] = (),
) -> None:
    """Write a detector's kernels, axis 0 as y; ``valid`` [amplifier], all by default."""
    some = [kernels.detector, *(kernels.amplifiers[:1] if kernels.amplifiers is not None else ())]
    one = next(kernel for kernel in some if kernel is not None)
    names = np.array([a.name for a in detector.amplifiers])
    columns = {"AMPLIFIER": names[:0], "RAW_XCORRS": np.zeros((0, 1)), "MEAN_XCORRS": np.zeros((0, one.size))}
    columns |= {"KERNEL": np.zeros((0, one.size)), "VALID": np.zeros(0, np.bool_)}
    if kernels.amplifiers is not None:
        flat, unknown = kernels.amplifiers.reshape(len(names), -1), np.full((len(names), one.size), np.nan)
        side = max(1, (one.shape[0] - 1) * (one.shape[1] - 1) // 4)
        columns = {
            "AMPLIFIER": names,
            "RAW_XCORRS": np.full((len(names), 2 * side), np.nan),
            "GAIN": np.array([a.gain for a in detector.amplifiers]),
            "NOISE": np.array([a.read_noise for a in detector.amplifiers]),
            "MEAN_XCORRS": unknown,
            "KERNEL": flat,
            "VALID": np.array(valid or [True] * len(names)),
        }
    metadata = {
        "LEVEL": "DETECTOR" if kernels.amplifiers is None else "AMP",
        "KERNEL_DX": one.shape[1],
        "KERNEL_DY": one.shape[0],
        AXES: "yx",
    }
    second = None
    if kernels.detector is not None:
        second = {"DETECTOR": np.array([detector.name]), "KERNEL": kernels.detector.reshape(1, -1)}
    isrfiles.save(path, KIND, camera, detector, columns, cards, metadata, second)
