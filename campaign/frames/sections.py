"""Compares a camera file with frames: sections with edges of the light, read noises with measured ones."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.camera.model import Camera, build, flow, load
from campaign.camera.observation import Observation
from campaign.camera.parts import Amplifier
from campaign.camera.section import Section
from campaign.camera.translation import Overrides
from campaign.errors import CampaignError, ConfigurationError
from campaign.frames.ingest import expand, observe
from campaign.jobs.file import JobFile, JobTask
from campaign.jobs.launch import run_job

#: Frames of these types have no light.
UNLIT = ("bias", "dark")
#: Factors from which a deviating read noise is a misfit, and from which it is noted.
WRONG, ODD = 2.0, 1.25
BOXES = ("data", "serial_overscan", "parallel_overscan")


@dataclass
class Report:
    """Comparison of a camera file with frames."""

    camera: Camera
    #: See `kernels.products.sections.examine`; misfits of the read noise are added to the others.
    detectors: list[dict[str, Any]]
    #: Reason why a frame cannot be used, by path.
    refused: Mapping[str, str]
    #: Corrected ``size`` and ``amplifiers`` of each type, in the camera file's own words.
    proposed: dict[str, dict[str, Any]] = field(default_factory=dict)

    pictures: list[Path] = field(default_factory=list)

    def _said(self, key: str) -> Iterator[str]:
        """Merge equal remarks, each with its amplifiers."""
        by_text: dict[tuple[int, str], list[str]] = {}
        for one in self.detectors:
            for row in one["amplifiers"]:
                for text in row[key]:
                    by_text.setdefault((one["detector"], text), []).append(row["amplifier"])
        for (detector, text), names in by_text.items():
            which = f"amplifier{'s' * (len(names) > 1)} {', '.join(names)}"
            yield f"detector {detector} {self.camera.by_id[detector].name}, {which}: {text}"

    @property
    def misfits(self) -> list[str]:
        """Misfits, by detector and amplifier."""
        return list(self._said("misfits"))

    @property
    def notes(self) -> list[str]:
        """Remarks, by detector and amplifier."""
        return list(self._said("notes"))

    @property
    def lit(self) -> int:
        """Number of frames with light."""
        return sum(int(one["frames"]["lit"]) for one in self.detectors)

    @property
    def judged(self) -> bool:
        """Whether the frames show where the light ends in every amplifier."""
        return all(row["judged"] for one in self.detectors for row in one["amplifiers"])

    @property
    def fits(self) -> bool:
        """Whether the frames show no misfit."""
        return not (self.refused or self.misfits)

    def plain(self) -> dict[str, Any]:
        """The JSON document."""
        hidden = ("borders", "dark", "gain")
        detectors = [
            {
                "detector": one["detector"],
                "frames": one["frames"],
                "amplifiers": [{k: v for k, v in row.items() if k not in hidden} for row in one["amplifiers"]],
            }
            for one in self.detectors
        ]
        about = {"camera": self.camera.name, "fits": self.fits, "judged": self.judged, "refused": dict(self.refused)}
        pictures = [str(path) for path in self.pictures]
        return {**about, "detectors": detectors, "proposed": self.proposed, "pictures": pictures}


def check(name_or_path: str, frames: Sequence[str], folder: Path, ranks: int) -> Report:
    """Compare a camera file with frames, and draw its sections over them into a folder.

    Raises
    ------
    ConfigurationError
        The camera file is wrong by itself, or fits none of the frames.
    """
    from campaign.quality.sections import draw

    camera = load(name_or_path)
    observations, refused = observe(expand(frames), camera, Overrides(), ranks)
    if refused and camera.translation.datasec:  # frames with another DATASEC are examined, too
        lenient = camera.translation.model_copy(update={"datasec": False})
        observations += observe(list(refused), camera.model_copy(update={"translation": lenient}), Overrides(), ranks)[
            0
        ]
    if not observations:
        path, why = next(iter(refused.items()))
        raise ConfigurationError(f"none of {len(refused)} frames can be read by this camera file: {why}", where=path)
    with tempfile.TemporaryDirectory(prefix="campaign-sections-") as work:
        report = Report(camera, _measure(camera, observations, Path(work), ranks), refused)
        for row in (row for one in report.detectors for row in one["amplifiers"]):
            _compare_noise(row)
        report.proposed = dict(_proposals(report))
        folder.mkdir(parents=True, exist_ok=True)
        for one in report.detectors:
            ccd = camera.by_id[one["detector"]]
            picture = folder / f"sections-{camera.name}-{ccd.name}.png"
            draw(camera.types[ccd.type], one, picture, f"{camera.name} {ccd.name} ({one['detector']})")
            report.pictures.append(picture)
    return report


def _measure(camera: Camera, observations: Sequence[Observation], work: Path, ranks: int) -> list[dict[str, Any]]:
    """Have a kernel examine the pixels; one answer a detector."""
    by_detector: dict[int, list[Observation]] = {}
    for one in sorted(observations, key=lambda o: (o.exposure, o.path)):
        by_detector.setdefault(one.detector, []).append(one)
    files = {str(n): {"path": one.path} for n, one in enumerate(o for some in by_detector.values() for o in some)}
    keys = iter(files)
    tasks = [
        JobTask(
            f"sections:{detector}",
            detector,
            {"raw": list(itertools.islice(keys, len(some)))},
            parameters={"lit": [o.observation_type not in UNLIT for o in some]},
        )
        for detector, some in sorted(by_detector.items())
    ]
    result = work / "sections.json"
    job = JobFile(
        kernel="sections",
        run="camera-check",
        ranks=min(ranks, len(tasks)),
        journal=f"{work}/journal/sections",
        camera=camera.plain(by_detector),
        config={"result": str(result), "folder": str(work)},
        files=files,
        tasks=tasks,
    )
    run_job(job.write(work / "sections.job.json"), job.ranks, work / "sections.log")
    found: list[dict[str, Any]] = json.loads(result.read_text())
    if bad := next((one for one in found if "error" in one), None):
        raise ConfigurationError(bad["error"], where=f"detector {bad['detector']}")
    return found


def _compare_noise(row: dict[str, Any]) -> None:
    """Report read noises that differ from the camera file's."""
    if not row["noise_adu"]:
        return
    measured, said = row["noise_adu"] * row["gain"], row["read_noise"]
    ratio = max(measured / said, said / measured)
    text = (
        f"read noise {measured:.2f} electron ({row['noise_adu']:.2f} ADU x gain {row['gain']:g}, from"
        f" {row['noise_from']}), the file says {said:g}"
    )
    if ratio > WRONG:
        row["misfits"].append(text)
    elif ratio > ODD:
        row["notes"].append(text)


