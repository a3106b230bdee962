"""Quanta through the workers of a Slurm cluster on this machine: the first worker, and how many a second."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from campaign.camera.model import Camera, load
from campaign.jobs.file import JobTask
from campaign.jobs.launch import cores
from campaign.journal.events import Event
from campaign.journal.plan import Group, Output, Plan, PlanTask
from campaign.running import chunk
from campaign.running.graph import SETTINGS
from campaign.running.rounds import CHUNK
from campaign.running.runner import Runner
from campaign.schedulers import secure
from campaign.schedulers.slurm import Slurm
from slurm import development
from slurm.settings import Scheduler
from tests.benchmarks.bars import BARS
from tests.benchmarks.harness import Bench, Result, Skipped
from tests.benchmarks.jobs import LSST_ISR, fresh

CAMERA, SCALE, DAY = "LSSTCam", 16, 20241206
RESOURCES = {"memory_mib": 2000, "minutes": 60}
NOTHINGS = 40_000


def raws(bench: Bench) -> tuple[Camera, dict[int, list[Path]]]:
    """Biases of the whole camera, by detector; simulated once."""
    camera, repository = load(CAMERA).scaled(SCALE), bench.data.folder / "small"
    detectors = list(camera.detector_ids("SCIENCE"))[: 9 if bench.quick else None]
    many = bench.data.frames
    if not repository.exists():
        bench.say(f"simulating {many} biases of {len(detectors)} detectors of {CAMERA} at scale {SCALE}")
        line = [sys.executable, "-P", "-m", "campaign", "simulate", repository, "--camera", CAMERA]
        line += ["--scale", SCALE, "--bias", many, "--dark", 0, "--flat", 0, "--day-obs", DAY, "--ranks", cores()]
        line += [word for d in detectors for word in ("--detector", d)] if bench.quick else []
        subprocess.run([str(word) for word in line], check=True, capture_output=True)
    folder = repository.with_name("small-raw")
    return camera, {d: sorted(folder.rglob(f"*_{camera.by_id[d].name}.fits")) for d in detectors}


def _task(folder: Path, label: str, product: str, exposure: int, detector: int) -> PlanTask:
    name = f"{exposure},{detector}"
    outputs = {product: str(folder / "products" / f"{exposure}" / f"{detector}.fits")} if product else {}
    parameters = {
        "exposures": [exposure],
        "dates": ["2024-12-06T21:00:00.000"],
        "exposure_times": [0.0],
        "dark_times": [0.0],
    }
    job = JobTask(f"{label}:{name}", detector, {"raw": [name]}, outputs, parameters)
    return PlanTask(job, [Output(t, {}, path) for t, path in outputs.items()], [])


def plan(bench: Bench, kernel: str, product: str) -> Plan:
    """One group of quanta, one for each raw."""
    camera, found = raws(bench)
    folder = fresh(bench.data.folder / "quanta")
    files = {
        f"{e},{d}": {"path": str(path), "bytes": path.stat().st_size}
        for d, paths in found.items()
        for e, path in enumerate(paths)
    }
    tasks = [_task(folder, kernel, product, e, d) for d, paths in found.items() for e in range(len(paths))]
    config = {"isr": LSST_ISR, "permissions": {}, "inputs_table": str(folder / "inputs")}
    config.pop("permissions" if kernel == "levels" else "inputs_table")
    group = Group(kernel, kernel, "quantum", 1, [], config, tasks, [], RESOURCES)
    about: dict[str, Any] = dict.fromkeys(("template", "instrument", "ticket", "repository", "output"), "")
    about |= dict.fromkeys(("output_run", "product", "data_query"), "")
    made = Plan(
        **about,
        run=f"bench-{time.monotonic_ns()}",
        inputs=[],
        submit_path=str(folder / "submit"),
        excluded=[],
        camera=camera.plain(list(found)),
        files=files,
        groups=[group],
        notes=[],
    )
    made.folder.mkdir(parents=True)
    return made


@contextmanager
def cluster(bench: Bench) -> Iterator[Slurm]:
    """A cluster of its own, with a worker a core; its jobs warm."""
    if lacking := development.missing():
        raise Skipped(f"no {lacking}: make slurm-deps")
    folder = bench.data.folder / "cluster"
    up = development.up(folder, "bench", nodes=2, cpus=max(2, cores()))
    try:
        yield Slurm("bench", Scheduler(conf=up.conf, interface="lo"), cores())
    finally:
        development.down(folder)
        shutil.rmtree(folder, ignore_errors=True)


class Times:
    """Times of the first and last events, second."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.seen: dict[str, list[float]] = {}

    def __call__(self, event: Event) -> None:
        """Take an event."""
        kind = f"{event.event} {event.detail.get('state', '')}".strip()
        self.seen.setdefault(kind, []).append(time.monotonic())


