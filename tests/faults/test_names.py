"""Items 28, 29 and 31: values and names that are injected code, lead elsewhere, or are merely odd."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaign.butler.repository import open_repository
from campaign.errors import ConfigurationError
from campaign.simulation.demo import variables
from campaign.simulation.simulate import Places
from campaign.template.envfile import read as read_variables
from campaign.template.resolve import StepConfig, resolve
from campaign.template.selection import join_lines
from campaign.template.vocabulary import input_collections
from tests.conftest import soak
from tests.faults.conftest import NUMBERS, Operator

#: Text with a meaning for a shell, a YAML parser, an SQL database, Jinja or a format string.
HOSTILE = (
    "'; touch pwned; '",
    '"; touch pwned; "',
    "$(touch pwned)",
    "`touch pwned`",
    "x\ntouch pwned\n",
    "| touch pwned",
    "&& touch pwned",
    "'; DROP TABLE collection; --",
    "') OR 1=1 UNION SELECT name FROM sqlite_master --",
    "!!python/object/apply:os.system ['touch pwned']",
    "{{ ''.__class__.__mro__ }}",
    "${HOME}",
    "<ENV:HOME>",
    "{output}",
    "%(asctime)s",
    "#SBATCH --wrap='touch pwned'",
    "\x1b]0;pwned\x07",
    "é ü 漢字 🔭",
    "\u202egpj.exe",
)
SOME = settings(max_examples=25, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=20_000, suppress_health_check=list(HealthCheck))
VALUES = st.lists(st.sampled_from([*HOSTILE, "a", "'", '"', "\\", " ", ":", "#"]), max_size=4).map("".join)
ANY = VALUES | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


def unharmed(operator: Operator) -> bool:
    """Whether nothing ran that was not to run."""
    places = [Path.cwd(), Path.home(), operator.repo.parent, Path("/tmp")]
    return not [path for place in places for path in place.glob("*pwned*") if path.name.startswith("pwned")]


def test_item_28_a_scratch_folder_that_is_a_shells_command(operator: Operator, tmp_path: Path) -> None:
    """Job, journal, logs and launcher have its name; two ranks, so that mpiexec hands it on too."""
    name = '\'; touch pwned; $(touch pwned) `touch pwned` "x" {output} %(a)s #: é'
    scratch = tmp_path / name
    answer = operator.run("submit", "bps_bias", "--ranks", "2", TAG="hostile", SCRATCH=str(scratch))
    assert answer.code == 0, answer.err
    assert unharmed(operator)
    (folder,) = (p.parent for p in tmp_path.rglob("plan.json"))
    assert folder.is_relative_to(scratch)
    assert yaml.safe_load((folder / "config.yaml").read_text())["submitPath"] == str(folder)
    assert json.loads((folder / "env.json").read_text())["variables"]["SCRATCH"] == str(scratch)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("value", [*HOSTILE[:3], *map(soak, HOSTILE[3:7]), *HOSTILE[7:9], *map(soak, HOSTILE[9:])])
def test_item_28_a_selection_that_is_somebody_elses_code(operator: Operator, value: str) -> None:
    """It is an expression, or it is refused; the database does not change."""
    database = operator.repo / "gen3.sqlite3"
    before = hashlib.sha256(database.read_bytes()).digest()
    for query in (value, f"instrument='LSSTComCam' and exposure.obs_id='{value}'"):
        answer = operator.run("check", "bps_bias", SELECTION_BIAS=query)
        assert answer.code in (3, 4), answer
        assert "Traceback" not in answer.err and "problem" in answer.err
    assert hashlib.sha256(database.read_bytes()).digest() == before
    assert unharmed(operator)


def selected(operator: Operator, value: str) -> set[int]:
    """Count the raws that the expressions find; refused expressions find none."""
    numbers = set()
    with open_repository(str(operator.repo)) as repository:
        for query in (value, f"instrument='LSSTComCam' and exposure.obs_id='{value}'"):
            try:
                found = repository.select(["LSSTComCam/raw/all"], query)
            except ConfigurationError as error:
                assert str(error)
            else:
                numbers.add(len(found.raws))
    return numbers


@SOME
@given(value=ANY)
def test_item_28_any_value_in_an_expression_of_the_butler(operator: Operator, value: str) -> None:
    """Not even without our own look at it does a value change anything, or end in another error."""
    assert selected(operator, value) <= {0, 14}


def from_a_file(folder: Path, value: str) -> dict[str, str]:
    """Give the variables of a file with that value; none where it is refused."""
    file = folder / "my.env"
    file.write_text(f"export A={shlex.quote(value)}\nB=after\n", encoding="utf-8", newline="")
    try:
        return dict(read_variables(file, {}))
    except ConfigurationError as error:
        assert "\0" in value and "NUL" in str(error)
        return {}


@SOME
@given(value=ANY)
def test_item_28_any_value_in_a_file_of_variables(tmp_path: Path, value: str) -> None:
    """Quoted as a shell quotes it, it is read as a shell reads it, and no shell is started."""
    assert from_a_file(tmp_path, value) == {"A": value, "B": "after"} or "\0" in value


#: By variable, the text that its value becomes a part of, and the comparison of the two.
BECOMES: dict[str, Callable[[StepConfig, str], bool]] = {
    **dict.fromkeys(("INSTRUMENT", "TICKET", "TAG", "RERUN"), lambda step, value: value in step.output),
    "REPO": lambda step, value: step.butler_config == value,
    "SCRATCH": lambda step, value: step.submit_path.startswith(f"{value}/submit/"),
    "SELECTION_BIAS": lambda step, value: step.data_query == join_lines(value),
    "CALIB_COLLECTIONS": lambda step, value: input_collections(value) == list(step.in_collections[2:]),
    "USER": lambda step, value: step.operator == (value or getpass.getuser()),
}
#: Keys that an objection names in place of the variable, which is in their values.
KEYS = {"SCRATCH": "submitPath", "CALIB_COLLECTIONS": "inCollection"}


def comes_through(operator: Operator, name: str, value: str) -> bool:
    """Whether the step has the value, or refuses it by the variable's name."""
    environment = {**operator.variables, "LOGNAME": "", name: value}
    try:
        step = resolve("bps_bias", environment)
    except ConfigurationError as error:
        return name in str(error) or KEYS.get(name, name) in str(error)
    plain = json.loads(json.dumps(step.values))
    assert yaml.safe_load(yaml.safe_dump(plain, sort_keys=False, width=120)) == plain
    return (name == "USER" or step.variables[name] == value) and BECOMES[name](step, value)


