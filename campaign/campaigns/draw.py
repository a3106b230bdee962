"""Draw a campaign: its steps in columns, each right of the steps that it needs and in the colour of its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from campaign.campaigns.document import Campaign
from campaign.campaigns.state import WORDS, State, StepState
from campaign.wording import count, ranks_text

if TYPE_CHECKING:
    from campaign.pipeline import svg as drawing

HEAD = 44
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
    """A step as it is shown."""

    state: StepState
    #: Time that its run took, or that a step which was not begun will take.
    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    #: The step was not begun.
    ahead: bool = False
    #: MPI ranks of the largest gang of a step that was not begun, and what decided them
    #: (`campaign.planning.allocation.gang_ranks`).
    ranks: int | None = None
    ranks_by: str = ""
    #: Reasons for which the step would make another product today.
    stale: tuple[str, ...] = ()
    #: Obstacle to making the step.
    problem: str = ""


def text(campaign: Campaign, rows: Mapping[str, Row]) -> list[tuple[str, ...]]:
    """Write a row a step: name, needs, use of its product, state, cost, reasons for staleness."""
    found: list[tuple[str, ...]] = []
    for name in campaign.order:
        step, row = campaign.steps[name], rows[name]
        kind = ", ".join(["gate"] * step.gate + ([f"certify, {step.certify.chain}"] if step.certify else []))
        words = WORDS[row.state.state] + (f": {row.state.note}" if row.state.note else "")
        took = [_seconds(value, row.ahead) for value in (row.cpu_seconds, row.wall_seconds)]
        remarks = "; ".join([*(f"stale: {text}" for text in row.stale), *([row.problem] if row.problem else [])])
        ranks = "" if row.ranks is None else ranks_text(row.ranks, row.ranks_by)
        found.append((name, ", ".join(step.needs), kind, words.splitlines()[0], ranks, *took, remarks))
    return found


def _seconds(value: float | None, ahead: bool) -> str:
    return "" if value is None else f"{'~' * ahead}{value:.0f}"


def to_come(rows: Mapping[str, Row]) -> str:
    """Sum up the work that is left, for a person; empty where there is none."""
    ahead = [row for row in rows.values() if row.ahead]
    cpu = sum(row.cpu_seconds or 0.0 for row in ahead)
    return f"{count(len(ahead), 'step')} to come, about {cpu:.0f} s of CPU" if ahead else ""


def svg(campaign: Campaign, rows: Mapping[str, Row]) -> str:
    """Draw the steps, with an arrow from each to the steps that need it."""
    from campaign.pipeline import svg as drawing

    needs = {name: campaign.steps[name].needs for name in campaign.order}
    boxes = {name: _box(rows[name], campaign.steps[name].gate) for name in campaign.order}
    laid = drawing.layout(needs, boxes, HEAD)
    wide = max(laid.width, round(drawing.wide(campaign.file.description)) + 2 * drawing.MARGIN)
    heading = [
        drawing.text(drawing.MARGIN, 28, campaign.name, 'font-size="15" font-weight="bold"'),
        drawing.text(drawing.MARGIN, 46, campaign.file.description),
    ]
    elements = [*heading, *drawing.graph(needs, boxes, HEAD)]
    return drawing.document(wide, laid.height + HEAD, f"{campaign.name}: {campaign.file.description}", elements)


def _box(row: Row, gate: bool) -> drawing.Box:
    from campaign.pipeline import svg as drawing

    state, (fill, border), wrong = row.state, COLOURS[row.state.state], bool(row.stale or row.problem)
    return drawing.Box(
        title=state.name,
        lines=[WORDS[state.state], _cost(row)],
        fill=fill,
        border=STALE if wrong else border,
        width=2.5 if wrong else 1.2,
        hint=" ".join([f"{state.name}: {WORDS[state.state]}", state.note, *row.stale, row.problem]).strip(),
        mark=" (gate)" if gate else "",
    )


def _cost(row: Row) -> str:
    words = [] if row.cpu_seconds is None else [f"{_seconds(row.cpu_seconds, row.ahead)} s CPU"]
    return ", ".join([*words, *["stale"] * bool(row.stale), *["cannot be made"] * bool(row.problem)])


def plain(campaign: Campaign, rows: Mapping[str, Row]) -> list[dict[str, object]]:
    """Give the JSON document: a dictionary a step."""
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
            "ahead": rows[name].ahead,
            "ranks": rows[name].ranks,
            "ranks_by": rows[name].ranks_by,
            "stale": list(rows[name].stale),
            "problem": rows[name].problem,
        }
        for name in campaign.order
    ]


def headings() -> Sequence[str]:
    """Give the headings of `text`."""
    return ("step", "needs", "then", "state", "ranks", "CPU s", "wall s", "remarks")
