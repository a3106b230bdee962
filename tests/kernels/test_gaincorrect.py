"""Gain corrections as a job: raw flats and a reference flat to factors, their sign, and frames corrected by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.calibrations import gaincorrection, isrfiles
from kernels.camera import geometry
from kernels.camera.focalplane import radius_at, radius_mm
from kernels.errors import DataError, JobError
from tests.kernels.conftest import GAINS, NX, NY, Lab

F64 = NDArray[np.float64]
SETTINGS: dict[str, Any] = {
    "reference_noise": 12.0, "reference_percentile": 25.0, "radial": True, "nodes": 4, "order": 1, "bin": 2,
    "boundary": 1, "most": 0.05, "nsigma": 5.0, "outlier_cut": 5.0,
}  # fmt: skip
#: A change of a gain, electron/ADU, relative.
STEP = 1.002
#: The amplifier that changes: C11, upper right; its place in the file, and on the detector.
CHANGED, AT = 1, (slice(NY, 2 * NY), slice(NX, 2 * NX))


class Flats:
    """Flats of a detector whose pixels respond unlike, with light that falls off to a side."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.rng = lab, np.random.default_rng(7)
        self.response = 1 + self.rng.normal(0, 0.02, lab.size[::-1])
        y, x = np.indices(self.response.shape)
        self.light = 30_000 * (1 + 2e-4 * x - 1e-4 * y)

    def raw(self, name: str, lamp: float = 1.0, step: float = STEP, pixels: F64 | None = None) -> str:
        """Write a raw flat in which the gain of one amplifier is ``step`` times the camera's."""
        electrons = lamp * self.light * self.response * (1 if pixels is None else pixels)
        electrons = self.rng.normal(electrons, np.sqrt(electrons) / 10)
        electrons[AT] /= step
        return self.lab.write(f"{name}.fits", self.lab.expose(self.rng, electrons))

    def reference(self, mask: NDArray[Any] | None = None) -> str:
        return self.lab.product("flat1.fits", self.response, mask)


def plain(lab: Lab, raws: Sequence[str], flat: str, name: str = "made", **config: Any) -> dict[str, Any]:
    task = {
        "task": "cpGainCorrectionMeasure:1", "detector": 1, "inputs": {"raw": list(raws), "flat": [flat]},
        "outputs": {"gain_correction": str(lab.folder / f"{name}.fits")}, "parameters": lab.parameters(len(raws), 15.0),
        "provenance": {"TICKET": "DM-1"},
    }  # fmt: skip
    isr = {**lab.isr, "flat": True}
    return lab.job("gain_correction", [task], name=name, config={"isr": isr, **SETTINGS, **config})


@pytest.fixture
def flats(lab: Lab) -> Flats:
    return Flats(lab)


def test_a_step_of_a_gain_is_found_and_gains_are_corrected_with_its_sign(lab: Lab, flats: Flats) -> None:
    """The bar: 0.2 % within 0.02 %; the amplifier whose gain has grown looks fainter."""
    raws = [flats.raw(f"raw{n}", 1 + 0.05 * n) for n in range(6)]
    job = plain(lab, raws, flats.reference())
    assert lab.serial(job) == 0
    path = str(lab.folder / "made.fits")
    rows, header = fitsio.read(path, 1), fitsio.read_header(path)
    factors, errors = rows["GAIN_ADJUSTMENT"], rows["GAIN_ADJUSTMENT_ERR"]
    assert abs(factors[CHANGED] * STEP - 1) < 2e-4 and (errors < 1e-4).all()
    assert np.abs(np.delete(factors, CHANGED) - 1).max() < 5 * errors.max() < 2e-4
    assert header["GAINSIGN"] == "divide" and header["GAINMOST"] == "C11" and header["NEXPOSUR"] == 6
    meta = fitsio.read_header(path, 1)
    assert (meta["OBSTYPE"], meta["GAINCORRECTION_VERSION"]) == ("gainCorrection", 1.0)
    camera = geometry.camera(lab.camera())
    corrected = gaincorrection.apply(path, camera, camera.detectors[1])
    gains = [a.gain for a in corrected.amplifiers]
    assert gains == pytest.approx([g * (STEP if k == CHANGED else 1) for k, g in enumerate(GAINS)], rel=2e-4)
    assert [event["event"] for event in lab.journal(job)] == ["started", "published"]


