"""Groups of tasks without names of files and sizes of jobs, and the material from which a kind plans them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from campaign.kinds.task import Mode, PipelineTask


@dataclass(frozen=True)
class TaskDraft:
    """A task to be planned.

    Parameters
    ----------
    where : `dict` [`str`, `int`]
        ``exposure`` and ``detector``, as far as the task has them; label and these name the task.
    types : sequence of `str`
        Dataset types of its outputs.
    inputs : `dict`
        Keys of the plan's file table, by role (see `Planner.inputs`); an output of another task is
        ``<dataset type>:<values of where>``.
    parameters : `dict`
        The kernel's parameters for this task alone.
    needs : sequence of `str`
        Tasks that must be done before: ``<label>:<values of where>``.
    """

    where: Mapping[str, int]
    types: Sequence[str]
    inputs: Mapping[str, Sequence[str]]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    needs: Sequence[str] = ()


@dataclass(frozen=True)
class GroupDraft:
    """Tasks of one label: one gang, one process, or many quanta.

    Parameters
    ----------
    label : `str`
        The pipeline's.
    kernel : `str`
        Kernel of its job files.
    kind : `str`
        ``gang``, ``serial`` or ``quantum``.
    config : `dict`
        The kernel's settings.
    fused : sequence of `str`
        Labels that the kernel runs in the same pass.
    needs : sequence of `str`
        Labels of groups that must be done before.
    """

    label: str
    kernel: str
    kind: Mode
    config: Mapping[str, Any]
    tasks: Sequence[TaskDraft]
    fused: Sequence[str] = ()
    needs: Sequence[str] = ()


class Planner(Protocol):
    """Material of a kind for planning its groups: a pipeline, and the frames or calibrations found for it."""

    @property
    def maker(self) -> PipelineTask:
        """The task that makes the product."""

    @property
    def product(self) -> str:
        """Dataset type of the product."""

    @property
    def pipeline(self) -> str:
        """The pipeline's file, for messages."""

    @property
    def detectors(self) -> Sequence[int]:
        """Detectors that the product is made of."""

    @property
    def names(self) -> Mapping[int, str]:
        """Names of the camera's detectors."""

    @property
    def scale(self) -> int:
        """Scale of the camera, by which counts of pixels are divided."""

    @property
    def raws(self) -> Sequence[tuple[int, int]]:
        """Exposure and detector of every raw frame."""

    @property
    def applied(self) -> Sequence[str]:
        """Kinds of the calibrations that correct the frames."""

    @property
    def folder(self) -> str:
        """The run's folder."""

    @property
    def permissions(self) -> Mapping[str, Any]:
        """Mode and group of published files, for a kernel's ``permissions``."""

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


def measured(planner: Planner, task: PipelineTask | None = None, product: str = "") -> GroupDraft:
    """Plan one gang that makes one file of each detector's frames.

    Parameters
    ----------
    task, product : optional
        Other than the maker and the pipeline's product.
    """
    task, product = task or planner.maker, product or planner.product
    tasks = [TaskDraft({"detector": d}, [product], planner.inputs(d), planner.parameters(d)) for d in planner.detectors]
    fused = [planner.only("isr").label]
    return GroupDraft(task.label, task.kernel, task.kind, {**planner.shared, **task.settings}, tasks, fused)
