"""Job files: the input of a kernel, written once, before it starts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.errors import naming

VERSION = 1


@dataclass(frozen=True)
class JobTask:
    """A task of a job; ``inputs`` has, by role, keys of the file table."""

    task: str
    detector: int | None = None
    inputs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobFile:
    """A job, as `kernels.jobs.job.Job` reads it (``kernels/job.schema.json``)."""

    kernel: str
    run: str
    ranks: int
    journal: str
    camera: Mapping[str, Any]
    config: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    tasks: Sequence[JobTask]
    version: int = VERSION
    attempt: int = 1
    site: str = "local"
    token: int = 1

    def plain(self) -> dict[str, Any]:
        """Give the JSON document."""
        return {**vars(self), "tasks": [vars(task) for task in self.tasks]}

    def write(self, path: Path) -> Path:
        """Write the file whole or not at all; not synced, because a restart after a power cut writes another one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(self.plain(), separators=(",", ":")), sync=False)
        return path


def write_text(path: Path, text: str, sync: bool = True) -> None:
    """Write a text file under a temporary name, sync it, then rename it."""
    # No other host, process or thread has this name.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        with naming(path), temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
