"""The graph of a plan with quanta, on a Dask cluster.

Quanta run in chunks on the cluster's workers, which offer the resource
``quantum``; a task of a few milliseconds would else cost more to schedule than
to do.  Gangs and serial jobs are nodes of the same graph: they run on one more
worker, inside the driver, that offers ``gang`` once, and ``driver`` for the
nodes that write job files and read journals.
"""

from __future__ import annotations

import itertools
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from campaign.errors import AGAIN, CampaignError, TransientError
from campaign.jobs.death import Cause, Death
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Group, Plan, PlanTask
from campaign.running import chunk
from campaign.running.chunk import Answer
from campaign.running.retry import Budget
from campaign.schedulers import secure
from campaign.schedulers.protocol import Backend, Refused, Say, Workers

T = TypeVar("T")
POLL_SECONDS = 0.05
#: Quanta a Dask task: chunking beats every other way of scheduling small work.
CHUNK = 20
#: Configuration of a run's clusters, beside `campaign.schedulers.secure.SETTINGS`: the scheduler does not hold tasks
#: back, and does not leave the only copy of a result of the driver's own worker on one that may be lost.  It gives up a
#: chunk after as many losses as tell the chunk which of its quanta kill workers; another round tries a chunk again that
#: was given up for what others did.
SETTINGS = {
    "distributed.scheduler.worker-saturation": "inf",
    "distributed.scheduler.allowed-failures": chunk.DEATHS + 1,
    "distributed.scheduler.active-memory-manager.start": False,
}
LOST, DRAINED = "the worker is gone", "the run is to end"
CHUNK_KEY = re.compile(r":\d+$")


class Nodes(Protocol):
    """The graph's view of a run: its nodes, and what decides which of them there are.

    Attributes
    ----------
    plan : `Plan`
    backend : `Backend`
    stem : `str`
        Beginning of the names of all jobs.
    chunks : `dict`
        By group, its quanta as workers get them; decided for each round.
    short_of_memory : callable
        Says whether workers were lost for want of memory since the last call; set while there are workers.
    """

    plan: Plan
    backend: Backend
    stem: str
    chunks: dict[str, list[Sequence[PlanTask]]]
    short_of_memory: Callable[[], bool]

    @property
    def outcome(self) -> Outcome:
        """What is known of the tasks."""

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
        """Give what events of a group's jobs are written with."""

    def refused(self, refusal: Refused) -> Death:
        """Account for a refusal of the scheduler's."""

    def node(self, label: str, *_: Any) -> None:
        """Run a gang or a serial job."""

    def prepare(self, label: str, *_: Any) -> list[str]:
        """Write the job files of a group's chunks."""

    def settle(self, label: str, answers: Sequence[Answer]) -> None:
        """Account for a group's quanta."""


#: Runs of this process: a node travels by name, and the driver's own worker runs it.
_RUNS: dict[str, Nodes] = {}
#: Errors that their nodes raised.
_ERRORS: dict[str, Exception] = {}


def chunked(tasks: Sequence[PlanTask]) -> list[Sequence[PlanTask]]:
    """Tasks, cut into chunks; one of a detector's tasks reads its calibrations once."""
    tasks = sorted(tasks, key=lambda t: -1 if t.job.detector is None else t.job.detector)
    return [tasks[n : n + CHUNK] for n in range(0, len(tasks), CHUNK)]


def _here(run: str, method: str, label: str, *needs: Any) -> Any:
    """Call a node of a run of this process."""
    try:
        return getattr(_RUNS[run], method)(label, *needs)
    except Exception as error:
        _ERRORS[run] = error
        raise


