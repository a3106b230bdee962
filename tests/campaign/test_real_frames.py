"""Frames of real CCDs, from the files that the cameras wrote to certified calibrations, against plain numpy."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray

from campaign.butler.repository import Selection, open_repository
from campaign.cli.root import main

pytestmark = pytest.mark.processes

Frames = Callable[[str], Path]
Image = NDArray[np.float64]
CENTRE = (slice(256, 768), slice(256, 768))
ROWS = slice(None, None, 8)  # a pixel knows nothing of the others: some rows tell as much as all


def campaign(*arguments: object) -> tuple[int, str, str]:
    """Give a command; return its exit code, output and messages."""
    if arguments[0] != "certify":
        arguments = (*arguments, "--ranks", 1)  # a second rank takes longer to start than to help with so little
    out, messages = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(messages), pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return int(end.value.code or 0), out.getvalue(), messages.getvalue()


def done(*arguments: object) -> str:
    """Give a command that must succeed; return its output."""
    code, out, messages = campaign(*arguments)
    assert code == 0, messages
    return out


@dataclass(frozen=True)
class Observatory:
    """A repository, and a file with the variables that its operator exports."""

    folder: Path
    camera: str

    @property
    def repository(self) -> Path:
        return self.folder / "repo"

    def write_variables(self, day: str) -> None:
        select = f"instrument='{self.camera}' and exposure.observation_type="
        plain = {"INSTRUMENT": self.camera, "TICKET": "CAL-1", "TAG": "first", "RERUN": "a", "CERT_RERUN": "a"}
        plain |= {"START_DATE": f"{day}T00:00:00", "REPO": str(self.repository), "SCRATCH": str(self.folder)}
        plain |= {"RAW_COLLECTION": f"{self.camera}/raw/all", "CALIB_COLLECTIONS": f"{self.camera}/calib"}
        plain |= {"USER_CALIB_PREFIX": ""} | {f"SELECTION_{k.upper()}": f"{select}'{k}'" for k in ("bias", "dark")}
        plain |= {f"SELECTION_FLAT_{band}": f"{select}'flat'" for band in "gr"}
        self.folder.joinpath("variables").write_text("".join(f'export {k}="{v}"\n' for k, v in plain.items()))

    def step(self, command: str, template: str, *more: str) -> str:
        return done(command, template, "--env", self.folder / "variables", *more)

    def make(self, template: str) -> None:
        self.step("submit", template)
        self.step("certify", template)

    def product(self, kind: str, when: str) -> tuple[Image, Image, NDArray[np.int32]]:
        """Image, variance and mask of a product, found as any later step finds it: by date, in the ticket's chain."""
        return self._read(kind, "", when)

    def weights(self, kind: str, when: str) -> dict[float, float]:
        """Give the weights of a product's frames, by their exposure times."""
        header = fitsio.read_header(self._path(kind, "", when))
        numbers = range(header["NINPUTS"])
        return {header[f"CPP_INPUT_EXPT_{n}"]: header[f"CPP_INPUT_WEIGHT_{n}"] for n in numbers}

    def made(self, kind: str, stem: str) -> tuple[Image, Image, NDArray[np.int32]]:
        """The same of a product that was not certified."""
        return self._read(kind, f"/first/{stem}.a")

    def _path(self, kind: str, below: str, when: str | None = None) -> str:
        filters = {"STL1001E": "Visible", "EFOSC2": "g#782"}
        data_id = {"instrument": self.camera, "detector": 0, "physical_filter": filters[self.camera]}
        with open_repository(str(self.repository)) as repository:
            found = repository.find_dataset(kind, data_id, [f"{self.camera}/calib/CAL-1{below}"], when, when)
        assert found is not None, kind
        return str(found.path)

    def _read(self, kind: str, below: str, when: str | None = None) -> tuple[Image, Image, NDArray[np.int32]]:
        with fitsio.FITS(self._path(kind, below, when)) as file:
            image, variance = (file[name].read().astype(np.float64) for name in ("IMAGE", "VARIANCE"))
            return image, variance, file["MASK"].read()


