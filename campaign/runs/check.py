"""`campaign check`: find, all at once, every error that can be found before anything runs."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.errors import CampaignError, SubmissionRefused
from campaign.jobs.file import JobFile, JobTask
from campaign.jobs.launch import run_job
from campaign.journal.events import EventName
from campaign.journal.events import read as read_events
from campaign.kinds.model import Frames, ProductKind
from campaign.pipeline.makers import kind_of
from campaign.planning import agreement
from campaign.planning.allocation import ranks_by_work
from campaign.planning.cost import Cost, estimate
from campaign.planning.inputs import MEND, allowed
from campaign.planning.inputs import problems as selection_problems
from campaign.planning.staleness import of_calibrations
from campaign.planning.step import Options, Step, in_unit, load, select
from campaign.planning.usage import expected, raw_pixels, work_of, works
from campaign.quality import judging, levels

if TYPE_CHECKING:
    from campaign.butler.records import Selection
    from campaign.butler.repository import Repository
    from campaign.camera.model import Camera


@dataclass
class Check:
    """Findings of a check; without ``problems``, `submit` would run."""

    template: str = ""
    pipeline: str = ""
    output_run: str = ""
    flavour: str = ""
    collections: dict[str, str] = field(default_factory=dict)
    exposures: list[dict[str, Any]] = field(default_factory=list)
    detectors: list[int] = field(default_factory=list)
    raws: int = 0
    raw_bytes: int = 0
    unreachable: list[str] = field(default_factory=list)
    missing: list[tuple[int, int]] = field(default_factory=list)
    calibrations: list[Mapping[str, Any]] = field(default_factory=list)
    cost: list[Cost] = field(default_factory=list)
    requests: dict[str, Mapping[str, int]] = field(default_factory=dict)
    levels: list[levels.Finding] | None = None
    stale: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    exit_code: int = 0

    def add(self, error: CampaignError) -> None:
        """Note an error."""
        self.problems.append(str(error))
        self.exit_code = self.exit_code or error.exit_code

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note an error that is raised inside the context."""
        try:
            yield
        except CampaignError as error:
            self.add(error)

    def plain(self) -> dict[str, Any]:
        """Give the JSON document."""
        return asdict(self)


def check(template: str, environment: Mapping[str, str], options: Options, with_levels: bool) -> Check:
    """Check a template as far as it goes; see ``campaign check --help``."""
    from campaign.butler.repository import open_repository

    found = Check(template=template)
    with found.noting():
        step = load(template, environment, options)
        found.notes += step.config.warnings
        found.output_run = step.config.output_run
        kind: ProductKind | None = None
        with found.noting():
            found.pipeline = str(step.pipeline.path)
            kind = kind_of(step.pipeline)
        with open_repository(step.config.butler_config) as repository, repository.at_one_time():
            _look_at_flavour(found, repository)
            _look_at_collections(found, step, repository)
            if kind is None or isinstance(kind.made_of, Frames):
                _look_at_frames(found, step, repository, options, kind, with_levels)
            if not found.problems:
                _plan(found, step, repository, options)
    return found


def _look_at_flavour(found: Check, repository: Repository) -> None:
    flavour = repository.flavour()
    found.flavour = flavour.name
    if flavour.unlike:
        some = ", ".join(f"{name} ({stored})" for name, stored in flavour.unlike.items())
        found.notes.append(f"dataset types that are registered unlike the repository's others, {flavour.name}: {some}")


