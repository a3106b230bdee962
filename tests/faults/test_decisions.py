"""One decision at a time: clean, certify, chain, restart and submit against each other, in processes that meet."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fitsio
import pytest
import sqlalchemy
import yaml

from campaign.butler.base import LOCK
from campaign.butler.repository import create, open_repository
from campaign.camera.model import load as load_camera
from campaign.camera.translation import Overrides
from campaign.campaigns.state import Books
from campaign.certification.certify import Change
from campaign.certification.command import Certification
from campaign.certification.command import run as certify
from campaign.errors import ConfigurationError, SubmissionRefused, UsageError
from campaign.frames.ingest import ingest, prepare
from campaign.home import Home
from campaign.journal import claim
from campaign.journal.events import DriverJournal
from campaign.journal.plan import Plan
from campaign.runs.submit import _folder
from campaign.simulation.simulate import Nights, Places, exposures, simulate
from campaign.upkeep.clean import Remains, clean, remains
from campaign.upkeep.uses import Uses
from tests.campaign import plans
from tests.campaign.test_certify import CAMERA, TICKET, publish
from tests.faults.meeting import Meeting

pytestmark = pytest.mark.processes

OUTPUT = f"{TICKET}/TAG/biasGen.a"
CHAIN = f"{TICKET}/chain"


def first(*values: str) -> list[Any]:
    """The first each time, all of them in soak."""
    return [values[0], *(pytest.param(value, marks=pytest.mark.soak) for value in values[1:])]


@pytest.fixture
def meeting(tmp_path: Path) -> Iterator[Meeting]:
    made = Meeting(tmp_path)
    yield made
    made.end()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of one bias."""
    root = tmp_path_factory.mktemp("decisions") / "repo"
    with create(str(root)) as repository:
        detectors = [(n, f"R22_S{n:02}", "R22", f"S{n:02}", "SCIENCE") for n in range(2)]
        repository.register_instrument(CAMERA, "toy.Camera", detectors, [("r_03", "r")])
        for name in "abc":
            publish(repository, f"{OUTPUT}/{name}", {"bias": [{"detector": n} for n in range(2)]})
            repository.chain_output(OUTPUT, f"{OUTPUT}/{name}", [f"{CAMERA}/defaults"])
    return root


