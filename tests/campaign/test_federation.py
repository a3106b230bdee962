"""One plan at several sites: equal bits, sites that die, results that come too late, releases that differ."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import fitsio
import pytest

from campaign import release
from campaign.butler.repository import open_repository
from campaign.errors import SubmissionRefused, UsageError
from campaign.federation.driver import Federation, Participant
from campaign.federation.ledger import Ledger
from campaign.federation.participants import choose, require_release
from campaign.federation.siteplan import Place, Writer
from campaign.federation.siterun import SiteRun
from campaign.journal.events import DriverJournal, Event, read
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Group, Plan
from campaign.limited import MAX_LOG
from campaign.running.runner import Runner
from campaign.sites import model as sites
from campaign.sites.transport import LocalTransport, SshTransport, Transport, end
from tests.campaign import loopback, plans
from tests.conftest import ROOT, Demo

pytestmark = pytest.mark.processes

FRACTIONS = {"usdf": 0.25, "frdf": 0.5, "ukdf": 0.25}
DETECTORS = 8
EXPOSURES = 4
SAID: Mapping[str, object] = {
    "v": 1,
    "t": "2026-11-20T22:41:39.742Z",
    "task": "combine:1",
    "attempt": 1,
    "site": "x",
    "token": 1,
}


def make(folder: Path, *groups: Callable[[Path], Group]) -> Plan:
    """A plan over the same frames, wherever it is."""
    files = plans.frames(folder.parent / "raw", EXPOSURES, DETECTORS)
    return plans.plan(folder, [group(folder) for group in groups], files, DETECTORS, "20261120T224138Z-07d4")


def gang(folder: Path) -> Group:
    return plans.gang(folder, EXPOSURES, DETECTORS, 1)


def quanta(folder: Path) -> Group:
    return plans.quanta(folder, EXPOSURES, 2)


def member(folder: Path, name: str, transport: Transport | None = None) -> Participant:
    place = Place(name, "", str(folder / f"site {name}"), sites.plain(sites.Site(name=name)))
    return Participant(place, FRACTIONS[name], transport or LocalTransport())


def federate(
    plan: Plan, transports: Mapping[str, Transport] | None = None, silence: float = 30.0
) -> tuple[Outcome, list[Event]]:
    """Run a plan at three sites; give the outcome, and the events of its journal."""
    members = [member(plan.folder.parent, name, (transports or {}).get(name)) for name in FRACTIONS]
    heard: list[Event] = []
    raw = str(plan.folder.parent.parent / "raw")
    outcome = Federation(plan, members, raw, {}, heard.append, lambda text: None, silence=silence).run()
    events = read(plan.journal)
    assert Counter(map(repr, heard)) == Counter(map(repr, events))  # a listener hears all, and nothing twice
    return outcome, events


def pixels(plan: Plan) -> dict[str, bytes]:
    """Every HDU of every product, by path below the plan's folder."""
    found = {}
    for task in plan.tasks:
        for output in task.outputs:
            with fitsio.FITS(output.path) as fits:
                hdus = b"".join(hdu.read().tobytes() for hdu in fits if hdu.has_data())
            found[str(Path(output.path).relative_to(plan.folder.parent))] = hdus
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Make the gang and the quanta on one machine."""
    plan = make(tmp_path_factory.mktemp("alone") / "one", gang, quanta)
    assert Runner(plan, lambda event: None).run().done
    return pixels(plan)


def holders(events: Sequence[Event]) -> dict[str, tuple[str, int]]:
    """Find the site and token of each task's result; each is there once."""
    published = [e for e in events if e.event == "published"]
    assert len({e.task for e in published}) == len(published)
    return {e.task: (e.site, e.token) for e in published}


def test_three_sites_make_the_bits_of_one(tmp_path: Path, alone: dict[str, bytes]) -> None:
    plan = make(tmp_path / "archive", gang, quanta)
    outcome, events = federate(plan)
    assert outcome.done, outcome
    assert pixels(plan) == alone
    by = holders(events)
    assert Counter(site for task, (site, _) in by.items() if task.startswith("combine")) == {
        "usdf": 2,
        "frdf": 4,
        "ukdf": 2,
    }
    for exposure in range(EXPOSURES):
        assert len({by[f"isr:{exposure},{d}"] for d in range(2)}) == 1
    leftover = [p for p in (plan.folder.parent / "products").iterdir() if p.name.startswith(".")]
    assert not leftover
    assert len(list((plan.folder / "inputs").glob("*.csv"))) == DETECTORS
    assert sorted(p.name for p in (plan.folder / "sites").iterdir()) == sorted(FRACTIONS)
    assert not list(tmp_path.glob("archive/site */*/*/products"))  # they are home


