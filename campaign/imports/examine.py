"""Have kernels read, check and place the files of an import."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign.camera.model import Camera
from campaign.console import patience
from campaign.jobs.file import JobFile, JobTask
from campaign.jobs.launch import run_job
from campaign.wording import count

KERNEL = "imported"
#: Name of the run that the job files give.
RUN = "import"


@dataclass(frozen=True)
class Found:
    """A file as read by a kernel."""

    path: str
    #: Reason why it cannot be used; then the rest says nothing.
    error: str = ""
    kind: str = ""
    #: OBSTYPE, as written.
    obstype: str = ""
    #: Id of the detector.
    detector: int = -1
    #: Empty for a calibration that holds for every filter.
    physical_filter: str = ""
    #: SHA-256 of the file.
    source: str = ""
    #: SHA-256 and size of the file that the repository gets: FITS, for other formats of the same content.
    sha256: str = ""
    bytes: int = 0
    #: HDUs without a checksum.
    unsealed: int = 0
    #: Remarks for the operator.
    notes: Sequence[str] = ()


def examine(paths: Sequence[str], camera: Camera, ranks: int, options: Mapping[str, Any]) -> list[Found]:
    """Read and check files; nothing is written.

    Parameters
    ----------
    paths : sequence of `str`
        Absolute.
    camera : `~campaign.camera.model.Camera`
        The files must be of its detectors, and for its frames.
    options : mapping
        Further settings of the kernel.
    """
    tasks = [JobTask(f"imported:{n}", inputs={"file": [str(n)]}) for n in range(len(paths))]
    said = patience(lambda: f"reading {count(len(paths), 'file')}")
    with tempfile.TemporaryDirectory(prefix="campaign-import-") as folder, said:
        return _run(Path(folder), tasks, paths, camera, ranks, options)


def place(files: Sequence[tuple[Found, str]], camera: Camera, ranks: int, options: Mapping[str, Any]) -> list[Found]:
    """Put examined files under their final names, each whole or not at all; a file that is there is never overwritten.

    Parameters
    ----------
    files : sequence of (`Found`, `str`)
        With the final path.
    """
    tasks = [
        JobTask(f"imported:{n}", None, {"file": [str(n)]}, {"calibration": final}, {"sha256": found.sha256})
        for n, (found, final) in enumerate(files)
    ]
    said = patience(lambda: f"writing {count(len(files), 'calibration')}")
    with tempfile.TemporaryDirectory(prefix="campaign-import-") as folder, said:
        return _run(Path(folder), tasks, [found.path for found, _ in files], camera, ranks, options)


def temporary(final: str) -> Path:
    """Name the file that a killed `place` leaves beside a final one; see ``kernels.jobs.publish``."""
    return Path(final).with_name(f".{Path(final).name}.{RUN}.1.tmp")


def _run(
    folder: Path,
    tasks: Sequence[JobTask],
    paths: Sequence[str],
    camera: Camera,
    ranks: int,
    options: Mapping[str, Any],
) -> list[Found]:
    result = folder / "found.jsonl"
    job = JobFile(
        kernel=KERNEL,
        run=RUN,
        ranks=max(1, min(ranks, len(paths))),
        journal=f"{folder}/journal/{KERNEL}",
        camera=camera.plain(d.id for d in camera.detectors),
        config={**options, "result": str(result)},
        files={str(n): {"path": path} for n, path in enumerate(paths)},
        tasks=tasks,
    )
    run_job(job.write(folder / f"{KERNEL}.json"), job.ranks, folder / f"{KERNEL}.log")
    return [Found(**json.loads(line)) for line in result.read_text().splitlines()]
