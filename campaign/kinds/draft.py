"""Groups of tasks without names of files and sizes of jobs, and the material from which a kind plans them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from campaign.kinds.task import Mode, PipelineTask


@dataclass(frozen=True)
class TaskDraft:
    """A task to be planned."""

    #: ``exposure`` and ``detector``, as far as the task has them; label and these name the task.
    where: Mapping[str, int]
    #: Dataset types of its outputs.
    types: Sequence[str]
    #: Keys of the plan's file table, by role (see `Planner.inputs`); an output of another task is
    #: ``<dataset type>:<values of where>``.
    inputs: Mapping[str, Sequence[str]]
    #: The kernel's parameters for this task alone.
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: Tasks that must be done before: ``<label>:<values of where>``.
    needs: Sequence[str] = ()


@dataclass(frozen=True)
class GroupDraft:
    """Tasks of one label: one gang, one process, or many quanta."""

    #: The pipeline's.
    label: str
    #: Kernel of its job files.
    kernel: str
    #: ``gang``, ``serial`` or ``quantum``.
    kind: Mode
    #: The kernel's settings.
    config: Mapping[str, Any]

    tasks: Sequence[TaskDraft]
    #: Labels that the kernel runs in the same pass.
    fused: Sequence[str] = ()
    #: Labels of groups that must be done before.
    needs: Sequence[str] = ()
    #: Switches of the corrections of whole frames that the kernel makes.
    whole: Sequence[str] = ()


class Planner(Protocol):
    """Material of a kind for planning its groups: a pipeline, and the frames or calibrations found for it."""

    #: The task that makes the product.
    maker: PipelineTask
    #: Dataset type of the product.
    product: str
    #: The pipeline's file, for messages.
    pipeline: str
    #: Detectors that the product is made of.
    detectors: Sequence[int]
    #: Names of the camera's detectors.
    names: Mapping[int, str]
    #: Scale of the camera, by which counts of pixels are divided.
    scale: int
    #: Exposure and detector of every raw frame.
    raws: Sequence[tuple[int, int]]
    #: The run's folder.
    folder: str
    #: Mode and group of published files, for a kernel's ``permissions``.
    permissions: Mapping[str, Any]

    @property
    def applied(self) -> Sequence[str]:
        """Kinds of the calibrations that correct the frames."""

    @property
    def shared(self) -> Mapping[str, Any]:
        """Settings of every kernel that reads raw frames: ``isr``, ``identity``, ``permissions``."""

    def some(self, kernel: str) -> list[PipelineTask]:
        """List the pipeline's tasks of a kernel, or of a fused stage."""

    def only(self, kernel: str) -> PipelineTask:
        """Give the pipeline's only task of a kernel; refuse none, and several."""

    def inputs(self, detector: int, exposure: int | None = None) -> dict[str, list[str]]:
        """Give what a detector's task reads, by role; of one exposure, or of all that the detector has."""

    def parameters(self, detector: int, exposure: int | None = None) -> dict[str, Any]:
        """Describe a task's frames: ``exposures``, ``dates``, ``exposure_times``, ``dark_times`` (second)."""


def settings(planner: Planner, *tasks: PipelineTask, least: Mapping[str, int]) -> dict[str, Any]:
    """Merge the settings of raw frames' kernels with those of tasks.

    Parameters
    ----------
    least : mapping
        Settings that are counts of pixels: they are divided by the camera's scale, down to these values.
    """
    merged: dict[str, Any] = dict(planner.shared)
    for task in tasks:
        merged |= task.settings
    return merged | {name: max(few, round(merged[name] / planner.scale)) for name, few in least.items()}


def measured(planner: Planner, task: PipelineTask | None = None, product: str = "") -> GroupDraft:
    """Plan one gang that makes one file of each detector's frames, by default the pipeline's product by the maker."""
    task, product = task or planner.maker, product or planner.product
    tasks = [TaskDraft({"detector": d}, [product], planner.inputs(d), planner.parameters(d)) for d in planner.detectors]
    fused = [planner.only("isr").label]
    return GroupDraft(task.label, task.kernel, task.kind, {**planner.shared, **task.settings}, tasks, fused)
