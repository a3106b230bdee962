"""The one contract between campaign and kernels: a frozen, versioned job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from kernels.camera import geometry
from kernels.errors import JobError

VERSION = 1


@dataclass(frozen=True)
class File:
    """An input file; its size in ``bytes`` is checked if it is known."""

    path: str
    bytes: int | None = None


@dataclass(frozen=True)
class Task:
    """One unit of retry, recording and naming.

    ``inputs`` maps a role (``raw``, ``bias``, ...) to keys of the job's file
    table, ``outputs`` a dataset type to the final path, ``parameters`` holds
    settings of this task (per-exposure times and scales, ...), and
    ``provenance`` cards for the product's header.
    """

    task: str
    detector: int | None = None
    inputs: Mapping[str, list[str]] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A job: everything that a kernel sees."""

    #: `VERSION`; another is refused.
    version: int
    #: Name in `kernels.table`.
    kernel: str
    #: Identify the journal's events.
    run: str
    attempt: int
    site: str
    token: int
    #: Size of the MPI world; another size is refused.
    ranks: int
    #: Path of the journal without ``.jsonl``; ranks append ``.r<rank>``.
    journal: str
    #: See `kernels.camera.geometry.camera`; empty where the kernel needs none.
    camera: Mapping[str, Any]
    #: The kernel's settings.
    config: Mapping[str, Any]
    #: The file table, by key.
    files: Mapping[str, File]
    #: Tasks to run.
    tasks: tuple[Task, ...]


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _build(kind: Any, plain: Any, where: str) -> Any:
    """Make a dataclass of this module from its JSON form, guided by its annotations."""
    if not isinstance(plain, dict):
        raise JobError(f"{where} is {plain!r}, must be an object")
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(kind)}
    unknown = sorted(set(plain) - set(known))
    if unknown:
        raise JobError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    lacking = [name for name, required in known.items() if required and name not in plain]
    if lacking:
        raise JobError(f"{where}: {lacking[0]!r} is missing")
    hints = _hints(kind)
    return kind(**{name: _freeze(hints[name], value, f"{where}.{name}") for name, value in plain.items()})


def _freeze(hint: Any, value: Any, where: str) -> Any:
    """Check a JSON value against an annotation."""
    if is_dataclass(hint):
        return _build(hint, value, where)
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Mapping and isinstance(value, dict):
        return {key: _freeze(parts[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin in (list, tuple) and isinstance(value, list):
        return origin(_freeze(parts[0], item, f"{where}[{n}]") for n, item in enumerate(value))
    if hint is Any or (origin not in (Mapping, list, tuple) and type(value) in (parts or (hint,))):
        return value
    raise JobError(f"{where} is {value!r}, must be {getattr(hint, '__name__', hint) if not parts else hint}")


def from_plain(plain: Any) -> Job:
    """Check and freeze a job read from JSON; accepts exactly what ``job.schema.json`` allows.

    Raises
    ------
    JobError
        The version is another, a key is unknown or missing, a value is of
        another kind, or a task names a file that is not in the table.
    """
    version = plain.get("version") if isinstance(plain, dict) else None
    if version != VERSION:
        raise JobError(f"job version {version!r}, this is a kernel for version {VERSION}")
    job: Job = _build(Job, plain, "job")
    if job.camera:
        geometry.camera(job.camera)
    for task in job.tasks:
        for role, keys in task.inputs.items():
            missing = [k for k in keys if k not in job.files]
            if missing:
                raise JobError(f"{task.task}: input {role} names {missing[0]!r}, which is not in the file table")
    return job


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
    try:
        return from_plain(plain)
    except JobError as error:
        raise JobError(f"{path}: {error}") from error
