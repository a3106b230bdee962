"""A product kind as data: every property of a product that the program uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from campaign.kinds.draft import GroupDraft, Planner
from campaign.kinds.task import TaskClass

#: Picture of a product: its pixels, boxes over the focal plane, values of each amplifier; empty: none.
Picture = Literal["", "image", "boxes", "amplifiers"]


@dataclass(frozen=True)
class DatasetType:
    """A dataset type, registered if a repository has none of that name.

    Parameters
    ----------
    dimensions : `tuple` [`str`]
    storage_class : `str`
        The file format: ``CalibImage``, ``CalibTable`` (FITS), ``StructuredDataDict`` (JSON) or ``RawFrame``.
    calibration : `bool`
        Whether it can be certified.
    """

    dimensions: tuple[str, ...]
    storage_class: str
    calibration: bool = False


@dataclass(frozen=True)
class Frames:
    """Raw frames that a product is made of.

    Parameters
    ----------
    type : `str`
        Their observation type.
    least : `int`
        Least number of frames of each detector.
    one_filter : `bool`
        Whether all must be of one filter.
    alike : `bool`
        Whether levels of exposures are compared with one another when the run ends.
    """

    type: str
    least: int = 3
    one_filter: bool = False
    alike: bool = False


@dataclass(frozen=True)
class Calibrations:
    """Calibrations that a product is made of, in place of raw frames.

    Parameters
    ----------
    kernel : `str`
        Stage of the tasks, each of which reads one of them.
    connection : `str`
        Connection of these tasks to it.
    role : `str`
        Field of their configuration with its role for the kernel: ``bias``.
    """

    kernel: str
    connection: str
    role: str


@dataclass(frozen=True)
class Correction:
    """How the signature removal applies a calibration.

    Parameters
    ----------
    switch : `str`
        Field that asks for it; empty if frames in electron do.
    setting : `str`
        Name among the kernel's settings.
    needed : `bool`
        Whether it is required.  Otherwise it is left out if the inputs hold none.
    connection : `str`
        Connection, if that is not the kind's name.
    """

    switch: str
    setting: str
    needed: bool = False
    connection: str = ""


@dataclass(frozen=True)
class CostModel:
    """Estimate of the time and memory of a kernel without an earlier run.

    Parameters
    ----------
    mpixels_per_second : `float`
        Raw Mpixel that a core reads and corrects in a second.
    base_mib, blocks_mib : `int`
        Memory of a rank, MiB; for a kernel that works on pixels, that of its blocks.
    pixel_bytes, output_bytes : `int`
        Bytes of each pixel of a detector, in memory and in the written files.
    """

    mpixels_per_second: float = 40.0
    base_mib: int = 250
    blocks_mib: int = 192
    pixel_bytes: int = 40
    output_bytes: int = 0


@dataclass(frozen=True)
class ProductKind:
    """A kind of product.

    Parameters
    ----------
    name : `str`
        Name for the operator, in ``--calibration`` and the header's cards.
    datasets : `dict` [`str`, `DatasetType`]
        Its dataset types, and those of intermediate products.
    maker : `str`
        Kernel of the task that makes it; empty if no pipeline does.
    output : `str`
        Connection of that task that is the product.
    config : `dict`
        Fields of that task that distinguish the kind from others of the same kernel.
    made_of : `Frames`, `Calibrations` or `None`
        `None` if no pipeline makes it.
    tasks : `dict` [`str`, `TaskClass`]
        Upstream's task classes in its pipelines, by full name.
    groups : callable, optional
        Plans its groups with a `Planner`.
    notes : callable, optional
        Gives remarks on a plan for the operator.
    correction : `Correction`, optional
        Correction of frames by it.
    misses : `tuple` [`str`]
        Kinds whose absence is stated in its header.
    costs : `dict` [`str`, `CostModel`]
        Estimates by kernel; the default's for other kernels.
    unit : `str`
        Unit of its pixels; ``{unit}`` stands for that of the camera's frames.
    picture : `str`
        See `Picture`.
    """

    name: str
    datasets: Mapping[str, DatasetType]
    maker: str = ""
    output: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    made_of: Frames | Calibrations | None = None
    tasks: Mapping[str, TaskClass] = field(default_factory=dict)
    groups: Callable[[Planner], Sequence[GroupDraft]] | None = None
    notes: Callable[[Planner], Sequence[str]] | None = None
    correction: Correction | None = None
    misses: tuple[str, ...] = ()
    costs: Mapping[str, CostModel] = field(default_factory=dict)
    unit: str = "{unit}"
    picture: Picture = ""

    def __post_init__(self) -> None:
        parts = self.maker, self.output, self.made_of, self.groups
        if any(parts) and not all(parts):
            raise ValueError(f"{self.name}: maker, output, made_of and groups are given together, or none of them")
