"""Values of site files, and so of schedulers' settings: bounded types, and words for the operator."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

#: Description of texts for the operator, by their patterns.
MEANT: dict[str, str] = {}


class Model(BaseModel):
    """Settings: every key is known, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def text(pattern: str, meant: str) -> StringConstraints:
    """Constrain a text to a pattern, and note what that means."""
    MEANT[pattern] = meant
    return StringConstraints(strict=True, pattern=pattern)


def _number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("is not a number")
    return value


def _whole(value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("is not a whole number")
    return value


Text = Annotated[str, text(r"^[^\x00-\x1f\x7f]*$", "text in one line")]
#: A scheduler's name for something, without characters that a shell or a submit command would interpret.
Word = Annotated[str, text(r"^([A-Za-z0-9_][A-Za-z0-9_.,:@/+-]*)?$", "letters, digits, _ . , : @ / + -")]
FilePath = Annotated[str, text(r"^(/[^\x00-\x1f\x7f]*)?$", "a path from / on")]
Fraction = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1, allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
WholeOrZero = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Seconds = Annotated[float, BeforeValidator(_number), Field(gt=0, le=3600)]
