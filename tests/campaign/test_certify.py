"""Certification and chains: equal to the Butler's own commands, and guarded."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from lsst.daf.butler import Butler

from campaign.butler.repository import Repository, create, open_repository
from campaign.certification.certify import Change, certify, chain, check_chain
from campaign.certification.command import request, run
from campaign.errors import CampaignError, ConfigurationError, SubmissionRefused, UsageError
from tests.conftest import apart

CAMERA = "ToyCam"
TICKET = f"{CAMERA}/calib/DM-1"
GENERATED = f"{TICKET}/TAG/biasGen.20250207a"
CERTIFIED = f"{TICKET}/TAG/bias.20250207a"
BEGIN, END = "1970-01-01T00:00:00", "2025-02-07T12:30:00"


def publish(repository: Repository, run: str, names: dict[str, list[dict[str, Any]]]) -> None:
    """Make small products in a RUN of a generation chain, as a run leaves them."""
    items = [(name, {"instrument": CAMERA, **key}) for name, keys in names.items() for key in keys]
    paths = repository.predict_paths(run, items)
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with fitsio.FITS(path, "rw", clobber=True) as fits:
            fits.write(None)
            fits.write(np.zeros((2, 2), "f4"), extname="IMAGE")
    repository.ingest_products(run, [(*item, path) for item, path in zip(items, paths, strict=True)])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one bias generation: the first with four detectors, the newest with three."""
    root = tmp_path_factory.mktemp("certify") / "repo"
    with create(str(root)) as repository:
        detectors = [(n, f"R22_S{n:02}", "R22", f"S{n:02}", "SCIENCE") for n in range(4)]
        repository.register_instrument(CAMERA, "toy.Camera", detectors, [("r_03", "r"), ("g_01", "g")])
        repository.ensure_chain(TICKET)
        for run, count in (("one", 4), ("two", 3)):
            publish(repository, f"{GENERATED}/{run}", {"bias": [{"detector": n} for n in range(count)]})
            repository.chain_output(GENERATED, f"{GENERATED}/{run}", [TICKET, f"{CAMERA}/defaults"])
        flats = [{"detector": n, "physical_filter": f} for n in range(2) for f in ("r_03", "g_01")]
        publish(repository, "flats", {"flat": flats})
    return root


@pytest.fixture
def repository(base: Path, tmp_path: Path) -> Iterator[Repository]:
    root = shutil.copytree(base, tmp_path / "repo")
    with open_repository(str(root), writeable=True) as repository:
        yield repository


def validities(root: str, collection: str, kind: str = "bias") -> set[tuple[Any, ...]]:
    """Read the certified datasets from the Butler itself."""
    with Butler.from_config(root) as butler:
        found = butler.registry.queryDatasetAssociations(kind, collections=collection)
        return {(a.ref.id, a.ref.run, tuple(a.ref.dataId.required_values), str(a.timespan)) for a in found}


def children(root: str, collection: str) -> tuple[str, ...]:
    with Butler.from_config(root) as butler:
        return tuple(butler.collections.get_info(collection).children)


def certified(repository: Repository, **other: Any) -> Any:
    values = {"source": GENERATED, "target": CERTIFIED, "dataset_type": "bias", "begin": BEGIN, "end": None}
    return certify(repository, **{**values, **other})


def butler(*commands: list[str]) -> None:
    """Run commands of the Butler's own, side by side."""
    running = [
        subprocess.Popen(apart("butler", *command), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        for command in commands
    ]
    errors = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0] * len(commands), errors


def test_it_is_what_the_butlers_own_commands_do(repository: Repository, base: Path, tmp_path: Path) -> None:
    theirs = str(shutil.copytree(base, tmp_path / "theirs"))
    butler(
        ["certify-calibrations", theirs, GENERATED, CERTIFIED, "bias", "--begin-date", BEGIN, "--end-date", END],
        ["certify-calibrations", theirs, GENERATED, f"{CERTIFIED}-all", "bias", "--search-all-inputs"],
    )
    butler(["collection-chain", theirs, TICKET, CERTIFIED, "--mode", "redefine"])
    butler(["collection-chain", theirs, TICKET, f"{CERTIFIED}-all", CERTIFIED, "--mode", "prepend"])

    report = certified(repository, end=END)
    certified(repository, target=f"{CERTIFIED}-all", begin=None, search_all_inputs=True)
    chain(repository, TICKET, [CERTIFIED], Change("redefine"))
    last = chain(repository, TICKET, [f"{CERTIFIED}-all", CERTIFIED], Change("prepend"))

    for name, count in ((CERTIFIED, 3), (f"{CERTIFIED}-all", 4)):
        ours = validities(repository.root, name)
        assert len(ours) == count
        assert ours == validities(theirs, name)
    assert children(repository.root, TICKET) == children(theirs, TICKET) == (f"{CERTIFIED}-all", CERTIFIED)
    assert (last.before, last.after) == ((CERTIFIED,), (f"{CERTIFIED}-all", CERTIFIED))
    assert (report.sources, report.begin, report.end) == ((f"{GENERATED}/two",), BEGIN, END)
    assert [data_id["detector"] for data_id in report.data_ids] == [0, 1, 2]


