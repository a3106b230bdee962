"""Compiles every numba function for the types that jobs call it with, by running small jobs of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import crosstalk, cti, defects, linearity, ptc
from kernels.camera import geometry
from kernels.fits import product
from kernels.fits.seal import written
from kernels.fits.tables import identity
from kernels.jobs import job
from kernels.products import combine, normalise
from kernels.statistics import clip, network, weighted

NX, NY, PRESCAN, SERIAL, PARALLEL = 16, 24, 3, 9, 4
EVERYTHING = {
    "bias": True, "dark": True, "crosstalk": True, "linearity": True, "deferred": True, "defects": True, "ptc": True,
    "parallel": True,
}  # fmt: skip
CLIP = {"statistic": "MEANCLIP", "nsigma": 3.0, "passes": 3}


def compile_all() -> None:
    """Run everything once on a few pixels; numba keeps the result on disk."""
    for n in (*network.SIZES, network.STRAIGHT + 1):
        _statistics(n)
    with TemporaryDirectory(prefix="campaign-warm-") as folder:
        _jobs(Path(folder))


def _statistics(n: int) -> None:
    for statistic in clip.STATISTICS.keys() - {"WEIGHTED"}:
        cube = network.workspace(n, 1)
        cube[:n] = 1
        width = cube.shape[1]
        image, variance, count = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int16)
        clip.collapse(cube, n, clip.Rule(statistic), image, variance, count)
        weighted.weighted_mean(cube, n, np.ones(n), image, variance, count)


def _camera() -> dict[str, Any]:
    """One detector of two amplifiers."""
    amplifiers = [
        {
            "name": f"C{k}", "hdu": f"C{k}", "raw": [PRESCAN + NX + SERIAL, NY + PARALLEL],
            "data": [PRESCAN, 0, NX, NY], "serial_overscan": [PRESCAN + NX, 0, SERIAL, NY + PARALLEL],
            "parallel_overscan": [PRESCAN, NY, NX, PARALLEL], "target": [k * NX, 0, NX, NY],
            "flip_x": bool(k), "flip_y": False,
        }
        for k in range(2)
    ]  # fmt: skip
    kind = {"size": [2 * NX, NY], "pixel_um": 10.0, "adc_max": 65535, "amplifiers": amplifiers}
    detector = {
        "id": 0, "name": "D", "type": "T", "position_mm": [0, 0], "yaw_deg": 0.0,
        "gains": [1.0, 1.0], "read_noises": [5.0, 5.0], "saturations": [None, None],
    }  # fmt: skip
    return {"name": "Warm", "unit": "electron", "scale": 1, "types": {"T": kind}, "detectors": [detector]}


def _raws(folder: Path, number: int) -> list[str]:
    """Frames by Rice tiles, and the last one uncompressed."""
    rng, paths = np.random.default_rng(1), []
    for n in range(number):
        paths.append(str(folder / f"raw{n}.fits"))
        images = np.rint(rng.normal(1000, 5, (2, NY + PARALLEL, PRESCAN + NX + SERIAL))).astype(np.int32)
        images[:, :NY, PRESCAN : PRESCAN + NX] += 500
        Path(paths[-1]).write_bytes(written(partial(_write, images, last=n == number - 1)))
    return paths


def _write(images: NDArray[np.int32], fits: Any, last: bool) -> None:
    fits.write(None)
    for k, pixels in enumerate(images):
        packed = {"header": {"BLANK": -1}} if last else {"compress": "RICE", "tile_dims": (1, pixels.shape[1])}
        fits.write(pixels, extname=f"C{k}", **packed)


def _calibrations(folder: Path) -> dict[str, str]:
    """Files of every role that the frames can be corrected by."""
    camera = geometry.camera(_camera())
    detector, plane = camera.detectors[0], np.zeros((NY, 2 * NX), np.float32)
    paths = {role: str(folder / role) for role in ("bias", "dark", "crosstalk", "linearizer", "cti", "defects", "ptc")}
    for role in ("bias", "dark"):
        cards = [*identity(role, camera, detector), ("CALUNIT", "electron", "")]
        product.write(paths[role], cards, plane, np.zeros(plane.shape, np.int32), plane)
    some = np.array([[0.0, 1e-4], [1e-4, 0.0]])
    crosstalk.write(paths["crosstalk"], camera, detector, some, some * 1e-6)
    linearity.write(paths["linearizer"], camera, detector, np.array([[0.0, 1e4, 1e5]] * 2), np.zeros((2, 3)))
    cti.write(paths["cti"], camera, detector, [[1e-5, 0.0, 1e-4, 0.0, 2.0, 1.0, 1.0]] * 2)
    defects.write(paths["defects"], camera, detector, np.array([[1, 1, 2, 2]]))
    ptc.write(paths["ptc"], camera, detector, np.ones(2), np.ones(2), np.full(2, 1e5))
    return paths


def _run(kernel: Any, folder: Path, roles: Mapping[str, Sequence[str]], output: str, **config: Any) -> None:
    """Make one task of a job, serially."""
    n, where = len(roles["raw"]), folder / f"job{len(list(folder.glob('job*')))}"
    where.mkdir()
    files = {path: {"path": path} for paths in roles.values() for path in paths}
    parameters = {
        "exposures": list(range(n)), "dark_times": [1.0] * n, "scales": [1.0] * n,
        "dates": ["2024-12-08T12:00:00.000"] * n, "exposure_times": [1.0] * n,
    }  # fmt: skip
    task = {"task": "warm:0", "detector": 0, "inputs": roles, "outputs": {}, "parameters": parameters}
    task["outputs"] = {name: str(where / name) for name in (output, *config.get("bins", {}))}
    plain = {
        "version": job.VERSION, "kernel": "warm", "run": "warm", "attempt": 1, "site": "local", "token": 1, "ranks": 1,
        "journal": str(where / "journal"), "camera": _camera(), "files": files, "tasks": [task],
        "config": {**CLIP, "permissions": {}, "inputs_table": str(where), **config},
    }  # fmt: skip
    if kernel(job.from_plain(plain), None):
        raise RuntimeError(f"a small job failed: {Path(str(where / 'journal') + '.r0.jsonl').read_text()}")


def _jobs(folder: Path) -> None:
    raws, calibrations = _raws(folder, 6), _calibrations(folder)
    roles = {"raw": raws, **{role: [path] for role, path in calibrations.items()}}
    for cosmic in (None, {"grow": 2}):
        for isr in ({"serial": "meanclip"}, EVERYTHING):
            _run(
                combine.execute,
                folder,
                roles,
                "dark",
                type="dark",
                isr=isr,
                **({"cosmic": cosmic} if cosmic else {}),
                bins={"darkBin8": 8},
            )
    _run(combine.execute, folder, {"raw": raws[:3]}, "bias", type="bias", isr={})
    _run(normalise.measure, folder, {"raw": raws}, "flatMeasure", isr={})
