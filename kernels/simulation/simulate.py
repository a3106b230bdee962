"""Simulated raw frames, as their camera writes them, and their truth.

A job's ``config``: ``seed`` (`int`), ``rates`` (`kernels.simulation.rates.Rates`, all
optional), ``header`` (cards of every frame's primary header: ``INSTRUME``,
``TSTAND``, ...), ``form`` (of the raw files: ``lsst``, the default, or
``plain``; see `kernels.simulation.rawfile`) and ``permissions`` (see `kernels.jobs.publish`; optional).

One task per raw frame: ``detector``, ``outputs = {"raw": path}`` and the
parameters

- ``exposure``, ``day_obs``, ``seq_num`` (`int`), ``obs_id``
  (``CC_O_20241208_000696``), ``observation_type`` (``bias``, ``dark``,
  ``flat``), ``physical_filter`` (`None` without), ``exposure_time`` and
  ``dark_time`` (second), ``begin`` (ISO-8601, TAI), ``mjd`` (TAI), ``reason``,
  ``program``;
- optional: ``electrons``, the light in a pixel of response 1 (without the
  lamp's jitter), instead of the lamp's rate x time;
- optional: ``leak``, the largest light through a closed shutter,
  electron/second; ``jump``, an excess of all bias levels, ADU;
- optional: ``spots``, number of spots in the amplifier of index ``lit``;
  ``stars``, number of stars on the detector (`kernels.simulation.scenes`);
- optional: ``sky``, the level of the night sky in a pixel of response 1, electron,
  instead of the lamp; ``fringe``, the amplitude of its fringes, relative
  (`kernels.simulation.skies`);
- optional: ``lamp``, a factor of the lamp's brightness (default 1 for a flat,
  0 for the others), which makes a lit dark, a dark flat or a saturated flat;
  ``header``, cards of this frame alone (``LSST_NUM``).

One task per detector: ``detector``, ``outputs = {"truth": path}`` and the
parameter ``exposures``, the parameters of this detector's raw tasks.

One task per exposure with light, where `Rates` has a photodiode: any
``detector``, ``outputs = {"diode": path}`` and the exposure's parameters, with
``diode_scale`` optional (`kernels.simulation.diode`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.deferred import defer
from kernels.camera import geometry
from kernels.camera.focalplane import radius_mm
from kernels.camera.geometry import Box, Detector
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products.bench import Bench
from kernels.simulation.brighter import collect
from kernels.simulation.diode import text, trace
from kernels.simulation.electronics import bend, couple, full_well
from kernels.simulation.rates import Rates, Stream, generator
from kernels.simulation.rawfile import FORMS
from kernels.simulation.scenes import scene
from kernels.simulation.skies import glow
from kernels.simulation.truth import F32, CosmicRays, Truth, cosmic_rays, jitter, lamp, make, oriented
from kernels.simulation.truthfile import truth_bytes
from kernels.simulation.wells import bloom

KERNEL: Final = "simulate"

#: Length in the focal plane over which a light leak fades, mm.
LEAK_MM = 700.0
#: Types of exposures with the lamp, or the sky, on.
BRIGHT = ("flat", "science")


def light(seed: int, parameters: Mapping[str, Any], rates: Rates) -> float:
    """Compute the light of an exposure in a pixel of response 1, electron."""
    if parameters.get("sky"):
        return 0.0
    factor = parameters.get("lamp", 1.0 if parameters["observation_type"] in BRIGHT else 0.0)
    if not factor:
        return 0.0
    exposure, seconds = parameters["exposure"], parameters["exposure_time"]
    if "electrons" in parameters:
        return float(factor * parameters["electrons"] * jitter(seed, exposure, rates))
    return float(factor * lamp(seed, exposure, parameters["physical_filter"], seconds, rates))


def _deposit(charge: F32, rays: CosmicRays, box: Box) -> None:
    """Add the cosmic rays that fall into an amplifier's ``box`` to its charge, in detector orientation."""
    inside = (rays.x >= box.x0) & (rays.x < box.x1) & (rays.y >= box.y0) & (rays.y < box.y1)
    charge[rays.y[inside] - box.y0, rays.x[inside] - box.x0] += rays.charge[inside]


def _row_drift(rng: np.random.Generator, rows: int, rates: Rates) -> F32:
    """Draw the drift of the level along the rows [row, 1], ADU: about half a wave, and a settling start."""
    at = np.linspace(0, 1, rows)
    wave = np.sin(2 * np.pi * (rng.uniform(0.3, 1.0) * at + rng.random()))
    drift = rates.row_drift * (wave + rng.normal() * np.exp(-at / 0.1))
    return np.asarray(drift[:, None], dtype=np.float32)