def run(bench: Bench, backend: Slurm, kernel: str, product: str) -> Mapping[str, float]:
    """Run quanta; the seconds until the first worker, quanta a second from then on, and those of the whole run."""
    made, asked, times = plan(bench, kernel, product), backend.commands, Times()
    outcome = Runner(made, times, backend).run()
    whole = time.monotonic() - times.began
    if not outcome.done:
        raise RuntimeError(next(iter(outcome.failed.values()), "quanta were lost"))
    joined = times.seen["worker joined"][0]
    rate = len(outcome.published) / (times.seen["published"][-1] - joined)
    return {"first": joined - times.began, "rate": rate, "whole": whole, "commands": (backend.commands - asked) / whole}


def nothing(backend: Slurm, logs: Path) -> float:
    """Chunks with nothing in them; quanta a second, the first worker being there."""
    import dask
    from distributed import Client

    many = NOTHINGS // CHUNK
    with (
        dask.config.set(SETTINGS),
        secure.keys(logs.parent) as keys,
        backend.cluster(cores(), RESOURCES, logs, f"bench-{time.monotonic_ns()}", lambda *_: None, keys) as one,
        Client(one.address, security=secure.security(keys), set_as_default=False) as client,
    ):
        client.wait_for_workers(cores())
        best = 0.0
        for turn in range(2):  # the first imports
            graph = {f"{turn}-{n}": (chunk.run, [""], 0) for n in range(many)}
            began = time.monotonic()
            client.get(graph, list(graph), resources={"quantum": 1})
            best = many * CHUNK / (time.monotonic() - began)
    return best


def quanta(bench: Bench) -> Iterator[Result]:
    """No-ops, statistics, and corrected frames."""
    with cluster(bench) as backend:
        rounds = range(bench.rounds(1))
        said = f"{cores()} workers, chunks of {CHUNK}"
        rates = [nothing(backend, fresh(bench.data.folder / "nothing")) for _ in rounds]
        yield Result(
            "chunked quanta that do nothing",
            _middle(rates),
            "/s",
            BARS["slurm: nothing"],
            {"quanta": rates},
            "/s",
            f"{said}; client, scheduler and workers on this machine",
        )
        for kernel, product in (("levels", ""), ("correct", "postISRCCD")):
            turns = [run(bench, backend, kernel, product) for _ in rounds]
            many = len(raws(bench)[1]) * bench.data.frames
            parts = {key: [turn[key] for turn in turns] for key in turns[0]}
            yield Result(
                f"{many} ISR quanta at scale {SCALE}, {'a product each' if product else 'statistics only'}",
                _middle(parts["rate"]),
                "/s",
                BARS[f"slurm: {kernel}"],
                {"quanta": parts["rate"]},
                "/s",
                f"{said}; from the first worker to the last published line, journal and fsync included",
            )
            first, asked = _middle(parts["first"]), _middle(parts["commands"])
            yield Result(
                "from submit to the first worker", first, "s", BARS["slurm: first worker"], {"all": parts["whole"]}, "s"
            )
            yield Result("how often Slurm is asked for states", asked, "/s", BARS["slurm: questions"])


def _middle(samples: Sequence[float]) -> float:
    return sorted(samples)[len(samples) // 2]