def test_a_later_flat_is_flattened_by_it(lab: Lab, flats: Flats) -> None:
    raws = [flats.raw(f"raw{n}") for n in range(4)]
    assert lab.serial(plain(lab, raws, flats.reference())) == 0
    steps = []
    for asked in (False, True):
        name = f"later{asked}"
        roles = {"flat": [flats.reference()], **({"gain_correction": [str(lab.folder / "made.fits")]} if asked else {})}
        task = {
            "task": "isr:1,1", "detector": 1, "inputs": {"raw": [flats.raw(f"raw{name}")], **roles},
            "outputs": {"postISRCCD": str(lab.folder / f"{name}.fits")}, "parameters": lab.parameters(1, 15.0),
            "provenance": {},
        }  # fmt: skip
        isr = {**lab.isr, "flat": True, **({"gain_correction": True} if asked else {})}
        assert lab.serial(lab.job("correct", [task], name=name, config={"isr": isr})) == 0
        image = fitsio.read(lab.folder / f"{name}.fits", "IMAGE") / flats.light
        steps.append(float(np.mean(image[AT]) / np.mean(image[:NY]) - 1))
        assert fitsio.read_header(lab.folder / f"{name}.fits")["ISR_FLAT"]
    assert steps[0] == pytest.approx(1 / STEP - 1, abs=2e-4) and abs(steps[1]) < 2e-4


def test_places_have_the_radius_of_their_pixels(lab: Lab) -> None:
    detector = replace(geometry.camera(lab.camera()).detectors[1], yaw_deg=90.0)
    x, y = np.array([0.5, 7.5]), np.array([0.5, 30.5])
    np.testing.assert_allclose(radius_at(detector, x, y), radius_mm(detector)[2][[0, 30], [0, 7]], rtol=1e-6)


@pytest.mark.processes
def test_ranks_do_not_matter(lab: Lab, flats: Flats) -> None:
    raws, flat = [flats.raw(f"raw{n}") for n in range(5)], flats.reference()
    tables = []
    for ranks in (1, 2, 3):
        job = plain(lab, raws, flat, name=f"ranks{ranks}")
        done = lab.mpi(job, ranks)
        assert done.returncode == 0, done.stderr
        tables.append(fitsio.read(lab.folder / f"ranks{ranks}.fits", 1))
    assert tables[0].tobytes() == tables[1].tobytes() == tables[2].tobytes()


def test_what_is_odd_is_left_out_and_named(lab: Lab, flats: Flats) -> None:
    full = np.ones(lab.size[::-1])
    full[:NY, NX:] = 5.0  # C01: beyond the converter
    drifted = np.ones(lab.size[::-1])
    drifted[:NY, :NX] *= 0.998  # C00, in one flat
    hit = np.ones(lab.size[::-1])
    hit[NY + 5, 5:9] = 1.2
    raws = [flats.raw(f"raw{n}", pixels=full) for n in range(5)]
    raws += [flats.raw("drifted", pixels=full * drifted), flats.raw("hit", pixels=full * hit), flats.raw("off", 1e-6)]
    mask = np.zeros(lab.size[::-1], np.int32)
    mask[30, 30:40] = 1
    job = plain(lab, raws, flats.reference(mask))
    assert lab.serial(job) == 0
    (done,) = [event["detail"] for event in lab.journal(job) if event["event"] == "published"]
    dark = lab.parameters(8)["exposures"][-1]
    assert done["left_out"] == [dark] and done["inputs_used"] == 7 and list(done["bad_amplifiers"]) == ["C01"]
    said = "\n".join(done["look_at"])
    assert f"exposure {dark} has no light" in said and "480 of 480 pixels are saturated" in said
    assert "C00: -0.1" in said and f"in exposure {dark - 2}" in said
    header, rows = fitsio.read_header(lab.folder / "made.fits"), fitsio.read(lab.folder / "made.fits", 1)
    assert header["LEFTEXP1"] == dark and header["NBADAMP"] == 1 and header["UNSTED1"].startswith("C00")
    assert header["NBINOUT"] >= 2  # the hit
    assert rows["GAIN_ADJUSTMENT"][2] == 1.0 and np.isnan(rows["GAIN_ADJUSTMENT_ERR"][2])
    assert abs(rows["GAIN_ADJUSTMENT"][CHANGED] * STEP - 1) < 3e-4