def signal_of(truth: Truth, k: int, charge: F32, rays: CosmicRays, gain: float, rates: Rates) -> F32:
    """Compute the signal of one ideal amplifier in one exposure.

    Parameters
    ----------
    k : `int`
        Index of the amplifier.
    charge : `numpy.ndarray` [y, x], float32
        Collected charge of its imaging area in detector orientation, electron; changed in place.
    gain : `float`
        electron/ADU.

    Returns
    -------
    signal : `numpy.ndarray` [row, column], float32
        In read-out order from the imaging area's first column on, ADU;
        includes the overscan where charge is deferred.
    """
    amplifier = truth.detector.amplifiers[k]
    target, data = amplifier.target, amplifier.data
    _deposit(charge, rays, target)
    if truth.wells is None:
        np.minimum(charge, full_well(amplifier, rates), out=charge)
    else:
        bloom(charge, truth.wells[target.slices])
    signal = oriented(charge, amplifier)
    deferral = truth.electronics.deferrals[k]
    if deferral:
        row = np.zeros((data.ny, amplifier.raw[0]), np.float32)
        row[:, data.x0 : data.x1] = signal
        signal = defer(row, deferral)[:, data.x0 :]
    adu = np.asarray(signal / np.float32(gain), np.float32)
    adu[:, : data.nx] += oriented(truth.structure[target.slices], amplifier)
    return adu


def _level_shifts(seed: int, truth: Truth, parameters: Mapping[str, Any], rates: Rates) -> NDArray[np.float64]:
    """Draw the shifts of the night's levels [amplifier] from the truth's, ADU."""
    rng = generator(seed, Stream.NIGHT, parameters.get("day_obs", 0), truth.detector.id)
    return parameters.get("jump", 0.0) + rates.night_drift * rng.standard_normal(len(truth.levels))


def leaked(detector: Detector, box: Box) -> F32:
    """Compute the light leak on a box [y, x] of the detector, relative to its largest; it comes from one side."""
    x, _, _ = radius_mm(detector)
    return np.asarray(np.clip(0.5 + x[box.slices] / LEAK_MM, 0, 1), np.float32)


def read_out(
    truth: Truth, k: int, signal: F32, shift: float, rng: np.random.Generator, rates: Rates, noise: float = 1.0
) -> NDArray[np.int32]:
    """Draw the raw pixels of one amplifier of one exposure.

    Parameters
    ----------
    k : `int`
        Index of the amplifier.
    signal : `numpy.ndarray` [row, column], float32
        In read-out order from the imaging area's first column on, ADU.
    shift : `float`
        Shift of the level, ADU.
    noise : `float`
        Factor of the read noise.

    Returns
    -------
    raw : `numpy.ndarray` [raw height, raw width], int32
        ADU.
    """
    amplifier = truth.detector.amplifiers[k]
    width, height = amplifier.raw
    raw = rng.standard_normal((height, width), dtype=np.float32)
    raw *= np.float32(amplifier.read_noise * noise / amplifier.gain)
    raw += np.float32(truth.levels[k] + shift + rates.level_drift * rng.standard_normal())
    raw += _row_drift(rng, height, rates)
    if rates.row_noise:
        raw += np.float32(rates.row_noise) * rng.standard_normal((height, 1), dtype=np.float32)
    data = amplifier.data
    raw[data.y0 : data.y1, data.x0 : data.x0 + signal.shape[1]] += signal
    return np.clip(np.rint(raw), 0, truth.detector.adc_max).astype(np.int32)


def _distorted(signals: list[F32], truth: Truth, rates: Rates) -> list[F32]:
    """Apply non-linearity and crosstalk to the amplifiers' ideal signals, ADU."""
    electronics = truth.electronics
    if rates.nonlinearity:
        signals = [bend(s, x, y) for s, x, y in zip(signals, electronics.nodes, electronics.values, strict=True)]
    return couple(signals, electronics) if rates.crosstalk else signals


def gains_at(detector: Detector, day_obs: int, rates: Rates) -> list[float]:
    """Compute the gains of a night [amplifier], electron/ADU."""
    factors = _factors(detector, day_obs, rates.gain_steps)
    return [a.gain * factor for a, factor in zip(detector.amplifiers, factors, strict=True)]


def _factors(detector: Detector, day_obs: int, steps: Mapping[str, Any]) -> list[float]:
    """Give the factors of a night [amplifier]."""
    known = {name: float(factor) for name, (day, factor) in steps.items() if day_obs >= day}
    return [known.get(f"{detector.name}_{a.name}", 1.0) for a in detector.amplifiers]


def _collected(
    seed: int, truth: Truth, parameters: Mapping[str, Any], streams: list[np.random.Generator], rates: Rates
) -> list[F32]:
    """Draw the charge that each amplifier [y, x] collects in one exposure, electron."""
    detector, seconds = truth.detector, parameters["dark_time"]
    brightness, leak = light(seed, parameters, rates), parameters.get("leak", 0.0)
    more, sky = scene(seed, detector, parameters, rates), None
    if parameters.get("sky"):
        sky = glow(seed, detector, truth.skies[parameters["physical_filter"]], parameters, rates)
    expected = []
    for amplifier in detector.amplifiers:
        at = amplifier.target.slices
        charge = truth.dark[at] * np.float32(seconds)
        if leak:
            charge += leaked(detector, amplifier.target) * np.float32(leak * seconds)
        if brightness:
            charge += truth.response[parameters["physical_filter"]][at] * np.float32(brightness)
        if sky is not None:
            charge += truth.response[parameters["physical_filter"]][at] * sky[at]
        if more is not None and rates.dead_amplifiers.get(detector.name) != amplifier.name:
            charge += more[at]
        expected.append(charge)
    if not rates.brighter_fatter:
        return [rng.poisson(charge).astype(np.float32) for charge, rng in zip(expected, streams, strict=True)]
    whole = np.zeros((detector.size[1], detector.size[0]), np.float32)
    for amplifier, charge in zip(detector.amplifiers, expected, strict=True):
        whole[amplifier.target.slices] = charge
    whole = collect(whole, detector, streams, rates.brighter_fatter, rates.brighter_fatter_steps)
    return [whole[a.target.slices].copy() for a in detector.amplifiers]