@dataclass(frozen=True)
class Round:
    """The graph of some groups; what they need of others is there already.

    Parameters
    ----------
    number : `int`
        Part of the keys: what one round gave up is another node in the next.
    run : `str`
    groups : sequence of `Group`
    chunks : mapping
        By group of quanta, how many chunks they are cut into.
    chained : `bool`
        Have each group wait for the one before it: they take the same cores.
    """

    number: int
    run: str
    groups: Sequence[Group]
    chunks: Mapping[str, int]
    chained: bool

    def key(self, label: str, part: str | int = "done") -> str:
        """The name of a group's node: ``ready``, a chunk's number, ``done``."""
        return f"node:{self.number}:{label}:{part}"

    def parts(self, group: Group) -> list[str]:
        """The names of a group's chunks."""
        return [self.key(group.label, n) for n in range(self.chunks.get(group.label, 0))]

    def layers(self) -> Iterator[tuple[dict[str, Any], str]]:
        """The nodes of the graph, and the resource that they take."""
        before: list[str] = []
        labels = {group.label for group in self.groups}
        for group in self.groups:
            needs = [self.key(name) for name in group.needs if name in labels]
            needs += before if self.chained else []
            label, done, ready = group.label, self.key(group.label), self.key(group.label, "ready")
            if group.kind == "quantum":
                parts = self.parts(group)
                yield {ready: (_here, self.run, "prepare", label, *needs)}, "driver"
                yield {part: (chunk.run, ready, n) for n, part in enumerate(parts)}, "quantum"
                yield {done: (_here, self.run, "settle", label, parts)}, "driver"
            else:
                yield {done: (_here, self.run, "node", label, *needs)}, "gang"
            before = [done]

    def graph(self) -> Any:
        """Dask's form of it."""
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


def run(nodes: Nodes, groups: Sequence[Group]) -> None:
    """Run groups of a plan, of which each has something left to do.

    Quanta that are to be tried again, and what waits for them, are run in
    another round; where they ask for more memory, on other workers.  So is what
    Dask gives up: all that waits for a chunk whose workers are lost for ever.
    """
    secure.forget(nodes.plan.folder)
    left, number = list(groups), itertools.count()
    while left:
        if any(group.kind == "quantum" for group in left):
            try:
                left = _on_workers(nodes, left, number)
            except OSError as error:
                if error.errno is not None:  # of a file
                    raise
                raise TransientError(f"the Dask cluster does not answer: {error}", do=AGAIN) from error
        else:
            _here_alone(nodes, left)
            return


def _here_alone(nodes: Nodes, groups: Sequence[Group]) -> None:
    secure.pin()
    from dask.local import get_sync

    labels = {group.label for group in groups}
    graph = {f"{g.label}:": (nodes.node, g.label, *(f"{n}:" for n in g.needs if n in labels)) for g in groups}
    get_sync(graph, list(graph))


def _wanted(nodes: Nodes, groups: Sequence[Group]) -> dict[str, int]:
    """What a worker must have for any quantum that is left."""
    asked = [nodes.budget(group.label).resources for group in groups if group.kind == "quantum"]
    return {key: max(resources.get(key, 0) for resources in asked) for resources in asked for key in resources}


def _on_workers(nodes: Nodes, groups: Sequence[Group], number: Iterator[int]) -> list[Group]:
    """Run groups on a cluster's workers; give those that are left for others."""
    secure.pin()
    import dask

    backend, wanted = nodes.backend, _wanted(nodes, groups)
    many = min(backend.slots, sum(len(chunked(nodes.left(group))) for group in groups if group.kind == "quantum"))
    name, say = f"{nodes.stem}-workers", nodes.say("workers")
    with (
        dask.config.set(SETTINGS),
        secure.keys(nodes.plan.folder) as keys,
        _starting(backend.cluster(many, wanted, nodes.plan.folder / "logs", name, say, keys)) as workers,
        _starting(_client(workers, secure.security(keys))) as client,
        _starting(_driver_worker(client)),
        _known(nodes, client),
    ):
        try:
            left = list(groups)
            while left and _wanted(nodes, left) == wanted:
                left = _run(nodes, _round(nodes, left, next(number)), workers, client)
        except BaseException:  # before the worker of the driver is closed, which waits for its gang
            backend.cancel()
            raise
    return left


def _round(nodes: Nodes, groups: Sequence[Group], number: int) -> Round:
    """Cut what is left of each group's quanta into chunks."""
    nodes.chunks = {g.label: chunked(nodes.left(g)) for g in groups if g.kind == "quantum"}
    many = {label: len(chunks) for label, chunks in nodes.chunks.items()}
    return Round(number, nodes.plan.run, groups, many, nodes.backend.shared)


@contextmanager
def _known(nodes: Nodes, client: Any) -> Iterator[None]:
    """Have the graph's functions find the run, and the run ask what befell workers."""
    seen = [0]

    def short_of_memory() -> bool:
        """The only sign is an event of the nanny's, or a word of the scheduler that ended a worker's job."""
        before, seen[0] = seen[0], len(client.get_events("worker-restart-memory"))
        died = nodes.outcome.jobs.get("workers", {}).pop("cause", "")
        return seen[0] > before or died == Cause.MEMORY

    _RUNS[nodes.plan.run], nodes.short_of_memory = nodes, short_of_memory
    try:
        yield
    finally:
        del _RUNS[nodes.plan.run]
        _ERRORS.pop(nodes.plan.run, None)


