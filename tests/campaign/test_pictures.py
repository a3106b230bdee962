"""Pictures: their subjects, the places of detectors, and that each kind can be drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from campaign.camera import model as cameras
from campaign.quality.drawing import Shown, draw, limits, places
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


@pytest.mark.parametrize("values", [np.nan, 1.0, [[0.0, np.nan], [1.0, 1e30]]])
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
    cti = np.zeros(16, [(n, "f8") for n in ("CTI", "CTI_ERROR", "DRIFT", "DRIFT_ERROR", "EXPOSURES")])
    cti["EXPOSURES"][:12] = 20
    for picture, rows in (("boxes", boxes), ("amplifiers", cti)):
        (tmp_path / picture).mkdir()
        draw_table(picture, {0: rows}, plain["detectors"], plain["types"], tmp_path / picture / "it.png", "a title")
        assert is_picture(tmp_path / picture / "it.png")


def test_a_title_tells_one_flat_from_another(tmp_path: Path) -> None:
    plan = plans.plan(tmp_path, [plans.gang(tmp_path, 2, 3, 1)], {}, 3, "r-1")
    words = title(plan, {"physical_filter": "r_03"}, "flatMosaic8")
    assert words == "Plain r_03 flatMosaic8\nrun r-1: 2 exposures of 2024-12-06, 3 detectors"
