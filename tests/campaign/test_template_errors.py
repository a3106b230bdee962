"""All mistakes of a template are found at once, each with its place and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from campaign.errors import ConfigurationError
from campaign.template.resolve import TemplateErrors, resolve

MINIMAL = """\
pipelineYaml: p.yaml
submitPath: /s
payload: {payloadName: n, butlerConfig: r, inCollection: a/b, output: o, dataQuery: exposure=1}
"""
GOOD = {
    "INSTRUMENT": "LSSTComCam",
    "TICKET": "DM-48520",
    "TAG": "DP1",
    "RERUN": "20250207a",
    "REPO": "/repo/main",
    "RAW_COLLECTION": "LSSTComCam/raw/all",
    "CALIB_COLLECTIONS": "",
    "USER_CALIB_PREFIX": "",
    "SCRATCH": "/scratch/dp1",
    "SELECTION_BIAS": "exposure=1",
}


def problems(path: str, environment: dict[str, str] | None = None, **more: object) -> list[str]:
    with pytest.raises(TemplateErrors) as caught:
        resolve(path, environment or {}, **more)  # type: ignore[arg-type]
    assert isinstance(caught.value, ConfigurationError)
    assert all(str(problem) in str(caught.value) for problem in caught.value.problems)
    return [f"{p.where}: {p.what} -> {p.do}" for p in caught.value.problems]


def of(folder: Path, text: str, environment: dict[str, str] | None = None) -> list[str]:
    path = folder / "t.yaml"
    path.write_text(text, encoding="utf-8")
    return problems(str(path), environment)


def test_every_unset_variable_at_once() -> None:
    found = problems("bps_bias")
    unset = {line.split("the variable ")[1].split()[0] for line in found}
    assert unset == {*GOOD}
    assert (
        "bps_bias.yaml:13: the variable SELECTION_BIAS is not set -> export SELECTION_BIAS=\"instrument='...'"
        in found[-1]
    )


def test_everything_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
pipelineYaml: "$CP_PIPE_DIR/x"
submitPth: x
pipelineYaml: y
mine: "{a}"
a: "{b}"
b: "{a}"
requestMemory: 2G
requestWalltime: 1:30:00
includeConfigs: [nope.yaml, 3]
payload:
  payloadName: n
  butlerConfg: $REP0
  butlerConfig: ${FOO:-x}
  inCollection: a/b
  output: "{outptu}"
pipetask: {a: {requestMemoy: 3}}
submitPath: /s
"""
    assert [line.split(" -> ")[0] for line in of(tmp_path, text, {"TAG": "a b"})] == [
        "environment: TAG='a b' may hold letters, digits and _ . + - only, and no '..'",
        "t.yaml:2: unknown key submitPth",
        "t.yaml:3: pipelineYaml: given twice, first in t.yaml:1",
        "t.yaml:5: a",
        "t.yaml:7: requestMemory: '2G' is not what is expected: integer (MiB)",
        "t.yaml:8: requestWalltime: '1:30:00' is not what is expected: integer (minutes)",
        "t.yaml:9: includeConfigs: a file's name was expected",
        "t.yaml:9: includeConfigs: there is no nope.yaml",
        "t.yaml:12: unknown key payload.butlerConfg",
        "t.yaml:12: there is no variable REP0",
        "t.yaml:13: payload.butlerConfig: ${FOO:-x} is not a variable",
        "t.yaml:15: payload.output: there is no key {outptu}",
        "t.yaml:16: unknown key pipetask.a.requestMemoy",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a: '{b}'\nb: '{c}'\nc: '{b}'", "t.yaml:5: b -> c -> b: refers to itself"),
        ("a: '{a}'", "t.yaml:4: a -> a: refers to itself"),
        ("a: '{pipetask}'\npipetask: {x: {}}", "a: {pipetask} is a section"),
        ("a: '{nothing}'", "t.yaml:4: a: there is no key {nothing}"),
        ("a: '${}'", "${} is not a variable"),
        ("a: '${X'", "${ is not a variable"),
        ("a: $X", "the variable X is not set"),
        ("a: <ENV:X>", "the variable X is not set"),
        ("paylod: 1", "unknown key paylod -> did you mean payload?"),
        ("cluster: {g: {pipetask: a}}", "unknown key cluster.g.pipetask -> did you mean pipetasks?"),
        ("pipetask: [a]", "t.yaml:4: pipetask: must hold keys"),
        ("pipetask: {a: 3}", "t.yaml:4: pipetask.a: must hold keys, not 3"),
        ("requestCpus: true", "requestCpus: True is not what is expected: integer (cores)"),
        ("requestCpus: -1", "requestCpus: -1 is not what is expected"),
        ("requestCpus: .nan", "requestCpus: nan is not what is expected"),
        ("memoryMultiplier: x", "memoryMultiplier: 'x' is not what is expected: number"),
        ("preemptible: maybe", "preemptible: 'maybe' is not what is expected: true or false"),
        ("project: [a]", "project: a single value was expected"),
        ("includeConfigs: t.yaml", "t.yaml -> t.yaml: includes itself"),
        ("a: !!python/object:os.system x", "the tag"),
        ("a: !!int x", "'x' is no number"),
        ("? [a]\n: b", "a key must be a plain name"),
        ("a: {<<: 3}", "<<: is not a mapping"),
    ],
)
def test_one_mistake(line: str, message: str, tmp_path: Path) -> None:
    found = of(tmp_path, f"{MINIMAL}{line}\n")
    assert any(message in problem for problem in found), found
    assert len(found) == 1, found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [b\nc: {", "t.yaml:2: not YAML"),
        ("a: 'x", "t.yaml:1: not YAML"),
        ("a: \x07", "not YAML"),
        ("", "holds no keys"),
        ("- a", "holds no keys"),
        ("a: 1\n--- \nb: 2", "not YAML"),
        (f"a: {'[' * 300_000}", "nested deeper than 32 levels"),
        ("a: &a [*a]", "aliases expand to more than"),
        (
            "x0: &x0 [1, 1]\n" + "".join(f"x{k}: &x{k} [{f'*x{k - 1}, ' * 9}]\n" for k in range(1, 9)),
            "aliases expand to more",
        ),
        (
            "x0: &x0 {k: 1}\n" + "".join(f"x{k}: &x{k} {{<<: [{f'*x{k - 1}, ' * 9}]}}\n" for k in range(1, 9)),
            "aliases expand",
        ),
    ],
)
def test_what_is_not_a_template(text: str, message: str, tmp_path: Path) -> None:
    found = of(tmp_path, text)
    assert len(found) == 1
    assert message in found[0]


