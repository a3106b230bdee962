"""The main job, through the command line: from raws to certified calibrations, compared with the truth."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import fitsio
import numpy as np
import pytest

from campaign.butler.repository import Repository, open_repository
from tests.conftest import Demo

pytestmark = pytest.mark.processes

CHAIN = "LSSTComCam/calib/DM-00000"
PIPELINES = "${CP_PIPE_DIR}/pipelines/${INSTRUMENT}"
#: All but the mosaics, which the demo has.
TASKS = {
    "bps_bias": "cpBias.yaml#cpBiasIsr,cpBiasCombine,cpBiasBin8",
    "bps_flat_r": "cpFlat.yaml#cpFlatIsr,cpFlatMeasure,cpFlatNormalize,cpFlatCombine",
}


@pytest.fixture
def repository(demo: Demo) -> Iterator[Repository]:
    with open_repository(str(demo.folder / "repo")) as found:
        yield found


def submitted(demo: Demo, *arguments: str, rerun: str) -> dict[str, Path]:
    """Submit a step into a RUN of its own; give the products' paths by file name up to the run."""
    run = f"LSSTComCam/calib/DM-00000/demo/{rerun}/run"
    chosen = {"outputRun": run, "output": run[:-4], "pipelineYaml": f"{PIPELINES}/{TASKS[arguments[0]]}"}
    answer = demo.run("submit", *arguments, *(word for item in chosen.items() for word in ("--set", "=".join(item))))
    assert answer.returncode == 0, answer.stderr
    with open_repository(str(demo.folder / "repo")) as found:
        names = ("bias", "dark", "flat", "biasBin8", "postISRCCD")
        return {
            f"{name} {d.data_id.get('exposure', '')} {d.data_id['detector']}": Path(d.path)
            for name in names
            for d in found.datasets(name, [run])
        }


@pytest.mark.parametrize("name", ["bias", "dark", "flat"])
def test_the_demo_agrees_with_the_truth(demo: Demo, name: str) -> None:
    product = demo.products[name]
    assert product["detectors"] == 9
    assert product["good_pixels"] > 0.99 * 9 * 248 * 250
    assert 0.97 <= product["rms_z"] <= 1.03
    assert product["frac_gt5"] <= 2e-5
    assert product["max_abs_amp_mean_z"] < 5
    assert product["defects_showing"] == 0
    assert product["seconds"] > 0


def test_the_demo_prints_one_document_and_nothing_else(demo: Demo) -> None:
    document = json.loads(demo.answer.stdout)
    assert list(document) == ["products"]
    assert [p["name"] for p in document["products"]] == ["bias", "dark", "flat"]


def test_the_demo_refuses_a_folder_that_is_in_use(demo: Demo) -> None:
    answer = demo.run("demo", str(demo.folder))
    assert answer.returncode == 2
    assert "not an empty folder" in answer.stderr


def test_pictures_show_the_focal_plane(demo: Demo) -> None:
    from PIL import Image

    pictures = sorted(demo.folder.rglob("pictures/*.png"))
    assert {p.stem for p in pictures} == {f"{k}Mosaic{n}" for k in ("bias", "dark", "flat") for n in (8, 64)}
    for path in pictures:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50, path


def test_find_first_gives_the_certified_calibrations(repository: Repository) -> None:
    for name in ("bias", "dark", "flat"):
        data_id = {"instrument": "LSSTComCam", "detector": 4, "physical_filter": "r_03"}
        found = repository.find_dataset(name, data_id, [CHAIN], "2024-12-20T00:00:00", "2024-12-20T00:01:00")
        assert found is not None
        assert f"/{name}Gen" in found.run
        assert repository.find_dataset(name, data_id, [CHAIN], "2024-11-01T00:00:00", "2024-11-01T00:01:00") is None


def test_products_do_not_depend_on_the_number_of_ranks(demo: Demo) -> None:
    where = f"dataQuery={demo.variables['SELECTION_BIAS']} and detector in (0, 4, 8)"
    group = ("--set", "outputGroup=daemon") if os.getuid() == 0 else ()  # only root may give files to another
    one = submitted(demo, "bps_bias", "--ranks", "1", "--set", where, rerun="ranks1")
    four = submitted(
        demo, "bps_bias", "--ranks", "4", "--set", where, "--set", "outputMode=0640", *group, rerun="ranks4"
    )
    assert one.keys() == four.keys()
    assert sum(key.startswith("bias ") for key in one) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in four.values()} == {0o640}
    assert not group or {path.group() for path in four.values()} == {"daemon"}
    for key, path in one.items():
        for hdu in ("IMAGE", "MASK", "VARIANCE") if key.startswith("bias ") else ("IMAGE",):
            assert fitsio.read(path, hdu).tobytes() == fitsio.read(four[key], hdu).tobytes(), (key, hdu)


