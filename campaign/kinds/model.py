"""A product kind as data: all that the rest of the program asks about a product."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from campaign.kinds.draft import GroupDraft, Planner
from campaign.kinds.task import TaskClass

#: What is drawn of a product: its pixels, boxes over the focal plane, values of each amplifier; empty for nothing.
Picture = Literal["", "image", "boxes", "amplifiers"]


@dataclass(frozen=True)
class DatasetType:
    """A dataset type, registered so where a repository has none of that name."""

    dimensions: tuple[str, ...]
    #: The file format: ``CalibImage``, ``CalibTable`` (FITS), ``StructuredDataDict`` (JSON) or ``RawFrame``.
    storage_class: str
    #: Whether it can be certified.
    calibration: bool = False


@dataclass(frozen=True)
class Frames:
    """Raw frames that a product is made of."""

    #: Their observation type.
    type: str
    #: Frames of each detector, at least.
    least: int = 3
    #: Whether all must be of one filter.
    one_filter: bool = False
    #: Whether levels of exposures are compared with one another when the run ends.
    alike: bool = False


@dataclass(frozen=True)
class Calibrations:
    """Calibrations that a product is made of, in place of raw frames."""

    #: Stage of the tasks that read one each.
    kernel: str
    #: Their connection to it.
    connection: str
    #: Field of their configuration that says what it is to the kernel: ``bias``.
    role: str


@dataclass(frozen=True)
class Correction:
    """How the signature removal applies a calibration."""

    #: Field that asks for it; empty where frames in electron do.
    switch: str
    #: Name among the kernel's settings.
    setting: str
    #: Required. A calibration that is not required is left out where the inputs hold none.
    needed: bool = False
    #: Its connection, where that is not the kind's name.
    connection: str = ""


@dataclass(frozen=True)
class CostModel:
    """Estimate of the time and memory of a kernel without an earlier run."""

    #: Raw Mpixel that a core reads and corrects in a second.
    mpixels_per_second: float = 40.0
    #: Memory of a rank, MiB; of the blocks of a kernel that works on pixels.
    base_mib: int = 250
    blocks_mib: int = 192
    #: Of each pixel of a detector: in memory, and in the files written.
    pixel_bytes: int = 40
    output_bytes: int = 0


@dataclass(frozen=True)
class ProductKind:
    """A kind of product."""

    #: Name for the operator: of ``--calibration``, of the header's cards.
    name: str
    #: Its dataset types, and those of what is made on the way.
    datasets: Mapping[str, DatasetType]
    #: Kernel of the task that makes it; empty where no pipeline is for it.
    maker: str = ""
    #: Connection of that task which is the product.
    output: str = ""
    #: Fields of that task that tell the kind from others of the same kernel.
    config: Mapping[str, Any] = field(default_factory=dict)
    #: `None` for what no pipeline makes.
    made_of: Frames | Calibrations | None = None
    #: Upstream's task classes that its pipelines have, by full name.
    tasks: Mapping[str, TaskClass] = field(default_factory=dict)
    #: Plans its groups, from a `Planner`.
    groups: Callable[[Planner], Sequence[GroupDraft]] | None = None
    #: Says what the operator should know of a plan.
    notes: Callable[[Planner], Sequence[str]] | None = None
    #: How frames are corrected by it.
    correction: Correction | None = None
    #: Kinds whose absence its header states.
    misses: tuple[str, ...] = ()
    #: By kernel; the default's elsewhere.
    costs: Mapping[str, CostModel] = field(default_factory=dict)
    #: Of its pixels, ``{unit}`` for that of the camera's frames.
    unit: str = "{unit}"
    #: See `Picture`.
    picture: Picture = ""

    def __post_init__(self) -> None:
        parts = self.maker, self.output, self.made_of, self.groups
        if any(parts) and not all(parts):
            raise ValueError(f"{self.name}: maker, output, made_of and groups are given together, or none of them")
