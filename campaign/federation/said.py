"""Check the events of a site before they are journalled, so that readers of the journal may trust them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from campaign.journal.events import VERSION, Event, EventName
from campaign.limited import from_json

#: Longest line of a site, byte; an event has a few hundred.
MAX_LINE = 1 << 18
#: Most text of one share that is no event (such as a login's greetings), byte.
MAX_NOISE = 1 << 20

_Text = Annotated[str, Field(max_length=20_000)]
_Name = Annotated[str, Field(max_length=1000)]
_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True)


class _Product(_Model):
    """A published file."""

    path: _Text
    bytes: _Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Detail(_Model):
    """Fields that readers of a journal use; further fields are not checked."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, JsonValue]

    error: _Text | None = None
    cause: _Name | None = None
    code: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    name: _Name | None = None
    job: _Name | None = None
    log: _Text | None = None
    file: _Text | None = None
    state: _Name | None = None
    why: _Text | None = None
    note: _Text | None = None
    host: _Name | None = None
    pid: _Count | None = None
    rank: _Count | None = None
    ranks: _Count | None = None
    tasks: _Count | None = None
    jobs: _Count | None = None
    quanta: _Count | None = None
    workers: _Count | None = None
    inputs_used: _Count | None = None
    bad_pixels: _Count | None = None
    blank_pixels: _Count | None = None
    pixels_left_out: _Count | None = None
    dead_amplifiers: list[_Name] | None = None
    look_at: list[_Text] | None = None
    rss_mib: _Amount | None = None
    cpu_s: _Amount | None = None
    wall_s: _Amount | None = None
    pause_s: _Amount | None = None
    resources: dict[_Name, _Count] | None = None


class _Failed(_Detail):
    error: _Text


class _Said(_Model):
    """The envelope: one schema for every journal."""

    model_config = ConfigDict(extra="forbid", strict=True)

    v: Literal[1]
    t: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)$")]
    run: _Name
    task: _Name
    attempt: Annotated[int, Field(ge=0, le=10**6)]
    site: _Name
    token: _Count
    event: _Name
    detail: dict[str, JsonValue]


#: Events that a site may send about a task, and about a group or its workers; a site withdraws and cancels nothing.
_OF_TASK: Mapping[str, TypeAdapter[Any]] = {
    EventName.STARTED: TypeAdapter(_Detail),
    EventName.PUBLISHED: TypeAdapter(_Detail),
    EventName.FAILED: TypeAdapter(_Failed),
    EventName.LOST: TypeAdapter(_Failed),
}
_TOLD = (
    *(EventName.SUBMITTED, EventName.QUEUED, EventName.ADOPTED),
    *(EventName.WORKER, EventName.RETRY, EventName.NOTE),
)
_OF_SHARE: Mapping[str, TypeAdapter[Any]] = {
    **dict.fromkeys(_TOLD, TypeAdapter(_Detail)),
    EventName.DIED: TypeAdapter(_Failed),
}
_PRODUCT = TypeAdapter(_Product)
_ENVELOPE = TypeAdapter(_Said)
assert VERSION == 1


class Nonsense(ValueError):
    """A malformed event: nothing more from its site is believed."""


def event(line: bytes, outputs: Mapping[str, Collection[str]], labels: Collection[str]) -> Event | None:
    """Read a line from a site; `None` for an event of a task, or of a group, that is not the site's.

    Parameters
    ----------
    line : `bytes`
    outputs : `dict`
        By task of the site's share, the dataset types that it publishes.
    labels : collection of `str`
        Groups whose jobs the site may report.

    Raises
    ------
    Nonsense
        The event is malformed.
    ValueError
        The line is no event: a greeting, a library's warning.
    """
    plain = from_json(line)
    if not isinstance(plain, dict) or "event" not in plain:
        raise ValueError("no event")
    try:
        _ENVELOPE.validate_python(plain)
        known = _OF_TASK if ":" in plain["task"] else _OF_SHARE
        if plain["event"] not in known:
            raise Nonsense(f"{plain['event'][:40]!r} is not for a site to say of {plain['task'][:80]!r}")
        known[plain["event"]].validate_python(plain["detail"])
        if plain["task"] not in (outputs if known is _OF_TASK else labels):
            return None
        for name in outputs[plain["task"]] if plain["event"] == EventName.PUBLISHED else ():
            _PRODUCT.validate_python(plain["detail"].get(name))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise Nonsense(f"an event {plain['event']!s:.40} whose {place:.80} is not right: {first['msg']}") from None
    return Event(**plain)
