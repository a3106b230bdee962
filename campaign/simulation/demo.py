"""`campaign demo`: a small campaign from simulated raws to certified calibrations, compared with the truth."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.camera.model import load as load_camera
from campaign.certification.command import UNCHOSEN
from campaign.certification.command import request as certification_request
from campaign.certification.command import run as certify
from campaign.console import patience
from campaign.errors import TasksFailed, UsageError, VerificationFailed
from campaign.home import home_of_new
from campaign.jobs.file import JobFile, JobTask
from campaign.jobs.launch import cores, run_job
from campaign.journal.plan import Plan
from campaign.planning.order import Order
from campaign.planning.step import Options, load
from campaign.runs.check import check
from campaign.runs.drive import Submission, submit
from campaign.runs.submit import prepare
from campaign.simulation.simulate import Nights, Places, default_filters, exposures, simulate
from campaign.wording import count

if TYPE_CHECKING:
    from campaign.butler.repository import Repository

CAMERA, SCALE, SEED = "LSSTComCam", 16, 1
STEPS = ("bps_bias", "bps_dark", "bps_flat_r")
TICKET = "DM-00000"
Say = Callable[[str], None]


@dataclass
class Demo:
    """Result of the demo: the documented numbers of each product, and pictures."""

    repository: Path
    products: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    seconds: float = 0.0


def folder(wanted: Path | None) -> Path:
    """Give the folder to work in: the given one, or a new ``campaign-demo`` here.

    Raises
    ------
    UsageError
        The given folder is not empty.
    """
    if wanted is None:
        names = ["campaign-demo", *(f"campaign-demo-{n}" for n in range(2, 1000))]
        wanted = next(path for path in map(Path, names) if _is_new(path))
    if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
        raise UsageError(f"{wanted} is not an empty folder", do="give a new one")
    return wanted.absolute()


def _is_new(path: Path) -> bool:
    """Make a folder; tell whether it is new."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def variables(places: Places) -> dict[str, str]:
    """Give the variables that an operator would export (DMTN-222, section 7)."""
    selection = f"instrument='{CAMERA}' and exposure.observation_type="
    prefix = f"{CAMERA}/calib"
    return {
        "HOME": os.environ.get("HOME", "/"),
        "INSTRUMENT": CAMERA,
        "TICKET": TICKET,
        "TAG": "demo",
        "RERUN": "20241208a",
        "CERT_RERUN": "20241208a",
        "START_DATE": "2024-12-01T00:00:00",
        "REPO": str(places.repository),
        "RAW_COLLECTION": f"{CAMERA}/raw/all",
        "CALIB_COLLECTIONS": prefix,
        "USER_CALIB_PREFIX": "",
        "SCRATCH": str(places.repository.parent / "scratch"),
        "SELECTION_BIAS": f"{selection}'bias'",
        "SELECTION_DARK": f"{selection}'dark'",
        "SELECTION_FLAT_r": f"{selection}'flat'",
    }


def run(where: Path, ranks: int | None, say: Say, seed: int = SEED) -> Demo:
    """Run the whole demo in an empty folder.

    Parameters
    ----------
    ranks : `int` or `None`
        ``--ranks``.

    Raises
    ------
    TasksFailed, VerificationFailed
        A task failed, or a calibration does not agree with the truth.
    """
    from campaign.butler.repository import open_repository

    started = time.monotonic()
    places = Places(where / "repo")
    camera = load_camera(CAMERA).scaled(SCALE)
    home = home_of_new(places.repository, {})
    say(f"simulating {CAMERA} at scale {SCALE}: 10 biases, 10 darks, 10 flats over two nights")
    nights = Nights(filters=default_filters(camera))
    many = ranks or cores()
    raws = simulate(places, home, camera, exposures(camera, nights), seed, camera.detector_ids("SCIENCE"), many)
    say(f"  {raws} raws, {time.monotonic() - started:.1f} s")
    demo, environment = Demo(places.repository), variables(places)
    plans: dict[str, Plan] = {}
    with open_repository(str(places.repository), writeable=True) as repository:
        for template in STEPS:
            begun = time.monotonic()
            done = _step(template, environment, repository, ranks, say)
            plans[done.plan.product] = done.plan
            report = certify(certification_request(template, environment, UNCHOSEN))
            say(f"  certified into {report['certified']['target']}")
            numbers = compare(done.plan, plans, _read_back(repository, done.plan), places, many)
            demo.problems += [f"{done.plan.product}: {text}" for text in numbers.pop("problems")]
            seconds = round(time.monotonic() - begun, 2)
            demo.products.append({key: numbers[key] for key in NUMBERS} | {"seconds": seconds})
            demo.pictures += done.pictures
    demo.seconds = round(time.monotonic() - started, 1)
    return demo