def test_what_was_withdrawn_after_a_site_was_lost_is_made_again_at_the_archive(tmp_path: Path) -> None:
    """A loss has raised the token; tasks that the archive makes afterwards still count."""

    def serial(folder: Path) -> Group:
        return replace(gang(folder), kind="serial")

    plan = make(tmp_path / "archive", serial)
    assert federate(plan)[0].done
    before = pixels(plan)
    tasks = [task.name for task in plan.tasks]
    again = {task: {"why": "a test"} for task in tasks}
    DriverJournal(plan.journal, plan.run, token=2).write_all("withdrawn", again, 1)
    for path in (tmp_path / "archive").parent.glob("products/*"):
        path.unlink()
    members = [member(plan.folder.parent, name) for name in FRACTIONS]
    raw = str(plan.folder.parent.parent / "raw")
    outcome = Federation(plan, members, raw, {}, lambda event: None, lambda text: None).run()
    assert outcome.done, outcome
    assert outcome.published.keys() == set(tasks)
    assert pixels(plan) == before


@dataclass(frozen=True)
class Talking(LocalTransport):
    """A site whose run is a script with given output."""

    script: str = ""

    def start(self, arguments: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the script."""
        return super().start([sys.executable, "-c", self.script] if "site-run" in arguments else arguments, log)


ENDLESS = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
NOISY = "import sys\nwhile True: print('good morning' * 90); print('bad morning' * 9999, file=sys.stderr)"
FALSE = "import json, time; print(json.dumps({!r}), flush=True); time.sleep(60)"


def test_sites_that_talk_nonsense_are_lost_and_the_others_go_on(tmp_path: Path, alone: dict[str, bytes]) -> None:
    plan = make(tmp_path / "archive", gang)
    said = {**SAID, "run": plan.run, "detail": {}, "event": "failed"}
    talking = {"frdf": Talking(script=ENDLESS), "usdf": Talking(script=NOISY)}
    outcome, events = federate(plan, talking)
    assert outcome.done, outcome
    assert {site for site, _ in holders(events).values()} == {"ukdf"}
    lost = {e.task: e.detail["error"] for e in events if e.event == "lost"}
    assert lost["frdf"].startswith("it talks nonsense: a line of more than 256 KiB")
    assert lost["usdf"].startswith("it talks nonsense: more than 1 MiB that are no events")
    assert all(path.stat().st_size < 2 * MAX_LOG for path in (plan.folder / "logs").iterdir())

    again = make(tmp_path / "again", gang)
    outcome, events = federate(again, {"frdf": Talking(script=FALSE.format(said))})
    assert outcome.done, outcome
    (lost_,) = [e.detail["error"] for e in events if e.event == "lost"]
    assert lost_.startswith("it talks nonsense: an event failed whose error is not right: Field required;")


@dataclass(frozen=True)
class Struck(LocalTransport):
    """A site that gets a signal as soon as it has started."""

    sign: int = signal.SIGKILL
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, arguments: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start it, and strike."""
        process = super().start(arguments, log)
        if "site-run" in arguments:
            os.killpg(process.pid, self.sign)
            self.started.append(process)
        return process


@pytest.mark.parametrize(("sign", "why"), [(signal.SIGKILL, "code -9"), (signal.SIGSTOP, "not said a word")])
def test_a_dead_sites_share_goes_to_the_others(tmp_path: Path, alone: dict[str, bytes], sign: int, why: str) -> None:
    plan = make(tmp_path / "archive", gang)
    dead = Struck(sign=sign)
    outcome, events = federate(plan, {"frdf": dead}, silence=4.0)
    assert outcome.done, outcome
    assert pixels(plan) == {path: bits for path, bits in alone.items() if "postISRCCD" not in path}
    tokens = Counter(holders(events).values())
    assert tokens["usdf", 1] == tokens["ukdf", 1] == 2
    assert tokens["usdf", 2] == tokens["ukdf", 2] == 2
    lost = [e for e in events if e.event == "lost"]
    assert [e.task for e in lost] == ["frdf"]
    assert why in lost[0].detail["error"]
    assert len(lost[0].detail["tasks"]) == 4
    assert all(process.poll() is not None for process in dead.started)


def test_an_interrupt_leaves_nothing_running(tmp_path: Path) -> None:
    plan = make(tmp_path / "archive", gang)
    reached = {name: Struck(sign=0) for name in FRACTIONS}  # no signal: only watched
    members = [member(tmp_path, name, transport) for name, transport in reached.items()]

    def interrupt(event: Event) -> None:
        if event.site in FRACTIONS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Federation(plan, members, str(tmp_path / "raw"), {}, interrupt, print).run()
    started = [process for transport in reached.values() for process in transport.started]
    assert len(started) == 3
    assert all(process.poll() is not None for process in started)


def test_where_no_site_is_left_the_run_fails_and_says_why(tmp_path: Path) -> None:
    plan = make(tmp_path / "archive", gang)
    outcome, _ = federate(plan, {name: Struck() for name in FRACTIONS})
    assert len(outcome.failed) == DETECTORS
    assert all("no site is left" in why and "code -9" in why for why in outcome.failed.values())
    assert not outcome.published


def test_late_results_are_refused(tmp_path: Path) -> None:
    """A site falls silent, its share is given away, then it wakes up and does everything: nothing of it arrives."""
    plan = make(tmp_path / "archive", gang)
    tasks = [task.name for task in plan.tasks[:3]]
    silent, ledger, ended = Struck(sign=signal.SIGSTOP), Ledger(plan), queue.Queue[SiteRun]()
    writer = Writer(plan, str(tmp_path / "raw"))
    token = ledger.grant(tasks, "frdf")
    share = writer.make(tasks, member(tmp_path, "frdf").place, f"0.{token}", token)
    one = SiteRun(share, {}, silent, plan, ledger, ended.put, 0.5)
    one.start()
    assert "not said a word" in ended.get(timeout=10).why
    ledger.revoke(tasks)
    assert ledger.grant(tasks, "ukdf") == token + 1
    os.killpg(silent.started[0].pid, signal.SIGCONT)
    one.join(30)
    assert not one.is_alive()
    assert one.refused == 3
    made = list((tmp_path / "site frdf").rglob("bias-*.fits"))
    assert len(made) == 3  # it has done its work
    assert not [o for t in plan.tasks[:3] for o in t.outputs if Path(o.path).exists()]
    assert not [e for e in read(plan.journal) if e.task in tasks]


def test_a_site_ends_with_its_archive(tmp_path: Path) -> None:
    """If the holder of the other end of standard input is gone, it ends instead of working for nobody."""
    with (tmp_path / "log").open("wb") as log:
        process = LocalTransport().start([sys.executable, "-P", "-c", WAITING], log)
        assert process.stdin and process.stdout
        assert process.stdout.readline() == b"waiting\n"
        process.stdin.close()
        try:
            assert process.wait(10) == 130
        finally:
            end(process)
            process.stdout.close()


WAITING = """
import threading, time
from campaign.cli import root as cli; from campaign.cli import siterun as cli_siterun
@cli.cli.command("wait")
def wait():
    threading.Thread(target=cli_siterun._outlive_nobody, daemon=True).start()
    print("waiting", flush=True)
    time.sleep(60)
cli.main(["wait"])
"""


def test_a_site_over_ssh(tmp_path: Path, alone: dict[str, bytes]) -> None:
    if why := loopback.lacking():
        pytest.skip(why)
    plan = make(tmp_path / "archive", gang)
    with loopback.server(tmp_path / "sshd") as there:
        outcome, events = federate(plan, {"frdf": SshTransport(there.host, {}, sys.executable, there.options)})
    assert outcome.done, outcome
    assert pixels(plan) == {path: bits for path, bits in alone.items() if "postISRCCD" not in path}
    assert Counter(site for site, _ in holders(events).values()) == {"usdf": 2, "frdf": 4, "ukdf": 2}


# Releases and names


@pytest.fixture(scope="module")
def other_release(tmp_path_factory: pytest.TempPathFactory) -> Participant:
    """A site with kernels that differ by a comment."""
    folder = tmp_path_factory.mktemp("other release")
    for package in ("campaign", "kernels", "slurm", "templates"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "kernels" / "products" / "combine.py").open("a") as file:
        file.write("# another one\n")
    return member(folder, "frdf", LocalTransport({"PYTHONPATH": str(folder)}))


def test_a_site_of_another_release_is_refused_unless_overridden(other_release: Participant, tmp_path: Path) -> None:
    good = member(tmp_path, "usdf")
    assert require_release([good], False) == []
    with pytest.raises(SubmissionRefused, match="release of site frdf differs: kernels .*\n.*--override"):
        require_release([good, other_release], False)
    (warning,) = require_release([good, other_release], True)
    assert "frdf" in warning


def test_a_site_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SubmissionRefused, match="site ukdf does not say what release it has"):
        require_release([member(tmp_path, "ukdf", Struck())], True)


