"""Brighter-fatter kernels: read, written, and chosen for the correction of whole frames.

File: upstream's bfk.  Its first table has a row an amplifier, with KERNEL
(1/electron) as one line of KERNEL_DX x KERNEL_DY values; its second one has the
detector's.  Upstream's own code takes axis 0 now for x, now for y, and the
values cannot tell.  So KERNEL_AXES says it in our files, ``xy`` (axis 0 is x)
or ``yx``, and for another file it must be given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    #: [amplifier]: those that are kernels; empty: all.
    valid: Sequence[bool] = ()
    #: Model of the fit whose coefficients a they are made of; empty where a file does not say it: made elsewhere.
    model: str = ""

    @property
    def whole(self) -> NDArray[np.float64] | None:
        """The detector's kernel [y, x]; as upstream does, the mean of the valid amplifiers' where there is none."""
        if self.detector is not None or self.amplifiers is None:
            return self.detector
        valid = np.array(self.valid or [True] * len(self.amplifiers), bool)
        return self.amplifiers[valid].mean(axis=0) if valid.any() else None

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
            do = "import the file again with --kernel-axes xy (axis 0 is x) or yx; its maker knows which"
            raise DataError(path, f"the order of the kernel's axes is unknown: {what}; {do}")
        shape = tuple(found.whole(name) or 0 for name in ("KERNEL_DX", "KERNEL_DY"))

        def turned(flat: NDArray[np.float64]) -> NDArray[np.float64]:
            if flat[0].size != shape[0] * shape[1]:
                raise DataError(path, f"KERNEL has {flat[0].size} values, not {shape[0]} x {shape[1]}")
            kernels = flat.reshape(len(flat), *(shape if order == "xy" else shape[::-1]))
            return kernels.transpose(0, 2, 1) if order == "xy" else kernels

        whole, amplifiers, valid = None, None, list[bool]()
        if len(found.tables) > 1:
            names = [str(name) for name in found.column("DETECTOR", 1)]
            if detector.name not in names:
                raise DataError(path, f"has no kernel of {detector.name}; it has {', '.join(names[:4])}")
            whole = turned(found.numbers("KERNEL", [names.index(detector.name)], table=1, ndim=2))[0]
        if found.amplifiers and "KERNEL" in found.tables[0].columns:
            rows = found.order(detector)
            amplifiers = turned(found.numbers("KERNEL", rows, ndim=2))
            said = found.tables[0].columns.get("VALID", np.ones(len(amplifiers), bool))
            valid = [bool(value) for value in said[rows]]
        return cls(whole, amplifiers, valid, found.said("FITMODEL"))


def write(
    path: str,
    camera: Camera,
    detector: Detector,
    kernels: Kernels,
    valid: Sequence[bool] = (),
    cards: Sequence[Card] = (),
    measured: Mapping[str, Any] | None = None,
    level: str = "",
) -> None:
    """Write a detector's kernels, axis 0 as y.

    Parameters
    ----------
    kernels : `Kernels`
        One of both, or both.
    valid : sequence of `bool` [amplifier], optional
        All by default.
    cards : sequence of (name, value, comment), optional
        Provenance.
    measured : mapping, optional
        Further columns [amplifier, ...] by upstream's names; without, they are blank.
    level : `str`, optional
        Upstream's LEVEL, by default AMP where there are kernels of amplifiers, else DETECTOR.
    """
    some = [kernels.detector, *(kernels.amplifiers[:1] if kernels.amplifiers is not None else ())]
    one = next(kernel for kernel in some if kernel is not None)
    names = np.array([a.name for a in detector.amplifiers])
    columns: dict[str, Any] = {"AMPLIFIER": names[:0], "RAW_XCORRS": np.zeros((0, 1))}
    columns |= {"MEAN_XCORRS": np.zeros((0, one.size)), "KERNEL": np.zeros((0, one.size)), "VALID": np.zeros(0, bool)}
    if kernels.amplifiers is not None:
        side = max(1, (one.shape[0] - 1) * (one.shape[1] - 1) // 4)
        columns = {
            "AMPLIFIER": names,
            "RAW_XCORRS": np.full((len(names), 2 * side), np.nan),
            "GAIN": np.array([a.gain for a in detector.amplifiers]),
            "NOISE": np.array([a.read_noise for a in detector.amplifiers]),
            "MEAN_XCORRS": np.full((len(names), one.size), np.nan),
            "KERNEL": kernels.amplifiers.reshape(len(names), -1),
            "VALID": np.array(valid or [True] * len(names)),
            **(measured or {}),
        }
    metadata = {
        "LEVEL": level or ("DETECTOR" if kernels.amplifiers is None else "AMP"),
        "KERNEL_DX": one.shape[1],
        "KERNEL_DY": one.shape[0],
        AXES: "yx",
    }
    second = None
    if kernels.detector is not None:
        second = {"DETECTOR": np.array([detector.name]), "KERNEL": kernels.detector.reshape(1, -1)}
    isrfiles.save(path, KIND, camera, detector, columns, cards, metadata, second)
