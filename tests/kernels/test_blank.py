"""Pixels that hold nothing: in no mean, no level and no noise, whatever the frame is packed in; BAD, and counted."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.calibrations import crosstalk
from kernels.camera import geometry
from kernels.fits.product import BAD, PLANES
from tests.kernels.conftest import NX, NY, PRESCAN, SERIAL

Image = NDArray[Any]
BLANK = -32768
FRAMES = 6
CONTAINERS = ["plain", "rice", "gzip", "tiles of gzip"]


def write(lab: Any, name: str, segments: Sequence[Image], container: str) -> str:
    """Write a frame with the value of blank pixels in its headers."""
    path = lab.folder / name
    packed: dict[str, Any] = {"rice": {"compress": "RICE"}, "tiles of gzip": {"compress": "GZIP"}}.get(container, {})
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        fits.write(None)
        for amplifier, raw in zip(lab.amplifiers, segments, strict=True):
            how = {**packed, "tile_dims": (1, raw.shape[1])} if packed else {}
            fits.write(raw, extname=amplifier["hdu"], header={"BLANK": BLANK}, **how)
    if container == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes()))
    return str(path)


def holed(lab: Any, seed: int = 1) -> list[list[Image]]:
    """Make frames [frame][amplifier]; the first amplifier has blank pixels in all, in one, and in overscans."""
    rng = np.random.default_rng(seed)
    frames = [lab.expose(rng, 200.0 * (n + 1)) for n in range(FRAMES)]
    for frame in frames:
        frame[0][5, PRESCAN + 3 : PRESCAN + 7] = BLANK
    first = frames[0][0]
    first[10, PRESCAN + 20] = BLANK
    first[2, PRESCAN + NX + 3 : PRESCAN + NX + SERIAL - 1 : 2] = BLANK  # some of a row's overscan
    first[8, PRESCAN + NX :] = BLANK  # and all pixels of another
    first[NY + 1, PRESCAN + 9] = BLANK  # in the parallel overscan
    return frames


def expected(frames: Sequence[Sequence[Image]], k: int, gain: float) -> Image:
    """Average an amplifier's data [y, x] above the serial overscan over the frames, in electron, as read."""
    cube = np.array([np.where(frame[k] == BLANK, np.nan, frame[k]) for frame in frames], np.float64)
    with np.errstate(invalid="ignore"):
        level = np.nanmedian(cube[:, :, PRESCAN + NX + 3 :], axis=2, keepdims=True)
        return np.asarray(np.nanmean((cube - level)[:, :NY, PRESCAN : PRESCAN + NX], axis=0) * gain)


