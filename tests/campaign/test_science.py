"""Science frames by their own pipeline: from submit to frames and mosaics, compared with the truth."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray

from campaign.butler.repository import open_repository
from campaign.journal.events import read
from kernels.camera import geometry
from kernels.fits import product
from kernels.fits.product import PLANES
from kernels.fits.tables import identity
from kernels.simulation.rates import Rates
from kernels.simulation.scenes import scene
from kernels.transfer import covariance
from tests.conftest import ROOT, command, typed

pytestmark = pytest.mark.processes

PLAN, KERNELS = (ROOT / "tests" / "data" / f"plan_{name}.yaml" for name in ("science", "kernels"))
TAG = "LSSTComCam/calib/DM-1000/T"
OPTION = "extraQgraphOptions="
#: Calibrations that are measured, not written by the simulation.
WITHOUT = " ".join(f"--config verifyScienceIsr:{name}=false" for name in ("doBias", "doDark", "doFlat"))
EVERY = ("bias", "dark", "linearizer", "crosstalk", "defects", "cti", "ptc", "bfk", "flat")
BRIGHT = 20_000.0


@dataclass(frozen=True)
class World:
    """A simulated repository with science frames, and its truth."""

    repo: Path
    variables: Mapping[str, str]

    def run(self, *arguments: str, **more: str) -> tuple[int, str]:
        """Type a command; give its exit code and what it said."""
        answer = typed(*arguments, environment={**self.variables, **more})
        assert "Traceback" not in answer.stdout + answer.stderr, answer.stderr
        return answer.returncode, answer.stdout + answer.stderr

    def submit(self, name: str, options: str, *words: str, **more: str) -> tuple[int, str]:
        """Submit the science frames into a RUN of their own."""
        return self.run(*self.words(name, options, *words), **more)

    def words(self, name: str, options: str, *words: str) -> list[str]:
        """The command that does so."""
        chosen = {"outputRun": f"{TAG}/{name}/run", "output": f"{TAG}/{name}", "submitPath": str(self.folder(name))}
        settings = [word for item in chosen.items() for word in ("--set", "=".join(item))]
        return ["submit", "bps_verify_science", *settings, "--set", f"{OPTION}{options}", *words]

    def folder(self, name: str) -> Path:
        return self.repo.parent / "scratch" / name

    def made(self, name: str, kind: str) -> dict[tuple[int, ...], Path]:
        """The products of a kind, by exposure and detector."""
        with open_repository(str(self.repo)) as repository:
            found = repository.datasets(kind, [f"{TAG}/{name}/run"])
        return {tuple(d.data_id[n] for n in ("exposure", "detector") if n in d.data_id): Path(d.path) for d in found}

    @cached_property
    def job(self) -> dict[str, Any]:
        """The simulation's."""
        found: dict[str, Any] = json.loads((self.truth / "job" / "simulate.json").read_text())
        return found

    @property
    def truth(self) -> Path:
        return self.repo.with_name("repo-truth")


