"""The picture of the rooms is that of today's imports, and every word of it has room."""

from __future__ import annotations

import pytest

from tests import house
from tests.test_layout import ROOMS

#: b needs c, and c needs d: so the arrow from b to d is implied; a passes two rows on its way to d.
NEEDS = {"d": frozenset[str](), "c": frozenset("d"), "b": frozenset("cd"), "e": frozenset("b"), "a": frozenset("de")}


def test_the_picture_is_todays() -> None:
    assert house.FILE.read_text() == house.draw(), "python -m tests.house draws it anew"


def test_an_implied_arrow_is_left_out() -> None:
    assert house.reduced(NEEDS) == {"d": {*()}, "c": {"d"}, "b": {"c"}, "e": {"b"}, "a": {"e"}}


def test_arrows_lead_from_row_to_row() -> None:
    graph = house.graph(NEEDS)
    row = {name: k for k, names in enumerate(graph.rows) for name in names}
    assert {row[low] - row[high] for high, low in graph.links} == {1}
    assert sorted(row[lane] for lane in graph.lanes) == [1, 2, 3, 3]  # of a to d, and of b to d


@pytest.mark.parametrize(("package", "room"), [(package, room) for package, rooms in ROOMS.items() for room in rooms])
def test_a_room_is_told_in_its_box(package: str, room: str) -> None:
    lines = house.wrapped(house.about(package, room), house.WIDTH - 14)
    assert 18 + 1 + house.LINE * len(lines) < house.HEIGHT
