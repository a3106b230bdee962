"""A small camera, its raw frames and jobs, and their results by slow, plain numpy."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels import run
from kernels.jobs import job

NX, NY = 24, 20
PRESCAN, SERIAL, PARALLEL = 4, 12, 6
#: Column, row and flips of each amplifier: every combination of flips once.
PLACES = {
    "C10": (0, 1, True, True),
    "C11": (1, 1, False, True),
    "C01": (1, 0, True, False),
    "C00": (0, 0, False, False),
}
GAINS, NOISES, SATURATIONS = [1.5, 1.4, 1.6, 1.7], [5.0, 6.0, 7.0, 8.0], [None, 60000.0, None, 70000.0]
ADC_MAX = 65535
ISR = {"serial": "median", "skip_columns": 3, "parallel": False, "saturation": True, "bias": False, "dark": False}
CLIP = {"statistic": "MEANCLIP", "nsigma": 3.0, "passes": 3}
Image = NDArray[Any]


def _amplifier(name: str) -> dict[str, Any]:
    column, row, flip_x, flip_y = PLACES[name]
    return {
        "name": name, "hdu": f"Segment{name[1:]}", "raw": [PRESCAN + NX + SERIAL, NY + PARALLEL],
        "data": [PRESCAN, 0, NX, NY], "serial_overscan": [PRESCAN + NX, 0, SERIAL, NY + PARALLEL],
        "parallel_overscan": [PRESCAN, NY, NX, PARALLEL], "target": [column * NX, row * NY, NX, NY],
        "flip_x": flip_x, "flip_y": flip_y,
    }  # fmt: skip


def _detector(number: int) -> dict[str, Any]:
    return {
        "id": number, "name": f"R22_S0{number}", "type": "Tiny", "position_mm": [42.25 * number, 0.0], "yaw_deg": 0.0,
        "gains": GAINS, "read_noises": NOISES, "saturations": SATURATIONS,
    }  # fmt: skip


class Lab:
    """A folder with raw frames of detectors of four amplifiers, and the jobs on them."""

    clip, isr, gains, noises, saturations, adc_max = CLIP, ISR, GAINS, NOISES, SATURATIONS, ADC_MAX
    size = (2 * NX, 2 * NY)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.amplifiers = [_amplifier(name) for name in PLACES]

    def camera(self, unit: str = "electron", detectors: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
        kind = {"size": list(self.size), "pixel_um": 10.0, "adc_max": ADC_MAX, "amplifiers": self.amplifiers}
        return {
            "name": "Small", "unit": unit, "scale": 1, "types": {"Tiny": kind},
            "detectors": [_detector(d) for d in detectors],
        }  # fmt: skip

    def expose(self, rng: np.random.Generator, electrons: Image | float) -> list[Image]:
        """Raw segments of a frame of ``electrons`` (detector orientation, no shot noise)."""
        electrons, segments = np.broadcast_to(electrons, self.size[::-1]), []
        for amplifier, gain, noise in zip(self.amplifiers, GAINS, NOISES, strict=True):
            width, height = amplifier["raw"]
            x0, y0, nx, ny = amplifier["target"]
            raw = 1000 + rng.normal(0, noise / gain, (height, width)) + rng.normal(0, 4, (height, 1))
            charge = electrons[y0 : y0 + ny, x0 : x0 + nx][
                self.step("flip_y", amplifier), self.step("flip_x", amplifier)
            ]
            raw[:NY, PRESCAN : PRESCAN + NX] += charge / gain
            raw[:, PRESCAN : PRESCAN + NX] += np.linspace(0, 9, NX)  # for the parallel overscan to find
            segments.append(np.clip(np.rint(raw), 0, ADC_MAX).astype(np.int32))
        return segments

    @staticmethod
    def step(key: str, amplifier: Mapping[str, Any]) -> slice:
        """The slice that mirrors an axis, or leaves it."""
        return slice(None, None, -1 if amplifier[key] else 1)

    def write(self, name: str, segments: Sequence[Image]) -> str:
        """Write a raw frame as the camera does: Rice, tiles of one row."""
        path = self.folder / name
        with fitsio.FITS(str(path), "rw", clobber=True) as fits:
            fits.write(None)
            for amplifier, raw in zip(self.amplifiers, segments, strict=True):
                fits.write(raw, extname=amplifier["hdu"], compress="RICE", tile_dims=(1, raw.shape[1]))
        return str(path)

    def product(
        self, name: str, image: Image, mask: Image | None = None, unit: str = "electron", detector: int = 1
    ) -> str:
        """Write a calibration by hand, of the kind that its name begins with."""
        path = self.folder / name
        kind = name.split(".")[0].rstrip("0123456789")
        cards = {"OBSTYPE": kind, "INSTRUME": "Small", "DETECTOR": detector, "DETNAME": f"R22_S0{detector}"}
        with fitsio.FITS(str(path), "rw", clobber=True) as fits:
            fits.write(None, header={**cards, "CALUNIT": unit})
            fits.write(image.astype(np.float32), extname="IMAGE")
            fits.write(np.zeros(image.shape, np.int32) if mask is None else mask.astype(np.int32), extname="MASK")
        return str(path)

    def parameters(self, n: int, seconds: float = 0.0) -> dict[str, Any]:
        return {
            "exposures": [2024120800001 + k for k in range(n)], "dark_times": [seconds] * n, "scales": [1.0] * n,
            "dates": [f"2024-12-08T12:{k:02d}:00.000" for k in range(n)], "exposure_times": [seconds] * n,
        }  # fmt: skip

    def job(self, kernel: str, tasks: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """A job; the inputs of ``tasks`` are paths, and become keys of the file table."""
        folder = self.folder / more.pop("name", kernel)
        table = {path: {"path": path} for t in tasks for paths in t["inputs"].values() for path in paths}
        config = {"isr": ISR, "permissions": {}, "inputs_table": str(folder / "inputs"), **CLIP}
        return {
            "version": 1, "kernel": kernel, "run": "20241208T120000Z-test", "attempt": 1, "site": "here", "token": 1,
            "ranks": 1, "journal": str(folder / "journal" / kernel), "camera": self.camera(), "files": table,
            "tasks": list(tasks), **more, "config": config | more.pop("config", {}),
        }  # fmt: skip

    def serial(self, plain: Mapping[str, Any]) -> int:
        """Run a job in this process; return the number of tasks that failed."""
        frozen = job.from_plain(json.loads(json.dumps(plain)))
        return run._kernel(frozen.kernel)(frozen, None)

    def write_job(self, plain: Mapping[str, Any]) -> Path:
        path = self.folder / "job.json"
        path.write_text(json.dumps(plain))
        return path

    @staticmethod
    def command(path: Path, world: int) -> list[str]:
        """The command line that runs a job file under this environment's mpiexec."""
        mpiexec = Path(sysconfig.get_path("scripts")) / "mpiexec"
        python = [sys.executable, "-P", "-m", "mpi4py", "-m", "kernels.run"]
        return [str(mpiexec), "-n", str(world), *python, str(path)]

    def mpi(self, plain: Mapping[str, Any], ranks: int, world: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run a job that asks for ``ranks`` in an MPI world of ``world``."""
        command = self.command(self.write_job({**plain, "ranks": ranks}), world or ranks)
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    def journal(self, plain: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All events of a job, rank by rank."""
        files = sorted(Path(plain["journal"]).parent.glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


def _quantile(values: Sequence[float], f: float) -> float:
    at = f * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] * (1 - (at - low)) + values[high] * (at - low)


def meanclip(column: Sequence[float], nsigma: float = 3.0, passes: int = 3) -> tuple[float, float, int]:
    """Mean, variance of the mean, and count of one pixel: the definition, in words of plain Python.

    `numpy.float64` arithmetic by hand: first about the median with 0.7413
    IQR, then about mean and debiased deviation of the survivors, every input
    tested anew by every pass.
    """
    good = sorted(float(v) for v in column if np.isfinite(v))
    if not good:
        return np.nan, np.nan, 0
    centre, sigma = _quantile(good, 0.5), 0.7413 * (_quantile(good, 0.75) - _quantile(good, 0.25))
    kept = good
    for _ in range(passes):
        kept = [v for v in good if abs(v - centre) <= nsigma * sigma] or kept
        centre = sum(v - good[0] for v in kept) / len(kept) + good[0]
        squares = sum((v - centre) ** 2 for v in kept)
        sigma = np.sqrt(squares / (len(kept) - 1)) if len(kept) > 1 else 0.0
    return centre, sigma**2 / len(kept) if len(good) > 1 else np.nan, len(kept)


@pytest.fixture(scope="session")
def slow_meanclip() -> Any:
    return meanclip
