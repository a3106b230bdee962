"""Draws the rooms and the imports between them.

``python -m tests.house`` writes docs/images/house.svg and the table of rooms in docs/architecture.md.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from statistics import fmean
from xml.sax.saxutils import escape

from campaign.pipeline.svg import wide
from tests.test_layout import MODULES, ON_TOP, PACKAGES, ROOMS, ROOT, arrows, door, imports, room

FILE = ROOT / "docs" / "images" / "house.svg"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: written by python -m tests.house -->\n", "<!-- end of rooms -->"
#: A room's box, the gaps between boxes and rows, the lane of an arrow that passes a row, a line of text; pixels.
WIDTH, HEIGHT, GAP_X, GAP_Y, LANE, LINE = 212, 100, 14, 32, 8, 15
FONT = 13.0
#: Around all; from a package's upper edge to its rooms; between the packages.
MARGIN, HEAD, WALL = 16, 62, 124
SWEEPS = 8
STYLE = """
.page { fill: #ffffff } .wall { fill: #f3f5f8; stroke: #c6ccd4 } .room { fill: #ffffff; stroke: #5f7388 }
.arrow { fill: none; stroke: #7b8794 } .head { fill: #7b8794 } .said { fill: #39434e }
.name { fill: #10161d; font-weight: bold } .between { stroke: #7b8794; stroke-dasharray: 6 5 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } .wall { fill: #161b22; stroke: #3d444d } .room { fill: #212830; stroke: #8b98a5 }
.arrow { stroke: #9aa5b1 } .head { fill: #9aa5b1 } .said { fill: #c5ced7 } .name { fill: #f0f3f6 }
.between { stroke: #9aa5b1 }
}
"""
Edges = Mapping[str, frozenset[str]]


@cache
def edges(package: str) -> Edges:
    """Collect the rooms that each room of a package imports from."""
    found: dict[str, set[str]] = {name: set() for name in ROOMS[package]}
    for module, file in MODULES.items():
        if module.startswith(f"{package}.") and room(module):
            there = {to for _, to in arrows(module, file.read_text(), MODULES) if to.startswith(f"{package}.")}
            found[room(module)] |= {room(to) for to in there} - {"", room(module)}
    return {name: frozenset(others) for name, others in found.items()}


def reduced(needs: Edges) -> Edges:
    """Leave out each arrow that a longer way implies; ``needs`` names every room after those that it imports from."""
    below: dict[str, frozenset[str]] = {}
    for name, others in needs.items():
        below[name] = others.union(*(below[other] for other in others))
    return {name: frozenset(to for to in all_ if not any(to in below[n] for n in all_)) for name, all_ in needs.items()}


@dataclass(frozen=True)
class Graph:
    """Rooms and lanes in rows from the top, and links that each lead from a row to the next."""

    rows: Sequence[Sequence[str]]
    links: Sequence[tuple[str, str]]
    lanes: frozenset[str]


def graph(needs: Edges) -> Graph:
    """Put every room above all that it needs; an arrow that passes a row gets a lane there."""
    height: dict[str, int] = {}
    for name, others in needs.items():
        height[name] = 1 + max((height[other] for other in others), default=-1)
    rows: list[list[str]] = [[] for _ in range(1 + max(height.values()))]
    for name, level in height.items():
        rows[level].append(name)
    links: list[tuple[str, str]] = []
    lanes: list[str] = []
    for name, others in needs.items():
        for to in sorted(others):
            passed = {level: f"{name} to {to}, {level}" for level in range(height[name] - 1, height[to], -1)}
            links += pairwise([name, *passed.values(), to])
            lanes += passed.values()
            for level, lane in passed.items():
                rows[level].append(lane)
    _untangle(rows, links)
    return Graph(rows[::-1], links, frozenset(lanes))


def _untangle(rows: Sequence[list[str]], links: Sequence[tuple[str, str]]) -> None:
    """Sort each row by where its neighbours are, down and up by turns."""
    near: dict[str, set[str]] = {}
    for one, other in links:
        near.setdefault(one, set()).add(other)
        near.setdefault(other, set()).add(one)
    for sweep in range(SWEEPS):
        for fixed, moved in pairwise(rows if sweep % 2 else rows[::-1]):
            at = {name: (k + 0.5) / len(fixed) for k, name in enumerate(fixed)}
            keys = {name: fmean([at[other] for other in near.get(name, ()) if other in at] or [0.5]) for name in moved}
            moved.sort(key=keys.__getitem__)


@dataclass(frozen=True)
class Laid:
    """Where a package's rooms and lanes are: left edge, upper edge, width of each; and the size of the whole."""

    graph: Graph
    places: Mapping[str, tuple[float, float, float]]
    width: float
    height: float


def laid(package: str, left: float, top: float) -> Laid:
    """Centre each row below ``top``."""
    drawn = graph(reduced(edges(package)))
    size = {name: LANE if name in drawn.lanes else WIDTH for row in drawn.rows for name in row}
    across = [sum(size[name] + GAP_X for name in row) - GAP_X for row in drawn.rows]
    places = {}
    for k, row in enumerate(drawn.rows):
        x = left + (max(across) - across[k]) / 2
        for name in row:
            places[name] = (x, top + k * (HEIGHT + GAP_Y), float(size[name]))
            x += size[name] + GAP_X
    return Laid(drawn, places, max(across), len(drawn.rows) * (HEIGHT + GAP_Y) - GAP_Y)


def _links(whole: Laid) -> Iterator[str]:
    """Draw the arrows, in curves only between rows."""

    def ends(side: int) -> Callable[[tuple[str, str]], float]:
        """Spread the links of a room along its edge, in the order of their other ends."""
        spread: dict[tuple[str, str], float] = {}
        for name, (x, _, width) in whole.places.items():
            mine = [link for link in whole.graph.links if link[side] == name]
            mine.sort(key=lambda link: whole.places[link[1 - side]][0])
            spread |= {link: x + width * (k + 1) / (len(mine) + 1) for k, link in enumerate(mine)}
        return spread.__getitem__

    leaves, arrives = ends(0), ends(1)
    for link in whole.graph.links:
        x0, y0 = leaves(link), whole.places[link[0]][1] + HEIGHT
        x1, y1 = arrives(link), whole.places[link[1]][1]
        is_lane, bend = link[1] in whole.graph.lanes, GAP_Y / 2
        end = f"{y1:g} V{y1 + HEIGHT:g}" if is_lane else f"{y1 - 6:g}"
        yield f'<path class="arrow" d="M{x0:g},{y0:g} C{x0:g},{y0 + bend:g} {x1:g},{y1 - bend:g} {x1:g},{end}"/>'
        if not is_lane:
            yield f'<path class="head" d="M{x1 - 4:g},{y1 - 7:g} L{x1:g},{y1:g} L{x1 + 4:g},{y1 - 7:g} Z"/>'


def _text(x: float, y: float, words: str, kind: str = "said") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def wrapped(words: str, width: float) -> list[str]:
    """Break a text into lines of a width in pixels."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if wide(longer, em=FONT) <= width else [*lines, word]
    return lines


def _paragraph(x: float, y: float, words: str, width: float) -> list[str]:
    return [_text(x, y + LINE * k, line) for k, line in enumerate(wrapped(words, width))]


def about(package: str, name: str = "") -> str:
    """Quote the first line of the docstring of a room, or of a package."""
    source = MODULES[".".join(part for part in (package, name, "__init__") if part)].read_text()
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0].replace("`", "")


def _room(package: str, name: str, place: tuple[float, float, float], needs: Edges) -> str:
    x, y, width = place
    inside = [module for module in MODULES if module.startswith(f"{package}.{name}.") and "__init__" not in module]
    users = [other for other, theirs in needs.items() if name in theirs]
    hint = [
        f"{name}: {len(inside)} modules",
        f"door: {', '.join(door(package, name))}",
        f"imports from: {', '.join(sorted(needs[name])) or 'no room'}",
        f"is imported by: {', '.join(users) or 'no room'}",
    ]
    parts = [
        f"<g><title>{escape(chr(10).join(hint))}</title>",
        f'<rect class="room" x="{x:g}" y="{y:g}" width="{width:g}" height="{HEIGHT}" rx="6"/>',
        _text(x + 10, y + 18, f"{name}/", "name"),
        *_paragraph(x + 10, y + 18 + LINE + 1, about(package, name), width - 14),
    ]
    return "".join([*parts, "</g>"])


def _wall(x: float, y: float, width: float, height: float, title: str, words: str) -> list[str]:
    box = f'<rect class="wall" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8"/>'
    return [box, _text(x + MARGIN, y + 22, title, "name"), *_paragraph(x + MARGIN, y + 40, words, width - 2 * MARGIN)]


def _package(package: str, left: float, words: str) -> tuple[list[str], float, float]:
    """Draw a package with its rooms; give the elements, the right edge and the lower edge."""
    whole, needs = laid(package, left + MARGIN, MARGIN + HEAD), edges(package)
    width, bottom = whole.width + 2 * MARGIN, MARGIN + HEAD + whole.height
    singles = [m.split(".")[1] for m in MODULES if m.count(".") == 1 and m.startswith(f"{package}.")]
    ground = [name for name in singles if f"{package}.{name}" not in ON_TOP and name != "__init__"]
    foot = f"below all rooms: {', '.join(ground)}"
    lines = len(wrapped(foot, width - 2 * MARGIN))
    elements = [
        *_wall(left, MARGIN, width, bottom + 16 + LINE * lines + MARGIN / 2 - MARGIN, f"{package}/", words),
        *_links(whole),
        *(_room(package, name, whole.places[name], needs) for name in needs),
        *_paragraph(left + MARGIN, bottom + 26, foot, width - 2 * MARGIN),
    ]
    return elements, left + width, bottom + 16 + LINE * lines + MARGIN / 2


def _apart(package: str, left: float, top: float, width: float) -> tuple[list[str], float]:
    """Draw a package without rooms, and who imports it; give the elements and the lower edge."""
    users = {
        ".".join(module.split(".")[:2])
        for module, file in MODULES.items()
        if package in {name for _, name in imports(module, ast.parse(file.read_text()))}
    }
    others = [user for user in sorted(users) if not user.startswith(f"{package}.")]
    words = f"{about(package)} Imported by {', '.join(others)}."
    height = 40 + LINE * len(wrapped(words, width - 2 * MARGIN))
    return _wall(left, top, width, height, f"{package}/", words), top + height


def _between(x: float, height: float) -> list[str]:
    """Draw the wall between the processes, and the two things that pass it."""
    left, right, y = x + 8, x + WALL - 8, MARGIN + HEAD + HEIGHT / 2
    middle = (left + right) / 2
    return [
        f'<path class="between" d="M{middle:g},{MARGIN} L{middle:g},{height:g}"/>',
        _text(left, y - 8, "job file"),
        f'<path class="arrow" d="M{left:g},{y:g} L{right - 6:g},{y:g}"/>',
        f'<path class="head" d="M{right - 7:g},{y - 4:g} L{right:g},{y:g} L{right - 7:g},{y + 4:g} Z"/>',
        _text(left, y + 42, "journal, products"),
        f'<path class="arrow" d="M{left + 6:g},{y + 50:g} L{right:g},{y + 50:g}"/>',
        f'<path class="head" d="M{left + 7:g},{y + 46:g} L{left:g},{y + 50:g} L{left + 7:g},{y + 54:g} Z"/>',
    ]


def draw() -> str:
    """Draw the whole picture."""
    elements, wall, low = _package("campaign", MARGIN, "Arrow: imports from. What a longer way implies is left out.")
    kernels, right, under = _package("kernels", wall + WALL, "Processes of their own: python -m kernels.run JOB.json")
    elements += kernels
    for package in PACKAGES:
        if not ROOMS[package]:
            more, under = _apart(package, wall + WALL, under + MARGIN, right - wall - WALL)
            elements += more
    height, width = max(low, under) + MARGIN, right + MARGIN
    shape = f'width="{width:g}" height="{height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {shape} viewBox="0 0 {width:g} {height:g}"'
    return "\n".join(
        [
            f'{head} font-family="sans-serif" font-size="{FONT:g}">',
            "<title>The rooms and the imports between them</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="page" {shape} rx="8"/>',
            *elements,
            *_between(wall, max(low, under)),
            "</svg>\n",
        ]
    )


def table() -> str:
    """Tabulate floor, door and imports of every room, from the top."""
    lines = ["| floor | room | door | imports from |", "|---|---|---|---|"]
    for package in PACKAGES:
        if needs := edges(package):
            rows = graph(reduced(needs)).rows
            floors = {name: len(rows) - 1 - k for k, row in enumerate(rows) for name in row}
            lines += [
                f"| {floors[name]} | `{package}/{name}/` | {', '.join(door(package, name))} "
                f"| {', '.join(sorted(needs[name])) or 'no room'} |"
                for name in sorted(needs, key=lambda name: -floors[name])
            ]
    return "\n".join(lines) + "\n"


def page() -> str:
    """Give docs/architecture.md with today's table."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}{table()}{end}{after}"


if __name__ == "__main__":
    FILE.write_text(draw())
    PAGE.write_text(page())