def simulated(folder: Path, *words: str, plan: Path = PLAN) -> World:
    variables = {**os.environ, "REPO": str(folder / "repo"), "SCRATCH": str(folder / "scratch")}
    done = typed("simulate", variables["REPO"], "--plan", str(plan), *words, environment=variables)
    assert done.returncode == 0, done.stderr
    text = plan.read_text().partition("variables:")[2].partition("\nsteps:")[0]
    said = {k: v.strip('"') for k, v in re.findall(r"^  (\w+): (.*)$", text, re.MULTILINE)}
    return World(folder / "repo", {**variables, **{k: v.replace("$INSTRUMENT", "LSSTComCam") for k, v in said.items()}})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two detectors, with the calibrations of the truth alone."""
    return simulated(tmp_path_factory.mktemp("small"), "--detector", "0", "--detector", "4", "--scale", "32")


@pytest.fixture(scope="module")
def plain(small: World) -> World:
    """The same with frames and mosaics of an undisturbed run, named plain."""
    code, said = small.submit("plain", WITHOUT)
    assert code == 0, said
    return small


def pixels(paths: Mapping[Any, Path]) -> dict[Any, list[bytes]]:
    found = {}
    for key, path in paths.items():
        with fitsio.FITS(str(path)) as fits:
            found[key] = [hdu.read().tobytes() for hdu in fits if hdu.has_data()]
    return found


def test_a_pipeline_of_the_signature_removal_alone_makes_frames_and_mosaics(plain: World) -> None:
    frames = plain.made("plain", "verifyScienceIsrExp")
    assert sorted(frames) == [(2024120700000 + n, d) for n in (1, 2, 3) for d in (0, 4)]
    assert plain.made("plain", "verifyScienceIsrExpBin64").keys() == frames.keys()
    for n in (8, 64):
        assert [e for (e,) in plain.made("plain", f"verifyScience{n}")] == [2024120700001 + k for k in range(3)]
    header = fitsio.read_header(frames[2024120700001, 4])
    assert header["BFMETHOD"] == "COULTON18" and header["BFKERNEL"] == "made elsewhere"  # the truth's kernel
    with open_repository(str(plain.repo)) as repository:
        (bfk,) = repository.datasets(
            "bfk", ["LSSTComCam/calib/simulated/truth"], "instrument='LSSTComCam' and detector=4"
        )
    assert header["CALIB_BFK_ID"] == bfk.dataset_id and header["CALIB_BFK_COLLECTION"] == "LSSTComCam/calib/DM-999"
    assert "CALIB_FLAT_ID" not in header and "FLATDEAD" not in header
    pictures = {p.stem for p in (plain.folder("plain") / "pictures").iterdir()}
    assert pictures == {f"verifyScience{n}-{2024120700001 + k}" for n in (8, 64) for k in range(3)}


def test_a_frame_without_a_flat_is_refused_with_the_way_out(small: World) -> None:
    code, said = small.submit("flat", WITHOUT.replace("doFlat=false", "doFlat=true"))
    assert code == 4 and "no flat is valid for detector 0, 4" in said
    assert "go without: --set extraQgraphOptions='--config verifyScienceIsr:doFlat=false'" in said


@pytest.mark.parametrize("switch", ["doBrighterFatter", "doInterpolate", "doSuspect", "doSetBadRegions"])
def test_a_combine_refuses_what_needs_whole_frames(small: World, switch: str) -> None:
    code, said = small.run("submit", "bps_bias", "--set", f"{OPTION}--config cpBiasIsr:{switch}=true")
    assert code == 3 and f"cpBiasCombine: {switch} needs whole frames, and this task corrects them in parts" in said
    assert f"set {switch}: false, or take the task of the signature removal alone, with doWrite: true" in said


def test_frames_of_other_names_are_refused(small: World) -> None:
    code, said = small.submit("names", f"{WITHOUT} --config verifyScienceIsr:connections.outputExposure=calexp")
    assert code == 3 and "corrected frames are written as postISRCCD" in said and "not as calexp" in said
    code, said = small.run("certify", "bps_verify_science")
    assert code == 3 and "verifyScienceIsrExp is no calibration, there is nothing to certify" in said


@pytest.mark.parametrize("point", ["quanta-submitted", pytest.param("products-ingested", marks=pytest.mark.soak)])
def test_a_killed_run_is_restarted_with_the_same_bits(plain: World, point: str) -> None:
    name = point.replace("-", "")
    killed = command(*plain.words(name, WITHOUT), environment={**plain.variables, "CAMPAIGN_KILL_AT": point})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    code, said = plain.run("restart", str(plain.folder(name)))
    assert code == 0, said
    for kind in ("verifyScienceIsrExp", "verifyScienceIsrExpBin8", "verifyScience64"):
        assert pixels(plain.made(name, kind)) == pixels(plain.made("plain", kind))


@pytest.mark.soak
def test_frames_survive_the_death_of_workers(plain: World) -> None:
    """Each process dies in the middle of its third product; the same frames and mosaics are there at the end."""
    hurt = {**plain.variables, "CAMPAIGN_KILL_AT": "product-linked:3"}
    done = command(*plain.words("hurt", WITHOUT), environment=hurt)
    assert done.returncode == 0, done.stderr
    journal = plain.folder("hurt") / "journal"
    assert any(e.event == "died" for e in read(journal)) and list(journal.glob("verifyScienceIsr*.again*"))
    for kind in ("verifyScienceIsrExp", "verifyScienceIsrExpBin64", "verifyScience8"):
        assert pixels(plain.made("hurt", kind)) == pixels(plain.made("plain", kind))


def test_frames_of_two_filters_get_the_flats_of_their_own(plain: World) -> None:
    certify_flats(plain, {"r_03": 1.0, "i_06": 2.0})
    both = "instrument='LSSTComCam' and exposure.day_obs=20241207 and exposure.seq_num in (3, 4)"
    options = WITHOUT.replace("doFlat=false", "doFlat=true")
    code, said = plain.submit("filters", options, SELECTION_SCIENCE_V=both)
    assert code == 0, said
    found, before = (plain.made(name, "verifyScienceIsrExp") for name in ("filters", "plain"))
    assert sorted(found) == [(2024120700000 + n, d) for n in (3, 4) for d in (0, 4)]
    runs = {key: fitsio.read_header(path)["CALIB_FLAT_ID"] for key, path in found.items()}
    assert len(set(runs.values())) == 4
    for d in (0, 4):
        same = [fitsio.read(made[2024120700003, d], "IMAGE") for made in (found, before)]
        assert np.array_equal(*same)  # by a flat of 1
        level = np.median(fitsio.read(found[2024120700004, d], "IMAGE"))
        assert level == pytest.approx(np.median(same[0]) / 2, rel=0.1)


def certify_flats(world: World, levels: Mapping[str, float]) -> None:
    """Certify a flat of each filter, a level without error, for the detectors that there are."""
    camera, run = geometry.camera(world.job["camera"]), "LSSTComCam/calib/simulated/flats"
    items = [
        ("flat", {"instrument": "LSSTComCam", "detector": d, "physical_filter": name})
        for name in levels
        for d in (0, 4)
    ]
    with open_repository(str(world.repo), writeable=True) as repository:
        paths = repository.predict_paths(run, items)
        repository.claim_run(run)
        for (_, data_id), path in zip(items, paths, strict=True):
            detector = camera.detectors[int(data_id["detector"])]
            plane = np.full(detector.size[::-1], levels[str(data_id["physical_filter"])], np.float32)
            cards = [*identity("flat", camera, detector), ("CALUNIT", "electron", "")]
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            product.write(path, cards, plane, np.zeros(plane.shape, np.int32), np.zeros_like(plane))
        repository.ingest_products(run, [(*item, path) for item, path in zip(items, paths, strict=True)])
        repository.certify("LSSTComCam/calib/DM-999", repository.datasets("flat", [run]), None, None)


# Kernels from flats, to corrected frames


@pytest.mark.soak
def test_kernels_are_made_certified_and_found_by_a_corrected_frame(tmp_path: Path) -> None:
    world = simulated(tmp_path, "--detector", "4", plan=KERNELS)
    lags = f"{OPTION}--config cpBfkPtcExtract:maximumRangeCovariancesAstier=5"
    code, said = world.run("submit", "bps_bfk", "--ranks", "1", "--set", lags)
    assert code == 0, said
    pictures = {p.name for p in tmp_path.rglob("pictures/*")}
    assert pictures == {"bfk-R22_S11.png", *(f"bfk-{n}.{kind}" for n in ("a00", "centre") for kind in ("png", "svg"))}
    code, said = world.run("certify", "bps_bfk")
    assert code == 0 and f"into        {TAG}/bfk.20250207a" in said, said
    for name, options in (
        ("after", WITHOUT),
        ("before", f"{WITHOUT} --config verifyScienceIsr:doBrighterFatter=false"),
    ):
        code, said = world.submit(name, options)
        assert code == 0, said
    header = fitsio.read_header(world.made("after", "verifyScienceIsrExp")[2024120800001, 4])
    assert (header["BFMETHOD"], header["BFKERNEL"]) == ("STEPPED", "fit EXACT")  # a kernel that was made here
    assert header["CALIB_BFK_COLLECTION"] == f"{TAG}/bfk.20250207a" and f"{TAG}/bfkGen" in header["CALIB_BFK_RUN"]
    before, after = (_relative_variance(world, name) for name in ("before", "after"))
    assert 1 - before > 0.2 and abs(1 - after) < 0.1 * (1 - before)


def _relative_variance(world: World, name: str) -> float:
    """Give the variance over the mean of a pixel of flats in pairs, without read noise."""
    frames = list(world.made(name, "verifyScienceIsrExp").values())
    masks = [fitsio.read(path, "MASK") == 0 for path in frames]
    images = [np.ascontiguousarray(fitsio.read(path, "IMAGE"), np.float32) for path in frames]
    good, noise = np.all(masks, axis=0), fitsio.read_header(frames[0])["AMP_C10_READNOISE"]
    found = [
        covariance.measure(pair, good, covariance.Rule(side=2)) for pair in zip(images[::2], images[1::2], strict=True)
    ]
    return float(np.mean([one.covariances[0, 0] / one.mean - noise**2 / one.mean for one in found]))


# The whole, on nine detectors


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Nine detectors with bias, dark and flat, and science frames by all of it."""
    world = simulated(tmp_path_factory.mktemp("whole"))
    done = command("run", str(PLAN), "--yes", environment=world.variables)
    assert done.returncode == 0, done.stderr
    code, said = world.submit("all", "--config verifyScienceIsr:brighterFatterCorrectionMethod=STEPPED")
    assert code == 0, said
    return world


