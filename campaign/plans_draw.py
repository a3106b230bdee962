"""A campaign drawn: its steps in columns, none left of what it needs, each in the colour of its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from campaign.plans import Campaign
from campaign.plans_state import WORDS, State, StepState

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN, HEAD = 168, 56, 56, 18, 20, 44
#: Fill and border by state.
COLOURS: Mapping[State, tuple[str, str]] = {
    "waiting": ("#f4f4f4", "#9a9a9a"),
    "ready": ("#ffffff", "#2b6cb0"),
    "running": ("#dbeafe", "#2b6cb0"),
    "left": ("#fde9c8", "#b7791f"),
    "failed": ("#fbd5d5", "#c53030"),
    "gate": ("#fff3b0", "#b7791f"),
    "made": ("#dcf5e3", "#2f855a"),
    "done": ("#b9e8c6", "#2f855a"),
    "blocked": ("#f4f4f4", "#c53030"),
}
STALE = "#c53030"


@dataclass(frozen=True)
class Row:
    """A step as it is shown.

    Parameters
    ----------
    state : `StepState`
    cpu_seconds, wall_seconds : `float` or `None`
        What its run took; or, of one that is not made, what it would take.
    stale : `tuple` [`str`]
        Why what it made is not what it would make today.
    """

    state: StepState
    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    stale: tuple[str, ...] = ()


def columns(campaign: Campaign) -> list[list[str]]:
    """The steps by depth: a step stands right of everything that it needs."""
    depth: dict[str, int] = {}
    for name in campaign.order:
        depth[name] = 1 + max((depth[n] for n in campaign.steps[name].needs), default=-1)
    found: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=0))]
    for name in campaign.order:
        found[depth[name]].append(name)
    return found


def text(campaign: Campaign, rows: Mapping[str, Row]) -> list[tuple[str, ...]]:
    """A row a step: name, what it needs, what becomes of its product, its state, its cost, why it is stale."""
    found: list[tuple[str, ...]] = []
    for name in campaign.order:
        step, row = campaign.steps[name], rows[name]
        kind = ", ".join(["gate"] * step.gate + ([f"certify, {step.certify.chain}"] if step.certify else []))
        words = WORDS[row.state.state] + (f": {row.state.note}" if row.state.note else "")
        cost = "" if row.cpu_seconds is None else f"{row.cpu_seconds:.0f}"
        wall = "" if row.wall_seconds is None else f"{row.wall_seconds:.0f}"
        found.append((name, ", ".join(step.needs), kind, words.splitlines()[0], cost, wall, "; ".join(row.stale)))
    return found


def svg(campaign: Campaign, rows: Mapping[str, Row]) -> str:
    """The same as a picture: an arrow from what is needed to what needs it."""
    layers = columns(campaign)
    tall = max(map(len, layers))
    size = (
        2 * MARGIN + len(layers) * WIDTH + (len(layers) - 1) * GAP_X,
        HEAD + 2 * MARGIN + tall * (HEIGHT + GAP_Y),
    )
    places: dict[str, tuple[float, float]] = {}
    for i, names in enumerate(layers):
        top = HEAD + MARGIN + (tall - len(names)) * (HEIGHT + GAP_Y) / 2
        places |= {n: (MARGIN + i * (WIDTH + GAP_X), top + j * (HEIGHT + GAP_Y)) for j, n in enumerate(names)}
    arrows = [_arrow(places[n], places[name]) for name in campaign.order for n in campaign.steps[name].needs]
    boxes = [_box(places[name], rows[name], campaign.steps[name].gate) for name in campaign.order]
    title = f"{campaign.name}: {campaign.file.description}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
            f'viewBox="0 0 {size[0]} {size[1]}" font-family="sans-serif" font-size="12">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{size[0]}" height="{size[1]}" fill="white"/>',
            f'<text x="{MARGIN}" y="{MARGIN + 8}" font-size="15" font-weight="bold">{escape(campaign.name)}</text>',
            f'<text x="{MARGIN}" y="{MARGIN + 26}" fill="#555">{escape(campaign.file.description)}</text>',
            *arrows,
            *boxes,
            "</svg>\n",
        ]
    )


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    x0, y0, x1, y1 = start[0] + WIDTH, start[1] + HEIGHT / 2, end[0], end[1] + HEIGHT / 2
    bend = GAP_X / 2
    path = f"M{x0:g},{y0:g} C{x0 + bend:g},{y0:g} {x1 - bend:g},{y1:g} {x1 - 6:g},{y1:g}"
    head = f"M{x1 - 7:g},{y1 - 4:g} L{x1:g},{y1:g} L{x1 - 7:g},{y1 + 4:g} Z"
    return f'<path d="{path}" fill="none" stroke="#888"/><path d="{head}" fill="#888"/>'


def _box(place: tuple[float, float], row: Row, gate: bool) -> str:
    (x, y), state = place, row.state
    fill, border = COLOURS[state.state]
    lines, hand = [WORDS[state.state], _cost(row)], " &#9995;" if gate else ""
    parts = [
        f"<g><title>{escape(f'{state.name}: {WORDS[state.state]} {state.note}'.strip())}</title>",
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{fill}" '
        f"stroke={quoteattr(STALE if row.stale else border)} stroke-width={quoteattr('2.5' if row.stale else '1.2')}/>",
        f'<text x="{x + 10:g}" y="{y + 18:g}" font-weight="bold">{escape(state.name)}{hand}</text>',
    ]
    parts += [
        f'<text x="{x + 10:g}" y="{y + 34 + 15 * k:g}" fill="#333">{escape(t)}</text>' for k, t in enumerate(lines)
    ]
    return "".join([*parts, "</g>"])


def _cost(row: Row) -> str:
    words = [] if row.cpu_seconds is None else [f"{row.cpu_seconds:.0f} s CPU"]
    return ", ".join([*words, *(["stale"] if row.stale else [])])


def plain(campaign: Campaign, rows: Mapping[str, Row]) -> list[dict[str, object]]:
    """The JSON document: a dictionary a step."""
    return [
        {
            "step": name,
            "needs": list(campaign.steps[name].needs),
            "gate": campaign.steps[name].gate,
            "certify": campaign.steps[name].certify is not None,
            "state": rows[name].state.state,
            "note": rows[name].state.note,
            "rerun": rows[name].state.rerun,
            "run": rows[name].state.run,
            "cpu_seconds": rows[name].cpu_seconds,
            "wall_seconds": rows[name].wall_seconds,
            "stale": list(rows[name].stale),
        }
        for name in campaign.order
    ]


def headings() -> Sequence[str]:
    """Of `text`."""
    return ("step", "needs", "then", "state", "CPU s", "wall s", "stale")