def combined(
    lab: Any, frames: Sequence[Sequence[Image]], container: str, inputs: Any = None, **config: Any
) -> dict[str, Any]:
    """IMAGE and MASK by amplifier as they are read; the header; the rows of the inputs table."""
    name = f"{container} {len(list(lab.folder.iterdir()))}"
    paths = [write(lab, f"{name} {n}.fits", frame, container) for n, frame in enumerate(frames)]
    out = str(lab.folder / f"{name}.bias.fits")
    task = {
        "task": "bias:1", "detector": 1, "inputs": {"raw": paths, **(inputs or {})},
        "outputs": {"bias": out}, "parameters": lab.parameters(len(paths)),
    }  # fmt: skip
    plain = lab.job("combine", [task], name=name, config={"type": "bias", "statistic": "MEAN", **config})
    assert lab.serial(plain) == 0, lab.journal(plain)
    with fitsio.FITS(out) as fits:
        planes = {key: fits[key].read() for key in ("IMAGE", "MASK")}
        header = dict(fits[0].read_header())
    found: dict[str, Any] = {"header": header}
    for key, plane in planes.items():
        found[key] = []
        for a in lab.amplifiers:
            x0, y0, nx, ny = a["target"]
            found[key].append(plane[y0 : y0 + ny, x0 : x0 + nx][lab.step("flip_y", a), lab.step("flip_x", a)])
    (table,) = Path(plain["config"]["inputs_table"]).glob("*.csv")
    found["rows"] = list(csv.DictReader(table.read_text().splitlines()))
    return found


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:All-NaN slice")
@pytest.mark.parametrize("serial", ["median", "meanclip"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_blank_pixel_is_in_no_mean(lab: Any, container: str, serial: str) -> None:
    frames = holed(lab)
    isr = {**lab.isr, "saturation": False, "serial": serial}
    found = combined(lab, frames, container, isr=isr)
    for k, gain in enumerate(lab.gains):
        want, nothing = expected(frames, k, gain), np.zeros((NY, NX), np.bool_)
        nothing[5, 3:7] = k == 0
        np.testing.assert_array_equal(found["MASK"][k], np.where(nothing, BAD, 0))
        close = 1e-3 if serial == "median" else 6.0
        np.testing.assert_allclose(found["IMAGE"][k][~nothing], want[~nothing], atol=close)
    assert found["header"]["NBLANK"] == 4 * FRAMES + 1 + NX
    first = [row for row in found["rows"] if row["amplifier"] == "C10"]
    shares = [4 / (NX * NY)] * FRAMES
    shares[0] += (1 + NX) / (NX * NY)
    assert [float(row["blank"]) for row in first] == pytest.approx(shares, rel=1e-6)
    assert all(float(row["saturated"]) == 0 for row in found["rows"])
    assert all(np.isfinite([float(row[key]) for key in ("level", "noise", "overscan")]).all() for row in found["rows"])


def test_blank_pixels_do_not_change_what_is_beside_them(lab: Any) -> None:
    """Parallel overscan, crosstalk and saturation: pixels that are not blank agree with blank-free frames."""
    frames, whole = holed(lab), holed(lab)
    for one in whole:
        one[0][one[0] == BLANK] = 1000
    camera = geometry.camera(lab.camera())
    table, c0 = str(lab.folder / "crosstalk.fits"), 0.2 * (1 - np.eye(4))
    crosstalk.write(table, camera, camera.detectors[1], c0, np.zeros((4, 4)))
    isr, inputs = {**lab.isr, "parallel": True, "crosstalk": True}, {"crosstalk": [table]}
    mine, theirs = (combined(lab, some, "rice", inputs, isr=isr) for some in (frames, whole))
    for k in range(4):
        same = np.ones((NY, NX), np.bool_)
        same[[5, 8, 10, 2]] = k != 0
        np.testing.assert_allclose(mine["IMAGE"][k][same], theirs["IMAGE"][k][same], atol=60.0)


def test_a_frame_without_any_blank_pixel_gives_the_same_bits(lab: Any) -> None:
    """Whether its header names a value for such pixels or not."""
    rng = np.random.default_rng(3)
    frames = [lab.expose(rng, 900.0) for _ in range(FRAMES)]
    said = combined(lab, frames, "rice", isr={**lab.isr, "parallel": True})
    write_as_usual = lab.write
    paths = [write_as_usual(f"usual{n}.fits", frame) for n, frame in enumerate(frames)]
    out = str(lab.folder / "usual.bias.fits")
    task = {
        "task": "bias:1", "detector": 1, "inputs": {"raw": paths}, "outputs": {"bias": out},
        "parameters": lab.parameters(FRAMES),
    }  # fmt: skip
    config = {"type": "bias", "statistic": "MEAN", "isr": {**lab.isr, "parallel": True}}
    assert lab.serial(lab.job("combine", [task], name="usual", config=config)) == 0
    image = fitsio.read(out, "IMAGE")
    for a, plane in zip(lab.amplifiers, said["IMAGE"], strict=True):
        x0, y0, nx, ny = a["target"]
        there = image[y0 : y0 + ny, x0 : x0 + nx][lab.step("flip_y", a), lab.step("flip_x", a)]
        assert there.tobytes() == plane.tobytes()
    assert "NBLANK" not in said["header"]


def test_a_corrected_frame_tells_blank_from_saturated(lab: Any) -> None:
    frame = holed(lab)[0]
    frame[0][3, PRESCAN + 1] = lab.adc_max
    path, out = write(lab, "one.fits", frame, "rice"), str(lab.folder / "out.fits")
    task = {
        "task": "isr:1", "detector": 1, "inputs": {"raw": [path]}, "outputs": {"postISRCCD": out},
        "parameters": lab.parameters(1),
    }  # fmt: skip
    assert lab.serial(lab.job("correct", [task])) == 0
    x0, y0, nx, ny = lab.amplifiers[0]["target"]
    mask = fitsio.read(out, "MASK")[y0 : y0 + ny, x0 : x0 + nx][::-1, ::-1]
    want = np.zeros((NY, NX), np.int32)
    want[5, 3:7] = want[10, 20] = want[8] = BAD
    want[3, 1] = 1 << PLANES["SAT"]
    np.testing.assert_array_equal(mask, want)
