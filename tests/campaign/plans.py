"""Small plans of real kernels on small frames, without a repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fitsio
import numpy as np

from campaign.jobs.file import JobTask
from campaign.journal.plan import Group, Output, Plan, PlanTask

SIZE = (40, 30)
ISR = {"serial": "none", "parallel": False, "saturation": False}
RESOURCES = {"memory_mib": 1000, "minutes": 10}


def camera(detectors: int) -> dict[str, Any]:
    """A camera of one-amplifier detectors without overscan."""
    width, height = SIZE
    amplifier = {
        "name": "A", "hdu": 0, "raw": [width, height], "data": [0, 0, width, height], "serial_overscan": None,
        "parallel_overscan": None, "target": [0, 0, width, height], "flip_x": False, "flip_y": False,
    }  # fmt: skip
    kind = {"size": [width, height], "pixel_um": 10.0, "adc_max": 65535, "amplifiers": [amplifier]}
    found = [
        {
            "id": d, "name": f"D{d}", "type": "Plain", "position_mm": [10.0 * d, 0.0], "yaw_deg": 0.0,
            "gains": [1.0], "read_noises": [5.0], "saturations": [None],
        }
        for d in range(detectors)
    ]  # fmt: skip
    return {"name": "Plain", "unit": "adu", "scale": 1, "types": {"Plain": kind}, "detectors": found}


def frames(folder: Path, exposures: int, detectors: int) -> dict[str, dict[str, Any]]:
    """The file table of raw frames, written."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, table = np.random.default_rng(1), {}
    for e in range(exposures):
        for d in range(detectors):
            path = folder / f"raw {e} {d}.fits"
            pixels = 1000 + 5 * rng.standard_normal(SIZE[::-1])
            fitsio.write(str(path), np.rint(pixels).astype(np.uint16))
            table[f"{e}:{d}"] = {"path": str(path), "bytes": path.stat().st_size}
    return table


def _parameters(exposures: Sequence[int]) -> dict[str, Any]:
    many = len(exposures)
    return {
        "exposures": list(exposures),
        "dates": ["2024-12-06T21:00:00.000"] * many,
        "exposure_times": [0.0] * many,
        "dark_times": [0.0] * many,
        "scales": [1.0] * many,
    }


def _task(folder: Path, label: str, exposures: Sequence[int], detector: int, product: str) -> PlanTask:
    where = [*(map(str, exposures) if product == "postISRCCD" else ()), str(detector)]
    outputs = {product: str(folder / "products" / f"{product}-{'-'.join(where)}.fits")} if product else {}
    raws = {"raw": [f"{e}:{detector}" for e in exposures]}
    job = JobTask(f"{label}:{','.join(where)}", detector, raws, outputs, _parameters(exposures))
    return PlanTask(job, [Output(t, {"detector": detector}, path) for t, path in outputs.items()], [])


def gang(folder: Path, exposures: int, detectors: int, ranks: int, label: str = "combine") -> Group:
    """A gang that combines biases."""
    config = {"type": "bias", "statistic": "MEANCLIP", "nsigma": 3.0, "passes": 3, "isr": ISR, "permissions": {}}
    config["inputs_table"] = str(folder / "inputs")
    tasks = [_task(folder, label, range(exposures), d, "bias") for d in range(detectors)]
    return Group(label, "combine", "gang", ranks, [], config, tasks, [], RESOURCES)


def quanta(folder: Path, exposures: int, detectors: int, label: str = "isr") -> Group:
    """Quanta that write corrected frames."""
    tasks = [_task(folder, label, [e], d, "postISRCCD") for e in range(exposures) for d in range(detectors)]
    return Group(label, "correct", "quantum", 1, [], {"isr": ISR, "permissions": {}}, tasks, [], RESOURCES)


def plan(folder: Path, groups: Sequence[Group], files: Mapping[str, Any], detectors: int, run: str = "r-1") -> Plan:
    """A plan, written."""
    made = Plan(
        run=run,
        template="t",
        instrument="Plain",
        ticket="DM-1",
        repository="",
        output="",
        output_run="",
        inputs=[],
        submit_path=str(folder / "submit"),
        product="bias",
        data_query="",
        excluded=[],
        camera=camera(detectors),
        files=files,
        groups=groups,
        notes=[],
    )
    made.folder.mkdir(parents=True)
    made.write()
    return made
