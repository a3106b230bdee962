"""Flats in pairs: each pair's covariances, and the curve of each amplifier, for the kernels of several products.

A piece is one pair: both frames are corrected in memory, and each amplifier's mean, variance and covariances are
measured (`kernels.transfer.covariance`).  Then each amplifier's curve is fitted (`kernels.transfer.curve`).  Signals
are in ADU: corrections that need electrons use the camera file's gains, which the curve does not depend on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.applied import Calibrations
from kernels.camera.geometry import Amplifier, Box, Detector
from kernels.errors import DataError
from kernels.fits.identity import number_of
from kernels.fits.product import Card
from kernels.isr.channel import Channel
from kernels.isr.framekernel import FrameKernel
from kernels.jobs.job import Job, Task
from kernels.jobs.settings import build
from kernels.response.unequal import LeftOut, left_out
from kernels.transfer import covariance, curve, turnoff
from kernels.transfer.covariance import Pair, Unusable
from kernels.transfer.matching import Matched, match

#: What was measured: by pair and amplifier, or the reason why it could not be.
Measured = Sequence[list[Pair | str]]

#: Largest differences within a pair: exposure time, second; flux, relative to nothing: upstream's 5e-3 too.
TOLERANCE: Final[Mapping[str, float]] = {"TIME": 5e-3, "EXPID": 0.0, "FLUX": 5e-3}
#: Largest part of an amplifier's pixels that may be saturated: mean and variance lack what is cut off.
SATURATED: Final = 1e-3
#: Fewest pairs from which a curve is fitted.
LEAST_PAIRS: Final = 4


@dataclass(frozen=True)
class Settings:
    """Settings of a job, besides the signature removal's."""

    #: ``TIME``, ``EXPID`` or ``FLUX``, and the card with the flux.
    matching: str
    flux: str
    #: Pixels at the edge of the detector that are left out.
    edge: int
    measure: covariance.Rule
    fit: curve.Rule

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Settings:
        """Check and freeze.

        Raises
        ------
        JobError
            A setting is missing or unknown.
        """
        outliers = {name: f"outlier_{name}" for name in ("signal", "gap", "scaled", "cut", "rounds")}
        ends = build(turnoff.Rule, plain, outliers)
        rolloff = build(_Rolloff, plain)
        fit = build(
            curve.Rule, plain, {"least": "least_mean", "most": "most_mean"}, turnoff=ends,
            rolloff=rolloff.rolloff_share if rolloff.rolloff else None,
        )  # fmt: skip
        return build(cls, plain, measure=build(covariance.Rule, plain, {"least": "least_pixels"}), fit=fit)


@dataclass(frozen=True)
class _Rolloff:
    """Whether the curve goes on beyond the turnoff, and the share of the variance whose loss ends it there."""

    rolloff: bool
    rolloff_share: float


def region(amplifier: Amplifier, detector: Detector, edge: int) -> Box:
    """Give the part of an amplifier that is not at the detector's edge, relative to the amplifier's target."""
    box, (width, height) = amplifier.target, detector.size
    x0, y0 = max(box.x0, edge), max(box.y0, edge)
    x1, y1 = min(box.x1, width - edge), min(box.y1, height - edge)
    return Box(x0 - box.x0, y0 - box.y0, max(0, x1 - x0), max(0, y1 - y0))