def frame(seed: int, truth: Truth, scale: int, parameters: Mapping[str, Any], rates: Rates) -> list[NDArray[np.int32]]:
    """Draw the raw pixels of one exposure: one array an amplifier, ADU."""
    detector, exposure = truth.detector, parameters["exposure"]
    shift = _level_shifts(seed, truth, parameters, rates)
    rays = cosmic_rays(seed, exposure, detector, scale, parameters["dark_time"], rates)
    streams = [generator(seed, Stream.FRAME, exposure, detector.id, k) for k in range(len(detector.amplifiers))]
    charges = _collected(seed, truth, parameters, streams, rates)
    gains = gains_at(detector, parameters.get("day_obs", 0), rates)
    signals = [signal_of(truth, k, charge, rays, gains[k], rates) for k, charge in enumerate(charges)]
    signals = _distorted(signals, truth, rates)
    noises = _factors(detector, parameters.get("day_obs", 0), rates.noise_steps)
    return [
        read_out(truth, k, signal, shift[k], rng, rates, noises[k])
        for k, (signal, rng) in enumerate(zip(signals, streams, strict=True))
    ]


class Simulate(gang.Kernel):
    """The gang kernel: a task is one piece."""

    def __init__(self, job: Job) -> None:
        self._job, self._camera = job, geometry.camera(job.camera)
        self._seed, self._rates = int(job.config["seed"]), Rates.from_plain(job.config.get("rates", {}))
        every = [p for t in job.tasks for p in t.parameters.get("exposures", [t.parameters])]
        self._skies = {p["physical_filter"] for p in every if p.get("sky")}
        self._filters = self._skies | {p["physical_filter"] for p in every if light(self._seed, p, self._rates)}
        self._truth = lru_cache(maxsize=1)(self._make_truth)

    def _make_truth(self, detector: int) -> Truth:
        return make(self._seed, self._camera.detectors[detector], self._filters, self._rates, self._skies)

    def compute(self, task: Task, piece: int) -> bytes:
        """Make the bytes of a raw or truth file."""
        assert task.detector is not None
        truth, scale, parameters = self._truth(task.detector), self._camera.scale, task.parameters
        if "truth" in task.outputs:
            light_of = {p["exposure"]: light(self._seed, p, self._rates) for p in parameters["exposures"]}
            return truth_bytes(self._seed, truth, scale, parameters["exposures"], light_of, self._rates)
        if "diode" in task.outputs:
            return self._diode(parameters)
        images = frame(self._seed, truth, scale, parameters, self._rates)
        form = FORMS[self._job.config.get("form", "lsst")]
        return form(truth.detector, images, parameters, self._job.config.get("header", {}))

    def _diode(self, parameters: Mapping[str, Any]) -> bytes:
        brightness = light(self._seed, parameters, self._rates)
        readings = trace(self._seed, parameters, brightness, self._rates)
        return text(*readings, parameters, str(self._job.config.get("header", {}).get("INSTRUME", "")))

    def finish(self, task: Task, results: Any) -> dict[str, Any]:
        """Publish the file."""
        (data,) = results
        ((kind, path),) = task.outputs.items()
        stamp = f"{self._job.run}.{self._job.attempt}"
        permissions = self._job.config.get("permissions", {})
        return {kind: publish(path, lambda temporary: _write(temporary, data), stamp, permissions)}


def _write(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)


def warm(bench: Bench) -> None:
    """Collect the charge of a few pixels with the brighter-fatter effect."""
    (detector,) = bench.camera.detectors.values()
    light = np.full((detector.size[1], detector.size[0]), 1000, np.float32)
    collect(light, detector, [generator(1, Stream.FRAME, k) for k in range(len(detector.amplifiers))], 1.0, 2)


def execute(job: Job, comm: Any) -> int:
    """Make the frames and truths of a job; give the number of this rank's tasks that failed.

    The same seed gives the same bytes whatever the number of ranks.

    The module's text describes a task's parameters.
    """
    # a detector's frames in a row: its truth is made once
    tasks = sorted(job.tasks, key=lambda t: (t.detector or 0, t.parameters.get("exposure", 0)))
    return gang.execute(replace(job, tasks=tuple(tasks)), comm, Simulate(job))
