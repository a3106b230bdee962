"""Small inputs that make numba compile the kernels: one detector, its raws, calibrations of every role."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import crosstalk, cti, defects, linearity, ptc
from kernels.camera import geometry
from kernels.fits import product
from kernels.fits.seal import written
from kernels.fits.tables import identity
from kernels.jobs import job
from kernels.jobs.job import Job

NX, NY, PRESCAN, SERIAL, PARALLEL = 16, 24, 3, 9, 4
#: Configuration common to all jobs.
CONFIG = {"statistic": "MEANCLIP", "nsigma": 3.0, "passes": 3, "permissions": {}}


def _camera() -> dict[str, Any]:
    """Describe one detector of two amplifiers."""
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


def _write(images: NDArray[np.int32], fits: Any, last: bool) -> None:
    fits.write(None)
    for k, pixels in enumerate(images):
        packed = {"header": {"BLANK": -1}} if last else {"compress": "RICE", "tile_dims": (1, pixels.shape[1])}
        fits.write(pixels, extname=f"C{k}", **packed)


class Bench:
    """Small inputs, and serial jobs on them.

    Parameters
    ----------
    folder : `pathlib.Path`
        Empty folder for inputs and products.

    Attributes
    ----------
    raws : `list` [`str`]
        Paths of six frames: Rice tiles, the last one uncompressed.
    calibrations : `dict` [`str`, `str`]
        Path by role.
    camera : `Camera`
        Its camera, of one detector.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._jobs = folder, 0
        self.camera = geometry.camera(_camera())
        self.raws, self.calibrations = self._raws(6), self._calibrations()

    def _raws(self, number: int) -> list[str]:
        rng, paths = np.random.default_rng(1), []
        for n in range(number):
            paths.append(str(self._folder / f"raw{n}.fits"))
            images = np.rint(rng.normal(1000, 5, (2, NY + PARALLEL, PRESCAN + NX + SERIAL))).astype(np.int32)
            images[:, :NY, PRESCAN : PRESCAN + NX] += 500
            Path(paths[-1]).write_bytes(written(partial(_write, images, last=n == number - 1)))
        return paths

    def _calibrations(self) -> dict[str, str]:
        camera = self.camera
        detector, plane = camera.detectors[0], np.zeros((NY, 2 * NX), np.float32)
        roles = ("bias", "dark", "crosstalk", "linearizer", "cti", "defects", "ptc")
        paths = {role: str(self._folder / role) for role in roles}
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

    def run(
        self, execute: Callable[[Job, Any], int], inputs: Mapping[str, Sequence[str]], output: str, **config: Any
    ) -> None:
        """Run a job of one task serially.

        Parameters
        ----------
        execute : callable
            The kernel's.
        inputs : `dict` [`str`, sequence of `str`]
            Paths by role, ``raw`` included.
        output : `str`
            Dataset type of the product; ``config["bins"]`` names the other outputs.
        config
            Settings of the kernel, besides `CONFIG`.

        Raises
        ------
        RuntimeError
            The task failed.
        """
        self._jobs += 1
        n, where = len(inputs["raw"]), self._folder / f"job{self._jobs}"
        where.mkdir()
        parameters = {
            "exposures": list(range(n)), "dark_times": [1.0] * n, "scales": [1.0] * n,
            "dates": ["2024-12-08T12:00:00.000"] * n, "exposure_times": [1.0] * n,
        }  # fmt: skip
        outputs = {name: str(where / name) for name in (output, *config.get("bins", {}))}
        plain = {
            "version": job.VERSION, "kernel": "warm", "run": "warm", "attempt": 1, "site": "local", "token": 1,
            "ranks": 1, "journal": str(where / "journal"), "camera": _camera(),
            "files": {path: {"path": path} for paths in inputs.values() for path in paths},
            "tasks": [
                {"task": "warm:0", "detector": 0, "inputs": inputs, "outputs": outputs, "parameters": parameters}
            ],
            "config": {**CONFIG, "inputs_table": str(where), **config},
        }  # fmt: skip
        if execute(job.from_plain(plain), None):
            raise RuntimeError(f"a small job failed: {(where / 'journal.r0.jsonl').read_text()}")