def test_only_the_newest_run_counts_against_what_the_plan_asked_for(repository: Repository) -> None:
    expected = [{"detector": n} for n in range(4)]
    with pytest.raises(SubmissionRefused, match="bias is missing for detector 3, which the plan asked for") as caught:
        certified(repository, expected=expected)
    assert "--search-all-inputs" in str(caught.value)
    assert repository.collection_type(CERTIFIED) is None
    report = certified(repository, expected=expected, search_all_inputs=True)
    assert set(report.sources) == {f"{GENERATED}/one", f"{GENERATED}/two"}


def test_missing_flats_are_named_with_their_filter(repository: Repository) -> None:
    expected = [{"detector": n, "physical_filter": "r_03"} for n in range(4)]
    with pytest.raises(SubmissionRefused, match="flat is missing for r_03 detectors 2, 3,"):
        certified(repository, source="flats", dataset_type="flat", expected=expected)


def test_an_overlap_is_named_and_changes_nothing(repository: Repository) -> None:
    certified(repository, end=END)
    before = validities(repository.root, CERTIFIED)
    with pytest.raises(ConfigurationError) as caught:
        certified(repository, begin="2025-01-01")
    first, *_ = str(caught.value).splitlines()
    assert first == (
        f"{CERTIFIED}: bias is certified already in an overlapping range: "
        f"detectors 0, 1, 2 (open to {END}, from {GENERATED}/two)"
    )
    assert validities(repository.root, CERTIFIED) == before


def test_ranges_that_touch_do_not_overlap(repository: Repository) -> None:
    certified(repository, begin="2025-01-01", end=END)
    certified(repository, begin=END, source=f"{GENERATED}/one")
    certified(repository, begin="1970-01-01", end="2025-01-01T00:00:00", source=f"{GENERATED}/one")
    assert len(validities(repository.root, CERTIFIED)) == 3 + 4 + 4


def test_other_data_ids_do_not_overlap(repository: Repository) -> None:
    publish(repository, "more", {"bias": [{"detector": 3}]})
    certified(repository)
    certified(repository, source="more")
    assert len(validities(repository.root, CERTIFIED)) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"begin": "2025-02-30"}, "begin date '2025-02-30' is not an ISO-8601 date in TAI"),
        ({"end": "tomorrow"}, "end date 'tomorrow' is not an ISO-8601 date in TAI"),
        ({"begin": "2025-02-07T00:00:00Z"}, "begin date '2025-02-07T00:00:00Z' is not"),
        ({"end": "2150-01-01"}, "from 1970-01-01 to 2100-01-01"),
        ({"begin": "2025-02-08", "end": "2025-02-07"}, "would end at 2025-02-07, before it begins at 2025-02-08"),
        ({"begin": "2025-02-08", "end": "2025-02-08"}, "would end at 2025-02-08"),
        ({"source": f"{TICKET}/TAG/biasGen.20250207"}, f"did you mean {GENERATED}"),
        ({"target": GENERATED}, f"{GENERATED} is both source and target"),
        ({"target": TICKET}, f"{TICKET} exists as CHAINED, it should be CALIBRATION"),
        ({"target": f"{GENERATED}/one"}, "exists as RUN, it should be CALIBRATION"),
        ({"dataset_type": "dark"}, f"there is no dark in {GENERATED}/two"),
        ({"source": f"{CAMERA}/calib"}, f"chain {CAMERA}/calib is empty"),
    ],
)
def test_one_clear_line_and_nothing_changed(repository: Repository, changes: dict[str, str], message: str) -> None:
    before = repository.collections()
    with pytest.raises(ConfigurationError, match=message) as caught:
        certified(repository, **changes)
    assert "\n" not in caught.value.what
    assert repository.collections() == before


