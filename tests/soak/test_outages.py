"""The repository's database, a PostgreSQL server, goes away in the middle of a command and comes back."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from lsst.daf.butler import Butler, Config

import templates
from campaign.butler.repository import open_repository
from tests.soak import postgres, world
from tests.soak.scenarios import SUBMIT, done
from tests.soak.world import World

pytestmark = pytest.mark.soak

TURNS = 4
TRANSIENT = 75


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    if why := postgres.lacking():
        pytest.skip(why)
    with postgres.server() as found:
        yield found


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, server: postgres.Server) -> World:
    """A world with a repository on the server."""
    made = world.make(tmp_path_factory.mktemp("outages"))
    engine = sqlalchemy.create_engine(server.url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create extension btree_gist"))
    engine.dispose()
    config = Config(str(templates.ROOT / "repository.yaml"))
    config["registry", "db"] = server.url
    Butler.makeRepo(str(made.repo), config=config)
    done(made.run("ingest", str(made.repo), str(made.raws), "--camera", str(made.camera)))
    return made


def wait_for(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + 120
    while not (found := what()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)
    return found


def folder(here: World, tag: str) -> Path:
    """The only run of a tag."""
    return wait_for(lambda: [path for path in here.folders() if f"/{tag}/" in f"{path}/"])[0]


def require_whole(here: World, tag: str, products: int = 8) -> None:
    """Everything that was made is recorded, and the run is over."""
    where = folder(here, tag)
    assert not (where / "claim.json").exists()
    files = {str(path) for path in (here.repo / "LSSTComCam" / "calib").rglob("*") if f"/{tag}/" in str(path)}
    with open_repository(str(here.repo)) as repository:
        (run,) = [one["output_run"] for one in here.runs() if one["submit_path"] == str(where)]
        types = ("bias", "biasBin8", "biasBin64", "biasMosaic8", "biasMosaic64")
        found = [one.path for kind in types for one in repository.datasets(kind, [run])]
    assert set(found) == {path for path in files if path.endswith(".fits")}
    assert len(found) == products


@pytest.mark.parametrize("back", [False, True], ids=["away", "back again"])
def test_the_server_is_ended_while_a_run_is_made(here: World, server: postgres.Server, back: bool) -> None:
    tag = f"pg{back}".lower()
    process = here.start(*SUBMIT, TAG=tag)
    where = folder(here, tag)
    (where / "pause").touch()
    run = wait_for(lambda: [one["run"] for one in here.runs() if one["submit_path"] == str(where)])[0]
    wait_for(lambda: (where / "journal" / "driver.jsonl").exists())
    server.stop()
    if back:
        server.start()
    (where / "pause").unlink()
    answer = here.ended(process, *SUBMIT)
    if not back:
        assert answer.code == TRANSIENT, answer
        assert f"campaign restart {run}" in answer.err, answer
        server.start()
    if answer.code:
        assert answer.code == TRANSIENT, answer
        done(here.run("restart", str(where)))
    require_whole(here, tag)


@pytest.mark.parametrize("command", ["certify", "ingest", "submit"])
def test_the_server_is_ended_at_any_time(here: World, server: postgres.Server, command: str) -> None:
    """Exit 75, and the same command again does it: a run that is there is restarted."""
    words = {
        "certify": ("certify", "bps_bias"),
        "ingest": ("ingest", str(here.repo), str(here.raws), "--camera", str(here.camera)),
        "submit": SUBMIT,
    }[command]
    begun = time.monotonic()
    done(here.run(*SUBMIT, TAG="measured" + command))
    seconds = time.monotonic() - begun if command == "submit" else 3.0
    for turn in range(TURNS):
        tag = f"{command}{turn}"
        if command == "certify":
            done(here.run(*SUBMIT, TAG=tag))
        process = here.start(*words, TAG=tag)
        time.sleep(random.Random(f"{command} {turn}").uniform(0.3, seconds))
        server.stop()
        answer = here.ended(process, *words)
        assert answer.code in (0, TRANSIENT), answer
        assert "Traceback" not in answer.err
        refused = here.run(*words, TAG=tag)
        assert refused.code == TRANSIENT, refused
        server.start()
        there = [path for path in here.folders() if f"/{tag}/" in f"{path}/"]
        if answer.code:
            again = ("restart", str(there[0])) if command == "submit" and there else words
            done(here.run(*again, TAG=tag))
        if command != "ingest":
            require_whole(here, tag)
        assert here.left_running() == {}


def test_the_servers_rows_are_those_of_the_disk(here: World, server: postgres.Server) -> None:
    """After all of it every record of a product has its file."""
    engine = sqlalchemy.create_engine(server.url)
    with engine.connect() as connection:
        query = sqlalchemy.text("select path from file_datastore_records where path like '%calib%'")
        paths = [path for (path,) in connection.execute(query)]
    engine.dispose()
    assert paths
    assert [path for path in paths if not (here.repo / path).exists()] == []
