"""The crosstalk between the amplifiers of a detector, from frames with spots or stars.

A piece is one exposure: the frame is corrected in memory, in the order of the read-out, and what bright pixels leave
in other amplifiers is collected (`kernels.transfer.crosstalkpixels`).  Then each amplifier is fitted on all others
(`kernels.transfer.crosstalkfit`), or upstream's ratios are taken (`kernels.transfer.crosstalkratios`), and the table
is published in upstream's layout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import crosstalk
from kernels.camera.geometry import Detector
from kernels.errors import DataError, JobError
from kernels.fits.product import Card
from kernels.isr.blanks import oriented
from kernels.isr.framekernel import FrameKernel
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products.bench import Bench
from kernels.transfer import crosstalkfit, crosstalkpixels, crosstalkratios
from kernels.transfer import warm as transfer
from kernels.transfer.crosstalkfit import Crosstalk
from kernels.transfer.crosstalkpixels import Lit

KERNEL: Final = "crosstalk"

F64 = NDArray[np.float64]

JOINT, RATIOS = "JOINT", "RATIOS"
#: Rejection by default, standard deviations.
NSIGMA: Final[Mapping[str, float]] = {JOINT: 5.0, RATIOS: 2.0}


@dataclass(frozen=True)
class Settings:
    """Settings of a job, besides the signature removal's."""

    #: ``JOINT``, or ``RATIOS`` as upstream.
    estimator: str
    collect: crosstalkpixels.Rule
    fit: crosstalkfit.Rule

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Settings:
        """Check and freeze.

        Raises
        ------
        JobError
            A setting is missing or unknown.
        """
        try:
            name = str(plain["estimator"])
            nsigma = float(plain["nsigma"]) or NSIGMA[name]
            collect = crosstalkpixels.Rule(
                float(plain["bright"]), float(plain["own"]), grow=int(plain["grow"]), box=int(plain["box"])
            )
            fit = crosstalkfit.Rule(
                int(plain["least"]), nsigma, int(plain["passes"]), int(plain["order"]) == 1, float(plain["significant"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(f"settings of the crosstalk: {error}") from error
        return cls(name, collect, fit)


@dataclass(frozen=True)
class Measured:
    """One exposure."""

    lit: Lit
    #: [amplifier], int64: Saturated pixels.
    saturated: NDArray[np.int64]


@dataclass(frozen=True)
class _Account:
    """Exposures and pixels of a detector's crosstalk: used, and left out."""

    exposures: int
    #: Exposures that are lit evenly, and that have no bright pixel beside good ones.
    evenly: int
    dark: int
    #: Bright pixels; saturated ones; targets' pixels beside bright ones that were left out, because of light of their
    #: own or of a flagged pixel at the same place; rejected ones.
    bright: int
    saturated: int
    unused: int
    rejected: int
    #: Bright pixels by name of an amplifier that has too few to be a source; reason by name of a target without
    #: coefficients.
    sources: Mapping[str, int]
    targets: Mapping[str, str]

    def cards(self) -> list[Card]:
        """Make the header's cards."""
        cards: list[Card] = [
            ("NEXPOSUR", self.exposures - self.evenly - self.dark, "exposures that were used"),
            ("NEVENLY", self.evenly, "exposures left out: lit evenly"),
            ("NDARKEXP", self.dark, "exposures left out: no bright pixel"),
            ("NBRIGHT", self.bright, "bright pixels"),
            ("NSATURAT", self.saturated, "saturated pixels, left out"),
            ("NUNUSED", self.unused, "targets' pixels left out: own light, flags"),
            ("NREJECT", self.rejected, "targets' pixels rejected as outliers"),
            ("NNOSRC", len(self.sources), "amplifiers that are no source: NOSRCn"),
            ("NBADAMP", len(self.targets), "amplifiers without coefficients: BADAMPn"),
        ]
        few = enumerate(self.sources.items(), 1)
        cards += [(f"NOSRC{n}", f"{name}: {many} bright pixels", "") for n, (name, many) in few]
        return cards + [(f"BADAMP{n}", f"{a}: {w}"[:60], "") for n, (a, w) in enumerate(self.targets.items(), 1)]

    def said(self) -> list[str]:
        """Tell the operator what to look at."""
        said = []
        if self.sources:
            few = f"bright in {max(self.sources.values())} pixels at most"
            said.append(f"crosstalk from {', '.join(self.sources)} is not known: {few}")
        if self.targets:
            said.append(f"crosstalk to {', '.join(self.targets)} is not known")
        for many, why in ((self.evenly, "are lit evenly, like flats"), (self.dark, "have no bright pixel")):
            if many:
                said.append(f"{many} of {self.exposures} exposures {why}, and are left out")
        return said


class Measure(FrameKernel):
    """The gang kernel: a piece is an exposure of one detector; output ``crosstalk``."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._settings = Settings.from_plain(job.config)
        if self.isr.crosstalk or self.isr.linearity or self.isr.deferred:
            what = "crosstalk is measured before crosstalk, linearity and deferred charge are corrected"
            raise JobError(f"{what}: set doCrosstalk, doLinearize and doDeferredCharge to false")
        self.isr = replace(self.isr, saturation=True)

    def groups(self, task: Task) -> list[list[int]]:
        """Read all amplifiers together: they must be of one size."""
        return [list(range(len(self.detector(task).amplifiers)))]

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh each exposure by its bytes."""
        return [float(file.bytes or 1) for file in self.raws(task)]

    def compute(self, task: Task, piece: int) -> Measured:
        """Collect what bright pixels of one exposure leave in other amplifiers."""
        detector = self.calibrations(task).detector
        file, seconds = self.raws(task)[piece], float(task.parameters["dark_times"][piece])
        data = detector.amplifiers[0].data
        signals = np.empty((len(detector.amplifiers), data.ny, data.nx), np.float32)
        saturated = np.zeros(len(signals), np.int64)
        for frame, flags in self.corrected(task, file, seconds):
            channel = frame.channel
            image = frame.pixels if flags is None else np.where(flags, np.float32(np.nan), frame.pixels)
            unit = np.float32(channel.amplifier.gain / channel.gain)
            signals[channel.number] = channel.as_read(oriented(image, channel.amplifier)) * unit
            saturated[channel.number] = frame.saturated[0]
        noise = np.array([a.read_noise for a in detector.amplifiers])
        found = crosstalkpixels.collect(signals, np.isfinite(signals), noise, self._settings.collect)
        return Measured(found, saturated)

    def finish(self, task: Task, results: Iterable[Measured]) -> dict[str, Any]:
        """Fit all amplifiers and publish.

        Raises
        ------
        DataError
            No exposure tells crosstalk, no amplifier has coefficients, or a frame is another detector's.
        """
        self.require_inputs(task)
        detector, raws = self.calibrations(task).detector, self.raws(task)
        measured = [Measured(one.lit.copy(), one.saturated.copy()) for one in results]
        frames = [one.lit for one in measured if one.lit.bright.any()]
        if not frames:
            raise DataError(raws[0].path, _useless(measured, self._settings.collect.bright))
        fit = crosstalkratios.fit if self._settings.estimator == RATIOS else crosstalkfit.fit
        found = fit(frames, self._settings.fit)
        account = _account(detector, measured, frames, found)
        if not np.isfinite(found.c0).any():
            name, why = next(iter(account.targets.items()))
            many = f"{account.bright} bright pixels in {len(frames)} exposures"
            raise DataError(raws[0].path, f"no amplifier has crosstalk coefficients, of {many}; {name}: {why}")
        write = partial(self._write, task=task, detector=detector, found=found, account=account)
        output = publish(task.outputs[crosstalk.KIND], write, self.stamp, self.job.config["permissions"])
        about = {"inputs_used": len(frames), "saturated": account.saturated, "no_source": dict(account.sources)}
        said = account.said()
        bad = {"bad_amplifiers": dict(account.targets)}
        return {crosstalk.KIND: output, **about, **bad, **({"look_at": said} if said else {})}

    def _write(self, path: str, task: Task, detector: Detector, found: Crosstalk, account: _Account) -> None:
        settings = self._settings
        own = ~np.eye(len(found.c0), dtype=np.bool_)
        quadratic = "c0 x + c1 x^2" if settings.fit.quadratic else "c0 x"
        cards: list[Card] = [
            ("CTMETHOD", settings.estimator, "JOINT: one fit a target; RATIOS: upstream's"),
            ("CTMODEL", quadratic, "of a source of x electron"),
            ("CTBRIGHT", settings.collect.bright, "electron, least signal of a bright pixel"),
            ("CTSIGNIF", settings.fit.significant, "sigma, least significance of valid ones"),
            ("NVALID", int(found.valid.sum()), "valid coefficients"),
            ("NCOEFF", int(np.isfinite(found.c0[own]).sum()), "measured ones"),
        ]
        if np.isfinite(found.chi2).any():
            cards.append(("CTCHI2", float(np.nanmedian(found.chi2)), "reduced chi^2, median over amplifiers"))
        cards += [*account.cards(), *self.calibrations(task).left_out]
        cards += [(key, value, "") for key, value in task.provenance.items()]
        c0, c1, columns = _in_unit(found, detector, self.camera.unit)
        crosstalk.write(path, self.camera, detector, c0, c1, cards, columns)


def _in_unit(found: Crosstalk, detector: Detector, unit: str) -> tuple[F64, F64, dict[str, NDArray[Any]]]:
    """Convert coefficients to the unit of the frames; an amplifier has none of itself."""
    gains = np.array([a.gain for a in detector.amplifiers])
    ratios = gains[:, np.newaxis] / gains
    linear = 1.0 if unit == "electron" else 1 / ratios
    square = 1.0 if unit == "electron" else gains / ratios
    own = np.eye(len(gains), dtype=np.bool_)
    c0, c1, error0, error1 = (
        np.where(own, 0.0, values * factor)
        for values, factor in (
            (found.c0, linear), (found.c1, square), (found.c0_error, linear), (found.c1_error, square),
        )
    )  # fmt: skip
    columns = {
        "CT_ERRORS": error0,
        "CT_COUNTS": np.where(own, 0, found.counts),
        "CT_VALID": found.valid & ~own,
        "CT_ERRORS_SQR": error1,
        "CT_AMP_GAIN_RATIOS": ratios,
        "CT_FIT_GAINS": gains,
    }
    return c0, c1, columns


def _useless(measured: Sequence[Measured], bright: float) -> str:
    """Say why no exposure tells crosstalk."""
    seen = [one.lit.seen for one in measured]
    evenly = [one for one in seen if one.evenly]
    if evenly:
        share = 100 * float(np.mean([one.together for one in evenly]))
        what = f"{len(evenly)} of {len(seen)} exposures are lit evenly, like flats"
        why = f"where one amplifier is bright, {share:.0f} % of all are, and nobody can tell whose light one shows"
        return f"{what}: {why}; take spots, or stars of science exposures"
    most = np.array([one.brightest for one in seen])
    brightest = float(np.nanmax(most)) if np.isfinite(most).any() else math.nan
    full = sum(int(one.saturated.sum()) for one in measured)
    many = sum(int(one.counts.sum()) for one in seen)
    text = f"{many} pixels of {len(seen)} exposures are above {bright:g} electron and below saturation"
    text += " beside good pixels of all amplifiers" if many else f" (the brightest has {brightest:.0f}"
    text += "" if many else f", {full} are saturated)"
    return f"{text}; crosstalk needs spots, or stars of science exposures"


def _account(detector: Detector, measured: Sequence[Measured], frames: Sequence[Lit], found: Crosstalk) -> _Account:
    """Count what was used and what was left out."""
    evenly = sum(one.lit.seen.evenly for one in measured)
    beside = sum(int((frame.bright.any(axis=0) & ~frame.bright).sum()) for frame in frames)
    usable = sum(int(frame.usable.sum()) for frame in frames)
    known = np.isfinite(found.c0)
    names = [a.name for a in detector.amplifiers]
    counts = np.sum([frame.seen.counts for frame in frames], axis=0)
    return _Account(
        exposures=len(measured),
        evenly=evenly,
        dark=len(measured) - evenly - len(frames),
        bright=sum(int(frame.bright.sum()) for frame in frames),
        saturated=sum(int(one.saturated.sum()) for one in measured),
        unused=beside - usable,
        rejected=int(found.rejected.sum()),
        sources={names[k]: int(counts[k]) for k in np.flatnonzero(~np.asarray(known.any(axis=0)))},
        targets={names[k]: why for k, why in found.bad.items()},
    )


def warm(bench: Bench) -> None:
    """Compile the room's functions; frames of two amplifiers without light tell no crosstalk."""
    transfer.compile_all()


def execute(job: Job, comm: Any) -> int:
    """Measure every task's detector; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Measure(job))
