"""A site's share: its contents, the files that travel with it, and `campaign site-run` on real frames."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from campaign.errors import CampaignError, ConfigurationError, SubmissionRefused, TransientError
from campaign.federation import onsite, products, siteplan
from campaign.federation.siteplan import Place, SitePlan, Writer
from campaign.journal.events import Event
from campaign.journal.plan import Plan
from campaign.schedulers.slurm import SlurmScheduler
from campaign.sites import model as sites
from tests.campaign import plans

DETECTORS = 3
#: Runs the command line and then lists imported modules of the Butler.
WATCHED = """
import sys
from campaign.cli.root import main
sys.argv = ["campaign", *sys.argv[1:]]
try:
    main()
finally:
    print("LSST", sorted(name for name in sys.modules if name.split(".")[0] == "lsst"), file=sys.stderr)
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    folder = tmp_path / "the archive"
    files = plans.frames(folder / "raw", 4, DETECTORS)
    return plans.plan(folder, [plans.gang(folder, 4, DETECTORS, 1)], files, DETECTORS)


@pytest.fixture
def share(plan: Plan, tmp_path: Path) -> SitePlan:
    return Writer(plan, str(tmp_path / "the archive" / "raw")).make(
        ["combine:0", "combine:2"], place(tmp_path), "0.1", 1
    )


def place(tmp_path: Path) -> Place:
    return Place("frdf", "", str(tmp_path / "a site"), sites.plain(sites.Site(name="frdf")))


def bundled(share: SitePlan, travelling: dict[str, str] | None = None) -> io.BytesIO:
    """A bundle, ready to be read."""
    stream = io.BytesIO()
    siteplan.send(share, travelling or {}, stream)
    stream.seek(0)
    return stream


def test_it_names_inputs_by_data_id_size_and_relative_path(share: SitePlan) -> None:
    assert len(share.plan.files) == 8
    file = share.plan.files["1:2"]
    data_id = {"instrument": "Plain", "exposure": 1, "detector": 2}
    assert file == {"path": "raw 1 2.fits", "bytes": file["bytes"], "root": "raw", "data_id": data_id}
    assert all(not Path(path).is_absolute() for t in share.plan.tasks for path in t.job.outputs.values())
    assert siteplan.parse(share.text(), "here") == siteplan.parse(siteplan.parse(share.text(), "here").text(), "here")


