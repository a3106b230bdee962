"""Draws the products of a run as PNG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from campaign.journal.outcome import Outcome
from campaign.journal.plan import Plan, PlanTask
from campaign.kinds import table
from campaign.quality.curves import draw_curves
from campaign.quality.drawing import Shown, draw, places
from campaign.quality.linear import draw_linearity, linear_maps
from campaign.quality.plane import Numbers, draw_plane
from campaign.quality.tables import TABLES, draw_table, maps

if TYPE_CHECKING:
    from campaign.butler.repository import Repository

#: A single detector up to this size is drawn with all pixels, unbinned.
WHOLE = 4096
#: Pages of a detector's table, by kind.
PAGES: Final[Mapping[str, Callable[[Any, Path, str], None]]] = {"ptc": draw_curves, "linearizer": draw_linearity}
#: Maps of the focal plane, by kind.
PLANES: Final[Mapping[str, Callable[[Any, str], Mapping[str, Numbers]]]] = {"ptc": maps, "linearizer": linear_maps}


def mosaics(repository: Repository, plan: Plan, outcome: Outcome) -> list[Path]:
    """Draw a run's products into ``<submitPath>/pictures``: mosaics, all pixels of a small camera, tables."""
    done = [(group, task) for group in plan.groups for task in group.tasks if task.name in outcome.published]
    whole = _whole(plan, [task for _, task in done])
    made = [] if whole is None else [_product(repository, plan, whole)]
    made += [_mosaic(repository, plan, task) for group, task in done if group.kernel == "mosaic" and whole is None]
    kind = table.of_dataset(plan.product)
    outputs = [output for _, task in done for output in task.outputs if output.type == plan.product]
    if kind and outputs and (kind.picture in TABLES or kind.name in PAGES):
        rows = {int(output.data_id["detector"]): _get(repository, plan, output).rows for output in outputs}
        if kind.picture in TABLES:
            made.append(_place(plan, plan.product))
            draw_table(kind.picture, rows, plan.camera["detectors"], plan.camera["types"], made[-1], title(plan, {}))
        made += _pages(plan, rows, PAGES[kind.name]) if kind.name in PAGES else []
        made += _planes(plan, rows, PLANES[kind.name]) if kind.name in PLANES else []
    return made


def _pages(plan: Plan, rows: Mapping[int, Any], drawn: Callable[[Any, Path, str], None]) -> list[Path]:
    """Draw a page of each detector."""
    made = []
    for d in plan.camera["detectors"]:
        if d["id"] in rows:
            made.append(_place(plan, f"{plan.product}-{d['name']}"))
            drawn(rows[d["id"]], made[-1], title(plan, {}, f"detector {d['name']}"))
    return made


def _planes(plan: Plan, rows: Mapping[int, Any], numbered: Callable[[Any, str], Mapping[str, Numbers]]) -> list[Path]:
    """Draw maps of numbers of the amplifiers over the focal plane."""
    made = []
    for name, numbers in numbered(rows, title(plan, {})).items():
        stem = _place(plan, f"{plan.product}-{name}").with_suffix("")
        made += draw_plane(numbers, plan.camera["detectors"], plan.camera["types"], stem)
    return made


def _get(repository: Repository, plan: Plan, output: Any) -> Any:
    dataset = repository.find_dataset(output.type, output.data_id, [plan.output_run])
    assert dataset is not None
    return repository.get(dataset)


def _place(plan: Plan, name: str) -> Path:
    path = plan.folder / "pictures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _whole(plan: Plan, tasks: Sequence[PlanTask]) -> Any:
    """Read the product of the only detector if it is small; `None` otherwise."""
    found = [o for task in tasks for o in task.outputs if o.type == plan.product]
    kind = table.of_dataset(plan.product)
    if len(found) != 1 or len(plan.wanted(plan.product)) != 1 or kind is None or kind.picture != "image":
        return None
    (detector,) = (d for d in plan.camera["detectors"] if d["id"] == found[0].data_id["detector"])
    return found[0] if max(plan.camera["types"][detector["type"]]["size"]) <= WHOLE else None


def title(plan: Plan, data_id: Mapping[str, Any], what: str = "") -> str:
    """Write a picture's title: step with band and RERUN, filter, run, inputs and their dates."""
    frames = [task.job.parameters for task in plan.tasks if "exposures" in task.job.parameters]
    exposures = {e for p in frames for e in p["exposures"]}
    dates = sorted({date[:10] for p in frames for date in p.get("dates", ())})
    nights = f" of {dates[0]}" + (f" to {dates[-1]}" if len(dates) > 1 else "") if dates else ""
    many = len({d["id"] for d in plan.camera["detectors"]})
    filters = (d["physical_filter"] for d in plan.wanted(plan.product) if "physical_filter" in d)
    name = data_id.get("physical_filter") or next(filters, "")
    head = " ".join(filter(None, (plan.instrument, Path(plan.output).name, str(name), what)))
    inputs = f"{len(exposures)} exposure{'s' * (len(exposures) != 1)}{nights}, " if exposures else ""
    return f"{head}\nrun {plan.run}: {inputs}{many} detector{'s' * (many != 1)}"


def _unit(plan: Plan) -> str:
    unit = plan.camera["unit"].replace("adu", "ADU")
    kind = table.of_dataset(plan.product)
    return kind.unit.format(unit=unit) if kind else ""


def _product(repository: Repository, plan: Plan, output: Any) -> Path:
    path = _place(plan, output.type)
    (name,) = (d["name"] for d in plan.camera["detectors"] if d["id"] == output.data_id["detector"])
    head = title(plan, output.data_id, f"detector {name}")
    draw(Shown(_get(repository, plan, output).image, head, _unit(plan), "pixel"), path)
    return path


def _mosaic(repository: Repository, plan: Plan, task: PlanTask) -> Path:
    output, binning = task.outputs[0], int(task.job.parameters["binning"])
    path = _place(plan, output.type)
    wanted = [d for d in plan.camera["detectors"] if d["id"] in task.job.parameters["detectors"]]
    boxes = places(wanted, plan.camera["types"], binning)
    names = [(d["name"], box) for d, box in zip(wanted, boxes, strict=True)]
    axes = f"pixel of the mosaic ({binning} x {binning} of a detector's)"
    head = title(plan, output.data_id, output.type)
    draw(Shown(_get(repository, plan, output).image, head, _unit(plan), axes, names), path)
    return path
