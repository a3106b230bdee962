"""VARIANCE is the variance of IMAGE: products of simulated frames against the truth that these were made from."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels import combine, job

Image = NDArray[Any]
NX, NY, SERIAL, PARALLEL = 160, 200, 19, 12
GAIN = 1.6
#: Read noise, ADU: fine steps, the real case of few steps, and coarse ones.
FINE, FEW_STEPS, COARSE = 9.0, 2.8, 1.5
SECONDS, LIGHT = 300.0, 600.0
KINDS = ("bias", "dark", "flat")


def bars(n: int) -> tuple[float, float]:
    """What mean of VARIANCE / mean of (IMAGE - truth)^2 must be between, by the number of inputs."""
    return (0.97, 1.03) if n > 5 else (0.95, 1.05)


class Detector:
    """Two amplifiers, whose every pixel is known, and products that are made from its frames.

    Parameters
    ----------
    folder : `Path`
        For the files.
    noise : `float`
        Read noise, ADU.
    isr : `dict`
        More of the signature removal.
    """

    def __init__(self, folder: Path, noise: float = FINE, seed: int = 1, unit: str = "electron", **isr: Any) -> None:
        self.folder, self.noise, self.rng, self.unit = folder, noise, np.random.default_rng(seed), unit
        self.isr = {"parallel": True, **isr}
        shape = (NY, 2 * NX)
        self.structure = self.rng.normal(20, 6, shape)  # ADU
        self.dark = self.rng.gamma(4, 0.005, shape)  # electron/s
        self.response = self.rng.normal(1, 0.01, shape)
        self._number = itertools.count()

    def camera(self) -> dict[str, Any]:
        amplifiers = [
            {"name": f"C{k}", "hdu": f"C{k}", "raw": [NX + SERIAL, NY + PARALLEL], "data": [0, 0, NX, NY],
             "serial_overscan": [NX, 0, SERIAL, NY + PARALLEL], "parallel_overscan": [0, NY, NX, PARALLEL],
             "target": [k * NX, 0, NX, NY], "flip_x": bool(k), "flip_y": False}
            for k in range(2)
        ]  # fmt: skip
        kind = {"size": [2 * NX, NY], "pixel_um": 10.0, "adc_max": 65535, "amplifiers": amplifiers}
        detector = {
            "id": 0, "name": "D", "type": "T", "position_mm": [0, 0], "yaw_deg": 0.0, "gains": [GAIN] * 2,
            "read_noises": [self.noise * GAIN] * 2, "saturations": [None] * 2,
        }  # fmt: skip
        return {"name": "Known", "unit": self.unit, "scale": 1, "types": {"T": kind}, "detectors": [detector]}

    def expose(self, seconds: float = 0.0, light: float = 0.0) -> str:
        """Write a raw frame: its path."""
        charge = self.rng.poisson(self.dark * seconds + self.response * light) / GAIN
        path = str(self.folder / f"raw{next(self._number)}.fits")
        with fitsio.FITS(path, "rw") as fits:
            fits.write(None)
            for k in range(2):
                raw = self.rng.uniform(1000, 1002) + self.rng.normal(0, self.noise, (NY + PARALLEL, NX + SERIAL))
                raw += self.rng.normal(0, 3, (NY + PARALLEL, 1))  # a row's level
                at = slice(k * NX, (k + 1) * NX)
                raw[:NY, :NX] += (charge + self.structure)[:, at][:, :: -1 if k else 1]
                fits.write(np.rint(raw).astype(np.int32), extname=f"C{k}")
        return path

    def combine(
        self,
        kind: str,
        raws: list[str],
        scales: list[float],
        times: list[float],
        applied: dict[str, str],
        **config: Any,
    ) -> str:
        """Make a product; its path."""
        n, name = len(raws), f"{kind}{next(self._number)}"
        inputs = {"raw": raws, **{role: [path] for role, path in applied.items()}}
        parameters = {
            "exposures": list(range(n)), "dark_times": times, "scales": scales,
            "dates": ["2024-12-08T12:00:00.000"] * n, "exposure_times": times, **config.pop("parameters", {}),
        }  # fmt: skip
        output = str(self.folder / f"{name}.fits")
        task = {"task": f"{name}:0", "detector": 0, "inputs": inputs, "outputs": {kind: output},
                "parameters": parameters}  # fmt: skip
        isr = {**self.isr, **dict.fromkeys(applied, True)}
        plain = {
            "version": 1, "kernel": "combine", "run": "r", "attempt": 1, "site": "here", "token": 1, "ranks": 1,
            "journal": str(self.folder / name / "journal"), "camera": self.camera(),
            "files": {path: {"path": path} for paths in inputs.values() for path in paths}, "tasks": [task],
            "config": {"type": kind, "isr": isr, "permissions": {}, "inputs_table": str(self.folder / name),
                       "statistic": "MEANCLIP", "nsigma": 3.0, "passes": 3, **config},
        }  # fmt: skip
        assert combine.execute(job.from_plain(plain), None) == 0
        return output

    def bias(self, n: int, **config: Any) -> str:
        return self.combine("bias", [self.expose() for _ in range(n)], [1.0] * n, [0.0] * n, {}, **config)

    def darks(self, times: list[float], applied: dict[str, str], **config: Any) -> str:
        return self.combine("dark", [self.expose(t) for t in times], times, times, applied, **config)

    def flat(self, n: int, applied: dict[str, str], light: float = LIGHT, **config: Any) -> str:
        levels = [light * (0.9 + 0.2 * k / max(n - 1, 1)) for k in range(n)]
        raws = [self.expose(10.0, level) for level in levels]
        scale = 1 if self.unit == "electron" else 1 / GAIN
        return self.combine("flat", raws, [scale * level for level in levels], [10.0] * n, applied, **config)

    def products(self, n: int, **config: Any) -> dict[str, str]:
        """A bias, a dark and a flat, each of ``n`` frames and corrected by those before."""
        made = {"bias": self.bias(n, **config)}
        made["dark"] = self.darks([SECONDS] * n, dict(made), **config)
        made["flat"] = self.flat(n, dict(made), **config)
        return made

    def truth(self, kind: str) -> Image:
        gain = 1 if self.unit == "electron" else 1 / GAIN
        return {"bias": self.structure * GAIN * gain, "dark": self.dark * gain, "flat": self.response}[kind]

    def ratio(self, kind: str, path: str, truth: Image | None = None) -> float:
        """Mean of VARIANCE / mean of (IMAGE - truth)^2 over the good pixels."""
        with fitsio.FITS(path) as fits:
            image, mask, variance = (fits[name].read() for name in ("IMAGE", "MASK", "VARIANCE"))
        good = mask == 0
        assert good.mean() > 0.99 and (variance > 0).all() and np.isfinite(variance).all()
        error = image.astype(np.float64) - (self.truth(kind) if truth is None else truth)
        return float(variance[good].astype(np.float64).mean() / np.mean(error[good] ** 2))


@pytest.fixture
def known(tmp_path: Path) -> Any:
    return lambda noise=FINE, **isr: Detector(tmp_path, noise, **isr)