def test_a_flat_normalised_by_amplifier_agrees_with_the_truth_as_well(demo: Demo) -> None:
    """Each amplifier's mean is that of the truth, up to one factor, within 0.01 % rms."""
    level = "extraQgraphOptions=--config cpFlatNormalize:level=AMP --config cpFlatCombine:scalingLevel=AMP"
    made = submitted(demo, "bps_flat_r", "--set", level, rerun="amplifiers")
    ratios = []
    for key, path in made.items():
        detector = json.loads((demo.folder / "repo-truth" / "job" / "simulate.json").read_text())["camera"]
        (ccd,) = [d for d in detector["detectors"] if d["id"] == int(key.split()[-1])]
        truth = demo.folder / "repo-truth" / f"{ccd['name']}.fits"
        good = (fitsio.read(path, "MASK") == 0) & (fitsio.read(truth, "DEFECTS") == 0)
        ratio = fitsio.read(path, "IMAGE") / fitsio.read(truth, "RESPONSE_r_03")
        for amplifier in detector["types"][ccd["type"]]["amplifiers"]:
            x0, y0, nx, ny = amplifier["target"]
            at = slice(y0, y0 + ny), slice(x0, x0 + nx)
            ratios.append(ratio[at][good[at]].mean())
    assert len(ratios) == 9 * 16
    assert np.std(ratios) / np.mean(ratios) < 1e-4


def test_corrected_frames_are_written_where_a_pipeline_asks(demo: Demo) -> None:
    """Two detectors' quanta through Dask; their clipped mean is the bias that the same step combined."""
    where = f"{demo.variables['SELECTION_BIAS']} and detector in (0, 8)"
    option = "extraQgraphOptions=--config cpBiasIsr:doWrite=true"
    made = submitted(demo, "bps_bias", "--set", option, "--set", f"dataQuery={where}", rerun="quanta")
    assert sum(key.startswith("postISRCCD") for key in made) == 20
    for detector in ("0", "8"):
        frames = [fitsio.read(p, "IMAGE") for k, p in made.items() if k.startswith("post") and k.endswith(detector)]
        combined = fitsio.read(made[f"bias  {detector}"], "IMAGE")
        inside = (combined >= np.min(frames, axis=0)) & (combined <= np.max(frames, axis=0))
        assert inside.all()
        assert abs(float((combined - np.median(frames, axis=0)).mean())) < 0.05


def test_a_dry_run_writes_nothing(demo: Demo) -> None:
    before = sorted(demo.folder.rglob("*"))
    answer = demo.run("submit", "bps_dark", "--dry-run")
    assert answer.returncode == 0, answer.stderr
    assert "cpDarkCombine" in answer.stdout
    assert "cpDarkIsr" in answer.stdout
    assert sorted(demo.folder.rglob("*")) == before


def test_check_says_what_a_submission_would_take(demo: Demo) -> None:
    answer = demo.run("check", "bps_flat_r", "--json", "--levels")
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["problems"] == []
    assert found["levels"] == []
    assert found["raws"] == 90
    assert found["detectors"] == list(range(9))
    assert sum(e["exposures"] for e in found["exposures"]) == 10
    assert {e["physical_filter"] for e in found["exposures"]} == {"r_03"}
    assert [c["label"] for c in found["cost"]][:3] == ["cpFlatMeasure", "cpFlatNormalize", "cpFlatCombine"]


def test_status_lists_the_runs_newest_last(demo: Demo) -> None:
    runs = json.loads(demo.run("status", "--json").stdout)["runs"]
    assert [r["template"] for r in runs[:3]] == ["bps_bias.yaml", "bps_dark.yaml", "bps_flat_r.yaml"]
    assert {r["state"] for r in runs} == {"done"}
    assert runs[0]["published"] == 11
    assert sorted(r["run"] for r in runs) == [r["run"] for r in runs]


def test_history_is_what_the_ticket_wants_to_know(demo: Demo) -> None:
    text = demo.run("history", "DM-00000").stdout
    assert text.startswith("# DM-00000\n")
    assert "exposure.observation_type='dark'" in text
    assert "2024120600001" in text
    assert "lsst-daf-butler" in text
    assert text.index("submit") < text.index("certify")
    assert demo.run("history", "DM-99999").returncode == 2


