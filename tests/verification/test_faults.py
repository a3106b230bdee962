"""The faults of docs/verification.md: each is caught, and named by the right test, detector and amplifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from campaign.verification import rows
from campaign.verification.lines import Line, Verdict
from campaign.verification.rows import Rows
from kernels.calibrations.config import IsrConfig
from kernels.calibrations.crosstalk import Crosstalk
from kernels.calibrations.curves import curve
from kernels.calibrations.linearity import Linearizer
from kernels.camera.focalplane import radius_mm
from kernels.camera.geometry import Amplifier, Detector
from kernels.simulation.truth import Truth
from kernels.transfer import crosstalkfit, crosstalkpixels
from kernels.verification import applied, images, pairs, tables
from kernels.verification.frame import Header
from tests.verification.darkroom import ISR, Darkroom, Held, Raws, combine
from tests.verification.nights import SECONDS, Night, measured, named

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
#: Detector and amplifier of most faults.
BAD, AMPLIFIER, NAME = 4, "C05", "R22_S11"
PLACE = f"{NAME} {AMPLIFIER}"
Named = set[tuple[str, str]]


@pytest.fixture(scope="module")
def night() -> Night:
    """Three detectors, in good order."""
    return Night(Darkroom(seed=3, detectors=(3, 4, 5)))


def detector(night: Night) -> Detector:
    return night.room.camera.detectors[BAD]


def amplifier(night: Night, name: str = AMPLIFIER) -> Amplifier:
    return next(a for a in detector(night).amplifiers if a.name == name)


def number(night: Night, name: str = AMPLIFIER) -> int:
    return [a.name for a in detector(night).amplifiers].index(name)


def now(night: Night, **changes: Any) -> Darkroom:
    """The camera in another state than when its products were made."""
    rates = {**night.room.rates, **changes.pop("rates", {})}
    return replace(night.room, rates=rates, **changes)


def altered(night: Night, change: Callable[[Truth], Mapping[str, Any]], only: int | None = BAD) -> Darkroom:
    """Change the truth, of one detector or of all."""

    def alter(truth: Truth) -> Truth:
        return truth if only not in (None, truth.detector.id) else replace(truth, **change(truth))

    return now(night, alter=alter)


def later(night: Night, kind: str, n: int = 20, detectors: tuple[int, ...] = (BAD,), **more: Any) -> Rows:
    return night.rows(kind, night.later(kind, n), detectors, **more)


def dimmed(night: Night, box: Any, factor: float) -> Darkroom:
    """Change the response in a box (y, x slices) of the detector."""

    def change(truth: Truth) -> Mapping[str, Any]:
        image = truth.response["r_03"].copy()
        image[box] *= np.float32(factor)
        return {"response": {**truth.response, "r_03": image}}

    return altered(night, change)


def raised(night: Night, rows_: slice, columns: slice, adu: Any) -> Callable[[Raws], Raws]:
    """Add to a part of one amplifier's raw image."""

    def change(raws: Raws) -> Raws:
        raws[number(night)][rows_, columns] += np.asarray(adu, np.int32)
        return raws

    return change


def ptc(night: Night, d: int = BAD, **columns: F64) -> Rows:
    """Measure a ptc like the camera file's, but for some columns."""
    amplifiers = night.room.camera.detectors[d].amplifiers
    gain = np.array([a.gain for a in amplifiers])
    plain: dict[str, Any] = {
        "GAIN": gain,
        "NOISE": np.array([a.read_noise for a in amplifiers]),
        "PTC_TURNOFF": 1.2e5 / gain,
        "A_MATRIX": np.full((len(gain), 4), -1.7e-6),
    }
    return Rows.of(tables.tabled(tables.Table("ptc", night.room.camera.detectors[d], {**plain, **columns})))


def with_one(values: F64, k: int, value: float) -> F64:
    changed = values.copy()
    changed[k] = value
    return changed


