"""Simulates a campaign: exposures over several nights, raws by a kernel, ingested like real ones."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from campaign.camera.model import Camera
from campaign.camera.observation import Observation
from campaign.camera.parts import Detector
from campaign.camera.translation import Overrides
from campaign.console import patience, say
from campaign.errors import ConfigurationError, SubmissionRefused, TasksFailed, UsageError
from campaign.frames.ingest import observe, prepare
from campaign.frames.readings import PHOTODIODE, separated
from campaign.home import Home, home_of_new
from campaign.jobs.file import JobFile, JobTask, write_text
from campaign.jobs.launch import run_job
from campaign.journal import claim
from campaign.journal.events import EventName
from campaign.journal.events import read as read_events
from campaign.killpoints import reach
from campaign.simulation.cards import cards, require_writable
from campaign.simulation.shots import PREFIX, Exposure, exposure_at

HEADER = {"LSSTCam": "lsstCam", "LSSTComCam": "COMCAM", "LATISS": "LATISS"}
READOUT = 3.0
#: Files in the truth's folder as long as the simulation is incomplete.
CLAIM = {claim.NAME, f"{claim.NAME}.lock"}
#: Beginnings of the names in an empty repository, also while it is made.
REPOSITORY = ("butler.yaml", "gen3.sqlite3", "campaign")


@dataclass(frozen=True)
class Nights:
    """Observations of each night: numbers of frames, and exposure times in second."""

    bias: int = 10
    dark: int = 10
    flat: int = 10
    dark_time: float = 30.0
    flat_time: float = 10.0
    filters: tuple[str, ...] = ()
    days: tuple[int, ...] = (20241206, 20241208)


@dataclass(frozen=True)
class Places:
    """Folders of a simulation: the repository, and beside it the raws and their truth."""

    repository: Path
    raw: Path = field(init=False)
    truth: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "raw", self.repository.with_name(self.repository.name + "-raw"))
        object.__setattr__(self, "truth", self.repository.with_name(self.repository.name + "-truth"))

    @property
    def all(self) -> tuple[Path, Path, Path]:
        """All folders."""
        return self.repository, self.raw, self.truth


def _shots(plan: Nights, night: int) -> Iterator[tuple[str, str | None, float]]:
    """List type, filter and exposure time of a night's exposures; each kind is spread over the nights."""

    def share(total: int) -> int:
        nights = len(plan.days)
        return total // nights + (night < total % nights)

    yield from (("bias", None, 0.0) for _ in range(share(plan.bias)))
    yield from (("dark", None, plan.dark_time) for _ in range(share(plan.dark)))
    for name in plan.filters:
        yield from (("flat", name, plan.flat_time) for _ in range(share(plan.flat)))


def _midnight(day: int) -> datetime:
    try:
        return datetime.strptime(f"{day:08d}", "%Y%m%d")
    except ValueError as error:
        raise ConfigurationError(f"day_obs {day} is no date", do="write it as 20241208") from error


def exposures(camera: Camera, plan: Nights) -> list[Exposure]:
    """List the exposures of a sequence, night by night.

    Raises
    ------
    UsageError, ConfigurationError
        The camera cannot be simulated, or a night is no date.
    """
    require_writable(camera)
    found = []
    for night, day in enumerate(plan.days):
        begin = _midnight(day) + timedelta(hours=21)
        for number, (kind, name, seconds) in enumerate(_shots(plan, night), 1):
            found.append(exposure_at(camera, day, number, begin, kind, seconds, physical_filter=name, reason=kind))
            begin += timedelta(seconds=seconds + READOUT)
    return found


def _check(camera: Camera, shots: Sequence[Exposure], detectors: Sequence[int]) -> None:
    require_writable(camera)
    unknown = sorted({shot.physical_filter for shot in shots if shot.physical_filter} - set(camera.bands))
    if unknown:
        raise ConfigurationError(f"{camera.name} has no filter {unknown[0]}", do=f"it has {', '.join(camera.bands)}")
    strangers = sorted(set(detectors) - set(camera.by_id))
    if strangers:
        raise ConfigurationError(
            f"{camera.name} has no detector {strangers[0]}", do=f"it has {min(camera.by_id)} to {max(camera.by_id)}"
        )


