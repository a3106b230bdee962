"""The benchmarks' own logic: turns, medians, bars, tables.  Nothing is timed here."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import __main__ as command
from tests.benchmarks import harness, machine
from tests.benchmarks.bars import BARS
from tests.benchmarks.data import Data
from tests.benchmarks.harness import Bar, Bench, Result, Skipped
from tests.benchmarks.process import run


def bench(folder: Path, repeat: int | None = None, quick: bool = False) -> Bench:
    return Bench(Data(folder, quick, lambda text: None), repeat, quick, lambda text: None)


def result(value: float = 3.0, bar: Bar | None = None) -> Result:
    return Result("a / b", value, bar=bar, parts={"a": [9.0, 6.0, 1.0], "b": [2.0, 2.0]}, parts_unit="CPU s")


def report(**benchmarks: Any) -> dict[str, Any]:
    return {"machine": machine.describe(), "date": "2026", "conditions": ["warm"], "benchmarks": benchmarks}


@pytest.mark.parametrize(
    ("bar", "value", "verdict"),
    [
        (Bar(0.35, 0.25), 0.36, "missed"),
        (Bar(0.35, 0.25), 0.35, "met"),
        (Bar(0.35, 0.25), 0.25, "met, then met"),
        (Bar(5, 7, least=True), 4.99, "missed"),
        (Bar(5, 7, least=True), 5.0, "met"),
        (Bar(5, 7, least=True), 7.0, "met, then met"),
        (Bar(0.55), 0.1, "met"),
        (Bar(0.55), float("nan"), "missed"),
    ],
)
def test_a_bar_judges(bar: Bar, value: float, verdict: str) -> None:
    assert bar.verdict(value) == verdict


def test_a_bar_says_what_it_wants() -> None:
    assert [str(Bar(0.35, 0.25)), str(Bar(1000, 1458, least=True)), str(Bar(0.55))] == [
        "<= 0.35 (then 0.25)",
        ">= 1000 (then 1458)",
        "<= 0.55",
    ]


def test_a_ratio_is_one_of_medians() -> None:
    assert harness.ratio([1.0, 100.0, 4.0], [2.0, 2.0, 50.0]) == 2.0


def test_runs_take_turns(tmp_path: Path) -> None:
    order: list[str] = []

    def runs(name: str) -> int:
        order.append(name)
        return len(order)

    samples = bench(tmp_path).alternate(3, {"a": lambda: runs("a"), "b": lambda: runs("b")})
    assert order == list("ababab")
    assert samples == {"a": [1, 3, 5], "b": [2, 4, 6]}


@pytest.mark.parametrize(
    ("repeat", "quick", "rounds"), [(None, False, 5), (None, True, 1), (2, False, 2), (2, True, 2)]
)
def test_how_often_they_take_turns(tmp_path: Path, repeat: int | None, quick: bool, rounds: int) -> None:
    assert bench(tmp_path, repeat, quick).rounds(5) == rounds


def test_subjects_are_chosen_by_name_in_their_own_order() -> None:
    assert command.chosen([]) == list(command.SUBJECTS)
    assert command.chosen(["siril", "kernel"]) == ["kernel", "siril"]
    with pytest.raises(SystemExit, match="no benchmark 'sirli'; there are kernel, "):
        command.chosen(["sirli"])


def test_every_bar_sits_in_the_table_and_every_one_is_used() -> None:
    folder = Path(command.__file__).parent
    texts = {path.name: path.read_text() for path in folder.glob("*.py") if path.name not in ("bars.py", "harness.py")}
    assert [name for name, text in texts.items() if re.search(r"\bBar\(", text)] == []
    patterns = {re.sub(r"\{.*?\}", "*", found) for text in texts.values() for found in re.findall(r'"([^"\n]+)"', text)}
    assert [
        name for name in BARS if not any(fnmatchcase(name, pattern) for pattern in patterns if pattern != "*")
    ] == []


def test_small_data_are_not_judged() -> None:
    bar = Bar(1.0)
    assert [harness.row(result(bar=b), q)["verdict"] for b, q in [(bar, False), (bar, True), (None, False)]] == [
        "missed",
        "not judged",
        "information",
    ]


@pytest.mark.processes
def test_the_table_has_results_and_what_was_left_out() -> None:
    made = report(
        siril={"results": [], "skipped": "no siril-cli"},
        one={"results": [harness.row(result(bar=Bar(2.0, least=True)), False)]},
    )
    lines = [re.split("  +", line) for line in harness.table(made).splitlines()]
    assert lines == [
        ["benchmark", "measured", "bar", "verdict", "of"],
        ["siril", "skipped", "no siril-cli"],
        ["one: a / b", "3", ">= 2", "met", "a 6, b 2 CPU s"],
    ]


@pytest.mark.processes
def test_markdown_is_a_table_with_the_machine_and_the_conditions() -> None:
    one = harness.row(Result("a | b", 1234.5, "MiB", condition="cold"), False)
    lines = harness.markdown(report(x={"results": [one]})).splitlines()
    assert lines[0].startswith(machine.describe()["cpu"])
    assert lines[2:] == [
        "| benchmark | measured | bar | verdict | of |",
        "|---|---|---|---|---|",
        "| x: a / b | 1234 MiB |  | information |  |",
        "",
        "- warm",
        "- x: cold",
    ]


def test_what_is_skipped_or_fails_says_why_and_keeps_what_was_measured(tmp_path: Path) -> None:
    def skips(of: Bench) -> Iterator[Result]:
        yield result()
        raise Skipped("no peer")

    def fails(of: Bench) -> Iterator[Result]:
        yield result()
        raise RuntimeError("broken")

    skipped, failed = (command._measure(subject, bench(tmp_path)) for subject in (skips, fails))
    assert (skipped["skipped"], failed["failed"]) == ("no peer", "RuntimeError: broken")
    assert len(skipped["results"]) == len(failed["results"]) == 1


@pytest.mark.processes
def test_a_process_is_measured_with_its_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    used = run([sys.executable, "-c", f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])"])
    assert used.cpu >= 0.2


@pytest.mark.processes
def test_a_process_that_fails_says_what_it_said() -> None:
    with pytest.raises(RuntimeError, match="^help\n.* ended with 3:\nnow\nhelp\n$"):
        run([sys.executable, "-c", "import sys; print('now\\nhelp'); sys.exit(3)"])


@pytest.mark.processes
def test_the_machine_is_described_in_json() -> None:
    described = json.loads(json.dumps(machine.describe()))
    assert described["cores"] == len(os.sched_getaffinity(0))
    assert set(described["simd"]) <= set(machine.SIMD)
    assert 0 < machine.peak_mib() < 100000
