"""Commands to be damaged: their preparation, and the operator's next commands."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.soak.kills import HERE, JOBS, QUANTA, SITES
from tests.soak.world import CHAIN, NUMBERS, TICKET, Answer, World

#: Words of a command.
Words = tuple[str, ...]
#: Gives the operator's commands after a damaged one, in order; each must end with 0.
Again = Callable[[World, Answer], list[Words]]


@dataclass(frozen=True)
class Scenario:
    """A command, to be hurt.

    Parameters
    ----------
    name : `str`
    stage : callable
        Prepares the world.
    words : callable
        The command.
    again : callable
    victims : sequence of `str`
        See `tests.soak.kills.VICTIMS`.
    points : sequence of `str`
        Kill points that it passes.
    weight : `int`
        How many kills it gets, beside the others.
    sites : `str`
        How its sites are reached: ``ssh``, ``slurm``, or as processes of this machine.
    """

    name: str
    stage: Callable[[World], None]
    words: Callable[[World], Words]
    again: Again
    victims: Sequence[str] = ("driver",)
    points: Sequence[str] = field(default=())
    weight: int = 1
    sites: str = ""

    def variables(self, world: World) -> dict[str, str]:
        """Further ones."""
        return {"CAMPAIGN_SITES": str(world.base / f"sites-{self.sites}")} if self.sites else {}


def done(answer: Answer) -> None:
    """Stop if the preparation of a try fails."""
    assert answer.code == 0, answer


SUBMIT = ("submit", "bps_bias", "--ranks", "2")
#: The corrected frames are written, by quanta: there is a Dask cluster.
FRAMES = ("--set", "extraQgraphOptions=--config cpBiasIsr:doWrite=true")
BIAS = f"{CHAIN}/demo/bias.20241208a"


# Stages, each made of one before


def nothing(world: World) -> None:
    """No repository."""
    world.clear()


def ingested(world: World) -> None:
    """Three biases and three darks."""

    def make() -> None:
        done(world.run("ingest", str(world.repo), str(world.raws), "--camera", str(world.camera)))

    world.prepare("ingested", make)


def half(world: World) -> None:
    """The frames of one night."""

    def make() -> None:
        night = sorted(world.raws.iterdir())[0]
        done(world.run("ingest", str(world.repo), str(night), "--camera", str(world.camera), "--transfer", "copy"))

    world.prepare("half", make)


def left(world: World) -> None:
    """A bias whose driver was killed in the middle."""

    def make() -> None:
        ingested(world)
        assert world.run(*SUBMIT, CAMPAIGN_KILL_AT="job-ended").code == -signal.SIGKILL

    world.prepare("left", make)


def made(world: World) -> None:
    """A bias."""

    def make() -> None:
        ingested(world)
        done(world.run(*SUBMIT))

    world.prepare("made", make)


def unchained(world: World) -> None:
    """A bias that is certified, and in no chain."""

    def make() -> None:
        made(world)
        done(world.run("certify", "bps_bias", "--no-chain"))

    world.prepare("unchained", make)


def two(world: World) -> None:
    """A bias that is certified, and two that are not."""

    def make() -> None:
        made(world)
        done(world.run("certify", "bps_bias"))
        for rerun in ("20241208b", "20241208c"):
            done(world.run(*SUBMIT, RERUN=rerun))

    world.prepare("two", make)


def gate(world: World) -> None:
    """A campaign whose bias waits for a person, and nobody drives it."""

    def make() -> None:
        ingested(world)
        process = world.start("run", str(world.one), "--ranks", "2")
        until = time.monotonic() + 120
        while "gate" not in events(world) and time.monotonic() < until:
            time.sleep(0.1)
        process.kill()
        process.wait()
        assert "gate" in events(world)

    world.prepare("gate", make)


def events(world: World) -> list[str]:
    """List the decisions in the books of campaigns, in order."""
    from json import loads

    files = (world.repo / "campaign" / "campaigns").glob("*/journal.jsonl")
    return [loads(line)["event"] for path in files for line in path.read_text().splitlines()]


# The operator's commands


def restarted(world: World, first: Answer) -> list[Words]:
    """Restart the run, or, if there is none, submit again."""
    if first.code == 0:
        return []
    return [("restart", str(folder)) for folder in world.folders()] or [first.words]


def repeated(world: World, first: Answer) -> list[Words]:
    """The same command."""
    return [] if first.code == 0 else [first.words]


def accepted(world: World, first: Answer) -> list[Words]:
    """The same, unless it was recorded; then the campaign resumes."""
    again = [] if "accepted" in events(world) else [first.words]
    return [*again, ("run", str(world.one), "--ranks", "2")]


def simulated(world: World, first: Answer) -> list[Words]:
    """The same, if the claim beside the truth marks it as incomplete."""
    truth = world.repo.with_name(f"{world.repo.name}-truth")
    done = (truth / "truth.json").exists() and not (truth / "claim.json").exists()
    return [] if done else repeated(world, first)


def noted(world: World, first: Answer) -> list[Words]:
    """The same, where the history does not have it: a command may be killed after its end, too."""
    history = world.repo / "campaign" / "history.jsonl"
    done = history.exists() and '"command":"certify"' in history.read_text().replace(" ", "")
    return [] if done else repeated(world, first)


def chained(world: World) -> Words:
    """Put the certified bias into its chain."""
    return "chain", str(world.repo), CHAIN, BIAS


def _ingest(world: World) -> Words:
    return "ingest", str(world.repo), str(world.raws), "--camera", str(world.camera), "--transfer", "copy"


GANG = ("mpiexec", "rank")
RANKS = ("rank",)
SSH = ("ssh", "sshd", "site-run", "tar", "rank")
LOCAL = ("--sites", "usdf,frdf,ukdf")
SCENARIOS = (
    Scenario("submit", ingested, lambda w: SUBMIT, restarted, GANG, HERE, weight=3),
    Scenario("quanta", ingested, lambda w: (*SUBMIT, *FRAMES), restarted, (*GANG, "dask worker"), QUANTA, weight=3),
    Scenario("restart", left, lambda w: ("restart", str(w.folders()[0])), restarted, GANG, HERE, weight=2),
    Scenario(
        "run",
        ingested,
        lambda w: ("run", str(w.plan), "--yes", "--ranks", "2"),
        repeated,
        ("step", *GANG),
        HERE,
        weight=3,
    ),
    Scenario("accept", gate, lambda w: ("accept", "bias", "--reason", "fine"), accepted),
    Scenario("certify", made, lambda w: ("certify", "bps_bias"), noted, weight=2),
    Scenario("chain", unchained, chained, repeated),
    Scenario("clean", two, lambda w: ("clean", TICKET, "--yes"), repeated, weight=2),
    Scenario("ingest", nothing, _ingest, repeated, GANG, weight=2),
    Scenario("ingest-more", half, _ingest, repeated, GANG, weight=2),
    Scenario("simulate", nothing, lambda w: ("simulate", str(w.repo), *NUMBERS), simulated, GANG),
    Scenario("sites", ingested, lambda w: (*SUBMIT, *LOCAL), restarted, ("site-run", "tar", *GANG), SITES, weight=3),
    Scenario("ssh", ingested, lambda w: (*SUBMIT, *LOCAL), restarted, SSH, SITES, weight=2, sites="ssh"),
    Scenario("slurm", ingested, lambda w: (*SUBMIT, "--site", "slurm"), restarted, RANKS, JOBS, 2, "slurm"),
)
