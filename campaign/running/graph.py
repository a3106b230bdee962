"""Runs the graph of a plan: on a Dask cluster if it has quanta, else in the driver.

Quanta run in chunks on workers with the resource ``quantum``: a task of a few
milliseconds alone would cost more to schedule than to do.  Gangs and serial
jobs are nodes of the same graph.  They run on one more worker, inside the
driver: it has the resource ``gang`` once, and ``driver`` for the nodes that
write job files and read journals.
"""

from __future__ import annotations

import itertools
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from graphlib import TopologicalSorter
from typing import Any, TypeVar

from campaign.errors import AGAIN, CampaignError, TransientError
from campaign.jobs.death import Cause
from campaign.journal.plan import Group
from campaign.running import chunk
from campaign.running.chunk import Answer
from campaign.running.rounds import ERRORS, RUNS, Nodes, RoundGraph, chunked, together
from campaign.schedulers import secure
from campaign.schedulers.protocol import Refused, Workers

T = TypeVar("T")
POLL_SECONDS = 0.05
#: Configuration of a run's clusters, beside `campaign.schedulers.secure.SETTINGS`: the scheduler does not hold tasks
#: back, and does not move the only copy of a result of the driver's own worker to one that may be lost.  It gives up a
#: chunk after enough losses for the chunk to find the quanta that kill workers; another round tries a chunk again that
#: was given up because of other chunks.
SETTINGS = {
    "distributed.scheduler.worker-saturation": "inf",
    "distributed.scheduler.allowed-failures": chunk.DEATHS + 1,
    "distributed.scheduler.active-memory-manager.start": False,
}
LOST, DRAINED = "the worker is gone", "the run is to end"
CHUNK_KEY = re.compile(r":\d+$")


def run(nodes: Nodes, groups: Sequence[Group]) -> None:
    """Run groups of a plan, each with something left to do.

    Another round runs quanta that are tried again, with their dependents: on
    other workers if they ask for more memory.  It also runs the tasks that Dask
    gave up because they wait for a chunk whose workers are lost.
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
    """Run the graph node by node, as Dask's own synchronous scheduler would; its import costs more than many runs."""
    parts = together(groups)
    made_in = {group.label: number for number, part in enumerate(parts) for group in part}
    needs = {n: {made_in[name] for name in part[0].needs if name in made_in} for n, part in enumerate(parts)}
    for number in TopologicalSorter(needs).static_order():
        nodes.node([group.label for group in parts[number]])


def _wanted(nodes: Nodes, groups: Sequence[Group]) -> dict[str, int]:
    """Resources of a worker that can run any quantum that is left."""
    asked = [nodes.budget(group.label).resources for group in groups if group.kind == "quantum"]
    return {key: max(resources.get(key, 0) for resources in asked) for resources in asked for key in resources}


def _on_workers(nodes: Nodes, groups: Sequence[Group], number: Iterator[int]) -> list[Group]:
    """Run groups on a cluster's workers; give those that need workers of another size."""
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
        except BaseException:  # before the driver's worker closes, which waits for its gang
            backend.cancel()
            raise
    return left


def _round(nodes: Nodes, groups: Sequence[Group], number: int) -> RoundGraph:
    """Cut the remaining quanta of each group into chunks."""
    nodes.chunks = {g.label: chunked(nodes.left(g)) for g in groups if g.kind == "quantum"}
    many = {label: len(chunks) for label, chunks in nodes.chunks.items()}
    return RoundGraph(number, nodes.plan.run, groups, many, nodes.backend.shared)


@contextmanager
def _known(nodes: Nodes, client: Any) -> Iterator[None]:
    """Let the graph's functions find the run, and the run ask for the fate of workers."""
    seen = [0]

    def short_of_memory() -> bool:
        """Look for a nanny's event, or the scheduler's report on the end of a worker's job, the only signs."""
        before, seen[0] = seen[0], len(client.get_events("worker-restart-memory"))
        died = nodes.outcome.jobs.get("workers", {}).pop("cause", "")
        return seen[0] > before or died == Cause.MEMORY

    RUNS[nodes.plan.run], nodes.short_of_memory = nodes, short_of_memory
    try:
        yield
    finally:
        del RUNS[nodes.plan.run]
        ERRORS.pop(nodes.plan.run, None)


@contextmanager
def _starting(context: AbstractContextManager[T]) -> Iterator[T]:
    """Enter a context of Dask's; if it does not start, the machine is at fault.

    Raises
    ------
    TransientError
        It does not start.
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
    """Start a worker inside this process: it alone may start gangs."""
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


def _run(nodes: Nodes, one: RoundGraph, workers: Workers, client: Any) -> list[Group]:
    """Run a round; give the groups that Dask gave up."""
    graph = one.graph()
    keys = list(graph.to_dict())
    futures = dict(zip(keys, client.get(graph, keys, sync=False), strict=True))
    why = _wait(nodes, futures, workers, client)
    for group in one.groups:
        parts = [futures[part] for part in one.parts(group)]
        if any(part.status != "finished" for part in parts) and _finished(futures[one.key(group.label, "ready")]):
            nodes.settle(group.label, [_answer(part, why) for part in parts])
    client.cancel(list(futures.values()), force=True)  # their results are not needed
    return [group for group in one.groups if nodes.left(group) and not nodes.ending]


def _finished(future: Any) -> bool:
    return bool(future.status == "finished")


def _answer(part: Any, why: str) -> Answer:
    """Give a chunk's answer, or the reason why there is none."""
    if _finished(part):
        answer: Answer = part.result()
        return answer
    if part.status == "error":
        return Answer(str(part.exception()))
    if why == DRAINED:
        return Answer(drained=True)
    return Answer(why, Cause.CONFIGURATION) if why else Answer(LOST)


def _wait(nodes: Nodes, futures: Mapping[str, Any], workers: Workers, client: Any) -> str:
    """Wait for the whole graph; give the reason if quanta were given up, else nothing.

    Raises
    ------
    Exception
        Raised by one of the driver's own nodes.
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
    """Give a reason to stop if the run is to end and no worker is busy; workers may still wait for their nodes."""
    if not nodes.ending:
        return ""
    busy = any(CHUNK_KEY.search(key) for keys in client.processing().values() for key in keys)
    return "" if busy else DRAINED


def _raise(nodes: Nodes) -> None:
    if (error := ERRORS.get(nodes.plan.run)) is not None:
        raise error


def _problem(nodes: Nodes, workers: Workers) -> str:
    try:
        return workers.problem()
    except Refused as refusal:
        return str(nodes.refused(refusal))
