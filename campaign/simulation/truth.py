"""Makes a campaign's simulation: raws, and calibrations of the truth, certified where CALIB_COLLECTIONS looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from campaign.camera.model import Camera
from campaign.camera.model import load as load_camera
from campaign.errors import ConfigurationError, TasksFailed
from campaign.home import Home
from campaign.jobs.file import JobFile, JobTask
from campaign.jobs.launch import run_job
from campaign.journal.events import EventName
from campaign.journal.events import read as read_events
from campaign.simulation.blocks import Simulation, exposures, problems
from campaign.simulation.cards import require_writable
from campaign.simulation.simulate import Places, making, simulate

if TYPE_CHECKING:
    from campaign.butler.repository import Repository


def simulate_plan(
    places: Places,
    home: Home,
    simulation: Simulation,
    variables: Mapping[str, str],
    instead: tuple[int | None, Sequence[int]],
    ranks: int,
) -> tuple[int, dict[str, set[int]]]:
    """Make a repository with the exposures and truths of a campaign's simulation.

    Parameters
    ----------
    variables : `dict`
        Variables of the campaign.
    instead : `tuple`
        Scale (or `None`) and detectors (may be empty) that replace the campaign's.

    Returns
    -------
    raws : `int`
        Number of raws.
    wanted : `dict` [`str`, `set` [`int`]]
        Exposures that the selection of each variable must find.

    Raises
    ------
    ConfigurationError, UsageError, TasksFailed
        The blocks contradict one another; see `campaign.simulation.simulate.simulate`.
    """
    if found := list(problems(simulation, variables)):
        raise ConfigurationError("; ".join(found), where="simulation")
    camera = load_camera(simulation.camera).scaled(instead[0] or simulation.scale)
    require_writable(camera)
    detectors = tuple(sorted(set(instead[1]))) or simulation.detectors or camera.detector_ids("SCIENCE")
    shots, wanted = exposures(simulation, camera)
    with making(places):
        raws = simulate(places, home, camera, shots, simulation.seed, detectors, ranks, simulation.rates)
        certify_truth(places, camera, simulation, detectors, ranks)
    return raws, wanted


def certify_truth(places: Places, camera: Camera, simulation: Simulation, detectors: Sequence[int], ranks: int) -> None:
    """Write the truth's calibrations, and certify them without end in the collections that the simulation names.

    Raises
    ------
    TasksFailed
        A calibration could not be written.
    """
    from campaign.butler.repository import open_repository

    with open_repository(str(places.repository), writeable=True) as repository:
        kinds = sorted({kind for some in simulation.calibrations.values() for kind in some})
        if kinds:
            run = f"{camera.name}/calib/simulated/truth"
            _make(repository, places.truth / "calibrations", camera, simulation, (run, kinds), detectors, ranks)
        for collection, some in simulation.calibrations.items():
            repository.register_calibration(collection)
            for kind in some:
                repository.certify(collection, repository.datasets(kind, [run]), None, None)


def _make(
    repository: Repository,
    folder: Path,
    camera: Camera,
    simulation: Simulation,
    what: tuple[str, Sequence[str]],
    detectors: Sequence[int],
    ranks: int,
) -> None:
    run, kinds = what
    items = [(kind, {"instrument": camera.name, "detector": d}) for d in detectors for kind in kinds]
    paths = dict(zip([(k, i["detector"]) for k, i in items], repository.predict_paths(run, items), strict=True))
    repository.claim_run(run)
    tasks = [
        JobTask(f"truth:{d}", d, outputs={k: paths[k, d] for k in kinds}, provenance={"OUT_RUN": run})
        for d in detectors
    ]
    config = {"seed": simulation.seed, "rates": dict(simulation.rates)}
    plain = camera.plain(detectors)
    job = JobFile("truth_products", "simulate", ranks, str(folder / "journal"), plain, config, {}, tasks)
    run_job(job.write(folder / "truth.json"), ranks, folder / "truth.log")
    failures = [e for e in read_events(folder) if e.event == EventName.FAILED]
    if failures:
        raise TasksFailed(f"the truth's calibrations could not be written: {failures[0].detail['error']}")
    repository.ingest_products(run, [(k, i, paths[k, i["detector"]]) for k, i in items])
