"""Frames as a small observatory may have them, from ingest to a flat: odd files and paths, a clock that stops."""

from __future__ import annotations

import bz2
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from astropy.io import fits
from lsst.daf.butler import Butler
from numpy.typing import NDArray

from campaign.butler.repository import open_repository
from tests.campaign.test_real_frames import campaign, done
from tests.kernels import fitsforms
from tests.kernels.fitsforms import BLOCK, EMPTY, HEIGHT, SHAPE, WIDTH

pytestmark = pytest.mark.processes

Pixels = NDArray[np.int64]
DATA = 32
BEGIN = "2024-12-08T21:03:12"
FILTER = "B [OIII] #1"


def camera(exposure_ids: str) -> dict[str, Any]:
    """A camera with keywords in its extension, and an overscan on the right."""
    amplifier = {
        "name": "A", "hdu": "AMP", "raw": [WIDTH, HEIGHT], "data": f"[1:{DATA},1:{HEIGHT}]",
        "serial_overscan": f"[{DATA + 1}:{WIDTH},1:{HEIGHT}]", "target": f"[1:{DATA},1:{HEIGHT}]",
    }  # fmt: skip
    kind = {"size": [DATA, HEIGHT], "pixel_um": 10, "adc_max": 65535, "signed": True, "amplifiers": [amplifier]}
    return {
        "version": 1, "name": "Odd", "unit": "adu",
        "filters": [{"name": FILTER, "band": "g"}, {"name": "unknown", "band": "unknown"}],
        "translation": {
            "accept": {"INSTRUME": ["Odd"]}, "clock": "utc", "exposure_ids": exposure_ids, "headers": ["AMP"],
            "keywords": {
                "observation_type": ["HIERARCH ESO DPR TYPE"], "exposure_time": ["EXPTIME"], "begin": ["DATE-OBS"],
                "seq_num": ["FRAMENO"], "physical_filter": ["FILTER"], "day_obs": ["NIGHT"],
            },
            "types": [{"type": kind, "when": {"observation_type": kind}} for kind in ("bias", "flat")],
        },
        "types": {"T": kind},
        "detectors": [{"id": 0, "name": "D", "type": "T", "gains": [1.5], "read_noises": [5.0]}],
    }  # fmt: skip


def cards(number: int, kind: str = "bias", **changes: Any) -> dict[str, Any]:
    """A frame's keywords."""
    said = {
        "EXTNAME": "Amp",
        "INSTRUME": "Odd",
        "FRAMENO": number,
        "DATE-OBS": BEGIN,
        "EXPTIME": 0.0 + (kind == "flat"),
    }
    eso = {"HIERARCH": f" ESO DPR TYPE = '{kind}'"}
    return said | eso | ({"FILTER": FILTER} if kind == "flat" else {}) | changes


def pixels(number: int, light: float = 0.0) -> Pixels:
    found = np.random.default_rng(number).normal(1000, 5, SHAPE).round().astype(np.int64)
    found[:, :DATA] += np.random.default_rng(100 + number).poisson(light, (HEIGHT, DATA))
    return found


def plain(number: int, values: Pixels, bits: int = 16, more: dict[str, Any] | None = None, **said: Any) -> bytes:
    header = fitsforms.header(fitsforms.extension(bits, SHAPE, {**(more or {}), **cards(number, **said)}))
    return EMPTY + header + fitsforms.padded(fitsforms.stored(values, fitsforms.KINDS[bits]))