def test_a_run_keeps_what_it_was_decided_from(demo: Demo) -> None:
    folder = next(p.parent for p in demo.folder.rglob("plan.json") if "darkGen" in str(p))
    assert "darkGen" in (folder / "config.yaml").read_text()
    variables = json.loads((folder / "env.json").read_text())["variables"]
    assert variables["TICKET"] == "DM-00000"
    events = [json.loads(line) for p in (folder / "journal").glob("*.jsonl") for line in p.read_text().splitlines()]
    assert {e["v"] for e in events} == {1}
    published = [e for e in events if e["event"] == "published"]
    assert len(published) == 11
    for output in (v for e in published for v in e["detail"].values() if isinstance(v, dict)):
        assert Path(output["path"]).stat().st_size == output["bytes"]
    lines = (folder / "inputs.csv").read_text().splitlines()
    assert lines[0] == (
        "exposure,detector,amplifier,level,noise,saturated,overscan,"
        "noise_error,shape,shape_error,constant,rejected,blank,same_as"
    )
    assert len(lines) == 1 + 10 * 9 * 16


def test_the_header_of_a_dark_tells_where_it_comes_from(repository: Repository) -> None:
    data_id = {"instrument": "LSSTComCam", "detector": 3}
    begin = "2024-12-08T22:00:00"
    dark = repository.find_dataset("dark", data_id, [CHAIN], begin, begin)
    bias = repository.find_dataset("bias", data_id, [CHAIN], begin, begin)
    assert dark is not None
    assert bias is not None
    header = repository.get(dark).header
    assert header["CALIB_BIAS_ID"] == bias.dataset_id
    assert header["CALIB_BIAS_RUN"] == bias.run
    assert header["CALIB_BIAS_BEGIN"] == "2024-12-01T00:00:00"
    assert header["BUNIT"] == "electron/s"
    assert header["CALUNIT"] == "electron"
    assert header["NINPUTS"] == 10
    assert header["CPP_INPUT_0"] == 2024120600006
    assert header["CPP_INPUT_SCALE_0"] == pytest.approx(30.05)
    assert (header["STATISTC"], header["CLIPSIG"], header["CLIPPASS"]) == ("MEANCLIP", 3.0, 3)
    assert header["GAINS_FROM"] == "camera file"
    assert header["OUT_RUN"] == dark.run


def test_a_mode_that_is_none_is_refused(demo: Demo) -> None:
    answer = demo.run("submit", "bps_bias", "--set", "outputMode=rw")
    assert answer.returncode == 3
    assert "outputMode 'rw' is not octal" in answer.stderr


def test_the_next_plan_is_estimated_by_what_was_seen(demo: Demo) -> None:
    """Twice the frames take twice the CPU; memory has its margin; the operator's values have priority."""
    whole = demo.run("check", "bps_bias", "--json")
    (cost,) = [c for c in json.loads(whole.stdout)["cost"] if c["label"] == "cpBiasCombine"]
    lines = [json.loads(line) for line in (demo.folder / "repo" / "campaign" / "usage.jsonl").read_text().splitlines()]
    seen = [line for line in lines if line["label"] == "cpBiasCombine" and line["tasks"] == 9]
    assert seen and cost["seen"] >= 1
    assert cost["rank_mib"] > max(line["rss_mib"] for line in seen[-1:])
    fewer = f"dataQuery={demo.variables['SELECTION_BIAS']} and exposure.day_obs=20241206"
    half = demo.run("check", "bps_bias", "--json", "--set", fewer)
    (less,) = [c for c in json.loads(half.stdout)["cost"] if c["label"] == "cpBiasCombine"]
    assert less["cpu_seconds"] == pytest.approx(cost["cpu_seconds"] / 2)
    asked = json.loads(whole.stdout)["requests"]["cpBiasCombine"]
    assert asked["memory_mib"] == max(256, cost["rank_mib"])
    assert asked["minutes"] >= 10
    own = demo.run("check", "bps_bias", "--json", "--set", "requestMemory=3000", "--set", "requestWalltime=77")
    assert json.loads(own.stdout)["requests"]["cpBiasCombine"] == {"memory_mib": 3000, "cores": 1, "minutes": 77}
    shown = demo.run("check", "bps_bias")
    assert "asks for MiB" in shown.stdout and " run" in shown.stdout
