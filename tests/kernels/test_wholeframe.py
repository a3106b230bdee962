"""Flat, bad regions, interpolation and suspect pixels of corrected frames, against plain numpy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.calibrations import bfk, ptc
from kernels.calibrations.config import IsrConfig
from kernels.camera import geometry
from kernels.errors import DataError, JobError
from kernels.fits import product
from kernels.fits.product import PLANES, Product
from kernels.fits.tables import identity
from kernels.products.wholeframe import WholeFrame, flatten, interpolate, set_bad_regions
from tests.kernels.conftest import NX, NY, PRESCAN, Lab

BAD, SAT, INTRP, CR, SUSPECT, NO_DATA, VIGNETTED = (
    1 << PLANES[name] for name in ("BAD", "SAT", "INTRP", "CR", "SUSPECT", "NO_DATA", "VIGNETTED")
)
SHAPE = (2 * NY, 2 * NX)
TURNOFF = 20_000.0


def frame_of(seed: int = 1) -> WholeFrame:
    """A frame with every plane somewhere: columns and rows, single pixels, and a row without a usable one."""
    rng = np.random.default_rng(seed)
    image = rng.normal(1000, 30, SHAPE).astype(np.float32)
    mask = np.zeros(SHAPE, np.int32)
    mask[:, 7] |= BAD
    mask[3, 10:20] |= SAT
    mask[11, :5] |= BAD
    mask[12, -6:] |= SAT
    mask[20] |= BAD
    mask[25, 30] |= CR
    mask[25, 31:33] |= BAD
    mask[30, 2:4] |= NO_DATA
    mask[31, 9] |= SUSPECT
    return WholeFrame(image, np.abs(image) / 3 + 7, mask)


def flat_of(folder: Path, image: NDArray[Any], mask: NDArray[Any], variance: NDArray[Any]) -> Product:
    camera = geometry.camera(Lab(folder).camera())
    path = str(folder / "flat.fits")
    cards = [*identity("flat", camera, camera.detectors[1]), ("CALUNIT", "electron", "")]
    product.write(path, cards, image.astype(np.float32), mask.astype(np.int32), variance.astype(np.float32))
    return Product.open(path, "electron")


def test_a_flat_divides_and_its_variance_counts(tmp_path: Path) -> None:
    rng, frame = np.random.default_rng(2), frame_of()
    flat, error = rng.normal(1, 0.02, SHAPE), rng.uniform(1e-5, 2e-5, SHAPE)
    flat[4, 4], flat[5, 5], flat[6, 6], flat[7, 7], error[8, 8] = 0, -0.1, np.nan, 1e-38, np.nan
    planes = np.zeros(SHAPE, np.int32)
    planes[9, 9], planes[10, :3] = BAD | CR, NO_DATA | VIGNETTED
    was = WholeFrame(*(plane.copy() for plane in (frame.image, frame.variance, frame.mask)))
    cards = {name: value for name, value, _ in flatten(frame, flat_of(tmp_path, flat, planes, error))}
    dead = ~(flat > 1e-6)
    f = np.where(dead, 1, flat.astype(np.float32).astype(float))
    more = np.where(dead | np.isnan(error), 0, error.astype(np.float32).astype(float))
    np.testing.assert_allclose(frame.image, was.image / f, rtol=3e-7)
    np.testing.assert_allclose(frame.variance, was.variance / f**2 + (was.image / f**2) ** 2 * more, rtol=1e-6)
    assert np.array_equal(frame.mask, was.mask | (planes & ~CR) | np.where(dead, BAD, 0))
    assert cards == {"FLATDEAD": 4} and np.isfinite(frame.image).all() and np.isfinite(frame.variance).all()


def test_a_flat_of_zeros_is_refused(tmp_path: Path) -> None:
    zeros = np.zeros(SHAPE)
    with pytest.raises(DataError, match="flat.fits: has no pixel above 0"):
        flatten(frame_of(), flat_of(tmp_path, zeros, zeros, zeros))


def test_bad_regions_get_the_median_of_the_usable_pixels() -> None:
    frame = frame_of()
    frame.mask[39] |= BAD | INTRP
    was, bad = frame.image.copy(), (frame.mask & BAD != 0) & (frame.mask & INTRP == 0)
    cards = {name: value for name, value, _ in set_bad_regions(frame)}
    level = np.median(was[frame.mask & (BAD | SAT | CR | NO_DATA) == 0])
    assert cards == {"NSETBAD": bad.sum(), "BADLEVEL": level}
    assert np.array_equal(frame.image, np.where(bad, level, was))


def test_masked_pixels_are_interpolated_along_their_row() -> None:
    frame = frame_of()
    was, before = frame.image.copy(), frame.mask.copy()
    cards = {name: value for name, value, _ in interpolate(frame, IsrConfig(interpolate=True))}
    sat = before & SAT != 0
    grown = sat.copy()
    for y, x in np.argwhere(sat):
        for j, i in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= j < SHAPE[0] and 0 <= i < SHAPE[1]:
                grown[j, i] = True
    hole = grown | (before & BAD != 0)
    usable = ~hole & (before & (CR | NO_DATA) == 0)
    expected = was.astype(float)
    for y in range(SHAPE[0]):
        there = np.flatnonzero(usable[y])
        level = np.interp(np.arange(SHAPE[1]), there, was[y, there]) if there.size else np.median(was[usable])
        expected[y] = np.where(hole[y], level, expected[y])
    np.testing.assert_allclose(frame.image, expected, rtol=1e-6)
    assert np.array_equal(frame.mask, before | np.where(grown, SAT, 0) | np.where(hole, INTRP, 0))
    assert cards == {
        "NINTRP": hole.sum(), "NINTRP_SAT": grown.sum(), "NINTRP_BAD": (before & BAD != 0).sum(),
        "NINTRP_LEVEL": SHAPE[1],
    }  # fmt: skip
    assert frame.variance[hole].max() <= frame.variance[usable].max()


def test_only_the_wanted_planes_are_interpolated() -> None:
    frame = frame_of()
    was, before = frame.image.copy(), frame.mask.copy()
    interpolate(frame, IsrConfig(interpolate=True, interpolated_planes=["BAD"]))
    changed = frame.mask != before
    assert np.array_equal(changed, before & BAD != 0) and np.array_equal(frame.image[~changed], was[~changed])
    with pytest.raises(JobError, match="there is no plane STREAK; there are BAD"):
        interpolate(frame, IsrConfig(interpolate=True, interpolated_planes=["STREAK"]))


def test_without_a_usable_pixel_nothing_is_made_up() -> None:
    frame = frame_of()
    frame.mask[:] = BAD
    was = frame.image.copy()
    cards = [*set_bad_regions(frame), *interpolate(frame, IsrConfig(interpolate=True))]
    assert [(name, value) for name, value, _ in cards] == [("NSETBAD", 0), ("NINTRP", 0)]
    assert np.array_equal(frame.image, was) and (frame.mask == BAD).all()


EVERYTHING = {"ptc": True, "flat": True, "suspect": True, "bad_regions": True, "interpolate": True, "defects": False,
              "interpolated_planes": ["SAT", "BAD", "UNMASKEDNAN"]}  # fmt: skip


def science(lab: Lab, name: str, detectors: tuple[int, ...] = (1,), **roles: str) -> dict[str, Any]:
    """A job that corrects a frame of each detector by everything that needs whole frames."""
    rng, tasks = np.random.default_rng(5), []
    camera = geometry.camera(lab.camera())
    for d in detectors:
        light = rng.poisson(5000, SHAPE).astype(float)
        light[10:13, 10:40] = light[33, 15:30] = 2 * TURNOFF  # above the turnoff in ADU, whatever the gain
        light[30, :9] = 99_000  # saturated where there is a saturation
        folder = lab.folder / name
        folder.mkdir(exist_ok=True)
        inputs = {"raw": [lab.write(f"{name}/raw{d}.fits", lab.expose(rng, light))]}
        inputs["ptc"] = [str(folder / f"ptc{d}.fits")]
        turnoff = np.array([TURNOFF, TURNOFF, np.nan, TURNOFF])
        ptc.write(inputs["ptc"][0], camera, camera.detectors[d], np.array(lab.gains), np.array(lab.noises), turnoff)
        inputs["flat"] = [lab.product(f"flat{d}.fits", rng.normal(1, 0.01, SHAPE), detector=d)]
        outputs = {"postISRCCD": str(folder / f"frame{d}.fits"), "postIsrBin1": str(folder / f"small{d}.fits")}
        tasks.append(
            {"task": f"isr:{d}", "detector": d, "inputs": inputs | {k: [v] for k, v in roles.items()},
             "outputs": outputs, "parameters": lab.parameters(1, 30.0), "provenance": {"TICKET": "DM-1"}}
        )  # fmt: skip
    config = {"isr": lab.isr | EVERYTHING, "bins": {"postIsrBin1": 4}}
    return lab.job("correct", tasks, name=name, config=config)


def test_suspect_pixels_are_those_from_the_turnoff_on(lab: Lab) -> None:
    plain = science(lab, "suspect")
    assert lab.serial(plain) == 0, lab.journal(plain)
    path, raw = (plain["tasks"][0][k] for k in ("outputs", "inputs"))
    mask, header = fitsio.read(path["postISRCCD"], "MASK"), fitsio.read_header(path["postISRCCD"])
    expected = np.zeros(SHAPE, bool)
    for k, amplifier in enumerate(lab.amplifiers):
        pixels = fitsio.read(raw["raw"][0], amplifier["hdu"]).astype(float)
        level = np.median(pixels[:, PRESCAN + NX + 3 :], axis=1, keepdims=True)
        high = (pixels - level)[:NY, PRESCAN : PRESCAN + NX] >= (TURNOFF if k != 2 else np.inf)
        x0, y0, nx, ny = amplifier["target"]
        there = high[lab.step("flip_y", amplifier), lab.step("flip_x", amplifier)]
        expected[y0 : y0 + ny, x0 : x0 + nx] = there
    assert np.array_equal(mask & SUSPECT != 0, expected) and 10 < expected.sum() == header["NSUSPECT"]
    assert header["LEFTOUT0"] == "no SUSPECT pixels of C01: the ptc has no turnoff" and "LEFTOUT1" not in header
    assert header["FULLAMPS"] == "none" and header["ISR_INTERPOLATED_PLANES"] == "SAT BAD UNMASKEDNAN"
    assert header["NINTRP"] == (mask & INTRP != 0).sum() > 5 and np.array_equal(mask & INTRP != 0, mask & SAT != 0)
    small = fitsio.read(path["postIsrBin1"], "IMAGE")
    image = np.where(mask & (BAD | SAT | INTRP | NO_DATA) == 0, fitsio.read(path["postISRCCD"], "IMAGE"), np.nan)
    np.testing.assert_allclose(small, np.nanmean(image.reshape(10, 4, 12, 4), axis=(1, 3)), rtol=1e-6)


def test_without_a_ptc_no_pixel_is_suspect_and_the_header_says_so(lab: Lab) -> None:
    plain = science(lab, "none")
    plain["config"]["isr"]["ptc"] = False
    assert lab.serial(plain) == 0, lab.journal(plain)
    header = fitsio.read_header(plain["tasks"][0]["outputs"]["postISRCCD"])
    assert header["NSUSPECT"] == 0 and header["LEFTOUT0"] == "no SUSPECT pixels: without a ptc no turnoff is known"


@pytest.mark.processes
def test_frames_are_the_same_on_any_number_of_ranks(lab: Lab) -> None:
    found = []
    for ranks in (1, 2, 3):
        plain = science(lab, f"ranks{ranks}", (0, 1, 2))
        done = 0 if ranks > 1 else lab.serial(plain)
        assert done == 0 and (ranks == 1 or lab.mpi(plain, ranks).returncode == 0)
        planes = []
        for task in plain["tasks"]:
            for path in task["outputs"].values():
                with fitsio.FITS(path) as fits:
                    planes += [hdu.read().tobytes() for hdu in fits[1:]]
        found.append(planes)
    assert len(found[0]) == 3 * (3 + 1) and found[1:] == found[:1] * 2


@pytest.mark.parametrize(
    ("number", "kernel", "said"),
    [
        (0, np.full((3, 3), -1e-7), "bfk0.fits: is of detector 0 R22_S00 .*, the frames are of 1 R22_S01"),
        (1, np.full((3, 3), -1e300), "doBrighterFatter: the bfk has a value of 1e.300 / electron"),
        (1, np.full((3, 5), -1e-7), "the bfk's kernel is 5 x 3 pixels, an odd square is wanted"),
        (1, np.full((4, 4), -1e-7), "the bfk's kernel is 4 x 4 pixels, an odd square is wanted"),
        (1, -1e-8 * np.arange(9.0).reshape(3, 3), "kernel is not symmetric: its quadrants differ by 6e-08 / electron"),
    ],
)
def test_a_kernel_that_is_not_the_frames_fails_its_task(lab: Lab, number: int, kernel: NDArray[Any], said: str) -> None:
    camera, path = geometry.camera(lab.camera()), str(lab.folder / f"bfk{number}.fits")
    bfk.write(path, camera, camera.detectors[number], bfk.Kernels(kernel, None))
    plain = science(lab, "wrong", bfk=path)
    plain["config"]["isr"]["brighter_fatter"] = True
    assert lab.serial(plain) == 1
    (failed,) = [line["detail"]["error"] for line in lab.journal(plain) if line["event"] == "failed"]
    assert re.search(said, failed), failed


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("flat0.fits", "is of detector 0 R22_S00 .*, the frames are of 1 R22_S01"),
        ("bias1.fits", "is bias .*, flat is wanted"),
        ("zeros", "has no pixel above 0"),
        ("counts", "has a level of 2e.04: a flat is relative, of about 1; it is not normalised"),
        ("adu", "is in adu .CALUNIT., the frames it is to correct are in electron"),
    ],
)
def test_a_flat_that_is_not_the_frames_fails_its_task(lab: Lab, how: str, said: str) -> None:
    plain = science(lab, "wrong")
    image = np.full(SHAPE, {"zeros": 0.0, "counts": 2e4}.get(how, 1.0))
    name = how if how.endswith("fits") else "flat1.fits"
    wrong = lab.product(name, image, unit="adu" if how == "adu" else "electron", detector=int(name[4]))
    plain["tasks"][0]["inputs"]["flat"] = [wrong]
    plain["files"][wrong] = {"path": wrong}
    assert lab.serial(plain) == 1
    (failed,) = [line["detail"]["error"] for line in lab.journal(plain) if line["event"] == "failed"]
    assert re.search(said, failed), failed
    assert not Path(plain["tasks"][0]["outputs"]["postISRCCD"]).exists()
