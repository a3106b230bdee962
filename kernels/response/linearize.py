"""The linearity of each amplifier of a detector, from raw flats of growing light.

A piece is one flat: the frame is corrected in memory, each amplifier's clipped mean is measured, and the photodiode's
reading, which lies beside the raw frame, is integrated.  Then all amplifiers are fitted against the light
(`kernels.transfer.lineardetector`), and the table is published in upstream's layout.  Signals are in ADU.

A task may instead take the flats of a linearizer that was made before, and the light that the focal plane saw
(`kernels.response.lightsolve`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import isrfiles, linearity, photodiode, ptc
from kernels.camera.geometry import Detector
from kernels.errors import DataError, JobError
from kernels.fits.product import Card
from kernels.isr.framekernel import FrameKernel
from kernels.jobs import gang
from kernels.jobs.job import File, Job, Task
from kernels.jobs.publish import publish
from kernels.jobs.settings import build
from kernels.products.bench import Bench
from kernels.response import linearflats
from kernels.response.flatpairs import SATURATED, region
from kernels.response.linearflats import LACKING, NORMALISATION, PHOTON, UNNORMALISED, Flats
from kernels.response.linearrows import columns, lookups
from kernels.statistics.sample import clipped_mean
from kernels.transfer import lineardetector, linearmodel, nonlinearity
from kernels.transfer.linearmodel import Light, Unlinear

KERNEL: Final = "linearizer"

F64 = NDArray[np.float64]

#: Ends of the reasons for which there is no reading at all.
ABSENT: Final = ("has none in the inputs", "is not there")
#: Role of curves of the same flats.
CURVES: Final = "linearizerPtc"
#: Role of the photodiode's readings among a task's inputs; their keys are ``photodiode:<exposure>``.
DIODE: Final = "photodiode"
#: Noise of the monitor that the first fit assumes, relative.
MONITOR: Final = 1e-3
#: Uncertainty from which a linearity is to be looked at, relative.
DOUBTFUL: Final = 5e-4
#: Percentile of the means' variances that stands for photon noise alone: a pattern of the light adds to the others.
LOWEST: Final = 10


@dataclass(frozen=True)
class Settings:
    """Settings of a job, besides the signature removal's."""

    #: Whether the light is a photodiode's charge, otherwise the exposure time; least charge, coulomb.
    diode: bool
    least_charge: float
    #: Whether a flat without a reading is taken with its exposure time; otherwise it is left out.
    timed: bool
    #: See `kernels.calibrations.photodiode.charge`.
    integration: str
    diode_scale: float
    #: Whether exposures fall into groups, by exposure time or the monitor; see `kernels.transfer.nonlinearity.groups`.
    grouping: bool
    by_time: bool
    threshold: float
    share: float
    #: Pixels at the edge of the detector that are left out, and the clipping of the others.
    edge: int
    nsigma: float
    passes: int
    solve: lineardetector.Rule

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Settings:
        """Check and freeze.

        Raises
        ------
        JobError
            A setting is missing or unknown.
        """
        names = {"nsigma": "outlier_cut", "at_once": "outliers"}
        fit = build(linearmodel.Rule, plain, names, ("floor", "photon"), monitor=MONITOR)
        solve = build(lineardetector.Rule, plain, {"kind": "type", "noise": "reference_noise"}, ("order",), fit=fit)
        found = build(cls, plain, timed=plain.get("missing") == "TIME", solve=solve)
        if solve.kind not in lineardetector.TYPES or found.integration not in photodiode.METHODS:
            raise JobError(f"settings: type {solve.kind} or integration {found.integration} is unknown")
        return found


@dataclass(frozen=True)
class Measured:
    """One flat."""

    #: [amplifier], float64: ADU; not a number where `why` tells the reason.
    means: F64
    #: [amplifier], float64: Variances of the means, ADU^2.
    variances: F64
    why: Mapping[int, str]
    #: Light, second or coulomb; not a number without a reading, and `lacking` tells why.
    light: float
    lacking: str = ""


