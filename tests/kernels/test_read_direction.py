"""Amplifiers read from the other side: a mirrored frame gives the same bits, whatever is corrected."""

from __future__ import annotations

from typing import Any

import fitsio
import numpy as np
import pytest

from campaign.camera.parts import Amplifier as CameraAmplifier
from kernels.calibrations import crosstalk, cti
from kernels.calibrations.applied import Calibrations
from kernels.calibrations.config import IsrConfig
from kernels.calibrations.deferred import Deferral
from kernels.camera import geometry
from kernels.fits.raw import Frames
from kernels.isr.overscan import serial_region
from kernels.isr.reader import Reader
from kernels.isr.trailing import trailing
from kernels.jobs.job import File
from kernels.jobs.scratch import Scratch


def mirrored(plain: dict[str, Any]) -> dict[str, Any]:
    """The same amplifier in a frame written in the opposite direction."""
    width = plain["raw"][0]
    boxes = {key: plain[key] for key in ("data", "serial_overscan", "parallel_overscan")}
    turned = {key: [width - x0 - nx, y0, nx, ny] for key, (x0, y0, nx, ny) in boxes.items()}
    return {**plain, **turned, "flip_x": not plain["flip_x"], "leftwards": True}


def test_a_mirrored_frame_gives_the_same_product(lab: Any) -> None:
    """The overscan's first columns hold charge that was left behind: 400 ADU, which no level may hold."""
    rng, results = np.random.default_rng(4), []
    camera = geometry.camera(lab.camera())
    late, mixed = str(lab.folder / "cti.fits"), str(lab.folder / "crosstalk.fits")
    cti.write(late, camera, camera.detectors[1], [[2e-5, 0, 0.01, 0, 2.0, 0, 9]] * 4)
    frames = [lab.expose(rng, 900.0) for _ in range(5)]
    for frame in frames:
        for a, raw in zip(lab.amplifiers, frame, strict=True):
            raw[:, a["serial_overscan"][0] : a["serial_overscan"][0] + 3] += 400
    crosstalk.write(
        mixed, camera, camera.detectors[1], 1e-3 * np.arange(16).reshape(4, 4) * (1 - np.eye(4)), np.zeros((4, 4))
    )
    usual = lab.amplifiers
    for name, turned in (("none", ()), ("some", (0, 3)), ("all", range(4))):
        lab.amplifiers = [mirrored(a) if k in turned else a for k, a in enumerate(usual)]
        paths = [
            lab.write(f"{name}{n}.fits", [raw[:, ::-1].copy() if k in turned else raw for k, raw in enumerate(frame)])
            for n, frame in enumerate(frames)
        ]
        out = str(lab.folder / f"{name}.fits")
        task = {
            "task": "bias:1", "detector": 1, "inputs": {"raw": paths, "cti": [late], "crosstalk": [mixed]},
            "outputs": {"bias": out}, "parameters": lab.parameters(5),
        }  # fmt: skip
        isr = {**lab.isr, "parallel": True, "deferred": True, "crosstalk": True}
        plain = lab.job("combine", [task], name=name, config={"type": "bias", "isr": isr})
        assert lab.serial(plain) == 0, lab.journal(plain)
        results.append(fitsio.read(out, "IMAGE").tobytes() + fitsio.read(out, "VARIANCE").tobytes())
    assert len(set(results)) == 1
    assert np.median(fitsio.read(out, "IMAGE")) == pytest.approx(900, abs=50)


def test_the_columns_behind_the_last_are_those_read_next(lab: Any) -> None:
    rng, found = np.random.default_rng(5), []
    frame = lab.expose(rng, 5000.0)
    for turn in (False, True):
        if turn:
            lab.amplifiers = [mirrored(a) for a in lab.amplifiers]
        path = lab.write(f"{turn}.fits", [raw[:, ::-1].copy() if turn else raw for raw in frame])
        detector = geometry.camera(lab.camera()).detectors[1]
        config, deferrals = IsrConfig.from_plain(lab.isr), (Deferral(1e-5, 0.01, 2.0),) * 4
        calibrations = Calibrations(detector, deferrals=deferrals)
        with Frames() as frames:
            reader = Reader(frames, Scratch(), range(4), config, "electron", calibrations)
            found.append(np.array(trailing(reader, File(path), 5)))
        a = detector.amplifiers[0]
        region = serial_region(a, config)
        assert region is not None
        assert a.read_order(region) == region if not turn else a.read_order(region).x0 == 31
    assert found[0].tobytes() == found[1].tobytes()


@pytest.mark.parametrize(
    ("data", "overscan", "read_from", "leftwards"),
    [
        ("[5:68,1:48]", "[69:84,1:48]", None, False),
        ("[17:80,1:48]", "[1:16,1:48]", None, True),
        ("[17:80,1:48]", "[1:16,1:48]", "left", False),
        ("[5:68,1:48]", "[69:84,1:48]", "right", True),
        ("[5:68,1:48]", None, None, False),
        ("[5:68,1:48]", None, "right", True),
    ],
)
def test_the_overscan_is_read_last_unless_the_camera_says_otherwise(
    data: str, overscan: str | None, read_from: Any, leftwards: bool
) -> None:
    made = CameraAmplifier.model_validate(
        {
            "name": "A", "hdu": 0, "raw": [96, 48], "data": data, "serial_overscan": overscan,
            "target": "[1:64,1:48]", "read_from": read_from,
        }
    )  # fmt: skip
    assert made.leftwards is leftwards