@contextmanager
def _starting(context: AbstractContextManager[T]) -> Iterator[T]:
    """Enter something of Dask's; where it does not come up, the machine is at fault.

    Raises
    ------
    TransientError
        It does not come up.
    """
    with ExitStack() as stack:
        try:
            entered = stack.enter_context(context)
        except CampaignError:
            raise
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            cause = error.__cause__ or error.__context__
            more = f" ({' '.join(str(cause).split())})" if cause is not None and str(cause) not in why else ""
            raise TransientError(
                f"Dask does not start: {why}{more}", do="look at the memory and the processes of this machine; restart"
            ) from error
        yield entered


def _client(workers: Workers, security: Any) -> Any:
    from distributed import Client

    return Client(workers.address, security=security, set_as_default=False)


@contextmanager
def _driver_worker(client: Any) -> Iterator[None]:
    """A worker inside this process: it alone may start gangs."""
    from distributed import Worker
    from distributed.comm import get_address_host

    with tempfile.TemporaryDirectory(prefix="campaign-driver-") as folder:

        async def start() -> Any:
            return await Worker(
                client.scheduler.address,
                nthreads=2,
                name="driver",
                resources={"gang": 1, "driver": 1},
                memory_limit=0,
                local_directory=folder,
                host=get_address_host(client.scheduler.address),
                protocol=secure.PROTOCOL,
                security=client.security,
                dashboard=False,
                dashboard_address=secure.DASHBOARD,
            )

        worker = client.sync(start)
        try:
            yield
        finally:
            client.sync(worker.close, executor_wait=False)


def _run(nodes: Nodes, one: Round, workers: Workers, client: Any) -> list[Group]:
    """Run a round; give the groups that Dask gave up."""
    graph = one.graph()
    keys = list(graph.to_dict())
    futures = dict(zip(keys, client.get(graph, keys, sync=False), strict=True))
    why = _wait(nodes, futures, workers, client)
    for group in one.groups:
        parts = [futures[part] for part in one.parts(group)]
        if any(part.status != "finished" for part in parts) and _finished(futures[one.key(group.label, "ready")]):
            nodes.settle(group.label, [_answer(part, why) for part in parts])
    client.cancel(list(futures.values()), force=True)  # their results are of no use, and need not be saved
    return [group for group in one.groups if nodes.left(group) and not nodes.ending]


def _finished(future: Any) -> bool:
    return bool(future.status == "finished")


def _answer(part: Any, why: str) -> Answer:
    """What a chunk said; else why it said nothing."""
    if _finished(part):
        answer: Answer = part.result()
        return answer
    if part.status == "error":
        return Answer(str(part.exception()))
    if why == DRAINED:
        return Answer(drained=True)
    return Answer(why, Cause.CONFIGURATION) if why else Answer(LOST)


def _wait(nodes: Nodes, futures: Mapping[str, Any], workers: Workers, client: Any) -> str:
    """Wait for the whole graph; say why quanta were given up, if they were.

    Raises
    ------
    Exception
        What a node of the driver's own raised.
    """
    why = ""
    while any(future.status == "pending" for future in futures.values()):
        _raise(nodes)
        nodes.require_wanted()
        if not why and (why := _problem(nodes, workers) or _idle(nodes, client)):
            for key, future in futures.items():
                if future.status == "pending" and not key.endswith(":done"):
                    future.cancel()
        time.sleep(POLL_SECONDS)
    _raise(nodes)
    return why


def _idle(nodes: Nodes, client: Any) -> str:
    """Say so where the run is to end, and no worker has anything in hand: some may still wait for their nodes."""
    if not nodes.ending:
        return ""
    busy = any(CHUNK_KEY.search(key) for keys in client.processing().values() for key in keys)
    return "" if busy else DRAINED


def _raise(nodes: Nodes) -> None:
    if (error := _ERRORS.get(nodes.plan.run)) is not None:
        raise error


def _problem(nodes: Nodes, workers: Workers) -> str:
    try:
        return workers.problem()
    except Refused as refusal:
        return str(nodes.refused(refusal))
