"""Invariants of a world after any damage, once its operator has repeated the command."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import fitsio

from campaign.butler.repository import open_repository
from campaign.journal.events import Journals
from campaign.journal.plan import load
from campaign.planning.standing import outcome_of
from tests.soak.world import CHAIN, Answer, World

#: Documented exit codes, except that of a defect.
CODES = (0, 1, 2, 3, 4, 5, 75, 130, 141)
Pixels = dict[str, str]


def pixels(world: World) -> Pixels:
    """Checksums of all planes of each product, by type and place; of several runs' the first."""
    found: Pixels = {}
    for path in products(world):
        found.setdefault(_key(path), _planes(path))
    return found


def products(world: World) -> list[Path]:
    """Files that are, or look like, products."""
    return sorted(path for path in (world.repo / "LSSTComCam" / "calib").rglob("*.fits"))


def _key(path: Path) -> str:
    return path.name.partition("_LSSTComCam_calib")[0]


def _planes(path: Path) -> str:
    with fitsio.FITS(path) as file:
        planes = b"".join(hdu.read().tobytes() for hdu in file if hdu.has_data())
    return hashlib.sha256(planes).hexdigest()


def certified(world: World) -> dict[str, str]:
    """Checksums of the files of every dataset that is certified, by collection and dataset id."""
    query = """
        select collection.name, records.path, hex(calibs.dataset_id) from {table} calibs
        join file_datastore_records records on records.dataset_id = calibs.dataset_id
        join collection on collection.collection_id = calibs.collection_id"""
    found = {}
    with closing(_database(world)) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type='table'")]
        for table in (name for name in tables if name.startswith("dataset_calibs_")):
            for collection, path, dataset in database.execute(query.format(table=table)):
                found[f"{collection} {dataset}"] = hashlib.sha256((world.repo / path).read_bytes()).hexdigest()
    return found


def chain(world: World, name: str = CHAIN) -> tuple[str, ...]:
    """List the members of a chain; none if there is no such chain."""
    with open_repository(str(world.repo)) as repository:
        return tuple(repository.chain(name)) if repository.collection_type(name) == "CHAINED" else ()


def _database(world: World) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{world.repo / 'gen3.sqlite3'}?mode=ro", uri=True)


def broken(world: World, truth: Pixels, before: dict[str, str], patience: float = 5.0) -> list[str]:
    """List violated invariants; empty if all hold.

    Parameters
    ----------
    truth : `dict`
        Pixels of undisturbed runs.
    before : `dict`
        Certified datasets before any damage.
    """
    found = [f"still running: {line[:200]}" for line in world.left_running(patience).values()]
    found += [f"still queued: {name}" for name in world.jobs()]
    found += _temporary(world)
    if not (world.repo / "gen3.sqlite3").exists():
        return [*found, "there is no repository"]
    found += _butler_and_disk(world)
    found += [f"{_key(path)}: other pixels" for path in products(world) if truth.get(_key(path)) != _planes(path)]
    found += _journals(world)
    now = certified(world)
    found += [f"certified and lost: {one}" for one in before if before[one] != now.get(one)]
    return found


def _temporary(world: World) -> Iterator[str]:
    for path in world.here.rglob("*"):
        hidden = path.name.startswith(".") or path.suffix in (".tmp", ".part")
        if path.name in ("index.db-wal", "index.db-shm"):  # of a killed driver; the next use of the index clears them
            continue
        if hidden or path.name.endswith(("-journal", "-wal", "-shm")):
            yield f"left behind: {path.relative_to(world.here)}"


def _butler_and_disk(world: World) -> Iterator[str]:
    """Every dataset has its file, and every file its dataset."""
    with closing(_database(world)) as database:
        paths = [path for (path,) in database.execute("select path from file_datastore_records")]
        datasets = {one for (one,) in database.execute("select id from dataset")}
        located = {one for (one,) in database.execute("select dataset_id from file_datastore_records")}
        runs = {name for (name,) in database.execute("select name from collection where type = 1")}
    if datasets != located:
        yield f"{len(datasets ^ located)} datasets without a record of their file, or records without a dataset"
    there = {str(path.relative_to(world.repo)) for path in world.repo.rglob("*.fits")}
    known = {path for path in paths if not path.startswith(("/", "file:"))}  # others are raws, where they were
    yield from (f"recorded and not there: {path}" for path in known if not (world.repo / path).exists())
    yield from (f"there and not recorded: {path}" for path in there - known)
    mine = {run["output_run"] for run in world.runs()}
    yield from (f"a RUN that no list has: {name}" for name in runs - mine if "Gen." in name)
    yield from (f"listed, and no RUN: {name}" for name in mine - runs)


def _journals(world: World) -> Iterator[str]:
    """Every published task has its files as they were published; every run is done."""
    planned = {str(folder) for folder in world.folders()}
    listed = {run["submit_path"] for run in world.runs()}
    yield from (f"a folder that no list has: {path}" for path in planned - listed)
    for path in listed & planned:
        plan = load(Path(path) / "plan.json")
        outcome = outcome_of(plan)
        lacking = [task.name for task in plan.tasks if task.name not in outcome.published]
        if lacking:
            yield f"{plan.run}: {len(lacking)} tasks are not made: {lacking[0]}: {outcome.failed.get(lacking[0], '')}"
        if (Path(path) / "claim.json").exists():
            yield f"{plan.run} is claimed still"
        for _, detail in outcome.made(Journals(plan.journal).new()):
            yield from _as_published(world, detail)


def _as_published(world: World, detail: Any) -> Iterator[str]:
    for one in detail.values():
        if not isinstance(one, dict) or "sha256" not in one:
            continue
        file = Path(one["path"])
        if not file.exists():
            yield f"published and not there: {file.name}"
        elif hashlib.sha256(file.read_bytes()).hexdigest() != one["sha256"]:
            yield f"not as it was published: {file.name}"
        elif not _recorded(world, file):
            yield f"published and not recorded: {file.name}"


def _recorded(world: World, file: Path) -> bool:
    query = "select 1 from file_datastore_records where path = ?"
    with closing(_database(world)) as database:
        return bool(database.execute(query, (str(file.relative_to(world.repo)),)).fetchone())


def counts(world: World) -> list[tuple[str, int]]:
    """How many datasets there are of each type."""
    query = """
        select dataset_type.name, count(*) from dataset join dataset_type on dataset_type.id = dataset.dataset_type_id
        group by 1 order by 1"""
    with closing(_database(world)) as database:
        return [(str(name), int(number)) for name, number in database.execute(query)]


def state(world: World) -> dict[str, Any]:
    """Expected result of a command, without names that include a time."""
    with closing(_database(world)) as database:
        names = [name for (name,) in database.execute("select name from collection where type in (3, 4)")]
    return {
        "datasets": counts(world),
        "collections": sorted(names),
        "chain": chain(world),
        "certified": len(certified(world)),
    }


def nonsense(answer: Answer) -> list[str]:
    """List results that no command may have, whatever is done to it."""
    found = [] if answer.code in CODES or answer.code < 0 else [f"exit code {answer.code}"]
    return found + (["a traceback"] if "Traceback" in answer.out + answer.err else [])
