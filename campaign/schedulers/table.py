"""Kinds of schedulers by name, found through the entry points ``drp_campaign.schedulers``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any, Final

from campaign import plugins
from campaign.errors import ConfigurationError
from campaign.problems import suggest
from campaign.schedulers.protocol import Scheduler

GROUP: Final = plugins.SCHEDULERS
#: Default kind of a site's scheduler, and kind of ``scheduler: none``.
DEFAULT, HERE = "slurm", "local"
#: Also known without an installation, or in one that is older than the code.
_PACKAGED: Final = (
    EntryPoint(DEFAULT, "campaign.schedulers.slurm:SlurmScheduler", GROUP),
    EntryPoint(HERE, "campaign.schedulers.local:LocalScheduler", GROUP),
)


@cache
def _points() -> dict[str, EntryPoint]:
    found = {point.name: point for point in _PACKAGED}
    for point in plugins.entries(GROUP):
        if point.name in found:
            raise plugins.broken(point, f"there is a scheduler of that name already ({found[point.name].value})")
        found[point.name] = point
    return found


@cache
def kind(name: str) -> type[Scheduler]:
    """Find a kind of scheduler.

    Raises
    ------
    ConfigurationError
        No kind, or more than one, has that name; or it cannot be used.
    """
    if name not in _points():
        raise ConfigurationError(f"there is no scheduler {name!r}", where="scheduler.kind", do=suggest(name, _points()))
    found = plugins.load(_points()[name], type)
    if not issubclass(found, Scheduler):
        raise plugins.broken(_points()[name], f"{found.__name__} is no campaign.schedulers.protocol.Scheduler")
    return found


def plain(scheduler: Scheduler) -> dict[str, Any] | None:
    """Convert a scheduler for JSON: its settings, with its kind unless that is `DEFAULT`; `None` for `HERE`."""
    mine = f"{type(scheduler).__module__}:{type(scheduler).__qualname__}"
    name = next(name for name, point in _points().items() if point.value == mine or kind(name) is type(scheduler))
    if name == HERE:
        return None
    return {**({} if name == DEFAULT else {"kind": name}), **scheduler.model_dump(mode="json")}


def from_plain(settings: Mapping[str, Any] | None) -> Scheduler:
    """Make a scheduler from the result of `plain`.

    Raises
    ------
    ConfigurationError
        There is no such kind.
    pydantic.ValidationError
        A setting is wrong.
    """
    if settings is None:
        return kind(HERE)()
    return kind(str(settings.get("kind", DEFAULT))).model_validate({k: v for k, v in settings.items() if k != "kind"})