class Ticket:
    """A ticket's runs a, b and c, each done, with its folder."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.scratch, self.home = root, folder / "scratch", Home(folder / "home")
        for number, name in enumerate("abc"):
            self.list(name, t=f"2026-01-01T00:00:0{9 - number}.000Z")  # notes on clocks that go backwards

    def folder(self, name: str) -> Path:
        return self.scratch / name

    def list(self, name: str, **more: Any) -> None:
        folder = self.folder(name)
        DriverJournal(folder / "journal", name).write("done", {"state": "done"})
        names = {"template": "bps_bias.yaml", "ticket": "DM-1", "output": OUTPUT, "product": "bias"}
        here = {"run": name, "output_run": f"{OUTPUT}/{name}", "submit_path": str(folder), "detectors": [0, 1]}
        self.home.add_run({**names, **here, **more})

    def certification(self, name: str, target: str = "", **more: Any) -> Certification:
        names = {"source": f"{OUTPUT}/{name}", "target": target or f"{TICKET}/bias.{name}", "dataset_type": "bias"}
        how = {"search_all_inputs": False, "how": Change()}
        dates = {"begin": "2025-01-01T00:00:00", "end": None}
        return Certification(str(self.root), self.home, "DM-1", **{**names, **how, **dates, "chain": CHAIN, **more})

    def clean(self) -> list[str]:
        """Give the reason why each run was kept; empty for removed runs."""
        with open_repository(str(self.root), writeable=True) as repository:
            uses = Uses(repository, self.home)
            return [
                one.kept or clean(one, repository, self.home, uses) for one in remains("DM-1", repository, self.home)
            ]

    def left(self) -> str:
        """List the runs with products, folders and lines."""
        runs = {p.name for p in (self.root / OUTPUT).iterdir() if list(p.rglob("*.fits"))}
        assert runs == {one["run"] for one in self.home.runs()} == {p.name for p in self.scratch.glob("*")}
        return "".join(sorted(runs))

    def kept(self, *forced: str) -> dict[str, Remains]:
        with open_repository(str(self.root)) as repository:
            return {one.run: one for one in remains("DM-1", repository, self.home, forced)}


@pytest.fixture
def ticket(base: Path, tmp_path: Path) -> Ticket:
    return Ticket(Path(shutil.copytree(base, tmp_path / "repo")), tmp_path)


# Clean against the others


def test_a_run_that_was_certified_since_it_was_listed_stays(ticket: Ticket, meeting: Meeting) -> None:
    cleaner = meeting.start(ticket.clean, hold="clean-removed")
    cleaner.come()
    certify(ticket.certification("c"))
    assert cleaner.go() == 0
    assert ticket.left() == "c"
    with open_repository(str(ticket.root)) as repository:
        assert len(repository.associations("bias", [CHAIN])) == 2


def test_who_certifies_holds_what_is_certified(ticket: Ticket, meeting: Meeting) -> None:
    other = meeting.start(lambda: certify(ticket.certification("a")), hold="certify-decided")
    other.come()
    cleaner = meeting.start(ticket.clean)
    cleaner.blocked(ticket.root / LOCK)
    assert (other.go(), cleaner.go()) == (0, 0)
    assert ticket.left() == "a"


def test_what_is_being_removed_is_not_certified(ticket: Ticket, meeting: Meeting) -> None:
    cleaner = meeting.start(ticket.clean, hold="clean-decided")
    cleaner.come()
    other = meeting.start(lambda: certify(ticket.certification("a")))
    other.blocked(ticket.root / LOCK)
    assert (cleaner.go(), other.go()) == (0, 3)
    assert "unknown collection" in other.said.read_text()
    with open_repository(str(ticket.root)) as repository:
        assert repository.collection_type(CHAIN) is None


def test_a_run_that_was_gone_on_with_stays(ticket: Ticket, meeting: Meeting) -> None:
    cleaner = meeting.start(ticket.clean, hold="clean-removed")
    cleaner.come()
    with open_repository(str(ticket.root), writeable=True) as repository, repository.deciding():
        claim.take(ticket.folder("b"))  # as a restart does
        DriverJournal(ticket.folder("c") / "journal", "c").write("started", {})
        DriverJournal(ticket.folder("c") / "journal", "c").write("done", {"state": "done"})
    assert cleaner.go() == 0
    assert ticket.left() == "bc"


def test_what_is_being_removed_is_not_restarted(ticket: Ticket, meeting: Meeting) -> None:
    cleaner = meeting.start(ticket.clean, hold="clean-removed")
    cleaner.come()
    with pytest.raises(SubmissionRefused, match="the run is being made by"):
        claim.take(ticket.folder("a"))
    assert cleaner.go() == 0
    with pytest.raises(SubmissionRefused, match="no such folder any more"):
        claim.take(ticket.folder("a"))


@pytest.mark.parametrize("point", first("clean-removed", "clean-decided", "clean-unlisted"))
def test_a_clean_that_was_killed_is_given_again(ticket: Ticket, meeting: Meeting, point: str) -> None:
    assert meeting.start(ticket.clean, kill=point).go() == -signal.SIGKILL
    assert ticket.clean() == [""] * 3
    assert not list(ticket.scratch.rglob("*"))
    assert ticket.home.runs() == []
    with open_repository(str(ticket.root)) as repository:
        assert not [name for name in repository.collections() if name.startswith(OUTPUT)]


# Uses


def used_by_header(ticket: Ticket) -> None:
    for path in (ticket.root / OUTPUT / "b").rglob("*.fits"):
        with fitsio.FITS(str(path), "rw") as file:
            file[0].write_key("CALIB_BIASBOOTSTRAP_RUN", f"{OUTPUT}/a")
    certify(ticket.certification("b"))


def used_by_list(ticket: Ticket) -> None:
    """Not directly: b was made from a, and c, which is certified, from b."""
    ticket.home.remove_run("b"), ticket.home.remove_run("c")
    ticket.list("b", made_from=[f"{OUTPUT}/a"]), ticket.list("c", made_from=[f"{OUTPUT}/b"])
    certify(ticket.certification("c"))


def used_now(ticket: Ticket) -> None:
    ticket.home.remove_run("b")
    ticket.list("b", made_from=[f"{OUTPUT}/a"])
    claim.write(ticket.folder("b"))


def at_a_gate(ticket: Ticket) -> None:
    Books(ticket.home.path / "campaigns" / "mine.DM-1.a").write("gate", "bias", run="a")


def accepted(ticket: Ticket) -> None:
    at_a_gate(ticket)
    Books(ticket.home.path / "campaigns" / "mine.DM-1.a").write("accepted", "bias", run="a", reason="flat")


def handed_over(ticket: Ticket) -> None:
    shutil.rmtree(ticket.folder("a") / "journal")
    (ticket.folder("a") / "plan.json").touch()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (used_by_header, f"{OUTPUT}/b, which is certified, was made from it"),
        (used_by_list, f"{OUTPUT}/c, which is certified, was made from it"),
        (used_now, f"{OUTPUT}/b is being made from it"),
        (at_a_gate, "step bias of campaign mine.DM-1.a"),
        (accepted, "step bias of campaign mine.DM-1.a"),
        (handed_over, "planned for a driver that has not begun: campaign cancel gives it up"),
    ],
)
def test_what_is_used_stays_unless_it_is_named(ticket: Ticket, how: Any, why: str) -> None:
    how(ticket)
    found = ticket.kept()
    assert (found["a"].kept, found["a"].firm) == (why, False)
    assert ticket.kept("a")["a"].kept == ""
    assert ticket.clean()[0] == why
    assert "a" in {one["run"] for one in ticket.home.runs()}


def test_what_is_certified_or_made_is_not_removed_though_it_is_named(ticket: Ticket) -> None:
    certify(ticket.certification("a"))
    claim.write(ticket.folder("b"))
    for name, why in (("a", "certified in"), (f"{OUTPUT}/b", "made by")):
        with pytest.raises(SubmissionRefused, match=why):
            ticket.kept(name)
    with pytest.raises(UsageError, match="no run 'z' of DM-1"):
        ticket.kept("z")


def test_a_rejected_run_is_nobodys(ticket: Ticket) -> None:
    at_a_gate(ticket)
    Books(ticket.home.path / "campaigns" / "mine.DM-1.a").write("rejected", "bias", run="a", rerun="b")
    assert ticket.clean() == [""] * 3


# Order of calibrations


def test_an_older_calibration_does_not_come_before_a_newer_meanwhile(ticket: Ticket, meeting: Meeting) -> None:
    newer = meeting.start(lambda: certify(ticket.certification("c")), hold="certify-decided")
    newer.come()
    older = [meeting.start(lambda name=name: certify(ticket.certification(name))) for name in "ab"]
    for one in older:
        one.blocked(ticket.root / LOCK)
    assert newer.go() == 0
    assert [one.go() for one in older] == [4, 4]
    assert f"was made before {OUTPUT}/c" in older[0].said.read_text()
    with open_repository(str(ticket.root)) as repository:
        assert repository.chain(CHAIN) == (f"{TICKET}/bias.c",)


def test_a_lock_goes_with_its_holder(ticket: Ticket, meeting: Meeting) -> None:
    killed = meeting.start(lambda: certify(ticket.certification("a")), kill="certify-decided")
    assert killed.go() == -signal.SIGKILL
    certify(ticket.certification("b"))
    assert ticket.kept()["a"].kept == ""


# A submit folder


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    some = plans.plan(tmp_path / "other", [], {}, 1)
    return replace(some, submit_path=str(tmp_path / "scratch" / "run"))


def claimed(plan: Plan, run: str, fails: bool = False) -> None:
    with _folder(replace(plan, run=run)):
        (plan.folder / "plan.json").write_text(run)
        if fails:
            raise UsageError("no run comes about")


def test_who_comes_late_to_a_folder_touches_nothing(plan: Plan, meeting: Meeting) -> None:
    for hold in ("folder-named", "folder-made"):
        shutil.rmtree(plan.folder, ignore_errors=True)
        late = meeting.start(lambda: claimed(plan, "late"), hold=hold)
        late.come()
        claimed(plan, "first")
        before = {path: path.read_bytes() for path in plan.folder.rglob("*")}
        assert late.go() == 4
        assert "exists already, it is claimed by" in late.said.read_text()
        assert {path: path.read_bytes() for path in plan.folder.rglob("*")} == before
        assert [path.name for path in plan.folder.parent.iterdir()] == ["run"]


def test_who_fails_takes_away_what_is_its_own_alone(plan: Plan) -> None:
    with pytest.raises(UsageError):
        claimed(plan, "fails", fails=True)
    assert list(plan.folder.parent.iterdir()) == []
    with pytest.raises(UsageError), _folder(plan):
        other = {**asdict(claim.mine()), "started": "1"}
        (plan.folder / claim.NAME).write_text(json.dumps(other))  # another has taken it over
        raise UsageError("it fails")
    assert claim.read(plan.folder) == claim.Claim(**other)


@pytest.mark.parametrize("name", ["run", "next"])
def test_a_folder_of_somebody_who_was_killed_is_taken(plan: Plan, meeting: Meeting, name: str) -> None:
    """By the next run beside it, whatever its folder is called."""
    assert meeting.start(lambda: claimed(plan, "killed"), kill="folder-made").go() == -signal.SIGKILL
    plan.folder.with_name("of somebody else").mkdir()
    claimed(replace(plan, submit_path=str(plan.folder.with_name(name))), "next")
    assert sorted(path.name for path in plan.folder.parent.iterdir()) == sorted([name, "of somebody else"])


# A new repository

POINTS = ("repository-database", "repository-made", "repository-named", "instrument-recorded")


def prepared(root: Path) -> None:
    prepare(str(root), Home(root / "campaign"), load_camera("LATISS")).close()


WHOLE = ["butler.yaml", "campaign", LOCK, "gen3.sqlite3"]


def repaired(root: Path) -> list[str]:
    """Make the repository; give the names of its files."""
    prepared(root)
    with open_repository(str(root)) as repository:
        assert repository.known_instruments() == ("LATISS",)
        assert repository.chain("LATISS/defaults") == ("LATISS/raw/all", "LATISS/calib")
    return sorted(path.name for path in root.iterdir())


@pytest.mark.parametrize("point", first(*POINTS))
def test_a_repository_whose_maker_is_killed_is_made_again(tmp_path: Path, meeting: Meeting, point: str) -> None:
    root = tmp_path / "new"
    assert meeting.start(lambda: prepared(root), kill=point).go() == -signal.SIGKILL
    assert repaired(root) == WHOLE


def test_of_three_who_make_a_repository_one_does(tmp_path: Path, meeting: Meeting) -> None:
    root = tmp_path / "new"
    first = meeting.start(lambda: prepared(root), hold="repository-database")
    first.come()
    others = [meeting.start(lambda: prepared(root)) for _ in range(2)]
    for one in others:
        one.blocked(root / LOCK)
    assert [one.go() for one in (first, *others)] == [0, 0, 0]
    assert repaired(root) == WHOLE


@pytest.mark.parametrize("what", first("some tables", "no database", "an empty database", "half a configuration"))
def test_half_a_repository_of_the_butlers_own_making_is_made_again(tmp_path: Path, what: str) -> None:
    root = tmp_path / "new"
    create(str(root)).close()
    if what == "half a configuration":
        text = (root / "butler.yaml").read_text()
        (root / "butler.yaml").write_text(text[: len(text) // 2])
    if what in ("no database", "an empty database", "half a configuration"):
        (root / "gen3.sqlite3").unlink()
    if what == "an empty database":
        (root / "gen3.sqlite3").touch()
    if what == "some tables":
        with closing(sqlite3.connect(root / "gen3.sqlite3")) as database, database:
            database.execute("DROP TABLE butler_attributes")
    assert repaired(root) == WHOLE


@pytest.mark.soak
def test_a_repository_on_a_server_that_was_only_named_is_made(tmp_path: Path, postgresql: str) -> None:
    url = postgresql.replace("postgresql:", "postgresql+psycopg2:")
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE EXTENSION btree_gist"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "butler.yaml").write_text(yaml.safe_dump({"registry": {"db": url}}))
    prepared(tmp_path / "one")
    with open_repository(str(tmp_path / "one")) as repository:
        assert repository.chain("LATISS/defaults") == ("LATISS/raw/all", "LATISS/calib")
    with engine.begin() as connection:  # and a database with half of the tables must not be removed
        connection.execute(sqlalchemy.text("DROP TABLE butler_attributes CASCADE"))
    engine.dispose()
    with pytest.raises(ConfigurationError, match="its database has tables already"):
        prepared(tmp_path / "two")
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["butler.yaml", LOCK]


@pytest.mark.parametrize("lost", ["gen3.sqlite3", "butler.yaml"])
def test_a_repository_that_holds_something_is_never_made_again(ticket: Ticket, lost: str) -> None:
    (ticket.root / lost).rename(ticket.scratch / lost)
    before = {path: path.stat().st_size for path in ticket.root.rglob("*") if path.name != LOCK}
    with pytest.raises(ConfigurationError, match="is not there"):
        prepared(ticket.root)
    assert {path: path.stat().st_size for path in ticket.root.rglob("*") if path.name != LOCK} == before


@pytest.mark.soak
def test_a_simulation_leaves_anothers_folders_alone(tmp_path: Path, meeting: Meeting) -> None:
    places, camera = Places(tmp_path / "repo"), load_camera("LATISS").scaled(32)
    shots = exposures(camera, Nights(1, 0, 0, days=(20241206,)))

    def simulated() -> None:
        simulate(places, Home(places.repository / "campaign"), camera, shots, 1, [0], 1)

    one = meeting.start(simulated, hold="simulation-begun")
    one.come()
    assert meeting.start(simulated).go() == 2  # the folders are another's
    assert one.go() == 0, one.said.read_text()
    with open_repository(str(places.repository)) as repository:
        assert len(repository.select(["LATISS/raw/all"], "instrument='LATISS'").raws) == 1
    assert {path.name for path in places.truth.parent.iterdir()} >= {"repo", "repo-raw", "repo-truth"}
    assert not list(tmp_path.glob(".*")) and not list(places.truth.glob("claim*"))


@pytest.mark.soak
def test_raws_that_two_put_in_at_once_are_there_once(tmp_path: Path, meeting: Meeting) -> None:
    places, camera = Places(tmp_path / "repo"), load_camera("LATISS").scaled(32)
    simulate(places, Home(places.repository / "campaign"), camera, exposures(camera, Nights(2, 0, 0)), 1, [0], 1)
    raws, new = [str(places.raw)], tmp_path / "new"

    def ingested() -> None:
        report = ingest(str(new), Home(new / "campaign"), raws, camera, Overrides(), "direct", 1)
        assert (len(report.new) + len(report.existing), report.refused) == (2, {})

    one = meeting.start(ingested, hold="raws-sorted")
    one.come()
    ingested()
    assert one.go() == 0, one.said.read_text()
