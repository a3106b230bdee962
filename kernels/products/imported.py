"""Calibrations from elsewhere: read, checked for one camera, and put under their final names.

A job's ``config``: ``result`` (path of the JSON lines, one a task, in order), ``axes`` (order of a
kernel's axes, ``xy`` or ``yx``, where files do not say it; optional).
One task a file: ``inputs`` (its key under ``file``).  With ``outputs`` (the final
path, under ``calibration``) and the ``sha256`` in ``parameters`` that an earlier
look has found, the file is published; otherwise nothing is written.

FITS files are kept as they are; ECSV and YAML become FITS of the same content.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kernels.calibrations import bfk, cti, gaincorrection, isrfiles, ptc
from kernels.calibrations.crosstalk import Crosstalk
from kernels.calibrations.defects import Defects
from kernels.calibrations.isrcalib import AXES, IsrCalib
from kernels.calibrations.linearity import Linearizer
from kernels.camera import geometry
from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError, KernelError
from kernels.fits.fitsfile import UNREADABLE, opened
from kernels.fits.product import Card
from kernels.fits.product import read as read_pixels
from kernels.fits.tables import WRONG, check_identity
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish, sha256
from kernels.products.headers import read as read_headers

KERNEL: Final = "imported"
#: Combined images.
IMAGES: Final = ("bias", "dark", "flat")
KEYWORDS: Final = ("OBSTYPE", "INSTRUME", "DETECTOR", "DETNAME", "FILTER", "CALUNIT")
Notes = Sequence[str]


def _crosstalk(path: str, camera: Camera, detector: Detector) -> Notes:
    return Crosstalk.open(path, camera, detector, quadratic=False).notes


def _linearizer(path: str, camera: Camera, detector: Detector) -> Notes:
    Linearizer.open(path, camera, detector).tables()
    return ()


def _defects(path: str, camera: Camera, detector: Detector) -> Notes:
    boxes = Defects.open(path, camera, detector).boxes
    if camera.scale == 1 or not len(boxes):
        return ()
    return (f"defects: boxes are taken as pixels of a camera that its scale of {camera.scale} reduces",)


def _cti(path: str, camera: Camera, detector: Detector) -> Notes:
    return cti.read(path, camera, detector)[1]


def _ptc(path: str, camera: Camera, detector: Detector) -> Notes:
    ptc.apply(path, camera, detector)
    return ()


def _gain_correction(path: str, camera: Camera, detector: Detector) -> Notes:
    _, gains = gaincorrection.read(path, camera, detector)
    return () if gains is not None else ("gain_correction: without INPUT_GAIN: any ptc is taken to be its own",)


def _bfk(path: str, camera: Camera, detector: Detector, axes: str) -> Notes:
    kernels = bfk.Kernels.open(path, camera, detector, axes)
    return () if kernels.whole is not None else ("bfk: no kernel is valid: doBrighterFatter will refuse it",)


#: Reads a table as it is applied to frames, and so checks it; gives what of it cannot be applied, or was assumed.
TABLES: Final[Mapping[str, Callable[[str, Camera, Detector], Notes]]] = {
    "crosstalk": _crosstalk,
    "cti": _cti,
    "defects": _defects,
    "gain_correction": _gain_correction,
    "linearizer": _linearizer,
    "ptc": _ptc,
}


@dataclass(frozen=True)
class Calibration:
    """A calibration that was read and found right."""

    kind: str
    obstype: str
    detector: int
    physical_filter: str = ""
    #: HDUs without a checksum.
    unsealed: int = 0
    notes: Notes = ()
    #: Content of the FITS file to be kept; `None`: the file as it is.
    content: bytes | None = None


def examine(path: str, camera: Camera, axes: str = "") -> Calibration:
    """Read a calibration, and make sure that it can be applied to frames of the camera.

    Parameters
    ----------
    axes : `str`, optional
        Order of a kernel's axes, ``xy`` or ``yx``, where the file does not say it.

    Raises
    ------
    DataError
        The file cannot be read, is not complete, fails a checksum, or is no
        calibration of the camera, of one of its detectors or in its unit.
    """
    if not _is_fits(path):
        return _table(path, camera, axes, text=True)
    found = read_headers(path, KEYWORDS)
    if found["after"]:
        raise DataError(path, f"{found['after']} bytes follow the last HDU")
    header, unsealed = found["headers"], _check_sums(path)
    if (obstype := str(header.get("OBSTYPE", "")).strip()) not in IMAGES:
        return replace(_table(path, camera, axes, text=False), unsealed=unsealed)
    number = header.get("DETECTOR")
    detector = _detector(path, number if isinstance(number, int) else None, "", camera)
    check_identity(path, header, obstype, camera, detector, camera.unit)
    for hdu in ("IMAGE", "MASK", "VARIANCE"):
        shape = read_pixels(path, geometry.Box(0, 0, *detector.size), hdu).shape
        if shape != detector.size[::-1]:
            raise DataError(path, f"{hdu} is {shape[1]} x {shape[0]} pixels: of another detector type")
    return Calibration(obstype, obstype, detector.id, str(header.get("FILTER", "")).strip(), unsealed)


def _is_fits(path: str) -> bool:
    """Whether a file begins as FITS, or is named as such."""
    try:
        with open(path, "rb") as file:
            return file.read(6) == b"SIMPLE" or path.lower().endswith(".fits")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from error


def _table(path: str, camera: Camera, axes: str, text: bool) -> Calibration:
    """Read a table in upstream's layout, and have it checked by those that apply it."""
    found = isrfiles.read(path)
    detector = _detector(path, found.detector, found.detector_name, camera)
    found.require(found.kind, camera, detector)
    kept = _completed(found, detector, axes)
    notes = TABLES[found.kind](path, camera, detector) if found.kind in TABLES else _bfk(path, camera, detector, axes)
    content = _written(kept) if text or kept is not found else None
    return Calibration(found.kind, found.obstype, detector.id, notes=tuple(notes), content=content)


