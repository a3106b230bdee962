"""Draws the products of a run as PNG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from campaign.journal.outcome import Outcome
from campaign.journal.plan import Plan, PlanTask
from campaign.kinds import table
from campaign.quality import matrix, potentials
from campaign.quality.curves import draw_curves
from campaign.quality.drawing import Shown, draw, places
from campaign.quality.linear import draw_linearity, linear_maps
from campaign.quality.matrix import draw_matrix
from campaign.quality.plane import Numbers, draw_plane
from campaign.quality.potentials import draw_kernels
from campaign.quality.tables import TABLES, draw_table, maps
from campaign.quality.tiles import draw_tiles

if TYPE_CHECKING:
    from campaign.butler.repository import Repository

#: A single detector up to this size is drawn with all pixels, unbinned.
WHOLE = 4096
#: Pages of a detector's table, by kind.
PAGES: Final[Mapping[str, Callable[[Any, Path, str], None]]] = {
    "ptc": lambda table, path, title: draw_curves(table.rows, path, title),
    "linearizer": lambda table, path, title: draw_linearity(table.rows, path, title),
    "crosstalk": lambda table, path, title: draw_matrix(table.rows, table.metadata, path, title),
    "bfk": lambda table, path, title: draw_kernels(table.rows, table.others, path, title),
}
#: Numbers of each amplifier that are drawn over the focal plane, by kind.
PLANES: Final[Mapping[str, Callable[[Mapping[int, Any], str], Mapping[str, Numbers]]]] = {
    "ptc": maps,
    "linearizer": linear_maps,
    "gain_correction": maps,
    "crosstalk": matrix.maps,
    "bfk": potentials.maps,
}


def tables(repository: Repository, plan: Plan, outcome: Outcome) -> dict[int, Any]:
    """Read the tables of a run's product, by detector; none of a product that is no table."""
    kind = table.of_dataset(plan.product)
    if kind is None or kind.datasets[plan.product].storage_class != "CalibTable":
        return {}
    done = [task for task in plan.tasks if task.name in outcome.published]
    outputs = [output for task in done for output in task.outputs if output.type == plan.product]
    return {int(output.data_id["detector"]): _get(repository, plan, output) for output in outputs}


def mosaics(repository: Repository, plan: Plan, outcome: Outcome, found: Mapping[int, Any]) -> list[Path]:
    """Draw a run's products into ``<submitPath>/pictures``: mosaics, all pixels of a small camera, tables ``found``."""
    done = [(group, task) for group in plan.groups for task in group.tasks if task.name in outcome.published]
    whole = _whole(plan, [task for _, task in done])
    made = [] if whole is None else [_product(repository, plan, whole)]
    made += [_mosaic(repository, plan, task) for group, task in done if group.kernel == "mosaic" and whole is None]
    kind = table.of_dataset(plan.product)
    outputs = [output for _, task in done for output in task.outputs if output.type == plan.product]
    if kind and found and (kind.picture in TABLES or kind.name in PAGES):
        rows = {detector: one.rows for detector, one in found.items()}
        if kind.picture in TABLES:
            made.append(_place(plan, plan.product))
            draw_table(kind.picture, rows, plan.camera["detectors"], plan.camera["types"], made[-1], title(plan, {}))
        made += _pages(plan, found, PAGES[kind.name]) if kind.name in PAGES else []
        made += _planes(plan, PLANES[kind.name](rows, title(plan, {}))) if kind.name in PLANES else []
    if kind and kind.picture == "bins" and outputs:
        made.append(_place(plan, plan.product))
        images = {int(output.data_id["detector"]): _get(repository, plan, output).image for output in outputs}
        draw_tiles(images, plan.camera, made[-1], title(plan, {}, plan.product), _unit(plan))
    if kind and kind.picture == "image" and kind.each and whole is None:
        made += [
            _each(repository, plan, output) for _, task in done for output in task.outputs if output.type == kind.each
        ]
    return made


def _each(repository: Repository, plan: Plan, output: Any) -> Path:
    """Draw the page of one detector from its bins."""
    (name,) = (d["name"] for d in plan.camera["detectors"] if d["id"] == output.data_id["detector"])
    path = _place(plan, f"{plan.product}-{name}")
    head = title(plan, output.data_id, f"detector {name}")
    draw(Shown(_get(repository, plan, output).image, head, _unit(plan), f"bin of {output.type}"), path)
    return path


def _pages(plan: Plan, tables: Mapping[int, Any], drawn: Callable[[Any, Path, str], None]) -> list[Path]:
    """Draw a page of each detector."""
    made = []
    for d in plan.camera["detectors"]:
        if d["id"] in tables:
            made.append(_place(plan, f"{plan.product}-{d['name']}"))
            drawn(tables[d["id"]], made[-1], title(plan, {}, f"detector {d['name']}"))
    return made


def _planes(plan: Plan, shown: Mapping[str, Numbers]) -> list[Path]:
    """Draw maps of numbers over the focal plane, by name."""
    made = []
    for name, numbers in shown.items():
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
    own = [str(output.data_id[name]) for name in ("exposure",) if name in output.data_id]
    path = _place(plan, "-".join((output.type, *own)))
    wanted = [d for d in plan.camera["detectors"] if d["id"] in task.job.parameters["detectors"]]
    boxes = places(wanted, plan.camera["types"], binning)
    names = [(d["name"], box) for d, box in zip(wanted, boxes, strict=True)]
    axes = f"pixel of the mosaic ({binning} x {binning} of a detector's)"
    head = title(plan, output.data_id, " ".join((output.type, *own)))
    draw(Shown(_get(repository, plan, output).image, head, _unit(plan), axes, names), path)
    return path