def test_releases_are_compared_by_what_makes_the_bits() -> None:
    here = release.about()
    assert release.differences(here, here | {"click": "0"}) == []
    assert release.differences(here, here | {"numpy": "0.1"}) == [f"numpy 0.1, not {here['numpy']}"]


@pytest.mark.parametrize(
    ("names", "why"),
    [(["usdf", "mars"], "no site 'mars'"), (["usdf", "usdf"], "named twice"), (["idle"], "no fraction")],
)
def test_sites_that_cannot_be_chosen(names: list[str], why: str) -> None:
    known = {"usdf": sites.Site(name="usdf", fraction=1.0, roles=("processing",)), "idle": sites.Site(name="idle")}
    with pytest.raises(UsageError, match=why):
        choose(known, names)


# Through the command line, on the demo's frames


@pytest.fixture(scope="module")
def own_sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sites that are this machine."""
    folder = tmp_path_factory.mktemp("three sites")
    (folder / "files").mkdir()
    for name in FRACTIONS:
        scratch = folder / "the scratch" / name
        (folder / "files" / f"{name}.yaml").write_text(f"name: {name}\nscheduler: none\nscratch: {scratch}\n")
    return folder / "files"


def submit(demo: Demo, own: Path, template: str, *more: str) -> subprocess.CompletedProcess[str]:
    names = "usdf,frdf,ukdf"
    return demo.run("submit", template, "--sites", names, "--ranks", "1", *more, CAMPAIGN_SITES=str(own))


def products(demo: Demo, template: str, run: str = "") -> dict[str, Path]:
    """Products of a run, or of the demo's own, by type and detector."""
    name = {"bps_bias": "bias", "bps_flat_r": "flat"}[template]
    with open_repository(str(demo.folder / "repo")) as found:
        chain = [run or f"LSSTComCam/calib/DM-00000/demo/{name}Gen{'-r' * (name == 'flat')}.20241208a"]
        kinds = (name, f"{name}Bin8", f"{name}Mosaic8", f"{name}Mosaic64")
        return {f"{k} {d.data_id.get('detector')}": Path(d.path) for k in kinds for d in found.datasets(k, chain)}


