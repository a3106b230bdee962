"""The inputs table: levels and noise of every raw frame, amplifier by amplifier."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Amplifier, Detector
from kernels.errors import DataError
from kernels.isr.framekernel import FrameKernel
from kernels.isr.load import FIRST_PIECE, LEVEL, SIGNAL, SPAN, VARIANCE
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import PublishError, reason, sync
from kernels.statistics import shape

KERNEL: Final = "levels"

COLUMNS = (
    "exposure", "detector", "amplifier", "level", "noise", "saturated", "overscan",
    "noise_error", "shape", "shape_error", "constant", "rejected", "blank", "same_as",
)  # fmt: skip
#: Rows of the counts that `Found.frame` returns.
SATURATED, BLANK, REJECTED = 0, 1, 2
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Light:
    """Scale of the light of exposures of one kind."""

    #: ``bias``, ``dark`` or ``flat``.
    kind: str
    #: Exposure time of each, second.
    times: Sequence[float]

    @classmethod
    def of(cls, job: Job, task: Task) -> Light:
        """Make it for a task's exposures."""
        n = len(task.inputs["raw"])
        return cls(str(job.config.get("type", "bias")), task.parameters.get("exposure_times", [0.0] * n))

    def by(self, level: F64, amplifier: Amplifier) -> tuple[F64, bool]:
        """Return the quantity [exposure] with which a pattern grows, and whether the pattern vanishes at 0 of it."""
        if self.kind == "flat":
            return level, amplifier.serial_overscan is not None
        return np.asarray(self.times if self.kind == "dark" else np.zeros(len(level)), np.float64), False


def digest(samples: F64) -> bytes | None:
    """Compute a checksum of one amplifier's sampled rows; `None` where they have no noise that identifies them."""
    if not (samples[:, VARIANCE].any() and samples[:, SPAN].any()):
        return None
    return hashlib.blake2b(np.ascontiguousarray(samples).tobytes(), digest_size=16).digest()


def first_alike(digests: Sequence[bytes | str | None], exposures: Sequence[int]) -> list[int]:
    """Find for each exposure the first earlier one with the same pixels; 0 where there is none."""
    seen: dict[bytes | str, int] = {}
    found = []
    for one, exposure in zip(digests, exposures, strict=True):
        found.append(0 if one is None else seen.get(one, 0))
        if one is not None:
            seen.setdefault(one, exposure)
    return found


def require_different(path: str, exposure: int, alike: int, where: str) -> None:
    """Refuse a copy of another frame, which would count twice.

    Raises
    ------
    DataError
        The frame is a copy; both are named.
    """
    if alike:
        what = f"exposure {exposure} has the very pixels of exposure {alike} in {where}"
        raise DataError(path, f"{what}: one frame under two names; leave one out with --exclude {exposure}")


class Found:
    """Samples and counts of a detector's amplifiers and frames, collected block by block."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._samples: dict[int, list[F64]] = {}
        self._counts: dict[int, list[NDArray[np.int64]]] = {}

    def add(
        self,
        amplifier: int,
        samples: F64,
        saturated: NDArray[np.int64],
        blank: NDArray[np.int64],
        rejected: NDArray[np.int64] | None = None,
    ) -> None:
        """Add an amplifier's next rows.

        Parameters
        ----------
        samples : `numpy.ndarray` [frame, sampled row, SAMPLED], float64
            See `kernels.isr.load.sample`.
        saturated, blank, rejected : `numpy.ndarray` [frame], int64
            Numbers of pixels that are saturated, hold no value, or were rejected as cosmic rays.
        """
        none = np.zeros(len(saturated), np.int64)
        self._samples.setdefault(amplifier, []).append(samples.copy())  # a piece is valid until the next one
        self._counts.setdefault(amplifier, []).append(
            np.stack([saturated, blank, none if rejected is None else rejected])
        )

    def frame(self) -> dict[int, tuple[F64, NDArray[np.int64]]]:
        """Return by amplifier all samples, and the numbers of saturated, blank and rejected pixels [3, frame]."""
        return {
            k: (np.concatenate(parts, axis=1), np.sum(self._counts[k], axis=0)) for k, parts in self._samples.items()
        }

    def rows(self, exposures: Sequence[int], light: Light) -> list[list[Any]]:
        """Make the table's rows (`COLUMNS`); see `table`."""
        return table(self._detector, self.frame(), exposures, light)


def together(
    frames: Sequence[Mapping[int, tuple[F64, NDArray[np.int64]]]],
) -> dict[int, tuple[F64, NDArray[np.int64]]]:
    """Join the results of `Found.frame` of single frames."""
    return {
        k: (np.concatenate([f[k][0] for f in frames]), np.concatenate([f[k][1] for f in frames], axis=1))
        for k in frames[0]
    }