def _require_free(places: Places) -> None:
    for path in places.all:
        if path.exists() and (not path.is_dir() or {one.name for one in path.iterdir()} - CLAIM):
            raise UsageError(f"{path} exists already", do="give a new folder: a simulation makes a new repository")


@contextmanager
def making(places: Places) -> Iterator[None]:
    """Hold the folders of a simulation: a failure leaves nothing, and the next process clears a killed one's.

    A claim lies beside the truth until the simulation is complete.  May be nested.

    Raises
    ------
    UsageError
        The folders are taken, or another process simulates into them.
    """
    owner = claim.read(places.truth)
    if owner is not None and claim.mine_again(owner):
        yield
        return
    new = not places.truth.exists()
    if owner is None:
        _require_free(places)
    places.truth.mkdir(parents=True, exist_ok=True)
    try:
        claim.take(places.truth)
    except SubmissionRefused as error:
        what = error.what.replace("the run", f"{places.repository}", 1)
        raise UsageError(what, where=str(places.truth), do="wait for that process, or end it") from error
    try:
        if owner is not None:
            _clear(places, owner)
        _require_free(places)
    except BaseException:
        claim.release(places.truth)
        if new:
            shutil.rmtree(places.truth)
        raise
    try:
        reach("simulation-begun")
        yield
    except BaseException:
        for path in places.all:
            shutil.rmtree(path, ignore_errors=True)
        raise
    claim.release(places.truth)
    (places.truth / f"{claim.NAME}.lock").unlink(missing_ok=True)


def _clear(places: Places, owner: claim.Claim) -> None:
    """Remove the remains of a killed simulation, unless the repository was used since.

    Raises
    ------
    UsageError
        Commands are recorded in the repository, or products lie in it.
    """
    history = home_of_new(places.repository, {}).history_file
    strangers = [path for path in places.repository.glob("*") if not path.name.startswith(REPOSITORY)]
    if history.exists() or strangers:
        used = history if history.exists() else strangers[0]
        raise UsageError(
            f"{places.repository} exists already, half made by {owner.text}, and was used since: {used}",
            do="give a new folder, or remove it with all that is in it",
        )
    say(f"{places.repository} was left half made by {owner.text}: it is made anew")
    for path in (places.repository, places.raw):
        shutil.rmtree(path, ignore_errors=True)
    for path in places.truth.iterdir():
        if path.name not in CLAIM:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _tasks(
    camera: Camera, shots: Sequence[Exposure], detectors: Sequence[int], places: Places, diode: bool
) -> list[JobTask]:
    tasks = []
    for shot in shots if diode else ():
        if shot.observation_type == "flat":
            path = places.raw / str(shot.day_obs) / shot.obs_id / f"{shot.obs_id}_photodiode.ecsv"
            outputs = {"diode": str(path)}
            tasks.append(JobTask(f"diode:{shot.exposure}", detectors[0], outputs=outputs, parameters=shot.plain()))
    for detector in detectors:
        ccd = camera.by_id[detector]
        raws = [{**shot.plain(), "header": _header(camera, ccd, shot)} for shot in shots]
        truth = {"truth": str(places.truth / f"{ccd.name}.fits")}
        tasks.append(JobTask(f"truth:{detector}", detector, outputs=truth, parameters={"exposures": raws}))
        for shot, parameters in zip(shots, raws, strict=True):
            path = places.raw / str(shot.day_obs) / shot.obs_id / f"{shot.obs_id}_{ccd.name}.fits"
            name = f"raw:{shot.exposure},{detector}"
            tasks.append(JobTask(name, detector, outputs={"raw": str(path)}, parameters=parameters))
    return tasks


