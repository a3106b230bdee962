"""What a plan is made from, whether raw frames or other calibrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from campaign.camera.model import Camera


class Source(Protocol):
    """The frames, or the calibrations, of a step."""

    @property
    def camera(self) -> Camera:
        """The camera, in the unit of the pipeline."""

    @property
    def detectors(self) -> Sequence[int]:
        """Detectors that the product is made of."""

    @property
    def raws(self) -> Sequence[tuple[int, int]]:
        """Exposure and detector of every raw frame."""

    @property
    def physical_filter(self) -> str:
        """Filter of the frames."""

    @property
    def excluded(self) -> Sequence[int]:
        """Exposures that the operator left out."""

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """The file table: ``path`` and, of raws, ``bytes``."""

    @property
    def applied(self) -> Sequence[str]:
        """Kinds of the calibrations that correct the frames."""

    @property
    def shared(self) -> Mapping[str, Any]:
        """Settings of every kernel that reads raw frames, but for ``permissions``."""

    @property
    def notes(self) -> Sequence[str]:
        """What the operator should know."""

    def inputs(self, detector: int, exposure: int | None = None) -> dict[str, list[str]]:
        """Give keys of the file table by role; see `campaign.kinds.draft.Planner`."""

    def parameters(self, detector: int, exposure: int | None = None) -> dict[str, Any]:
        """Describe frames; see `campaign.kinds.draft.Planner`."""

    def cards(self, detector: int | None) -> dict[str, Any]:
        """Give the provenance of a detector's tasks, or of a task of all detectors."""

    def summary(self) -> list[dict[str, Any]]:
        """Give the calibrations as rows of the plan."""
