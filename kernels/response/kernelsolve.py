"""Brighter-fatter kernels of a detector and of its amplifiers, from raw flats in pairs.

The flats are measured and fitted as for the photon transfer curve; a kernel is made of the fit's coefficients a
(`kernels.transfer.bfkernel`).  The detector's kernel is made of the mean of its amplifiers' a, by inverse variances:
unlike a mean of kernels it does not depend on which of them noise makes impossible.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import bfk
from kernels.camera.geometry import Detector
from kernels.errors import DataError, JobError
from kernels.fits.product import Card
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import Writer, publish_all
from kernels.response.flatpairs import Measured
from kernels.response.transfercurve import TransferCurve, row
from kernels.transfer import bfkernel, curve
from kernels.transfer.bfkernel import Invalid

KERNEL: Final = "bfk"

F64 = NDArray[np.float64]
#: Dataset type of the curves that kernels are made of.
CURVES: Final = "bfkPtc"
#: Levels of upstream's file.
LEVELS: Final = ("AMP", "DETECTOR")


@dataclass(frozen=True)
class Solved:
    """Kernels of a detector, all [y, x] and 1/electron."""

    detector: F64
    #: By amplifier, and the source -a of each; amplifiers without a kernel are absent.
    amplifiers: Mapping[str, F64]
    #: Reason by amplifier that has no kernel, or is not in the detector's.
    left_out: Mapping[str, str]
    #: Amplifiers in the detector's kernel.
    used: Collection[str]
    #: Standard error of the centre of the detector's kernel, 1/electron.
    error: float


def solve(curves: Mapping[str, curve.Curve], ignored: Collection[str], nsigma: float) -> Solved:
    """Make the kernels of a detector.

    Parameters
    ----------
    curves : mapping
        By amplifier.
    ignored : collection of `str`
        Amplifiers that are not to be in the detector's kernel.
    nsigma : `float`
        An amplifier whose a_00 is farther from the median is not in it either; in units of its own error and the
        amplifiers' scatter (1.4826 MAD), added in squares.

    Raises
    ------
    Invalid
        No amplifier is left, or the detector's kernel cannot be.
    """
    left = {name: "ignored, as ignoreAmpsForAveraging says" for name in ignored if name in curves}
    centres = np.array([one.a[0, 0] for one in curves.values()])
    middle = float(np.median(centres))
    scatter = 1.4826 * float(np.median(np.abs(centres - middle)))
    for name, one in curves.items():
        away = abs(one.a[0, 0] - middle) / np.hypot(one.a_error[0, 0], scatter)
        if away > nsigma:
            left.setdefault(name, f"a_00 is {one.a[0, 0]:.3g}, {away:.1f} sigma from the median {middle:.3g}")
    used = [name for name in curves if name not in left]
    mean, error = bfkernel.mean_a({name: (curves[name].a, curves[name].a_error) for name in used})
    mean, side = bfkernel.balanced(mean, error), 2 * len(mean) + 1
    kernels = {}
    for name, one in curves.items():
        try:
            kernels[name] = bfkernel.kernel(bfkernel.balanced(one.a, one.a_error), side)
        except Invalid as why:
            left[name] = f"VALID is false: {why}" + (f"; {left[name]}" if name in left else "")
    return Solved(bfkernel.kernel(mean, side), kernels, left, used, bfkernel.centre_error(error, side))


class KernelSolve(TransferCurve):
    """The gang kernel; output ``bfk``, and the curves that it is made of, ``bfkPtc``, where they are asked for."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._level = str(job.config.get("level", "AMP"))
        if self._level not in LEVELS:
            raise JobError(f"level: {self._level!r} is none of {', '.join(LEVELS)}")
        if self.settings.fit.model is curve.Model.EXPAPPROXIMATION:
            raise JobError("model: EXPAPPROXIMATION fits no a of neighbours, which kernels are made of")

    def published(self, task: Task, measured: Measured, solution: curve.Solution) -> dict[str, Any]:
        """Make the kernels, write and publish them."""
        try:
            solved = solve(solution.curves, self.job.config.get("ignored", ()), float(self.job.config["nsigma_mean"]))
        except Invalid as error:
            raise DataError(self.raws(task)[0].path, f"no brighter-fatter kernel of the detector: {error}") from error
        writers: dict[str, Writer] = {
            bfk.KIND: partial(self._write, task=task, measured=measured, solution=solution, solved=solved),
            CURVES: partial(self.write_curves, task=task, measured=measured, solution=solution),
        }
        files = {kind: (path, writers[kind]) for kind, path in task.outputs.items()}
        outputs = publish_all(files, self.stamp, self.job.config["permissions"])
        return {**outputs, "left_out": dict(solved.left_out)}

    def _write(self, path: str, task: Task, measured: Measured, solution: curve.Solution, solved: Solved) -> None:
        detector = self.calibrations(task).detector
        nothing = np.zeros_like(solved.detector)
        each = np.array([solved.amplifiers.get(a.name, nothing) for a in detector.amplifiers])
        cards: list[Card] = [
            ("KERNFROM", "-a of the fit", "source of the kernels"),
            ("KERNZERO", "by variances", "how the sum of a was made 0"),
            ("KERNCEN", float(solved.detector.min()), "1/electron, centre of the detector's kernel"),
            ("KERNERR", solved.error, "1/electron, its standard error"),
            ("KERNAMPS", len(solved.used), "amplifiers in the detector's kernel"),
            ("NLEFTAMP", len(solved.left_out), "amplifiers left out: LEFTAMPn"),
        ]
        cards += [(f"LEFTAMP{n}", f"{a}: {why}"[:60], "") for n, (a, why) in enumerate(solved.left_out.items(), 1)]
        bfk.write(
            path,
            self.camera,
            detector,
            bfk.Kernels(solved.detector, each),
            [a.name in solved.amplifiers for a in detector.amplifiers],
            [*cards, *self.cards(task, solution)],
            _columns(detector, measured, solution, self.settings.fit.side, each.shape[1]),
            self._level,
        )


def _columns(
    detector: Detector, measured: Measured, solution: curve.Solution, side: int, width: int
) -> dict[str, NDArray[Any]]:
    """Give upstream's columns of what was measured [amplifier, ...]; gain and noise of a bad one are the camera's."""
    rows = [row(a.name, [pairs[k] for pairs in measured], solution, side) for k, a in enumerate(detector.amplifiers)]
    named = {"RAW_MEANS": "RAW_MEANS", "RAW_VARIANCES": "RAW_VARS", "RAW_XCORRS": "COVARIANCES"}
    columns = {name: np.array([one[ours] for one in rows]) for name, ours in named.items()}
    curves = [solution.curves.get(a.name) for a in detector.amplifiers]
    pairs = list(zip(curves, detector.amplifiers, strict=True))
    nothing = np.zeros((1, 1))
    balanced = [nothing if c is None else bfkernel.balanced(c.a, c.a_error) for c in curves]
    return columns | {
        "EXP_ID_MASK": np.array([one["EXP_ID_MASK"] for one in rows]),
        "GAIN": np.array([a.gain if c is None else c.gain for c, a in pairs]),
        "NOISE": np.array([a.read_noise if c is None else c.noise for c, a in pairs]),
        "MEAN_XCORRS": np.array([-bfkernel.tiled(a, width) for a in balanced]).reshape(len(curves), -1),
    }


def execute(job: Job, comm: Any) -> int:
    """Make the kernels of every task's detector; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, KernelSolve(job))