def packed(number: int, values: Pixels) -> bytes:
    """Compressed by tiles of several rows, the keywords beside."""
    made = fitsforms.by_astropy(values.astype(np.int32), compression_type="GZIP_1", tile_shape=(3, 11))
    at = made.index(b"END" + b" " * 77, BLOCK)
    said = [fitsforms.card(key, value) for key, value in cards(number).items()]
    header = made[BLOCK:at].replace(fitsforms.card("EXTNAME", "A"), b"")
    data = made[-(-(at + 80) // BLOCK) * BLOCK :]
    whole = [header[k : k + 80] for k in range(0, len(header), 80) if header[k : k + 7] != b"EXTNAME"]
    return EMPTY + fitsforms.header([*whole, *said]) + data


@dataclass(frozen=True)
class Night:
    """Places, pixels of the biases (NaN where blank), and output of the ingest."""

    repository: Path
    variables: Path
    biases: NDArray[np.float64]
    flats: NDArray[np.float64]
    answer: dict[str, Any]
    code: int


def good(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Write a frame of every kind; the biases' and the flats' pixels, NaN where blank."""
    biases = [pixels(n) for n in range(1, 9)]
    blank, wrapped = biases[0].copy(), biases[1].copy()
    blank[3, 4], wrapped[5, 6] = -32768, 4294950308
    used = 2 * HEIGHT * WIDTH
    files = {
        "blank.fits": plain(1, blank, more={"BLANK": -32768}),
        "wrapped (uint32).fits": plain(2, wrapped - (1 << 31), 32, {"BZERO": 1 << 31}),
        "unpadded+1.fits": plain(3, biases[2])[: -(-used // BLOCK) * -BLOCK + used],
        "and more[1].fits": plain(4, biases[3]) + b"x" * 1440,
        "members.fit.gz": (lambda d: gzip.compress(d[:7000]) + gzip.compress(d[7000:]))(plain(5, biases[4])),
        "bzip2.fits": bz2.compress(plain(6, biases[5])),
        "floats.fits": plain(7, biases[6], -32),
        "tiles.fits.fz": packed(8, biases[7]),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    cube = np.array(biases, np.float64)
    cube[0, 3, 4] = cube[1, 5, 6] = np.nan  # the negative number is an outlier
    flats = [pixels(n, 5000.0) for n in range(11, 14)]
    for n, values in enumerate(flats, 11):
        (folder / f"flat {n}.fits").write_bytes(plain(n, values, kind="flat"))
    return cube, np.array(flats, np.float64)


#: Fault of a frame, and the message about it.
BAD = {
    "year 1": (plain(21, pixels(1), **{"DATE-OBS": "0001-01-01T00:00:00"}), "holds the years 1971 to 2098"),
    "year 9999": (plain(22, pixels(1), **{"DATE-OBS": "9999-12-31T23:59:59"}), "holds the years 1971 to 2098"),
    "no time": (plain(23, pixels(1), **{"DATE-OBS": "2024-W49-7T21"}), "not a date and time"),
    "too long": (plain(24, pixels(1), EXPTIME=1e30), "EXPTIME is 1e+30 seconds: no exposure lasts 3.17e+22 years"),
    "underscore": (plain(25, pixels(1), EXPTIME="1_0"), "EXPTIME is '1_0', not a number of seconds"),
    "infinite": (plain(26, pixels(1), EXPTIME="inf"), "EXPTIME is 'inf', not a number of seconds"),
    "fractions": (
        plain(27, pixels(1) + np.float64(0.5), -32),
        "HDU Amp holds float32, and 960 of 960 pixels are no whole",
    ),
    "row short": (plain(28, pixels(1))[: -(-2 * HEIGHT * WIDTH // BLOCK) * -BLOCK + 100], "truncated in its data"),
    "name twice": (plain(29, pixels(1)) + plain(29, pixels(1))[BLOCK:], "HDU AMP: HDUs 1, 2 have that name"),
    "compress": (b"\x1f\x9d\x90" + bytes(100), "unpack it with uncompress"),
}


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    home = tmp_path_factory.mktemp("odd") / "proj [A]"
    raws = home / "night [1]"
    raws.mkdir(parents=True)
    (home / "camera.yaml").write_text(yaml.safe_dump(camera("numbered")))
    biases, flats = good(raws)
    for name, (data, _) in BAD.items():
        (raws / f"bad {name}.fits").write_bytes(data)
    code, out, messages = campaign("ingest", home / "repo", raws, "--camera", home / "camera.yaml", "--json")
    assert out, messages
    said = {
        "INSTRUMENT": "Odd", "TICKET": "T-1", "TAG": "a", "RERUN": "r", "CERT_RERUN": "r", "USER_CALIB_PREFIX": "",
        "START_DATE": "2024-12-08T00:00:00", "REPO": str(home / "repo"), "SCRATCH": str(home / "scratch [1]"),
        "RAW_COLLECTION": "Odd/raw/all", "CALIB_COLLECTIONS": "Odd/calib",
        "SELECTION_BIAS": "instrument='Odd' and exposure.observation_type='bias'",
        "SELECTION_FLAT_g": "instrument='Odd' and exposure.observation_type='flat'",
    }  # fmt: skip
    variables = home / "variables"
    variables.write_bytes(b"\xef\xbb\xbf" + "".join(f'export {k}="{v}"\r\n' for k, v in said.items()).encode())
    return Night(home / "repo", variables, biases, flats, json.loads(out), code)


def test_each_bad_frame_is_refused_for_its_own_reason_and_no_other(night: Night) -> None:
    why = {Path(path).stem.removeprefix("bad "): text for path, text in night.answer["refused"].items()}
    assert night.code == 1
    assert {name: BAD[name][1] in text for name, text in why.items()} == dict.fromkeys(BAD, True), why
    assert len(night.answer["new"]) == 11
    notes = {Path(path).name: text for path, text in night.answer["notes"].items()}
    assert notes == {"and more[1].fits": "1440 bytes after its last HDU are not read"}


def made(night: Night, kind: str) -> Path:
    (path,) = night.repository.rglob(f"{kind}_*.fits")
    return path


def signal(cube: NDArray[np.float64]) -> NDArray[np.float64]:
    """Data above the median of the overscan less its first three columns."""
    return np.asarray((cube - np.nanmedian(cube[:, :, DATA + 3 :], axis=2, keepdims=True))[:, :, :DATA])


def test_products_are_made_of_them_and_read_back(night: Night) -> None:
    """The bias is the mean of the pixels that are not blank; the flat's path has the filter's brackets."""
    done("submit", "bps_bias", "--env", night.variables, "--set", "extraQgraphOptions=--config cpBiasCombine:clip=99.0")
    with fits.open(made(night, "bias")) as hdus:
        image, mask, blank = hdus["IMAGE"].data.copy(), hdus["MASK"].data.copy(), hdus[0].header["NBLANK"]
    np.testing.assert_allclose(image, np.nanmean(signal(night.biases), axis=0), rtol=1e-5, atol=2e-3)
    assert not mask.any() and blank == 1
    done("certify", "bps_bias", "--env", night.variables)
    done(
        "submit", "bps_flat_g", "--env", night.variables, "--set", "extraQgraphOptions=--config cpFlatIsr:doDark=false"
    )
    flat = made(night, "flat")
    assert "[" in str(flat.parent)
    butler = Butler.from_config(str(night.repository), instrument="Odd", collections=["Odd/calib/T-1/a/flatGen-g.r"])
    read = butler.get("flat", detector=0, physical_filter=FILTER)
    level = signal(night.flats) - image
    np.testing.assert_allclose(read.image, np.mean(level / level.mean(axis=(1, 2), keepdims=True), axis=0), atol=0.02)
    with fits.open(flat) as hdus:
        assert hdus["IMAGE"].data.tobytes() == read.image.astype(">f4").tobytes()


def test_the_butler_reads_every_raw(night: Night) -> None:
    butler = Butler.from_config(str(night.repository), instrument="Odd", collections=["Odd/raw/all"])
    with open_repository(str(night.repository)) as repository:
        raws = repository.select(["Odd/raw/all"], "instrument='Odd'")
    assert [e.seq_num for e in raws.exposures] == [*range(1, 9), *range(11, 14)]
    assert [e.id for e in raws.exposures] == [241208210312000 + e.seq_num for e in raws.exposures]
    for raw in raws.raws:
        found = butler.get("raw", exposure=raw.exposure, detector=0)
        (image,) = found.images.values()
        assert "COMPRESSED_IMAGE" not in found.images  # a primary image of fpack
        number = raw.exposure % 1000
        expected = night.biases[number - 1] if number < 10 else night.flats[number - 11]
        good = np.isfinite(expected) & (expected > 0)
        np.testing.assert_array_equal(image[good], expected[good])


def test_exposures_of_one_time_are_told_what_to_do(night: Night, tmp_path: Path) -> None:
    """Without the frame's number; a summary of an empty repository says why it is empty."""
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump(camera("timestamp")))
    files = [night.repository.parent / "night [1]" / f"flat {n}.fits" for n in (11, 12)]
    bad = night.repository.parent / "night [1]" / "bad too long.fits"
    new = tmp_path / "repo"
    code, _, messages = campaign("ingest", new, bad, "--camera", tmp_path / "camera.yaml", "--summary")
    assert code == 1 and "EXPTIME is 1e+30" in messages and "Traceback" not in messages
    assert not new.exists()
    code, _, messages = campaign("ingest", new, *files, "--camera", tmp_path / "camera.yaml")
    assert code == 1
    assert "1 ingested, 0 were there, 1 refused" in messages
    assert "the id is made of DATE-OBS to the millisecond; exposure_ids: numbered in the camera file" in messages
