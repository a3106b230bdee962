"""From a resolved step to its frozen plan, built once: tasks, provenance, file names, sizes of jobs."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from campaign import plugins
from campaign.camera.model import Camera
from campaign.errors import ConfigurationError
from campaign.home import versions
from campaign.jobs.file import JobTask
from campaign.journal.plan import Output, Plan, PlanTask
from campaign.kinds import table
from campaign.kinds.draft import GroupDraft, TaskDraft
from campaign.kinds.model import Calibrations, Frames, ProductKind
from campaign.kinds.task import PipelineTask
from campaign.pipeline.makers import kind_of, maker, only, product_of, some
from campaign.pipeline.model import Pipeline
from campaign.planning.allocation import site_of, sized
from campaign.planning.derived import MadeCalibrations
from campaign.planning.frames import RawFrames
from campaign.planning.step import Options, Step

if TYPE_CHECKING:
    from campaign.butler.repository import Repository

#: Sources of a plan.
Source = RawFrames | MadeCalibrations


def run_id() -> str:
    """Make a new run's ID: UTC time and four random characters."""
    salt = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(4))
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{salt}"


def freeze(
    step: Step, repository: Repository, options: Options, run: str, notes: Sequence[str] = ()
) -> tuple[Plan, Camera]:
    """Freeze the plan of a step; nothing is written.

    Parameters
    ----------
    run : `str`
        The run's ID.
    notes : sequence of `str`
        Further notes for the operator.

    Raises
    ------
    ConfigurationError, SubmissionRefused
        The pipeline cannot be planned, or an input is missing.
    """
    kind = kind_of(step.pipeline)
    source = source_of(step, repository, options, kind)
    return Freezer(step, repository, options, kind, source).plan(run, notes), source.camera


def source_of(step: Step, repository: Repository, options: Options, kind: ProductKind) -> Source:
    """Find the frames, or the calibrations, that a kind is made of."""
    match kind.made_of:
        case Frames():
            return RawFrames(step, repository, options, kind)
        case Calibrations() as made_of:
            return MadeCalibrations(step, repository, options, made_of)
    raise ConfigurationError(f"no pipeline makes a {kind.name}", where=step.pipeline.path)


