"""Boxes and arrows as SVG: a graph in columns, nothing left of what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 168, 56, 56, 18, 20
Place = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A box: its title and lines, its colours, and what is said of it when one points at it."""

    title: str
    lines: Sequence[str] = ()
    fill: str = "#f4f4f4"
    border: str = "#9a9a9a"
    width: float = 1.2
    hint: str = ""
    mark: str = ""


def columns(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Names by depth; ``needs`` has every name behind what it needs."""
    depth: dict[str, int] = {}
    for name, others in needs.items():
        depth[name] = 1 + max((depth[n] for n in others), default=-1)
    found: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=0))]
    for name in needs:
        found[depth[name]].append(name)
    return found


def size(needs: Mapping[str, Sequence[str]]) -> tuple[int, int]:
    """Width and height of a graph, pixels."""
    layers = columns(needs)
    across = len(layers) * WIDTH + (len(layers) - 1) * GAP_X
    return 2 * MARGIN + across, 2 * MARGIN + max(map(len, layers)) * (HEIGHT + GAP_Y)


def graph(needs: Mapping[str, Sequence[str]], boxes: Mapping[str, Box], top: float = 0.0) -> list[str]:
    """The elements of a graph whose upper edge is at ``top``."""
    layers, places = columns(needs), dict[str, Place]()
    tall = max(map(len, layers))
    for i, names in enumerate(layers):
        first = top + MARGIN + (tall - len(names)) * (HEIGHT + GAP_Y) / 2
        places |= {n: (MARGIN + i * (WIDTH + GAP_X), first + j * (HEIGHT + GAP_Y)) for j, n in enumerate(names)}
    arrows = [_arrow(places[n], places[name]) for name, others in needs.items() for n in others]
    return [*arrows, *(_box(places[name], boxes[name]) for name in needs)]


def text(x: float, y: float, words: str, style: str = 'fill="#555"') -> str:
    """A line of text."""
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(words)}</text>'


def document(width: float, height: float, title: str, elements: Sequence[str]) -> str:
    """A whole file."""
    shape = f'width="{width:g}" height="{height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {shape} viewBox="0 0 {width:g} {height:g}"'
    white = f'<rect {shape} fill="white"/>'
    return "\n".join(
        [
            f'{head} font-family="sans-serif" font-size="12">',
            f"<title>{escape(title)}</title>",
            white,
            *elements,
            "</svg>\n",
        ]
    )


def _arrow(start: Place, end: Place) -> str:
    x0, y0, x1, y1 = start[0] + WIDTH, start[1] + HEIGHT / 2, end[0], end[1] + HEIGHT / 2
    bend = GAP_X / 2
    path = f"M{x0:g},{y0:g} C{x0 + bend:g},{y0:g} {x1 - bend:g},{y1:g} {x1 - 6:g},{y1:g}"
    head = f"M{x1 - 7:g},{y1 - 4:g} L{x1:g},{y1:g} L{x1 - 7:g},{y1 + 4:g} Z"
    return f'<path d="{path}" fill="none" stroke="#888"/><path d="{head}" fill="#888"/>'


def _box(place: Place, box: Box) -> str:
    x, y = place
    colours = f"fill={quoteattr(box.fill)} stroke={quoteattr(box.border)} stroke-width={quoteattr(f'{box.width:g}')}"
    parts = [
        f"<g><title>{escape(box.hint or box.title)}</title>",
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6" {colours}/>',
        text(x + 10, y + 18, f"{box.title}{box.mark}", 'font-weight="bold"'),
    ]
    parts += [text(x + 10, y + 34 + 15 * k, line, 'fill="#333"') for k, line in enumerate(box.lines)]
    return "".join([*parts, "</g>"])