NUMBERS = (
    "name",
    "detectors",
    "good_pixels",
    "rms_z",
    "frac_gt5",
    "max_abs_amp_mean_z",
    "variance_ratio",
    "defects_showing",
)


def _step(
    template: str, environment: Mapping[str, str], repository: Repository, ranks: int | None, say: Say
) -> Submission:
    options = Options({}, None, frozenset(), False, ranks)
    found = check(template, environment, options, with_levels=False)
    if found.problems:
        raise VerificationFailed(found.problems[0], where=f"check {template}")
    step = load(template, environment, options)
    plan, camera = prepare(step, repository, options)
    many = f"{count(found.raws, 'raw')} of {count(len(found.detectors), 'detector')}"
    say(f"{template}: {many}, {count(len(plan.tasks), 'task')}")
    with patience(lambda: f"{template}: {count(len(plan.tasks), 'task')} in hand"):
        done = submit(step, repository, plan, camera, lambda event: None, order=Order.of(step, options))
    if not done.outcome.done:
        task, why = next(iter(done.outcome.failed.items()))
        raise TasksFailed(why, where=task, do=f"logs are in {plan.submit_path}/logs")
    if done.findings:
        raise VerificationFailed(f"{done.findings[0].subject}: {done.findings[0].why}", where=template)
    return done


def _read_back(repository: Repository, plan: Plan) -> dict[int, str]:
    """Find the path of each detector's product as a later step would: by date, in the ticket's chain."""
    chain = f"{plan.instrument}/calib/{plan.ticket}"
    combined = next(t for t in plan.tasks if any(o.type == plan.product for o in t.outputs))
    begin = combined.job.parameters["dates"][0]
    paths = {}
    for data_id in plan.wanted(plan.product):
        dataset = repository.find_dataset(plan.product, data_id, [chain], begin, begin)
        if dataset is None or dataset.run != plan.output_run:
            raise VerificationFailed(
                f"find-first gives {dataset.run if dataset else 'nothing'}, not {plan.output_run}",
                where=f"{plan.product} {dict(data_id)} at {begin} in {chain}",
            )
        paths[int(data_id["detector"])] = dataset.path
    return paths


def _exposures(plan: Plan) -> list[int]:
    return sorted({e for t in plan.tasks for e in t.job.parameters.get("exposures", ())})


def compare(
    plan: Plan, plans: Mapping[str, Plan], paths: Mapping[int, str], places: Places, ranks: int
) -> dict[str, Any]:
    """Have a kernel compare products, by the path of each detector's, with the truth; ``plans`` made bias and dark."""
    names = {d["id"]: d["name"] for d in plan.camera["detectors"]}
    applied = {kind: _exposures(plans[kind]) for kind in ("bias", "dark") if kind in plans and kind != plan.kind}
    combine = next(g for g in plan.groups if g.kernel == "combine")
    parameters = {"type": plan.kind, "exposures": _exposures(plan), "isr": combine.config["isr"], **applied}
    filters = {d["physical_filter"] for d in plan.wanted(plan.product) if "physical_filter" in d}
    parameters["physical_filter"] = next(iter(filters), None)
    files: dict[str, dict[str, str]] = {}
    tasks = []
    for detector, path in sorted(paths.items()):
        truth = str(places.truth / f"{names[detector]}.fits")
        files |= {f"product:{detector}": {"path": path}, f"truth:{detector}": {"path": truth}}
        inputs = {role: [f"{role}:{detector}"] for role in ("product", "truth")}
        tasks.append(JobTask(f"compare:{detector}", detector, inputs, parameters=parameters))
    work, name = plan.folder / "compare", f"compare-{plan.product}"
    result = work / f"{name}.result.json"
    job = JobFile(
        "compare", plan.run, ranks, str(work / "journal" / name), plan.camera, {"result": str(result)}, files, tasks
    )
    run_job(job.write(work / f"{name}.json"), ranks, work / f"{name}.log")
    numbers: dict[str, Any] = json.loads(result.read_text())
    return numbers
