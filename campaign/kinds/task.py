"""Upstream's task classes as data: fields, connections, kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

#: Mode of a task: inside the gang that reads its output or writes its input; as one MPI job over the focal plane;
#: as one process; as one of many small jobs.
Mode = Literal["fused", "gang", "serial", "quantum"]


@dataclass(frozen=True)
class Field:
    """A configuration field."""

    #: Value if a pipeline sets none; its type is the field's; an empty list is one of texts.
    default: Any
    #: Possible values; if empty, any of the type.
    choices: tuple[Any, ...] = ()
    #: Name among the kernel's settings; empty if only the planner reads the field.
    kernel: str = ""
    #: Smallest possible value.
    least: float | None = None
    #: Whether the kernel gets no setting where the value is the default, as in runs of before it knew the field.
    quiet: bool = False

    def objection(self, value: Any) -> str:
        """Say why a value does not fit the field; empty if it does."""
        wanted = type(self.default)
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if not fits or isinstance(value, bool) is not isinstance(self.default, bool):
            return f"a value of the type {wanted.__name__} was expected"
        item = type(self.default[0]) if isinstance(self.default, list) and self.default else str
        if isinstance(value, list) and not all(isinstance(one, item) for one in value):
            return f"a list of {item.__name__} was expected"
        if self.least is not None and not self.least <= value < float("inf"):
            return f"at least {self.least:g} was expected"
        if self.choices and value not in self.choices:
            known = " | ".join(
                str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in self.choices
            )
            return f"only {known} is implemented" if len(self.choices) == 1 else f"possible are {known}"
        return ""


@dataclass(frozen=True)
class TaskClass:
    """An upstream task class and the kernel that implements it."""

    #: Kernel that runs the task; for a fused task, the stage inside that kernel.
    kernel: str
    #: See `Mode`.
    kind: Mode
    #: Dimensions of a task's data IDs.
    dimensions: tuple[str, ...]
    #: Dataset types by connection; a pipeline may rename them.
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    #: Configuration, by dotted name.
    fields: Mapping[str, Field] = field(default_factory=dict)
    #: Whether the kernel reads every raw frame of its detector.
    raws: bool = False
    #: Switch by input, output or field that only counts where the switch is on, and is left out elsewhere: a field that
    #: is true (``field``), or has one of some values (``field=one|other``).
    optional: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PipelineTask:
    """A pipeline's task, mapped and checked.

    Runs keep a digest of these fields: renaming or adding one makes every earlier run look changed.
    """

    #: Upstream's label.
    label: str
    #: Upstream's class.
    cls: str
    #: See `TaskClass`.
    kernel: str
    kind: Mode
    dimensions: tuple[str, ...]
    #: Configuration by upstream's names, dotted, defaults filled in.
    config: Mapping[str, Any]
    #: Settings for the kernel, by the kernel's names.
    settings: Mapping[str, Any]
    #: Dataset types by connection.
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def only(value: bool, *names: str) -> dict[str, Field]:
    """Make fields that have one possible value."""
    return {name: Field(value, (value,)) for name in names}


def named(task: TaskClass, name: str, *modules: str) -> dict[str, TaskClass]:
    """Give a task class by its full names: upstream has kept it in several modules."""
    return {f"{module}.{name}": task for module in modules}


def also_by_filter(task: TaskClass, name: str, filtered: str, *modules: str) -> dict[str, TaskClass]:
    """Give a task class, and the one beside it whose data IDs have a filter too, each by its full names."""
    other = replace(task, dimensions=(*task.dimensions, "physical_filter"))
    return {**named(task, name, *modules), **named(other, filtered, *modules)}