@pytest.mark.processes
def test_a_share_runs_without_the_butler(share: SitePlan, tmp_path: Path) -> None:
    bundle = tmp_path / "a bundle.tar"
    bundle.write_bytes(bundled(share).getvalue())
    done = subprocess.run(
        [sys.executable, "-P", "-c", WATCHED, "site-run", str(bundle)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "LSST []"
    events = [Event(**json.loads(line)) for line in done.stdout.splitlines() if line]
    assert {(e.run, e.site, e.token) for e in events} == {("r-1", "frdf", 1)}
    published = {e.task: e.detail["bias"] for e in events if e.event == "published"}
    assert published.keys() == {"combine:0", "combine:2"}
    for product in published.values():
        path = Path(product["path"])
        assert path.is_relative_to(tmp_path / "a site" / "r-1" / "0.1")
        assert siteplan.checksum(str(path)) == product["sha256"]
    again = subprocess.run([sys.executable, "-P", "-m", "campaign", "site-run", str(bundle)], capture_output=True)
    assert again.returncode == 4
    assert b"begun before" in again.stderr


def test_calibrations_travel_once_by_checksum(plan: Plan, tmp_path: Path) -> None:
    bias = tmp_path / "a bias.fits"
    bias.write_bytes(b"SIMPLE")
    (group,) = plan.groups
    tasks = [replace(t, job=replace(t.job, inputs={**t.job.inputs, "bias": ["b-uuid"]})) for t in group.tasks]
    plan = replace(plan, files={**plan.files, "b-uuid": {"path": str(bias)}}, groups=[replace(group, tasks=tasks)])
    writer = Writer(plan, str(tmp_path / "the archive" / "raw"))
    share = writer.make(["combine:0", "combine:1"], place(tmp_path), "0.1", 1)
    sha256 = siteplan.checksum(str(bias))
    assert writer.travelling(share) == {f"{sha256}/a bias.fits": str(bias)}
    got = onsite.receive(bundled(share, writer.travelling(share)))
    path = Path(onsite.placed(got).files["b-uuid"]["path"])
    assert path == tmp_path / "a site" / "r-1" / "files" / sha256 / "a bias.fits"
    assert path.read_bytes() == b"SIMPLE"


def test_what_was_damaged_on_its_way_is_refused(share: SitePlan, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"x")
    with pytest.raises(TransientError, match="damaged on its way"):
        onsite.receive(bundled(share, {f"{'0' * 64}/x": str(file)}))
    assert not [p for p in (tmp_path / "a site").rglob("*") if p.is_file()]
    whole = bundled(share, {f"{siteplan.checksum(str(file))}/x": str(file)}).getvalue()
    with pytest.raises(CampaignError, match="cut short|begins with"):
        onsite.receive(io.BytesIO(whole[:700]))


@pytest.mark.parametrize("name", ["../x", "files/../x", f"files/{'0' * 64}/../../x", "/etc/x", f"files/{'0' * 64}/.."])
def test_a_bundle_does_not_write_elsewhere(share: SitePlan, name: str) -> None:
    stream = bundled(share)
    with tarfile.open(fileobj=stream, mode="a") as tar:
        tar.addfile(tarfile.TarInfo(name))
    stream.seek(0)
    with pytest.raises(ConfigurationError, match="no place for|leads out"):
        onsite.receive(stream)


def _spoil_path(text: str) -> str:
    return text.replace('"raw 1 2.fits"', '"../raw 1 2.fits"')


def _spoil_name(text: str) -> str:
    return text.replace('"name": "0.1"', '"name": "../0.1"')


def _spoil_version(text: str) -> str:
    return text.replace('"token": 1,', '"token": 1, "v": 2,').replace('"v": 1\n}', '"w": 1\n}')


@pytest.mark.parametrize("spoil", [_spoil_path, _spoil_name, _spoil_version, lambda text: text[:100]])
def test_a_plan_that_is_none_is_refused(share: SitePlan, spoil: Callable[[str], str]) -> None:
    assert spoil(share.text()) != share.text()
    with pytest.raises(ConfigurationError):
        siteplan.parse(spoil(share.text()), "a plan")


def put(plain: Any, keys: Sequence[str | int], value: Any) -> None:
    for key in keys[:-1]:
        plain = plain[key]
    plain[keys[-1]] = value


DEEP: Any = json.loads("[" * 900 + "]" * 900)
TASK = ("plan", "groups", 0, "tasks", 0)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("plan", "groups", 0, "config", "inputs_table"), "/tmp/x"),
        (("plan", "groups", 0, "config", "inputs_table"), "a/../../x"),
        (("plan", "groups", 0, "config", "isr"), {"deep": ["/etc/passwd"]}),
        (("plan", "groups", 0, "config"), 5),
        (("plan", "groups", 0, "label"), "../../x"),
        (("plan", "groups", 0, "label"), ["combine"]),
        (("plan", "groups", 0, "ranks"), "many"),
        (("plan", "groups", 0, "ranks"), 0),
        (("plan", "groups", 0, "tasks"), 5),
        (("plan", "groups", 0, "resources"), {"memory_mib": "x"}),
        (("plan", "groups", 0, "more"), 1),
        ((*TASK, "job", "task"), "combine:../../x"),
        ((*TASK, "job", "task"), "isr:0"),
        ((*TASK, "job", "detector"), {}),
        ((*TASK, "job", "inputs"), {"raw": "1:2"}),
        ((*TASK, "job", "provenance"), 5),
        ((*TASK, "outputs", 0, "path"), "/tmp/x"),
        ((*TASK, "outputs", 0, "path"), 5),
        ((*TASK, "needs"), None),
        (("plan", "run"), "../r"),
        (("plan", "files", "1:2"), []),
        (("plan", "files", "1:2", "root"), "etc"),
        (("plan", "camera"), DEEP),
        (("plan",), []),
        (("token",), "1x"),
        (("scratch",), None),
        (("slots",), [1]),
        (("settings",), 5),
    ],
    ids=lambda value: "/".join(map(str, value)) if isinstance(value, tuple) else repr(value)[:20],
)
def test_a_plan_in_which_one_thing_is_wrong_is_refused(share: SitePlan, keys: Sequence[str | int], value: Any) -> None:
    plain = json.loads(share.text())
    put(plain, keys, value)
    with pytest.raises(ConfigurationError):
        siteplan.parse(json.dumps(plain), "a plan")


@pytest.mark.parametrize("settings", [{}, {"name": 5}, {"scheduler": 5}, {"scheduler": {"x": 1}}, {"more": 1}])
def test_settings_of_a_site_that_are_none_are_refused(settings: dict[str, Any]) -> None:
    good = sites.plain(sites.Site(name="usdf", scheduler=SlurmScheduler(partition="main", extra=("--exclusive",))))
    assert sites.plain(sites.from_plain(json.loads(json.dumps(good)))) == good
    with pytest.raises(ConfigurationError):
        sites.from_plain({**good, **settings} if settings else {})


def test_what_stands_before_a_file_in_a_tar_is_limited() -> None:
    """A name of a gigabyte would be read into memory."""
    about = tarfile.TarInfo("x")
    about.type, about.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    with pytest.raises(CampaignError, match="cut short or damaged"):
        onsite.receive(io.BytesIO(about.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)))


def test_a_product_gets_its_name_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    for name, content in (("a", b"1"), ("b", b"2")):
        (tmp_path / name).write_bytes(content)
    products.commit(tmp_path / "a", tmp_path / "final", {})
    assert (tmp_path / "final").read_bytes() == b"1" and not (tmp_path / "a").exists()
    with pytest.raises(SubmissionRefused, match="never overwritten"):
        products.commit(tmp_path / "b", tmp_path / "final", {})
    assert (tmp_path / "final").read_bytes() == b"1"


def test_a_raw_outside_the_raw_root_is_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(SubmissionRefused, match="does not lie below"):
        Writer(plan, str(tmp_path / "elsewhere")).make(["combine:0"], place(tmp_path), "0.1", 1)


def test_a_site_says_which_input_it_lacks(share: SitePlan, tmp_path: Path) -> None:
    (tmp_path / "the archive" / "raw" / "raw 1 2.fits").write_bytes(b"short")
    (tmp_path / "the archive" / "raw" / "raw 0 2.fits").unlink()
    with pytest.raises(SubmissionRefused, match="frdf: 2 of 8 inputs .* the first: .*raw 0 2.fits is not there"):
        onsite.require_inputs(share, onsite.placed(share))
