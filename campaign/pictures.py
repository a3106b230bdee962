"""Pictures for people who would rather look than read: focal-plane mosaics as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from campaign.outcome import Outcome
from campaign.plan import Plan, PlanTask

if TYPE_CHECKING:
    from campaign.repository import Repository

BACKGROUND = "#20242c"


def mosaics(repository: Repository, plan: Plan, outcome: Outcome) -> list[Path]:
    """Draw every mosaic that a run has made into ``<submitPath>/pictures``."""
    made = []
    for group in plan.groups:
        for task in group.tasks if group.kernel == "mosaic" else ():
            if task.name in outcome.published:
                made.append(_mosaic(repository, plan, task))
    return made


def _mosaic(repository: Repository, plan: Plan, task: PlanTask) -> Path:
    output = task.outputs[0]
    dataset = repository.find_dataset(output.type, output.data_id, [plan.output_run])
    assert dataset is not None
    product = repository.get(dataset)
    path = plan.folder / "pictures" / f"{output.type}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    unit = plan.camera["unit"].replace("adu", "ADU")
    label = {"bias": unit, "dark": f"{unit} / s", "flat": "relative"}[plan.kind]
    many = len(task.job.parameters["detectors"])
    title = f"{plan.instrument} {output.type}, {many} detector{'s' if many > 1 else ''}"
    draw(product.image, path, title, label)
    return path


def limits(image: NDArray[np.float32]) -> tuple[float, float]:
    """Grey levels between which 98 % of the pixels lie, and never none at all."""
    good = image[np.isfinite(image)]
    if not good.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(good, (1, 99)))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def draw(image: NDArray[np.float32], path: Path, title: str, unit: str) -> None:
    """Draw an image, x to the right and y up, with a scale.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        NaN where there is no detector.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    low, high = limits(image)
    figure = Figure(figsize=(7.5, 6.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor(BACKGROUND)
    shown = axes.imshow(image, origin="lower", cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title)
    figure.colorbar(shown, ax=axes, label=unit, shrink=0.9)
    figure.savefig(path)
