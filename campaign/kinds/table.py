"""The table of product kinds: the packaged ones, and those of other distributions.

A packaged kind is the ``KIND`` of a module of this room.  Other distributions
declare theirs in the entry-point group ``drp_campaign.kinds``.
The table is read at its first use, so that a command that needs no
product imports none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Final

from campaign import plugins
from campaign.errors import ConfigurationError
from campaign.kinds import isr
from campaign.kinds.model import Correction, CostModel, DatasetType, Frames, ProductKind
from campaign.kinds.task import PipelineTask, TaskClass
from campaign.problems import suggest

#: Order of the applied calibrations in headers and notes; others follow by name.
ORDER: Final = ("bias", "dark", "linearizer", "crosstalk", "defects", "cti", "ptc")
RAW: Final = {"raw": DatasetType(("instrument", "exposure", "detector"), "RawFrame", rubin="Exposure")}


def packaged() -> list[ProductKind]:
    """Give the kinds of this package."""
    names = {module.name for module in iter_modules([str(Path(__file__).parent)])} - set(ORDER)
    modules = [import_module(f"campaign.kinds.{name}") for name in (*ORDER, *sorted(names))]
    return [module.KIND for module in modules if hasattr(module, "KIND")]


@cache
def kinds() -> Mapping[str, ProductKind]:
    """Give all kinds, by name.

    Raises
    ------
    ConfigurationError
        A kind of another distribution cannot be used.
    """
    found = {kind.name: kind for kind in packaged()}
    for entry in plugins.entries(plugins.KINDS):
        kind = plugins.load(entry, ProductKind)
        for why in _objections(kind, entry.name, found):
            raise plugins.broken(entry, why)
        found[kind.name] = kind
    return found


def _objections(kind: ProductKind, name: str, others: Mapping[str, ProductKind]) -> Iterator[str]:
    """Say why another distribution's kind cannot be used beside the present ones."""
    if kind.name != name:
        yield f"its kind is named {kind.name}"
    if kind.name in others:
        yield f"there is a kind {kind.name}"
    types = RAW.keys() | {one for other in others.values() for one in other.datasets}
    yield from (f"there is a dataset type {one}" for one in sorted(kind.datasets.keys() & types))
    mapped = isr.tasks({}) | {cls: task for other in others.values() for cls, task in other.tasks.items()}
    yield from (f"the task class {c} is mapped already" for c, t in kind.tasks.items() if mapped.get(c, t) != t)
    kernels = {task.kernel for task in mapped.values()} | {entry.name for entry in plugins.entries(plugins.KERNELS)}
    for task in kind.tasks.values():
        if task.kind != "fused" and task.kernel not in kernels:
            yield f"no distribution has its kernel {task.kernel} (entry point {plugins.KERNELS})"


@cache
def corrections() -> Mapping[str, Correction]:
    """Give the corrections of frames, by kind."""
    return {name: kind.correction for name, kind in kinds().items() if kind.correction}


def whole_switches() -> list[str]:
    """Give the switches of corrections that need whole frames."""
    return [*(c.switch for c in corrections().values() if c.whole), *isr.WHOLE]


@cache
def tasks() -> Mapping[str, TaskClass]:
    """Give upstream's task classes by full name."""
    found = isr.tasks(corrections())
    for kind in kinds().values():
        found |= kind.tasks
    return found


@cache
def dataset_types() -> Mapping[str, DatasetType]:
    """Give the dataset types that this program registers, by name."""
    found = dict(RAW)
    for kind in kinds().values():
        found |= kind.datasets
    return found


@cache
def _costs() -> Mapping[str, CostModel]:
    return {kernel: cost for kind in kinds().values() for kernel, cost in kind.costs.items()}


def cost(kernel: str) -> CostModel:
    """Give the estimate of a kernel's time and memory."""
    return _costs().get(kernel, CostModel())


def makers() -> set[str]:
    """Give the kernels of tasks that make a pipeline's product."""
    return {kind.maker for kind in kinds().values() if kind.maker}


def made_by(task: PipelineTask) -> ProductKind:
    """Give the kind that a task makes.

    Raises
    ------
    ConfigurationError
        Its configuration fits no kind.
    """
    able = [kind for kind in kinds().values() if kind.maker == task.kernel]
    for kind in able:
        if kind.config.items() <= task.config.items():
            return kind
    said = {name: task.config.get(name) for kind in able for name in kind.config}
    what = ", ".join(f"{name} {value!r}" for name, value in said.items())
    do = suggest(" ".join(map(str, said.values())), [kind.name for kind in able])
    raise ConfigurationError(f"{task.label}: {what} is no product kind", do=do)


def of_dataset(name: str) -> ProductKind | None:
    """Give the kind of a dataset type; `None` if no kind has it."""
    return next((kind for kind in kinds().values() if name in kind.datasets), None)


def judged(dataset_type: str) -> bool:
    """Whether levels of the frames of a product are compared with one another."""
    kind = of_dataset(dataset_type)
    return kind is not None and isinstance(kind.made_of, Frames) and kind.made_of.alike
