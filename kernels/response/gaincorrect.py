"""Changes of the gains of a detector's amplifiers since a reference flat, from raw flats of a new date.

A piece is one flat: the frame is corrected in memory with the gains of the ptc, divided by the reference flat, and
averaged in bins.  The bins are averaged over the flats, and the steps between amplifiers told from what is left of the
light (`kernels.transfer.gainratios`).  The lamp's brightness counts for nothing: a change that all amplifiers share is
not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import gaincorrection, ptc
from kernels.camera.focalplane import radius_at
from kernels.camera.geometry import Box, Detector
from kernels.errors import DataError, JobError
from kernels.fits.product import Card
from kernels.isr.framekernel import FrameKernel
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products.bench import Bench
from kernels.response.flatpairs import SATURATED
from kernels.response.ratios import Settings
from kernels.transfer import gainratios
from kernels.transfer.gainratios import Bins, NoRatios, Ratios, Stack

KERNEL: Final = "gain_correction"

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
#: Fewest flats, and the least light of one, relative to the median flat.
LEAST_FLATS: Final = 3
FAINT: Final = 0.05
#: Change of an amplifier within the flats that the operator is told: errors, and relative.
UNSTEADY: Final = (5.0, 5e-4)


@dataclass(frozen=True)
class Ratio:
    """One flat over the reference flat."""

    #: [bin], float32: Over `level`; NaN where bad.
    values: F32
    #: Median over the bins, electron.
    level: float
    #: Amplifiers that are left out, and why.
    why: Mapping[int, str]


class GainCorrection(FrameKernel):
    """The gang kernel: a piece is a flat of one detector; output ``gain_correction``."""

    WHOLE = ("doFlat",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        try:
            nsigma, self._outlier = (float(job.config[name]) for name in ("nsigma", "outlier_cut"))
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(f"settings of the gain correction: {error}") from error
        self._settings = Settings.from_plain(job.config, nsigma)
        if not self.isr.flat:
            raise JobError("a gain correction is measured against a reference flat: set doFlat: true")
        if self.camera.unit != "electron":
            raise JobError(f"a gain correction needs frames in electron, they are in {self.camera.unit}")
        self._response: tuple[int, F32] | None = None

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh each flat by its bytes."""
        return [float(file.bytes or 1) for file in self.raws(task)]

    def _reference(self, task: Task) -> F32:
        """Read the reference flat [y, x], NaN without response; keeps that of one detector."""
        detector, flat = self.detector(task), self.calibrations(task).flat
        assert flat is not None
        if self._response is None or self._response[0] != detector.id:
            response = np.array(flat.read(Box(0, 0, *detector.size)), np.float32)
            response[~(np.isfinite(response) & (response > 0))] = np.nan
            self._response = detector.id, response
        return self._response[1]

    def _binned(self, image: F32, detector: Detector) -> Bins:
        settings = self._settings
        boxes = [(a.target.x0, a.target.y0, a.target.nx, a.target.ny) for a in detector.amplifiers]
        return gainratios.binned(image, boxes, settings.bin, settings.boundary)

    def compute(self, task: Task, piece: int) -> Ratio:
        """Divide a flat by the reference, and average its bins."""
        detector, file = self.detector(task), self.raws(task)[piece]
        image, why = np.full(detector.size[::-1], np.nan, np.float32), dict[int, str]()
        canvas = self.canvas(task, image)
        for frame, _ in self.corrected(task, file, float(task.parameters["dark_times"][piece]), canvas):
            number, full = frame.channel.number, int(frame.saturated[0])
            if full > SATURATED * frame.pixels.size:
                why[number] = f"{full} of {frame.pixels.size} pixels are saturated"
                image[frame.channel.amplifier.target.slices] = np.nan
        image /= self._reference(task)
        try:
            values = self._binned(image, detector).values
        except NoRatios as error:
            raise DataError(file.path, str(error)) from error
        level = float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            return Ratio((values / level).astype(np.float32), level, why)

    def finish(self, task: Task, results: Iterable[Ratio]) -> dict[str, Any]:
        """Tell the steps between amplifiers from the light, and publish.

        Raises
        ------
        DataError
            Too few flats have light, no amplifier is good enough as a reference, or a frame is another detector's.
        """
        self.require_inputs(task)
        # arrays of other ranks are valid until the next one alone
        flats = [Ratio(np.array(one.values), one.level, one.why) for one in results]
        detector, exposures = self.calibrations(task).detector, task.parameters["exposures"]
        usual = float(np.median([one.level for one in flats]))
        lit = [n for n, one in enumerate(flats) if one.level > max(FAINT * usual, 0.0)]
        left_out = [exposures[n] for n in range(len(flats)) if n not in lit]
        path = self.raws(task)[0].path
        if len(lit) < LEAST_FLATS:
            what = f"{len(lit)} of {len(flats)} flats have light on {detector.name}; {LEAST_FLATS} are needed"
            dark = f"; exposure {', '.join(map(str, left_out))} has none" if left_out else ""
            raise DataError(path, what + dark)
        try:
            solved = self._solve(task, detector, [flats[n] for n in lit])
        except NoRatios as error:
            raise DataError(path, f"no gain correction of {detector.name}: {error}") from error
        bad = {
            a.name: _why([flats[n].why.get(k, "") for n in lit], self._settings.fit.most)
            for k, a in enumerate(detector.amplifiers)
            if not np.isfinite(solved.ratios.factors[k])
        }
        unsteady = _unsteady(solved.stack, [exposures[n] for n in lit], detector)
        write = partial(self._write, task=task, solved=solved, left_out=left_out, bad=bad, unsteady=unsteady)
        output = publish(task.outputs[gaincorrection.KIND], write, self.stamp, self.job.config["permissions"])
        about = {"inputs_used": len(lit), "left_out": left_out, "bad_amplifiers": bad}
        said = self._said(solved, left_out, bad, unsteady)
        return {gaincorrection.KIND: output, **about, **({"look_at": said} if said else {})}

    def _solve(self, task: Task, detector: Detector, flats: Sequence[Ratio]) -> _Solved:
        settings, number = self._settings, len(detector.amplifiers)
        bins = self._binned(np.zeros(detector.size[::-1], np.float32), detector)
        stack = gainratios.stacked(np.array([one.values for one in flats]), bins.amplifier, number, self._outlier)
        gains, noises = (np.array([getattr(a, name) for a in detector.amplifiers]) for name in ("gain", "read_noise"))
        turnoffs = np.ones(number)  # without a ptc all are alike
        if self.isr.ptc:
            turnoffs = ptc.turnoffs(self.job.files[task.inputs["ptc"][0]].path, self.camera, detector)
        reference = gainratios.reference(gains, noises, turnoffs, settings.noise, settings.percentile)
        radius = radius_at(detector, bins.x, bins.y) if settings.radial else None
        found = gainratios.ratios(
            Bins(stack.values, bins.amplifier, bins.x, bins.y, radius), number, reference, settings.fit
        )
        middle = float(np.nanmedian(found.factors))
        return _Solved(Ratios(*(part / middle for part in vars(found).values())), stack, reference)

    def _said(
        self, solved: _Solved, left_out: Sequence[int], bad: Mapping[str, str], unsteady: Sequence[str]
    ) -> list[str]:
        """Tell the operator what to look at."""
        said = [f"exposure {', '.join(map(str, left_out))} has no light, and is left out"] if left_out else []
        said += [f"no correction: {name}: {why}" for name, why in bad.items()]
        return said + [f"its gain changed within the flats: {text}" for text in unsteady]

    def _write(
        self, path: str, task: Task, solved: _Solved, left_out: Sequence[int], bad: Mapping[str, str],
        unsteady: Sequence[str],
    ) -> None:  # fmt: skip
        detector = self.calibrations(task).detector
        names = [a.name for a in detector.amplifiers]
        known = np.isfinite(solved.ratios.factors)
        factors = np.where(known, solved.ratios.factors, 1.0)
        most = int(np.argmax(np.abs(factors - 1)))
        cards: list[Card] = [
            ("NEXPOSUR", len(solved.stack.rejected), "flats"),
            ("NLEFTOUT", len(left_out), "flats without light, left out: LEFTEXPn"),
            *((f"LEFTEXP{n}", exposure, "") for n, exposure in enumerate(left_out, 1)),
            ("NBINOUT", int(solved.stack.rejected.sum()), "bins of single flats left out, as of cosmic rays"),
            ("GAINREF", names[solved.reference], "amplifier that the others were told from"),
            ("GAINMOST", names[most], "amplifier with the largest change"),
            ("GAINMOSF", float(factors[most]), "its factor"),
            ("NBADAMP", len(bad), "amplifiers without a correction, factor 1: BADAMPn"),
            *((f"BADAMP{n}", f"{name}: {why}"[:60], "") for n, (name, why) in enumerate(bad.items(), 1)),
            ("NUNSTEAD", len(unsteady), "amplifiers that changed within the flats: UNSTEDn"),
            *((f"UNSTED{n}", text[:60], "") for n, text in enumerate(unsteady, 1)),
        ]
        cards += [(key, value, "") for key, value in task.provenance.items()]
        columns = {
            "GAIN_ADJUSTMENT": factors,
            "GAIN_ADJUSTMENT_ERR": np.where(known, solved.errors, np.nan),
        }
        gaincorrection.write(path, self.camera, detector, columns, cards)


