"""Assign work to sites: shares by processing fraction; recorded work stays where it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from campaign.errors import ConfigurationError


@dataclass(frozen=True)
class Item:
    """Work to be assigned to a site."""

    #: Unique.
    id: str
    #: In any unit, not negative.
    cost: float
    #: Items of one group go to one site.
    group: str


def _check(items: Sequence[Item], fractions: Mapping[str, float]) -> None:
    if not fractions or any(not f >= 0 for f in fractions.values()) or not 0 < sum(fractions.values()) < float("inf"):
        named = ", ".join(f"{site} {fraction}" for site, fraction in fractions.items()) or "no site"
        raise ConfigurationError(f"work cannot be shared by these fractions: {named}")
    if len({item.id for item in items}) != len(items):
        raise ConfigurationError("two items have one id, they cannot be assigned")


def assign(
    items: Sequence[Item], fractions: Mapping[str, float], recorded: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Assign every item to a site; give the site of every item, by its id.

    Recorded items keep their site, and new ones of their group follow them
    while that site takes part.  The other groups, in the order of their first
    ids, go one by one to the site that is furthest below its share of all the
    work of the present sites.

    A site gets work only while it is below its share, so that it ends at
    most one group above it.  One that ends below by D was never the furthest
    below since; each site that ends above was, with a deficit of D at least,
    and ends above by no more than a group less D.  Excesses add up to deficits:
    D is less than a group too.

    Parameters
    ----------
    items : sequence of `Item`
        All items, also the recorded ones.
    fractions : `dict`
        By site; relative to their sum.
    recorded : `dict`, optional
        Site by item id; a site without a fraction keeps its finished work.

    Raises
    ------
    ConfigurationError
        There is no site, a fraction is no fraction, or two items have one id.
    """
    _check(items, fractions)
    recorded = recorded or {}
    placed = {item.id: recorded[item.id] for item in items if item.id in recorded}
    homes = {i.group: placed[i.id] for i in items if i.id in placed and placed[i.id] in fractions}
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda i: i.id):
        if item.id not in placed:
            groups[item.group].append(item)
    total = sum(i.cost for i in items if placed.get(i.id) in fractions or i.id not in placed)
    whole = sum(fractions.values())
    deficits = {site: total * fractions[site] / whole for site in sorted(fractions)}
    for item in items:
        if placed.get(item.id) in fractions:
            deficits[placed[item.id]] -= item.cost
    # The sort is stable: first the groups that follow recorded items, then the others in their order.
    for group, some in sorted(groups.items(), key=lambda entry: entry[0] not in homes):
        site = homes.get(group) or max(deficits, key=lambda s: (deficits[s], fractions[s]))
        deficits[site] -= sum(item.cost for item in some)
        placed |= {item.id: site for item in some}
    return placed
