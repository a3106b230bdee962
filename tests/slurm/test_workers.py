"""Workers that cannot be submitted at all: everybody who waits for them gets the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dask.utils import parse_bytes

from slurm.settings import Resources, Scheduler, ScriptError
from slurm.workers import NANNY_MIB, Pool, Running, Wanted, WorkerJob


class Cluster:
    """What `Running` asks a cluster of no workers for."""

    scheduler_address = "tcp://127.0.0.1:1"


def said(wanted: Wanted, many: int) -> str:
    """Ask for workers all at once, and then for the problem."""
    pool = Pool(wanted, watcher=None)  # type: ignore[arg-type]

    async def ask() -> list[str]:
        return await asyncio.wait_for(
            asyncio.gather(*(pool.start(f"w{n}", ["worker", f"{n}"]) for n in range(many))), 30
        )

    assert asyncio.run(ask()) == [""] * many
    assert (pool.living, pool.stillborn) == ({}, many)
    return Running(Cluster(), pool, many).problem()


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    events: list[Any] = []
    return Wanted(
        Scheduler(max_array=2),
        Resources(2000, minutes=5),
        "run-workers",
        tmp_path,
        lambda *e: events.append(e),
        ["worker", "keys"],
        {},
    )


def test_every_word_of_a_workers_command_is_kept(wanted: Wanted) -> None:
    """dask-jobqueue joins them to one line."""
    wanted = replace(wanted, scheduler=Scheduler(python="/a b/it's/python"), module=["some.worker", "/keys of $HOME"])
    submitted: list[list[str]] = []

    class Taken(Pool):
        async def start(self, worker: str, command: Sequence[str]) -> str:
            submitted.append([worker, *command])
            return "12_3"

    options = {key: value for key, value in wanted.options().items() if key != "name"}
    job = WorkerJob("tls://host:1", "w-0", pool=Taken(wanted, watcher=None), **options)  # type: ignore[arg-type]
    asyncio.run(job.start())
    ((name, *words),) = submitted
    assert (job.job_id, name) == ("12_3", "w-0")
    assert words[:6] == ["/a b/it's/python", "-P", "-m", "some.worker", "/keys of $HOME", "tls://host:1"]
    limit = parse_bytes(words[words.index("--memory-limit") + 1])
    assert 0 < limit <= (wanted.resources.memory_mib - NANNY_MIB // 2) << 20


def test_a_worker_that_fits_on_no_node_is_told_as_a_refusal(wanted: Wanted) -> None:
    """A retry after a lack of memory asks for more than any node has; three workers are two arrays."""
    small = replace(wanted, scheduler=Scheduler(node_memory_mib=4000, max_array=2), resources=Resources(8000))
    with pytest.raises(ScriptError, match="no rank fits on a node: a rank takes 8000 MiB .*, a node has 4000 MiB"):
        said(small, 3)


def test_a_script_that_cannot_be_written_is_told(wanted: Wanted) -> None:
    (wanted.folder / "there").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="there"):
        said(replace(wanted, folder=wanted.folder / "there"), 1)


def test_what_is_no_error_of_slurms_is_told_too(wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> str:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Pool, "_array", broken)
    with pytest.raises(ZeroDivisionError):
        said(wanted, 1)
