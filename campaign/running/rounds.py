"""Rounds of a run: graphs of the remaining groups, with the run's own functions as nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from campaign.jobs.death import Death
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Group, Plan, PlanTask
from campaign.running import chunk
from campaign.running.chunk import Answer
from campaign.running.retry import Budget
from campaign.schedulers.protocol import Backend, Refused, Say

#: Quanta of a chunk, which is one Dask task.
CHUNK = 20
#: Serial groups of one process, at most: its log has all of their labels in its name.
MOST = 4


class Nodes(Protocol):
    """The graph's view of a run: its nodes, and the state that decides on them."""

    plan: Plan
    backend: Backend
    #: Beginning of the names of all jobs.
    stem: str
    #: Quanta as workers get them, by group; decided for each round.
    chunks: dict[str, list[Sequence[PlanTask]]]
    #: Whether workers were lost for lack of memory since the last call; set while there are workers.
    short_of_memory: Callable[[], bool]

    @property
    def outcome(self) -> Outcome:
        """Outcome of the tasks so far."""

    @property
    def ending(self) -> bool:
        """Whether nothing more may be started."""

    def require_wanted(self) -> None:
        """Raise if the run was asked to end at once."""

    def left(self, group: Group) -> list[PlanTask]:
        """Tasks of a group that nothing is known of."""

    def budget(self, label: str) -> Budget:
        """Tries that a group has left, and resources of its next job."""

    def say(self, label: str) -> Say:
        """Give the function that writes events of a group's jobs."""

    def refused(self, refusal: Refused) -> Death:
        """Account for a refusal by the scheduler."""

    def node(self, labels: Sequence[str], *_: Any) -> None:
        """Run a gang, or serial groups in one process."""

    def prepare(self, label: str, *_: Any) -> list[str]:
        """Write the job files of a group's chunks."""

    def settle(self, label: str, answers: Sequence[Answer]) -> None:
        """Account for a group's quanta."""


#: Runs of this process: a node travels by name, and the driver's own worker runs it.
RUNS: dict[str, Nodes] = {}
#: Errors that their nodes raised.
ERRORS: dict[str, Exception] = {}


def chunked(tasks: Sequence[PlanTask]) -> list[Sequence[PlanTask]]:
    """Cut tasks into chunks, by detector: a chunk reads the calibrations of its detector once."""
    tasks = sorted(tasks, key=lambda t: -1 if t.job.detector is None else t.job.detector)
    return [tasks[n : n + CHUNK] for n in range(0, len(tasks), CHUNK)]


def together(groups: Sequence[Group]) -> list[list[Group]]:
    """Put serial groups of the same kernel, settings and needs together: one process makes them one after another."""
    found: list[list[Group]] = []
    for group in groups:
        alike = (one for one in found if group.kind == "serial" and _alike(one[0], group) and len(one) < MOST)
        if (others := next(alike, None)) is None:
            found.append([group])
        else:
            others.append(group)
    return found


def _alike(one: Group, other: Group) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("kind", "kernel", "config", "needs"))


def _here(run: str, method: str, group: str | Sequence[str], *needs: Any) -> Any:
    """Call a node of a run of this process, for one label or several."""
    try:
        return getattr(RUNS[run], method)(group, *needs)
    except Exception as error:
        ERRORS[run] = error
        raise


@dataclass(frozen=True)
class RoundGraph:
    """Graph of some groups, whose needs of other groups are done."""

    #: Part of the keys, so that work given up in a round is another node in the next.
    number: int

    run: str
    groups: Sequence[Group]
    #: Number of chunks, by group of quanta.
    chunks: Mapping[str, int]
    #: Let each group wait for the previous one, which takes the same cores.
    chained: bool

    def key(self, label: str, part: str | int = "done") -> str:
        """Give the key of a group's node: ``ready``, a chunk's number, or ``done``."""
        return f"node:{self.number}:{label}:{part}"

    def parts(self, group: Group) -> list[str]:
        """Give the keys of a group's chunks."""
        return [self.key(group.label, n) for n in range(self.chunks.get(group.label, 0))]

    def layers(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Give the nodes of the graph, with the resource that they take."""
        before: list[str] = []
        nodes = together(self.groups)
        made_in = {group.label: node[0].label for node in nodes for group in node}
        for node in nodes:
            group, labels = node[0], [one.label for one in node]
            needs = list(dict.fromkeys(self.key(made_in[name]) for name in group.needs if name in made_in))
            needs += before if self.chained else []
            label, done, ready = group.label, self.key(group.label), self.key(group.label, "ready")
            if group.kind == "quantum":
                parts = self.parts(group)
                yield {ready: (_here, self.run, "prepare", label, *needs)}, "driver"
                yield {part: (chunk.run, ready, n) for n, part in enumerate(parts)}, "quantum"
                yield {done: (_here, self.run, "settle", label, parts)}, "driver"
            else:
                yield {done: (_here, self.run, "node", labels, *needs)}, "gang"
            before = [done]

    def graph(self) -> Any:
        """Give the graph in Dask's form."""
        from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

        layers: dict[str, Any] = {}
        needs: dict[str, set[str]] = {}
        home: dict[str, str] = {}
        for n, (nodes, resource) in enumerate(self.layers()):
            layers[f"{n}"] = MaterializedLayer(nodes, annotations={"resources": {resource: 1}})
            home |= dict.fromkeys(nodes, f"{n}")
            needs[f"{n}"] = {home[key] for node in nodes.values() for key in _named(node, home)} - {f"{n}"}
        return HighLevelGraph(layers, needs)


def _named(node: Sequence[Any], home: Mapping[str, str]) -> list[str]:
    parts = [part for item in node for part in (item if isinstance(item, list) else [item])]
    return [part for part in parts if isinstance(part, str) and part in home]
