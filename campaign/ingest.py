"""Raw frames into a repository: read by a kernel, translated by the camera's table, recorded by the Butler."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from campaign.camera import Camera, load
from campaign.console import patience
from campaign.errors import ConfigurationError, UsageError
from campaign.home import Home
from campaign.jobs import JobFile, JobTask
from campaign.launch import run_job
from campaign.observation import Observation
from campaign.translation import Overrides, TranslationError, translate

if TYPE_CHECKING:
    from campaign.repository import Repository
    from campaign.repository_records import ExposureRecord, Raw


@dataclass(frozen=True)
class Report:
    """What an ingest did; ``refused`` by path, why."""

    new: tuple[str, ...]
    existing: tuple[str, ...]
    refused: Mapping[str, str]


def camera_of(home: Home, name_or_path: str) -> Camera:
    """The camera that a repository was made with, else a packaged one or a file."""
    kept = home.cameras / f"{name_or_path}.yaml"
    return load(kept if kept.is_file() else name_or_path)


def keep_camera(home: Home, camera: Camera) -> None:
    """Keep the camera with the repository.

    Raises
    ------
    ConfigurationError
        Another camera of that name was kept before.
    """
    path = home.cameras / f"{camera.name}.yaml"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        camera.dump(path)
    elif load(path) != camera:
        raise ConfigurationError(
            f"the repository has another camera file for {camera.name}",
            where=str(path),
            do="edit that file, or give the camera another name",
        )


def prepare(root: str, home: Home, camera: Camera) -> Repository:
    """Open the repository, made where there is none, with the camera's instrument registered."""
    from campaign.repository import create, open_repository

    new = not (Path(root) / "butler.yaml").exists()
    repository = create(root) if new else open_repository(root, writeable=True)
    keep_camera(home, camera)
    register(repository, camera)
    return repository


def register(repository: Repository, camera: Camera) -> None:
    """Register a camera's instrument, detectors, filters and empty chains."""
    detectors = [(d.id, d.name, d.raft, d.slot, d.purpose) for d in camera.detectors]
    filters = [(f.name, f.band) for f in camera.filters]
    repository.register_instrument(camera.name, camera.class_name or camera.name, detectors, filters)


def expand(paths: Sequence[str]) -> list[str]:
    """Files, and the files of folders, absolute, each once.

    Raises
    ------
    UsageError
        Nothing is left.
    """
    files: dict[str, None] = {}
    for text in paths:
        path = Path(text).absolute()
        below = (
            sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            if path.is_dir()
            else [path]
        )
        files |= dict.fromkeys(str(p) for p in below)
    if not files:
        raise UsageError("no file to ingest", where=", ".join(paths))
    return list(files)


def read_headers(paths: Sequence[str], keywords: Sequence[str], ranks: int) -> list[dict[str, Any]]:
    """Have a kernel read headers and check that the files are whole; one answer a file, in order."""
    with tempfile.TemporaryDirectory(prefix="campaign-headers-") as folder:
        result = Path(folder) / "headers.jsonl"
        files = {str(n): {"path": path} for n, path in enumerate(paths)}
        job = JobFile(
            kernel="headers",
            run="ingest",
            ranks=min(ranks, len(paths)),
            journal=f"{folder}/journal/headers",
            camera={},
            config={"keywords": list(keywords), "result": str(result)},
            files=files,
            tasks=[JobTask(f"headers:{n}", inputs={"raw": [n]}) for n in files],
        )
        path = job.write(Path(folder) / "headers.json")
        with patience(lambda: f"reading the headers of {len(paths)} files"):
            run_job(path, job.ranks, Path(folder) / "headers.log")
        return [json.loads(line) for line in result.read_text().splitlines()]


def observe(
    paths: Sequence[str], camera: Camera, overrides: Overrides, ranks: int
) -> tuple[list[Observation], dict[str, str]]:
    """Translate frames; those that cannot be read or translated come with the reason."""
    observations, refused = [], {}
    for found in read_headers(paths, camera.translation.wanted(), ranks):
        if "error" in found:
            refused[found["path"]] = found["error"]
            continue
        try:
            observations.append(translate(camera, found["path"], found["headers"], found["hdus"], overrides))
        except TranslationError as error:
            refused[found["path"]] = error.what + (f" ({error.do})" if error.do else "")
    return observations, refused


def ingest(
    root: str, home: Home, paths: Sequence[str], camera: Camera, overrides: Overrides, transfer: str, ranks: int
) -> Report:
    """Ingest raws; see ``campaign ingest --help``.

    The repository is made only when there is something to put in.
    """
    observations, refused = observe(expand(paths), camera, overrides, ranks)
    if not observations:
        return Report((), (), refused)
    with (
        patience(lambda: f"recording {len(observations)} frames in the repository"),
        prepare(root, home, camera) as repository,
    ):
        report = repository.ingest_raws(observations, transfer)
    return Report(report.new, report.existing, {**refused, **{r.path: r.why for r in report.refused}})


# The summary

#: Exposure times that differ by less are equal, second: a shutter's word is that good.
EQUAL = 5e-3


