"""Settings of a job as dataclasses: checked against their annotations, missing ones named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from kernels.errors import JobError

T = TypeVar("T")


def build(
    kind: type[T],
    plain: Mapping[str, Any],
    names: Mapping[str, str] = MappingProxyType({}),
    optional: Collection[str] = (),
    **given: Any,
) -> T:
    """Build a dataclass from a job's settings.

    Parameters
    ----------
    kind : `type`
        A dataclass of flags, numbers, texts and enumerations.
    plain : mapping
        The job's settings; others than the dataclass has do not matter.
    names : mapping, optional
        Name of the setting, by field, where they differ.
    optional : collection of `str`, optional
        Fields that keep their default where the job has no such setting; any other is required.
    **given
        Values of fields that are no settings.

    Raises
    ------
    JobError
        A setting is missing, or is of another type.
    """
    values, hints = dict(given), get_type_hints(kind)
    for field in fields(kind):  # type: ignore[arg-type]  # a dataclass
        name = names.get(field.name, field.name)
        if field.name in given or (name not in plain and field.name in optional):
            continue
        if name not in plain:
            raise JobError(f"settings: {name} is missing")
        values[field.name] = _converted(hints[field.name], plain[name], name)
    return kind(**values)


def _converted(wanted: Any, value: Any, name: str) -> Any:
    """Check a value; a whole number may stand for any number."""
    try:
        if isinstance(wanted, type) and issubclass(wanted, Enum):
            return wanted(value)
        if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, wanted) and isinstance(value, bool) is (wanted is bool):
            return value
    except ValueError as error:
        raise JobError(f"settings: {name}: {error}") from error
    raise JobError(f"settings: {name}: {value!r} is no {wanted.__name__}")