def _completed(found: IsrCalib, detector: Detector, axes: str) -> IsrCalib:
    """Add what a file does not say to its metadata: the operator's order of a kernel's axes, the detector."""
    more: dict[str, Any] = {}
    if found.kind == "bfk" and not found.axes:
        if not axes:
            raise DataError(found.path, f"does not say the order of its axes ({AXES}): --kernel-axes xy or yx names it")
        more[AXES] = axes
    if found.detector is None:
        more["DETECTOR"] = detector.id
    if not found.detector_name:
        more["DET_NAME"] = detector.name
    return replace(found, metadata={**found.metadata, **more}) if more else found


def _written(found: IsrCalib) -> bytes:
    """Write a table as FITS, whose primary header names it as its metadata do."""
    cards: list[Card] = [
        ("OBSTYPE", found.kind, "calibration product"),
        ("INSTRUME", found.instrument, ""),
        ("DETECTOR", found.detector, ""),
        ("DETNAME", found.detector_name, ""),
        *([("CALUNIT", found.unit, "unit of the frames")] if found.unit else []),
        ("ORIGFILE", Path(found.path).name, "imported from"),
        ("ORIGSUM", sha256(Path(found.path)), "its SHA-256"),
    ]
    with tempfile.TemporaryDirectory(prefix="campaign-import-") as folder:
        isrfiles.write(found, f"{folder}/calibration.fits", cards)
        return Path(folder, "calibration.fits").read_bytes()


def _detector(path: str, number: int | None, name: str, camera: Camera) -> Detector:
    """Find the detector that a file names; its camera is checked later.

    Raises
    ------
    DataError
        The camera has none such.
    """
    for one in camera.detectors.values():
        if number == one.id if number is not None else name == one.name:
            return one
    said = name if number is None else number
    raise DataError(path, f"is of detector {said or 'nothing'}, {camera.name} has none such")


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
    own = sha256(Path(path))
    found |= {"path": path, "source": own}
    if content is None:
        return {**found, "sha256": own, "bytes": os.stat(path).st_size}
    return {**found, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


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


def _attempt(path: str, task: Task, camera: Camera, job: Job) -> dict[str, Any]:
    try:
        calibration = examine(path, camera, str(job.config.get("axes", "")))
        found = _plain(path, calibration)
        if task.outputs:
            _place(path, calibration, found, task, f"{job.run}.{job.attempt}")
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
    camera = geometry.camera(job.camera)
    paths = [job.files[task.inputs["file"][0]].path for task in job.tasks]
    mine = [(n, _attempt(paths[n], job.tasks[n], camera, job)) for n in range(rank, len(paths), ranks)]
    found = comm.gather(mine, root=0) if comm else [mine]
    if found is not None:
        numbered = sorted((item for share in found for item in share), key=lambda item: item[0])
        Path(job.config["result"]).write_text("".join(f"{json.dumps(line)}\n" for _, line in numbered))
    return sum("error" in line for _, line in mine)