def _header(camera: Camera, ccd: Detector, shot: Exposure) -> dict[str, Any]:
    """Make the cards that a frame's header has of its own."""
    if camera.name in PREFIX:
        return {"LSST_NUM": ccd.serial, "RAFTBAY": ccd.raft, "CCDSLOT": ccd.slot}
    return cards(camera, ccd, shot)


def _require_understood(observations: Sequence[Observation], shots: Sequence[Exposure]) -> None:
    """Compare what is read from the simulated headers with what was meant.

    Raises
    ------
    ConfigurationError
        The camera file reads another type, filter or time.
    """
    meant = {shot.exposure: shot for shot in shots}
    for one in observations:
        shot = meant.get(one.exposure)
        names = ["observation_type", "day_obs", "exposure_time"]
        names += ["physical_filter"] if shot and shot.physical_filter else []
        odd = next((n for n in names if shot is None or not _same(getattr(one, n), getattr(shot, n))), None)
        if odd:
            read = f"{odd} {getattr(one, odd)!r}" + (f", not {getattr(shot, odd)!r}" if shot else "")
            raise ConfigurationError(f"the camera file reads the simulated header as {read}", where=one.path)


def _same(read: object, meant: object) -> bool:
    """Compare a header's value with the one that was written: a header rounds numbers."""
    return math.isclose(read, meant) if isinstance(read, float) and isinstance(meant, float) else read == meant


def simulate(
    places: Places,
    home: Home,
    camera: Camera,
    shots: Sequence[Exposure],
    seed: int,
    detectors: Sequence[int],
    ranks: int,
    rates: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Make a repository with simulated raws; return their number.  A failure leaves nothing.

    ``rates`` are settings of the simulator's model that differ from its defaults.

    Raises
    ------
    UsageError, ConfigurationError
        The folders are taken, or the camera or a filter cannot be simulated.
    TasksFailed
        A frame could not be written.
    """
    _check(camera, shots, detectors)
    work, total = places.truth / "job", len(shots) * len(detectors)
    config: dict[str, Any] = {"seed": seed, "rates": dict(rates)}
    config |= {"header": {"INSTRUME": HEADER[camera.name]}} if camera.name in PREFIX else {"form": "plain"}
    tasks = _tasks(camera, shots, detectors, places, bool(rates.get("diode_noise")))
    with making(places):
        job = JobFile("simulate", "simulate", ranks, str(work / "journal"), camera.plain(detectors), config, {}, tasks)
        path = job.write(work / "simulate.json")
        with patience(lambda: f"simulating: {_written(work)} of {total} frames are written"):
            run_job(path, ranks, work / "simulate.log")
        failures = [e for e in read_events(work) if e.event == EventName.FAILED]
        if failures:
            raise TasksFailed(f"{len(failures)} frames could not be written: {failures[0].detail['error']}")
        about: dict[str, Any] = {"camera": camera.name, "scale": camera.scale, "seed": seed, "rates": dict(rates)}
        about["exposures"] = [asdict(s) for s in shots]
        write_text(places.truth / "truth.json", json.dumps(about, indent=1))
        paths = [t.outputs["raw"] for t in tasks if "raw" in t.outputs]
        observations, refused = observe(paths, camera, Overrides(), ranks)
        for where, why in refused.items():
            raise ConfigurationError(why, where=where)
        _require_understood(observations, shots)
        with (
            patience(lambda: "simulating: the frames are recorded in the repository"),
            prepare(str(places.repository), home, camera) as repository,
        ):
            repository.ingest_raws(observations, "direct")
            readings = separated(t.outputs["diode"] for t in tasks if "diode" in t.outputs)[1]
            if readings:
                repository.ingest_readings(PHOTODIODE, camera.name, readings, "direct")
    return total


def _written(work: Path) -> int:
    """Count the frames in the journal."""
    lines = (line for path in work.glob("journal*.jsonl") for line in path.read_bytes().splitlines())
    return sum(b'"task":"raw:' in line and b'"event":"started"' not in line for line in lines)


def default_filters(camera: Camera) -> tuple[str, ...]:
    """Give the camera's first filter of band r."""
    return tuple(f.name for f in camera.filters if f.band == "r")[:1]