def table(
    detector: Detector,
    found: Mapping[int, tuple[F64, NDArray[np.int64]]],
    exposures: Sequence[int],
    light: Light,
) -> list[list[Any]]:
    """Make the table's rows (`COLUMNS`) in the order of the exposures."""
    rows: list[list[Any]] = []
    for k, (samples, counts) in sorted(found.items()):
        amplifier = detector.amplifiers[k]
        level = _level(samples[:, :, SIGNAL])
        noise = np.sqrt(_of_rows(np.mean, samples[:, :, VARIANCE]))
        scatter = _of_rows(np.std, samples[:, :, VARIANCE]) / max(samples.shape[1], 1) ** 0.5
        error = np.divide(scatter, 2 * noise, out=np.zeros_like(noise), where=noise > 0)
        bent, of_cell = shape.deviations(shape.cells(samples[:, :, FIRST_PIECE:]), *light.by(level, amplifier))
        full, blank, rejected = counts / (amplifier.data.nx * amplifier.data.ny)
        alike = first_alike([digest(one) for one in samples], exposures)
        overscan, constant = np.median(samples[:, :, LEVEL], axis=1), (samples[:, :, SPAN] == 0).mean(axis=1)
        columns = (level, noise, full, overscan, error, bent, of_cell, constant, rejected, blank)
        for exposure, same, *values in zip(exposures, alike, *columns, strict=True):
            texts = (f"{value:.7g}" for value in values)
            rows.append([exposure, detector.id, amplifier.name, *texts, same])
    order = {exposure: n for n, exposure in enumerate(exposures)}
    return sorted(rows, key=lambda row: order[row[0]])


def _level(signal: F64) -> F64:
    """Measure the level [frame] of signals [frame, row]: the median over rows of the excess over the usual row.

    Where rows differ by more than their noise, a median of the rows themselves depends on the few rows near it.
    """
    good = np.isfinite(signal)
    known = good.any(axis=0)
    usual = np.full(signal.shape[1], np.nan)
    usual[known] = np.nanmedian(signal[:, known], axis=0)
    typical = np.median(usual[known]) if known.any() else 0.0
    return np.where(good.any(axis=1), _of_rows(np.median, signal - usual) + typical, 0.0)


def _of_rows(average: Callable[..., Any], samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average [frame] the samples [frame, row] that are numbers; 0 where none is."""
    good = np.isfinite(samples)
    if good.all():
        return np.asarray(average(samples, axis=1))
    return np.array([average(row[some]) if some.any() else 0.0 for row, some in zip(samples, good, strict=True)])


def path_of(job: Job, task: Task) -> str:
    """Return the path of a task's rows: one file a detector under ``config["inputs_table"]``."""
    return f"{job.config['inputs_table']}/{task.task.replace(':', '_')}.csv"


def write(path: str, rows: Sequence[Sequence[object]]) -> None:
    """Write one detector's rows (`COLUMNS`) as CSV; a repeated attempt replaces them by equal rows.

    Raises
    ------
    PublishError
        The folder cannot be written, or the disk is full.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        sync(temporary)
        temporary.replace(target)
    except OSError as error:
        raise PublishError(f"{path}: cannot be written: {reason(error, target.parent)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


class Levels(FrameKernel):
    """The gang kernel of an inputs table without a product; a piece is one exposure of one detector.

    ``config``: ``isr``, ``type`` (bias | dark | flat), ``inputs_table`` (a folder); task parameters: ``exposures``,
    ``exposure_times``.
    """

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh each exposure by the bytes read for it."""
        return [float(file.bytes or 1) for file in self.raws(task)]

    def compute(self, task: Task, piece: int) -> dict[int, tuple[F64, NDArray[np.int64]]]:
        """Measure one exposure; see `Found.frame`."""
        found = Found(self.detector(task))
        for frame, _ in self.corrected(task, self.raws(task)[piece], 0.0):
            found.add(frame.channel.number, frame.samples, frame.saturated, frame.blank)
        return found.frame()

    def finish(self, task: Task, results: Iterable[dict[int, tuple[F64, NDArray[np.int64]]]]) -> dict[str, Any]:
        """Write one detector's rows."""
        self.calibrations(task).verify()
        found, exposures = together(list(results)), task.parameters["exposures"]
        write(path_of(self.job, task), table(self.detector(task), found, exposures, Light.of(self.job, task)))
        return {"inputs_used": len(task.inputs["raw"])}


def execute(job: Job, comm: Any) -> int:
    """Measure every task's exposures; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Levels(job))
