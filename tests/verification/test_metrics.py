"""Statistics against plain numpy; what registers, what a dead amplifier gives, and rows on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from campaign.verification import known, parquet
from campaign.verification import rows as read
from campaign.verification.rows import Rows, RowsUnreadable
from kernels.calibrations import isrfiles
from kernels.calibrations.config import IsrConfig
from kernels.camera.geometry import Box
from kernels.errors import DataError
from kernels.isr import framenoise
from kernels.simulation.truthproducts import write_cti, write_defects, write_linearizer, write_ptc
from kernels.verification import evaluate, images, measure, metric, pairs, stack, tables, warm  # noqa: F401  (they register metrics)
from kernels.verification import frame as framed
from kernels.verification import parquet as writing
from kernels.verification import rows as made
from kernels.verification.applied import CONSTRUCTION, Applied, Components, Light, expectation, shot
from tests.verification.darkroom import Darkroom

#: f^2 of a clipped mean of 20.
SQUARE = framenoise.inefficiency(20) ** 2


def clipped(pixels: Any, nsigma: float = 5.0) -> Any:
    """Clip as the definition says, from median and quartiles of all."""
    good = pixels[np.isfinite(pixels)].astype(np.float64)
    low, centre, high = np.percentile(good, (25, 50, 75))
    sigma, kept = 0.7413 * (high - low), good
    for _ in range(3):
        kept = good[np.abs(good - centre) <= nsigma * sigma]
        centre, sigma = kept.mean(), kept.std(ddof=1)
    return kept


def test_statistics_are_those_of_numpy() -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(100, 7, (80, 96)).astype(np.float32)
    image[rng.random(image.shape) < 0.01] = np.nan
    image[5, 5], image[50, 80] = 1e4, -1e4
    boxes = [Box(0, 0, 48, 40), Box(48, 0, 48, 40), Box(0, 40, 96, 40)]
    found = measure.measure(image, boxes, 16)
    for k, box in enumerate(boxes):
        pixels = image[box.slices]
        good, kept = pixels[np.isfinite(pixels)].astype(np.float64), clipped(pixels)
        wanted = [good.size, good.mean(), good.std(ddof=1), kept.size, kept.mean(), kept.std(ddof=1)]
        assert found.numbers[k, measure.TAIL] == good.size - kept.size
        np.testing.assert_allclose(found.numbers[k, : measure.TAIL], wanted, rtol=1e-9)
        inside = np.where((pixels >= kept.min()) & (pixels <= kept.max()), pixels, np.nan).astype(np.float64)
        np.testing.assert_allclose(found.rows[k], np.nanmean(inside, axis=1), rtol=1e-9)
        np.testing.assert_allclose(found.columns[k], np.nanmean(inside, axis=0), rtol=1e-9)
        np.testing.assert_allclose(found.bins[k][0, 0], np.nanmean(inside[:16, :16]), rtol=1e-9)
        last = found.bins[k].shape
        np.testing.assert_allclose(
            found.bins[k][-1, -1], np.nanmean(inside[(last[0] - 1) * 16 :, (last[1] - 1) * 16 :]), rtol=1e-9
        )


def test_overscans_are_those_of_numpy() -> None:
    rows = np.random.default_rng(2).integers(20000, 20100, (12, 20)).astype(np.int32)
    found = measure.serial(rows, 3)
    np.testing.assert_allclose(found.levels, rows[:, 3:].mean(axis=1))
    np.testing.assert_allclose(found.variances, rows[:, 3:].var(axis=1, ddof=1))
    np.testing.assert_allclose(found.columns, rows.mean(axis=0))


def one(value: float) -> Components:
    return Components(*(np.array([value * part]) for part in (1.0, 0.03, 0.02, 0.0)))


def test_errors_of_means_and_variances_are_those_of_a_simulation() -> None:
    rng, (ny, nx) = np.random.default_rng(3), (20, 30)
    parts = Components(*(np.array([v]) for v in (4.0, 0.5, 0.7, 0.3)))
    noise = rng.normal(0, 2.0, (4000, ny, nx)) + rng.normal(0, 0.5**0.5, (4000, ny, 1))
    noise += rng.normal(0, 0.7**0.5, (4000, 1, nx)) + rng.normal(0, 0.3**0.5, (4000, 1, 1))
    n = np.array([ny * nx])
    assert noise.mean(axis=(1, 2)).var() == pytest.approx(float(parts.mean(ny, nx, n)[0]), rel=0.08)
    variance = noise.reshape(4000, -1).var(axis=1, ddof=1)
    assert variance.mean() == pytest.approx(float(parts.within(ny, nx, n)[0]), rel=0.01)
    assert variance.var() == pytest.approx(float(parts.of_variance(ny, nx, n)[0]), rel=0.1)


def test_products_add_noise_to_other_frames_and_take_it_from_their_own() -> None:
    nothing = Light(np.zeros(1), np.zeros(1), np.zeros(1), 30.0)
    bias, dark = Applied("bias", tuple(range(20))), Applied("dark", tuple(range(50, 70)), (30.0,) * 20)
    own = expectation(one(1.0), nothing, 3, [bias])
    other = expectation(one(1.0), nothing, 99, [bias])
    assert bias.role(3) == CONSTRUCTION
    assert float(own.whole.pixel[0]) == pytest.approx(1 - (2 - SQUARE) / 20)
    assert float(other.whole.pixel[0]) == pytest.approx(1 + SQUARE / 20)
    assert [float(part.whole.row[0]) for part in (own, other)] == pytest.approx([0.03 * 0.95, 0.03 * 1.05])
    same = expectation(one(1.0), nothing, 99, [bias, dark])  # the bias that the dark had subtracted comes back
    assert float(same.whole.pixel[0]) == pytest.approx(1 + SQUARE / 20)
    short = expectation(one(1.0), Light(np.zeros(1), np.zeros(1), np.zeros(1), 15.0), 99, [bias, dark])
    assert float(short.whole.pixel[0]) == pytest.approx(1 + SQUARE / 20 * (0.25 + 0.25))


def test_shot_noise_is_less_by_the_brighter_fatter_effect() -> None:
    light = np.array([0.0, 1000.0, 50000.0])
    np.testing.assert_allclose(shot(light), light)
    found = shot(light, np.full(3, -2e-6))
    np.testing.assert_allclose(found, [0, 998.0, 45317.3], rtol=1e-4)
    np.testing.assert_allclose(shot(light, np.full(3, np.nan)), light, rtol=1e-6)


def test_every_metric_is_a_test_that_limits_can_name() -> None:
    registered = {(name, one.unit, one.model, of) for of, each in metric.REGISTRY.items() for name, one in each.items()}
    named = {
        (name, test.unit, test.model, of) for name, test in known.TESTS.items() for of in test.of if of != known.DERIVED
    }
    assert registered == named
    assert {kind for each in metric.REGISTRY.values() for one in each.values() for kind in one.kinds} == {*known.KINDS}
    assert all(one.about for each in metric.REGISTRY.values() for one in each.values())


def test_a_metric_is_registered_once_and_needs_what_there_is() -> None:
    for name, needs in (("MEAN", ()), ("NEW", ("luck",))):
        with pytest.raises(ValueError, match=name):
            metric.metric(name, "", needs=needs)(lambda frame: metric.Values(0.0))


def frame_of(unit: str = "electron", **more: Any) -> framed.Frame:
    room = Darkroom(detectors=(4,))
    detector, raws = room.camera.detectors[4], room.expose(4, 1, more.get("kind", "bias"), more.pop("exposed", 0.0))
    image, saturated = room.correct(detector, raws, unit=unit)
    image[detector.amplifiers[3].target.slices] = np.nan
    raw = [framed.overscans(one, a) for one, a in zip(raws, detector.amplifiers, strict=True)]
    plain: dict[str, Any] = {"kind": "bias", "raw": raw, "saturated": saturated, "scale": 16, "unit": unit} | more
    return framed.Frame(exposure=1, detector=detector, image=image, isr=IsrConfig(parallel=True), **plain)


def test_a_dead_amplifier_has_rows_without_a_value() -> None:
    rows = evaluate.evaluate(frame_of())
    assert set(rows) == set(made.COLUMNS) and len({len(column) for column in rows.values()}) == 1
    dead = rows["amplifier"] == "C13"
    by_name = dict(zip(rows["metric"][dead].tolist(), rows["value"][dead].tolist(), strict=True))
    assert np.isnan([by_name[name] for name in ("MEAN", "NOISE", "AMP_CORNER", "STRUCTURE", "CR_NOISE")]).all()
    assert by_name["MASKED"] == 1 and np.isfinite(by_name["READ_NOISE"])
    live = rows["amplifier"] != "C13"
    assert np.isfinite(rows["value"][live]).all()
    for metric_ in set(rows["metric"].tolist()):
        of = rows["metric"] == metric_
        assert np.count_nonzero(of) in (1, 16)


@pytest.mark.parametrize("kind", ["bias", "flat"])
def test_frames_in_adu_have_the_same_errors(kind: str) -> None:
    electron, adu = (evaluate.evaluate(frame_of(unit, kind=kind, exposed=5.0)) for unit in ("electron", "adu"))
    gains = {a.name: a.gain for a in Darkroom(detectors=(4,)).camera.detectors[4].amplifiers}
    some = electron["metric"] == "NOISE"
    gain = np.array([gains[name] for name in electron["amplifier"][some]])
    for column, power in (("value", 1), ("expected", 1), ("variance", 2)):
        np.testing.assert_allclose(adu[column][some] * gain**power, electron[column][some], rtol=1e-4)


def test_what_is_not_at_hand_is_left_out() -> None:
    rows = evaluate.evaluate(frame_of(raw=None, saturated=None))
    assert not {"READ_NOISE", "BIAS_SHIFT", "SATURATED", "UNIT", "RATE"} & set(rows["metric"].tolist())
    with pytest.raises(DataError, match="two exposures"):
        pairs.paired(frame_of(kind="flat"), frame_of(kind="flat"))


def test_tables_as_they_are_written_are_measured(tmp_path: Path) -> None:
    room, path = Darkroom(detectors=(4,), rates={"nonlinearity": 0.01, "cti": 1e-6}), str(tmp_path / "table.fits")
    detector, truth = room.camera.detectors[4], room.truths[4]
    writers = {"ptc": write_ptc, "linearizer": write_linearizer, "cti": write_cti, "defects": write_defects}
    found: dict[str, dict[str, list[float]]] = {}
    for kind, write in writers.items():
        Path(path).unlink(missing_ok=True)
        write(path, room.camera, truth, room.settings, [])
        rows = tables.tabled(tables.Table.of(isrfiles.read(path), detector))
        assert set(rows["kind"].tolist()) == {kind} and set(rows["role"].tolist()) == {"table"}
        names = sorted(set(rows["metric"].tolist()))
        found[kind] = {name: rows["value"][rows["metric"] == name].tolist() for name in names}
    assert list(found["ptc"]) == ["BAD_AMP", "NUMBERS", "PTC_GAIN", "PTC_NOISE", "PTC_TURNOFF"]  # no a00 was fitted
    assert found["ptc"]["PTC_GAIN"] == pytest.approx([0] * 16) and found["ptc"]["NUMBERS"] == [0] * 16
    assert found["ptc"]["PTC_TURNOFF"] == pytest.approx([1.05 * 129000] * 16)
    assert found["linearizer"] == {"NUMBERS": [0] * 16} and found["cti"] == {"NUMBERS": [0] * 16}
    share = [float((truth.hot | truth.dead)[a.target.slices].mean()) for a in detector.amplifiers]
    assert found["defects"]["FRAC"] == pytest.approx(share)


def test_inputs_are_read_from_a_products_header() -> None:
    header = {"NINPUTS": 2, "CPP_INPUT_0": 7, "CPP_INPUT_1": 9, "CPP_INPUT_SCALE_0": 30.0, "CPP_INPUT_SCALE_1": 15.0}
    dark, bias = Applied.of("dark", header), Applied.of("bias", header)
    assert (dark.inputs, dark.scales, bias.scales) == ((7, 9), (30.0, 15.0), ())
    assert [dark.role(e) for e in (7, 8)] == ["construction", "independent"]


@pytest.mark.parametrize(("camera", "number"), [("LATISS", 0), ("LSSTCam", 94), ("EFOSC2", 0), ("STL1001E", 0)])
@pytest.mark.parametrize("kind", ["bias", "flat"])
def test_frames_of_every_camera_are_measured(camera: str, number: int, kind: str) -> None:
    """Overscans on either side or none, one amplifier or many, ADU or electrons."""
    room = Darkroom(name=camera, detectors=(number,), scale=16)
    detector, unit = room.camera.detectors[number], room.camera.unit
    raws = room.expose(number, 1, kind, 1.0 if kind == "flat" else 0.0)
    has = detector.amplifiers[0].serial_overscan is not None
    isr = {"parallel": False, "serial": "median" if has else "none"}
    image, saturated = room.correct(detector, raws, isr=isr, unit=unit)
    raw = [framed.overscans(one, a) for one, a in zip(raws, detector.amplifiers, strict=True)]
    config = IsrConfig.from_plain(isr)
    frame = framed.Frame(1, kind, detector, image, config, 16, unit, raw=raw, saturated=saturated)
    rows = evaluate.evaluate(frame)
    assert np.isfinite(rows["value"]).all(), rows["metric"][~np.isfinite(rows["value"])]
    there, several = set(rows["metric"].tolist()), len(detector.amplifiers) > 3
    assert ("READ_NOISE" in there) == (has and kind == "bias") and ("STEP" in there) == (several and kind == "flat")
    assert ("GRADIENT_X" in there) == several
    assert np.isfinite(stack.stacked([stack.share(frame)])["value"]).all()


def test_an_amplifier_between_dead_ones_is_not_blamed() -> None:
    image = frame_of(kind="flat", exposed=5.0).image
    frame = frame_of(kind="flat", exposed=5.0)
    for amplifier in frame.detector.amplifiers:
        if amplifier.name in ("C11", "C13"):
            image[amplifier.target.slices] = np.nan
    rows = evaluate.evaluate(replace(frame, image=image))
    steps = {a: v for m, a, v in zip(rows["metric"], rows["amplifier"], rows["value"], strict=True) if m == "STEP"}
    assert np.isnan([steps["C11"], steps["C13"]]).all() and steps["C12"] == 0 and np.isfinite(steps["C14"])


def test_rows_are_read_back_from_parquet(tmp_path: Path) -> None:
    assert (set(read.TEXTS), {*read.WHOLE, *read.NUMBERS}) == (
        {name for name, kind in made.COLUMNS.items() if kind == "U"},
        {name for name, kind in made.COLUMNS.items() if kind != "U"},
    )
    rows, path = evaluate.evaluate(frame_of()), tmp_path / "rows.parquet"
    writing.write(str(path), rows)
    found, plain = parquet.read(path), Rows.of(rows)
    for name in (*read.TEXTS, *read.WHOLE, *read.NUMBERS):
        one, other = getattr(found, name), getattr(plain, name)
        if name in read.TEXTS:
            assert one.list() == other.list()
        else:
            np.testing.assert_array_equal(one, other)
    with pytest.raises(FileExistsError):
        writing.write(str(path), rows)
    with pytest.raises(ValueError, match="one length"):
        writing.write(str(tmp_path / "short"), {**rows, "value": rows["value"][:3]})


def test_a_file_that_is_no_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 this is none")
    with pytest.raises(RowsUnreadable, match="cannot be read"):
        parquet.read(path)
    path.unlink()
    monkeypatch.setattr(writing, "VERSION", 2)
    writing.write(str(path), evaluate.evaluate(frame_of()))
    with pytest.raises(RowsUnreadable, match="version 2"):
        parquet.read(path)


def test_all_that_is_compiled_is_warmed() -> None:
    warm.compile_all()
    assert all(one.signatures for one in (measure._moments, measure._amplifier, measure._overscan))