class PairedFlats(FrameKernel):
    """Base of the gang kernels whose piece is a pair of flats of one detector."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.settings = Settings.from_plain(job.config)
        self._matched: dict[str, Matched] = {}
        self._left_out: dict[str, LeftOut] = {}

    def matched(self, task: Task) -> Matched:
        """Pair the task's flats, once.

        Raises
        ------
        DataError
            A frame has no card of the flux.
        """
        if task.task not in self._matched:
            tolerance, filters = TOLERANCE[self.settings.matching], task.parameters.get("filters", ())
            self._matched[task.task] = match(self._values(task), tolerance, filters)
        return self._matched[task.task]

    def _values(self, task: Task) -> list[float]:
        by = self.settings.matching
        if by == "EXPID":
            return [float(e // 2) for e in task.parameters["exposures"]]
        if by == "TIME":
            return [float(t) for t in task.parameters["exposure_times"]]
        return [number_of(file.path, self.settings.flux) for file in self.raws(task)]

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh each pair by the bytes read for it; flats that cannot be paired fail later, and their task alone."""
        sizes = [float(file.bytes or 1) for file in self.raws(task)]
        try:
            pairs = self.matched(task).pairs
        except DataError:
            pairs = ()
        return [sizes[one] + sizes[other] for one, other in pairs] or [1.0]

    def measure(self, task: Task, piece: int) -> list[Pair | str]:
        """Measure each amplifier in one pair, ADU; a text tells why one cannot be measured."""
        if not self.matched(task).pairs:
            return []
        files = [self.raws(task)[n] for n in self.matched(task).pairs[piece]]
        flags, detector = self.calibrations(task), self.detector(task)
        found: dict[int, Pair | str] = {}
        for reader in self.readers(task):
            first = []
            for frame in reader.frame(files[0], 0.0):
                box = region(frame.channel.amplifier, detector, self.settings.edge)
                if frame.saturated[0] <= SATURATED * frame.pixels.size:
                    self.inspect(frame.channel, frame.pixels, flags)
                first.append((box, frame.pixels[box.slices].copy(), int(frame.saturated[0])))
            for (box, one, saturated), frame in zip(first, reader.frame(files[1], 0.0), strict=True):
                amplifier, number = frame.channel.amplifier, frame.channel.number
                saturated = max(saturated, int(frame.saturated[0]))
                if saturated > SATURATED * frame.pixels.size:
                    found[number] = f"{saturated} of {frame.pixels.size} pixels are saturated"
                    continue
                good = ~flags.flagged(amplifier.target)[box.slices] if flags.flags else None
                try:
                    pair = covariance.measure((one, frame.pixels[box.slices]), good, self.settings.measure)
                    found[number] = pair.scaled(1 / frame.channel.gain)
                except Unusable as error:
                    found[number] = str(error)
        return [found[k] for k in sorted(found)]

    def compute(self, task: Task, piece: int) -> Any:
        """Measure a pair; see `measure`."""
        return self.measure(task, piece)

    def inspect(self, channel: Channel, image: NDArray[np.float32], flags: Calibrations) -> None:
        """Look at an amplifier of the first flat of a pair, unless it is saturated."""

    def finish(self, task: Task, results: Iterable[Any]) -> dict[str, Any]:
        """Fit each amplifier and publish.

        Raises
        ------
        DataError
            Too few pairs, no amplifier with a curve, or a frame of another detector.
        """
        self.require_inputs(task)
        matched, detector, raws = self.matched(task), self.calibrations(task).detector, self.raws(task)
        if len(matched.pairs) < LEAST_PAIRS:
            many = f"{len(raws)} flats make {len(matched.pairs)} pairs of equal {self.settings.matching}"
            raise DataError(raws[0].path, f"{many}; {LEAST_PAIRS} are needed, each of two exposures in a row")
        measured = self._equal(task, list(results))
        by_name = {a.name: [pairs[k] for pairs in measured] for k, a in enumerate(detector.amplifiers)}
        solution = curve.solve({name: _points(pairs) for name, pairs in by_name.items()}, self.settings.fit)
        solution = replace(solution, bad={name: _why(by_name[name], why) for name, why in solution.bad.items()})
        if not solution.curves:
            name, why = next(iter(solution.bad.items()))
            raise DataError(raws[0].path, f"no amplifier has a photon transfer curve; {name}: {why}")
        singles = [task.parameters["exposures"][n] for n in matched.singles]
        gone = self._left_out[task.task]
        about = {
            "inputs_used": 2 * (len(matched.pairs) - gone.number),
            "single": singles,
            "pairs_left_out": gone.exposures,
        }
        return {**self.published(task, measured, solution), **about, "bad_amplifiers": dict(solution.bad)}

    def _equal(self, task: Task, measured: Measured) -> Measured:
        """Leave out pairs without light or of unequal light.

        Raises
        ------
        DataError
            Too few are left.
        """
        exposures = task.parameters["exposures"]
        pairs = [(exposures[one], exposures[other]) for one, other in self.matched(task).pairs]
        gone, rest = left_out(measured, pairs)
        self._left_out[task.task] = gone
        if len(pairs) - gone.number < LEAST_PAIRS:
            what = f"{gone.number} of {len(pairs)} pairs have no light or unequal light, beyond {gone.limit:.1%}"
            raise DataError(self.raws(task)[0].path, f"{what}: exposure {gone}; {LEAST_PAIRS} good pairs are needed")
        return rest

    def published(self, task: Task, measured: Measured, solution: curve.Solution) -> dict[str, Any]:
        """Write and publish the task's product; give the journal's entries for it.

        Raises
        ------
        DataError
            The curves give no product.
        """
        raise NotImplementedError

    def cards(self, task: Task, solution: curve.Solution) -> list[Card]:
        """Make the cards of a product: model, numbers of flats, amplifiers without a curve, provenance."""
        matched, model = self.matched(task), self.settings.fit.model
        cards: list[Card] = [
            ("FITMODEL", str(model), "model of the covariances"),
            ("NEXPOSUR", 2 * (len(matched.pairs) - self._left_out[task.task].number), "flats in pairs"),
            ("NSINGLE", len(matched.singles), "flats without a partner, left out"),
            *((f"SINGLE{n}", task.parameters["exposures"][k], "") for n, k in enumerate(matched.singles, 1)),
            *self._left_out[task.task].cards,
            ("NBADAMP", len(solution.bad), "amplifiers without a curve: BADAMPn"),
        ]
        cards += [(f"BADAMP{n}", f"{a}: {why}"[:60], "") for n, (a, why) in enumerate(solution.bad.items(), 1)]
        return cards + [(key, value, "") for key, value in task.provenance.items()]


def _why(pairs: Sequence[Pair | str], why: str) -> str:
    """Say why an amplifier has no curve: what kept most of its pairs out, if that is half of them."""
    left_out = Counter(re.sub(r"[-+\d.e]+", "#", one) for one in pairs if isinstance(one, str))
    if not left_out or 2 * left_out.most_common(1)[0][1] < len(pairs):
        return why
    text, many = left_out.most_common(1)[0]
    first = next(one for one in pairs if isinstance(one, str) and re.sub(r"[-+\d.e]+", "#", one) == text)
    return f"{many} of {len(pairs)} pairs: {first}"


def _points(pairs: Sequence[Pair | str]) -> curve.Points:
    """Take the pairs in which an amplifier could be measured; the others have means that are no numbers."""
    good = [pair for pair in pairs if isinstance(pair, Pair)]
    if not good:
        return curve.Points(np.empty(0), np.empty((0, 1, 1)), np.empty((0, 1, 1)))
    return curve.Points.of(good)
