"""Items 16, 17 and 18: frames and calibrations that are damaged, another's, or full of NaN."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import fitsio
import numpy as np
import pytest

from tests.conftest import soak
from tests.faults.conftest import CALIB, Answer, Operator, altered


@pytest.fixture
def bias(operator: Operator) -> Path:
    """The certified bias of detector 1, found in the chain ``.../data``."""
    chain = f"{CALIB}/data"
    if not operator.products("data"):
        assert operator.submit("data").code == 0
        assert operator.run("certify", "bps_bias", "--chain", chain, TAG="data").code == 0
    return next(p for p in operator.products("data") if p.name.startswith("bias_LSSTComCam_R22_S01"))


def dark(operator: Operator, tag: str, *more: str) -> Answer:
    """Make a dark with that bias."""
    more = ("--ranks", "1", *more)
    return operator.run("submit", "bps_dark", *more, TAG=tag, CALIB_COLLECTIONS=f"{CALIB}/data")


def flipped(path: Path) -> None:
    """Change one bit in the middle of the image."""
    with fitsio.FITS(str(path)) as fits:
        place = fits["IMAGE"].get_offsets()
    content = bytearray(path.read_bytes())
    content[(place["data_start"] + place["data_end"]) // 2] ^= 1
    path.write_bytes(content)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


@pytest.mark.parametrize("damage", [flipped, soak(truncated)])
def test_item_16_a_calibration_is_damaged(operator: Operator, bias: Path, damage: Callable[[Path], None]) -> None:
    with altered(bias):
        damage(bias)
        answer = dark(operator, f"dark-{damage.__name__}")
    assert answer.code == 1
    assert f"cpDarkCombine:1 failed: {bias}: " in answer.err
    assert "1 problem" not in answer.err
    failed = [e for e in operator.events(f"dark-{damage.__name__}") if e["event"] == "failed" and e["task"]]
    assert {e["task"]: e["detail"]["cause"] for e in failed} == {"cpDarkCombine:1": "data"}


def test_item_17_a_frame_of_another_detector_in_the_place_of_one(operator: Operator) -> None:
    """The file has the right size and shape; its header names its detector."""
    own, other = operator.raw(0, 0), operator.raw(0, 1)
    with altered(own):
        shutil.copy(other, own)
        answer = operator.submit("exchanged")
    assert answer.code == 1
    assert (
        f"cpBiasCombine:0 failed: {own}: is a frame of detector R22_S01, it was ingested as one of R22_S00"
        in answer.err
    )
    assert {p.name.split("_")[3] for p in operator.products("exchanged") if p.name.startswith("bias_")} == {"S01"}
    failed = [event["detail"] for event in operator.events("exchanged") if event["task"] == "cpBiasCombine:0"][-1]
    assert failed["cause"] == "data"


def poisoned(path: Path, share: float) -> None:
    """Replace the first rows of a calibration by values that are no numbers, with valid checksums."""
    with fitsio.FITS(str(path), "rw") as fits:
        image = fits["IMAGE"].read()
        rows = max(1, round(share * image.shape[0]))
        image[:rows] = np.nan
        image[rows - 1, 0] = np.inf
        fits["IMAGE"].write(image)
        fits["IMAGE"].write_checksum()


def test_item_18_what_is_no_number_is_masked_and_counted(operator: Operator, bias: Path) -> None:
    with altered(bias):
        poisoned(bias, 0.0)
        answer = dark(operator, "some-nan")
    assert answer.code == 0, answer.err
    made = {p.name[:25]: p for p in operator.products("some-nan") if p.name.startswith("dark_")}
    image, mask = (fitsio.read(str(made["dark_LSSTComCam_R22_S01_L"[:25]]), ext=name) for name in ("IMAGE", "MASK"))
    assert np.isfinite(image).all()
    assert (mask[0] == 1).all() and not mask[1:].any()
    counted = {e["task"]: e["detail"]["bad_pixels"] for e in operator.events("some-nan") if "bad_pixels" in e["detail"]}
    assert counted == {"cpDarkCombine:0": 0, "cpDarkCombine:1": image.shape[1]}


def test_item_18_too_much_of_it_is_an_error(operator: Operator, bias: Path) -> None:
    with altered(bias):
        poisoned(bias, 0.6)
        answer = dark(operator, "much-nan")
        more = dark(operator, "more-nan", "--set", "extraQgraphOptions=--config cpDarkCombine:maxBadFraction=0.7")
    assert answer.code == 1
    assert "cpDarkCombine:1 failed: detector R22_S01: " in answer.err
    assert f" % of its pixels have no good value, maxBadFraction is 0.5; applied: {bias}" in answer.err
    assert more.code == 0, more.err
