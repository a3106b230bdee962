"""The linearity of each amplifier of a detector, from raw flats of growing light.

A piece is one flat: the frame is corrected in memory, each amplifier's clipped mean is measured, and the photodiode's
reading, which lies beside the raw frame, is integrated.  Then all amplifiers are fitted against the light
(`kernels.transfer.lineardetector`), and the table is published in upstream's layout.  Signals are in ADU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import isrfiles, linearity, photodiode
from kernels.camera.geometry import Detector
from kernels.errors import DataError, JobError
from kernels.fits.product import Card
from kernels.isr.framekernel import FrameKernel
from kernels.jobs import gang
from kernels.jobs.job import File, Job, Task
from kernels.jobs.publish import publish
from kernels.products.bench import Bench
from kernels.response.flatpairs import SATURATED, region
from kernels.response.linearrows import columns
from kernels.statistics.sample import clipped_mean
from kernels.transfer import lineardetector, linearfit, nonlinearity
from kernels.transfer.linearfit import Light, Unlinear

KERNEL: Final = "linearizer"

F64 = NDArray[np.float64]

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
        try:
            kind = str(plain["type"])
            if kind not in ("Spline", "DoubleSpline") or plain["integration"] not in photodiode.METHODS:
                raise ValueError(f"type {kind} or integration {plain['integration']} is unknown")
            fit = linearfit.Rule(
                MONITOR, offset=bool(plain["offset"]), nsigma=float(plain["outlier_cut"]),
                at_once=int(plain["outliers"]), rounds=int(plain["rounds"]),
            )  # fmt: skip
            return cls(
                bool(plain["diode"]), float(plain["least_charge"]),
                str(plain["integration"]), float(plain["diode_scale"]),
                bool(plain["grouping"]), bool(plain["by_time"]), float(plain["threshold"]), float(plain["share"]),
                int(plain["edge"]), float(plain["nsigma"]), int(plain["passes"]),
                lineardetector.Rule(
                    "Spline" if kind == "Spline" else "DoubleSpline", int(plain["knots"]), float(plain["size"]),
                    float(plain["deviation"]), float(plain["reference_noise"]), fit,
                ),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(f"settings of the linearity: {error}") from error


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
        """Weigh each flat by its bytes."""
        return [float(file.bytes or 1) for file in self.raws(task)]

    def compute(self, task: Task, piece: int) -> Measured:
        """Measure each amplifier of one flat, and its light."""
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
        path = photodiode.path_of(file.path, self.detector(task).name)
        if str(path) not in self._charges:
            self._charges[str(path)] = self._charge(path)
        return self._charges[str(path)]

    def _charge(self, path: Any) -> float | str:
        try:
            charge = photodiode.charge(path, self._settings.integration, self._settings.diode_scale)
        except DataError as error:
            return str(error)
        least = self._settings.least_charge
        return charge if charge > least else f"{path}: {charge:.3g} C is not above {least:g} C"

    def finish(self, task: Task, results: Iterable[Measured]) -> dict[str, Any]:
        """Fit all amplifiers and publish.

        Raises
        ------
        DataError
            No flat has a reading of the photodiode, no amplifier has a linearity, or a frame is another detector's.
        """
        self.require_inputs(task)
        detector, raws, measured = self.calibrations(task).detector, self.raws(task), list(results)
        lacking = [m.lacking for m in measured if m.lacking]
        if len(lacking) == len(measured):
            do = "with usePhotodiode: false the exposure times are the light"
            raise DataError(raws[0].path, f"no flat has a reading of the photodiode ({lacking[0]}); {do}")
        signals = np.array([m.means for m in measured]).T
        light, ptc = self._amounts(task, measured, signals), self._turnoffs(task, detector)
        noises = [a.read_noise for a in detector.amplifiers]
        try:
            found = lineardetector.solve(signals, light, ptc, noises, _photon(signals, measured), self._settings.solve)
        except Unlinear as error:
            unread = f"; {lacking[0]}" if lacking else ""
            reasons = next((f"; {text}" for m in measured for text in m.why.values()), "")
            raise DataError(raws[0].path, f"{error}{unread}{reasons}") from error
        output = publish(
            task.outputs[linearity.KIND],
            lambda path: self._write(path, task, detector, signals, light, ptc, found, len(lacking)),
            self.stamp,
            self.job.config["permissions"],
        )
        about = {"inputs_used": len(measured) - len(lacking), "without_light": len(lacking)}
        bad = {detector.amplifiers[k].name: why for k, why in found.bad.items()}
        said = self._doubts(found, lacking, len(measured), bad)
        return {linearity.KIND: output, **about, "bad_amplifiers": bad, **({"look_at": said} if said else {})}

    def _amounts(self, task: Task, measured: Sequence[Measured], signals: F64) -> Light:
        """Give the light of each exposure, in groups where the settings ask for them."""
        settings = self._settings
        amount = np.array([m.light for m in measured])
        group = np.where(np.isfinite(amount), 0, -1)
        if settings.grouping:
            by = np.array(task.parameters["exposure_times"], np.float64) if settings.by_time else amount
            typical = np.full(len(amount), np.nan)
            seen = np.isfinite(signals).any(axis=0)
            typical[seen] = np.nanmedian(signals[:, seen], axis=0)
            group = np.where(group < 0, -1, nonlinearity.groups(typical, by, settings.threshold, settings.share))
        return Light(amount, group)

    def _turnoffs(self, task: Task, detector: Detector) -> F64:
        """Read the turnoffs of the ptc, ADU; not a number where there is none."""
        if not self.isr.ptc:
            return np.full(len(detector.amplifiers), np.nan)
        found = isrfiles.read(self.job.files[task.inputs["ptc"][0]].path)
        column = found.tables[0].columns.get("PTC_TURNOFF", np.full(len(detector.amplifiers), np.nan))
        values = np.asarray(column, np.float64)[found.order(detector)]
        return np.where(values > 0, values, np.nan)

    def _doubts(
        self, found: lineardetector.Solution, lacking: Sequence[str], flats: int, bad: Mapping[str, str]
    ) -> list[str]:
        """Tell the operator what to look at."""
        said = []
        if lacking:
            said.append(f"{len(lacking)} of {flats} flats have no reading of the photodiode, and are left out")
        if bad:
            said.append(f"no linearity: {', '.join(bad)}")
        if found.error > DOUBTFUL:
            by = "the photodiode" if self._settings.diode else "the lamp over exposure time"
            said.append(
                f"linearity good to {found.error:.1e}, its slope to {found.slope_error:.1e}: {by} scatters by "
                f"{found.monitor:.1e}"
            )
        return said

    def _write(
        self, path: str, task: Task, detector: Detector, signals: F64, light: Light, ptc: F64,
        found: lineardetector.Solution, lacking: int,
    ) -> None:  # fmt: skip
        settings = self._settings
        amplifiers = detector.amplifiers
        cards: list[Card] = [
            ("LINTYPE", settings.solve.kind, "type of the linearity"),
            ("LIGHT", "photodiode" if settings.diode else "exposure time", "monitor of the light"),
            ("NEXPOSUR", signals.shape[1] - lacking, "flats"),
            ("NODIODE", lacking, "flats without a reading, left out"),
            ("NGROUPS", len(np.unique(light.group[light.group >= 0])), "groups of flats"),
            ("MONNOISE", found.monitor, "scatter of the monitor, relative"),
            ("LINERR", found.error, "uncertainty of a signal, relative"),
            ("SLOPEERR", found.slope_error, "uncertainty of its slope, relative"),
            ("ABSREF", amplifiers[found.reference].name, "reference amplifier"),
            ("NBADAMP", len(found.bad), "amplifiers without linearity: BADAMPn"),
        ]
        cards += [
            (f"BADAMP{n}", f"{amplifiers[k].name}: {w}"[:60], "") for n, (k, w) in enumerate(found.bad.items(), 1)
        ]
        cards += [(key, value, "") for key, value in task.provenance.items()]
        metadata = {"HAS_LINEARITY": True, "OVERRIDE": True, "HAS_TABLE": False, "LINEARITY_UNITS": "adu"}
        table = columns(detector, signals, light, ptc, found, settings.solve.kind)
        isrfiles.save(path, linearity.KIND, self.camera, detector, table, cards, metadata)


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
