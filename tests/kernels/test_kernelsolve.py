"""Brighter-fatter kernels as a job, and corrected frames by them, against the simulator's truth and closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.calibrations import bfk, ptc
from kernels.calibrations.bfk import Kernels
from kernels.camera import geometry
from kernels.errors import DataError, JobError
from kernels.simulation import brighter
from kernels.transfer import covariance
from tests.kernels.test_cti import DETECTOR, common, described, shots, simulated
from tests.kernels.test_transfercurve import SETTINGS as CURVE

F64 = NDArray[np.float64]
DEAD, STEPS, LEVEL, MARGIN = "C05", 4, 90_000.0, 10
RATES = {
    "brighter_fatter": 2.0, "brighter_fatter_steps": STEPS, "qe": 0.0, "lamp": 1000.0, "vignetting_mm": [9e5, 1e6],
    "dead_amplifiers": {"R22_S11": DEAD},
}  # fmt: skip
SETTINGS = {**CURVE, "side": 5}  # the potential of the simulator reaches as far
#: Flats of one level at the end, by which corrections are judged.
JUDGED = 8


def flats() -> list[dict[str, Any]]:
    electrons = np.repeat([100, 300, 1000, 3000, *np.linspace(20_000, 88_000, 16), *[LEVEL] * (JUDGED // 2)], 2)
    base, made = shots()[0], []
    for k, charge in enumerate(electrons.tolist()):
        own = {"exposure": 2024080600001 + k, "seq_num": 1 + k, "obs_id": f"CC_O_20240806_{k:06d}"}
        made.append({**base, **own, "exposure_time": charge / 1000, "dark_time": charge / 1000, "electrons": charge})
    return made


def made_here(folder: Path, kernel: str, name: str, raws: list[str], parameters: Any, config: Any, **roles: str) -> int:
    paths = [*raws, *roles.values()]
    inputs = {"raw": raws, **{role: [path] for role, path in roles.items()}}
    outputs = {"bfk" if kernel == "bfk" else "postISRCCD": str(folder / f"{name}.fits")}
    task = {"task": f"{kernel}:{name}", "detector": DETECTOR, "inputs": inputs, "outputs": outputs,
            "parameters": parameters, "provenance": {"TICKET": "DM-1"}}  # fmt: skip
    return common(
        folder, kernel, [task], config={"permissions": {}, **config}, files={path: {"path": path} for path in paths}
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[dict[str, Any]]]:
    """Simulated flats, a ptc of the true gains, and the kernels that are made of the flats."""
    folder, exposures = tmp_path_factory.mktemp("bfk"), flats()
    raws = simulated(folder, exposures, rates=RATES)
    camera = geometry.camera(described(folder, "bfk", [])["camera"])
    true = fitsio.read(folder / "truth.fits", "AMPLIFIERS")
    ptc.write(
        str(folder / "ptc.fits"), camera, camera.detectors[DETECTOR], true["gain"], true["read_noise"],
        np.full(len(true), 1e5),
    )  # fmt: skip
    parameters = {
        "exposures": [e["exposure"] for e in exposures],
        "exposure_times": [e["exposure_time"] for e in exposures],
    }
    config = {"isr": {"saturation": True}, **SETTINGS, "nsigma_mean": 5.0, "ignored": ["C17"]}
    assert made_here(folder, "bfk", "bfk", raws, parameters, config) == 0
    return folder, raws, exposures


def test_the_kernel_is_the_simulators_potential(lab: tuple[Path, list[str], Any]) -> None:
    folder, raws, _ = lab
    potential = fitsio.read(folder / "truth.fits", "POTENTIAL")
    camera = geometry.camera(described(folder, "bfk", [])["camera"])
    found = Kernels.open(str(folder / "bfk.fits"), camera, camera.detectors[DETECTOR])
    assert found.detector is not None and found.amplifiers is not None and found.whole is found.detector
    middle = found.detector.shape[0] // 2
    quadrant = found.detector[middle:, middle:]
    header, truth = fitsio.read_header(folder / "bfk.fits"), fitsio.read(folder / "truth.fits", "A")
    # the potential is known less well than its Laplacian, which alone moves charge
    assert quadrant[0, 0] == pytest.approx(header["KERNCEN"]) and 0 < header["KERNERR"] < 0.06 * potential[0, 0]
    assert abs(quadrant[0, 0] + potential[0, 0]) < 3 * header["KERNERR"]
    k = found.detector
    around = -(k[2:, 1:-1] + k[:-2, 1:-1] + k[1:-1, 2:] + k[1:-1, :-2] - 4 * k[1:-1, 1:-1])[middle - 1 :, middle - 1 :]
    assert around[0, 0] == pytest.approx(truth[0, 0], rel=0.08)  # four steps of the simulation: 4 % beyond its truth
    assert around[1, 0] == pytest.approx(truth[1, 0], rel=0.25)  # axis 0 is y: the larger of both
    assert around[0, 1] < 0.75 * around[1, 0]
    np.testing.assert_allclose(k, k[::-1, ::-1], rtol=1e-9, atol=1e-15)
    rows, second = (fitsio.read(folder / "bfk.fits", n) for n in (1, 2))
    names = list(rows["AMPLIFIER"].astype(str))
    assert list(second["DETECTOR"].astype(str)) == ["R22_S11"]
    assert not rows["VALID"][names.index(DEAD)] and rows["VALID"].sum() >= 3
    assert header["NBADAMP"] == 1 and header["BADAMP1"].startswith(f"{DEAD}: ")
    said = {header[f"LEFTAMP{n}"].partition(":")[0] for n in range(1, header["NLEFTAMP"] + 1)}
    assert {"C17", *np.array(names)[~rows["VALID"]]} - {DEAD} <= said
    assert header["KERNAMPS"] <= len(names) - 2 and header["FITMODEL"] == "EXACT"
    side = SETTINGS["side"]
    assert rows["RAW_MEANS"].shape[1] == len(raws) // 2 and rows["RAW_XCORRS"].shape[1] == side**2 * len(raws) // 2
    live = names.index("C00")
    np.testing.assert_allclose(
        rows["RAW_XCORRS"][live].reshape(-1, side, side)[:, 0, 0], rows["RAW_VARIANCES"][live], rtol=1e-3
    )


def frames(lab: tuple[Path, list[str], Any], name: str, kernels: str, **isr: Any) -> list[Path]:
    """Write the corrected frames of the judged flats; without kernels, without the correction."""
    folder, raws, exposures = lab
    roles = {"ptc": str(folder / "ptc.fits"), **({"bfk": kernels} if kernels else {})}
    config = {"isr": {"saturation": True, "ptc": True, **({"brighter_fatter": True} if kernels else {}), **isr}}
    made = []
    for n in range(len(raws) - JUDGED, len(raws)):
        e = exposures[n]
        parameters = {
            "exposures": [e["exposure"]], "dates": [e["begin"]], "exposure_times": [e["exposure_time"]],
            "dark_times": [e["dark_time"]],
        }  # fmt: skip
        (folder / name).mkdir(exist_ok=True)
        made.append(folder / name / f"{n}.fits")
        assert made_here(folder / name, "correct", str(n), [raws[n]], parameters, config, **roles) == 0
    return made


def covariances(paths: list[Path], noise: float) -> tuple[F64, F64]:
    """C_ij [i, j] of whole frames less margins and the dead amplifier, in units of the mean; and its errors."""
    images, masks = ([fitsio.read(p, hdu)[MARGIN:-MARGIN, MARGIN:-MARGIN] for p in paths] for hdu in ("IMAGE", "MASK"))
    good = np.all([mask == 0 for mask in masks], axis=0) & (images[0] > LEVEL / 2)
    images = [np.ascontiguousarray(image, np.float32) for image in images]
    rule = covariance.Rule(side=3)
    found = [covariance.measure(pair, good, rule) for pair in zip(images[::2], images[1::2], strict=True)]
    values = np.mean([one.covariances / one.mean for one in found], axis=0)
    values[0, 0] -= noise**2 / found[0].mean
    errors = 1 / np.sqrt(np.sum([one.counts for one in found], axis=0))
    errors[0, 0] *= 2**0.5
    return values, errors


def closed(folder: Path, corrected: str) -> F64:
    """Covariances [i, j] of the simulated flats in units of the mean, after a correction by the true kernel."""
    a = fitsio.read(folder / "truth.fits", "A")
    size = 64
    image, lags = np.zeros((size, size)), np.arange(1 - len(a), len(a))
    image[np.ix_(lags % size, lags % size)] = brighter.whole(a)
    x = np.fft.fft2(image).real * LEVEL
    x[np.abs(x) < 1e-9] = 1e-9
    y = x / (STEPS - 1)
    spectrum = ((1 + y) ** (2 * STEPS) - 1) / ((1 + y) ** 2 - 1) / STEPS
    factor = {
        "": 1.0,
        "COULTON18": 1 / (1 + x / 2) ** 2,
        "STEPPED": x / 2 / np.tanh(x / 2) * 2 * x / np.expm1(2 * x),
    }[corrected]
    return np.asarray(np.fft.ifft2(spectrum * factor).real[:3, :3].T)


def true_kernel(lab: tuple[Path, list[str], Any]) -> str:
    """Write the simulator's potential as a kernel from elsewhere."""
    folder = lab[0]
    camera = geometry.camera(described(folder, "bfk", [])["camera"])
    path = folder / "true.fits"
    if not path.exists():
        kernel = -brighter.whole(fitsio.read(folder / "truth.fits", "POTENTIAL"))
        bfk.write(str(path), camera, camera.detectors[DETECTOR], Kernels(kernel, None))
    return str(path)


