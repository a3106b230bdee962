"""Which tasks of a plan go to which site, and which must wait until others have come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from campaign.errors import ConfigurationError
from campaign.federation.assign import Item, assign
from campaign.journal.plan import Group, Plan, PlanTask

#: What work can be split by.
KEYS = ("exposure", "detector")
DEFAULT = "exposure"
#: The place of what needs everything at once: it runs where the archive is.
ARCHIVE = ""


def _key(group: Group, chosen: Mapping[str, str]) -> str:
    """What a group is split by: gangs by detector, quanta as the template says, serial jobs not at all."""
    if group.kind == "serial":
        return ARCHIVE
    if group.kind == "gang":
        return "detector"
    key = chosen.get(group.label, DEFAULT)
    if key not in KEYS:
        raise ConfigurationError(
            f"partition {key!r} of {group.label} is not possible", where="partition", do=f"it is {' or '.join(KEYS)}"
        )
    return key


def _item(task: PlanTask, key: str) -> Item:
    """A task's cost is the number of frames that it reads; tasks of one exposure, or detector, stay together."""
    value = task.job.detector if key == "detector" else task.job.parameters["exposures"][0]
    return Item(task.name, len(task.job.inputs.get("raw", ())) or 1, f"{key} {value}")


def split(
    plan: Plan, fractions: Mapping[str, float], chosen: Mapping[str, str], recorded: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Place every task of a plan.

    Tasks that are split by the same key are assigned together, so that a
    detector's frames are measured and combined at one site.

    Parameters
    ----------
    fractions : `dict`
        By site.
    chosen : `dict`
        By label of a group of quanta, ``exposure`` or ``detector``.
    recorded : `dict`, optional
        Site by task, of what is not to be moved.

    Returns
    -------
    places : `dict`
        By task, a site or `ARCHIVE`.

    Raises
    ------
    ConfigurationError
        A key that nothing is split by.
    """
    places: dict[str, str] = {}
    keys = {group.label: _key(group, chosen) for group in plan.groups}
    for key in (ARCHIVE, *KEYS):
        tasks = [task for group in plan.groups if keys[group.label] == key for task in group.tasks]
        if key == ARCHIVE:
            places |= {task.name: ARCHIVE for task in tasks}
        elif tasks:
            places |= assign([_item(task, key) for task in tasks], fractions, recorded)
    return places


@dataclass(frozen=True)
class Round:
    """Tasks that can be done at the same time, by place; each place does its own in the plan's order."""

    tasks: Mapping[str, Sequence[str]]


def rounds(plan: Plan, places: Mapping[str, str]) -> list[Round]:
    """Cut a plan where something must travel: a group follows in the same round on what is at its own place only."""
    levels: dict[str, int] = {}
    label_of = {task.name: group.label for group in plan.groups for task in group.tasks}
    for group in plan.groups:
        levels[group.label] = 0
        for task in group.tasks:
            for need in task.needs:
                far = places[need] != places[task.name]
                levels[group.label] = max(levels[group.label], levels[label_of[need]] + far)
    found: list[dict[str, list[str]]] = [{} for _ in range(max(levels.values(), default=-1) + 1)]
    for group in plan.groups:
        for task in group.tasks:
            found[levels[group.label]].setdefault(places[task.name], []).append(task.name)
    return [Round(by_place) for by_place in found]


def part(plan: Plan, tasks: Sequence[str]) -> list[Group]:
    """The groups of a plan with only these tasks; what is needed from elsewhere is taken to be there."""
    wanted = set(tasks)
    labels = {group.label for group in plan.groups if any(task.name in wanted for task in group.tasks)}
    found = []
    for group in plan.groups:
        some = [
            replace(task, needs=[n for n in task.needs if n in wanted]) for task in group.tasks if task.name in wanted
        ]
        if some:
            found.append(replace(group, tasks=some, needs=[n for n in group.needs if n in labels]))
    return found