@pytest.mark.parametrize("template", ["bps_bias", "bps_flat_r"])
def test_submit_at_three_sites_makes_the_bits_of_one(demo: Demo, own_sites: Path, template: str) -> None:
    run = f"LSSTComCam/calib/DM-00000/demo/sites-{template}/run"
    before = products(demo, template)
    done = submit(demo, own_sites, template, "--set", f"outputRun={run}", "--set", f"output={run[:-4]}", "--json")
    assert done.returncode == 0, done.stderr
    after = products(demo, template, run)
    assert after.keys() == before.keys()
    assert len(after) == 20
    for key, path in after.items():
        for hdu in ("IMAGE",) if "Bin" in key or "Mosaic" in key else ("IMAGE", "MASK", "VARIANCE"):
            assert fitsio.read(path, hdu).tobytes() == fitsio.read(before[key], hdu).tobytes(), (key, hdu)
    events = [Event(**json.loads(line)) for line in done.stdout.splitlines()]
    by = Counter((e.site, e.task.partition(":")[0]) for e in events if e.event == "published")
    combine = next(label for _, label in by if label.endswith("Combine"))
    assert [by[site, combine] for site in FRACTIONS] == [2, 5, 2]
    assert by["local", f"{combine.removesuffix('Combine')}Mosaic8"] == 1
    if template == "bps_flat_r":
        measure, normalise = (next(label for _, label in by if text in label) for text in ("Measure", "Norm"))
        assert [by[site, measure] for site in FRACTIONS] == [2, 5, 2]
        assert by["local", normalise] == 1


def test_fractions_of_the_chosen_sites_are_renormalised_and_it_is_said(demo: Demo, own_sites: Path) -> None:
    done = demo.run("submit", "bps_bias", "--sites", "usdf,frdf", "--dry-run", CAMPAIGN_SITES=str(own_sites))
    assert done.returncode == 0, done.stderr
    assert "the fractions of the chosen sites sum to 0.75, renormalised: usdf 0.3333, frdf 0.6667" in done.stdout
    assert [line.split() for line in done.stdout.splitlines() if line.startswith(("usdf", "frdf"))] == [
        ["usdf", "0.3333", "3", "30"],
        ["frdf", "0.6667", "6", "60"],
    ]


def test_a_site_file_with_another_release(demo: Demo, own_sites: Path, tmp_path: Path) -> None:
    shutil.copytree(own_sites, tmp_path / "files")
    with (tmp_path / "files" / "frdf.yaml").open("a") as file:
        file.write("release: 0.0.1\n")
    refused = submit(demo, tmp_path / "files", "bps_bias", "--dry-run")
    assert refused.returncode == 4
    assert "frdf has drp-campaign 0.0.1" in refused.stderr
    done = submit(demo, tmp_path / "files", "bps_bias", "--dry-run", "--override")
    assert done.returncode == 0, done.stderr
    assert "overridden: frdf has drp-campaign 0.0.1" in done.stdout