def _look_at_frames(
    found: Check, step: Step, repository: Repository, options: Options, kind: ProductKind | None, with_levels: bool
) -> None:
    camera, selection = select(step, repository, options)
    _describe(found, selection)
    wanted = allowed(kind, step.pipeline) if kind else None
    for text in selection_problems(selection, wanted, options.allow_missing) if wanted else ():
        found.add(SubmissionRefused(text, where=step.query_place, do=MEND))
    if found.problems:  # otherwise planning raises them
        for text in agreement.read(camera, selection).problems:
            found.add(SubmissionRefused(text, where=step.query_place, do=MEND))
    frames = kind.made_of if kind else None
    if with_levels and isinstance(frames, Frames) and frames.alike and not selection.unreachable:
        with found.noting():
            seen_by = in_unit(camera, step.pipeline)
            found.levels = measure_levels(selection, frames.type, seen_by, options.ranks)
        for one in found.levels or ():
            if one.refused:
                found.add(SubmissionRefused(f"{one.subject}: {one.why}", where=step.query_place, do=MEND))


def _plan(found: Check, step: Step, repository: Repository, options: Options) -> None:
    from campaign.runs.submit import prepare, require_places

    plan, _ = prepare(step, repository, options)
    found.cost, found.notes = (
        estimate(plan, expected(step.home, plan.instrument, works(plan))),
        [*found.notes, *plan.notes],
    )
    found.requests = {group.label: dict(group.resources) for group in plan.groups}
    found.calibrations = list(plan.calibrations)
    reasons = of_calibrations(plan.calibrations, step.home, repository)
    found.stale = {run: [reason.text for reason in some] for run, some in reasons.items()}
    require_places(step, plan)


def _look_at_collections(found: Check, step: Step, repository: Repository) -> None:
    for name in step.config.in_collections:
        kind = repository.collection_type(name)
        will_make = kind is None and name == step.ticket_chain
        found.collections[name] = kind or ("will be made, empty" if will_make else "unknown")
        if kind is None and not will_make:
            with found.noting():
                repository.require_collections([name])


def _describe(found: Check, selection: Selection) -> None:
    kinds = Counter((e.type, e.day_obs, e.physical_filter, e.exposure_time) for e in selection.exposures)
    names = ("type", "day_obs", "physical_filter", "exposure_time", "exposures")
    found.exposures = [dict(zip(names, (*kind, n), strict=True)) for kind, n in sorted(kinds.items())]
    found.detectors = list(selection.detectors)
    found.raws = len(selection.raws)
    found.raw_bytes = sum(r.bytes or 0 for r in selection.raws)
    found.unreachable = [r.path for r in selection.unreachable]
    found.missing = list(selection.missing)


def measure_levels(selection: Selection, product: str, camera: Camera, asked: int | None) -> list[levels.Finding]:
    """Measure every selected raw's level and noise, without combining anything."""
    files = {f"{r.exposure}:{r.detector}": {"path": r.path} for r in selection.raws}
    tasks, times = [], {e.id: e.exposure_time for e in selection.exposures}
    for detector in selection.detectors:
        own = [r.exposure for r in selection.raws if r.detector == detector]
        inputs = {"raw": [f"{e}:{detector}" for e in own]}
        about = {"exposures": own, "exposure_times": [times[e] for e in own]}
        tasks.append(JobTask(f"levels:{detector}", detector, inputs, parameters=about))
    plain = camera.plain(selection.detectors)
    ranks, _ = ranks_by_work(None, asked, "levels", work_of(raw_pixels(plain), tasks, 1), None)
    with tempfile.TemporaryDirectory(prefix="campaign-levels-") as name:
        folder = Path(name)
        config = {"isr": {}, "type": product, "inputs_table": str(folder / "inputs")}
        job = JobFile(
            "levels",
            "check",
            ranks,
            str(folder / "journal" / "levels"),
            plain,
            config,
            files,
            tasks,
        )
        run_job(job.write(folder / "levels.json"), ranks, folder / "levels.log")
        for event in read_events(folder / "journal"):
            if event.event == EventName.FAILED:
                raise SubmissionRefused(str(event.detail["error"]), where=event.task)
        rows = levels.read(folder / "inputs")
    return judging.judge(rows, product, times, camera, levels.nights({e.id: e.begin for e in selection.exposures}))
