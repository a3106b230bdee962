"""The one contract between campaign and kernels: a frozen, versioned job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from kernels.errors import JobError

VERSION = 1

T = TypeVar("T")


@dataclass(frozen=True)
class File:
    """An input file; ``bytes`` (size) and ``md5`` are checked where they are known."""

    path: str
    bytes: int | None = None
    md5: str | None = None


@dataclass(frozen=True)
class Task:
    """One unit of retry, recording and naming.

    ``inputs`` maps a role (``raw``, ``bias``, ...) to keys of the job's file
    table, ``outputs`` a dataset type to the final path, ``parameters`` holds
    what differs from task to task (per-exposure times and scales, ...), and
    ``provenance`` goes into the product's header as it stands.
    """

    task: str
    detector: int | None = None
    inputs: Mapping[str, list[str]] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """All that a kernel ever sees.

    Parameters
    ----------
    version : `int`
        `VERSION`; another is refused.
    kernel : `str`
        Name in `kernels.run.KERNELS`.
    run, attempt, site, token
        Identify the journal's events.
    ranks : `int`
        The MPI world that was asked for; another size is refused.
    journal : `str`
        Path of the journal without ``.jsonl``; ranks append ``.r<rank>``.
    camera : `dict`
        See `kernels.geometry.camera`; empty where the kernel needs none.
    config : `dict`
        The kernel's settings.
    files : `dict` [`str`, `File`]
        The file table, once.
    tasks : `tuple` [`Task`]
        What to make.
    """

    version: int
    kernel: str
    run: str
    attempt: int
    site: str
    token: int
    ranks: int
    journal: str
    camera: Mapping[str, Any]
    config: Mapping[str, Any]
    files: Mapping[str, File]
    tasks: tuple[Task, ...]


def _build(kind: type[T], plain: Mapping[str, Any], where: str) -> T:
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(plain) - known)
    if unknown:
        raise JobError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    try:
        return kind(**plain)
    except TypeError as error:
        raise JobError(f"{where}: {error}") from error


def from_plain(plain: Mapping[str, Any]) -> Job:
    """Check and freeze a job read from JSON.

    Raises
    ------
    JobError
        Another version, an unknown or missing key, a task that names a file
        that is not in the table.
    """
    if plain.get("version") != VERSION:
        raise JobError(f"job version {plain.get('version')!r}, this is a kernel for version {VERSION}")
    files = {k: _build(File, v, f"files.{k}") for k, v in plain.get("files", {}).items()}
    tasks = tuple(_build(Task, t, f"tasks[{n}]") for n, t in enumerate(plain.get("tasks", [])))
    for task in tasks:
        for role, keys in task.inputs.items():
            missing = [k for k in keys if k not in files]
            if missing:
                raise JobError(f"{task.task}: input {role} names {missing[0]!r}, which is not in the file table")
    return _build(Job, {**plain, "files": files, "tasks": tasks}, "job")


def load(path: str) -> Job:
    """Read a job file.

    Raises
    ------
    JobError
        It is not JSON, or not a job of this version.
    """
    try:
        plain = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise JobError(f"{path}: {error}") from error
    return from_plain(plain)