@pytest.mark.parametrize("method", ["COULTON18", "STEPPED"])
def test_corrected_flats_are_as_the_closed_forms_say(lab: tuple[Path, list[str], Any], method: str) -> None:
    folder = lab[0]
    noise = float(np.mean(fitsio.read(folder / "truth.fits", "AMPLIFIERS")["read_noise"]))
    plain = frames(lab, "plain", "") if not (folder / "plain").exists() else sorted((folder / "plain").glob("*.fits"))
    chosen = {} if method == "COULTON18" else {"brighter_fatter_method": method}  # a kernel from elsewhere: AUTO
    after = frames(lab, method, true_kernel(lab), **chosen)
    for paths, how in ((plain, ""), (after, method)):
        values, errors = covariances(paths, noise)
        pulls = (values - closed(folder, how)) / errors
        assert np.abs([pulls[0, 0], pulls[0, 1], pulls[1, 0]]).max() < 3, how
    for before, path in zip(plain, after, strict=True):
        (image, mask), (was, was_masked) = ([fitsio.read(p, n) for n in ("IMAGE", "MASK")] for p in (path, before))
        assert np.array_equal(mask, was_masked) and np.array_equal(image[mask != 0], was[mask != 0])
        assert image.sum(dtype=np.float64) == pytest.approx(was.sum(dtype=np.float64), rel=1e-7)
    header = fitsio.read_header(after[0])
    assert header["BFMETHOD"] == method and header["BFKERNEL"] == "made elsewhere"
    assert "BFMETHOD" not in fitsio.read_header(plain[0])


