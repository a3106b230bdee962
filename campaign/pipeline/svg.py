"""Draw a graph as SVG: boxes in columns, each to the right of its needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

#: Least size of a box, gaps between boxes, margin, padding, height of an arrow's lane where it crosses a column; pixel.
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN, PADDING, LANE = 168, 56, 56, 18, 20, 10, 14
Place = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A box: title, lines, colours; ``hint`` is shown under the pointer."""

    title: str
    lines: Sequence[str] = ()
    fill: str = "#f4f4f4"
    border: str = "#9a9a9a"
    width: float = 1.2
    hint: str = ""
    mark: str = ""


def columns(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Group names by depth; ``needs`` lists every name after those that it needs."""
    depth: dict[str, int] = {}
    for name, others in needs.items():
        depth[name] = 1 + max((depth[n] for n in others), default=-1)
    found: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=0))]
    for name in needs:
        found[depth[name]].append(name)
    return found


@dataclass(frozen=True)
class Layout:
    """Positions of a graph's boxes and arrows."""

    #: Width and height of every box.
    box: Place
    #: Upper left corner of each box.
    places: Mapping[str, Place]
    #: Upper left corners of the lanes of an arrow (needed, needing) in the columns that it crosses; a lane is as wide
    #: as a box.
    bends: Mapping[tuple[str, str], Sequence[Place]]
    #: Size of the drawing, pixel.
    width: int
    height: int


def wide(words: str, bold: bool = False, em: float = 12.0) -> float:
    """Estimate the width of a text in a common sans-serif font, pixel; rather too wide."""
    return (
        em
        * sum((0.4 if c in "iljtf.,:;|!'()[] " else 0.95 if c in "mwMW@%" else 0.62) for c in words)
        * (1.1 if bold else 1)
    )


def layout(needs: Mapping[str, Sequence[str]], boxes: Mapping[str, Box], top: float = 0.0) -> Layout:
    """Place boxes in columns, and a lane in each column that an arrow crosses."""
    texts = [(wide(f"{b.title}{b.mark}", True), *(wide(line) for line in b.lines)) for b in boxes.values()]
    box = (
        max([WIDTH, *(2 * PADDING + w for some in texts for w in some)]),
        HEIGHT + 15 * max([0, *(len(b.lines) - 2 for b in boxes.values())]),
    )
    layers = columns(needs)
    depth = {name: n for n, names in enumerate(layers) for name in names}
    leaps = {(n, name): range(depth[n] + 1, depth[name]) for name, others in needs.items() for n in others}
    lanes = [[arrow for arrow, over in leaps.items() if i in over] for i in range(len(layers))]
    tall = [len(names) * (box[1] + GAP_Y) + len(some) * LANE for names, some in zip(layers, lanes, strict=True)]
    places: dict[str, Place] = {}
    bends: dict[tuple[str, str], list[Place]] = {arrow: [] for arrow in leaps}
    for i, (names, some) in enumerate(zip(layers, lanes, strict=True)):
        x, y = MARGIN + i * (box[0] + GAP_X), top + MARGIN + (max(tall) - tall[i]) / 2
        for name in names:
            places[name] = (x, y)
            y += box[1] + GAP_Y
        for arrow in some:
            bends[arrow].append((x, y))
            y += LANE
    across = len(layers) * box[0] + (len(layers) - 1) * GAP_X
    return Layout(box, places, bends, round(2 * MARGIN + across), round(2 * MARGIN + max(tall)))


def graph(needs: Mapping[str, Sequence[str]], boxes: Mapping[str, Box], top: float = 0.0) -> list[str]:
    """Draw a graph whose upper edge is at ``top``; give its elements."""
    laid = layout(needs, boxes, top)
    arrows = [_arrow(laid, n, name) for name, others in needs.items() for n in others]
    return [*arrows, *(_box(laid.places[name], boxes[name], laid.box) for name in needs)]


def legend(entries: Sequence[tuple[str, str, str]], y: float) -> list[str]:
    """Draw a legend: a line of small boxes, each with fill, border and meaning."""
    x, elements = float(MARGIN), []
    for fill, border, words in entries:
        colours = f'fill="{escape(fill)}" stroke="{escape(border)}"'
        elements.append(f'<rect x="{x:g}" y="{y - 10:g}" width="18" height="12" rx="2" {colours}/>')
        elements.append(text(x + 24, y, words))
        x += 24 + wide(words) + 24
    return elements


def text(x: float, y: float, words: str, style: str = 'fill="#555"') -> str:
    """Draw a line of text."""
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(words)}</text>'


def document(width: float, height: float, title: str, elements: Sequence[str]) -> str:
    """Write the whole file."""
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


def route(laid: Layout, start: str, end: str) -> list[Place]:
    """List the points of an arrow, straight along lanes and curved between columns."""
    width, height = laid.box
    (x0, y0), (x1, y1) = laid.places[start], laid.places[end]
    points = [(x0 + width, y0 + height / 2)]
    for x, y in laid.bends[start, end]:
        points += [(x, y + LANE / 2), (x + width, y + LANE / 2)]
    return [*points, (x1, y1 + height / 2)]


def _arrow(laid: Layout, start: str, end: str) -> str:
    points, bend = route(laid, start, end), GAP_X / 2
    path = f"M{points[0][0]:g},{points[0][1]:g}"
    for n, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        last = 6 if n == len(points) - 2 else 0
        if n % 2:
            path += f" L{x1:g},{y1:g}"
        else:
            path += f" C{x0 + bend:g},{y0:g} {x1 - bend:g},{y1:g} {x1 - last:g},{y1:g}"
    x1, y1 = points[-1]
    head = f"M{x1 - 7:g},{y1 - 4:g} L{x1:g},{y1:g} L{x1 - 7:g},{y1 + 4:g} Z"
    return f'<path d="{path}" fill="none" stroke="#888"/><path d="{head}" fill="#888"/>'


def _box(place: Place, box: Box, size: Place) -> str:
    x, y = place
    colours = f'fill="{escape(box.fill)}" stroke="{escape(box.border)}" stroke-width="{box.width:g}"'
    parts = [
        f"<g><title>{escape(box.hint or box.title)}</title>",
        f'<rect x="{x:g}" y="{y:g}" width="{size[0]:g}" height="{size[1]:g}" rx="6" {colours}/>',
        text(x + PADDING, y + 18, f"{box.title}{box.mark}", 'font-weight="bold"'),
    ]
    parts += [text(x + PADDING, y + 34 + 15 * k, line, 'fill="#333"') for k, line in enumerate(box.lines)]
    return "".join([*parts, "</g>"])