@pytest.mark.parametrize(
    ("lamps", "config", "why"),
    [
        ((1.0, 1.0), {}, "2 of 2 flats have light on R22_S01; 3 are needed"),
        ((1.0, 1e-6, 1.0, 1.0, 1e-6), {"reference_noise": 1.0}, "a noise of at most 1 electrons"),
        ((1.0, 1.0, 1.0), {"boundary": 10}, "no amplifier has a bin of 2 pixels 10 pixels from its edges"),
    ],
)
def test_what_cannot_be_measured_is_told(
    lab: Lab, flats: Flats, lamps: Sequence[float], config: dict[str, Any], why: str
) -> None:
    raws = [flats.raw(f"raw{n}", lamp) for n, lamp in enumerate(lamps)]
    job = plain(lab, raws, flats.reference(), **config)
    assert lab.serial(job) == 1
    (failed,) = [event["detail"]["error"] for event in lab.journal(job) if event["event"] == "failed"]
    assert why in failed and not (lab.folder / "made.fits").exists()


def test_jobs_that_make_no_sense_are_refused(lab: Lab, flats: Flats) -> None:
    raws = [flats.raw("raw0")]
    with pytest.raises(JobError, match="set doFlat: true"):
        lab.serial(plain(lab, raws, flats.reference(), isr=lab.isr))
    with pytest.raises(JobError, match="settings of the gain ratios: .*'one'"):
        lab.serial(plain(lab, raws, flats.reference(), order="one"))
    with pytest.raises(JobError, match="they are in adu"):
        lab.serial({**plain(lab, raws, flats.reference()), "camera": lab.camera("adu")})
    with pytest.raises(JobError, match="doFlat needs whole frames, the kernel combine corrects them in parts"):
        lab.serial(lab.job("combine", [], config={"isr": {**lab.isr, "flat": True}, "type": "flat"}))


def test_corrections_are_applied_to_the_gains_that_they_belong_to(lab: Lab, tmp_path: Path) -> None:
    camera, path = geometry.camera(lab.camera()), str(tmp_path / "gc.fits")
    detector, factors = camera.detectors[1], np.array([1.0, 0.998, 1.001, 1.0])
    gaincorrection.write(path, camera, detector, {"GAIN_ADJUSTMENT": factors, "GAIN_ADJUSTMENT_ERR": factors * 0})
    found = gaincorrection.apply(path, camera, detector)
    assert [a.gain for a in found.amplifiers] == pytest.approx(np.array(GAINS) / factors, rel=1e-12)
    with pytest.raises(DataError, match=r"INPUT_GAIN.*C11 1\.4 electron/ADU, the frames have 1\.40281"):
        gaincorrection.apply(path, camera, found)
    with pytest.raises(DataError, match="the frames are in adu: set doCorrectGains: false"):
        gaincorrection.apply(path, replace(camera, unit="adu"), detector)

    def again(**metadata: Any) -> Any:
        one = isrfiles.read(path)
        other = str(tmp_path / "other.fits")
        Path(other).unlink(missing_ok=True)
        isrfiles.write(replace(one, metadata={**one.metadata, **metadata}), other)
        return gaincorrection.apply(other, camera, detector)

    multiplied = again(GAINSIGN="multiply")
    assert multiplied.amplifiers[1].gain == pytest.approx(1.4 * 0.998, rel=1e-12)
    assert again(GAINSIGN="").amplifiers == found.amplifiers  # made by upstream's task
    with pytest.raises(DataError, match="GAINSIGN is 'add'"):
        again(GAINSIGN="add")
    far = {"GAIN_ADJUSTMENT": factors * 1.3, "GAIN_ADJUSTMENT_ERR": factors * 0}
    gaincorrection.write(str(tmp_path / "far.fits"), camera, detector, far)
    with pytest.raises(DataError, match="amplifier C10: GAIN_ADJUSTMENT 1.3 is not within 0.8 to 1.25"):
        gaincorrection.apply(str(tmp_path / "far.fits"), camera, detector)