NAMES = tuple(BECOMES)


@SOME
@given(name=st.sampled_from(NAMES), value=ANY)
def test_item_31_any_value_of_any_variable_comes_through_or_is_refused(
    operator: Operator, name: str, value: str
) -> None:
    assert comes_through(operator, name, value)


@pytest.mark.soak
@MANY
@given(name=st.sampled_from(NAMES), value=ANY)
def test_item_31_many_values_of_any_variable(operator: Operator, name: str, value: str, tmp_path: Path) -> None:
    assert comes_through(operator, name, value)
    assert from_a_file(tmp_path, value) == {"A": value, "B": "after"} or "\0" in value


@pytest.mark.soak
@settings(MANY, max_examples=2000)
@given(value=ANY)
def test_item_28_many_values_in_an_expression(operator: Operator, value: str) -> None:
    assert selected(operator, value) <= {0, 14}


# Item 29

ASTRAY = ("../../../x", "/etc", "..", "a/../../b", "a\0b"[:1] + "/..", "./a", "~root", "a//b")


NAMED = ("TAG", "TICKET", "RERUN", "INSTRUMENT", "CERT_RERUN", "BOOTSTRAP_RUN_NUMBER")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("TAG", value) for value in ASTRAY),
        *((name, ASTRAY[0]) for name in NAMED[1:]),
        *(soak(name, value) for name in NAMED[1:] for value in ASTRAY[1:]),
    ],
)
def test_item_29_a_name_that_leads_out_of_the_repository(operator: Operator, name: str, value: str) -> None:
    said = operator.refuse(3, "submit", "bps_bias", "--ranks", "1", **{name: value})
    assert f"environment: {name}={value!r} may hold letters, digits and _ . + - only, and no '..'" in said


@pytest.mark.parametrize("value", [f"{value}/" for value in ASTRAY if value != "/etc"] + ["/etc/"])
def test_item_29_a_prefix_that_leads_out_of_the_repository(operator: Operator, value: str) -> None:
    said = operator.refuse(3, "submit", "bps_bias", "--ranks", "1", USER_CALIB_PREFIX=value)
    assert f"environment: USER_CALIB_PREFIX={value!r} must be empty, or end in '/'" in said


@pytest.mark.parametrize("key", ["output", "outputRun", "inCollection"])
def test_item_29_a_key_that_leads_out_of_the_repository(operator: Operator, key: str) -> None:
    said = operator.refuse(3, "submit", "bps_bias", "--ranks", "1", "--set", f"{key}=../../x")
    assert f"{key}: '../../x' cannot be a collection's name" in said


def test_item_29_a_user_who_is_called_like_a_path(operator: Operator, tmp_path: Path) -> None:
    """Without ``output`` the user's name is part of the collection's."""
    template = tmp_path / "own.yaml"
    text = "pipelineYaml: ${CP_PIPE_DIR}/pipelines/any/cpBias.yaml\nsubmitPath: /s\n"
    template.write_text(
        f"{text}payload: {{payloadName: n, butlerConfig: '${{REPO}}', inCollection: a, dataQuery: a=1}}\n"
    )
    said = operator.refuse(3, "submit", str(template), USER="../../..")
    assert "output: 'u/../../../n' cannot be a collection's name" in said


# Item 31


def test_item_31_odd_folders_under_the_c_locale(operator: Operator, tmp_path: Path) -> None:
    """Without UTF-8 in the locale: simulated, submitted, and read back."""
    folder = tmp_path / 'Zoë\'s "näme"\n漢字 ;& *'
    folder.mkdir()
    places = Places(folder / "repo")
    plain = {"LC_ALL": "C", "LANG": "C"}

    def run(*arguments: str) -> str:
        line = [sys.executable, "-P", "-m", "campaign", *arguments]
        environment = {**os.environ, **variables(places), **plain, "TAG": "odd"}
        done = subprocess.run(line, capture_output=True, env=environment, timeout=60)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode("utf-8", "surrogateescape")

    run("simulate", str(places.repository), *NUMBERS, "--dark", "0", "--bias", "3", "--ranks", "1")
    out = run("submit", "bps_bias", "--ranks", "1")
    assert "published   4 of 4 tasks" in out
    (status,) = json.loads(run("status", "--json"))["runs"]
    assert (status["state"], status["published"]) == ("done", 4)
    assert len(list((places.repository / "LSSTComCam" / "calib").rglob("*.fits"))) == 8
