"""Jobs that combine frames, as a submission would freeze them, but without a repository."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from campaign.jobs.file import JobFile, JobTask
from tests.benchmarks.data import Data

#: To the measurement of deferred charge, flats of any level are faint.
CONFIG = {"statistic": "MEANCLIP", "nsigma": 3.0, "passes": 3, "permissions": {}, "cti_signal": 1e6}
#: Corrections of the bias pipeline: both overscans and the gains.
LSST_ISR: dict[str, Any] = {"parallel": True, "saturation": False}
PLAIN_ISR = {"serial": "none", "parallel": False, "saturation": False}


@dataclass(frozen=True, eq=False)
class Step:
    """What a job makes of a detector's frames.

    Parameters
    ----------
    name : `str`
        Of its files.
    kind : `str`
        Of the frames: ``bias``, ``dark`` or ``flat``.
    role : `str`
        Dataset type of the product.
    kernel : `str`
        Kernel that makes it.
    isr : `dict`
        Corrections, besides `LSST_ISR`.
    seconds : `float`
        Exposure and dark time.
    scale : `float`
        What every frame is divided by.
    """

    name: str
    kind: str
    role: str
    kernel: str = "combine"
    isr: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    scale: float = 1.0


BOTH = {"bias": True, "dark": True, "saturation": True}
BIAS = Step("bias", "bias", "bias")
DARK = Step("dark", "dark", "dark", isr={"bias": True}, seconds=30.0, scale=30.0)
MEASURE = Step("measure", "flat", "flatMeasure", "flat_measure", BOTH, 10.0)
FLAT = Step("flat", "flat", "flat", isr=BOTH, seconds=10.0)
CTI = Step("cti", "flat", "cti", "cti", {"bias": True}, 10.0)


def _parameters(n: int, step: Step) -> dict[str, Any]:
    return {
        "exposures": [2024120600001 + k for k in range(n)],
        "dark_times": [step.seconds] * n,
        "exposure_times": [step.seconds] * n,
        "scales": [step.scale] * n,
        "dates": [f"2024-12-06T21:{k // 60:02d}:{k % 60:02d}.000" for k in range(n)],
    }


def fresh(folder: Path) -> Path:
    """Empty a folder: products of an earlier turn are never in the way, nor fill the disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def product(folder: Path, step: Step, detector: int) -> Path:
    """Where a step's product of a detector lies."""
    return folder / f"{step.name}-{detector}.fits"


def write(
    folder: Path,
    camera: Mapping[str, Any],
    frames: Mapping[int, Sequence[Path]],
    isr: Mapping[str, Any],
    ranks: int,
    step: Step = BIAS,
    products: Mapping[Step, Path] = MappingProxyType({}),
) -> Path:
    """Write a job on ``frames[detector]``, whose products go below ``folder``, which is emptied.

    ``products`` has the folders of the steps whose products it takes.
    """
    fresh(folder)
    tasks: list[JobTask] = []
    files: dict[str, Mapping[str, Any]] = {}
    for detector, paths in frames.items():
        keys = [f"{k}:{detector}" for k in range(len(paths))]
        files |= {key: {"path": str(path), "bytes": path.stat().st_size} for key, path in zip(keys, paths, strict=True)}
        applied = {s.role: f"{s.role}:{detector}" for s in products}
        files |= {applied[s.role]: {"path": str(product(where, s, detector))} for s, where in products.items()}
        inputs = {"raw": keys, **{role: [key] for role, key in applied.items()}}
        outputs = {step.role: str(product(folder, step, detector))}
        tasks.append(JobTask(f"{step.name}:{detector}", detector, inputs, outputs, _parameters(len(paths), step)))
    config = {**CONFIG, "type": step.kind, "isr": {**isr, **step.isr}, "inputs_table": str(folder / "inputs")}
    return JobFile(step.kernel, "benchmark", ranks, str(folder / "journal"), camera, config, files, tasks).write(
        folder / "job.json"
    )


def lsst(data: Data, detectors: Sequence[int], ranks: int = 1, many: bool = False) -> Path:
    """A job on the simulated biases of some detectors."""
    frames = {d: data.raws_many(d) if many else data.raws(d) for d in detectors}
    return write(data.folder / "products", data.camera.plain(detectors), frames, LSST_ISR, ranks)


def write_biases(data: Data, detectors: Sequence[int], folder: Path) -> Path:
    """The same, to products that are kept."""
    return write(folder, data.camera.plain(detectors), {d: data.raws(d) for d in detectors}, LSST_ISR, 1)


def plain(data: Data, ranks: int = 1) -> Path:
    """A job on the uncompressed frames."""
    return write(data.folder / "products", data.plain_camera(), {0: data.plain}, PLAIN_ISR, ranks)


def lit(
    data: Data,
    detectors: Sequence[int],
    step: Step,
    products: Mapping[Step, Path],
    frames: Mapping[int, Sequence[Path]] | None = None,
) -> Path:
    """A job on the simulated flats, on the darks that were taken with them, or on other frames."""
    frames = frames or {d: data.lit(d)[step.kind] for d in detectors}
    return write(data.folder / step.name, data.camera.plain(detectors), frames, LSST_ISR, 1, step, products)
