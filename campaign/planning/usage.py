"""Record time and memory of runs by task label, to estimate later runs.

``<home>/usage.jsonl`` has one line a run and label: frames, raw pixels, CPU time,
wall time, and the largest memory of a process.  A plan of the same camera, label
and size of frames is estimated from the latest lines: by pixel where there are
frames, else by task.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from campaign.home import Home, now
from campaign.journal.events import Event
from campaign.journal.outcome import PUBLISHED, STARTED
from campaign.lines import lacking

if TYPE_CHECKING:
    from campaign.jobs.file import JobTask
    from campaign.journal.plan import Plan

#: Number of latest lines of a label that count.
LATEST: Final = 5
#: Factor on the memory seen; factor on the number of frames beyond which earlier runs do not count.
MARGIN: Final = 1.25
MORE: Final = 2.0


@dataclass(frozen=True)
class Work:
    """Work of a label."""

    #: Raw pixels of the largest frame; depends on the camera's scale.
    frame: int
    #: Number of tasks, and the most frames of one.
    tasks: int
    frames: int
    #: Raw pixels of all frames, millions.
    mpixels: float
    #: Of the gang.
    ranks: int


@dataclass(frozen=True)
class Seen(Work):
    """Time and memory of one label in one run."""

    label: str
    instrument: str
    #: Of all ranks; from the first task's start to the last one's end.
    cpu_s: float
    wall_s: float
    #: Largest memory of a process.
    rss_mib: int


def raw_pixels(camera: Mapping[str, Any]) -> dict[int, int]:
    """Count the pixels of a raw frame, overscan included, by detector of a camera as plans have it."""
    found = {}
    for detector in camera["detectors"]:
        kind = camera["types"][detector["type"]]
        found[detector["id"]] = sum(a["raw"][0] * a["raw"][1] for a in kind["amplifiers"])
    return found


def work(pixels: Mapping[int, int], frames: Sequence[tuple[int, int]], tasks: int, ranks: int) -> Work:
    """Add up work.

    Parameters
    ----------
    pixels : `dict`
        See `raw_pixels`.
    frames : sequence of (`int`, `int`)
        Detector and number of frames of each task that has a detector.
    """
    most = max((n for _, n in frames), default=0)
    mpixels = round(sum(pixels[d] * n for d, n in frames) / 1e6, 3)
    return Work(max(pixels.values(), default=0), tasks, most, mpixels, ranks)


def works(plan: Plan) -> dict[str, Work]:
    """Give the work of each label of a plan."""
    pixels = raw_pixels(plan.camera)
    return {group.label: work_of(pixels, [task.job for task in group.tasks], group.ranks) for group in plan.groups}


def work_of(pixels: Mapping[int, int], jobs: Sequence[JobTask], ranks: int) -> Work:
    """Add up the work of some tasks; see `work`."""
    frames = [(j.detector, len(j.inputs.get("raw", ()))) for j in jobs if j.detector is not None]
    return work(pixels, frames, len(jobs), ranks)


def seen_in(plan: Plan, events: Iterable[Event]) -> list[Seen]:
    """Give time and memory of a run by label, without labels that needed a second attempt or are incomplete."""
    sums: defaultdict[str, _Sum] = defaultdict(_Sum)
    for event in events:
        if event.task:
            sums[event.task.partition(":")[0]].fold(event)
    found, known = [], works(plan)
    for group in plan.groups:
        done = sums[group.label]
        if done.first_time and done.published == len(group.tasks) > 0:
            found.append(
                Seen(
                    **vars(known[group.label]),
                    label=group.label,
                    instrument=plan.instrument,
                    cpu_s=round(done.cpu_s, 3),
                    wall_s=_between(done.began, done.ended),
                    rss_mib=done.rss_mib,
                )
            )
    return found


@dataclass
class _Sum:
    """Time and memory of the tasks of a label so far."""

    published: int = 0
    #: Whether each was made by its first attempt, and its CPU time is known.
    first_time: bool = True
    began: str = ""
    ended: str = ""
    cpu_s: float = 0.0
    rss_mib: int = 0

    def fold(self, event: Event) -> None:
        """Fold in an event of the label."""
        if event.event not in (STARTED, PUBLISHED):
            return
        self.began = min(self.began or event.t, event.t)
        if event.event == PUBLISHED:
            self.published += 1
            self.first_time &= event.attempt == 1 and "cpu_s" in event.detail
            self.ended = max(self.ended, event.t)
            self.cpu_s += float(event.detail.get("cpu_s", 0.0))
            self.rss_mib = max(self.rss_mib, int(event.detail.get("rss_mib", 0)))


def _between(first: str, last: str) -> float:
    return round((datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds(), 3)


def record(home: Home, plan: Plan, events: Iterable[Event]) -> None:
    """Record time and memory of a run."""
    if found := seen_in(plan, events):
        home.add_usage(*({"t": now(), "run": plan.run, **asdict(seen)} for seen in found))


@dataclass(frozen=True)
class Expected:
    """Expected time and memory of a group; memory with its margin."""

    cpu_s: float
    wall_s: float
    rank_mib: int
    runs: int

    def shared(self, ranks: int) -> Expected:
        """Give the same with the wall time of one rank shared by so many."""
        return replace(self, wall_s=self.wall_s / ranks)


def expected(home: Home, instrument: str, wanted: Mapping[str, Work]) -> Mapping[str, Expected]:
    """Estimate each label that has run before."""
    # A run is told again by each restart; it counts once.
    known = {
        (line.get("run"), line.get("label")): line for line in home.usage() if line.get("instrument") == instrument
    }
    lines = [_seen(line) for line in known.values()]
    found = {}
    for label, one in wanted.items():
        same = [s for s in lines if s and (s.label, s.frame) == (label, one.frame)]
        alike = [s for s in same if one.frames <= MORE * max(s.frames, 1)]
        if alike:
            found[label] = _expected(alike[-LATEST:], one)
    return found


def _expected(alike: list[Seen], one: Work) -> Expected:
    def share(s: Seen) -> float:
        """Give the ratio of the work to that of an earlier run."""
        return one.mpixels / s.mpixels if s.mpixels else one.tasks / max(s.tasks, 1)

    cpu = max(s.cpu_s * share(s) for s in alike)
    wall = max(s.wall_s * share(s) * s.ranks / max(one.ranks, 1) for s in alike)
    return Expected(cpu, wall, int(max(s.rss_mib for s in alike) * MARGIN) + 1, len(alike))


def _seen(line: Mapping[str, Any]) -> Seen | None:
    """Read a line; `None` for a damaged one, or one of another release."""
    fields = {name: str if name in ("label", "instrument") else (int, float) for name in Seen.__dataclass_fields__}
    return None if lacking(line, fields) else Seen(**{name: line[name] for name in fields})