@dataclass(frozen=True)
class Compared:
    """A frame and its truth."""

    #: [y, x]: (IMAGE - truth) / sqrt(VARIANCE) of the good pixels, NaN elsewhere; truth's light of the stars.
    z: NDArray[np.float64]
    stars: NDArray[np.float64]
    #: [star]: flux found, flux of the truth, and the error of their difference; electron.
    flux: NDArray[np.float64]


def compared(world: World, name: str) -> Iterator[Compared]:
    """Compare each frame with the light that it was simulated from, in units of the flat."""
    camera = geometry.camera(world.job["camera"])
    rates, seed = Rates.from_plain(world.job["config"]["rates"]), world.job["config"]["seed"]
    shots = {t["parameters"]["exposure"]: t["parameters"] for t in world.job["tasks"] if "raw" in t["outputs"]}
    flats = {fitsio.read_header(p)["DETECTOR"]: p for p in (world.repo / TAG).glob("flatGen*/*/flat/**/*.fits")}
    response = {d: truth(world, camera.detectors[d].name, "RESPONSE_r_03") for d in flats}
    unit = np.median([np.median(fitsio.read(flats[d], "IMAGE") / response[d]) for d in flats])
    for (exposure, d), path in world.made(name, "verifyScienceIsrExp").items():
        detector = camera.detectors[d]
        light = next(r["light"] for r in truth(world, detector.name, "EXPOSURES") if r["exposure"] == exposure)
        stars = scene(seed, detector, shots[exposure], rates) / (response[d] * unit)
        image, mask, variance = (fitsio.read(path, n).astype(float) for n in ("IMAGE", "MASK", "VARIANCE"))
        rays = truth(world, detector.name, "COSMIC_RAYS")
        good = (mask == 0) & (truth(world, detector.name, "DEFECTS") == 0)
        rays = rays[rays["exposure"] == exposure]
        good[rays["y"], rays["x"]] = False
        expected = light / unit + stars
        yield Compared(
            np.where(good, (image - expected) / np.sqrt(variance), np.nan),
            stars,
            np.array(list(fluxes(image - light / unit, stars, variance, good))),
        )