def test_a_kernel_that_was_made_here_is_inverted_in_steps(lab: tuple[Path, list[str], Any]) -> None:
    folder = lab[0]
    paths = frames(lab, "own", str(folder / "bfk.fits"))
    values, _ = covariances(paths, float(np.mean(fitsio.read(folder / "truth.fits", "AMPLIFIERS")["read_noise"])))
    deficit = 1 - closed(folder, "")[0, 0]
    assert deficit > 0.1 and values[0, 0] - 1 == pytest.approx(0, abs=0.15 * deficit)
    header = fitsio.read_header(paths[0])
    assert header["BFMETHOD"] == "STEPPED" and header["BFKERNEL"] == "fit EXACT"


@pytest.mark.parametrize("kernel", ["combine", "flat_measure", "bfk"])
def test_kernels_of_parts_of_frames_refuse_the_correction(lab: tuple[Path, list[str], Any], kernel: str) -> None:
    config = {
        "isr": {"brighter_fatter": True},
        **SETTINGS,
        "nsigma_mean": 5.0,
        "statistic": "MEAN",
        "nsigma": 3,
        "passes": 1,
    }
    with pytest.raises(
        JobError, match=f"doBrighterFatter needs whole frames, the kernel {kernel} corrects them in parts"
    ):
        common(lab[0], kernel, [], config=config)


def test_a_kernel_whose_axes_are_unknown_is_refused_with_advice(
    lab: tuple[Path, list[str], Any], tmp_path: Path
) -> None:
    path = tmp_path / "unknown.fits"
    path.write_bytes(Path(true_kernel(lab)).read_bytes())
    with fitsio.FITS(str(path), "rw") as fits:
        for n in (0, 1, 2):
            if "KERNEL_AXES" in fits[n].read_header():
                fits[n].delete_key("KERNEL_AXES")
                fits[n].write_checksum()
    camera = geometry.camera(described(tmp_path, "bfk", [])["camera"])
    with pytest.raises(DataError, match="KERNEL_AXES is missing.*import the file again with --kernel-axes"):
        Kernels.open(str(path), camera, camera.detectors[DETECTOR])
