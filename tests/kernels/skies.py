"""Simulated skies of a small focal plane of two sensor types, and the jobs on them."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kernels import run
from kernels.jobs import job

SEED, SIDE, FILTER = 11, 120, "y_10"
#: Nothing but sky, stars and noise; no calibration is needed.
RATES: dict[str, Any] = {
    "qe": 0.0, "amplifier_step": 0.0, "detector_step": 0.0, "lamp_gradient": 0.0, "stain": 0.0, "hot": 0.0,
    "dead": 0.0, "structure": 0.0, "vignetting_mm": [9e5, 1e6], "dark_current": {"E2V": 0.0}, "fringe_waves": 8.0,
    "star_peak": [300.0, 30000.0],
}  # fmt: skip
ISR = {"serial": "median", "skip_columns": 3, "parallel": True, "saturation": True, "bias": False, "dark": False}
CLIP = {"statistic": "MEANCLIP", "nsigma": 3.0, "passes": 3}
SKY = {"threshold": 3.0, "smoothing": 5.0, "rounds": 3, "grow": 2, "cell": 256, "size": 40.96, "bin": 32}
FRINGE = {"threshold": 5.0, "smoothing": 1.0, "rounds": 3, "grow": 3, "cell": 128}
Plain = dict[str, Any]


def camera() -> Plain:
    """Four detectors of 41 mm, two of each type; a pixel is 16 of an unscaled camera."""
    amplifiers = [
        {"name": f"C{y}{x}", "hdu": f"Segment{y}{x}", "raw": [10 + SIDE + 54, SIDE + 46], "data": [10, 0, SIDE, SIDE],
         "serial_overscan": [10 + SIDE, 0, 54, SIDE + 46], "parallel_overscan": [10, SIDE, SIDE, 46],
         "target": [SIDE * x, SIDE * y, SIDE, SIDE], "flip_x": bool(x), "flip_y": bool(y)}
        for y in (0, 1) for x in (0, 1)
    ]  # fmt: skip
    kind = {"size": [2 * SIDE, 2 * SIDE], "pixel_um": 170.0, "adc_max": 262143, "amplifiers": amplifiers}
    detectors = [
        {"id": d, "name": f"R22_S{d // 2}{d % 2}", "type": ("E2V", "ITL")[d // 2],
         "position_mm": [42.25 * (d % 2), 42.25 * (d // 2)], "yaw_deg": 90.0 * (d == 3), "gains": [1.5] * 4,
         "read_noises": [6.0] * 4, "saturations": [1e5] * 4}
        for d in range(4)
    ]  # fmt: skip
    return {
        "name": "Small",
        "unit": "electron",
        "scale": 16,
        "types": {"E2V": kind, "ITL": kind},
        "detectors": detectors,
    }


def exposures(number: int, sky: Sequence[float], first: int = 1, **more: Any) -> list[Plain]:
    """Exposures of so many levels of sky, in turns."""
    return [
        {"exposure": 2024120800000 + n, "obs_id": f"MC_O_20241208_{n:06d}", "day_obs": 20241208, "seq_num": n,
         "observation_type": "science", "exposure_time": 30.0, "dark_time": 30.0, "begin": "2024-12-08T12:00:00.000",
         "physical_filter": FILTER, "mjd": 60652.5, "reason": "sky", "program": "BLOCK-1",
         "sky": sky[n % len(sky)], **more}
        for n in range(first, first + number)
    ]  # fmt: skip


def described(folder: Path, kernel: str, tasks: Sequence[Plain], config: Plain, ranks: int = 1) -> Plain:
    """Describe a job; the inputs of ``tasks`` are paths."""
    paths = {path: {"path": path} for t in tasks for some in t.get("inputs", {}).values() for path in some}
    usual = {"isr": ISR, "permissions": {}, "inputs_table": str(folder / "inputs"), **CLIP}
    return {
        "version": 1, "kernel": kernel, "run": "r", "attempt": 1, "site": "here", "token": 1, "ranks": ranks,
        "journal": str(folder / "journal" / kernel), "camera": camera(), "config": {**usual, **config},
        "files": paths, "tasks": list(tasks),
    }  # fmt: skip


def execute(folder: Path, kernel: str, tasks: Sequence[Plain], config: Plain, ranks: int = 1) -> int:
    """Run a job here, or in an MPI world; return the number of failed tasks, or the exit code."""
    plain = described(folder, kernel, tasks, config, ranks)
    if ranks == 1:
        return run._kernel(kernel)(job.from_plain(json.loads(json.dumps(plain))), None)
    (path := folder / f"{kernel}.json").write_text(json.dumps(plain))
    mpiexec = Path(sysconfig.get_path("scripts")) / "mpiexec"
    command = [str(mpiexec), "-n", str(ranks), sys.executable, "-P", "-m", "mpi4py", "-m", "kernels.run", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).returncode


def simulated(
    folder: Path,
    wanted: Sequence[Plain],
    detectors: Sequence[int] = range(4),
    instead: Mapping[int, Plain] | None = None,
) -> dict[int, list[str]]:
    """Simulate raws; ``instead`` changes the parameters of single detectors."""
    raws = {d: [str(folder / f"{p['obs_id']}-{d}.fits") for p in wanted] for d in detectors}
    tasks = [
        {"task": f"raw:{p['exposure']},{d}", "detector": d, "outputs": {"raw": path},
         "parameters": p | (instead or {}).get(d, {})}
        for d in detectors
        for p, path in zip(wanted, raws[d], strict=True)
    ]  # fmt: skip
    config = {"seed": SEED, "rates": RATES, "header": {"INSTRUME": "lsstCam"}}
    assert execute(folder, "simulate", tasks, config) == 0
    return raws


def parameters(wanted: Sequence[Plain]) -> Plain:
    """Give a task's parameters of exposures."""
    return {
        "exposures": [p["exposure"] for p in wanted], "dark_times": [30.0 for _ in wanted],
        "dates": [p["begin"] for p in wanted], "exposure_times": [p["exposure_time"] for p in wanted],
    }  # fmt: skip


def events(folder: Path) -> dict[str, Plain]:
    """Give the last event of each task."""
    lines = [line for file in sorted((folder / "journal").glob("*.jsonl")) for line in file.read_text().splitlines()]
    return {event["task"]: event for event in map(json.loads, lines)}
