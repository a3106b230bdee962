"""Calibrations that are tables: written tables are read back, for their own detector and no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest

from kernels.calibrations import crosstalk, cti, curves, defects, linearity, ptc
from kernels.camera import geometry
from kernels.camera.geometry import Box, Camera, Detector
from kernels.errors import DataError
from tests.kernels import tablesbefore
from tests.kernels.conftest import Lab

NAMES = ["C10", "C11", "C01", "C00"]
GAIN, NOISE = np.array([1.1, 1.2, 1.3, 1.4]), np.array([5.0, 6.0, 7.0, 8.0])
C0 = np.array([[0, 1, 2, 3], [4, 0, 5, 6], [7, 8, 0, 9], [10, 11, 12, 0]]) * 1e-5
C1 = -C0 * 1e-6
NODES = np.linspace(0, [5e4, 6e4, 7e4, 8e4], 9, axis=1)
VALUES = 300 * np.sin(NODES / 9000)
CTI = [[1e-6 * k, 1e-7, 1e-3 * k, 1e-4, 2.0 + k, 1e-6, 3] for k in range(4)]
BOXES = np.array([[0, 0, 1, 1], [3, 2, 10, 5], [8, 4, 40, 36], [47, 39, 1, 1]])


@pytest.fixture
def camera(lab: Lab) -> Camera:
    return geometry.camera(lab.camera())


def write(kind: str, path: Path, camera: Camera, detector: Detector, layout: str = "now") -> None:
    now: dict[str, Callable[..., None]] = {
        "crosstalk": crosstalk.write,
        "linearizer": linearity.write,
        "ptc": ptc.write,
        "cti": cti.write,
        "defects": defects.write,
    }
    values: dict[str, tuple[Any, ...]] = {
        "crosstalk": (C0, C1),
        "linearizer": (NODES, VALUES),
        "ptc": (GAIN, NOISE, np.full(4, 8e4)),
        "cti": (CTI,),
        "defects": (BOXES,),
    }
    (now[kind] if layout == "now" else getattr(tablesbefore, kind))(str(path), camera, detector, *values[kind])


def read(kind: str, path: Path, camera: Camera, detector: Detector) -> Any:
    readers: dict[str, Callable[[], Any]] = {
        "crosstalk": lambda: crosstalk.Crosstalk.open(str(path), camera, detector, True),
        "linearizer": lambda: linearity.Linearizer.open(str(path), camera, detector),
        "ptc": lambda: ptc.apply(str(path), camera, detector),
        "cti": lambda: cti.read(str(path), camera, detector),
        "defects": lambda: defects.Defects.open(str(path), camera, detector),
    }
    return readers[kind]()


KINDS = ("crosstalk", "linearizer", "ptc", "cti", "defects")
LAYOUTS = ("now", "before")


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_says_what_and_of_which_detector(kind: str, camera: Camera, tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    write(kind, path, camera, camera.detectors[1])
    header = fitsio.read_header(str(path))
    found = [str(header[key]).strip() for key in ("OBSTYPE", "INSTRUME", "DETECTOR", "DETNAME")]
    assert found == [kind, "Small", "1", "R22_S01"]
    with fitsio.FITS(str(path)) as fits:
        assert [hdu.get_extname() for hdu in fits] == ["", kind.upper(), "CTI2"][: 3 if kind == "cti" else 2]
        for hdu in fits:
            hdu.verify_checksum()
            assert "DATASUM" in hdu.read_header()
    again = tmp_path / "y.fits"
    write(kind, again, camera, camera.detectors[1])
    assert again.read_bytes() == path.read_bytes()


def spoil(path: Path, name: str, value: Any) -> None:
    """Set a card in both headers where it is."""
    with fitsio.FITS(str(path), "rw") as fits:
        for hdu in fits[:2] if name in fits[1].read_header() else fits[:1]:
            hdu.write_key(name, value)


def spoil_detector(path: Path) -> None:
    spoil(path, "DETECTOR", 7)


def spoil_one_header(path: Path) -> None:
    with fitsio.FITS(str(path), "rw") as fits:
        fits[0].write_key("DETECTOR", 7)


def spoil_camera(path: Path) -> None:
    spoil(path, "INSTRUME", "Large")


def spoil_kind(path: Path) -> None:
    spoil(path, "OBSTYPE", "bias")


def spoil_data(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"END     ", data.index(b"XTENSION")) // 2880 * 2880 + 2880 + 9] ^= 1
    path.write_bytes(data)


def spoil_data_and_its_sum(path: Path) -> None:
    spoil_data(path)
    data = path.read_bytes()
    at = data.index(b"DATASUM ", data.index(b"XTENSION"))
    path.write_bytes(data[:at] + b"DATASUL " + data[at + 8 :])


def spoil_unit(path: Path) -> None:
    """Another unit, or one where none belongs."""
    with fitsio.FITS(str(path), "rw") as fits:
        fits[1].write_key("TUNIT2", "mm")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4000])


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_detector, "is of detector 7 R22_S01 (DETECTOR, DET_NAME), the frames are of 1 R22_S01"),
        (spoil_camera, "is of Large (INSTRUME), the frames are of Small"),
        (spoil_kind, "is bias (OBSTYPE), which is none of crosstalk, defects, linearizer, ptc, cti, bfk"),
        (spoil_data, "HDU 1: corrupt, its data are not those of its DATASUM"),
        (spoil_data_and_its_sum, "HDU 1: corrupt, it has no DATASUM, and is not what its CHECKSUM says"),
        (spoil_unit, " is in mm (TUNIT), "),
        (cut_short, ""),
        (remove, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(
    kind: str, layout: str, spoil: Callable[[Path], None], said: str, camera: Camera, tmp_path: Path
) -> None:
    path = tmp_path / "x.fits"
    write(kind, path, camera, camera.detectors[1], layout)
    read(kind, path, camera, camera.detectors[1])
    spoil(path)
    with pytest.raises(DataError) as error:
        read(kind, path, camera, camera.detectors[1])
    assert str(path) in str(error.value) and said in error.value.why
    assert "\n" not in str(error.value)


def test_headers_that_disagree(camera: Camera, tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    write("ptc", path, camera, camera.detectors[1])
    spoil_one_header(path)
    with pytest.raises(DataError, match="its headers disagree: DETECTOR is 7 in the first, else 1"):
        read("ptc", path, camera, camera.detectors[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_before_is_read_as_one_of_today(kind: str, camera: Camera, tmp_path: Path) -> None:
    detector, paths = camera.detectors[1], [tmp_path / "now.fits", tmp_path / "before.fits"]
    for path, layout in zip(paths, LAYOUTS, strict=True):
        write(kind, path, camera, detector, layout)
    now, before = (read(kind, path, camera, detector) for path in paths)
    if kind == "linearizer":
        now, before = now.tables(), before.tables()
    for one, other in zip(*(vars(x).values() if hasattr(x, "__dict__") else x for x in (now, before)), strict=True):
        assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


@pytest.mark.parametrize("kind", ["crosstalk", "linearizer", "ptc", "cti"])
def test_amplifiers_of_another_detector_type(kind: str, camera: Camera, tmp_path: Path) -> None:
    detector, path = camera.detectors[1], tmp_path / "x.fits"
    write(kind, path, camera, detector)
    others = tuple(replace(a, name={"C11": "C12"}.get(a.name, a.name)) for a in detector.amplifiers)
    with pytest.raises(DataError, match="only the table has C11; only the camera has C12"):
        read(kind, path, camera, replace(detector, amplifiers=others))


def test_tables_in_another_order_of_amplifiers(camera: Camera, tmp_path: Path) -> None:
    """A file has its amplifiers in any order; the result has the camera's."""
    detector, path = camera.detectors[0], str(tmp_path / "x.fits")
    turned = replace(detector, amplifiers=detector.amplifiers[::-1])
    crosstalk.write(path, camera, turned, C0[::-1, ::-1], C1[::-1, ::-1])
    found = crosstalk.Crosstalk.open(path, camera, detector, True)
    assert np.array_equal(found.c0, C0.astype("f4")) and np.array_equal(found.c1, C1.astype("f4"))
    ptc.write(path, camera, turned, GAIN[::-1], NOISE[::-1], GAIN)
    assert [a.gain for a in ptc.apply(path, camera, detector).amplifiers] == list(GAIN)
    linearity.write(path, camera, turned, NODES[::-1], VALUES[::-1])
    assert [c.end for c in linearity.Linearizer.open(path, camera, detector).curves] == [5e4, 6e4, 7e4, 8e4]


