"""The data of the benchmarks, made in a scratch folder when they are first asked for."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fitsio
import numpy as np

from campaign.camera.model import Camera, load
from campaign.jobs.launch import cores
from tests.benchmarks.process import run

CAMERA, DAY = "LSSTComCam", 20241206
#: A detector as the uncompressed peers want it: one image, unsigned 16 bits, nothing around it.
PLAIN_SIZE, QUICK_SIZE = (4000, 4072), (1000, 1018)
NEED_BYTES, QUICK_NEED_BYTES = 18 << 30, 2 << 30
DARKS = 4
#: Longest simulation of all frames, on a machine that is busy with other things, second.
LONGEST_S = 3600.0


@dataclass(frozen=True)
class Data:
    """Frames of a simulated LSSTComCam, and plain ones.

    Parameters
    ----------
    folder : `Path`
        Scratch; whoever made it removes it.
    quick : `bool`
        Fewer and smaller frames.
    say : callable
        Called with the progress.
    """

    folder: Path
    quick: bool
    say: Callable[[str], None]

    @property
    def frames(self) -> int:
        """Exposures of each detector."""
        return 8 if self.quick else 20

    @property
    def many(self) -> int:
        """Exposures of the benchmark of many."""
        return 5 * self.frames

    @cached_property
    def camera(self) -> Camera:
        """The camera."""
        return load(CAMERA).scaled(4 if self.quick else 1)

    @property
    def detectors(self) -> list[int]:
        """All of them."""
        return list(self.camera.detector_ids("SCIENCE"))

    def room(self) -> str | None:
        """Say so where the scratch folder is too small."""
        need, free = QUICK_NEED_BYTES if self.quick else NEED_BYTES, shutil.disk_usage(self.folder).free
        if free >= need:
            return None
        return f"{self.folder} has {free >> 30} GiB free, {need >> 30} are needed: set TMPDIR"

    def _simulated(self, name: str, biases: int, darks: int, flats: int, detector: int | None = None) -> Path:
        """Simulate frames of one detector, or of all; they lie in ``<repository>-raw``."""
        repository, number = self.folder / name, {"bias": biases, "dark": darks, "flat": flats}
        what = " and ".join(f"{n} {kind} frames" for kind, n in number.items() if n)
        detectors = self.detectors if detector is None else [detector]
        self.say(f"simulating {what} of {len(detectors)} detectors at scale {self.camera.scale}")
        line = [sys.executable, "-P", "-m", "campaign", "simulate", str(repository), "--camera", CAMERA]
        for kind, n in number.items():
            line += [f"--{kind}", str(n)]
        line += [word for d in detectors for word in ("--detector", str(d))]
        line += ["--day-obs", str(DAY), "--scale", str(self.camera.scale), "--ranks", str(cores())]
        run(line, longest=LONGEST_S)
        shutil.rmtree(repository.with_name(f"{name}-truth"))
        return repository

    @cached_property
    def repository(self) -> Path:
        """A repository with the simulated biases ingested."""
        return self._simulated("repo", self.frames, 0, 0)

    @cached_property
    def _lit(self) -> Path:
        return self._simulated("lit", 0, DARKS, self.frames)

    def lit(self, detector: int) -> dict[str, list[Path]]:
        """A detector's flats, and a few darks, by kind."""
        name = self.camera.by_id[detector].name
        found = sorted(self._lit.with_name("lit-raw").rglob(f"*_{name}.fits"))
        assert len(found) == DARKS + self.frames, f"{len(found)} darks and flats"
        return {"dark": found[:DARKS], "flat": found[DARKS:]}

    @cached_property
    def darks(self) -> list[Path]:
        """As many darks of the first detector as there are biases."""
        folder = self._simulated("darks", 0, self.frames, 0, self.detectors[0]).with_name("darks-raw")
        return sorted(folder.rglob("*.fits"))

    def raws(self, detector: int) -> list[Path]:
        """A detector's frames: Rice int32, an HDU an amplifier, as the LSST camera's."""
        folder = self.repository.with_name("repo-raw")
        found = sorted(folder.rglob(f"*_{self.camera.by_id[detector].name}.fits"))
        assert len(found) == self.frames, f"{len(found)} raws in {folder}"
        return found

    def raws_many(self, detector: int) -> list[Path]:
        """The same frames under five names each."""
        folder = self.folder / "many"
        folder.mkdir(exist_ok=True)
        links = []
        for k, path in enumerate(self.raws(detector) * (self.many // self.frames)):
            link = folder / f"{k:03d}-{path.name}"
            if not link.is_symlink():
                link.symlink_to(path)
            links.append(link)
        return links

    @property
    def plain_size(self) -> tuple[int, int]:
        """Width and height of the plain frames."""
        return QUICK_SIZE if self.quick else PLAIN_SIZE

    @cached_property
    def plain(self) -> list[Path]:
        """Uncompressed frames of one image each: uint16, a level of 1000 and noise of 5 ADU."""
        folder, (width, height) = self.folder / "plain", self.plain_size
        folder.mkdir()
        rng, paths = np.random.default_rng(1), []
        for k in range(self.frames):
            paths.append(folder / f"bias_{k + 1:05d}.fit")
            level = np.float32(1000) + np.float32(5) * rng.standard_normal((height, width), dtype=np.float32)
            fitsio.write(str(paths[-1]), np.rint(level).astype(np.uint16))
        return paths

    def plain_camera(self) -> dict[str, Any]:
        """The ``camera`` section of a job on `plain`: one detector of one amplifier without overscan."""
        width, height = self.plain_size
        amplifier = {
            "name": "A", "hdu": 0, "raw": [width, height], "data": [0, 0, width, height], "serial_overscan": None,
            "parallel_overscan": None, "target": [0, 0, width, height], "flip_x": False, "flip_y": False,
        }  # fmt: skip
        kind = {"size": [width, height], "pixel_um": 10.0, "adc_max": 65535, "amplifiers": [amplifier]}
        detector = {
            "id": 0, "name": "D0", "type": "Plain", "position_mm": [0.0, 0.0], "yaw_deg": 0.0,
            "gains": [1.0], "read_noises": [5.0], "saturations": [None],
        }  # fmt: skip
        return {"name": "Plain", "unit": "adu", "scale": 1, "types": {"Plain": kind}, "detectors": [detector]}
