"""Combined calibrations against straightforward numpy on the same raw pixels."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from numpy.typing import NDArray

from kernels.fits.product import PLANES

N = 7
SECONDS = 30.0
Image = NDArray[Any]
Plain = dict[str, Any]
#: The definition of `Case.expected`: the survivors' variance / count, all frames alike.
SCATTER: Plain = {"variance": "PLAIN", "weighting": "NONE"}


class Case:
    """Frames of one detector and their processing; `expected` is the slow way to the same pixels."""

    def __init__(self, lab: Any, level: Any = 800.0, n: int = N, unit: str = "electron", **isr: Any) -> None:
        rng = np.random.default_rng(4)
        self.lab, self.unit, self.isr, self.n = lab, unit, {**lab.isr, **isr}, n
        self.exposed = [lab.expose(rng, np.broadcast_to(level, lab.size[::-1])) for _ in range(n)]
        shape = lab.size[::-1]
        self.images = {"bias": rng.normal(0, 3, shape).astype(np.float32), "dark": rng.uniform(0, 2, shape)}
        self.masks = {kind: (rng.random(shape) < 0.01).astype(np.int32) for kind in ("bias", "dark")}
        self.times = [SECONDS + k for k in range(n)]
        self.scales = [1.0] * n

    def job(self, kind: str = "bias", **config: Any) -> Plain:
        lab = self.lab
        inputs = {"raw": [lab.write(f"raw{k}.fits", e) for k, e in enumerate(self.exposed)]}
        for role in ("bias", "dark"):
            if self.isr[role]:
                path = lab.product(f"{role}.fits", self.images[role], self.masks[role], self.unit)
                inputs[role] = [path]
        outputs = {name: str(lab.folder / f"out-{name}.fits") for name in (kind, *config.get("bins", {}))}
        parameters = lab.parameters(self.n, SECONDS) | {"scales": self.scales, "dark_times": self.times}
        task = {"task": f"{kind}:1", "detector": 1, "inputs": inputs, "outputs": outputs, "parameters": parameters,
                "provenance": {"TICKET": "DM-12345", "QUERY": "detector IN (1, 2) and exposure.day_obs > 20241201 " * 4,
                               "CALIB_BIAS_COLLECTION": "LSSTComCam/calib/" + "x" * 90}}  # fmt: skip
        settings = {"type": kind, "isr": self.isr, **config}
        plain: Plain = lab.job("combine", [task], camera=lab.camera(self.unit), config=settings)
        return plain

    def made(self, kind: str = "bias", **config: Any) -> tuple[Image, Image, Image]:
        """Image, mask and variance."""
        plain = self.job(kind, **config)
        assert self.lab.serial(plain) == 0, self.lab.journal(plain)[-1]["detail"]
        with fitsio.FITS(str(self.lab.folder / f"out-{kind}.fits")) as fits:
            return tuple(fits[name].read() for name in ("IMAGE", "MASK", "VARIANCE"))  # type: ignore[return-value]

    def corrected(self, n: int, slow_meanclip: Any) -> Image:
        """One frame, assembled."""
        lab, whole = self.lab, np.full(self.lab.size[::-1], np.nan)
        for k, amplifier in enumerate(lab.amplifiers):
            raw = self.exposed[n][k].astype(float)
            x0, _, nx, ny = amplifier["data"]
            o0, _, on, _ = amplifier["serial_overscan"]
            overscan = raw[:, o0 + self.isr["skip_columns"] : o0 + on]
            if self.isr["serial"] == "median":
                raw -= np.median(overscan, axis=1)[:, None]
            elif self.isr["serial"] == "meanclip":
                raw -= np.array([slow_meanclip(row)[0] for row in overscan])[:, None]
            signal = raw[:ny, x0 : x0 + nx].copy()
            full = (self.exposed[n][k][:ny, x0 : x0 + nx] >= lab.adc_max) | (
                signal * lab.gains[k] >= (lab.saturations[k] or np.inf)
            )
            if self.isr["parallel"]:
                signal -= np.median(raw[ny:, x0 : x0 + nx], axis=0)
            signal *= lab.gains[k] if self.unit == "electron" else 1
            signal[full & self.isr["saturation"]] = np.nan
            signal = np.fliplr(signal) if amplifier["flip_x"] else signal
            signal = np.flipud(signal) if amplifier["flip_y"] else signal
            u, v, _, _ = amplifier["target"]
            whole[v : v + ny, u : u + nx] = signal
        whole -= self.images["bias"] * self.isr["bias"]
        return whole - self.images["dark"] * self.isr["dark"] * self.times[n]

    def expected(self, slow_meanclip: Any) -> tuple[Image, Image]:
        """Image and variance of the clipped mean, NaN where no input is good."""
        cube = [self.corrected(n, slow_meanclip) / self.scales[n] for n in range(self.n)]
        columns = np.array(cube).reshape(self.n, -1).T.tolist()
        both = np.array([slow_meanclip(column)[:2] for column in columns])
        return both[:, 0].reshape(cube[0].shape), both[:, 1].reshape(cube[0].shape)


CASES: dict[str, Plain] = {
    "electrons": {},
    "adu": {"unit": "adu"},
    "clipped overscan": {"serial": "meanclip"},
    "all of the overscan": {"skip_columns": 0},
    "no overscan": {"serial": "none", "unit": "adu"},
    "parallel": {"parallel": True},
    "bias subtracted": {"bias": True},
    "both subtracted": {"bias": True, "dark": True, "unit": "adu"},
}


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_those_of_plain_numpy(lab: Any, slow_meanclip: Any, name: str) -> None:
    gradient = np.linspace(100, 900, lab.size[0])[None, :] + np.linspace(0, 90, lab.size[1])[:, None]
    case = Case(lab, gradient, **CASES[name])
    if case.isr["dark"]:
        case.scales = case.times
    image, mask, variance = case.made("dark", **SCATTER)
    expected, scatter = case.expected(slow_meanclip)
    np.testing.assert_allclose(image, expected, rtol=1e-5, atol=1e-3)
    agreeing = np.isclose(variance, scatter, rtol=1e-3, atol=1e-3)
    assert agreeing.mean() > 0.999, "float32 may put a value on the other side of the limit now and then"
    bad = sum(case.masks[kind] * case.isr[kind] for kind in ("bias", "dark"))
    np.testing.assert_array_equal(mask, np.minimum(bad, 1))


def test_saturated_pixels_are_left_out(lab: Any, slow_meanclip: Any) -> None:
    """C10 is full at the converter's end, C11 and C00 at the camera file's electrons; one frame is lit less."""
    case = Case(lab, 800.0)
    rng, (ny, nx) = np.random.default_rng(5), (20, 24)
    for segments in case.exposed[:3]:
        for raw in segments:
            raw[:ny, 4 : 4 + nx][rng.random((ny, nx)) < 0.2] = 65535
    for segments in case.exposed:
        for raw in segments:
            raw[3:6, 10:14] = 65535
    image, mask, variance = case.made(**SCATTER)
    expected, scatter = case.expected(slow_meanclip)
    hollow = ~np.isfinite(expected)
    assert hollow.sum() == 4 * 12
    np.testing.assert_array_equal(mask == 1, hollow)
    np.testing.assert_allclose(image[~hollow], expected[~hollow], rtol=1e-5, atol=1e-3)
    assert (image[hollow] == np.median(image[~hollow])).all()
    assert (variance[hollow] == np.median(variance[~hollow])).all()
    assert np.isclose(variance[~hollow], scatter[~hollow], rtol=1e-3, atol=1e-3).mean() > 0.999


def test_saturation_may_be_left_in(lab: Any, slow_meanclip: Any) -> None:
    case = Case(lab, 1.2e5, n=3, saturation=False)
    for raw in (raw for segments in case.exposed for raw in segments):
        raw[:, ::2] -= 1000  # a row of one value would be an amplifier that is off
    image, mask, _ = case.made()
    np.testing.assert_allclose(image, case.expected(slow_meanclip)[0], rtol=1e-5)
    assert image.max() > 60000 and not mask.any()


def test_a_single_good_input_has_no_scatter_and_is_bad(lab: Any) -> None:
    case = Case(lab)
    for segments in case.exposed[1:]:
        segments[3][7, 9] = 65535
    image, mask, variance = case.made()
    assert mask.sum() == 1
    assert np.isfinite(variance).all() and (variance > 0).all() and abs(image[mask == 1] - 800) < 30


def test_a_detector_without_a_good_pixel_is_all_bad(lab: Any) -> None:
    case = Case(lab, 1e6, n=3)
    for segments in case.exposed:
        for raw in segments:
            raw[:] = 65535
    image, mask, variance = case.made()
    assert (mask == 1).all() and not image.any() and not variance.any()


def test_fill_values_come_from_good_pixels_alone(lab: Any) -> None:
    case = Case(lab, bias=True)
    case.masks["bias"][:] = 1
    case.masks["bias"][:5, :5] = 0
    case.images["bias"][5:, :] = -5000
    for segments in case.exposed:
        segments[0][0, 10] = 65535
    image, mask, _ = case.made()
    spot = np.argwhere((image < 5000) & (image > 700) & (mask == 1))
    filled = image[39, 48 - 24 - 1 - 6]  # row 0, column 6 of C10, mirrored in both
    assert filled == np.median(image[:5, :5])
    assert len(spot)


@pytest.mark.parametrize("unit", ["electron", "adu"])
def test_variance_of_few_inputs_is_propagated(lab: Any, slow_meanclip: Any, unit: str) -> None:
    case = Case(lab, 800.0, n=4, unit=unit)
    case.scales = [1.0, 2.0, 4.0, 0.5]
    image, _, variance = case.made("flat", statistic="MEAN")
    frames = np.array([case.corrected(n, slow_meanclip) for n in range(4)])
    scales = np.array(case.scales)[:, None, None]
    gain, still = (np.empty(lab.size[::-1]) for _ in range(2))
    for amplifier, g, r in zip(lab.amplifiers, lab.gains, lab.noises, strict=True):
        u, v, nx, ny = amplifier["target"]
        step, own = (g, r) if unit == "electron" else (1, r / g)
        pixel = own**2 + step**2 / 12
        level = np.pi / 2 * pixel / (9 + np.pi / 2 - 1) + step**2 / 12  # of the nine overscan pixels of a row
        gain[v : v + ny, u : u + nx], still[v : v + ny, u : u + nx] = (1 if unit == "electron" else g), pixel + level
    np.testing.assert_allclose(image, (frames / scales).mean(axis=0), rtol=1e-4, atol=1e-2)
    each = (image * scales / gain + still) / scales**2
    np.testing.assert_allclose(variance, each.sum(axis=0) / 16, rtol=1e-4)


@pytest.mark.parametrize("statistic", ["MEDIAN", "MEAN"])
def test_other_statistics(lab: Any, slow_meanclip: Any, statistic: str) -> None:
    case = Case(lab)
    image, _, _ = case.made(statistic=statistic)
    cube = np.array([case.corrected(n, slow_meanclip) for n in range(N)])
    np.testing.assert_allclose(image, getattr(np, statistic.lower())(cube, axis=0), rtol=1e-5, atol=1e-3)
    assert fitsio.read_header(str(lab.folder / "out-bias.fits"))["STATISTC"] == statistic


def test_cosmic_rays_are_left_out_and_hot_pixels_are_not(lab: Any) -> None:
    """With seven frames two hits on one pixel survive the clip, but not the flagging."""
    hot = np.zeros(lab.size[::-1])
    hot[5:9, 30] = 5000
    case = Case(lab, 50.0 + hot)
    rows = slice(8, 10)
    for segments in case.exposed[:2]:
        segments[0][rows, 4 + 7] += 900
    cosmic = {"fwhm": 3.0, "nsigma": 6.0, "grow": 2}
    with_rays, _, _ = case.made("dark", statistic="MEAN")
    for path in lab.folder.glob("out-*"):
        path.unlink()
    without, mask, _ = case.made("dark", statistic="MEAN", cosmic=cosmic)
    where = np.abs(with_rays - without) > 100
    assert np.count_nonzero(where) == 2
    assert without[where].max() < 80
    assert without[5:9, 30].min() > 4900
    assert not mask.any()


def test_a_calibration_in_another_unit_is_refused(lab: Any) -> None:
    case = Case(lab, bias=True)
    plain = case.job()
    lab.product("bias.fits", case.images["bias"], None, "adu")
    assert lab.serial(plain) == 1
    detail = lab.journal(plain)[-1]["detail"]
    path = lab.folder / "bias.fits"
    assert detail["error"] == f"{path}: is in adu (CALUNIT), the frames it is to correct are in electron"
    assert not list(lab.folder.glob("out-*"))


def test_a_calibration_of_another_size_is_refused(lab: Any) -> None:
    case = Case(lab, bias=True)
    plain = case.job()
    lab.product("bias.fits", case.images["bias"][:30], None)
    assert lab.serial(plain) == 1
    error = lab.journal(plain)[-1]["detail"]["error"]
    assert error == f"{lab.folder / 'bias.fits'}: IMAGE is 48 x 30 pixels: of another detector type"


def test_a_product_that_exists_is_not_touched_and_its_companions_are_taken_back(lab: Any) -> None:
    case = Case(lab)
    plain = case.job(bins={"biasBin8": 8})
    there = lab.folder / "out-biasBin8.fits"
    there.write_text("precious")
    assert lab.serial(plain) == 1
    assert "exists already" in lab.journal(plain)[-1]["detail"]["error"]
    assert there.read_text() == "precious"
    assert [p.name for p in lab.folder.glob("*out-*")] == [there.name]
    there.unlink()
    assert lab.serial(plain) == 0, "the task can be done again"


@pytest.mark.parametrize(("kind", "unit", "seconds"), [("bias", "{}", 0), ("dark", "{}/s", 1), ("flat", "1", 1)])
@pytest.mark.parametrize("camera_unit", ["electron", "adu"])
def test_the_header_says_what_it_is_and_of_what(lab: Any, kind: str, unit: str, seconds: int, camera_unit: str) -> None:
    case = Case(lab, unit=camera_unit)
    case.scales = [1.0 + 0.25 * k for k in range(N)]
    image, mask, _ = case.made(kind)
    with astropy_fits.open(lab.folder / f"out-{kind}.fits", checksum=True) as fits:
        fits.verify("exception")
        header, mask_header = fits[0].header, fits["MASK"].header
        assert [hdu.name for hdu in fits] == ["PRIMARY", "IMAGE", "MASK", "VARIANCE"]
        assert [fits[n].data.dtype.kind + str(fits[n].data.dtype.itemsize) for n in (1, 2, 3)] == ["f4", "i4", "f4"]
    assert {k: mask_header[f"MP_{k}"] for k in PLANES} == PLANES
    assert header["BUNIT"] == unit.format(camera_unit) and header["CALUNIT"] == camera_unit
    assert (header["EXPTIME"], header["DARKTIME"]) == (seconds, seconds)
    assert (header["OBSTYPE"], header["DETECTOR"], header["DETNAME"]) == (kind, 1, "R22_S01")
    parameters = lab.parameters(N, SECONDS)
    for k in range(N):
        found = [header[f"CPP_INPUT{part}_{k}"] for part in ("", "_DATE", "_EXPT", "_SCALE")]
        assert found == [parameters["exposures"][k], parameters["dates"][k], SECONDS, case.scales[k]]
    assert header["NINPUTS"] == N and f"CPP_INPUT_{N}" not in header
    assert (header["DATE-BEG"], header["DATE-END"]) == (parameters["dates"][0], "2024-12-08T12:06:30.000")
    assert header["VARDEF"] == "estimator" and header["ISR_PARALLEL"] is False
    assert header["TIMESYS"] == "TAI"
    assert (header["STATISTC"], header["CLIPSIG"], header["CLIPPASS"], header["CLIPDDOF"]) == ("MEANCLIP", 3.0, 3, 1)
    assert header["CLIPDISP"] == "0.7413 IQR, then std" and header["CLIPCEN"] == "median, then mean"
    assert (header["ISR_SERIAL"], header["ISR_SKIP_COLUMNS"], header["ISR_BIAS"]) == ("median", 3, False)
    assert header["TICKET"] == "DM-12345"
    assert header["QUERY"].strip() == ("detector IN (1, 2) and exposure.day_obs > 20241201 " * 4).strip()
    assert header["CALIB_BIAS_COLLECTION"] == "LSSTComCam/calib/" + "x" * 90
    for amplifier, gain in zip(lab.amplifiers, lab.gains, strict=True):
        u, v, nx, ny = amplifier["target"]
        pixels = image[v : v + ny, u : u + nx][mask[v : v + ny, u : u + nx] == 0]
        for p in (0, 5, 16, 50, 84, 95, 100):
            assert header[f"AMP_{amplifier['name']}_P{p}"] == pytest.approx(np.percentile(pixels, p), rel=1e-6)
        assert header[f"AMP_{amplifier['name']}_BAD"] == nx * ny - pixels.size
        assert header[f"AMP_{amplifier['name']}_GAIN"] == gain


def test_binned_images_leave_bad_pixels_out(lab: Any) -> None:
    case = Case(lab)
    for segments in case.exposed:
        segments[2][:8, 4:12] = 65535  # a whole bin of C01 and, mirrored, none of another
    image, mask, _ = case.made(bins={"biasBin8": 8, "biasBin64": 64})
    good = np.where(mask == 0, image, np.nan)
    small = fitsio.read(str(lab.folder / "out-biasBin8.fits"), ext="IMAGE")
    blocks = good.reshape(5, 8, 6, 8)
    counts = np.isfinite(blocks).sum(axis=(1, 3))
    assert np.count_nonzero(counts == 0) == 1
    np.testing.assert_allclose(small[counts > 0], (np.nansum(blocks, axis=(1, 3)) / np.maximum(counts, 1))[counts > 0])
    assert np.isnan(small[counts == 0]).all()
    one = fitsio.read(str(lab.folder / "out-biasBin64.fits"), ext="IMAGE")
    assert one.shape == (1, 1) and one[0, 0] == pytest.approx(np.nanmean(good), rel=1e-6)


def test_the_inputs_table_has_every_amplifier_of_every_exposure(lab: Any) -> None:
    case = Case(lab, 800.0)
    for raw in case.exposed[2]:
        raw[:2, 4:16] = 65535
    case.made()
    (path,) = (lab.folder / "combine" / "inputs").iterdir()
    assert path.name == "bias_1.csv"
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(r["exposure"]), r["amplifier"]) for r in rows] == [
        (e, a["name"]) for e in lab.parameters(N)["exposures"] for a in lab.amplifiers
    ]
    for row in rows:
        k = [a["name"] for a in lab.amplifiers].index(row["amplifier"])
        assert row["detector"] == "1"
        assert float(row["level"]) == pytest.approx(800 / lab.gains[k] + 4.5, abs=3)
        assert float(row["noise"]) == pytest.approx(lab.noises[k] / lab.gains[k], rel=0.25)
        assert float(row["saturated"]) == pytest.approx(24 / 480 if row["exposure"].endswith("03") else 0)


def test_dark_corners_are_masked_and_nothing_else_changes(lab: Any) -> None:
    """The detector's centre is 42.25 mm from the focal plane's, its pixels are 10 um."""
    plain = Case(lab).made("flat")
    (lab.folder / "out-flat.fits").unlink()
    masked = Case(lab).made("flat", vignette_mm=42.3)
    width, height = lab.size
    x = 42.25 + 0.01 * (np.arange(width) - (width - 1) / 2)
    y = 0.01 * (np.arange(height) - (height - 1) / 2)
    dark = np.hypot(x[None, :], y[:, None]) > 42.3
    assert 0.1 < dark.mean() < 0.9
    both = 1 << PLANES["NO_DATA"] | 1 << PLANES["VIGNETTED"]
    assert np.array_equal((masked[1] & both) == both, dark)
    assert np.array_equal(masked[1] & ~both, plain[1]) and not (plain[1] & both).any()
    for before, after in zip(plain[::2], masked[::2], strict=True):
        assert np.array_equal(before, after)


@pytest.mark.parametrize("value", [0, 65535])
def test_an_amplifier_that_is_off_is_bad_and_the_others_are_as_they_were(lab: Any, value: int) -> None:
    """Off in all frames, or in one: then the mean is that of the others; in a bias no saturation is masked."""
    case = Case(lab, 800.0)
    for segments in case.exposed:
        segments[1][:] = value
    case.exposed[2][3][:] = 17
    image, mask, _ = case.made(statistic="MEAN", max_bad=0.1)
    off, partly = (
        (slice(v, v + ny), slice(u, u + nx)) for u, v, nx, ny in (lab.amplifiers[k]["target"] for k in (1, 3))
    )
    assert mask[off].all() and mask.sum() == mask[off].size
    assert abs(image[off] - 800).max() < 20 and abs(image[partly] - 800).max() < 30
    header = fitsio.read_header(str(lab.folder / "out-bias.fits"))
    assert header["DEADAMPS"] == "C11"
    assert header["AMP_C11_UNUSED"] == 1 and header["AMP_C00_UNUSED"] == pytest.approx(1 / 7, abs=1e-6)
    (published,) = (e["detail"] for e in lab.journal(case.job()) if e["event"] == "published")
    assert published["dead_amplifiers"] == ["C11"]


def test_an_amplifier_without_light_is_bad_in_a_flat(lab: Any) -> None:
    light = np.full(lab.size[::-1], 20000.0)
    u, v, nx, ny = lab.amplifiers[2]["target"]
    light[v : v + ny, u : u + nx] = 0
    case = Case(lab, light)
    case.scales = [20000.0] * N
    image, mask, variance = case.made("flat")
    assert mask.sum() == nx * ny and mask[v : v + ny, u : u + nx].all()
    assert image[mask == 0].mean() == pytest.approx(1, abs=0.01) and (variance[mask == 1] > 0).all()


def test_a_frame_under_two_names_is_refused(lab: Any) -> None:
    case = Case(lab, 800.0)
    case.exposed[5] = case.exposed[1]
    plain = case.job()
    assert lab.serial(plain) == 1
    error = lab.journal(plain)[-1]["detail"]["error"]
    assert "exposure 2024120800006 has the very pixels of exposure 2024120800002" in error
    assert "--exclude 2024120800006" in error


@pytest.mark.parametrize("factor", [1.0, 1 / 3])
def test_a_wrong_read_noise_takes_no_pixels_for_cosmic_rays(lab: Any, monkeypatch: Any, factor: float) -> None:
    """Half of the pixels are six such noises above the others; only the hit is a hit."""
    case = Case(lab, 20.0)
    case.exposed[3][0][9, 14] += 4000
    monkeypatch.setattr("tests.kernels.conftest.NOISES", [n * factor for n in lab.noises])
    image, mask, _ = case.made("dark", cosmic={"grow": 1})
    header = fitsio.read_header(str(lab.folder / "out-dark.fits"))
    assert header["CPP_INPUT_CR_3"] == pytest.approx(9 / image.size, rel=1e-3)
    assert sum(header[f"CPP_INPUT_CR_{n}"] for n in range(N)) == header["CPP_INPUT_CR_3"]
    assert not mask.any()
    with (lab.folder / "combine" / "inputs" / "dark_1.csv").open(newline="") as file:
        rejected = {(r["exposure"][-1], r["amplifier"]): float(r["rejected"]) for r in csv.DictReader(file)}
    assert rejected.pop(("4", "C10")) == 9 / 480 and not any(rejected.values())