# Crosstalk


def test_crosstalk_for_frames_in_another_unit(lab: Lab, camera: Camera, tmp_path: Path) -> None:
    path, adu = tmp_path / "x.fits", geometry.camera(lab.camera("adu"))
    write("crosstalk", path, adu, adu.detectors[0])
    assert read("crosstalk", path, adu, adu.detectors[0]).c0.any()
    with pytest.raises(
        DataError, match=r"is in adu \(CROSSTALK_RATIOS_UNITS\), the frames it is to correct are in electron"
    ):
        read("crosstalk", path, camera, camera.detectors[0])


def test_an_amplifier_that_is_its_own_source(camera: Camera, tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    crosstalk.write(str(path), camera, camera.detectors[0], C0, np.diag([0, 0, 1e-9, 0]))
    with pytest.raises(DataError, match="CT_COEFFS_SQR: amplifier C01 is a source of its own"):
        read("crosstalk", path, camera, camera.detectors[0])


def test_without_the_quadratic_part(camera: Camera, tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    write("crosstalk", path, camera, camera.detectors[0])
    found = crosstalk.Crosstalk.open(str(path), camera, camera.detectors[0], False)
    assert found.c0.any() and not found.c1.any() and found.c1.dtype == np.float32


def test_crosstalk_is_what_its_formula_says() -> None:
    rng = np.random.default_rng(2)
    signal = rng.uniform(-50, 9e4, (4, 7, 33)).astype("f4")
    c0, c1 = C0.astype("f4"), C1.astype("f4")
    x = signal.astype(float)
    expected = x.copy()
    for t in range(4):
        for s in range(4):
            expected[t] -= c0[t, s].astype(float) * x[s] + c1[t, s].astype(float) * x[s] ** 2
    assert np.abs(expected - x).max() > 10
    whole = signal.copy()
    crosstalk.correct(whole, c0, c1)
    np.testing.assert_allclose(whole, expected, rtol=0, atol=0.05)  # 9e4 in float32
    assert abs((whole - expected).mean()) < 1e-3
    parts = signal.copy()
    for first, last in ((0, 1), (1, 5), (5, 7)):  # row blocks change no bit
        block = parts[:, first:last].copy()
        crosstalk.correct(block, c0, c1)
        parts[:, first:last] = block
    assert np.array_equal(parts, whole)


def test_what_is_no_number_spreads_only_where_there_is_crosstalk() -> None:
    signal = np.ones((4, 2, 3), np.float32)
    signal[1, 1, 2] = np.nan
    c0 = np.zeros((4, 4), np.float32)
    c0[0, 1] = c0[3, 2] = 1e-3
    crosstalk.correct(signal, c0, np.zeros_like(c0))
    assert np.argwhere(np.isnan(signal)).tolist() == [[0, 1, 2], [1, 1, 2]]
    assert np.isclose(signal[3], 0.999).all() and (signal[2] == 1).all()


# Linearity


def akima(nodes: Any, values: Any, at: float) -> float:
    """Akima's spline in words of plain Python (J. ACM 17, 589, 1970), at one point."""
    m = [(values[i + 1] - values[i]) / (nodes[i + 1] - nodes[i]) for i in range(len(nodes) - 1)]
    first, last = [2 * m[0] - m[1]], [2 * m[-1] - m[-2]]
    m = [2 * first[0] - m[0], *first, *m, *last, 2 * last[0] - m[-1]]
    slopes = []
    for i in range(len(nodes)):
        a, b = abs(m[i + 3] - m[i + 2]), abs(m[i + 1] - m[i])
        slopes.append((a * m[i + 1] + b * m[i + 2]) / (a + b) if a + b else (m[i + 1] + m[i + 2]) / 2)
    i = min(int(np.searchsorted(nodes, at, "right")) - 1, len(nodes) - 2)
    h, u = nodes[i + 1] - nodes[i], at - nodes[i]
    p = m[i + 2]
    square, cubic = (3 * p - 2 * slopes[i] - slopes[i + 1]) / h, (slopes[i] + slopes[i + 1] - 2 * p) / h**2
    return float(values[i] + slopes[i] * u + square * u**2 + cubic * u**3)


@pytest.mark.parametrize("gain", [1.0, 1.7])
def test_linearity_is_what_its_spline_says(gain: float, camera: Camera, tmp_path: Path) -> None:
    path, rng = tmp_path / "x.fits", np.random.default_rng(3)
    write("linearizer", path, camera, camera.detectors[0])
    grid = read("linearizer", path, camera, camera.detectors[0]).tables()
    assert grid.values.dtype == np.float32 and len(grid.values) == 4
    for k in range(4):
        end = NODES[k, -1]
        adu = np.concatenate([rng.uniform(-100, 1.1 * end, 1500), NODES[k], NODES[k] + 1e-2, [0, -1e6, 2 * end]])
        signal = (adu * gain).astype(np.float32)[np.newaxis]
        exact = signal.astype(float) / gain
        wanted = [akima(NODES[k], VALUES[k], min(max(x, 0), end)) for x in exact[0]]
        assert max(wanted) > 250
        at_entries = np.interp(exact, np.arange(grid.values.shape[1]) * grid.step[k], grid.values[k])
        assert np.abs(at_entries - wanted).max() < 1e-3
        linearity.apply(signal, grid.values[k], grid.step[k], gain)
        # besides the table's error: three roundings of a float32 of this size
        bound = 1e-3 + 3 * np.spacing(np.abs(exact).astype("f4"))
        assert (np.abs(signal / gain - (exact - wanted)) <= bound).all()


def test_what_is_no_number_stays_so() -> None:
    signal = np.array([[np.nan, np.inf, 100.0]], np.float32)
    linearity.apply(signal, np.array([0, 5, 10], np.float32), 100.0, 1.0)
    assert np.isnan(signal[0, 0]) and signal[0, 1] == np.inf and signal[0, 2] == 95


def test_a_first_node_above_zero_starts_at_the_origin() -> None:
    nodes, values = np.array([10.0, 20.0, 40.0]), np.array([1.0, 4.0, 2.0])
    origin = curves.spline(np.array([0.0, 10.0, 20.0, 40.0]), np.array([0.0, 1.0, 4.0, 2.0]))
    at = np.linspace(0, 40, 99)
    assert np.array_equal(curves.spline(nodes, values)(at), origin(at))


@pytest.mark.parametrize(
    ("nodes", "values", "said"),
    [
        ([0, 10, 10, 20], [0, 1, 1, 2], "amplifier C01: its nodes do not ascend from 0"),
        ([-1, 0, 10, 20], [0, 0, 1, 1], "amplifier C01: its nodes do not ascend from 0"),
        ([0, 10, 20, 30], [1, 1, 1, 1], "amplifier C01: S(0) is 1 ADU, it must be 0"),
        ([0, 1, np.nan, 30], [0, 1, 1, 1], "column COEFFS holds a value that is no number"),
    ],
)
def test_splines_that_are_none(
    nodes: list[float], values: list[float], said: str, camera: Camera, tmp_path: Path
) -> None:
    path, good = str(tmp_path / "x.fits"), [0.0, 10.0, 20.0, 30.0]
    rows = np.array([good, good, nodes, good], float), np.array([[0.0] * 4] * 2 + [values] + [[0.0] * 4], float)
    linearity.write(path, camera, camera.detectors[0], *rows)
    with pytest.raises(DataError) as error:
        linearity.Linearizer.open(path, camera, camera.detectors[0])
    assert said in error.value.why


def test_a_spline_too_sharp_for_a_table(camera: Camera, tmp_path: Path) -> None:
    path, nodes = str(tmp_path / "x.fits"), np.tile([0, 1e-3, 2e-3, 1e5], (4, 1))
    linearity.write(path, camera, camera.detectors[0], nodes, np.tile([0.0, 1e-4, 0.0, 0.0], (4, 1)))
    with pytest.raises(DataError, match="too sharply to be tabulated"):
        linearity.Linearizer.open(path, camera, camera.detectors[0]).tables()


def test_a_deviation_as_large_as_the_signal_is_refused(camera: Camera, tmp_path: Path) -> None:
    path, nodes = str(tmp_path / "x.fits"), np.tile([0.0, 5e4, 1e5], (4, 1))
    linearity.write(path, camera, camera.detectors[0], nodes, np.tile([0.0, 1e5, 2e5], (4, 1)))
    with pytest.raises(DataError, match="amplifier C10: its deviation at .* ADU is 2 of the signal, which cannot be"):
        linearity.Linearizer.open(path, camera, camera.detectors[0])


def test_no_correction_at_all(camera: Camera, tmp_path: Path) -> None:
    path = str(tmp_path / "x.fits")
    linearity.write(path, camera, camera.detectors[0], NODES, np.zeros_like(NODES))
    grid = linearity.Linearizer.open(path, camera, camera.detectors[0]).tables()
    signal = np.array([[-5.0, 0.0, 1e5]], np.float32)
    linearity.apply(signal, grid.values[0], grid.step[0], 1.0)
    assert signal.tolist() == [[-5.0, 0.0, 1e5]]


# Defects


def test_defects_are_the_union_of_their_boxes(camera: Camera, tmp_path: Path) -> None:
    path, detector = tmp_path / "x.fits", camera.detectors[0]
    write("defects", path, camera, detector)
    found = read("defects", path, camera, detector)
    nx, ny = detector.size
    wanted = np.array([
        [any(x0 <= x < x0 + w and y0 <= y < y0 + h for x0, y0, w, h in BOXES) for x in range(nx)] for y in range(ny)
    ])  # fmt: skip
    assert 0 < wanted.sum() < wanted.size
    assert np.array_equal(found.mask(Box(0, 0, nx, ny)), wanted)
    for box in (Box(0, 0, 5, 5), Box(5, 3, 20, 9), Box(30, 0, 18, 4), Box(46, 38, 2, 2)):
        assert np.array_equal(found.mask(box), wanted[box.slices]), box


def test_a_detector_without_defects(camera: Camera, tmp_path: Path) -> None:
    path, detector = tmp_path / "x.fits", camera.detectors[0]
    defects.write(str(path), camera, detector, np.zeros((0, 4), int))
    assert not read("defects", path, camera, detector).mask(Box(0, 0, *detector.size)).any()


@pytest.mark.parametrize("box", [(-1, 0, 2, 2), (0, 39, 1, 2), (47, 0, 2, 1), (3, 3, 0, 1), (3, 3, 1, -1)])
def test_a_box_that_is_not_on_the_detector(box: tuple[int, ...], camera: Camera, tmp_path: Path) -> None:
    path, detector = tmp_path / "x.fits", camera.detectors[0]
    defects.write(str(path), camera, detector, np.array([[0, 0, 1, 1], box]))
    x0, y0, nx, ny = box
    with pytest.raises(DataError) as error:
        read("defects", path, camera, detector)
    assert f"the box of {nx} x {ny} pixels at ({x0}, {y0}) is not on the detector of 48 x 40" in error.value.why


# Gains and read noises


def test_a_ptc_takes_the_place_of_gains_and_noises(camera: Camera, tmp_path: Path) -> None:
    path, detector = tmp_path / "x.fits", camera.detectors[0]
    write("ptc", path, camera, detector)
    found = read("ptc", path, camera, detector)
    assert [a.gain for a in found.amplifiers] == list(GAIN) and [a.read_noise for a in found.amplifiers] == list(NOISE)
    assert [a.gain for a in detector.amplifiers] != list(GAIN)
    back = tuple(
        replace(a, gain=b.gain, read_noise=b.read_noise)
        for a, b in zip(found.amplifiers, detector.amplifiers, strict=True)
    )
    assert replace(found, amplifiers=back) == detector  # and nothing else


@pytest.mark.parametrize(
    ("gain", "noise"), [(0.0, 5.0), (-1.0, 5.0), (1.0, -0.1), (1e300, 5.0), (1e-30, 5.0), (1.0, 1e300)]
)
def test_gains_and_noises_that_cannot_be(gain: float, noise: float, camera: Camera, tmp_path: Path) -> None:
    path, detector = str(tmp_path / "x.fits"), camera.detectors[0]
    ptc.write(path, camera, detector, np.array([1, 1, gain, 1.0]), np.array([5, 5, noise, 5.0]), np.ones(4))
    with pytest.raises(DataError, match="amplifier C01: gain .* cannot be"):
        ptc.apply(path, camera, detector)


def test_a_table_of_before_without_a_column(camera: Camera, tmp_path: Path) -> None:
    path, detector = str(tmp_path / "x.fits"), camera.detectors[0]
    tablesbefore.write("ptc", path, camera, detector, {"GAIN": GAIN})
    with pytest.raises(DataError, match="has no column NOISE; it has AMPLIFIER, GAIN"):
        ptc.apply(path, camera, detector)