class Freezer:
    """Builds the plan of one step; its kind plans the groups (`campaign.kinds.draft.Planner`)."""

    def __init__(self, step: Step, repository: Repository, options: Options, kind: ProductKind, source: Source) -> None:
        self._step, self._repository, self._options = step, repository, options
        self._kind, self._source = kind, source
        self.maker, self.product = maker(step.pipeline), product_of(step.pipeline)
        self.pipeline, self.folder = step.pipeline.path, step.config.submit_path
        self.detectors, self.raws = source.detectors, source.raws
        self.names: Mapping[int, str] = {d.id: d.name for d in source.camera.by_id.values()}
        self.scale = source.camera.scale
        self.permissions: Mapping[str, Any] = dict(step.permissions)
        self._cards: dict[tuple[int | None, int | None], dict[str, Any]] = {}

    @cached_property
    def _versions(self) -> dict[str, str]:
        """Cards of everything that has a part in the products, plug-ins included."""
        parts = [(plugins.KINDS, name) for name in (self._kind.name, *self.applied)]
        parts += [(plugins.KERNELS, task.kernel) for task in self._step.pipeline.tasks.values()]
        brought = [plugins.version_of(*part).items() for part in parts]
        made_by = versions() | {name: version for some in brought for name, version in some}
        return {f"VERSION_{name.upper()}": version for name, version in made_by.items()}

    # For the kind

    @property
    def applied(self) -> Sequence[str]:
        """See `campaign.kinds.draft.Planner`; so are the others."""
        return self._source.applied

    @cached_property
    def shared(self) -> dict[str, Any]:
        """Settings of every kernel that reads raw frames."""
        return {**self._source.shared, "permissions": self.permissions}

    def some(self, kernel: str) -> list[PipelineTask]:
        """List the pipeline's tasks of a kernel."""
        return some(self._step.pipeline, kernel)

    def only(self, kernel: str) -> PipelineTask:
        """Give the pipeline's only task of a kernel."""
        return only(self._step.pipeline, kernel)

    def inputs(self, detector: int, exposure: int | None = None) -> dict[str, list[str]]:
        """Give what a detector's task reads, by role."""
        return self._source.inputs(detector, exposure)

    def parameters(self, detector: int, exposure: int | None = None) -> dict[str, Any]:
        """Describe a task's frames."""
        return self._source.parameters(detector, exposure)

    # The plan

    def plan(self, run: str, notes: Sequence[str]) -> Plan:
        """Decide everything.

        Raises
        ------
        ConfigurationError, SubmissionRefused
            See `freeze`.
        """
        config, made_of = self._step.config, self._kind.made_of
        assert self._kind.groups is not None
        drafts = _ordered(self._kind.groups(self), list(self._step.pipeline.tasks))
        _require_whole(drafts, self._step.pipeline)
        tasks = self._located(drafts)
        camera = self._source.camera.plain(self.detectors)
        site, site_notes = site_of(self._step)
        own_notes = self._kind.notes(self) if self._kind.notes else ()
        written = {
            f"{o.type}:{t.name.partition(':')[2]}": {"path": o.path} for g in tasks for t in g for o in t.outputs
        }
        return Plan(
            run=run,
            template=str(config.path),
            instrument=self._source.camera.name,
            ticket=config.ticket,
            repository=self._repository.root,
            output=config.output,
            output_run=config.output_run,
            inputs=config.in_collections,
            submit_path=config.submit_path,
            product=self.product,
            kind=(made_of.type or "any") if isinstance(made_of, Frames) else "",
            data_query=config.data_query,
            excluded=self._source.excluded,
            camera=camera,
            files={**self._source.files, **written},
            groups=sized(self._step, site, self._options.ranks, camera, list(zip(drafts, tasks, strict=True))),
            notes=[*site_notes, *self._source.notes, *own_notes, *notes],
            calibrations=self._source.summary(),
        )

    def _located(self, drafts: Sequence[GroupDraft]) -> list[list[PlanTask]]:
        """Make the tasks; the datastore names all their files in one call."""
        ids = [[self._data_id(task) for task in draft.tasks] for draft in drafts]
        wanted = [
            (type, data_id)
            for draft, some in zip(drafts, ids, strict=True)
            for task, data_id in zip(draft.tasks, some, strict=True)
            for type in task.types
        ]
        paths = iter(self._repository.predict_paths(self._step.config.output_run, wanted))
        return [
            [
                self._task(draft.label, task, [Output(type, data_id, next(paths)) for type in task.types])
                for task, data_id in zip(draft.tasks, some, strict=True)
            ]
            for draft, some in zip(drafts, ids, strict=True)
        ]

    def _data_id(self, task: TaskDraft) -> dict[str, Any]:
        data_id: dict[str, Any] = {"instrument": self._source.camera.name, **task.where}
        if "physical_filter" in self.maker.dimensions and "exposure" not in task.where:
            data_id["physical_filter"] = self._source.physical_filter
        return data_id

    def _task(self, label: str, task: TaskDraft, outputs: Sequence[Output]) -> PlanTask:
        name, detector = f"{label}:{','.join(map(str, task.where.values()))}", task.where.get("detector")
        paths = {output.type: output.path for output in outputs}
        provenance = self._provenance(detector, task.where.get("exposure"))
        job = JobTask(name, detector, task.inputs, paths, task.parameters, provenance)
        return PlanTask(job, outputs, task.needs)

    def _provenance(self, detector: int | None, exposure: int | None) -> dict[str, Any]:
        """Give the cards that all tasks of a detector with the same calibrations share."""
        alike = detector, self._source.alike(detector, exposure)
        if alike not in self._cards:
            config = self._step.config
            self._cards[alike] = {
                "OUT_RUN": config.output_run,
                "TEMPLATE": config.name,
                "PIPELINE": config.portable(self.pipeline),
                "TICKET": config.ticket,
                "QUERY": config.data_query,  # short: fitsio misreads an equals sign in a value behind HIERARCH
                **self._source.cards(*alike),
                **self._versions,
            }
        return self._cards[alike]


def _require_whole(drafts: Sequence[GroupDraft], pipeline: Pipeline) -> None:
    """Refuse corrections of whole frames in kernels that correct frames in parts, which those would refuse, too."""
    asked = [name for isr in some(pipeline, "isr") for name in table.whole_switches() if isr.config.get(name)]
    for draft in drafts:
        if "isr" in draft.config and (others := [name for name in asked if name not in draft.whole]):
            what = f"{draft.label}: {', '.join(others)} needs whole frames, and this task corrects them in parts"
            do = f"set {others[0]}: false, or take the task of the signature removal alone, with doWrite: true"
            raise ConfigurationError(what, where=pipeline.path, do=do)


def _ordered(drafts: Sequence[GroupDraft], labels: Sequence[str]) -> list[GroupDraft]:
    """Order groups for execution: after what they need, then as the pipeline lists them."""
    by_label = {draft.label: draft for draft in drafts}

    def depth(draft: GroupDraft) -> int:
        return 1 + max((depth(by_label[n]) for n in draft.needs), default=0)

    return sorted(drafts, key=lambda draft: (depth(draft), labels.index(draft.label)))
