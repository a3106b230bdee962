"""Commands that are hurt: what they begin with, and what their operator does afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.soak.kills import HERE
from tests.soak.world import Answer, World

#: Gives the commands that an operator gives after one that was hurt, one after another; each is to end with 0.
Again = Callable[[World, Answer], "list[tuple[str, ...]]"]


@dataclass(frozen=True)
class Scenario:
    """A command, to be hurt.

    Parameters
    ----------
    name : `str`
    stage : callable
        Puts the world as it is to be before.
    words : callable
        The command.
    again : callable
    victims : sequence of `str`
        See `tests.soak.kills.VICTIMS`.
    points : sequence of `str`
        Kill points that it passes.
    """

    name: str
    stage: Callable[[World], None]
    words: Callable[[World], tuple[str, ...]]
    again: Again
    victims: Sequence[str] = ("driver",)
    points: Sequence[str] = field(default=())


def done(answer: Answer) -> None:
    """Stop where what only prepares a try does not go well."""
    assert answer.code == 0, answer


# Stages


def ingested(world: World) -> None:
    """Three biases and two darks."""

    def make() -> None:
        done(world.run("ingest", str(world.repo), str(world.raws), "--camera", str(world.camera)))

    world.prepare("ingested", make)


# What an operator does


def restarted(world: World, first: Answer) -> list[tuple[str, ...]]:
    """Go on with what was left, or, where nothing was, submit again."""
    if first.code == 0:
        return []
    unfinished = [folder for folder in world.folders() if (folder / "claim.json").exists() or first.code != 0]
    return [("restart", str(folder)) for folder in unfinished] or [first.words]


def repeated(world: World, first: Answer) -> list[tuple[str, ...]]:
    """The same command."""
    return [] if first.code == 0 else [first.words]


SUBMIT = ("submit", "bps_bias", "--ranks", "2")
SCENARIOS = (
    Scenario("submit", ingested, lambda world: SUBMIT, restarted, ("mpiexec", "rank"), HERE),
)


