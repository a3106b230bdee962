"""Show the inputs of each product, by today's pipelines and by DMTN-222's figure 2."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, Final

from campaign import plugins
from campaign.kinds import table
from campaign.kinds.model import Calibrations
from campaign.pipeline import model as pipelines
from campaign.pipeline import svg
from campaign.pipeline.makers import kind_of, product_of, some
from campaign.pipeline.model import Pipeline
from templates import ROOT

PIPELINES: Final = ROOT / "cp_pipe" / "pipelines"
#: Fill and border of a product with the inputs of the figure, and of a product with others.
PLAIN: Final = ("#f4f4f4", "#9a9a9a")
ODD: Final = ("#fff3b0", "#b7791f")
ARROW: Final = (
    "An arrow leads to what is made from a product; below each name is all that it reads, also by way of others."
)
#: DMTN-222 (2025-04), figure 2: the inputs of each calibration.
FIGURE_2: Final[Mapping[str, tuple[str, ...]]] = {
    "bias": (),
    "defects": ("bias",),
    "dark": ("defects",),
    "flat": ("dark",),
    "ptc": ("flat",),
    "linearizer": ("ptc",),
    "bfk": ("ptc",),
    "cti": ("ptc",),
}


@dataclass(frozen=True)
class Difference:
    """A product whose inputs differ from the figure."""

    product: str
    more: tuple[str, ...]
    less: tuple[str, ...]

    @property
    def text(self) -> str:
        """One line for the operator."""
        words = [f"reads {', '.join(self.more)} too"] * bool(self.more)
        return f"{self.product}: " + "; ".join(words + [f"does not read {', '.join(self.less)}"] * bool(self.less))


def reads(instrument: str, environment: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Give the inputs of each product of an instrument's pipelines, inputs before products.

    Pipelines are the packaged ones, and those of other distributions.

    Raises
    ------
    ConfigurationError
        A pipeline cannot be read.
    """
    paths: dict[str, str] = {}
    for folder in (PIPELINES, *(folder / "pipelines" for folder in plugins.folders())):
        for one in (instrument, "any"):
            for path in sorted((folder / one).glob("cp*.yaml")):
                paths.setdefault(path.name, str(path))
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted(paths):
        pipeline = pipelines.load(paths[name], instrument, environment, "")
        found[product_of(pipeline)] = tuple(_inputs(pipeline))
    _leave_first_gains(found)
    for name in {n for needs in found.values() for n in needs} - found.keys():
        found[name] = ()
    return {name: tuple(sorted(found[name])) for name in TopologicalSorter(found).static_order()}


def _leave_first_gains(found: dict[str, tuple[str, ...]]) -> None:
    """Leave out the gains of products that a ptc is made with: they have the camera file's, or older ones."""
    for gains in [name for name, correction in table.corrections().items() if not correction.switch]:
        before, new = {gains}, {gains}
        while new:
            new = {n for name in new for n in found.get(name, ())} - before
            before |= new
        found |= {n: tuple(needed for needed in found[n] if needed != gains) for n in before & found.keys()}


def _inputs(pipeline: Pipeline) -> Iterator[str]:
    """Give the dataset types of the calibrations that a pipeline asks for."""
    made_of = kind_of(pipeline).made_of
    if isinstance(made_of, Calibrations):
        yield from (task.inputs[made_of.connection] for task in some(pipeline, made_of.kernel))
    for isr in some(pipeline, "isr"):
        for name, correction in table.corrections().items():
            if isr.config.get(correction.switch or "doApplyGains"):
                yield isr.inputs[correction.connection or name]


def differences(real: Mapping[str, tuple[str, ...]]) -> list[Difference]:
    """Compare the products that both have."""
    found = []
    for name in FIGURE_2.keys() & real.keys():
        more, less = set(real[name]) - set(FIGURE_2[name]), set(FIGURE_2[name]) - set(real[name])
        if real[name] and (more or less):
            found.append(Difference(name, tuple(sorted(more)), tuple(sorted(less))))
    return sorted(found, key=lambda d: d.product)


def draw(instrument: str, real: Mapping[str, tuple[str, ...]]) -> str:
    """Draw today's inputs above the figure's, with the differences as text below."""
    odd = {d.product for d in differences(real)}
    ours = {name: _box(name, real[name], name in odd) for name in real}
    theirs = {name: _box(name, (), name in odd) for name in FIGURE_2}
    head, direct = 30, _direct(real)
    upper, lower = svg.layout(direct, ours), svg.layout(FIGURE_2, theirs)
    titles = [f"What {instrument}'s pipelines read", "DMTN-222, figure 2"]
    style, below = 'font-size="15" font-weight="bold"', 2 * head + upper.height + lower.height
    lines = [d.text for d in differences(real)]
    elements = [
        svg.text(svg.MARGIN, 22, titles[0], style),
        *svg.graph(direct, ours, head),
        svg.text(svg.MARGIN, head + upper.height + 22, titles[1], style),
        *svg.graph(FIGURE_2, theirs, 2 * head + upper.height),
        *svg.legend([(*PLAIN, "as in the figure, or not in it"), (*ODD, "differs")], below),
        svg.text(svg.MARGIN, below + 20, ARROW),
        *(svg.text(svg.MARGIN, below + 44 + 18 * k, line) for k, line in enumerate(lines)),
    ]
    width = max(upper.width, lower.width, *(round(svg.wide(line)) + 2 * svg.MARGIN for line in (ARROW, *lines)))
    title = f"What {instrument}'s calibrations are made from"
    return svg.document(width, below + 44 + 18 * len(lines) + svg.MARGIN, title, elements)


def _direct(real: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Keep direct inputs only: those that no other input of the product reads itself."""
    above: dict[str, set[str]] = {}
    for name, needs in real.items():  # keeps the order
        above[name] = set(needs).union(*(above[n] for n in needs))
    return {name: tuple(n for n in needs if not any(n in above[m] for m in needs)) for name, needs in real.items()}


def _box(name: str, needs: tuple[str, ...], odd: bool) -> svg.Box:
    lines = textwrap.wrap(", ".join(needs), 24)
    hint = f"{name} reads {', '.join(needs) or 'nothing'}"
    return svg.Box(name, lines, *(ODD if odd else PLAIN), hint=hint)


def plain(real: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Give the JSON document."""
    return {
        "reads": {name: list(needs) for name, needs in real.items()},
        "figure_2": {name: list(needs) for name, needs in FIGURE_2.items()},
        "differences": [{"product": d.product, "more": d.more, "less": d.less} for d in differences(real)],
    }
