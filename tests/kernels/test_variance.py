"""VARIANCE is the variance of IMAGE: products of simulated frames against the truth that these were made from."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.jobs import job
from kernels.products import combine
from kernels.statistics import clip, estimator

Image = NDArray[Any]
NX, NY, SERIAL, PARALLEL = 160, 200, 19, 12
GAIN = 1.6
#: Read noise, ADU: fine steps, the real case of few steps, and coarse ones.
FINE, FEW_STEPS, COARSE = 9.0, 2.8, 1.5
SECONDS, LIGHT = 300.0, 600.0
KINDS = ("bias", "dark", "flat")


def bars(n: int) -> tuple[float, float]:
    """Bounds of mean of VARIANCE / mean of (IMAGE - truth)^2, by the number of inputs."""
    return (0.97, 1.03) if n > 5 else (0.95, 1.05)


class Detector:
    """Two amplifiers with every pixel known, and products made from their frames.

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
        self.rows = 3.0  # ADU: a row's level
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

    def expose(self, seconds: float = 0.0, light: float = 0.0, full: Image | None = None) -> str:
        """Write a raw frame: its path; ``full`` [y, x] is saturated."""
        charge = self.rng.poisson(self.dark * seconds + self.response * light) / GAIN
        path = str(self.folder / f"raw{next(self._number)}.fits")
        with fitsio.FITS(path, "rw") as fits:
            fits.write(None)
            for k in range(2):
                raw = self.rng.uniform(1000, 1002) + self.rng.normal(0, self.noise, (NY + PARALLEL, NX + SERIAL))
                raw += self.rng.normal(0, self.rows, (NY + PARALLEL, 1))
                at, mirror = slice(k * NX, (k + 1) * NX), slice(None, None, -1 if k else 1)
                raw[:NY, :NX] += (charge + self.structure)[:, at][:, mirror]
                if full is not None:
                    raw[:NY, :NX][full[:, at][:, mirror]] = 65535
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
        assert good.mean() > 0.99 and np.isfinite(variance).all()
        assert (variance > 0).all() or header(path)["VARDEF"] == "plain"
        error = image.astype(np.float64) - (self.truth(kind) if truth is None else truth)
        return float(variance[good].astype(np.float64).mean() / np.mean(error[good] ** 2))


@pytest.fixture
def known(tmp_path: Path) -> Any:
    def made(noise: float = FINE, **isr: Any) -> Detector:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return Detector(folder, noise, **isr)

    return made


def header(path: str) -> Any:
    return fitsio.read_header(path, 0)


CASES = [
    ("MEANCLIP", 3, FEW_STEPS), ("MEANCLIP", 4, FEW_STEPS), ("MEANCLIP", 5, FEW_STEPS), ("MEANCLIP", 10, FINE),
    ("MEANCLIP", 20, COARSE), ("MEDIAN", 5, FINE), ("MEDIAN", 10, FEW_STEPS), ("MEAN", 10, COARSE),
    ("SIGMACLIP", 10, FINE), ("WEIGHTED", 5, FINE),
]  # fmt: skip


@pytest.mark.parametrize(("statistic", "n", "noise"), CASES)
def test_variance_is_that_of_the_image(known: Any, statistic: str, n: int, noise: float) -> None:
    detector = known(noise)
    for kind, path in detector.products(n, statistic=statistic).items():
        low, high = bars(n)
        assert low < detector.ratio(kind, path) < high, kind
        assert header(path)["VARDEF"] == "estimator"


