"""Pictures: their subjects, the places of detectors, and that each kind can be drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from campaign.camera import model as cameras
from campaign.quality import potentials
from campaign.quality.canvas import HIGHEST, LOWEST, OUTSIDE, Canvas, Panel, levels, ticks
from campaign.quality.drawing import LARGEST, Shown, averaged, draw, limits, places
from campaign.quality.pictures import title
from campaign.quality.tables import _mask, draw_table
from kernels.camera import geometry
from kernels.products import mosaic
from tests.campaign import plans


@pytest.mark.parametrize("name", ["LSSTCam", "LSSTComCam", "STL1001E"])
@pytest.mark.parametrize("binning", [1, 8, 64])
def test_detectors_are_where_the_mosaics_kernel_puts_them(name: str, binning: int) -> None:
    plain = cameras.load(name).plain(cameras.load(name).detector_ids())
    detectors = list(geometry.camera(plain).detectors.values())
    _, boxes = mosaic.places(geometry.camera(plain), detectors, binning)
    assert places(plain["detectors"], plain["types"], binning) == [[b.x0, b.y0, b.nx, b.ny] for b in boxes]


def is_picture(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 10, ["0", "2", "4", "6", "8", "10"]),
        (0.94, 1.072, ["0.95", "1.00", "1.05"]),
        (-2e-6, 5e-6, ["-2e-6", "0", "2e-6", "4e-6"]),
        (99303, 100701, ["99500", "100000", "100500"]),
        (1e30, 1.5e30, ["1.0e30", "1.1e30", "1.2e30", "1.3e30", "1.4e30", "1.5e30"]),
    ],
)
def test_ticks_are_round_numbers_within_the_range(low: float, high: float, labels: list[str]) -> None:
    found = ticks(low, high, 5)
    assert [label for _, label in found] == labels
    assert [float(label) for label in labels] == pytest.approx([n for n, _ in found], abs=1e-9 * (high - low))


def test_every_pixel_has_the_colour_of_its_level_and_the_first_row_lies_below() -> None:
    entries = levels(np.array([[0.0, 1.0], [np.nan, np.inf]]), 0.0, 1.0)
    assert entries.tolist() == [[LOWEST, HIGHEST], [OUTSIDE, OUTSIDE]]
    canvas = Canvas(6, 6)
    Panel(canvas, (1, 1, 5, 5), (0, 2), (0, 2)).paste(entries, 2, 2)
    assert [canvas.image.getpixel(at) for at in ((1, 4), (4, 4), (2, 1), (4, 2))] == [LOWEST, HIGHEST, OUTSIDE, OUTSIDE]
    shown = canvas.image.convert("RGB")
    assert shown.getpixel((1, 4)) == (0x44, 0x01, 0x54) and shown.getpixel((4, 4)) == (0xFD, 0xE7, 0x25)


def test_a_lone_bad_column_of_a_large_image_is_averaged_and_not_left_out() -> None:
    image = np.zeros((8, LARGEST + 2), np.float32)
    image[:, 5], image[:4, -1], image[:, 8:10] = 10, np.inf, np.nan
    small = averaged(image)
    assert small.shape == (4, LARGEST // 2 + 1) and small[:, 2].tolist() == [5.0] * 4
    assert np.isnan(small[:, 4]).all() and np.flatnonzero(np.isnan(small[0])).tolist() == [4] and small[0, -1] == 0


@pytest.mark.parametrize("values", [np.nan, 1.0, 1e30, [[0.0, np.nan], [1.0, 1e30]]])
def test_whatever_the_pixels_are_an_image_is_drawn(values: object, tmp_path: Path) -> None:
    image = np.broadcast_to(np.asarray(values, np.float32), (2, 2)).copy()
    low, high = limits(image)
    assert low < high
    draw(Shown(image, "a title", "ADU", "pixel", [("A", [0, 0, 1, 1]), ("B", [1, 0, 1, 1])]), tmp_path / "one.png")
    assert is_picture(tmp_path / "one.png")


def test_tables_are_drawn_and_defects_are_counted_once(tmp_path: Path) -> None:
    camera = cameras.load("LATISS").scaled(8)
    plain = camera.plain(camera.detector_ids())
    boxes = np.array(
        [(0, 0, 4, 2), (2, 0, 4, 2), (500, 499, 1, 1)], [(n, "i4") for n in ("X0", "Y0", "WIDTH", "HEIGHT")]
    )
    plane, bad = _mask(boxes, plain["types"]["ITL"]["size"], 8)
    assert (bad, plane.sum(), plane[0, 0], plane[62, 62]) == (13, 2, 1, 1)
    now = boxes.astype([(n, "i8") for n in ("x0", "y0", "width", "height")])
    rng, names = np.random.default_rng(1), ("GLOBAL_CTI", "DRIFT_SCALE")
    cti = np.zeros(16, [(f"{n}{end}", "f8") for n in names for end in ("", "_ERROR")] + [("EXPOSURES", "i4")])
    for name in cti.dtype.names or ():
        cti[name] = rng.random(16)
    cti["EXPOSURES"][:12] = 20
    before = cti.astype([(n, "f8") for n in ("CTI", "CTI_ERROR", "DRIFT", "DRIFT_ERROR", "EXPOSURES")])
    for picture, tables in (("boxes", (now, boxes)), ("amplifiers", (cti, before))):
        drawn = []
        for n, rows in enumerate(tables):  # of today, and of earlier versions
            path = tmp_path / f"{picture}{n}" / "it.png"
            path.parent.mkdir()
            draw_table(picture, {0: rows}, plain["detectors"], plain["types"], path, "a title")
            assert is_picture(path)
            drawn.append(path.read_bytes())
        assert drawn[0] == drawn[1]


def test_kernels_are_drawn_whether_they_are_valid_or_not(tmp_path: Path) -> None:
    k = np.zeros((3, 5, 5))
    k[:, 2, 2], k[:, 2, 1] = -1e-6, -3e-7
    rows = np.zeros(3, [("AMPLIFIER", "S3"), ("KERNEL", "f8", 25), ("MEAN_XCORRS", "f8", 25), ("VALID", bool)])
    rows["AMPLIFIER"], rows["KERNEL"], rows["VALID"] = [b"C00", b"C01", b"C02"], k.reshape(3, 25), [True, False, False]
    rows["MEAN_XCORRS"][:2, 12] = 3e-6  # the last one has no curve
    whole = np.zeros(1, [("DETECTOR", "S7"), ("KERNEL", "f8", 25)])
    whole["KERNEL"] = k[0].ravel()
    drawn = []
    for n, others in enumerate(((whole,), ())):
        path = tmp_path / str(n) / "it.png"
        path.parent.mkdir()
        potentials.draw_kernels(rows, others, path, "a title")
        assert is_picture(path)
        drawn.append(path.read_bytes())
    assert drawn[0] != drawn[1]
    shown = potentials.maps({4: rows}, "a title")
    np.testing.assert_allclose(shown["a00"].values[4], [-3, -3, np.nan])
    np.testing.assert_allclose(shown["centre"].values[4], [-1, np.nan, np.nan])


def test_a_title_tells_one_flat_from_another(tmp_path: Path) -> None:
    plan = plans.plan(tmp_path, [plans.gang(tmp_path, 2, 3, 1)], {}, 3, "r-1")
    words = title(plan, {"physical_filter": "r_03"}, "flatMosaic8")
    assert words == "Plain r_03 flatMosaic8\nrun r-1: 2 exposures of 2024-12-06, 3 detectors"