# Proposed sections


def _proposals(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Propose sections by type of CCD: its detectors share them, so the first misfit counts for all."""
    for name, kind in report.camera.types.items():
        for one in report.detectors:
            rows = {row["amplifier"]: row["proposal"] for row in one["amplifiers"] if row["proposal"]}
            if report.camera.by_id[one["detector"]].type == name and rows:
                amplifiers = [_amplifier(a, rows.get(a.name)) for a in kind.amplifiers]
                if changed := _laid_out(kind.amplifiers, amplifiers):
                    yield name, _checked(report.camera, name, *changed)
                break


def _amplifier(old: Amplifier, boxes: Mapping[str, Sequence[int] | None] | None) -> Amplifier:
    if boxes is None:
        return old
    found = {key: None if box is None else Section(box[0], box[1], box[2], box[3]) for key, box in boxes.items()}
    return old.model_copy(update=found)


def _laid_out(old: Sequence[Amplifier], new: Sequence[Amplifier]) -> tuple[list[int], list[Amplifier]] | None:
    """Give the size of the image and the amplifiers on it; `None` where they no longer fit together."""
    xs = _cells([(a.target.x0, a.target.x1, b.data.nx) for a, b in zip(old, new, strict=True)])
    ys = _cells([(a.target.y0, a.target.y1, b.data.ny) for a, b in zip(old, new, strict=True)])
    if xs is None or ys is None:
        return None
    placed = []
    for a, b in zip(old, new, strict=True):
        t = a.target
        target = Section(xs[t.x0], ys[t.y0], b.data.nx, b.data.ny, t.flip_x, t.flip_y)
        placed.append(b.model_copy(update={"target": target}))
    return [max(xs.values()), max(ys.values())], placed


def _cells(spans: Sequence[tuple[int, int, int]]) -> dict[int, int] | None:
    """Move each edge of the amplifiers' grid, given first, beyond and new length of each amplifier."""
    edges = sorted({v for first, beyond, _ in spans for v in (first, beyond)})
    places = {edges[0]: 0}
    for first, beyond in itertools.pairwise(edges):
        lengths = {length for a, b, length in spans if (a, b) == (first, beyond)}
        if len(lengths) != 1 or any(a <= first < b and (a, b) != (first, beyond) for a, b, _ in spans):
            return None
        places[beyond] = places[first] + lengths.pop()
    return places


def _checked(camera: Camera, name: str, size: list[int], amplifiers: Sequence[Amplifier]) -> dict[str, Any]:
    """Give a proposal as plain data, and the problems that it would still have."""
    plain = [a.model_dump(mode="json", exclude_none=True, exclude_defaults=True) for a in amplifiers]
    kind = {**camera.types[name].model_dump(exclude_none=True), "size": size, "amplifiers": plain}
    try:
        build({**camera.model_dump(), "types": {**camera.model_dump()["types"], name: kind}}, name)
        problem = ""
    except CampaignError as error:
        problem = " ".join(str(error).split())
    return {"size": size, "amplifiers": plain, "problem": problem}


def pasted(name: str, proposed: Mapping[str, Any]) -> str:
    """Write a proposal as text for the camera file."""
    lines = ["types:", f"  {name}:", f"    size: {flow(proposed['size'])}", "    amplifiers:"]
    return "\n".join([*lines, *(f"      - {flow(a)}" for a in proposed["amplifiers"])])