@dataclass(frozen=True)
class _Solved:
    """Factors of a detector's amplifiers, relative to their median."""

    ratios: Ratios
    stack: Stack
    #: Number of the amplifier that the others were told from.
    reference: int

    @property
    def errors(self) -> F64:
        """Standard errors [amplifier]: of the fit, or by the scatter from flat to flat where that is larger."""
        drifts = self.stack.drifts
        number = np.maximum(np.isfinite(drifts).sum(axis=0), 1)
        mean = np.nansum(drifts, axis=0) / number
        scatter = np.sqrt(np.nansum((drifts - mean) ** 2, axis=0) / np.maximum(number - 1, 1) / number)
        return np.asarray(np.fmax(self.ratios.apart, scatter))


def _why(reasons: Sequence[str], most: float) -> str:
    """Say why an amplifier has no factor."""
    saturated = [text for text in reasons if text]
    if 2 * len(saturated) > len(reasons):
        return f"{len(saturated)} of {len(reasons)} flats: {saturated[0]}"
    return f"no good bins, or a change beyond {most:.0%}"


def _unsteady(stack: Stack, exposures: Sequence[int], detector: Detector) -> list[str]:
    """Name amplifiers whose brightness changed within the flats, with the exposure that is farthest off."""
    nsigma, least = UNSTEADY
    said = []
    for k, amplifier in enumerate(detector.amplifiers):
        off, error = stack.drifts[:, k] - 1, stack.errors[:, k]
        known = np.isfinite(off) & np.isfinite(error)
        far = known & (np.abs(off) > np.maximum(nsigma * error, least))
        if far.any():
            n = int(np.argmax(np.where(far, np.abs(off), 0)))
            said.append(f"{amplifier.name}: {100 * off[n]:+.3f} % in exposure {exposures[n]}")
    return said


def warm(bench: Bench) -> None:
    """Compile nothing more than the corrections, which other kernels' benches run."""


def execute(job: Job, comm: Any) -> int:
    """Measure every task's detector; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, GainCorrection(job))
