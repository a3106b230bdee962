"""Resolving templates: search, merging of layers, properties of a step."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from campaign.problems import Problems
from campaign.template.environment import render
from campaign.template.resolve import StepConfig, resolve
from templates import ROOT

ENVIRONMENT = {
    "USER": "jdoe",
    "INSTRUMENT": "LSSTComCam",
    "TICKET": "DM-48520",
    "TAG": "DP1",
    "RERUN": "20250207a",
    "REPO": "/repo/main",
    "RAW_COLLECTION": "LSSTComCam/raw/all",
    "CALIB_COLLECTIONS": "",
    "USER_CALIB_PREFIX": "",
    "SCRATCH": "/scratch/dp1",
    "SELECTION_BIAS": "instrument='LSSTComCam' and exposure.observation_type='bias'",
    "SELECTION_DARK": "exposure=1",
    "SELECTION_FLAT_g": "exposure=1 or exposure=2",
}
NOW = datetime(2021, 11, 17, 15, 50, 8, tzinfo=UTC)
MINIMAL = """\
pipelineYaml: p.yaml
submitPath: /s
payload: {payloadName: n, butlerConfig: r, inCollection: a/b, output: o, dataQuery: exposure=1}
"""


def make(folder: Path, text: str, name: str = "t.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_packaged_bias() -> None:
    step = resolve("bps_bias", ENVIRONMENT, now=NOW)
    base = "LSSTComCam/calib/DM-48520/DP1/biasGen.20250207a"
    assert step.path == step.again == str(ROOT / "cp_pipe/bps/templates/bps_bias.yaml")
    assert (step.output, step.output_run) == (base, f"{base}/20211117T155008Z")
    assert step.in_collections == ("LSSTComCam/calib/DM-48520", "LSSTComCam/raw/all")
    assert step.pipeline_yaml == f"{ROOT}/cp_pipe/pipelines/LSSTComCam/cpBias.yaml"
    assert step.submit_path == f"/scratch/dp1/submit/{base}/20211117T155008Z"
    assert (step.instrument, step.ticket, step.operator, step.timestamp) == (
        "LSSTComCam",
        "DM-48520",
        "jdoe",
        "20211117T155008Z",
    )
    assert step.data_query == ENVIRONMENT["SELECTION_BIAS"]
    assert step.variables["CP_PIPE_DIR"] == str(ROOT / "cp_pipe")
    assert step.warnings == ()
    assert {key: step.origins[key] for key in ("payload.dataQuery", "requestMemory", "timestamp", "operator")} == {
        "payload.dataQuery": "bps_bias.yaml:13",
        "requestMemory": "packaged defaults",
        "timestamp": "generated",
        "operator": "environment",
    }


@pytest.mark.parametrize("name", ["bps_flat_g", "bps_flat_g.yaml", f"{ROOT}/cp_pipe/bps/templates/bps_flat_g.yaml"])
def test_one_source_serves_all_bands(name: str) -> None:
    step = resolve(name, ENVIRONMENT)
    assert step.name == "bps_flat_g.yaml"
    assert Path(step.path).name == "bps_flat.yaml.j2"
    assert step.output == "LSSTComCam/calib/DM-48520/DP1/flatGen-g.20250207a"
    assert step.data_query == "(exposure=1 or exposure=2) and band='g'"
    assert "SELECTION_FLAT_g" in step.variables
    assert resolve(step.again, ENVIRONMENT).name == step.name  # as by a restart, and a driver in the background


@pytest.mark.parametrize("name", ["bps_bias", "bps_dark", *(f"bps_flat_{band}" for band in "ugrizy")])
def test_every_packaged_template_resolves(name: str) -> None:
    selections = {f"SELECTION_FLAT_{band}": "exposure=1" for band in "ugrizy"}
    assert resolve(name, ENVIRONMENT | selections).warnings == ()


def test_the_working_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, MINIMAL, "bps_bias.yaml")
    monkeypatch.chdir(tmp_path)
    assert resolve("bps_bias", {}).find("payloadName") == "n"


def test_cp_pipe_dir_comes_before_the_package(tmp_path: Path) -> None:
    folder = tmp_path / "bps" / "templates"
    folder.mkdir(parents=True)
    make(folder, MINIMAL, "bps_bias.yaml")
    assert resolve("bps_bias", {"CP_PIPE_DIR": str(tmp_path)}).find("payloadName") == "n"


def test_defaults() -> None:
    step = resolve("bps_bias", ENVIRONMENT)
    found = {
        key: step.resource("any", key)
        for key in ("requestMemory", "requestCpus", "numberOfRetries", "memoryMultiplier")
    }
    assert found == {"requestMemory": 2048, "requestCpus": 1, "numberOfRetries": 5, "memoryMultiplier": 2}
    assert step.resource("any", "memoryLimit") == 491520
    assert step.resource("any", "requestWalltime") is None
    with pytest.raises(Problems, match="did you mean requestMemory"):
        step.resource("any", "requestMemoy")


def test_default_collections(tmp_path: Path) -> None:
    text = MINIMAL.replace("output: o, ", "")
    step = resolve(make(tmp_path, text), {"USER": "jdoe"}, now=NOW)
    assert step.output_run == "u/jdoe/n/20211117T155008Z"


def test_order_of_layers(tmp_path: Path) -> None:
    """A later include beats an earlier one, the file beats both, the command line all; sections are merged."""
    make(tmp_path, "a: 1\nb: 1\nc: 1\npipetask: {x: {requestCpus: 2}}\n", "one.yaml")
    make(tmp_path, "b: 2\nc: 2\nd: '{a}{b}{c}'\n", "two.yaml")
    text = f"{MINIMAL}includeConfigs: [$HERE/one.yaml, two.yaml]\nc: 3\n"
    text += "pipetask: {x: {requestMemory: 7}}\ne: '{d}'\n"
    path = make(tmp_path, text)
    step = resolve(path, {"HERE": str(tmp_path)})
    assert [step.values[key] for key in "abce"] == [1, 2, 3, "123"]
    assert step.values["pipetask"] == {"x": {"requestCpus": 2, "requestMemory": 7}}
    assert [step.origins[key] for key in "abc"] == ["one.yaml:1", "two.yaml:1", "t.yaml:5"]
    assert resolve(path, {"HERE": str(tmp_path)}, {"c": 9}).values["e"] == "129"


def test_include_inside_a_section(tmp_path: Path) -> None:
    make(tmp_path, "x: {requestMemory: 1, requestCpus: 5}\n", "tasks.yaml")
    text = f"{MINIMAL}pipetask:\n  includeConfigs: tasks.yaml\n  x: {{requestMemory: 3}}\n"
    assert resolve(make(tmp_path, text), {}).values["pipetask"] == {"x": {"requestMemory": 3, "requestCpus": 5}}


def test_include_looks_in_the_working_directory_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    make(tmp_path, "a: beside\n", "i.yaml")
    make(here, "a: here\n", "i.yaml")
    path = make(tmp_path, f"{MINIMAL}includeConfigs: i.yaml\nb: '{{a}}'\n")
    monkeypatch.chdir(here)
    assert resolve(path, {}).values["b"] == "here"
    (here / "i.yaml").unlink()
    assert resolve(path, {}).values["b"] == "beside"


def _memory(step: StepConfig) -> int:
    value = step.resource("cpBiasCombine", "requestMemory")
    assert isinstance(value, int)
    return value


def test_order_of_a_resources_look_up(tmp_path: Path) -> None:
    """Command line, payload, group, task, site, outermost level, packaged defaults."""
    layers = [
        ("requestMemory: 2", "root"),
        ("site: {usdf: {requestMemory: 3}}", "site"),
        ("pipetask: {cpBiasCombine: {requestMemory: 4}, other: {requestMemory: 99}}", "pipetask"),
        ("cluster: {g: {pipetasks: 'cpBiasIsr, cpBiasCombine', dimensions: detector, requestMemory: 5}}", "cluster"),
    ]
    text = MINIMAL
    assert _memory(resolve(make(tmp_path, text), {}, site="usdf")) == 2048
    for expected, (line, _) in enumerate(layers, 2):
        text += f"{line}\n"
        assert _memory(resolve(make(tmp_path, text), {}, site="usdf")) == expected
    text = text.replace("payload: {", "payload: {requestMemory: 6, ")
    assert _memory(resolve(make(tmp_path, text), {}, site="usdf")) == 6
    assert _memory(resolve(make(tmp_path, text), {}, {"requestMemory": 7}, site="usdf")) == 7


def test_site_of_the_template_and_of_the_command_line(tmp_path: Path) -> None:
    sites = "{a: {requestCpus: 2, queue: qa}, b: {requestCpus: 3, queue: qb}}"
    text = f"{MINIMAL}computeSite: a\nsite: {sites}\nx: '{{queue}}'\n"
    path = make(tmp_path, text)
    first, second = resolve(path, {}), resolve(path, {}, site="b")
    assert (first.resource("t", "requestCpus"), first.values["x"]) == (2, "qa")
    assert (second.resource("t", "requestCpus"), second.values["x"]) == (3, "qb")


def test_command_line(tmp_path: Path) -> None:
    overrides = {
        "dataQuery": "exposure=2",
        "inCollection": ["x/y", "z"],
        "output": "u/me/{payloadName}",
        "butlerConfig": "s",
    }
    step = resolve(make(tmp_path, MINIMAL), {}, overrides, now=NOW)
    assert step.data_query == "exposure=2"
    assert step.in_collections == ("x/y", "z")
    assert step.output_run == "u/me/n/20211117T155008Z"
    assert step.butler_config == "s"
    assert step.origins["payload.dataQuery"] == "command line"


def test_numbers_that_come_as_text(tmp_path: Path) -> None:
    step = resolve(make(tmp_path, f"{MINIMAL}requestMemory: '$M'\npreemptible: 'False'\n"), {"M": "512"})
    assert step.resource("t", "requestMemory") == 512
    assert step.resource("t", "preemptible") is False


def test_three_ways_to_name_a_variable(tmp_path: Path) -> None:
    text = f"{MINIMAL}a: '<ENV:X>-${{X}}-$X-$X.y-$'\nb: '{{a}}'\n"
    assert resolve(make(tmp_path, text), {"X": "1"}).values["b"] == "1-1-1-1.y-$"


def test_doubled_braces_are_braces(tmp_path: Path) -> None:
    """As in ctrl_bps; in a string without opening ones, closing ones stand as they are, where ctrl_bps fails."""
    odd = "a: '{{a}} {{{c}}} {{}}'\nb: \"{'a': {'b': 1}}\"\nc: 7\n"
    values = resolve(make(tmp_path, MINIMAL + odd), {}).values
    assert (values["a"], values["b"]) == ("{a} {7} {}", "{'a': {'b': 1}}")


def test_names_that_only_a_job_knows_stay(tmp_path: Path) -> None:
    text = f"{MINIMAL}subDirTemplate: '{{label}}/{{tract}}'\n"
    assert resolve(make(tmp_path, text), {}).values["subDirTemplate"] == "{label}/{tract}"


def test_an_empty_section_changes_nothing(tmp_path: Path) -> None:
    step = resolve(make(tmp_path, f"{MINIMAL}pipetask:\ncluster:\nrequestMemory:\nsite: {{a: }}\n"), {}, site="a")
    assert step.resource("t", "requestMemory") == 2048
    assert step.cluster == {}


def test_aliases_and_merge_keys(tmp_path: Path) -> None:
    tasks = "  a: &a {requestMemory: 1, requestCpus: 2}\n  b: {<<: *a, requestMemory: 3}\n  c: *a\n"
    text = f"{MINIMAL}pipetask:\n{tasks}"
    found = resolve(make(tmp_path, text), {}).values["pipetask"]
    assert found == {
        "a": {"requestMemory": 1, "requestCpus": 2},
        "b": {"requestMemory": 3, "requestCpus": 2},
        "c": found["a"],
    }


def test_configuration_of_tasks_is_handed_on(tmp_path: Path) -> None:
    step = resolve(make(tmp_path, f"{MINIMAL}extraQgraphOptions: '--config a:b={{payloadName}}'\n"), {})
    assert step.pipeline_options == "--config a:b=n"


def test_resolved_configuration_resolves_to_itself(tmp_path: Path) -> None:
    """The template written beside a run can be submitted again."""
    import yaml

    step = resolve("bps_bias", ENVIRONMENT, now=NOW)
    again = resolve(make(tmp_path, yaml.safe_dump(dict(step.values))), {})
    assert again.values == step.values


def test_jinja_gives_only_harmless_text() -> None:
    environment = {"SAFE": "a.b-1", "BAD": "x: y", "LOOP": "$HOME"}
    assert render("k: {{ environment.SAFE }}", "", environment) == "k: a.b-1"
    assert render("k: {{ environment.BAD | yaml }}", "", environment) == 'k: "x: y"'
    assert render("{% if environment.BAD %}k: {{ 'a' * 3 }}{% endif %}", "", environment) == "k: aaa"
    for text, message in [
        ("k: {{ environment.BAD }}", "must be written with the filter yaml"),
        ("k: {{ environment.LOOP | yaml }}", "would be expanded again"),
        ("k: {{ band }}", "'band' is undefined"),
        ("k: {{ environment.NONE }}", "NONE"),
        ("k: {{", "line 1"),
        ("k: {{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for i in range(99999) %}{{ 'a' * 99 }}{% endfor %}", "more than 1 MiB"),
    ]:
        with pytest.raises(ValueError, match=message):
            render(text, "", environment)
