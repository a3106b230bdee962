"""Summarises a repository: its exposures, and read noise and gain from pairs of like frames."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from campaign.camera.model import Camera
from campaign.console import patience
from campaign.jobs.file import JobFile, JobTask
from campaign.jobs.launch import run_job
from campaign.wording import count

if TYPE_CHECKING:
    from campaign.butler.records import ExposureRecord, Raw
    from campaign.butler.repository import Repository

#: Most frames of a group and detector that are paired; more would hardly add precision.
ENOUGH = 64
#: Factors by which read noise and gain of frames and camera file may differ.
NOISE_AGREES, GAIN_AGREES = 1.5, 1.25

Kind = tuple[str, int, str]
Channel = tuple[int, str]


@dataclass(frozen=True)
class Measured:
    """Read noise (ADU) or gain (electron / ADU) of an amplifier from the pairs of a group, and the camera file's."""

    detector: int
    amplifier: str
    pairs: int
    read_noise: float | None = None
    gain: float | None = None
    file_read_noise: float | None = None
    file_gain: float | None = None


@dataclass(frozen=True)
class SummaryRow:
    """Frames of one kind on one day; noise (ADU) and gain (electron / ADU) where pairs exist."""

    type: str
    day_obs: int
    physical_filter: str
    band: str
    exposures: int
    raws: int
    exposure_times: tuple[float, ...]
    read_noise: float | None = None
    gain: float | None = None
    amplifiers: tuple[Measured, ...] = ()


def summarise(repository: Repository, instrument: str, camera: Camera, ranks: int) -> list[SummaryRow]:
    """Count exposures by type, day and filter; measure read noise and gain from pairs of biases and flats."""
    selection = repository.select([f"{instrument}/raw/all"], f"instrument='{instrument}'")
    raws = Counter(r.exposure for r in selection.raws)
    groups: dict[Kind, list[ExposureRecord]] = defaultdict(list)
    for exposure in selection.exposures:
        groups[exposure.type, exposure.day_obs, exposure.physical_filter].append(exposure)
    paths: dict[int, list[Raw]] = defaultdict(list)
    for raw in selection.raws:
        paths[raw.exposure].append(raw)
    measured = _measure(groups, paths, camera, ranks)
    rows = []
    for key, some in sorted(groups.items()):
        amplifiers = measured.get(key, ())
        noises = [m.read_noise for m in amplifiers if m.read_noise is not None]
        gains = [m.gain for m in amplifiers if m.gain is not None]
        rows.append(
            SummaryRow(
                *key,
                some[0].band,
                len(some),
                sum(raws[e.id] for e in some),
                tuple(sorted({e.exposure_time for e in some})),
                median(noises) if noises else None,
                median(gains) if gains else None,
                amplifiers,
            )
        )
    return rows


def disagreements(rows: Sequence[SummaryRow]) -> list[str]:
    """Report where read noise or gain of frames and camera file differ: the worst amplifier of each."""
    texts = []
    for name, unit, limit in (("read_noise", "ADU", NOISE_AGREES), ("gain", "electron/ADU", GAIN_AGREES)):
        found: dict[Channel, tuple[float, float]] = {}
        for m in (m for row in rows for m in row.amplifiers):
            mine, files = getattr(m, name), getattr(m, f"file_{name}")
            if mine is not None and files and not 1 / limit < mine / files < limit:
                found[m.detector, m.amplifier] = mine, files
        if found:
            (detector, amplifier), (mine, files) = max(found.items(), key=lambda f: max(f[1]) / max(min(f[1]), 1e-9))
            more = f", {len(found) - 1} more amplifiers differ" if len(found) > 1 else ""
            label = name.replace("_", " ")
            texts.append(
                f"{label} of amplifier {amplifier} of detector {detector} is {mine:.3f} {unit} by the frames,"
                f" {files:.3f} by the camera file{more}"
            )
    return texts