@cache
def of_mean(n: int) -> float:
    """Give the variance of the clipped mean of ``n`` Gaussian values over that of its survivors' scatter."""
    mean, variance = meanclip(np.random.default_rng(n).normal(size=(n, 400_000)))
    return float(mean.var() / variance.mean())


@cache
def unpacked(path: Path) -> tuple[bytes, int]:
    """The bytes of a gzipped frame, and where its pixels start."""
    data = gzip.decompress(path.read_bytes())
    end = next(i for i in range(0, len(data), 80) if data[i : i + 80].rstrip() == b"END")
    return data, -(-(end + 80) // 2880) * 2880


def number(path: Path, keyword: str) -> float:
    data, start = unpacked(path)
    match = re.search(rf"{keyword:8s}= +([-+.\dE]+)".encode(), data[:start])
    assert match is not None
    return float(match[1])


def pixels(path: Path) -> Image:
    """Unsigned 16-bit pixels of a gzipped frame, without a FITS library."""
    data, start = unpacked(path)
    width, height = (int(number(path, f"NAXIS{n}")) for n in (1, 2))
    return np.frombuffer(data, ">i2", width * height, start).reshape(height, width) + 32768.0


def stack(paths: Iterable[Path]) -> Image:
    return np.stack([pixels(p) for p in paths])


def meanclip(values: Image) -> tuple[Image, Image]:
    """Clip as afw does, 3 sigma in 3 passes, along the first axis; give the mean and its variance."""
    return clipped(values)[1:]


def clipped(values: Image) -> tuple[NDArray[np.bool_], Image, Image]:
    """Which values are kept, their mean, and its variance."""
    low, centre, high = np.percentile(values, [25, 50, 75], axis=0)
    sigma = 0.7413 * (high - low)
    for _ in range(3):
        kept = np.abs(values - centre) <= 3 * sigma
        number = kept.sum(axis=0)
        centre = np.where(kept, values, 0).sum(axis=0) / number
        with np.errstate(invalid="ignore"):
            sigma = np.sqrt(np.where(kept, (values - centre) ** 2, 0).sum(axis=0) / (number - 1))
    return kept, centre, sigma**2 / number


def level(image: Image) -> float:
    return float(meanclip(image.ravel())[0])


def spread(image: Image) -> float:
    """Standard deviation within 5 sigma."""
    for _ in range(3):
        image = image[np.abs(image - image.mean()) <= 5 * image.std()]
    return float(image.std())


# The STL-1001E: one amplifier without overscan, flats labelled Light Frame, no DARKTIME


@pytest.fixture(scope="module")
def stl(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Observatory:
    """Bias, dark and flat made and certified from the real frames."""
    folder = frames("stl1001e")
    home = Observatory(tmp_path_factory.mktemp("a small observatory"), "STL1001E")
    home.write_variables("2017-09-08")
    others = [p for p in sorted(folder.iterdir()) if not p.name.startswith("flat")]
    done("ingest", home.repository, *others, "--camera", "STL1001E")
    done("ingest", home.repository, *sorted(folder.glob("flat*")), "--camera", "STL1001E", "--type", "flat")
    for template in ("bps_bias", "bps_dark", "bps_flat_r"):
        home.make(template)
    return home


@pytest.fixture(scope="module")
def bias(stl: Observatory) -> Image:
    return stl.product("bias", "2017-09-08T22:00:00")[0]


def test_the_summary_has_read_noise_and_gain(stl: Observatory, frames: Frames) -> None:
    found = json.loads(done("ingest", stl.repository, "--camera", "STL1001E", "--summary", "--json"))["summary"]
    assert {row["type"]: row["exposures"] for row in found} == {"bias": 10, "dark": 16, "flat": 10}
    assert {(row["physical_filter"], row["band"]) for row in found} == {("Visible", "r")}
    biases = stack(sorted(frames("stl1001e").glob("bias*")))[:, *CENTRE]
    flats = stack(sorted(frames("stl1001e").glob("flat*")))[:, *CENTRE]
    noise = np.median([spread(a - b) / 2**0.5 for a, b in zip(biases[::2], biases[1::2], strict=True)])
    zero, gains = biases.mean(axis=0), []
    for a, b in zip(flats[::2] - zero, flats[1::2] - zero, strict=True):
        mean = (a.mean() + b.mean()) / 2
        gains.append(mean / (spread(a * mean / a.mean() - b * mean / b.mean()) ** 2 / 2 - noise**2))
    assert noise == pytest.approx(6.70, abs=0.05)
    assert np.median(gains) == pytest.approx(1.943, abs=0.02)
    by_type = {row["type"]: row for row in found}
    assert by_type["bias"]["read_noise"] == pytest.approx(noise, abs=0.01)
    assert by_type["flat"]["gain"] == pytest.approx(np.median(gains), abs=0.005)


def test_the_bias_is_what_numpy_makes(stl: Observatory, frames: Frames) -> None:
    image, variance, mask = stl.product("bias", "2017-09-08T22:00:00")
    assert image.mean() == pytest.approx(993.15, abs=0.01)
    assert np.median(variance) == pytest.approx(3.68 * of_mean(10), rel=0.005)
    assert not mask.any()
    expected, scatter = meanclip(stack(sorted(frames("stl1001e").glob("bias*")))[:, ROWS])
    np.testing.assert_allclose(image[ROWS], expected, rtol=3e-7)
    np.testing.assert_allclose(variance[ROWS], scatter * of_mean(10), rtol=0.01)


def test_the_dark_current_is_that_of_a_series_of_times(stl: Observatory, bias: Image, frames: Frames) -> None:
    series = sorted(frames("stl1001e").glob("darks-expos*s-*"))
    times = np.array([number(p, "EXPTIME") for p in series])
    levels = [level(pixels(p) - bias) for p in series]
    assert sorted(times) == [10, 20, 30, 60, 150, 300]
    rate, offset = np.polyfit(times, levels, 1)
    assert rate == pytest.approx(0.354, abs=0.01)
    # The bias level has risen by about an ADU since the biases; without an overscan the product includes that.
    everything = sorted(frames("stl1001e").glob("darks*"))
    exposures = np.array([number(p, "EXPTIME") for p in everything])
    image, _, mask = stl.product("dark", "2017-09-08T22:00:00")
    assert not mask.any()
    by_time = stl.weights("dark", "2017-09-08T22:00:00")
    weights = np.array([by_time[seconds] for seconds in exposures])
    assert weights.sum() == pytest.approx(1, abs=1e-6) and (np.diff([by_time[t] for t in sorted(by_time)]) > 0).all()
    rates = (stack(everything)[:, ROWS] - bias[ROWS]) / exposures[:, None, None]
    each = weights[:, None, None]
    kept = clipped((rates - np.median(rates, axis=0)) * np.sqrt(each))[0]  # each in its own noise
    expected = np.where(kept, rates * each, 0).sum(axis=0) / np.where(kept, each, 0).sum(axis=0)
    difference = np.abs(image[ROWS] - expected)
    assert np.median(difference) < 1e-6
    assert (difference > 1e-4).mean() < 0.03  # where a cosmic ray and its surroundings were left out
    assert np.median(image[ROWS][expected > 2]) == pytest.approx(np.median(expected[expected > 2]), rel=1e-3)
    assert level(image) == pytest.approx(rate + offset * (weights / exposures).sum(), abs=0.005)


def test_the_flat_is_what_numpy_makes(stl: Observatory, bias: Image, frames: Frames) -> None:
    image, _, mask = stl.product("flat", "2017-09-08T23:00:00")
    dark = stl.product("dark", "2017-09-08T23:00:00")[0]
    corrected = [pixels(p) - bias - 23 * dark for p in sorted(frames("stl1001e").glob("flat*"))]
    expected, _ = meanclip(np.stack([frame[ROWS] / level(frame) for frame in corrected]))
    assert not mask.any()
    difference = np.abs(image[ROWS] - expected)
    assert (difference > 2e-5).mean() < 1e-4  # where a value lies on the limit of the clip
    assert difference.max() < 2e-3
    assert level(image) == pytest.approx(1, abs=0.002)


def test_darks_of_several_times_are_peers_and_a_lit_one_is_not(
    stl: Observatory, frames: Frames, tmp_path: Path
) -> None:
    found = json.loads(stl.step("check", "bps_dark", "--levels", "--json", "--set", "outputRun=STL1001E/other"))
    assert (found["problems"], found["levels"]) == ([], [])
    home = Observatory(tmp_path, "STL1001E")
    home.write_variables("2017-09-08")
    folder = frames("stl1001e")
    biases = sorted(folder.glob("bias*"))[:6]
    done("ingest", home.repository, *biases, "--camera", "STL1001E")
    flat = min(folder.glob("flat*"))
    done("ingest", home.repository, flat, "--camera", "STL1001E", "--type", "bias")
    lit = json.loads(home.step("check", "bps_bias", "--levels", "--json"))["levels"]
    assert [f["exposure"] for f in lit] == [170908224801984]
    assert re.fullmatch(r"level \+\d+ sigma from its peers", lit[0]["why"])


def test_the_same_files_again_change_nothing(stl: Observatory, frames: Frames) -> None:
    def there() -> Selection:
        with open_repository(str(stl.repository)) as repository:
            return repository.select(["STL1001E/raw/all"], "instrument='STL1001E'")

    before = there()
    history = stl.repository.joinpath("campaign", "history.jsonl").read_text()
    flats = sorted(frames("stl1001e").glob("flat*"))
    again = json.loads(done("ingest", stl.repository, *flats, "--camera", "STL1001E", "--type", "flat", "--json"))
    assert (again["new"], len(again["existing"]), again["refused"]) == ([], 10, {})
    assert there() == before
    assert stl.repository.joinpath("campaign", "history.jsonl").read_text() == history


def test_a_flat_without_its_type_is_refused_where_it_is_there_with_one(stl: Observatory, frames: Frames) -> None:
    flat = next(frames("stl1001e").glob("flat*"))
    code, _, messages = campaign("ingest", stl.repository, flat, "--camera", "STL1001E")
    assert code == 1
    assert "is there with observation type 'flat', this file has 'science'" in messages


# Files in any wrapping, and files that cannot be used


def packed(source: Path, folder: Path) -> list[Path]:
    """The frame, and 1 and 2 ADU above it, a second apart: gzipped, plain, and packed by tiles."""
    data, start = unpacked(source)
    values = np.frombuffer(data, ">i2", 1024 * 1024, start)
    texts = []
    for n in (1, 2, 3):
        raised = (values + (n - 1)).astype(">i2").tobytes()
        text = data[:start] + raised + data[start + len(raised) :]
        texts.append(text.replace(b"T20:45:08.464'", f"T20:45:{n:02d}.464'".encode()))
    files = [folder / "one.FIT.gz", folder / "two.fit", folder / "three.fits.fz"]
    files[0].write_bytes(gzip.compress(texts[0], 1))
    files[1].write_bytes(texts[1])
    (folder / "three.fits").write_bytes(texts[2])
    with fitsio.FITS(str(folder / "three.fits")) as file:
        fitsio.write(str(files[2]), file[0].read(), header=file[0].read_header(), compress="rice")
    return files


def test_a_frame_goes_in_however_it_is_packed(frames: Frames, tmp_path: Path) -> None:
    one = frames("stl1001e") / "biases-Neg5-Vis.00000000.BIAS.FIT.gz"
    home = Observatory(tmp_path, "STL1001E")
    home.write_variables("2017-09-08")
    files = packed(one, tmp_path)
    done("ingest", home.repository, *files, "--camera", "STL1001E", "--transfer", "copy")
    for path in files:
        path.unlink()
    home.step("submit", "bps_bias")
    image, _, mask = home.made("bias", "biasGen")
    np.testing.assert_array_equal(image, pixels(one) + 1)
    assert not mask.any()


def test_broken_files_are_named_and_the_others_go_in(frames: Frames, tmp_path: Path) -> None:
    good = frames("stl1001e") / "biases-Neg5-Vis.00000000.BIAS.FIT.gz"
    code, out, _ = campaign("ingest", tmp_path / "repo", frames("broken"), good, "--camera", "STL1001E", "--json")
    answer = json.loads(out)
    assert (code, answer["new"]) == (1, [str(good)])
    why = {Path(path).name: text for path, text in answer["refused"].items()}
    assert sorted(why) == ["Bias_ASIImg_frame0001.fit", "Flat_ASIImg_frame0001.fit"]
    assert "EXPTIME is 3,2E-05" in why["Bias_ASIImg_frame0001.fit"]
    assert "truncated in its data" in why["Flat_ASIImg_frame0001.fit"]


def test_nothing_is_made_where_nothing_can_be_used(frames: Frames, tmp_path: Path) -> None:
    code, _, messages = campaign("ingest", tmp_path / "repo", frames("broken"), "--camera", "STL1001E")
    assert code == 1
    assert "0 ingested, 0 were there, 2 refused" in messages
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize(
    ("camera", "exposures"), [("LSSTCam", [3019032200002, 3021121200310]), ("LSSTComCam", [3019053000001])]
)
def test_samples_of_the_lsst_camera_go_in(
    camera: str, exposures: Sequence[int], frames: Frames, tmp_path: Path
) -> None:
    code, out, _ = campaign("ingest", tmp_path / "repo", frames("lsst_headers"), "--camera", camera, "--json")
    answer = json.loads(out)
    assert code == 1
    refused = {Path(path).name: why for path, why in answer["refused"].items()}
    assert all("a frame of another camera" in why for why in refused.values())
    assert {name for name, why in refused.items() if "LSST-UCDCam" in why} == {
        "2023103100227-R21-S01-det010.fits",
        "3023073000237-R22-S01-det001.fits",
    }
    with open_repository(str(tmp_path / "repo")) as repository:
        found = repository.select([f"{camera}/raw/all"], f"instrument='{camera}'")
    assert [e.id for e in found.exposures] == list(exposures)
    assert len(answer["refused"]) == 5 - len(exposures)


# EFOSC2: binned, a part of the frame, five biases, no darks


@pytest.fixture(scope="module")
def efosc2(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Observatory:
    home = Observatory(tmp_path_factory.mktemp("la silla"), "EFOSC2")
    home.write_variables("2022-01-26")
    done("ingest", home.repository, frames("efosc2"), "--camera", "EFOSC2")
    home.make("bps_bias")
    home.step("submit", "bps_flat_g", "--set", "extraQgraphOptions=--config cpFlatIsr:doDark=false")
    return home


def test_efosc2_agrees_with_numpy(efosc2: Observatory, frames: Frames) -> None:
    lit = (slice(0, 1016), slice(0, 1022))
    biases = stack(sorted(frames("efosc2").glob("EFOSC.2022-01-26T19:0*")))[:, *lit]
    expected, scatter = meanclip(biases)
    image, variance, mask = efosc2.product("bias", "2022-01-28T01:00:00")
    good = mask == 0
    assert good.mean() > 0.99
    np.testing.assert_allclose(image[good], expected[good], rtol=3e-7)
    some = scatter[good] > 0  # equal inputs have the variance that their noise has
    np.testing.assert_allclose(variance[good][some], scatter[good][some] * of_mean(len(biases)), rtol=0.01)
    assert (variance[good] > 0).all()
    sky = stack(sorted(frames("efosc2").glob("EFOSC.2022-01-28*")))[:, *lit] - image
    wanted, _ = meanclip(np.stack([frame / level(frame) for frame in sky]))
    flat, _, bad = efosc2.made("flat", "flatGen-g")
    np.testing.assert_allclose(flat[bad == 0], wanted[bad == 0], rtol=2e-5, atol=2e-5)


def test_a_missing_dark_says_how_to_go_without(efosc2: Observatory) -> None:
    code, out, messages = campaign("check", "bps_flat_g", "--env", efosc2.folder / "variables")
    assert code == 4
    assert "no dark is valid for detector 0" in out + messages
    assert "cpFlatIsr:doDark=false" in out + messages