def test_a_bomb_of_references(tmp_path: Path) -> None:
    lines = [f"k{n}: '{f'{{k{n + 1}}}' * 10}'" for n in range(12)]
    found = of(tmp_path, "\n".join([MINIMAL, *lines, "k12: xxxxxxxxxx\n"]))
    assert any("expands to more than 1 MiB" in line for line in found)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: Ångström".encode("latin-1"))
    assert "cannot be read: 'utf-8'" in problems(str(latin))[0]
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (2 << 20))
    assert "is larger than 1 MiB" in problems(str(large))[0]
    assert "there is no such file" in problems(str(tmp_path))[0]
    assert "there is no such file" in problems("/dev/zero")[0]


def test_names_that_nothing_answers_to(tmp_path: Path) -> None:
    assert problems("bps_bais") == [": there is no template 'bps_bais.yaml' -> did you mean bps_bias.yaml?"]
    # Expansion of $CP_PIPE_DIR/bps/templates/bps_bias.yaml in a shell without CP_PIPE_DIR.
    assert "say bps_bias.yaml alone" in problems("/bps/templates/bps_bias.yaml")[0]
    assert "ask for one band, as in bps_flat_g.yaml" in problems("bps_flat", GOOD)[0]
    assert "bps_bias.yaml, " in problems("")[0]


