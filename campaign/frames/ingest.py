"""Brings raw frames into a repository: read by a kernel, translated by the camera's table, recorded by the Butler."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.camera.model import Camera, load
from campaign.camera.observation import Observation
from campaign.camera.translation import Overrides, TranslationError, translate
from campaign.console import patience
from campaign.errors import ConfigurationError, UsageError
from campaign.frames.readings import PHOTODIODE, separated
from campaign.home import Home
from campaign.jobs.file import JobFile, JobTask
from campaign.jobs.launch import run_job
from campaign.kinds.model import Flavour
from campaign.wording import count

if TYPE_CHECKING:
    from campaign.butler.repository import Repository


@dataclass(frozen=True)
class Report:
    """Result of an ingest; ``refused`` gives the reason by path, ``notes`` the remarks by path."""

    new: tuple[str, ...]
    existing: tuple[str, ...]
    refused: Mapping[str, str]
    notes: Mapping[str, str] = field(default_factory=dict)


def camera_of(home: Home, name_or_path: str) -> Camera:
    """Load the camera that a repository was made with, else a packaged one or a file."""
    kept = home.cameras / f"{name_or_path}.yaml"
    return load(kept if kept.is_file() else name_or_path)


def keep_camera(home: Home, camera: Camera) -> None:
    """Keep the camera with the repository.

    Raises
    ------
    ConfigurationError
        The repository keeps another camera of that name.
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


def prepare(root: str, home: Home, camera: Camera, flavour: Flavour | None = None) -> Repository:
    """Open or make the repository, with the camera's instrument registered; may be repeated.

    A new repository is plain, or of another ``flavour``.

    Raises
    ------
    ConfigurationError
        There is a repository with another camera of that name, or of another flavour.
    """
    from campaign.butler.repository import obtain

    repository = obtain(root)
    with repository.deciding():  # one of two simultaneous processes keeps it
        if flavour is not None:
            repository.settle_flavour(flavour)
        keep_camera(home, camera)
        register(repository, camera)
    return repository


def register(repository: Repository, camera: Camera) -> None:
    """Register a camera's instrument, detectors, filters and empty chains."""
    detectors = [(d.id, d.name, d.raft, d.slot, d.purpose) for d in camera.detectors]
    filters = [(f.name, f.band) for f in camera.filters]
    repository.register_instrument(camera.name, camera.class_name or camera.name, detectors, filters)


def expand(paths: Sequence[str]) -> list[str]:
    """List files, and the files of folders, by absolute path, each once.

    Raises
    ------
    UsageError
        There is no file.
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


def read_headers(
    paths: Sequence[str], keywords: Sequence[str], ranks: int, headers: Sequence[int | str] = (0,), whole: bool = True
) -> list[dict[str, Any]]:
    """Have a kernel read headers and, with ``whole``, check the files; one answer a file, in order."""
    with tempfile.TemporaryDirectory(prefix="campaign-headers-") as folder:
        result = Path(folder) / "headers.jsonl"
        files = {str(n): {"path": path} for n, path in enumerate(paths)}
        job = JobFile(
            kernel="headers",
            run="ingest",
            ranks=min(ranks, len(paths)),
            journal=f"{folder}/journal/headers",
            camera={},
            config={"keywords": list(keywords), "headers": list(headers), "result": str(result), "whole": whole},
            files=files,
            tasks=[JobTask(f"headers:{n}", inputs={"raw": [n]}) for n in files],
        )
        path = job.write(Path(folder) / "headers.json")
        with patience(lambda: f"reading the headers of {count(len(paths), 'file')}"):
            run_job(path, job.ranks, Path(folder) / "headers.log")
        return [json.loads(line) for line in result.read_text().splitlines()]


def observe(
    paths: Sequence[str], camera: Camera, overrides: Overrides, ranks: int
) -> tuple[list[Observation], dict[str, str]]:
    """Translate frames; give the reason for each that cannot be read or translated."""
    observations, refused = [], {}
    for found in read_headers(paths, camera.translation.wanted(), ranks, camera.translation.headers):
        if "error" in found:
            refused[found["path"]] = found["error"]
            continue
        try:
            found["path"].encode()
            observations.append(
                translate(camera, found["path"], found["headers"], found["hdus"], overrides, found["after"])
            )
        except TranslationError as error:
            refused[found["path"]] = error.what + (f" ({error.do})" if error.do else "")
        except UnicodeEncodeError:
            refused[found["path"]] = "its name is not UTF-8: a repository cannot hold it (rename it)"
        except Exception as error:  # a fault of one frame must not keep the others out
            refused[found["path"]] = f"its header cannot be translated: {error!r}"
    return observations, refused


def ingest(
    root: str,
    home: Home,
    paths: Sequence[str],
    camera: Camera,
    overrides: Overrides,
    transfer: str,
    ranks: int,
    flavour: Flavour | None = None,
) -> Report:
    """Ingest raws; see ``campaign ingest --help``.

    The repository is made only when there is a frame to ingest.
    """
    frames, readings = separated(expand(paths))
    observations, refused = observe(frames, camera, overrides, ranks) if frames else ([], {})
    if not observations and not (readings and (Path(root) / "butler.yaml").exists()):
        return Report((), (), {**refused, **dict.fromkeys(readings, "no frame of its exposure is there")})
    with (
        patience(lambda: f"recording {count(len(observations), 'frame')} in the repository"),
        prepare(root, home, camera, flavour) as repository,
    ):
        reports = [repository.ingest_raws(observations, transfer)] if observations else []
        if readings:
            reports.append(repository.ingest_readings(PHOTODIODE, camera.name, readings, transfer))
    new = tuple(path for report in reports for path in report.new)
    existing = tuple(path for report in reports for path in report.existing)
    went_in = {*new, *existing}
    notes = {o.path: "; ".join(o.notes) for o in observations if o.notes and o.path in went_in}
    return Report(new, existing, {**refused, **{r.path: r.why for report in reports for r in report.refused}}, notes)
