"""The frozen plan: products, their inputs and final paths, and the order of the tasks that make them."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.errors import ConfigurationError
from campaign.jobs.file import JobTask, write_text
from campaign.lines import lacking

VERSION = 1
#: Fields of a plan, and their types.
NEEDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("run", "instrument", "ticket", "repository", "output", "output_run", "submit_path"), str),
    **dict.fromkeys(("inputs", "groups", "notes"), (list, tuple)),
    **dict.fromkeys(("camera", "files"), dict),
}
#: A card that names the RUN of an input calibration.
SOURCE = re.compile(r"CALIB_\w+_RUN")


@dataclass(frozen=True)
class Output:
    """A dataset that a task will make: its type, data ID and final path."""

    type: str
    data_id: Mapping[str, Any]
    path: str


@dataclass(frozen=True)
class PlanTask:
    """A task: its part of the job file, its outputs, and the tasks that it needs."""

    job: JobTask
    outputs: Sequence[Output]
    needs: Sequence[str]

    @property
    def name(self) -> str:
        """``<label>:<dataId values>``."""
        return self.job.task


@dataclass(frozen=True)
class Group:
    """Tasks of one label: a gang or a serial process, which is one job, or quanta, which are many jobs."""

    #: The pipeline's label.
    label: str
    #: In `kernels.table`.
    kernel: str
    #: ``gang``, ``serial`` or ``quantum``.
    kind: str
    #: MPI ranks; 1 is a plain process.
    ranks: int
    #: Labels that the kernel runs in the same pass.
    fused: Sequence[str]
    #: The kernel's settings.
    config: Mapping[str, Any]

    tasks: Sequence[PlanTask]
    #: Labels of groups that must be done first.
    needs: Sequence[str]
    #: Requested of a site's scheduler: ``memory_mib`` and ``cores`` of a rank, ``minutes`` of the job.
    resources: Mapping[str, int] = field(default_factory=dict)
    #: The template's retries: see `campaign.running.retry.Budget`.
    policy: Mapping[str, Any] = field(default_factory=dict)
    #: Setting or limit that gave a gang its ranks: see `campaign.planning.allocation.gang_ranks`.
    ranks_by: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs to know, decided before anything runs.

    ``product`` is the dataset type of the product, and ``kind`` that of its
    frames: bias, dark or flat.  ``calibrations`` lists the applied ones:
    ``type``, ``run``, ``collection``, ``begin``, ``end`` (`None` where open),
    ``detectors``.
    """

    run: str
    template: str
    instrument: str
    ticket: str
    repository: str
    output: str
    output_run: str
    inputs: Sequence[str]
    submit_path: str
    product: str
    data_query: str
    excluded: Sequence[int]
    camera: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    groups: Sequence[Group]
    notes: Sequence[str]
    calibrations: Sequence[Mapping[str, Any]] = ()
    kind: str = ""
    v: int = VERSION

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.submit_path)

    @property
    def journal(self) -> Path:
        """The run's journals."""
        return self.folder / "journal"

    @property
    def tasks(self) -> list[PlanTask]:
        """All tasks, in the order of their groups."""
        return [task for group in self.groups for task in group.tasks]

    def wanted(self, dataset_type: str) -> list[Mapping[str, Any]]:
        """List the data IDs of a dataset type that the plan makes."""
        return [o.data_id for task in self.tasks for o in task.outputs if o.type == dataset_type]

    @property
    def made_from(self) -> set[str]:
        """RUNs of the calibrations that the products are made from."""
        shared = {id(task.job.provenance): task.job.provenance for task in self.tasks}
        cards = {str(v) for some in shared.values() for key, v in some.items() if SOURCE.fullmatch(key)}
        return cards | {str(row["run"]) for row in self.calibrations}

    def write(self) -> None:
        """Write ``plan.json`` into the run's folder, and its most wanted part as ``groups.json``."""
        known = ("label", "kind", "ranks", "needs")
        groups = [{**{key: getattr(g, key) for key in known}, "tasks": len(g.tasks)} for g in self.groups]
        write_text(self.folder / "groups.json", json.dumps(groups))
        write_text(self.folder / "plan.json", json.dumps(self.plain(), separators=(",", ":")))

    def plain(self) -> dict[str, Any]:
        """Give the JSON document, which `from_plain` reads."""
        return {**vars(self), "groups": [_plain_group(group) for group in self.groups]}


@contextmanager
def undisturbed() -> Iterator[None]:
    """Turn off garbage collection, which would take half of the time, while many lasting objects are made."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def load(path: Path) -> Plan:
    """Read a plan.

    Raises
    ------
    ConfigurationError
        The file is missing, no plan, or of another version.
    """
    try:
        with undisturbed():
            return from_plain(json.loads(path.read_text()), str(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"not a plan: {error!r}", where=str(path)) from error


def from_plain(plain: Mapping[str, Any], where: str) -> Plan:
    """Make a plan from its JSON form; ``where`` is for messages.

    Raises
    ------
    ConfigurationError
        The document is no plan, or of another version.
    """
    try:
        if plain["v"] != VERSION:
            raise ConfigurationError(f"plan version {plain['v']}, this is for version {VERSION}", where=where)
        if wrong := lacking(plain, NEEDS):
            raise ConfigurationError(f"not a plan: {wrong}", where=where)
        return Plan(**{**plain, "groups": [_group(g) for g in plain["groups"]]})
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ConfigurationError(f"not a plan: {error!r}", where=where) from error


def _plain_group(group: Group) -> dict[str, Any]:
    """Write a group's part of the document; tasks refer to shared provenance by its number."""
    shared = {id(task.job.provenance): task.job.provenance for task in group.tasks}
    numbers = {identity: number for number, identity in enumerate(shared)}
    tasks = [_plain_task(task, numbers) for task in group.tasks]
    return {**vars(group), "tasks": tasks, "provenance": list(shared.values())}


def _plain_task(task: PlanTask, numbers: Mapping[int, int]) -> dict[str, Any]:
    job, outputs = dict(vars(task.job)), [vars(output) for output in task.outputs]
    job["provenance"] = numbers[id(job["provenance"])]
    if job["outputs"] == {output.type: output.path for output in task.outputs}:
        del job["outputs"]
    return {"job": job, "outputs": outputs, "needs": task.needs}


def _group(plain: Mapping[str, Any]) -> Group:
    known = dict(plain)
    provenance = known.pop("provenance")
    return Group(**{**known, "tasks": [_task(task, provenance) for task in plain["tasks"]]})


def _task(plain: Mapping[str, Any], provenance: Sequence[Mapping[str, Any]]) -> PlanTask:
    outputs = [Output(**output) for output in plain["outputs"]]
    job = {"outputs": {output.type: output.path for output in outputs}, **plain["job"]}
    job["provenance"] = provenance[job["provenance"]]
    return PlanTask(JobTask(**job), outputs, plain["needs"])
