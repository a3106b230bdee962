"""Divide a plan's tasks among sites, and into rounds between which products travel."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from campaign.errors import ConfigurationError
from campaign.federation.assign import Item, assign
from campaign.journal.plan import Group, Plan, PlanTask

#: Keys that work can be split by.
KEYS = ("exposure", "detector")
DEFAULT = "exposure"
#: Place of groups that need everything at once: the archive.
ARCHIVE = ""


def _key(group: Group, chosen: Mapping[str, str]) -> str:
    """Choose the key that splits a group: the detector for gangs, the template's for quanta, none for serial jobs."""
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
    """Place every task of a plan: give a site, or `ARCHIVE`, by task.

    Tasks that are split by the same key are assigned together, so that a
    detector's frames are measured and combined at one site.

    Parameters
    ----------
    fractions : `dict`
        By site.
    chosen : `dict`
        By label of a group of quanta, ``exposure`` or ``detector``.
    recorded : `dict`, optional
        Site by task, of tasks that must not move.

    Raises
    ------
    ConfigurationError
        A key outside `KEYS`.
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


@dataclass
class Placement:
    """Place of every task, while sites leave and tasks move."""

    plan: Plan
    #: Fraction by site; a site that is lost is taken out.
    sites: dict[str, float]
    #: See `split`.
    chosen: Mapping[str, str]
    places: dict[str, str] = field(default_factory=dict)

    def place(self, recorded: Mapping[str, str]) -> None:
        """Place every task, those of ``recorded`` where they were made."""
        self.places = split(self.plan, self.sites, self.chosen, recorded)

    def by_place(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Sort tasks by their places."""
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(self.places[name], []).append(name)
        return found

    def leave(self, done: Callable[[str], bool]) -> None:
        """Place again the unfinished tasks of sites that are lost."""
        self.place({task: site for task, site in self.places.items() if site in self.sites or done(task)})

    def move(self, tasks: Collection[str], site: str) -> None:
        """Place tasks at other sites than this one."""
        others = {other: fraction for other, fraction in self.sites.items() if other != site}
        recorded = {task: place for task, place in self.places.items() if task not in tasks}
        self.places |= split(self.plan, others, self.chosen, recorded)


def rounds(plan: Plan, places: Mapping[str, str]) -> list[list[str]]:
    """Cut a plan into rounds, each of tasks whose places need nothing from one another meanwhile.

    A group follows in the same round only on tasks at its own place; each place runs its tasks in the plan's order.
    """
    levels: dict[str, int] = {}
    label_of = {task.name: group.label for group in plan.groups for task in group.tasks}
    for group in plan.groups:
        levels[group.label] = 0
        for task in group.tasks:
            for need in task.needs:
                far = places[need] != places[task.name]
                levels[group.label] = max(levels[group.label], levels[label_of[need]] + far)
    found: list[list[str]] = [[] for _ in range(max(levels.values(), default=-1) + 1)]
    for group in plan.groups:
        found[levels[group.label]] += [task.name for task in group.tasks]
    return found


def part(plan: Plan, tasks: Sequence[str]) -> list[Group]:
    """Cut groups down to these tasks; needs outside them are taken to be met."""
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
