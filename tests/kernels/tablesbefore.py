"""Calibrations that are tables as earlier versions wrote them: repositories hold such files."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.camera.geometry import Camera, Detector
from kernels.fits.tables import Table, identity, write_tables

UNITS = {
    "X0": "pixel", "Y0": "pixel", "WIDTH": "pixel", "HEIGHT": "pixel", "NODES": "adu", "VALUES": "adu",
    "GAIN": "electron/adu", "NOISE": "electron", "TURNOFF": "adu", "DECAY": "pixel",
}  # fmt: skip
CTI = ("CTI", "CTI_ERROR", "DRIFT", "DRIFT_ERROR", "DECAY", "EPER", "EXPOSURES")


def write(kind: str, path: str, camera: Camera, detector: Detector, columns: dict[str, Any]) -> None:
    """Write a table; ``columns`` without AMPLIFIER, which all but the defects have."""
    names = [a.name for a in detector.amplifiers]
    cards = identity(kind, camera, detector)
    if kind == "crosstalk":
        cards += [("CALUNIT", camera.unit, "unit of the frames")]
        cards += [(f"SOURCE{n}", name, "amplifier") for n, name in enumerate(names)]
    arrays = {} if kind == "defects" else {"AMPLIFIER": np.array(names)}
    arrays |= {name: np.asarray(values) for name, values in columns.items()}
    write_tables(path, cards, [Table(arrays, {**UNITS, "C1": f"1/{camera.unit}"}, kind.upper())])


def crosstalk(path: str, camera: Camera, detector: Detector, c0: Any, c1: Any) -> None:
    """``c0`` and ``c1`` [target, source]."""
    write("crosstalk", path, camera, detector, {"C0": np.asarray(c0, "f4"), "C1": np.asarray(c1, "f4")})


def linearizer(path: str, camera: Camera, detector: Detector, nodes: Any, values: Any) -> None:
    write("linearizer", path, camera, detector, {"NODES": nodes, "VALUES": values})


def ptc(path: str, camera: Camera, detector: Detector, gain: Any, noise: Any, turnoff: Any) -> None:
    write("ptc", path, camera, detector, {"GAIN": gain, "NOISE": noise, "TURNOFF": turnoff})


def defects(path: str, camera: Camera, detector: Detector, boxes: Any) -> None:
    boxes = np.asarray(boxes, np.int32)
    names = ("X0", "Y0", "WIDTH", "HEIGHT")
    write("defects", path, camera, detector, {name: boxes[:, k] for k, name in enumerate(names)})


def cti(path: str, camera: Camera, detector: Detector, rows: Any) -> None:
    values = np.asarray(rows, np.float64)
    columns = {name: values[:, k] for k, name in enumerate(CTI)}
    write("cti", path, camera, detector, columns | {"EXPOSURES": values[:, -1].astype(np.int32)})