def column(night: Night, name: str) -> F64:
    return np.array([getattr(a, name) for a in detector(night).amplifiers])


# ---- tables


def gain_of_one(night: Night) -> list[Line]:
    gain = column(night, "gain")
    return night.judge(ptc(night, GAIN=with_one(gain, number(night), 1.06 * gain[number(night)])))


def gain_of_all(night: Night) -> list[Line]:
    gains = {d: np.array([a.gain for a in night.room.camera.detectors[d].amplifiers]) for d in (3, 4, 5)}
    return night.judge(*(ptc(night, d, GAIN=0.94 * gain) for d, gain in gains.items()))


def noise_of_bad(night: Night) -> list[Line]:
    return night.judge(ptc(night, NOISE=with_one(column(night, "read_noise"), number(night), 18.5)))


def noise_too_small(night: Night) -> list[Line]:
    return night.judge(ptc(night, NOISE=with_one(column(night, "read_noise"), number(night), 0.5)))


def turnoff(night: Night) -> list[Line]:
    gain = column(night, "gain")
    return night.judge(ptc(night, PTC_TURNOFF=with_one(1.2e5 / gain, number(night), 85e3 / gain[number(night)])))


def a00(night: Night) -> list[Line]:
    matrix = np.full((len(detector(night).amplifiers), 4), -1.7e-6)
    matrix[number(night), 0] = 1e-8
    return night.judge(ptc(night, A_MATRIX=matrix))