def truth(world: World, detector: str, hdu: str) -> Any:
    return fitsio.read(str(world.truth / f"{detector}.fits"), hdu)


def fluxes(image: Any, stars: Any, variance: Any, good: Any) -> Iterator[tuple[float, float, float]]:
    """Add up the good pixels around each peak of the truth."""
    around = [np.roll(stars, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    for y, x in np.argwhere((stars > 1000) & (stars == np.max(around, axis=0))):
        box = slice(max(y - 9, 0), y + 10), slice(max(x - 9, 0), x + 10)
        of = good[box]
        yield image[box][of].sum(), stars[box][of].sum(), np.sqrt(variance[box][of].sum())


@pytest.mark.soak
def test_corrected_frames_are_the_truth_up_to_noise(whole: World) -> None:
    found = list(compared(whole, "all"))
    assert len(found) == 27
    for one in found:
        assert 0.95 < np.sqrt(np.nanmean(one.z**2)) < 1.05
        assert abs(np.nanmean(one.z)) < 0.05  # VARIANCE by the pixel's own signal: -0.016 at 1000 electron
    z, stars = np.concatenate([one.z for one in found]), np.concatenate([one.stars for one in found])
    assert 0.98 < np.sqrt(np.nanmean(z**2)) < 1.02 and np.nanmean(np.abs(z) > 5) < 2e-5
    peaks = z[(stars > BRIGHT) & np.isfinite(z)]
    assert peaks.size > 2000 and 0.95 < np.sqrt(np.mean(peaks**2)) < 1.08 and abs(peaks.mean()) < 0.1
    flux, real, error = np.concatenate([one.flux for one in found]).T
    pulls = (flux - real) / error
    assert len(pulls) > 500 and 0.9 < np.sqrt(np.mean(pulls**2)) < 1.1 and abs(pulls.mean()) < 0.15
    assert np.mean(flux[real > 3e5] / real[real > 3e5]) == pytest.approx(1, abs=1e-3)


@pytest.mark.soak
@pytest.mark.parametrize(("switch", "bright"), [("doBrighterFatter", True), ("doLinearize", True), ("doFlat", False)])
def test_a_correction_that_is_left_out_shows(whole: World, switch: str, bright: bool) -> None:
    """In bright stars, or everywhere; crosstalk and deferred charge of these detectors are lost in the noise."""
    code, said = whole.submit(switch, f"--config verifyScienceIsr:{switch}=false")
    assert code == 0, said
    assert _scatter(whole, switch)[bright] > 1.1 * _scatter(whole, "all")[bright]


def _scatter(world: World, name: str) -> tuple[float, float]:
    """Give the rms of the pulls of all pixels, and of those of bright stars."""
    found = list(compared(world, name))
    z, stars = np.concatenate([one.z for one in found]), np.concatenate([one.stars for one in found])
    return float(np.sqrt(np.nanmean(z**2))), float(np.sqrt(np.nanmean(z[stars > BRIGHT] ** 2)))


@pytest.mark.soak
def test_the_header_names_each_calibration_and_counts_the_pixels(whole: World) -> None:
    for (_, detector), path in whole.made("all", "verifyScienceIsrExp").items():
        header, mask = fitsio.read_header(path), fitsio.read(path, "MASK")
        with open_repository(str(whole.repo)) as repository:
            for name in EVERY:
                runs = [header[f"CALIB_{name.upper()}_RUN"]]
                (one,) = repository.datasets(name, runs, f"instrument='LSSTComCam' and detector={detector}")
                assert header[f"CALIB_{name.upper()}_ID"] == one.dataset_id
                assert header[f"CALIB_{name.upper()}_COLLECTION"] and header[f"CALIB_{name.upper()}_BEGIN"]
        counts = {plane: np.count_nonzero(mask & 1 << bit) for plane, bit in PLANES.items()}
        assert header["NINTRP"] == counts["INTRP"] > 0 and header["NSUSPECT"] == counts["SUSPECT"]
        assert header["NINTRP_BAD"] == counts["BAD"] == header["NSETBAD"]


@pytest.mark.soak
def test_a_flat_of_another_filter_is_refused(whole: World) -> None:
    selection = "instrument='LSSTComCam' and exposure.day_obs=20241207 and exposure.seq_num = 4"
    code, said = whole.submit("i", "", SELECTION_SCIENCE_V=selection)
    assert code == 4 and "is of filter r_03, exposure 2024120700004 of i_06" in said