def test_a_template_that_was_not_submitted_yet(repository: Repository, tmp_path: Path) -> None:
    """Nothing of another kind is proposed; once it was submitted, that its run has made nothing."""
    environment = {
        **{"INSTRUMENT": CAMERA, "TICKET": "DM-1", "TAG": "TAG", "RERUN": "20250207a", "CERT_RERUN": "20250207a"},
        **{"START_DATE": BEGIN, "REPO": repository.root, "SCRATCH": str(tmp_path), "USER_CALIB_PREFIX": ""},
        **{"RAW_COLLECTION": "raw", "CALIB_COLLECTIONS": "", "SELECTION_DARK": "1=1", "SELECTION_FLAT_r": "1=1"},
    }
    chosen = {
        **dict.fromkeys(("repo", "source", "target", "dataset_type", "chain_name", "begin_date", "end_date")),
        **dict.fromkeys(("search_all_inputs", "no_chain", "yes", "deploy"), False),
        "mode": "prepend",
    }
    for template, name in (("bps_dark", "darkGen.20250207a"), ("bps_flat_r", "flatGen-r.20250207a")):
        wanted = request(template, environment, chosen)
        with pytest.raises(ConfigurationError) as caught:
            run(wanted)
        assert f"nothing is submitted yet of {template}: there is no {TICKET}/TAG/{name}" in str(caught.value)
        assert f"-> campaign submit {template}" in str(caught.value) and "biasGen" not in str(caught.value)
    entry = {"t": BEGIN, "run": "r-1", "template": "bps_flat_r", "ticket": "DM-1", "submit_path": str(tmp_path)}
    wanted.home.add_run({**entry, "output": f"{TICKET}/TAG/{name}", "output_run": "x", "product": "flat"})
    with pytest.raises(ConfigurationError, match="run r-1 has published nothing.*\n  -> campaign status r-1"):
        run(wanted)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (f"{TICKET}/TAG/darkGen.20250207a", ""), (f"{TICKET}/TAG/biasGne.20250207a", f"did you mean {GENERATED}"),
        (f"{TICKET}/TAG/biasGen.20250207b", f"did you mean {GENERATED}"), (f"{TICKET}/TAG/flatGen-r.20250207a", ""),
        (f"{CAMERA}/calib/DM-2", f"did you mean {TICKET}"),
    ],
)  # fmt: skip
def test_no_collection_of_another_kind_is_proposed(repository: Repository, name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        repository.require_collections([name])
    assert (meant in str(caught.value)) if meant else "biasGen" not in str(caught.value)


def test_certified_calibrations_are_no_source(repository: Repository) -> None:
    certified(repository)
    with pytest.raises(ConfigurationError, match=f"{CERTIFIED} holds certified calibrations"):
        certified(repository, source=CERTIFIED, target="again")


def test_what_the_butler_refuses_leaves_nothing(repository: Repository) -> None:
    publish(repository, "bins", {"biasBin8": [{"detector": 0}]})
    with pytest.raises(ConfigurationError, match="Cannot certify datasets of type 'biasBin8'"):
        certified(repository, source="bins", dataset_type="biasBin8")
    assert repository.collection_type(CERTIFIED) is None


def test_redefining_a_chain_shows_what_would_change(repository: Repository) -> None:
    chain(repository, TICKET, ["flats", f"{GENERATED}/one"], Change("redefine"))
    with pytest.raises(SubmissionRefused, match=f"before flats, {GENERATED}/one; after {GENERATED}/two") as caught:
        chain(repository, TICKET, [f"{GENERATED}/two"], Change("redefine"))
    assert "--yes" in caught.value.do
    assert children(repository.root, TICKET) == ("flats", f"{GENERATED}/one")
    report = chain(repository, TICKET, [f"{GENERATED}/two"], Change("redefine", yes=True))
    assert (report.before, report.after) == (("flats", f"{GENERATED}/one"), (f"{GENERATED}/two",))
    assert children(repository.root, TICKET) == report.after
    chain(repository, TICKET, [f"{GENERATED}/two"], Change("redefine"))


def test_prepending_makes_the_chain_and_moves_what_is_in_it(repository: Repository) -> None:
    steps = [chain(repository, "new", [name]).after for name in ("flats", f"{GENERATED}/one", "flats", "flats")]
    one = f"{GENERATED}/one"
    assert steps == [("flats",), (one, "flats"), ("flats", one), ("flats", one)]
    assert children(repository.root, "new") == ("flats", one)


def test_the_instruments_own_chain_wants_deploy(repository: Repository) -> None:
    with pytest.raises(SubmissionRefused, match=f"{CAMERA}/calib is what everybody"):
        chain(repository, f"{CAMERA}/calib", ["flats"])
    assert children(repository.root, f"{CAMERA}/calib") == ()
    assert chain(repository, f"{CAMERA}/calib", ["flats"], Change(deploy=True)).after == ("flats",)


def test_a_chain_is_checked_before_its_child_is_made(repository: Repository) -> None:
    chain(repository, TICKET, ["flats"])
    assert check_chain(repository, TICKET, [CERTIFIED]).after == (CERTIFIED, "flats")
    with pytest.raises(SubmissionRefused, match=f"before flats; after {CERTIFIED}"):
        check_chain(repository, TICKET, [CERTIFIED], Change("redefine"))
    assert children(repository.root, TICKET) == ("flats",)


@pytest.mark.parametrize(
    ("parent", "child", "mode", "kind", "message"),
    [
        ("new", "nowhere", "prepend", ConfigurationError, "unknown collection nowhere"),
        ("flats", GENERATED, "prepend", ConfigurationError, "flats exists as RUN, it should be CHAINED"),
        (GENERATED, GENERATED, "prepend", ConfigurationError, "the chain would have no end"),
        (f"{CAMERA}/calib", f"{CAMERA}/defaults", "prepend", ConfigurationError, "the chain would have no end"),
        ("new", "flats", "append", UsageError, "unknown chain mode 'append'; known are redefine, prepend"),
    ],
)
def test_a_chain_that_cannot_be(
    repository: Repository, parent: str, child: str, mode: str, kind: type[CampaignError], message: str
) -> None:
    before = repository.collections()
    with pytest.raises(kind, match=message):
        chain(repository, parent, [child], Change(mode, deploy=True))
    assert repository.collections() == before