@dataclass(frozen=True)
class SummaryRow:
    """Frames of one kind on one day; noise (ADU) and gain (electron / ADU) from pairs, where there are any."""

    type: str
    day_obs: int
    physical_filter: str
    band: str
    exposures: int
    raws: int
    exposure_times: tuple[float, ...]
    read_noise: float | None = None
    gain: float | None = None


def summarise(repository: Repository, instrument: str, camera: Camera, ranks: int) -> list[SummaryRow]:
    """Count exposures by type, day and filter; measure read noise and gain from pairs of biases and flats."""
    selection = repository.select([f"{instrument}/raw/all"], f"instrument='{instrument}'")
    raws = Counter(r.exposure for r in selection.raws)
    groups: dict[tuple[str, int, str], list[ExposureRecord]] = defaultdict(list)
    for exposure in selection.exposures:
        groups[exposure.type, exposure.day_obs, exposure.physical_filter].append(exposure)
    paths: dict[int, list[Raw]] = defaultdict(list)
    for raw in selection.raws:
        paths[raw.exposure].append(raw)
    measured = _measure_pairs(groups, paths, camera, ranks)
    return [
        SummaryRow(
            *key,
            some[0].band,
            len(some),
            sum(raws[e.id] for e in some),
            tuple(sorted({e.exposure_time for e in some})),
            *measured.get(key, (None, None)),
        )
        for key, some in sorted(groups.items())
    ]


def _pairs(exposures: Sequence[ExposureRecord]) -> list[tuple[ExposureRecord, ExposureRecord]]:
    """Consecutive exposures of equal exposure time."""
    ordered = sorted(exposures, key=lambda e: e.id)
    pairs = zip(ordered[::2], ordered[1::2], strict=False)
    return [(a, b) for a, b in pairs if abs(a.exposure_time - b.exposure_time) <= EQUAL]


def _measure_pairs(
    groups: Mapping[tuple[str, int, str], Sequence[ExposureRecord]],
    raws: Mapping[int, Sequence[Raw]],
    camera: Camera,
    ranks: int,
) -> dict[tuple[str, int, str], tuple[float | None, float | None]]:
    """Read noise by group of biases and gain by group of flats: medians over pairs, detectors, amplifiers."""
    wanted = {key: _pairs(some) for key, some in groups.items() if key[0] in ("bias", "flat")}
    keys = [(key, a, b) for key, pairs in wanted.items() for a, b in pairs]
    if not keys:
        return {}
    answers = _run_pairs(keys, raws, camera, ranks)
    bias = [row for row in answers if row["type"] == "bias"]
    offset = {(r["detector"], r["amplifier"]): r["mean"] for r in bias}
    noise = {(r["detector"], r["amplifier"]): r["variance"] for r in bias}
    found: dict[tuple[str, int, str], tuple[float | None, float | None]] = {}
    for key in wanted:
        rows = [r for r in answers if tuple(r["group"]) == key]
        if key[0] == "bias" and rows:
            found[key] = (median(r["noise"] for r in rows), None)
        gains = [_gain(r, offset, noise) for r in rows] if key[0] == "flat" else []
        good = [g for g in gains if g is not None]
        if good:
            found[key] = (None, median(good))
    return found


def _gain(
    row: Mapping[str, Any], offset: Mapping[tuple[int, str], float], noise: Mapping[tuple[int, str], float]
) -> float | None:
    """Mean-variance gain of one amplifier of one pair; the bias level and noise come from the biases."""
    key = (row["detector"], row["amplifier"])
    if key not in noise:
        return None
    signal, variance = row["mean"] - offset[key], row["variance"] - noise[key]
    return signal / variance if variance > 0 and signal > 0 else None


def _run_pairs(
    keys: Sequence[tuple[tuple[str, int, str], ExposureRecord, ExposureRecord]],
    raws: Mapping[int, Sequence[Raw]],
    camera: Camera,
    ranks: int,
) -> list[dict[str, Any]]:
    files: dict[str, dict[str, str]] = {}
    tasks = []
    for group, a, b in keys:
        first = {r.detector: r for r in raws[a.id]}
        second = {r.detector: r for r in raws[b.id]}
        for detector in sorted(first.keys() & second.keys()):
            names = [f"{e.id}:{detector}" for e in (a, b)]
            files |= {
                name: {"path": r.path} for name, r in zip(names, (first[detector], second[detector]), strict=True)
            }
            task = JobTask(f"pairs:{a.id},{detector}", detector, {"raw": names}, parameters={"group": list(group)})
            tasks.append(task)
    with tempfile.TemporaryDirectory(prefix="campaign-pairs-") as folder:
        result = Path(folder) / "pairs.json"
        job = JobFile(
            kernel="pairs",
            run="summary",
            ranks=min(ranks, len(tasks)),
            journal=f"{folder}/journal/pairs",
            camera=camera.plain({t.detector for t in tasks if t.detector is not None}),
            config={"result": str(result), "isr": {}},
            files=files,
            tasks=tasks,
        )
        with patience(lambda: f"measuring {len(tasks)} pairs of frames"):
            run_job(job.write(Path(folder) / "pairs.json.job"), job.ranks, Path(folder) / "pairs.log")
        rows: list[dict[str, Any]] = json.loads(result.read_text())
        return rows
