"""CPU of whole commands on a small repository, as ratios to what ``import lsst.daf.butler`` alone takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from campaign.jobs.launch import cores
from campaign.simulation.demo import variables
from campaign.simulation.simulate import Places
from tests.benchmarks.bars import BARS, SELDOM
from tests.benchmarks.harness import Bench, Result, ratio
from tests.benchmarks.process import environment, run

PLAN = """\
description: one step
variables: {INSTRUMENT: LSSTComCam}
steps:
  bias: {template: bps_bias, certify: true, gate: true}
"""
#: Command lines; a certification and a submission make something new in each turn.
COMMANDS = (
    "--help",
    "status",
    "errors",
    "history DM-00000",
    "logs cpBiasCombine",
    "sites",
    "render bps_bias",
    "plan PLAN --quick",
    "check bps_bias",
    "certify bps_bias --yes",
    "plan PLAN",
    "submit bps_bias",
)
IMPORT = "import lsst.daf.butler"


@dataclass
class _Small:
    """A repository of 10 biases of nine small detectors, with one run."""

    bench: Bench
    turn: int = 0
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        folder = self.bench.data.folder / "commands"
        repository, plan = folder / "repo", folder / "plan.yaml"
        if not plan.exists():
            folder.mkdir()
            line = ["simulate", str(repository), "--scale", "16", "--bias", "10", "--dark", "0", "--flat", "0"]
            run(self._line(*line, "--ranks", str(cores())))
        self.variables = variables(Places(repository))
        if not plan.exists():
            run(self._line("submit", "bps_bias"), environment(**self.variables))
            plan.write_text(PLAN)
        self.plan = plan

    def _line(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-P", "-m", "campaign", *map(str, words)]

    def command(self, text: str) -> float:
        """Run a command; CPU, second."""
        words: list[str | Path] = [self.plan if word == "PLAN" else word for word in text.split()]
        self.turn += 1
        new = {"CERT_RERUN": f"2025{self.turn:04d}a"} if words[0] == "certify" else {}
        if words[0] == "submit":
            new = {"RERUN": f"2025{self.turn:04d}a"}
        return run(self._line(*words), environment(**self.variables | new)).cpu


def commands(bench: Bench) -> Iterator[Result]:
    """Give the ratio of every command, and that of the import by the door of the Butler's room."""
    small = _Small(bench)
    imports: dict[str, Callable[[], float]] = {
        text: lambda text=text: run([sys.executable, "-P", "-c", text]).cpu  # type: ignore[misc]
        for text in (IMPORT, "import campaign.butler.repository")
    }
    turns = bench.alternate(5, imports | {text: partial(small.command, text) for text in COMMANDS})
    for text, samples in turns.items():
        if text != IMPORT:
            yield Result(
                f"{text} / {IMPORT}",
                ratio(samples, turns[IMPORT]),
                bar=BARS.get(text, SELDOM) if text in COMMANDS else None,
                parts={text: samples, IMPORT: turns[IMPORT]},
                parts_unit="CPU s",
                condition="whole processes and their children; 10 biases of nine small detectors, one run",
            )
