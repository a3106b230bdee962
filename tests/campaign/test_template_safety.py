"""The value of a variable, or a file, is data and has no other effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaign.errors import ConfigurationError
from campaign.template.environment import render
from campaign.template.resolve import resolve
from campaign.template.selection import join_lines
from campaign.template.vocabulary import is_collection, split_collections

TEMPLATE = """\
pipelineYaml: p.yaml
submitPath: /s
payload:
  payloadName: n
  butlerConfig: r
  inCollection: a/b
  output: o
  dataQuery: "${SELECTION_BIAS}"
plain: $SELECTION_BIAS
inside: "before {plain} after"
"""
QUIET = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Everything a shell can export, with syntax more often than by chance.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
MARKS = r"""' " { } {plain} {output} ${HOME} $X <ENV:X> # & * &a *a !!int payload: {{7}} {% é 😀 | > % @ ` a=1"""
BREAKS = [": ", "\n", "\\\n", "- ", "---\n", "\n  injected: 1", "\u2028", "\x85", "\ufeff", "\t", " "]
SYNTAX = st.lists(st.sampled_from([*MARKS.split(), *BREAKS]), min_size=1, max_size=12).map("".join)
VALUES = (TEXT | SYNTAX).filter(lambda value: bool(value.strip()))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("safety") / "t.yaml"
    path.write_text(TEMPLATE)
    return str(path)


def _keys(value: Any, prefix: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {prefix}
    return {key for name, below in value.items() for key in _keys(below, f"{prefix}.{name}")}


@QUIET
@given(value=VALUES)
def test_a_selection_is_only_ever_itself(template: str, value: str) -> None:
    """Expansion is done once, after parsing: the value of a variable is not expanded again."""
    environment = {"SELECTION_BIAS": value, "HOME": "never", "X": "never", "USER": "u"}
    step = resolve(template, environment)
    harmless = resolve(template, {"SELECTION_BIAS": "a=1", "USER": "u"})
    assert step.values["plain"] == value
    assert step.values["inside"] == f"before {value} after"
    assert step.data_query == join_lines(value)
    assert _keys(step.values) == _keys(harmless.values)
    assert step.variables == {"SELECTION_BIAS": value}


@QUIET
@given(value=VALUES)
def test_a_selection_survives_being_written(template: str, value: str) -> None:
    """The configuration beside a run is YAML that reads back as it was resolved."""
    step = resolve(template, {"SELECTION_BIAS": value, "USER": "u"})
    assert yaml.safe_load(yaml.safe_dump(dict(step.values))) == step.values


@QUIET
@given(value=st.text(max_size=40) | SYNTAX)
def test_the_yaml_filter_gives_back_what_it_got(value: str) -> None:
    """A value is one YAML text on one line, or refused."""
    text = "before: 1\nkey: {{ environment.V | yaml }}\nafter: 2\n"
    try:
        rendered = render(text, "", {"V": value})
    except ValueError:
        assert any(mark in value for mark in ("$", "{", "<ENV:")) or any("\ud800" <= c <= "\udfff" for c in value)
        return
    assert yaml.load(rendered, Loader=yaml.CSafeLoader) == {"before": 1, "key": value, "after": 2}
    assert rendered.count("\n") == 3


@QUIET
@given(
    text=st.text(max_size=200)
    | st.lists(st.sampled_from([*"ab:{}[]'\"&*!|>-#\n ,?$<", "  ", "a: ", "{b}", "${", "<<: *a", "&a "])).map("".join)
)
def test_any_file_resolves_or_is_refused(tmp_path: Path, text: str) -> None:
    """Nothing but the operator's kind of error comes out of a file."""
    path = tmp_path / "t.yaml"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    with pytest.raises(ConfigurationError):
        resolve(str(path), {"USER": "u"})


NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,6}(/[A-Za-z0-9_]{1,4}){0,2}", fullmatch=True).filter(
    is_collection
)
GAPS = st.sampled_from(["", " ", "\n", "\\\n", "\\\n   ", "\t", " \\\r\n "])


@QUIET
@given(names=st.lists(NAMES, unique=True), gaps=st.lists(GAPS, min_size=12, max_size=12), commas=st.integers(1, 3))
def test_collections_are_split_whatever_stands_between(names: list[str], gaps: list[str], commas: int) -> None:
    gap = iter(gaps * len(names) or gaps)
    text = ("," * commas).join(f"{next(gap)}{name}{next(gap)}" for name in names)
    assert split_collections(text) == tuple(names)


@QUIET
@given(name=st.text(max_size=12) | st.from_regex(r"[a./]{1,8}", fullmatch=True))
def test_no_collection_leads_out_of_the_root(name: str, tmp_path: Path) -> None:
    if is_collection(name):
        inside = (tmp_path / name).resolve()
        assert inside.is_relative_to(tmp_path.resolve())
        assert inside != tmp_path.resolve()
