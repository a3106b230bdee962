"""Jobs that combine biases, as a submission would freeze them, but without a repository."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from campaign.jobs.file import JobFile, JobTask
from tests.benchmarks.data import Data

CONFIG = {"type": "bias", "statistic": "MEANCLIP", "nsigma": 3.0, "passes": 3, "permissions": {}}
#: Corrections of the bias pipeline: both overscans and the gains.
LSST_ISR: dict[str, Any] = {"parallel": True, "saturation": False}
PLAIN_ISR = {"serial": "none", "parallel": False, "saturation": False}


def _parameters(n: int) -> dict[str, Any]:
    return {
        "exposures": [2024120600001 + k for k in range(n)],
        "dark_times": [0.0] * n,
        "exposure_times": [0.0] * n,
        "scales": [1.0] * n,
        "dates": [f"2024-12-06T21:{k // 60:02d}:{k % 60:02d}.000" for k in range(n)],
    }


def fresh(folder: Path) -> Path:
    """Empty a folder: products of an earlier turn are never in the way, nor fill the disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write(
    folder: Path, camera: Mapping[str, Any], frames: Mapping[int, Sequence[Path]], isr: Mapping[str, Any], ranks: int
) -> Path:
    """Write a job that combines ``frames[detector]`` into biases below ``folder``, which is emptied."""
    fresh(folder)
    tasks: list[JobTask] = []
    files: dict[str, Mapping[str, Any]] = {}
    for detector, paths in frames.items():
        keys = [f"{k}:{detector}" for k in range(len(paths))]
        files |= {key: {"path": str(path), "bytes": path.stat().st_size} for key, path in zip(keys, paths, strict=True)}
        outputs = {"bias": str(folder / f"bias-{detector}.fits")}
        tasks.append(JobTask(f"bias:{detector}", detector, {"raw": keys}, outputs, _parameters(len(paths))))
    config = {**CONFIG, "isr": dict(isr), "inputs_table": str(folder / "inputs")}
    return JobFile("combine", "benchmark", ranks, str(folder / "journal"), camera, config, files, tasks).write(
        folder / "job.json"
    )


def lsst(data: Data, detectors: Sequence[int], ranks: int = 1, many: bool = False) -> Path:
    """A job on the simulated frames of some detectors."""
    frames = {d: data.raws_many(d) if many else data.raws(d) for d in detectors}
    return write(data.folder / "products", data.camera.plain(detectors), frames, LSST_ISR, ranks)


def plain(data: Data, ranks: int = 1) -> Path:
    """A job on the uncompressed frames."""
    return write(data.folder / "products", data.plain_camera(), {0: data.plain}, PLAIN_ISR, ranks)
