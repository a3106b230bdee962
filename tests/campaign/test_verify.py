"""Bias, dark and flat are verified by commands: a healthy product passes, a fault is named by test and amplifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler import Butler

from tests.campaign.test_science import World, simulated
from tests.conftest import ROOT

pytestmark = pytest.mark.processes

PLAN = ROOT / "tests" / "data" / "plan_verify.yaml"
TAG = "LSSTComCam/calib/DM-1000/T"
INPUTS = "LSSTComCam/calib/DM-1000,LSSTComCam/raw/all,LSSTComCam/calib/DM-999"
DEAD = "R22_S00 C03"
LATER = "instrument='LSSTComCam' and exposure.observation_type='bias' and exposure.day_obs=20241208"


def made(world: World, *steps: str) -> World:
    """Submit steps, each certified but for the last."""
    for n, step in enumerate(steps):
        for verb in ("submit", "certify")[: 2 if n + 1 < len(steps) else 1]:
            code, said = world.run(verb, f"bps_{step}")
            assert code == 0, said
    return world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two detectors, one with a dead amplifier, and their bias, which is not certified."""
    folder = tmp_path_factory.mktemp("verify")
    return made(simulated(folder, "--detector", "0", "--detector", "4", plan=PLAN), "bias")


def verified(world: World, name: str, *words: str, **more: str) -> tuple[int, str]:
    """Verify the bias whose RUN stands first in the inputs, into a RUN of a name."""
    chosen = {"outputRun": f"{TAG}/{name}/run", "output": f"{TAG}/{name}", "submitPath": str(world.folder(name))}
    chosen["inCollection"] = f"{TAG}/biasGen.20250207a,{INPUTS}"
    settings = [word for item in chosen.items() for word in ("--set", "=".join(item))]
    return world.run("submit", "bps_verify_bias", *settings, *words, **more)


def places(said: str) -> set[str]:
    """Tests that fail, with their places, as they are said."""
    return {line[12:].split(": ")[0] for line in said.splitlines() if line.startswith("fail  ")}


def verdict(said: str) -> dict[str, Any]:
    """Take the verdict from the last JSON line."""
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    (found,) = (line["detail"] for line in lines if line["event"] == "verdict")
    assert isinstance(found, dict)
    return found


def test_a_healthy_bias_passes_before_it_is_certified(world: World) -> None:
    alone = f"({world.variables['SELECTION_BIAS_V']}) and detector=4"
    code, said = verified(world, "healthy", SELECTION_BIAS_V=alone)
    assert code == 0, said
    assert f"verified    bias of {TAG}/biasGen.20250207a/" in said
    assert "by 20 construction, 10 independent; limits ours\nverdict     pass: " in said
    assert "\nno value  " not in said and places(said) == set()
    with Butler.from_config(str(world.repo)) as butler:
        where = {"instrument": "LSSTComCam", "detector": 4, "collections": f"{TAG}/healthy/run"}
        table = butler.get("verifyBiasRows", **where)
    noise = table[table["metric"] == "NOISE"]
    assert len(noise) == 30 * 16 and set(noise["role"]) == {"construction", "independent"}
    assert abs(float((noise["value"] / noise["expected"]).mean()) - 1) < 0.005


def test_a_growing_read_noise_is_named_by_test_and_amplifier(world: World) -> None:
    code, said = verified(world, "noisy", "--json", SELECTION_BIAS_V=LATER)
    assert code == 0, said
    found = verdict(said)
    assert (found["verdict"], found["exposures"]) == ("fail", {"independent": 10})
    named = {(one["test"], one["where"]) for one in found["findings"] if one["verdict"] == "fail"}
    assert {("NOISE", "R22_S11 C10"), ("READ_NOISE", "R22_S11 C10")} <= named
    assert {where for _, where in named} == {"R22_S11 C10", DEAD} and found["no_value"].keys() == {DEAD}
    assert {test for test, where in named if where == DEAD} == {"FRAC", "MASKED"}
    (line,) = (line for line in found["lines"] if line["test"] == "NOISE" and line["amplifier"] == "C10")
    assert line["beyond"] == 10 and 1.25 < line["value"] / line["expected"] < 1.35


def test_limits_are_the_operators(world: World, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    text = "version: 1\nname: mine\ntests:\n  NOISE:\n    - {fail: [-1, 1], why: wide}\n"
    mine.write_text(text)
    code, said = verified(world, "mine", "--limits", str(mine), SELECTION_BIAS_V=LATER)
    assert code == 0 and "limits mine\nverdict     fail: " in said and "fail        NOISE bias" in said, said
    mine.write_text(text.replace("[-1, 1]", "[-1, 3]"))
    code, said = verified(world, "wide", "--limits", str(mine), SELECTION_BIAS_V=LATER)
    assert code == 0 and "limits mine\nverdict     warn: 32 lines: 31 pass, 0 warn, 1 no value" in said, said
    mine.write_text(text.replace("NOISE", "NOISY"))
    code, said = verified(world, "refused", "--limits", str(mine))
    assert code == 3 and "unknown test NOISY" in said and not world.folder("refused").exists()
    code, said = world.run("submit", "bps_bias", "--limits", "upstream")
    assert code == 2 and "--limits upstream: bias is made, not verified" in said


def test_dark_and_flat_are_verified_and_a_dead_amplifier_is_named(world: World) -> None:
    code, said = world.run("certify", "bps_bias")
    assert code == 0, said
    made(world, "dark", "flat_r")
    code, said = world.run("submit", "bps_verify_dark", "--json")
    assert code == 0 and {one["where"] for one in verdict(said)["findings"] if one["verdict"] == "fail"} == {DEAD}
    code, said = world.run("certify", "bps_flat_r")
    assert code == 0, said
    code, said = world.run("submit", "bps_verify_flat_r")
    assert code == 0, said
    assert f"no value    {DEAD}: " in said
    assert all(place.endswith(f", {DEAD}") for place in places(said)), said