def test_what_is_missing(tmp_path: Path) -> None:
    found = of(tmp_path, "submitPath: /s\n")
    assert [line.split(" ->")[0] for line in found] == [
        ": pipelineYaml is missing",
        ": payloadName is missing",
        ": butlerConfig is missing",
        ": inCollection is missing",
    ]


def test_keys_of_ones_own(tmp_path: Path) -> None:
    """A key that is referred to is accepted; one that is not is reported."""
    path = tmp_path / "t.yaml"
    path.write_text(f"{MINIMAL}outputs: x\nmyOwn: '{{outputs}}'\nfarAway: 1\n")
    assert resolve(str(path), {}).warnings == (
        "t.yaml:5: nothing uses the key myOwn",
        "t.yaml:6: nothing uses the key farAway",
    )


def test_command_line_keys_are_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(MINIMAL)
    (found,) = problems(str(path), {}, overrides={"dataQury": "a=1"})
    assert found == "command line: unknown key dataQury -> did you mean dataQuery?"


@pytest.mark.parametrize(("key", "value"), [("submitPath", ""), ("submitPath", " "), ("outputRun", "")])
def test_a_place_of_the_run_is_not_empty(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(MINIMAL)
    assert f"{key} is empty -> " in " ".join(problems(str(path), {}, overrides={key: value}))


@pytest.mark.parametrize(
    "name", ["TAG", "TICKET", "RERUN", "INSTRUMENT", "CERT_RERUN", "VERIFY_RERUN", "BOOTSTRAP_RUN_NUMBER"]
)
@pytest.mark.parametrize(
    "value", ["", "a/b", "..", "a..b", ".", "a b", "a'b", 'a"b', "-a", "a\n", "a;b", "$a", "{a}", "é", "a\tb"]
)
def test_words_that_cannot_be_part_of_a_path(name: str, value: str) -> None:
    (found,) = problems("bps_bias", GOOD | {name: value})
    assert found.startswith(f"environment: {name}={value!r} ")


@pytest.mark.parametrize("value", ["u/jdoe", "/u/jdoe/", "u//jdoe/", "../", "u/../x/", "/", "u/j doe/"])
def test_prefixes_that_lead_elsewhere(value: str) -> None:
    (found,) = problems("bps_bias", GOOD | {"USER_CALIB_PREFIX": value})
    assert "must be empty, or end in '/'" in found


@pytest.mark.parametrize("name", ["RAW_COLLECTION", "CALIB_COLLECTIONS"])
@pytest.mark.parametrize("value", ["a/../b", "a..b", "/a", "a//b", "a b", "a,b'c", "a;b", "a/"])
def test_names_that_no_collection_has(name: str, value: str) -> None:
    assert any(line.startswith(f"environment: {name}=") for line in problems("bps_bias", GOOD | {name: value}))


@pytest.mark.parametrize("key", ["output", "outputRun", "inCollection"])
def test_collections_of_the_template_itself(key: str, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(MINIMAL)
    (found,) = problems(str(path), {}, overrides={key: "a/../../b"})
    assert "'a/../../b' cannot be a collection's name" in found


def test_an_empty_selection() -> None:
    (found,) = problems("bps_bias", GOOD | {"SELECTION_BIAS": " "})
    assert "SELECTION_BIAS is empty: it would select everything" in found


def test_a_selection_that_is_not_utf8() -> None:
    (found,) = problems("bps_bias", GOOD | {"SELECTION_BIAS": "exposure='\udcff'"})
    assert "is not UTF-8" in found


def test_a_selection_of_nearly_the_same_name() -> None:
    environment = {key: value for key, value in GOOD.items() if key != "SELECTION_BIAS"} | {"SELECTION_BAIS": "a=1"}
    (found,) = problems("bps_bias", environment)
    assert "(SELECTION_BAIS is set, but this is not what the template reads)" in found


@pytest.mark.parametrize("name", ["bps_illuminationCorrection", "bps_illumination_correction.yaml"])
def test_a_product_that_cannot_be_made_is_refused_by_what_is_missing(name: str) -> None:
    (found,) = problems(name)
    assert "reference catalogues and the global calibration (fgcm) are missing here" in found
    assert "make it with Rubin's stack" in found