def frac(night: Night) -> list[Line]:
    box = amplifier(night).target
    rows_ = -(-0.021 * box.ny // 1)
    columns = {"x0": [box.x0], "y0": [box.y0], "width": [box.nx], "height": [-rows_ if rows_ < 0 else rows_]}
    arrays = {name: np.array(value, np.int64) for name, value in columns.items()}
    return night.judge(Rows.of(tables.tabled(tables.Table("defects", detector(night), arrays))))


# ---- electronics


def gain_step(night: Night) -> list[Line]:
    room = now(night, rates={"gain_steps": {f"{NAME}_{AMPLIFIER}": [20241208, 1.07]}})
    frames = night.frames("flat", night.later("flat", 40), [BAD], room=room)
    return night.judge(*(Rows.of(pairs.paired(*frames[k : k + 2])) for k in range(0, 40, 2)))


def small_gain_step(night: Night) -> list[Line]:
    room = now(night, rates={"gain_steps": {f"{NAME}_{AMPLIFIER}": [20241208, 1.005]}})
    return night.judge(later(night, "flat", 10, room=room))


def noisier(factor: float) -> Callable[[Night], list[Line]]:
    def fault(night: Night) -> list[Line]:
        return night.judge(later(night, "bias", room=now(night, noises={(BAD, AMPLIFIER): factor})))

    return fault


def noisy_exposure(night: Night) -> list[Line]:
    room = now(night, noises={(BAD, a.name): 1.3 for a in detector(night).amplifiers})
    frames = night.frames("bias", night.later("bias", 10), [BAD])
    odd = night.frame("bias", BAD, 1900, room=room)
    found = night.judge(measured([*frames, odd]))
    assert {line.worst for line in found if line.test == "NOISE" and line.verdict is Verdict.FAIL} == {1900}
    return found


def noise_with_signal(night: Night) -> list[Line]:
    return night.judge(later(night, "flat", room=now(night, noises={(BAD, AMPLIFIER): 1.2}), electrons=50e3))


def shifted(night: Night) -> list[Line]:
    half = amplifier(night).data.ny // 2
    return night.judge(later(night, "bias", raws=raised(night, slice(half, None), slice(None), 6)))


def corner(night: Night) -> list[Line]:
    side, first = 200 // night.room.scale, amplifier(night).data.x0
    return night.judge(later(night, "bias", raws=raised(night, slice(side), slice(first, first + side), 4)))


def pattern(night: Night) -> list[Line]:
    data = amplifier(night).data
    adu = np.rint(np.random.default_rng(1).normal(0, 1, data.nx))
    return night.judge(later(night, "bias", raws=raised(night, slice(data.ny), slice(data.x0, data.x1), adu)))


def pick_up(night: Night) -> list[Line]:
    rng, (one, other) = np.random.default_rng(2), (number(night, "C10"), number(night, "C12"))

    def change(raws: Raws) -> Raws:
        common = 1.6 * rng.standard_normal(raws[one].shape)
        for k in (one, other):
            raws[k] += np.rint(common + rng.uniform(-0.5, 0.5, common.shape)).astype(np.int32)
        return raws

    return night.judge(later(night, "bias", raws=change))


def jump(night: Night) -> list[Line]:
    frames = night.frames("bias", night.later("bias", 5), [BAD])
    return night.judge(measured([*frames, night.frame("bias", BAD, 1900, jump=110.0)]))


def curves(night: Night, room: Darkroom, swapped: bool = False) -> Any:
    of = room.truths[BAD].electronics
    order = list(range(len(of.nodes)))
    if swapped:
        i, j = number(night, "C10"), number(night, AMPLIFIER)
        order[i], order[j] = order[j], order[i]
    return Linearizer(
        "held in memory", [curve("Spline", np.concatenate([of.nodes[k], of.values[k]])) for k in order]
    ).tables()


LADDER = (3e3, 8e3, 15e3, 25e3, 35e3, 45e3, 60e3, 75e3, 90e3)


def ladder(night: Night, room: Darkroom, **also: Any) -> Rows:
    exposures = night.later("flat", len(LADDER))
    frames = [
        night.frame("flat", BAD, e, room=room, electrons=light, also=also)
        for e, light in zip(exposures, LADDER, strict=True)
    ]
    return rows.join([measured(frames)]).named("MAX_RESIDUAL_ERROR")


def bent(night: Night) -> list[Line]:
    found = night.judge(ladder(night, now(night, rates={"nonlinearity": 0.012})))
    assert all(line.verdict is Verdict.PASS for line in night.judge(ladder(night, night.room)))
    return found


def swapped(night: Night) -> list[Line]:
    room = now(night, rates={"nonlinearity": 0.012})
    right = night.judge(ladder(night, room, linearity=curves(night, room)))
    assert all(line.verdict is Verdict.PASS for line in right)
    return night.judge(ladder(night, room, linearity=curves(night, room, swapped=True)))


def half_cti(night: Night) -> list[Line]:
    room = now(night, rates={"cti": 6e-6})
    right = room.truths[BAD].electronics.deferrals
    for deferrals in (right, [replace(one, cti=one.cti / 2) for one in right]):
        also = {"deferrals": deferrals}
        found = night.judge(later(night, "flat", 20, room=room, electrons=60e3, also=also).named("CTI"))
        if deferrals is right:
            assert all(line.verdict is Verdict.PASS for line in found)
    return found


def spots(night: Night, room: Darkroom, c0: F64, c1: F64, lit: tuple[int, int]) -> list[Line]:
    """Correct frames with spots in two amplifiers by coefficients [target, source], and fit what is left."""
    use, rule = detector(night), crosstalkpixels.Rule(bright=2e4, grow=3, box=16)
    held: dict[str, Any] = {"bias": night.products.bias[BAD], "defects": night.products.defects[BAD]}
    held["crosstalk"] = Crosstalk(c0.astype(np.float32), c1.astype(np.float32))
    parts = []
    for k in range(24):
        raws = room.expose(BAD, 5000 + k, "science", 5.0, physical_filter="r_03", lamp=0.0, spots=6, lit=lit[k % 2])
        image, _ = room.correct(use, raws, 5.0, **held)
        signals = np.stack([
            image[a.target.slices][:: -1 if a.flip_y else 1, :: -1 if a.flip_x else 1] for a in use.amplifiers
        ])  # fmt: skip
        parts.append(crosstalkpixels.collect(signals, np.isfinite(signals), column(night, "read_noise"), rule))
    fitted = crosstalkfit.fit(parts, crosstalkfit.Rule(quadratic=False))
    found = night.judge(Rows.of(tables.coupled(tables.Left(use, fitted))))
    assert len(found) >= 2 * (len(use.amplifiers) - 1)
    return found


def coupling(change: Callable[[F64, int, int], None]) -> Callable[[Night], list[Line]]:
    def fault(night: Night) -> list[Line]:
        room = now(night, rates={"crosstalk": 2e-4, "cosmic_rays": 0.0, "spot_peak": [6e4, 1.1e5]})
        lit, gains = (number(night, "C15"), number(night, "C16")), column(night, "gain")
        of = room.truths[BAD].electronics
        c0, c1 = of.c0 * gains[:, np.newaxis] / gains, of.c1 * gains[:, np.newaxis] / gains**2
        assert all(line.verdict is Verdict.PASS for line in spots(night, room, c0, c1, lit))
        change(c0, lit[1], lit[0])
        return spots(night, room, c0, c1, lit)

    return fault


def weaker(c0: F64, t: int, s: int) -> None:
    c0[t, s] *= 0.8


def transposed(c0: F64, t: int, s: int) -> None:
    """Exchange two coefficients that differ by a third."""
    c0[t, s], c0[s, t] = c0[s, t], c0[t, s]


# ---- products


def changed_bias(night: Night) -> list[Line]:
    def change(image: F32) -> F32:
        image[amplifier(night).target.slices] += np.float32(1.2)
        return image

    products = night.products.changed("bias", BAD, change)
    inputs = night.rows("bias", night.ids("bias"), [BAD], products=products)
    return night.judge(inputs, later(night, "bias", products=products))


def other_bias(night: Night) -> list[Line]:
    other = Night(replace(night.room, seed=99, detectors=(BAD,)))
    raws = [other.expose("bias", BAD, e) for e in range(1, 21)]
    held = combine([other.room.correct(detector(night), one)[0] for one in raws], range(901, 921))
    return night.judge(later(night, "bias", products=replace(night.products, bias={BAD: held})))


def pictured(night: Night, kind: str, held: Held, n: int, **more: Any) -> Rows:
    scales = {"dark": (SECONDS["dark"],) * n, "bias": (), "flat": night.products.light}[kind]
    made_of = applied.Applied(kind, tuple(range(n)), scales)
    isr = IsrConfig.from_plain(dict(ISR))
    image = images.Image(kind, detector(night), held.image, held.variance, held.bad, None, isr, made_of)
    return Rows.of(images.pictured(replace(image, **more)))


def few_inputs(night: Night) -> list[Line]:
    use = detector(night)
    raws = [night.expose("bias", BAD, e) for e in night.ids("bias")[:3]]
    right = pictured(night, "bias", night.products.bias[BAD], 20)
    assert all(line.verdict is Verdict.PASS for line in night.judge(right))
    return night.judge(pictured(night, "bias", combine([night.room.correct(use, one)[0] for one in raws]), 3))


def lit_bias(night: Night) -> list[Line]:
    detectors = (3, 4, 5)
    frames = night.frames("bias", night.later("bias", 10), detectors)
    odd = [night.frame("bias", d, 1900, seconds=30.0) for d in detectors]
    found = night.judge(measured([*frames, *odd]))
    assert {line.worst for line in found if line.test == "MEAN" and line.verdict is Verdict.FAIL} == {1900}
    return found


def zero_dark(night: Night) -> list[Line]:
    return night.judge(later(night, "dark", products=night.products.changed("dark", BAD, np.zeros_like)))


def unmasked_rays(night: Night) -> list[Line]:
    """A bias of 3, whose cosmic ray of 900 electrons stays."""
    use, (y, x) = detector(night), (amplifier(night).target.y0 + 50, amplifier(night).target.x0 + 10)
    inputs = [night.room.correct(use, night.expose("bias", BAD, e))[0] for e in night.ids("bias")[:3]]
    inputs[1][y, x : x + 8] += np.float32(900.0)
    products = replace(night.products, bias={BAD: combine(inputs, night.ids("bias")[:3])})
    return night.judge(later(night, "bias", products=products).named("TAIL"))


def shifted_defects(night: Night) -> list[Line]:
    truth, dark = night.room.truths[BAD], night.products.dark[BAD]
    mask = truth.hot | truth.dead
    image = np.where(truth.hot, truth.dark, dark.image).astype(np.float32)  # the dark was made without a mask
    held = replace(dark, image=image, bad=np.zeros_like(dark.bad))
    right = night.judge(pictured(night, "dark", held, 20, defects=mask))
    assert all(line.verdict is Verdict.PASS for line in right)
    return night.judge(pictured(night, "dark", held, 20, defects=np.roll(mask, 1, axis=1)))


def with_hot(night: Night) -> Named:
    """Amplifiers whose hot pixels a mask one pixel off leaves."""
    truth = night.room.truths[BAD]
    left = truth.hot & ~np.roll(truth.hot | truth.dead, 1, axis=1)
    return {("HOT", f"{NAME} {a.name}") for a in detector(night).amplifiers if left[a.target.slices].any()}


def swapped_detectors(night: Night) -> list[Line]:
    bias = night.products.bias
    products = replace(night.products, bias={3: bias[4], 4: bias[3], 5: bias[5]})
    found = [
        later(night, "bias", 10, (d,), products=products, header=headed(DETECTOR=(str(other), str(d))))
        for d, other in ((3, 4), (4, 3), (5, 5))
    ]
    return night.judge(*found)


def missing(night: Night) -> list[Line]:
    image = night.products.bias[BAD].image.copy()
    image[amplifier(night).target.y0, amplifier(night).target.x0] = np.nan
    frames = night.rows("bias", night.later("bias", 2), [3])
    planned = {"bias": [(e, d) for e in night.later("bias", 2) for d in (3, BAD)]}
    held = replace(night.products.bias[BAD], image=image)
    return night.judge(frames, pictured(night, "bias", held, 20), planned=planned)


# ---- darks


def leaking(night: Night) -> list[Line]:
    return night.judge(later(night, "dark", 20, (3, 4, 5), leak=0.02))


def half_time(night: Night) -> list[Line]:
    return night.judge(later(night, "dark", claimed=15.0))


def darker(factor: float, only: str = "") -> Callable[[Night], list[Line]]:
    def fault(night: Night) -> list[Line]:
        def change(truth: Truth) -> Mapping[str, Any]:
            dark = truth.dark.copy()
            at = amplifier(night).target.slices if only else np.s_[:, :]
            dark[at] = np.where(truth.hot[at], dark[at], dark[at] * np.float32(factor))
            return {"dark": dark}

        return night.judge(later(night, "dark", room=altered(night, change)))

    return fault


def more_hot(night: Night) -> list[Line]:
    def change(truth: Truth) -> Mapping[str, Any]:
        dark, box = truth.dark.copy(), amplifier(night).target
        dark[box.y0 + 20 : box.y0 + 90 : 20, box.x0 + 9] = 6.0
        return {"dark": dark}

    return night.judge(later(night, "dark", 10, room=altered(night, change)))


def drifting(night: Night) -> list[Line]:
    frames = []
    for day in range(28):
        products = night.products.changed("bias", BAD, lambda image, day=day: image - np.float32(0.02 * day))
        frames.append(replace(night.frame("bias", BAD, 1001 + day, products=products), mjd=60652.0 + day))
    return night.judge(measured(frames))


# ---- flats


def saturated(night: Night) -> list[Line]:
    def change(raws: Raws) -> Raws:
        for raw, a in zip(raws, detector(night).amplifiers, strict=True):
            raw[: round(0.015 * a.data.ny) + 1, a.data.x0 : a.data.x1] = 262143
        return raws

    frames = night.frames("flat", night.later("flat", 18), [BAD])
    odd = [night.frame("flat", BAD, e, raws=change) for e in (1900, 1901)]
    found = night.judge(measured([*frames, *odd]))
    worst = [line for line in found if line.test == "SATURATED" and line.verdict is Verdict.FAIL]
    assert {(line.worst, line.beyond) for line in worst} <= {(1900, 2), (1901, 2)}
    return found


def dim(night: Night) -> list[Line]:
    detectors = (3, 4, 5)
    frames = night.frames("flat", night.later("flat", 5), detectors)
    odd = [night.frame("flat", d, 1900, lamp=0.05) for d in detectors]
    found = night.judge(measured([*frames, *odd]))
    assert {line.worst for line in found if line.test == "EXPOSURE_LEVEL"} == {1900}
    return found


def headed(**facts: tuple[str, str]) -> Header:
    return Header({k: v[0] for k, v in facts.items()}, {k: v[1] for k, v in facts.items()})


def other_filter(night: Night) -> list[Line]:
    header = headed(FILTER=("r_03", "i_06"))
    return night.judge(later(night, "flat", 10, physical_filter="i_06", header=header))


def sloped(night: Night) -> list[Line]:
    def change(truth: Truth) -> Mapping[str, Any]:
        x, _, _ = radius_mm(truth.detector)
        return {"response": {f: r * (1 + np.float32(0.005 / 350) * x) for f, r in truth.response.items()}}

    return night.judge(later(night, "flat", 5, (3, 4, 5), room=altered(night, change, None)))


def dust(night: Night) -> list[Line]:
    box = amplifier(night).target
    side = 100 // night.room.scale
    at = slice(box.y0 + 60, box.y0 + 60 + side), slice(box.x0 + 12, box.x0 + 12 + side)
    return night.judge(later(night, "flat", 10, room=dimmed(night, at, 0.98)))


def dead(night: Night) -> list[Line]:
    room = now(night, rates={"dead_amplifiers": {NAME: AMPLIFIER}})
    return night.judge(later(night, "flat", 5, room=room))


def brighter(night: Night) -> list[Line]:
    def change(image: F32) -> F32:
        image[amplifier(night).target.slices] *= np.float32(1.005)
        return image

    return night.judge(later(night, "flat", 10, products=night.products.changed("flat", BAD, change)))


def brighter_detector(night: Night) -> list[Line]:
    products = night.products.changed("flat", BAD, lambda image: image * np.float32(1.01))
    return night.judge(later(night, "flat", 5, (3, 4, 5), products=products))


def torn(night: Night) -> list[Line]:
    box = amplifier(night).target
    return night.judge(later(night, "flat", 10, room=dimmed(night, (box.slices[0], slice(box.x0, box.x0 + 1)), 0.989)))


def unit(night: Night) -> list[Line]:
    return night.judge(later(night, "bias", 2, header=headed(UNIT=("adu", "electron"))))


def too_early(night: Night) -> list[Line]:
    return night.judge(later(night, "bias", 2, header=headed(VALIDITY=("outside", "inside"))))


D3 = "R22_S10"
FAULTS: dict[int, tuple[Callable[[Night], list[Line]], Named | Callable[[Night], Named]]] = {
    1: (gain_of_one, {("PTC_GAIN", PLACE)}),
    2: (gain_of_all, {("PTC_GAIN", "camera")}),
    3: (gain_step, {("GAIN_FROM_FLAT_PAIR", PLACE)}),
    103: (small_gain_step, {("STEP", PLACE), ("LEVEL", PLACE)}),
    4: (noisier(1.07), {("NOISE", PLACE), ("READ_NOISE", PLACE)}),
    5: (noisier(0.93), {("NOISE", PLACE), ("READ_NOISE", PLACE)}),
    6: (noisy_exposure, {("NOISE", NAME), ("READ_NOISE", NAME)}),
    7: (noise_of_bad, {("BAD_AMP", PLACE), ("PTC_NOISE", PLACE)}),
    8: (noise_too_small, {("PTC_NOISE", PLACE)}),
    9: (turnoff, {("PTC_TURNOFF", PLACE)}),
    10: (a00, {("PTC_BFE_A00", PLACE)}),
    11: (noise_with_signal, {("NOISE_SIGNAL_INDEPENDENCE", PLACE)}),
    12: (changed_bias, {("MEAN", PLACE)}),
    13: (shifted, {("BIAS_SHIFT", PLACE)}),
    14: (corner, {("AMP_CORNER", PLACE)}),
    15: (pattern, {("PROFILE_COLUMN", PLACE)}),
    16: (pick_up, {("AMP_CORR", f"{NAME} C10 C12")}),
    17: (jump, {("OVERSCAN_JUMP", NAME)}),
    18: (other_bias, {("NOISE", NAME), ("PROFILE_ROW", NAME), ("PROFILE_COLUMN", NAME)}),
    19: (few_inputs, {("ADDED_NOISE", NAME)}),
    20: (lit_bias, {("MEAN", "camera")}),
    21: (leaking, {("RATE", "camera")}),
    22: (zero_dark, {("RATE", NAME)}),
    23: (half_time, {("RATE", NAME)}),
    24: (darker(4.0, AMPLIFIER), {("RATE", PLACE)}),
    25: (darker(1.5), {("RATE", NAME)}),
    26: (more_hot, {("HOT", PLACE)}),
    27: (unmasked_rays, {("TAIL", PLACE)}),
    28: (saturated, {("SATURATED", NAME)}),
    29: (dim, {("EXPOSURE_LEVEL", "camera")}),
    30: (other_filter, {("FILTER", NAME), ("STRUCTURE", NAME)}),
    31: (sloped, {("EXPOSURE_SCATTER", "camera")}),
    32: (dust, {("STRUCTURE", PLACE)}),
    33: (dead, {("LEVEL", PLACE)}),
    34: (brighter, {("STEP", PLACE), ("LEVEL", PLACE)}),
    35: (brighter_detector, {("DETECTOR_LEVEL", NAME)}),
    36: (torn, {("DIVISADERO", PLACE)}),
    37: (bent, {("MAX_RESIDUAL_ERROR", NAME)}),
    38: (swapped, {("MAX_RESIDUAL_ERROR", f"{NAME} C10"), ("MAX_RESIDUAL_ERROR", PLACE)}),
    39: (half_cti, {("CTI", NAME)}),
    40: (coupling(weaker), {("NO_SIGNIFICANT_DETECTION", f"{NAME} C16 C15")}),
    41: (
        coupling(transposed),
        {("NO_SIGNIFICANT_DETECTION", f"{NAME} C16 C15"), ("NO_SIGNIFICANT_DETECTION", f"{NAME} C15 C16")},
    ),
    42: (shifted_defects, with_hot),
    43: (frac, {("FRAC", PLACE)}),
    44: (unit, {("UNIT", NAME)}),
    45: (swapped_detectors, {("DETECTOR", D3), ("DETECTOR", NAME), ("PROFILE_COLUMN", D3), ("PROFILE_COLUMN", NAME)}),
    46: (too_early, {("VALIDITY", NAME)}),
    47: (missing, {("ABSENT", NAME), ("COMPLETE", PLACE)}),
    48: (drifting, {("MEAN_DRIFT", NAME)}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_test_detector_and_amplifier(night: Night, fault: int) -> None:
    make, wanted = FAULTS[fault]
    wanted = wanted(night) if callable(wanted) else wanted
    found = named(make(night))
    assert wanted
    assert wanted <= found
    tests = {test for test, _ in wanted}
    assert {(test, where) for test, where in found if test in tests} == wanted
