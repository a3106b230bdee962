"""Empty quanta through the runner, with the share of journal and index."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from campaign.home import Home
from campaign.jobs.file import JobTask
from campaign.jobs.launch import cores
from campaign.journal.events import Event
from campaign.journal.index import followed, update
from campaign.journal.plan import Group, Plan, PlanTask
from campaign.running.rounds import CHUNK
from campaign.running.runner import Runner
from campaign.schedulers.local import Local
from tests.benchmarks.bars import BARS
from tests.benchmarks.harness import Bench, Result, ratio
from tests.benchmarks.nothing import NAME
from tests.benchmarks.process import ask, module

#: As many as the corrected frames of 200 exposures of LSSTCam, their combine and mosaic.
QUANTA = 37_990
#: Where fsync has nothing to wait for.
MEMORY = "/dev/shm"
PRELOAD = "DASK_DISTRIBUTED__WORKER__PRELOAD"


def _plan(folder: Path, many: int) -> Plan:
    """One group of quanta without inputs and outputs."""
    tasks = [PlanTask(JobTask(f"{NAME}:{n}", n % 189, {}, {}, {}), [], []) for n in range(many)]
    group = Group(NAME, NAME, "quantum", 1, [], {}, tasks, [], {})
    words = ("template", "instrument", "ticket", "repository", "output", "output_run", "product", "data_query")
    made = Plan(
        **dict.fromkeys(words, "bench"),
        run=f"bench-{time.monotonic_ns()}",
        inputs=[],
        submit_path=str(folder / "submit"),
        excluded=[],
        camera={},
        files={},
        groups=[group],
        notes=[],
    )
    made.folder.mkdir(parents=True)
    made.write()
    return made


@contextmanager
def _preloaded() -> Iterator[None]:
    """Have workers know the kernel."""
    os.environ[PRELOAD] = json.dumps(["tests.benchmarks.nothing"])
    try:
        yield
    finally:
        del os.environ[PRELOAD]


class _Times:
    """When the first quantum began, and the last one was known to be published, second."""

    def __init__(self) -> None:
        self.first = self.last = 0.0

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if event.event == "started" and not self.first:
            self.first = time.monotonic()
        elif event.event == "published":
            self.last = time.monotonic()


def main(folder: Path, many: int, indexed: bool) -> None:
    """Run them in a separate process; print time and memory."""
    plan, home = _plan(folder, many), Home(folder / "home")
    home.add_run({"run": plan.run, "template": "t", "ticket": "t", "output_run": "o", "submit_path": plan.submit_path})
    times, began = _Times(), time.monotonic()
    with _preloaded(), followed(home, plan.run) if indexed else nullcontext():
        outcome = Runner(plan, times, Local()).run()
    if indexed:
        update(home, plan.run)
    ended = time.monotonic()
    assert len(outcome.published) == many
    said = {
        "rate": many / (times.last - times.first),
        "seconds": ended - began,
        "index_mb": sum(path.stat().st_size for path in home.path.glob("index.db*")) / 1e6,
        "journal_mb": sum(path.stat().st_size for path in plan.journal.iterdir()) / 1e6,
    }
    print(json.dumps(said))


def runner(bench: Bench) -> Iterator[Result]:
    """Measure quanta a second, and the cost of the index."""
    many = 2000 if bench.quick else QUANTA

    def once(how: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory(dir=bench.data.folder if how == "indexed" else MEMORY) as folder:
            return dict(json.loads(ask(module("runner", folder, str(many), how))))

    found = bench.alternate(3, {how: partial(once, how) for how in ("indexed", "alone")})
    rates, seconds = ({how: [one[key] for one in some] for how, some in found.items()} for key in ("rate", "seconds"))
    last = found["indexed"][-1]
    yield Result(
        f"{many} quanta that make nothing, through the runner",
        statistics.median(rates["indexed"]),
        "/s",
        BARS["runner: quanta"],
        rates,
        "/s",
        f"{cores()} workers here, chunks of {CHUNK}; from the first quantum to the last published line; "
        f"journal {last['journal_mb']:.0f} MB",
    )
    yield Result(
        "what seeing the journal on disk and following it with the index add to the run",
        100 * (ratio(seconds["indexed"], seconds["alone"]) - 1),
        "%",
        BARS["runner: journal and index"],
        seconds,
        "s",
        f"whole runs, start of the workers included; against a journal in memory, without index; index "
        f"{last['index_mb']:.0f} MB",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "indexed")