@pytest.mark.soak
@pytest.mark.parametrize("statistic", ["MEANCLIP", "MEDIAN", "MEAN", "SIGMACLIP", "WEIGHTED"])
def test_the_whole_matrix(tmp_path: Path, statistic: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every number of inputs, kind and noise; prints the table of ratios, each the mean of two detectors."""
    wrong, lines = [], []
    for noise, n in itertools.product((FINE, FEW_STEPS, COARSE), (3, 5, 10, 20, 100)):
        found = []
        for seed in (1, 2):
            folder = tmp_path / f"{noise}-{n}-{seed}"
            folder.mkdir()
            detector = Detector(folder, noise, seed)
            made = detector.products(n, statistic=statistic)
            found.append([detector.ratio(kind, made[kind]) for kind in KINDS])
            shutil.rmtree(folder)
        ratios = dict(zip(KINDS, np.mean(found, axis=0), strict=True))
        lines.append(f"{statistic:9} {noise:4} ADU {n:4}  " + "  ".join(f"{k} {r:.3f}" for k, r in ratios.items()))
        wrong += [(noise, n, k, r) for k, r in ratios.items() if not bars(n)[0] < r < bars(n)[1]]
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert not wrong


def test_upstreams_definition_is_to_be_had_and_named(known: Any) -> None:
    detector = known()
    path = detector.bias(5, variance="PLAIN")
    assert header(path)["VARDEF"] == "plain"
    assert detector.ratio("bias", path) == pytest.approx(0.7753 / 1.1773, rel=0.03)


@pytest.mark.parametrize("n", [3, 10])
def test_frames_in_adu(tmp_path: Path, n: int) -> None:
    detector = Detector(tmp_path, unit="adu")
    for kind, path in detector.products(n).items():
        assert 0.96 < detector.ratio(kind, path) < 1.04, kind


@pytest.mark.parametrize("n", [3, 6])
def test_a_bias_that_hardly_cancels_counts(known: Any, n: int) -> None:
    """A dark and a faint flat of many frames with a bias of few, which is most of the error unless it cancels."""
    detector = known()
    bias = {"bias": detector.bias(n)}
    dark = detector.darks([SECONDS] * 20, bias)
    assert 0.96 < detector.ratio("dark", dark) < 1.04
    assert header(dark)["VAR_BIAS"] == pytest.approx(1 / SECONDS)
    levels = [40.0] * 20
    raws = [detector.expose(200.0, level) for level in levels]
    flat = detector.combine("flat", raws, levels, [200.0] * 20, {**bias, "dark": dark})
    assert 0.96 < detector.ratio("flat", flat) < 1.04


def stripped(path: str, *names: str, hdus: tuple[str, ...] = ("IMAGE", "MASK", "VARIANCE")) -> str:
    """Make a calibration of an older version: without some cards, or HDUs."""
    old = path.replace(".fits", "-old.fits")
    with fitsio.FITS(path) as fits, fitsio.FITS(old, "rw") as out:
        cards = fits[0].read_header()
        for name in names:
            cards.delete(name)
        out.write(None, header=cards)
        for name in hdus:
            out.write(fits[name].read(), extname=name, header=fits[name].read_header())
    return old


def test_older_calibrations_serve(known: Any) -> None:
    """A dark whose VARIANCE is of its own frames alone; a bias without any."""
    detector = known()
    bias = {"bias": detector.bias(5)}
    bare = detector.darks([SECONDS] * 10, {"bias": stripped(bias["bias"], hdus=("IMAGE", "MASK"))})
    assert "VAR_BIAS" not in header(bare)
    whole = detector.darks([SECONDS] * 10, bias)
    raws = [detector.expose(200.0, 40.0) for _ in range(10)]
    old = {"bias": bias["bias"], "dark": stripped(bare)}
    with fitsio.FITS(old["dark"], "rw") as fits:  # it was that very bias
        fits[0].write_key("VAR_BIAS_SUM", header(whole)["VAR_BIAS_SUM"])
    applied = {"bias": bias["bias"], "dark": whole}
    new, ours = (detector.combine("flat", raws, [40.0] * 10, [200.0] * 10, applied=a) for a in (applied, old))
    variances = [fitsio.read(path, ext="VARIANCE").mean() for path in (new, ours)]
    assert variances[1] == pytest.approx(variances[0], rel=0.02)


@pytest.mark.parametrize("inputs", [[300.0] * 5 + [900.0] * 5, [100.0, 300.0, 300.0, 900.0]])
def test_darks_of_unlike_times_are_weighted(known: Any, inputs: list[float]) -> None:
    detector = known(FINE, parallel=False)
    bias = {"bias": detector.bias(20)}
    raws, errors = [detector.expose(t) for t in inputs], {}
    for weighting in ("AUTO", "NONE"):
        path = detector.combine("dark", raws, inputs, inputs, bias, weighting=weighting, cosmic={"grow": 2})
        error = fitsio.read(path, ext="IMAGE") - detector.truth("dark")
        assert ("WEIGHTS" in header(path)) == (weighting == "AUTO")
        errors[weighting] = float(np.mean(error.astype(np.float64) ** 2))
        assert weighting == "NONE" or 0.95 < detector.ratio("dark", path) < 1.05
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(error.size / 20), "weights do not shift the mean"
    noise, dark = (FINE * GAIN) ** 2 * 1.1, detector.dark.mean()  # a tenth: of the overscan levels
    each = noise / np.square(inputs) + dark / np.array(inputs)
    best = 1 / np.sum(1 / each) * 1.1 + noise / 20 * np.average(1 / np.array(inputs), weights=1 / each) ** 2
    # Of four inputs, clipping drops the heaviest often enough to cost half of the gain by weights.
    assert errors["AUTO"] < (1.1 if len(inputs) > 4 else 2.2) * best < errors["NONE"] / 1.5


def test_equal_inputs_have_the_amplifiers_noise(known: Any) -> None:
    """All frames alike to the bit: nothing scatters, and still something is not known."""
    detector = known(FEW_STEPS)
    for n in (3, 7, 30):
        path = detector.combine("bias", [detector.expose()] * n, [1.0] * n, [0.0] * n, {})
        variance = fitsio.read(path, ext="VARIANCE")
        assert np.ptp(variance) == 0 and variance[0, 0] == pytest.approx((FEW_STEPS * GAIN) ** 2 / n, rel=0.4)
    silent = known(0.0)
    path = silent.combine("bias", [silent.expose()] * 7, [1.0] * 7, [0.0] * 7, {})
    assert fitsio.read(path, ext="VARIANCE").min() > 0.1 * GAIN**2 / 12


@pytest.mark.parametrize(
    ("isr", "offset"), [({"serial": "none"}, False), ({"serial": "none", "parallel": False}, True)]
)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_flats_without_a_bias_have_shot_noise(known: Any, isr: dict[str, Any], offset: bool, n: int) -> None:
    """The parallel overscan alone is subtracted, or nothing at all: the level that is no light is estimated then."""
    detector = known(FINE, **isr)
    detector.structure[:] = 0
    detector.rows = 0.0
    path = detector.combine("flat", [detector.expose(0.0, 20000.0) for _ in range(n)], [1.0] * n, [0.0] * n, {})
    image, variance = (fitsio.read(path, ext=name) for name in ("IMAGE", "VARIANCE"))
    noise, cards = 20000 + (FINE * GAIN) ** 2, header(path)
    if offset and n == 1:  # unlike response of the pixels hides the shot noise: all of the level counts
        noise += 1001 * GAIN
    assert image.mean() > 19000 and variance.mean() == pytest.approx(noise / n, rel=0.05)
    assert ("AMP_C0_OFFSET" in cards) == (offset and n > 1)
    if offset and n > 1:
        assert cards["AMP_C0_OFFSET"] == pytest.approx(1001 * GAIN, abs=800)


def test_pixels_that_some_inputs_lack(known: Any) -> None:
    """Half of ten inputs are saturated in a part of the detector, where five are left."""
    detector = known()
    full = np.zeros((NY, 2 * NX), bool)
    full[:, :NX] = True
    raws = [detector.expose(full=full if n < 5 else None) for n in range(10)]
    path = detector.combine("bias", raws, [1.0] * 10, [0.0] * 10, {})
    image, variance = (fitsio.read(path, ext=name)[:, :NX].astype(np.float64) for name in ("IMAGE", "VARIANCE"))
    assert 0.95 < variance.mean() / np.mean((image - detector.truth("bias")[:, :NX]) ** 2) < 1.05


RULES = [
    clip.Rule("MEANCLIP", 2.5, 2), clip.Rule("MEANCLIP", 4.0, 1), clip.Rule("SIGMACLIP", 2.0, 3, 0),
    clip.Rule("MEDIAN"), clip.Rule(), clip.Rule("SIGMACLIP"),
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", [3, 6, 19, 60])
def test_factors_of_every_rule(rule: clip.Rule, n: int) -> None:
    """Fresh numbers of another generator: the expectation of the variance is the variance."""
    values = np.random.Generator(np.random.Philox(3)).standard_normal((n, 1_200_000 // n), dtype=np.float32)
    found = estimator.table(rule, n)
    image, variance = estimator._collapsed(values, rule)
    assert np.mean(image**2) * n == pytest.approx(found.spread[n], rel=0.025)
    assert np.mean(variance) * found.scatter[n] == pytest.approx(np.mean(image**2), rel=0.025)


def test_cosmic_rays_are_sought_by_the_frames_own_noise(known: Any) -> None:
    """The camera file's read noise is a third of the truth: hardly any pixel of a dark is taken for a hit."""
    detector = known(FINE)
    raws = [detector.expose(SECONDS) for _ in range(8)]
    times, detector.noise = [SECONDS] * 8, FINE / 3
    images = [
        fitsio.read(detector.combine("dark", raws, times, times, {}, statistic="MEAN", **more), ext="IMAGE")
        for more in ({}, {"cosmic": {"grow": 2}})
    ]
    assert np.mean(images[0] != images[1]) < 1e-3