class Linearity(FrameKernel):
    """The gang kernel: a piece is a flat of one detector; output ``linearizer``."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._settings = Settings.from_plain(job.config)
        self._charges: dict[str, float | str] = {}

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh each flat by its bytes; flats of a linearizer are one piece."""
        if UNNORMALISED in task.inputs:
            return [1.0]
        return [float(file.bytes or 1) for file in self.raws(task)]

    def compute(self, task: Task, piece: int) -> Measured | None:
        """Measure each amplifier of one flat, and its light; nothing where a linearizer has them."""
        if UNNORMALISED in task.inputs:
            return None
        settings, detector, file = self._settings, self.detector(task), self.raws(task)[piece]
        means, variances = np.full((2, len(detector.amplifiers)), np.nan)
        why: dict[int, str] = {}
        for frame, flags in self.corrected(task, file, 0.0):
            number, inner = frame.channel.number, region(frame.channel.amplifier, detector, settings.edge)
            if frame.saturated[0] > SATURATED * frame.pixels.size:
                why[number] = f"{frame.saturated[0]} of {frame.pixels.size} pixels are saturated"
                continue
            image = frame.pixels if flags is None else np.where(flags, np.float32(np.nan), frame.pixels)
            mean, sigma, count = clipped_mean(image, inner, settings.nsigma, settings.passes)
            if not count:
                why[number] = "no pixel is good"
                continue
            means[number] = mean / frame.channel.gain
            variances[number] = (sigma / frame.channel.gain) ** 2 / count
        light = self._light(task, piece, file)
        return Measured(means, variances, why, *((math.nan, light) if isinstance(light, str) else (light,)))

    def _light(self, task: Task, piece: int, file: File) -> float | str:
        """Give the light of an exposure, or tell why it is not known."""
        if not self._settings.diode:
            return float(task.parameters["exposure_times"][piece])
        exposure = task.parameters["exposures"][piece]
        if DIODE not in task.inputs:  # jobs of before, and repositories without readings
            path = photodiode.path_of(file.path, self.detector(task).name)
        elif (key := f"{DIODE}:{exposure}") in task.inputs[DIODE]:
            path = Path(self.job.files[key].path)
        else:
            return f"exposure {exposure} {ABSENT[0]}"
        if str(path) not in self._charges:
            self._charges[str(path)] = self._charge(path)
        return self._charges[str(path)]

    def _charge(self, path: Path) -> float | str:
        try:
            charge = photodiode.charge(path, self._settings.integration, self._settings.diode_scale)
        except DataError as error:
            return str(error)
        least = self._settings.least_charge
        return charge if charge > least else f"{path}: {charge:.3g} C is not above {least:g} C"

    def finish(self, task: Task, results: Iterable[Measured | None]) -> dict[str, Any]:
        """Fit all amplifiers and publish.

        Raises
        ------
        DataError
            No flat has a reading of the photodiode, no amplifier has a linearity, or a frame is another detector's.
        """
        measured = [one for one in results if one is not None]
        flats, detector = self._measured(task, measured) if measured else self._read(task)
        rule, where = self._settings.solve, self._source(task)
        try:
            found = lineardetector.solve(
                flats.signals, flats.light, flats.ptc, flats.noises, flats.photon, rule, flats.common
            )
        except Unlinear as error:
            unread = f"; {flats.reason}" if flats.lacking else ""
            reasons = next((f"; {text}" for m in measured for text in m.why.values()), "")
            raise DataError(where, f"{error}{unread}{reasons}") from error
        (kind,) = task.outputs
        output = publish(
            task.outputs[kind],
            lambda path: self._write(path, task, detector, flats, found),
            self.stamp,
            self.job.config["permissions"],
        )
        every = flats.signals.shape[1]
        about = {"inputs_used": every - flats.left_out, "without_light": flats.left_out}
        bad = {detector.amplifiers[k].name: why for k, why in found.bad.items()}
        said = self._doubts(found, flats, bad)
        return {kind: output, **about, "bad_amplifiers": bad, **({"look_at": said} if said else {})}

    def _source(self, task: Task) -> str:
        """Give the path of the task's first input, for messages."""
        return self.job.files[task.inputs[UNNORMALISED if UNNORMALISED in task.inputs else "raw"][0]].path

    def _read(self, task: Task) -> tuple[Flats, Detector]:
        """Take the flats of a linearizer, by the light that the focal plane saw."""
        flats, detector = linearflats.read(self._source(task), self.camera, self.detector(task))
        light = self.job.files[task.inputs[NORMALISATION][0]].path
        return flats.normalised(*linearflats.read_normalisation(light, task.parameters["exposures"])), detector

    def _measured(self, task: Task, measured: Sequence[Measured]) -> tuple[Flats, Detector]:
        """Put the flats together.

        Raises
        ------
        DataError
            No flat has a reading of the photodiode, or a frame is another detector's.
        """
        self.require_inputs(task)
        detector, lacking = self.calibrations(task).detector, [m.lacking for m in measured if m.lacking]
        if len(lacking) == len(measured):
            do = "with usePhotodiode: false the exposure times are the light"
            raise DataError(self._source(task), f"no flat has a reading of the photodiode ({lacking[0]}); {do}")
        signals = np.array([m.means for m in measured]).T
        light, turnoffs = self._amounts(task, measured, signals), self._turnoffs(task, detector)
        noises, photon = [a.read_noise for a in detector.amplifiers], _photon(signals, measured)
        without = len(lacking), _reason(lacking), self._settings.timed
        return Flats(signals, photon, light, turnoffs, noises, *without), detector

    def _amounts(self, task: Task, measured: Sequence[Measured], signals: F64) -> Light:
        """Give the light of each exposure, in groups where the settings ask for them."""
        settings = self._settings
        amount, times = np.array([m.light for m in measured]), np.array(task.parameters["exposure_times"], np.float64)
        if settings.timed and (times > 0).all():
            amount = np.where(np.isfinite(amount), amount, times * np.nanmedian(amount / times))
        group = np.where(np.isfinite(amount), 0, -1)
        if settings.grouping:
            by = times if settings.by_time else amount
            typical = np.full(len(amount), np.nan)
            seen = np.isfinite(signals).any(axis=0)
            typical[seen] = np.nanmedian(signals[:, seen], axis=0)
            group = np.where(group < 0, -1, nonlinearity.groups(typical, by, settings.threshold, settings.share))
        return Light(amount, group)

    def _turnoffs(self, task: Task, detector: Detector) -> F64:
        """Read the turnoffs of the ptc, ADU; not a number where there is none."""
        role = CURVES if CURVES in task.inputs else "ptc"
        if role not in task.inputs:
            return np.full(len(detector.amplifiers), np.nan)
        found = isrfiles.read(self.job.files[task.inputs[role][0]].path)
        found.require(ptc.KIND, self.camera, detector)
        column = found.tables[0].columns.get("PTC_TURNOFF", np.full(len(detector.amplifiers), np.nan))
        values = np.asarray(column, np.float64)[found.order(detector)]
        return np.where(values > 0, values, np.nan)

    def _doubts(self, found: lineardetector.Solution, flats: Flats, bad: Mapping[str, str]) -> list[str]:
        """Tell the operator what to look at."""
        said = []
        if flats.lacking:
            every = flats.signals.shape[1]
            why = f" ({flats.reason})" if flats.reason else ""
            become = "are taken by their exposure times" if flats.timed else "are left out"
            said.append(f"{flats.lacking} of {every} flats have no reading of the photodiode, and {become}{why}")
        if bad:
            said.append(f"no linearity: {', '.join(bad)}")
        if found.error > DOUBTFUL:
            by = "the photodiode" if self._settings.diode else "the lamp over exposure time"
            said.append(
                f"linearity good to {found.error:.1e}, its slope to {found.slope_error:.1e}: {by} scatters by "
                f"{max(found.monitor, flats.scatter):.1e}"
            )
        return said

    def _write(self, path: str, task: Task, detector: Detector, flats: Flats, found: lineardetector.Solution) -> None:
        settings, light = self._settings, flats.light
        amplifiers = detector.amplifiers
        cards: list[Card] = [
            ("LINTYPE", settings.solve.kind, "type of the linearity"),
            ("LIGHT", "photodiode" if settings.diode else "exposure time", "monitor of the light"),
            ("NEXPOSUR", flats.signals.shape[1] - flats.left_out, "flats"),
            (LACKING, flats.left_out, "flats without a reading, left out"),
            ("NGROUPS", len(np.unique(light.group[light.group >= 0])), "groups of flats"),
            ("MONNOISE", found.monitor, "scatter of the monitor, relative"),
            ("LINERR", found.error, "uncertainty of a signal, relative"),
            ("SLOPEERR", found.slope_error, "uncertainty of its slope, relative"),
            ("ABSREF", amplifiers[found.reference].name, "reference amplifier"),
            ("NBADAMP", len(found.bad), "amplifiers without linearity: BADAMPn"),
        ]
        if flats.timed:
            cards.append(("NTIMED", flats.lacking, "flats without a reading, by exposure time"))
        if UNNORMALISED in task.outputs:
            cards.append((PHOTON, flats.photon, "noise of a mean, ADU^0.5 / its root"))
        if flats.normalisation is not None:
            cards.append(("LAMPNOIS", flats.scatter, "scatter of the monitor before, relative"))
        cards += [
            (f"BADAMP{n}", f"{amplifiers[k].name}: {w}"[:60], "") for n, (k, w) in enumerate(found.bad.items(), 1)
        ]
        cards += [(key, value, "") for key, value in task.provenance.items()]
        table = columns(detector, flats, found, settings.solve.kind)
        metadata = {"HAS_LINEARITY": True, "OVERRIDE": True, "HAS_TABLE": False, "LINEARITY_UNITS": "adu"}
        second = None
        if settings.solve.kind == "LookupTable":
            metadata["HAS_TABLE"], second = True, {"LOOKUP_VALUES": lookups(found)}
        isrfiles.save(path, linearity.KIND, self.camera, detector, table, cards, metadata, second)


def _reason(lacking: Sequence[str]) -> str:
    """Say how many readings cannot be used, and why the first one; without such, why the first is absent."""
    unusable = [why for why in lacking if not why.endswith(ABSENT)]
    return f"{len(unusable)} cannot be used, the first: {unusable[0]}" if unusable else next(iter(lacking), "")


def _photon(signals: F64, measured: Sequence[Measured]) -> float:
    """Give the noise of a mean, relative, times the root of the mean, ADU^0.5."""
    variances = np.array([m.variances for m in measured]).T
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(signals > 0, variances / signals, np.nan)
    lowest = [np.nanpercentile(row, LOWEST) for row in ratios if np.isfinite(row).any()]
    return float(np.sqrt(np.median(lowest))) if lowest else 0.0


def warm(bench: Bench) -> None:
    """Compile nothing more than the corrections and the clipped mean, which other kernels' benches run."""


def execute(job: Job, comm: Any) -> int:
    """Measure every task's detector; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Linearity(job))
