"""The background of every exposure over the focal plane, by sensor type, from all detectors' superpixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from kernels.camera import geometry
from kernels.errors import DataError, JobError
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products.flatlevels import LIT, read_json, write_json
from kernels.products.packed import pack, unpack
from kernels.transfer.superpixels import Background, Cells, solve

KERNEL: Final = "sky_scale"


def background_of(path: str, table: Mapping[str, Any], kind: str, exposure: int) -> Background | None:
    """Read the background of an exposure for detectors of a sensor type; `None` where it has none."""
    found = table["backgrounds"].get(kind, {}).get(str(exposure))
    if found is None:
        return None
    first = int(found["first"][0]), int(found["first"][1])
    return Background(float(table["size_mm"]), first, unpack(path, found["values"]), float(found["level"]))


class Scale(gang.Kernel):
    """The serial kernel of ``skyScale``, JSON: by sensor type and exposure, a `Background`, whose level is the scale.

    ``config``: ``least`` (fraction of a superpixel), ``apart`` (whether
    sensor types have backgrounds of their own), ``permissions``; input
    ``skyMeasure`` of every detector.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._camera = job, geometry.camera(job.camera)
        self._least, self._apart = float(job.config["least"]), bool(job.config["apart"])
        if not 0 < self._least < 1:
            raise JobError(f"a superpixel needs a fraction of its pixels between 0 and 1, not {self._least:g}")

    def compute(self, task: Task, piece: int) -> dict[str, Any]:
        """Solve for the backgrounds."""
        paths = [self._job.files[key].path for key in task.inputs["skyMeasure"]]
        tables = [read_json(path) for path in paths]
        if len(units := sorted({t["unit"] for t in tables})) > 1:
            raise DataError(paths[0], f"units are mixed: {units}")
        sizes = {float(t["size_mm"]) for t in tables}
        if len(sizes) > 1:
            raise DataError(paths[0], f"superpixels of different detectors have different sizes: {sorted(sizes)} mm")
        (size,), exposures = sizes, sorted({e for t in tables for e in t["exposures"]})
        backgrounds: dict[str, dict[str, Any]] = {}
        unlit: dict[str, list[int]] = {}
        for exposure in exposures:
            there = [(t, t["exposures"].index(exposure)) for t in tables if exposure in t["exposures"]]
            usual = float(np.median([t["level"][at] for t, at in there]))
            for t, at in there:
                if t["level"][at] < LIT * usual:
                    unlit.setdefault(str(t["detector"]), []).append(exposure)
            lit = [(t, at) for t, at in there if t["level"][at] >= LIT * usual]
            for kind in sorted({self._kind(t) for t, _ in lit}):
                rows = [row for t, at in lit if self._kind(t) == kind for row in t["cells"][at]]
                made = self._solved(rows, size, kind)
                if made:
                    backgrounds.setdefault(kind, {})[str(exposure)] = made
        return {
            "unit": units[0],
            "size_mm": size,
            "apart": self._apart,
            "exposures": exposures,
            "backgrounds": backgrounds,
            "unlit": unlit,
        }

    def _kind(self, table: Mapping[str, Any]) -> str:
        return self._camera.detectors[int(table["detector"])].type if self._apart else "every"

    def _solved(self, rows: Sequence[Sequence[float]], size: float, kind: str) -> dict[str, Any] | None:
        pitches = [d.pixel_um * 1e-3 for d in self._camera.detectors.values() if kind in ("every", d.type)]
        made = solve(Cells.of(rows), size, self._least * (size / min(pitches)) ** 2)
        if made is None or not made.level > 0:
            return None
        return {"first": made.first, "values": pack(made.values), "level": made.level}

    def finish(self, task: Task, results: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Publish the backgrounds.

        Raises
        ------
        DataError
            No exposure has a background.
        """
        (made,) = results
        if not made["backgrounds"]:
            what = "no exposure fills a superpixel: detections, saturated and bad pixels leave too little"
            raise DataError(self._job.files[task.inputs["skyMeasure"][0]].path, what)
        stamp, permissions = f"{self._job.run}.{self._job.attempt}", self._job.config["permissions"]
        output = publish(task.outputs["skyScale"], lambda p: write_json(p, made), stamp, permissions)
        names = {str(d.id): d.name for d in self._camera.detectors.values()}
        said = [f"{names[d]} has no light in exposure {', '.join(map(str, e))}" for d, e in made["unlit"].items()]
        return {"skyScale": output, **({"look_at": said} if said else {})}


def execute(job: Job, comm: Any) -> int:
    """Solve for the backgrounds; return the number of failed tasks."""
    return gang.execute(job, comm, Scale(job))
