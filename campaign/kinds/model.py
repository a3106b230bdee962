"""A product kind as data: every property of a product that the program uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from campaign.kinds.draft import GroupDraft, Planner
from campaign.kinds.task import TaskClass

#: Picture of a product: its pixels, bins of all detectors side by side, boxes over the focal plane, values of each
#: amplifier; empty: none.
Picture = Literal["", "image", "bins", "boxes", "amplifiers"]
#: Flavour of a repository: whose storage classes its dataset types have, this program's or those of Rubin's stack.
Flavour = Literal["plain", "rubin"]


@dataclass(frozen=True)
class DatasetType:
    """A dataset type, registered if a repository has none of that name."""

    dimensions: tuple[str, ...]
    #: The file format: ``CalibImage``, ``CalibTable`` (FITS), ``StructuredDataDict`` (JSON) or ``RawFrame``.
    storage_class: str
    #: Whether it can be certified.
    calibration: bool = False
    #: Storage class in a repository of Rubin's stack; empty: the same.
    rubin: str = ""

    def stored(self, flavour: Flavour) -> str:
        """Give the storage class in a repository of a flavour."""
        return (self.rubin if flavour == "rubin" else "") or self.storage_class


@dataclass(frozen=True)
class Frames:
    """Raw frames that a product is made of."""

    #: Their observation type; empty: any.
    type: str
    #: Further types that they may be of.
    also: tuple[str, ...] = ()
    #: Least number of frames of each detector.
    least: int = 3
    #: Whether all must be of one filter.
    one_filter: bool = False
    #: Field of a pipeline's task that allows several after all; empty: none does.
    filters_field: str = ""
    #: Whether levels of exposures are compared with one another when the run ends.
    alike: bool = False
    #: Whether each frame becomes a product of its own, so that they need not agree.
    alone: bool = False


@dataclass(frozen=True)
class Calibrations:
    """Calibrations that a product is made of, in place of raw frames."""

    #: Stage of the tasks, each of which reads one of them.
    kernel: str
    #: Connection of these tasks to it.
    connection: str
    #: Field of their configuration with its role for the kernel: ``bias``.
    role: str


@dataclass(frozen=True)
class Correction:
    """How the signature removal applies a calibration."""

    #: Field that asks for it; empty if frames in electron do.
    switch: str
    #: Name among the kernel's settings.
    setting: str
    #: Whether it is required. Otherwise it is left out if the inputs hold none.
    needed: bool = False
    #: Connection, if that is not the kind's name.
    connection: str = ""
    #: Field with the filters of frames that it is for; empty: those of all.
    filters: str = ""
    #: Whether it looks at whole frames: kernels that correct frames in parts refuse it.
    whole: bool = False
    #: Whether nothing is said of it where it is not asked for: runs were planned before it could be.
    silent: bool = False
    #: Whether it needs signals that begin at 0, the electronics' level taken off.
    from_zero: bool = False


@dataclass(frozen=True)
class CostModel:
    """Estimate of the time and memory of a kernel without an earlier run."""

    #: Raw Mpixel that a core reads and corrects in a second.
    mpixels_per_second: float = 40.0
    #: Memory of a rank, MiB; for a kernel that works on pixels, that of its blocks.
    base_mib: int = 250
    blocks_mib: int = 192
    #: Bytes of each pixel of a detector, in memory and in the written files.
    pixel_bytes: int = 40
    output_bytes: int = 0


@dataclass(frozen=True)
class ProductKind:
    """A kind of product."""

    #: Name for the operator, in ``--calibration`` and the header's cards.
    name: str
    #: Its dataset types, and those of intermediate products.
    datasets: Mapping[str, DatasetType]
    #: Kernel of the task that makes it; empty if no pipeline does.
    maker: str = ""
    #: Connection of that task that is the product.
    output: str = ""
    #: Fields of that task that distinguish the kind from others of the same kernel.
    config: Mapping[str, Any] = field(default_factory=dict)
    #: `None` if no pipeline makes it.
    made_of: Frames | Calibrations | None = None
    #: Upstream's task classes in its pipelines, by full name.
    tasks: Mapping[str, TaskClass] = field(default_factory=dict)
    #: Plans its groups with a `Planner`.
    groups: Callable[[Planner], Sequence[GroupDraft]] | None = None
    #: Gives remarks on a plan for the operator.
    notes: Callable[[Planner], Sequence[str]] | None = None
    #: Readings beside the frames that its kernel takes: field of the maker that asks for them, by dataset type.
    readings: Mapping[str, str] = field(default_factory=dict)
    #: Correction of frames by it.
    correction: Correction | None = None
    #: Kinds whose absence is stated in its header.
    misses: tuple[str, ...] = ()
    #: Estimates by kernel; the default's for other kernels.
    costs: Mapping[str, CostModel] = field(default_factory=dict)
    #: Unit of its pixels; ``{unit}`` stands for that of the camera's frames.
    unit: str = "{unit}"
    #: See `Picture`.
    picture: Picture = ""
    #: Dataset type of bins of which each detector has a page of its own; empty: none.
    each: str = ""
    #: Gives the run's numbers for the operator, by what the kernel journalled of each detector, by name.
    numbers: Callable[[Mapping[str, Mapping[str, Any]]], Sequence[str]] | None = None

    def __post_init__(self) -> None:
        parts = self.maker, self.output, self.made_of, self.groups
        if any(parts) and not all(parts):
            raise ValueError(f"{self.name}: maker, output, made_of and groups are given together, or none of them")
