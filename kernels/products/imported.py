"""Calibrations from elsewhere: read, checked for one camera, and put under their final names.

A job's ``config``: ``result`` (path of the JSON lines, one a task, in order).
One task a file: ``inputs`` (its key under ``file``).  With ``outputs`` (the final
path, under ``calibration``) and the ``sha256`` in ``parameters`` that an earlier
look has found, the file is published; otherwise nothing is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kernels.calibrations import cti, ptc
from kernels.calibrations.crosstalk import Crosstalk
from kernels.calibrations.defects import Defects
from kernels.calibrations.linearity import Linearizer
from kernels.camera import geometry
from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError, KernelError
from kernels.fits.fitsfile import UNREADABLE, opened
from kernels.fits.product import read as read_pixels
from kernels.fits.tables import WRONG, check_identity
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish, sha256
from kernels.products.headers import read as read_headers

KERNEL: Final = "imported"
#: Combined images.
IMAGES: Final = ("bias", "dark", "flat")
#: Reads a table as it is applied to frames, and so checks it.
TABLES: Final[Mapping[str, Callable[[str, Camera, Detector], Any]]] = {
    "crosstalk": lambda path, camera, detector: Crosstalk.open(path, camera, detector, True),
    "cti": cti.read,
    "defects": Defects.open,
    "linearizer": lambda path, camera, detector: Linearizer.open(path, camera, detector).tables(),
    "ptc": ptc.apply,
}
KEYWORDS: Final = ("OBSTYPE", "INSTRUME", "DETECTOR", "DETNAME", "FILTER", "CALUNIT")


@dataclass(frozen=True)
class Calibration:
    """A calibration that was read and found right."""

    kind: str
    obstype: str
    detector: int
    physical_filter: str = ""
    #: HDUs without a checksum.
    unsealed: int = 0
    notes: tuple[str, ...] = ()
    #: Content of the FITS file to be kept; `None`: the file as it is.
    content: bytes | None = None


def examine(path: str, camera: Camera) -> Calibration:
    """Read a calibration, and make sure that it can be applied to frames of the camera.

    Raises
    ------
    DataError
        The file cannot be read, is not complete, fails a checksum, or is no
        calibration of the camera, of one of its detectors or in its unit.
    """
    found = read_headers(path, KEYWORDS)
    if found["after"]:
        raise DataError(path, f"{found['after']} bytes follow the last HDU")
    header, unsealed = found["headers"], _check_sums(path)
    obstype = str(header.get("OBSTYPE", "")).strip()
    detector = _detector(path, header, camera)
    if obstype in IMAGES:
        check_identity(path, header, obstype, camera, detector, camera.unit)
        for hdu in ("IMAGE", "MASK", "VARIANCE"):
            read_pixels(path, geometry.Box(0, 0, *detector.size), hdu)
    elif obstype in TABLES:
        TABLES[obstype](path, camera, detector)
    else:
        raise DataError(path, f"OBSTYPE {obstype or 'none'} is no calibration known here: {', '.join(_known())}")
    return Calibration(obstype, obstype, detector.id, str(header.get("FILTER", "")).strip(), unsealed)


def _known() -> list[str]:
    return sorted({*IMAGES, *TABLES})


def _detector(path: str, header: Mapping[str, Any], camera: Camera) -> Detector:
    """Find the detector that a header names; its camera is checked later."""
    number = header.get("DETECTOR")
    if not isinstance(number, int) or number not in camera.detectors:
        raise DataError(path, f"is of detector {'nothing' if number is None else number}, {camera.name} has none such")
    return camera.detectors[number]


def _check_sums(path: str) -> int:
    """Compare every HDU with its checksums, header included; count the HDUs that have none.

    Raises
    ------
    DataError
        The bytes are not those of the checksums.
    """
    without = 0
    try:
        with opened(path) as fits:
            for number in range(len(fits)):
                found = fits._FITS.verify_checksum(number + 1)
                if WRONG in (found["dataok"], found["hduok"]):
                    which = "DATASUM" if found["dataok"] == WRONG else "CHECKSUM"
                    raise DataError(path, f"HDU {number}: corrupt, its bytes are not those of its {which}")
                without += not found["hduok"]
    except UNREADABLE as error:
        raise DataError(path, f"cannot be read: {str(error).splitlines()[0]}") from error
    return without


def _plain(path: str, calibration: Calibration) -> dict[str, Any]:
    content = calibration.content
    found = {key: value for key, value in vars(calibration).items() if key != "content"}
    if content is None:
        return {"path": path, **found, "sha256": sha256(Path(path)), "bytes": os.stat(path).st_size}
    return {"path": path, **found, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _place(path: str, calibration: Calibration, found: Mapping[str, Any], task: Task, stamp: str) -> None:
    """Publish a calibration, unless it is not what was examined."""
    wanted = str(task.parameters["sha256"])
    if found["sha256"] != wanted:
        raise DataError(path, "has changed since it was read")

    def write(temporary: str) -> None:
        if calibration.content is None:
            shutil.copyfile(path, temporary)
        else:
            Path(temporary).write_bytes(calibration.content)
        if sha256(Path(temporary)) != wanted:
            raise DataError(path, "has changed while it was copied, or the copy is wrong")

    publish(task.outputs["calibration"], write, stamp, {})


def _attempt(path: str, task: Task, camera: Camera, stamp: str) -> dict[str, Any]:
    try:
        calibration = examine(path, camera)
        found = _plain(path, calibration)
        if task.outputs:
            _place(path, calibration, found, task, stamp)
    except DataError as error:
        return {"path": path, "error": error.why}
    except (KernelError, OSError) as error:
        return {"path": path, "error": str(error)}
    return found


def execute(job: Job, comm: Any = None) -> int:
    """Read, or publish, every task's file; the ranks share them, rank 0 writes the results.

    Returns
    -------
    failures : `int`
        Files of this rank that cannot be used.
    """
    rank, ranks = (comm.Get_rank(), comm.Get_size()) if comm else (0, 1)
    camera, stamp = geometry.camera(job.camera), f"{job.run}.{job.attempt}"
    paths = [job.files[task.inputs["file"][0]].path for task in job.tasks]
    mine = [(n, _attempt(paths[n], job.tasks[n], camera, stamp)) for n in range(rank, len(paths), ranks)]
    found = comm.gather(mine, root=0) if comm else [mine]
    if found is not None:
        numbered = sorted((item for share in found for item in share), key=lambda item: item[0])
        Path(job.config["result"]).write_text("".join(f"{json.dumps(line)}\n" for _, line in numbered))
    return sum("error" in line for _, line in mine)
