"""Write the simulator's truth as the calibrations that a perfect measurement would give.

A job's ``config``: ``seed`` and ``rates`` of the simulation, ``permissions``
(see `kernels.jobs.publish`; optional).  One task per detector: ``detector``,
``outputs`` (paths of any of ``crosstalk``, ``linearizer``, ``cti``, ``ptc``,
``defects`` and ``bfk``), ``provenance``.  The same seed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from kernels.calibrations import bfk, crosstalk, cti, defects, linearity, ptc
from kernels.camera import geometry
from kernels.camera.geometry import Camera
from kernels.fits.product import Card
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish_all
from kernels.simulation import brighter
from kernels.simulation.electronics import full_well, in_unit
from kernels.simulation.rates import Rates
from kernels.simulation.truth import Truth, make

KERNEL: Final = "truth_products"


def write_crosstalk(path: str, camera: Camera, truth: Truth, rates: Rates, cards: Sequence[Card]) -> None:
    """Write the crosstalk, for frames in the camera's unit."""
    c0, c1 = in_unit(truth.electronics, camera, truth.detector)
    crosstalk.write(path, camera, truth.detector, c0, c1, cards)


def write_linearizer(path: str, camera: Camera, truth: Truth, rates: Rates, cards: Sequence[Card]) -> None:
    """Write the linearizer."""
    linearity.write(path, camera, truth.detector, truth.electronics.nodes, truth.electronics.values, cards)


def write_ptc(path: str, camera: Camera, truth: Truth, rates: Rates, cards: Sequence[Card]) -> None:
    """Write gains and read noises; the turnoff is the full well."""
    amplifiers = truth.detector.amplifiers
    gain, noise = (np.array([getattr(a, name) for a in amplifiers]) for name in ("gain", "read_noise"))
    turnoff = np.array([full_well(a, rates) for a in amplifiers]) / gain
    ptc.write(path, camera, truth.detector, gain, noise, turnoff, cards)


def write_defects(path: str, camera: Camera, truth: Truth, rates: Rates, cards: Sequence[Card]) -> None:
    """Write the injected defects, each pixel a box of its own."""
    y, x = np.nonzero(truth.hot | truth.dead | truth.vampire | truth.edge)
    one = np.ones_like(x)
    defects.write(path, camera, truth.detector, np.column_stack([x, y, one, one]), cards)


def write_cti(path: str, camera: Camera, truth: Truth, rates: Rates, cards: Sequence[Card]) -> None:
    """Write the deferred charge."""
    rows = [(d.cti, 0, d.drift, 0, d.decay, d.cti, 1) for d in truth.electronics.deferrals]
    cti.write(path, camera, truth.detector, rows, cards)


def write_bfk(path: str, camera: Camera, truth: Truth, rates: Rates, cards: Sequence[Card]) -> None:
    """Write the detector's brighter-fatter kernel: the potential of one electron."""
    kernel = -brighter.whole(brighter.potential(brighter.coefficients(truth.detector, rates.brighter_fatter)))
    bfk.write(path, camera, truth.detector, bfk.Kernels(kernel, None), cards=cards)


WRITERS = {
    bfk.KIND: write_bfk,
    cti.KIND: write_cti,
    crosstalk.KIND: write_crosstalk,
    linearity.KIND: write_linearizer,
    ptc.KIND: write_ptc,
    defects.KIND: write_defects,
}


class TruthProducts(gang.Kernel):
    """The gang kernel: a task is one piece."""

    def __init__(self, job: Job) -> None:
        self._job, self._camera = job, geometry.camera(job.camera)
        self._seed, self._rates = int(job.config["seed"]), Rates.from_plain(job.config.get("rates", {}))

    def compute(self, task: Task, piece: int) -> Truth:
        """Make the detector's truth without responses: none of the calibrations depends on a filter."""
        assert task.detector is not None
        return make(self._seed, self._camera.detectors[task.detector], [], self._rates)

    def finish(self, task: Task, results: Any) -> dict[str, Any]:
        """Publish the calibrations."""
        (truth,), camera, rates = results, self._camera, self._rates
        cards: list[Card] = [("SEED", self._seed, "of the simulation")]
        cards += [(key, value, "") for key, value in task.provenance.items()]
        files = {
            kind: (final, lambda path, write=WRITERS[kind]: write(path, camera, truth, rates, cards))
            for kind, final in task.outputs.items()
        }
        stamp, permissions = f"{self._job.run}.{self._job.attempt}", self._job.config.get("permissions", {})
        return publish_all(files, stamp, permissions)


def execute(job: Job, comm: Any) -> int:
    """Write every task's calibrations; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, TruthProducts(job))
