"""Assignment of work to sites: properties over random campaigns."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from campaign.errors import ConfigurationError
from campaign.federation.assign import Item, assign

SITES = {"usdf": 0.25, "frdf": 0.5, "ukdf": 0.25}
CAMPAIGNS = 1000


def campaign(random: np.random.Generator) -> tuple[list[Item], dict[str, float]]:
    """Between 1 and 80 groups of 1 to 5 items, of costs over two orders of magnitude; 1 to 6 sites."""
    items = []
    for group in range(random.integers(1, 81)):
        cost = float(random.choice([1.0, 10 ** random.uniform(0, 2)]))
        items += [Item(f"{group}:{n}", cost, f"g{group}") for n in range(random.integers(1, 6))]
    fractions = random.dirichlet(np.ones(random.integers(1, 7)))
    return [items[n] for n in random.permutation(len(items))], {f"s{n}": float(f) for n, f in enumerate(fractions)}


def loads(items: Sequence[Item], placed: Mapping[str, str]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for item in items:
        found[placed[item.id]] += item.cost
    return found


def costliest(items: Sequence[Item]) -> float:
    groups: dict[str, float] = defaultdict(float)
    for item in items:
        groups[item.group] += item.cost
    return max(groups.values())


@pytest.mark.parametrize("seed", range(10))
def test_random_campaigns(seed: int) -> None:
    """A thousand cases: a new set, one that has grown, and one that has lost a site."""
    random = np.random.default_rng(seed)
    for _ in range(CAMPAIGNS // 10):
        items, fractions = campaign(random)
        fresh = assign(items, fractions)
        assert fresh.keys() == {i.id for i in items}
        assert set(fresh.values()) <= set(fractions)
        assert all(len({fresh[i.id] for i in items if i.group == g}) == 1 for g in {i.group for i in items})
        total, one = sum(i.cost for i in items), costliest(items)
        for site, load in loads(items, fresh).items() | {(s, 0.0) for s in fractions.keys() - set(fresh.values())}:
            assert abs(load - fractions[site] * total) <= one * (1 + 1e-9)
        assert assign(list(reversed(items)), dict(reversed(fractions.items()))) == fresh

        known = {i.id: fresh[i.id] for i in items if random.random() < 0.5}
        more = [*items, *(Item(f"new{n}", 1.0, f"new{n}") for n in range(5))]
        grown = assign(more, fractions, known)
        assert {i: grown[i] for i in known} == known
        assert grown.keys() == {i.id for i in more}

        for dead in fractions if len(fractions) > 1 else ():
            left = {s: f for s, f in fractions.items() if s != dead}
            done = {i for i, s in fresh.items() if s == dead and random.random() < 0.5}
            kept = {i: s for i, s in fresh.items() if s != dead or i in done}
            after = assign(items, left, kept)
            assert {i: after[i] for i in kept} == kept
            assert after.keys() == fresh.keys()
            assert {s for i, s in after.items() if i not in kept} <= set(left)


def test_the_shares_of_a_lost_site_go_by_the_fractions_that_are_left() -> None:
    items = [Item(f"{n:04}", 1.0, str(n)) for n in range(4000)]
    fresh = assign(items, SITES)
    assert Counter(fresh.values()) == {"usdf": 1000, "frdf": 2000, "ukdf": 1000}
    left = {"frdf": 0.5, "ukdf": 0.25}
    after = assign(items, left, {i: s for i, s in fresh.items() if s != "usdf"})
    gained = Counter(after[i] for i, s in fresh.items() if s == "usdf")
    assert abs(gained["frdf"] - 2000 / 3) <= 1
    assert abs(gained["ukdf"] - 1000 / 3) <= 1


def test_a_group_goes_on_where_it_was_begun() -> None:
    items = [Item(f"{label}:{n}", 1.0, str(n)) for label in "ab" for n in range(9)]
    measured = assign([i for i in items if i.id < "b"], SITES)
    both = assign(items, SITES, measured)
    assert all(both[f"b:{n}"] == measured[f"a:{n}"] for n in range(9))


@pytest.mark.parametrize("fractions", [{}, {"a": 0.0}, {"a": -0.5, "b": 1.5}, {"a": float("nan")}])
def test_fractions_that_are_none_are_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="cannot be shared"):
        assign([Item("a", 1.0, "a")], fractions)


def test_an_id_given_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="two items"):
        assign([Item("a", 1.0, "a"), Item("a", 1.0, "b")], SITES)