def _measure(
    groups: Mapping[Kind, Sequence[ExposureRecord]], raws: Mapping[int, Sequence[Raw]], camera: Camera, ranks: int
) -> dict[Kind, tuple[Measured, ...]]:
    """Measure the amplifiers of each group, biases first: flats need their level and noise."""
    answers: dict[str, list[dict[str, Any]]] = {}
    offsets: dict[Channel, float] = {}
    squares: dict[Channel, float] = {}
    for kind in ("bias", "flat"):
        some = {key: exposures for key, exposures in groups.items() if key[0] == kind}
        answers[kind] = _run(some, raws, camera, ranks, offsets)
        if kind == "bias":
            for channel, rows in _by_channel(answers[kind]).items():
                offsets[channel] = median(m for r in rows for m in r["means"])
                squares[channel] = median(r["variance"] for r in rows)
    figures = {
        (d.id, a.name): (noise / gain, gain)
        for d in camera.detectors
        for a, noise, gain in zip(camera.types[d.type].amplifiers, d.read_noises, d.gains, strict=True)
    }
    found: dict[Kind, tuple[Measured, ...]] = {}
    for key in groups:
        own = _by_channel([r for r in answers.get(key[0], ()) if tuple(r["group"]) == key])
        measured = []
        for channel, rows in sorted(own.items()):
            noise, gain = figures[channel]
            if key[0] == "bias":
                mine = median(r["noise"] for r in rows)
                measured.append(Measured(*channel, len(rows), read_noise=mine, file_read_noise=noise))
            else:
                gains = [g for r in rows if (g := gain_of(r["means"], r["variance"], squares.get(channel))) is not None]
                if gains:
                    measured.append(Measured(*channel, len(gains), gain=median(gains), file_gain=gain))
        found[key] = tuple(measured)
    return found


def gain_of(means: Sequence[float], variance: float, square: float | None) -> float | None:
    """Compute the gain of one amplifier from one pair of flats; `None` without a bias, or where all is noise.

    Parameters
    ----------
    means : sequence of `float`
        Levels of both above the bias, ADU; each frame was scaled to their mean.
    variance : `float`
        Half the variance of the difference, ADU^2.
    square : `float` or `None`
        The same for biases, ADU^2.
    """
    if square is None or min(means) <= 0:
        return None
    a, b = means
    mean = (a + b) / 2
    light = variance - square * ((mean / a) ** 2 + (mean / b) ** 2) / 2
    return mean**2 * (1 / a + 1 / b) / 2 / light if light > 0 else None


def _by_channel(rows: Sequence[dict[str, Any]]) -> dict[Channel, list[dict[str, Any]]]:
    found: dict[Channel, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["detector"], row["amplifier"]].append(row)
    return found


def _run(
    groups: Mapping[Kind, Sequence[ExposureRecord]],
    raws: Mapping[int, Sequence[Raw]],
    camera: Camera,
    ranks: int,
    offsets: Mapping[Channel, float],
) -> list[dict[str, Any]]:
    """Have a kernel pair the frames of each group and detector."""
    files: dict[str, dict[str, str]] = {}
    tasks = []
    for group, exposures in groups.items():
        of: dict[int, list[Raw]] = defaultdict(list)
        for exposure in sorted(exposures, key=lambda e: e.id):
            for raw in raws[exposure.id]:
                of[raw.detector].append(raw)
        for detector, some in sorted(of.items()):
            chosen = [some[k * len(some) // ENOUGH] for k in range(ENOUGH)] if len(some) > ENOUGH else some
            names = [f"{r.exposure}:{detector}" for r in chosen]
            files |= {name: {"path": r.path} for name, r in zip(names, chosen, strict=True)}
            known = {name: level for (d, name), level in offsets.items() if d == detector}
            about = {"group": list(group), "offsets": known}
            tasks.append(JobTask(f"pairs:{'-'.join(map(str, group))},{detector}", detector, {"raw": names}, {}, about))
    tasks = [task for task in tasks if len(task.inputs["raw"]) > 1]
    if not tasks:
        return []
    with tempfile.TemporaryDirectory(prefix="campaign-pairs-") as folder:
        result = Path(folder) / "pairs.json"
        job = JobFile(
            kernel="pairs",
            run="summary",
            ranks=min(ranks, len(tasks)),
            journal=f"{folder}/journal/pairs",
            camera=camera.plain({t.detector for t in tasks if t.detector is not None}),
            config={"result": str(result), "isr": {}},
            files=files,
            tasks=tasks,
        )
        with patience(lambda: f"measuring pairs of frames in {count(len(tasks), 'group')} of one detector"):
            run_job(job.write(Path(folder) / "pairs.json.job"), job.ranks, Path(folder) / "pairs.log")
        rows: list[dict[str, Any]] = json.loads(result.read_text())
        return rows
