"""The Butler layer on real SQLite repositories; the truth is the Butler itself, opened separately."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fitsio
import lsst.daf.butler
import numpy as np
import pytest
import sqlalchemy
from astropy.time import Time
from hypothesis import given
from hypothesis import strategies as st
from lsst.daf.butler import Butler, DatasetType, Timespan

from campaign.butler.errors import told
from campaign.butler.records import to_iso, to_nsec
from campaign.butler.repository import Repository, create, open_repository
from campaign.camera.observation import Observation
from campaign.errors import ConfigurationError, TransientError, UsageError
from campaign.frames.readings import PHOTODIODE, separated
from campaign.kinds.table import dataset_types
from kernels.simulation import diode
from tests.conftest import apart

pytestmark = pytest.mark.processes

CAMERA = "ToyCam"
RAWS = f"{CAMERA}/raw/all"
RUN = f"{CAMERA}/calib/DM-1/TAG/biasGen.a/20250207T000000Z"
DETECTORS = [(n, f"R22_S{n:02}", "R22", f"S{n:02}", "SCIENCE") for n in range(3)]
FILTERS = [("r_03", "r"), ("g_01", "g")]
EVERYTHING = f"instrument='{CAMERA}'"


def observation(folder: Path, seq: int, detector: int, **other: object) -> Observation:
    """Make an observation with a file that is like no other."""
    path = folder / f"{seq} {detector}.fits"
    path.write_text(f"{seq} {detector}")
    values = Observation(
        path=str(path),
        instrument=CAMERA,
        exposure=2024120800000 + seq,
        detector=detector,
        day_obs=20241208,
        seq_num=seq,
        obs_id=f"TC_{seq}",
        observation_type="bias" if seq < 3 else "flat",
        observation_reason="unknown",
        science_program="BLOCK-1",
        physical_filter="r_03",
        exposure_time=0.0 if seq < 3 else 1.5,
        dark_time=None if seq < 3 else 1.75,
        begin=f"2024-12-08T20:{seq % 60:02}:00.125",
    )
    return dataclasses.replace(values, **other)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a blank in its path and five exposures of three detectors, one raw missing."""
    folder = tmp_path_factory.mktemp("a blank")
    raws = folder / "raws"
    raws.mkdir()
    with create(str(folder / "repo")) as repository:
        repository.register_instrument(CAMERA, "toy.Camera", DETECTORS, FILTERS)
        pairs = [pair for pair in product(range(5), range(3)) if pair != (4, 1)]
        repository.ingest_raws([observation(raws, *pair) for pair in pairs], "direct")
    return folder


@pytest.fixture
def root(base: Path, tmp_path: Path) -> Path:
    """A copy to write into; its raws stay where they are."""
    return Path(shutil.copytree(base / "repo", tmp_path / "repo"))


@pytest.fixture
def repository(root: Path) -> Iterator[Repository]:
    with open_repository(str(root), writeable=True) as repository:
        yield repository


def publish(
    repository: Repository, run: str, names: dict[str, list[dict[str, Any]]]
) -> list[tuple[str, dict[str, Any], str]]:
    """Write products where they belong, as a kernel would."""
    keys = [(name, {"instrument": CAMERA, **data_id}) for name, ids in names.items() for data_id in ids]
    items = []
    for (name, data_id), path in zip(keys, repository.predict_paths(run, keys), strict=True):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".json"):
            Path(path).write_text(json.dumps({"dataset": name, "level": 3}))
        else:
            with fitsio.FITS(path, "rw", clobber=True) as fits:
                fits.write(None, header={"BUNIT": "adu", "LEVEL": 993.25})
                planes = (
                    {"IMAGE": "f4", "MASK": "i4", "VARIANCE": "f4"} if name in ("bias", "flat") else {"IMAGE": "f4"}
                )
                for number, (plane, dtype) in enumerate(planes.items()):
                    fits.write(np.full((4, 6), number + 0.5).astype(dtype), extname=plane)
        items.append((name, data_id, path))
    return items


def publish_biases(repository: Repository, run: str) -> None:
    items = publish(repository, run, {"bias": [{"detector": n} for n in range(3)]})
    repository.ingest_products(run, items)


# Making and opening


def test_create_leaves_a_repository_that_the_butler_opens(root: Path) -> None:
    with Butler.from_config(str(root)) as butler:
        detectors = butler.query_dimension_records("detector", instrument=CAMERA)
        assert [(d.id, d.full_name, d.raft, d.name_in_raft, d.purpose) for d in detectors] == DETECTORS
        filters = butler.query_dimension_records("physical_filter", instrument=CAMERA)
        assert {(f.name, f.band) for f in filters} == set(FILTERS)
        children = {name: butler.collections.get_info(f"{CAMERA}/{name}").children for name in ("calib", "defaults")}
    assert children == {"calib": (), "defaults": (RAWS, f"{CAMERA}/calib")}


def test_create_refuses_a_repository_that_is_there(root: Path) -> None:
    with pytest.raises(UsageError, match="is a Butler repository already"):
        create(str(root))


def test_create_that_fails_leaves_nothing_half_done(tmp_path: Path) -> None:
    (tmp_path / "gen3.sqlite3").mkdir()
    with pytest.raises(TransientError, match="unable to open database"):
        create(str(tmp_path))
    assert not (tmp_path / "butler.yaml").exists()


@pytest.mark.parametrize("path", ["a#b", "100%"])
def test_a_path_that_the_butler_would_misread_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot hold [#%]"):
        create(str(tmp_path / path))
    assert not list(tmp_path.iterdir())


def test_no_repository_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"no Butler repository at {tmp_path}/nowhere"):
        open_repository(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("gen3.sqlite3", "not a database " * 200, "database is corrupt"),
        ("butler.yaml", "registry: [", "butler.yaml is not readable YAML"),
        ("gen3.sqlite3", None, "database .*gen3.sqlite3 is not there"),
        ("gen3.sqlite3", "", "made with another daf_butler .*no such table"),
        ("butler.yaml", "- 1\n", "the Butler cannot open it"),
        ("butler.yaml", "cls: lsst.nowhere.Butler\n", "the Butler cannot open it: .*lsst.nowhere.Butler"),
        ("butler.yaml", "registry: {db: 'nosuch:///x'}\n", "the Butler cannot open it: .*nosuch"),
    ],
)
def test_a_corrupt_repository_is_said_to_be(root: Path, file: str, content: str | None, message: str) -> None:
    (root / file).unlink()
    if content is not None:
        (root / file).write_text(content)
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_repository(str(root)).known_instruments()
    assert str(root) in str(caught.value)
    assert caught.value.do or "YAML" in message


UPDATE = "update butler_attributes set value='{}' where name like '{}'"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (UPDATE.format("99.0.1", "version:%Collection%"), r"\[2.0.0\] is not compatible .* 99.0.1 .*Collection"),
        (
            UPDATE.format("lsst.nowhere.X", "config:registry.managers.datasets"),
            "managers do not match .*lsst.nowhere.X",
        ),
        (UPDATE.format("{nonsense", "config:dimensions.json"), "the Butler cannot open it: JSONDecodeError"),
        ("delete from butler_attributes", "the Butler cannot open it: .*config:dimensions.json is missing"),
        ("drop table collection", "no such table: collection"),
    ],
)
def test_a_repository_of_another_butler_says_so(root: Path, change: str, message: str) -> None:
    """Neither a defect of this program, nor something that another try would mend."""
    with closing(sqlite3.connect(root / "gen3.sqlite3")) as database:
        database.execute(change)
        database.commit()
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_repository(str(root), writeable=True).collections()
    assert ("made with another daf_butler than" in caught.value.what) == ("cannot open it" not in message)
    assert caught.value.do


@pytest.mark.parametrize(("universe", "good"), [(5, False), (6, True)])
def test_dimensions_without_the_day_of_observation_are_refused(tmp_path: Path, universe: int, good: bool) -> None:
    old = Path(lsst.daf.butler.__file__).parent / "configs" / "old_dimensions" / f"daf_butler_universe{universe}.yaml"
    Butler.makeRepo(str(tmp_path / "repo"), dimensionConfig=str(old))
    if good:
        assert open_repository(str(tmp_path / "repo")).known_instruments() == ()
        return
    words = "made with another daf_butler .* daf_butler version 5, have no day_obs and no group"
    with pytest.raises(ConfigurationError, match=words):
        open_repository(str(tmp_path / "repo"))


@contextmanager
def nobody() -> Iterator[int]:
    """Root may do everything, so root becomes nobody within the context."""
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(65534)
    try:
        yield os.geteuid()
    finally:
        os.seteuid(uid)


def test_a_repository_that_may_not_be_written_or_reached(base: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(shutil.copytree(base / "repo", Path(place) / "repo"))
        Path(place).chmod(0o755)
        root.chmod(0o555)
        with nobody() as uid, pytest.raises(ConfigurationError, match=f"permission denied on {root} as uid {uid}"):
            open_repository(str(root), writeable=True)
        with nobody():
            assert open_repository(str(root)).known_instruments() == (CAMERA,)
        root.chmod(0o000)
        with (
            nobody() as uid,
            pytest.raises(ConfigurationError, match=f"permission denied on {root}/butler.yaml as uid"),
        ):
            open_repository(str(root))
        root.chmod(0o755)


def test_a_locked_database_is_transient(root: Path) -> None:
    database = root / "gen3.sqlite3"
    engine = sqlalchemy.create_engine(f"sqlite:///{database}", connect_args={"timeout": 0})
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientError, match="database is locked"), told(str(root)), engine.connect() as other:
            other.exec_driver_sql("SELECT * FROM instrument")
    engine.dispose()


def test_a_full_disk_is_transient(root: Path) -> None:
    with pytest.raises(TransientError, match=f"the disk of {root} is full"), told(str(root)):
        Path("/dev/full").write_text("a product")


# Instruments


def test_collections_are_read_once_at_one_time(repository: Repository) -> None:
    asked: list[str] = []

    def count(*arguments: Any) -> None:
        asked.append(arguments[2])

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", count)
    try:
        for kind in [repository.collection_type(RAWS) for _ in range(10)]:
            assert kind == "RUN"
        alone = len(asked)
        with repository.at_one_time():
            assert [repository.collection_type(name) for name in [RAWS, "no/such"] * 5] == ["RUN", None] * 5
        assert len(asked) - alone < alone
        assert repository.collection_type(f"{CAMERA}/calib") == "CHAINED"
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", count)


def test_register_instrument_again_adds_only_what_is_new(repository: Repository, root: Path) -> None:
    repository.define_chain(f"{CAMERA}/calib", [RAWS])
    extra = (7, "R22_S07", "R22", "S07", "GUIDE")
    repository.register_instrument(CAMERA, "toy.Camera", [*DETECTORS, extra], FILTERS)
    assert repository.chain(f"{CAMERA}/calib") == (RAWS,)
    with Butler.from_config(str(root)) as butler:
        assert [d.id for d in butler.query_dimension_records("detector", instrument=CAMERA)] == [0, 1, 2, 7]


def test_a_registration_that_was_killed_is_finished_by_the_next(repository: Repository) -> None:
    repository._butler.collections.redefine_chain(f"{CAMERA}/defaults", [])
    repository.register_instrument(CAMERA, "toy.Camera", DETECTORS, FILTERS)
    assert repository.chain(f"{CAMERA}/defaults") == (RAWS, f"{CAMERA}/calib")


def test_another_meaning_of_a_detector_or_filter_is_refused(repository: Repository) -> None:
    with pytest.raises(ConfigurationError, match="detector 0 of ToyCam has full name 'R22_S00'"):
        repository.register_instrument(CAMERA, "toy.Camera", [(0, "R99", "R22", "S", "SCIENCE")], FILTERS)
    with pytest.raises(ConfigurationError, match="physical filter r_03 of ToyCam has band 'r'"):
        repository.register_instrument(CAMERA, "toy.Camera", DETECTORS, [("r_03", "z")])


def test_a_misspelt_instrument_is_answered_with_the_known_ones(repository: Repository) -> None:
    with pytest.raises(ConfigurationError, match="unknown instrument 'ToyCan': did you mean ToyCam"):
        repository.require_instrument("ToyCan")
    repository.require_instrument(CAMERA)


# Raws


def test_exposure_records_are_what_the_observations_say(base: Path) -> None:
    with Butler.from_config(str(base / "repo")) as butler:
        first, *_, last = butler.query_dimension_records("exposure", instrument=CAMERA, order_by="exposure")
    begin = Time("2024-12-08T20:04:00.125", format="isot", scale="tai")
    assert last.timespan == Timespan(begin, begin + 1.5 * (Time("2024-01-02") - Time("2024-01-01")) / 86400)
    assert (last.id, last.obs_id, last.group, last.day_obs, last.seq_num) == (
        2024120800004,
        "TC_4",
        "TC_4",
        20241208,
        4,
    )
    assert (last.observation_type, last.exposure_time, last.dark_time) == ("flat", 1.5, 1.75)
    assert (last.observation_reason, last.science_program, last.physical_filter) == ("unknown", "BLOCK-1", "r_03")
    assert (first.dark_time, first.zenith_angle, first.can_see_sky) == (None, None, None)


def dump(root: Path) -> list[str]:
    with closing(sqlite3.connect(root / "gen3.sqlite3")) as database:
        return list(database.iterdump())


def test_the_same_files_again_change_nothing(base: Path, repository: Repository, root: Path) -> None:
    before = dump(root)
    same = [observation(base / "raws", *pair) for pair in product(range(5), range(3)) if pair != (4, 1)]
    report = repository.ingest_raws(same, "direct")
    assert (report.new, len(report.existing), report.refused) == ((), 14, ())
    assert dump(root) == before


def trace(path: Path) -> Path:
    """A reading as the simulator writes it."""
    about = {"day_obs": 20241208, "seq_num": 2, "exposure": 2024120800002}
    path.write_bytes(diode.text(np.array([0.0, 1.0]), np.array([-1.5, -2.5]), about, CAMERA))
    return path


@pytest.mark.parametrize("transfer", ["direct", "copy"])
def test_readings_go_to_their_exposures(repository: Repository, root: Path, tmp_path: Path, transfer: str) -> None:
    files = {seq: tmp_path / f"TC_{seq}_photodiode.ecsv" for seq in (3, 4, 9)}
    for seq, path in files.items():
        path.write_text(f"# %ECSV 1.0\n{seq}")
    frames, readings = separated([*map(str, files.values()), "/x/3 0.fits", "/x/notes.ecsv"])
    assert frames == ["/x/3 0.fits", "/x/notes.ecsv"] and list(readings.values()) == ["TC_3", "TC_4", "TC_9"]
    report = repository.ingest_readings(PHOTODIODE, CAMERA, readings, transfer)
    assert report.new == (str(files[3]), str(files[4])) and not report.existing
    (refused,) = report.refused
    assert refused.why == "ToyCam has no exposure TC_9 here: ingest its raw frames first"
    found = repository.readings(PHOTODIODE, [RAWS], CAMERA, [2024120800000 + n for n in range(5)])
    assert found.keys() == {2024120800003, 2024120800004}
    assert Path(found[2024120800003]).read_text().endswith("3")
    assert Path(found[2024120800003]).is_relative_to(root) == (transfer == "copy")
    assert repository.readings(PHOTODIODE, [RAWS], CAMERA, [2024120800001]) == {}
    repository.ingest_readings(PHOTODIODE, CAMERA, {str(trace(tmp_path / "TC_2_photodiode.ecsv")): "TC_2"}, transfer)
    kept = repository.find_dataset(PHOTODIODE, {"instrument": CAMERA, "exposure": 2024120800002}, [RAWS])
    assert kept is not None
    got = repository.get(kept)
    assert got.rows["CURRENT"].tolist() == [-1.5, -2.5] and got.units == {"TIME": "s", "CURRENT": "A"}
    del readings[str(files[9])]
    again = repository.ingest_readings(PHOTODIODE, CAMERA, readings, transfer)
    assert again.new == () and set(again.existing) == set(readings)
    other = tmp_path / "other" / files[3].name
    other.parent.mkdir()
    other.write_text("# %ECSV 1.0\nanother")
    (refused,) = repository.ingest_readings(PHOTODIODE, CAMERA, {str(other): "TC_3"}, transfer).refused
    assert "exposure 2024120800003 has another photodiode reading: " in refused.why


@pytest.mark.parametrize("transfer", ["direct", "copy"])
def test_ingest_takes_what_fits_and_names_what_does_not(
    repository: Repository, root: Path, tmp_path: Path, transfer: str
) -> None:
    good = observation(tmp_path, 30, 0)
    another = observation(tmp_path, 1, 0)
    Path(another.path).write_text("1 1")
    bad = {
        "has no detector 99": observation(tmp_path, 31, 99),
        "unknown filter 'r_3': did you mean r_03": observation(tmp_path, 32, 0, physical_filter="r_3"),
        "with observation type 'bias', this file has 'dark'": observation(tmp_path, 0, 1, observation_type="dark"),
        "detector 0 is there already as .*raws/1 0.fits": another,
        "with observation type 'flat', this file has 'bias'": observation(tmp_path, 30, 1, observation_type="bias"),
        "detector 0 is there already as .*/30 0.fits": dataclasses.replace(
            good, path=observation(tmp_path, 33, 0).path
        ),
        "obs id '' must have 1 to 64 characters": observation(tmp_path, 34, 0, obs_id=""),
        "exposure time -1.0 s is not a time": observation(tmp_path, 35, 0, exposure_time=-1.0),
        "begin '0000-00-00' is not an ISO-8601 time": observation(tmp_path, 36, 0, begin="0000-00-00"),
    }
    report = repository.ingest_raws([good, *bad.values()], transfer)
    assert report.new == (good.path,)
    assert [r.path for r in report.refused] == [o.path for o in bad.values()]
    for wanted, refused in zip(bad, report.refused, strict=True):
        assert pytest.raises(ValueError, match=wanted).matches(ValueError(refused.why)), (wanted, refused.why)
    (raw,) = repository.select([RAWS], f"{EVERYTHING} and exposure.seq_num >= 30").raws
    assert Path(raw.path).read_text() == "30 0"
    assert Path(raw.path).is_relative_to(root) == (transfer == "copy")
    assert repository.ingest_raws([good], transfer).existing == (good.path,)


@pytest.mark.parametrize("transfer", ["direct", "copy"])
def test_the_same_files_are_ingested_by_two_at_once(
    repository: Repository, root: Path, tmp_path: Path, transfer: str
) -> None:
    """The second process, after its look, finds the frames there already."""
    some = [observation(tmp_path, 7, detector) for detector in range(3)]
    files = repository._files

    def late(*arguments: Any) -> Any:
        repository._files = files  # type: ignore[method-assign]
        with open_repository(str(root), writeable=True) as other:
            assert len(other.ingest_raws(some[:2], transfer).new) == 2
        return files(*arguments)

    repository._files = late  # type: ignore[method-assign]
    report = repository.ingest_raws(some, transfer)
    assert (report.new, report.existing) == ((some[2].path,), tuple(one.path for one in some[:2]))
    assert {raw.exposure for raw in repository.select([RAWS], EVERYTHING).raws} >= {some[0].exposure}


def test_ingest_keeps_odd_file_names(repository: Repository, tmp_path: Path) -> None:
    names = ["EFOSC.2022-01-26T19:02:38.210.fits.gz", "a#b%20c?.FIT.gz"]
    frames = [observation(tmp_path, 40 + n, 0) for n in range(len(names))]
    odd = [dataclasses.replace(f, path=str(tmp_path / name)) for f, name in zip(frames, names, strict=True)]
    for frame, other in zip(frames, odd, strict=True):
        Path(frame.path).rename(other.path)
    repository.ingest_raws(odd, "direct")
    found = repository.select([RAWS], f"{EVERYTHING} and exposure.seq_num >= 40").raws
    assert [raw.path for raw in found] == [o.path for o in odd]
    assert all(raw.bytes == len("40 0") for raw in found)


def test_ingest_of_an_unknown_instrument_is_refused(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="unknown instrument 'Other'"):
        repository.ingest_raws([observation(tmp_path, 1, 0, instrument="Other")], "direct")


def test_select_finds_what_the_butler_finds(base: Path, repository: Repository) -> None:
    where = f"{EVERYTHING} and exposure.seq_num in (1..4) and not (exposure.seq_num = 2)"
    selection = repository.select([f"{CAMERA}/defaults"], where)
    with Butler.from_config(str(base / "repo")) as butler:
        refs = butler.query_datasets("raw", RAWS, where=where)
        wanted = {(r.dataId["exposure"], r.dataId["detector"], str(r.id), butler.getURI(r).ospath) for r in refs}
    assert {(r.exposure, r.detector, r.dataset_id, r.path) for r in selection.raws} == wanted
    assert len(wanted) == 8
    keys = [(r.exposure, r.detector) for r in selection.raws]
    assert keys == sorted(keys)
    assert [e.seq_num for e in selection.exposures] == [1, 3, 4]
    assert selection.detectors == (0, 1, 2)
    assert selection.missing == ((2024120800004, 1),)
    bias, _, flat = selection.exposures
    assert (flat.begin, flat.end) == ("2024-12-08T20:04:00.125", "2024-12-08T20:04:01.625")
    assert (flat.type, flat.band, flat.physical_filter, flat.dark_time) == ("flat", "r", "r_03", 1.75)
    assert (bias.begin, bias.end, bias.dark_time) == ("2024-12-08T20:01:00.125", "2024-12-08T20:01:00.125000001", None)


def test_select_counts_raws_that_are_gone(repository: Repository, tmp_path: Path) -> None:
    frame = observation(tmp_path, 50, 0)
    repository.ingest_raws([frame, observation(tmp_path, 50, 1)], "direct")
    Path(frame.path).unlink()
    selection = repository.select([RAWS], f"{EVERYTHING} and exposure.seq_num = 50")
    assert [(raw.detector, raw.bytes) for raw in selection.raws] == [(0, None), (1, 4)]
    assert [raw.path for raw in selection.unreachable] == [frame.path]


def test_select_finds_nothing(repository: Repository) -> None:
    selection = repository.select([RAWS], "instrument='Nobody'")
    assert (selection.exposures, selection.raws, selection.missing) == ((), (), ())


@pytest.mark.parametrize(
    ("collections", "where", "message"),
    [
        ([RAWS], f"{EVERYTHING} and and exposure=1", "Failed to parse expression"),
        ([RAWS], f"{EVERYTHING} and exposure.sequm=1", "Unrecognized field 'sequm'"),
        ([RAWS], f"{EVERYTHING} and expsure=1", "Unrecognized identifier 'expsure'"),
        ([RAWS], "exposure=1", "without constraining it"),
        (["ToyCam/raw/al"], EVERYTHING, f"unknown collection ToyCam/raw/al: did you mean {RAWS}"),
        ([], EVERYTHING, "no collection is named"),
    ],
)
def test_select_says_what_is_wrong(repository: Repository, collections: list[str], where: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        repository.select(collections, where)


def test_select_before_any_ingest(tmp_path: Path) -> None:
    with create(str(tmp_path)) as repository:
        repository.ensure_chain("a")
        with pytest.raises(ConfigurationError, match="nothing was ingested yet"):
            repository.select(["a"], EVERYTHING)


# Products


def test_products_are_read_back_through_the_butler(repository: Repository, root: Path) -> None:
    flats = {"physical_filter": "r_03"}
    wanted: dict[str, list[dict[str, Any]]] = {
        "bias": [{"detector": 0}, {"detector": 1}],
        "biasBin8": [{"detector": 0}],
        "biasMosaic64": [{}],
        "flat": [{"detector": 2, **flats}],
        "flatMeasure": [{"detector": 2, **flats}],
        "flatNormalization": [flats],
    }
    items = publish(repository, RUN, wanted)
    assert all(Path(path).is_relative_to(root / RUN) for _, _, path in items)
    repository.ingest_products(RUN, items)
    before = dump(root)
    repository.ingest_products(RUN, items)
    assert dump(root) == before
    with Butler.from_config(str(root), instrument=CAMERA) as butler:
        bias = butler.get("bias", detector=1, collections=RUN)
        mosaic = butler.get("biasMosaic64", collections=RUN)
        level = butler.get("flatNormalization", physical_filter="r_03", collections=RUN)
        assert butler.get("flatMeasure", detector=2, collections=RUN, **flats)["level"] == 3
    planes = [(plane.dtype, plane.shape, plane.flat[0]) for plane in (bias.image, bias.mask, bias.variance)]
    assert planes == [("float32", (4, 6), 0.5), ("int32", (4, 6), 1), ("float32", (4, 6), 2.5)]
    assert (bias.header["LEVEL"], bias.header["BUNIT"]) == (993.25, "adu")
    assert (mosaic.image.shape, mosaic.mask, mosaic.variance) == ((4, 6), None, None)
    assert level == {"dataset": "flatNormalization", "level": 3}
    assert [d.data_id["detector"] for d in repository.datasets("bias", [RUN])] == [0, 1]
    assert repository.get(repository.datasets("bias", [RUN], f"{EVERYTHING} and detector=1")[0]).image[0, 0] == 0.5


def test_a_raw_is_read_through_the_butler(repository: Repository, root: Path, tmp_path: Path) -> None:
    frame = observation(tmp_path, 60, 0)
    with fitsio.FITS(frame.path, "rw", clobber=True) as fits:
        fits.write(None, header={"RAFTBAY": "R22"})
        fits.write(np.arange(6, dtype="i4").reshape(2, 3), extname="Segment00")
        fits.write(np.arange(6, dtype="i4").reshape(3, 2), compress="RICE")
    repository.ingest_raws([frame], "direct")
    with Butler.from_config(str(root)) as butler:
        raw = butler.get("raw", instrument=CAMERA, exposure=frame.exposure, detector=0, collections=RAWS)
    assert raw.header["RAFTBAY"] == "R22"
    assert {name: image.tolist() for name, image in raw.images.items()} == {
        "Segment00": [[0, 1, 2], [3, 4, 5]],
        2: [[0, 1], [2, 3], [4, 5]],
    }


def test_the_formatter_writes_what_it_reads(repository: Repository, root: Path) -> None:
    from campaign.formatter import CalibImage

    rng = np.random.default_rng(1)
    image, variance = rng.normal(size=(2, 5, 7)).astype("f4")
    publish_biases(repository, RUN)
    with Butler.from_config(str(root), run="u/me") as butler:
        written = CalibImage(image, np.full((5, 7), 4, "i4"), variance, {"BUNIT": "electron"})
        read = butler.get(butler.put(written, "bias", instrument=CAMERA, detector=1))
    assert np.array_equal(read.image, image)
    assert np.array_equal(read.variance, variance)
    assert (read.mask == 4).all()
    assert read.header["BUNIT"] == "electron"


def test_a_certification_that_is_refused_takes_nothing_of_anothers(repository: Repository, root: Path) -> None:
    """Both certify into a new collection: the process that made it, and comes second, leaves the other's datasets."""
    publish_biases(repository, RUN)
    register = repository.register_calibration

    def late(name: str) -> bool:
        made = register(name)
        with open_repository(str(root), writeable=True) as other:
            other.certify(name, other.datasets("bias", [RUN]), None, None)
        return made

    with (
        patch.object(repository, "register_calibration", late),
        pytest.raises(ConfigurationError, match="conflict|overlap"),
    ):
        repository.certify("both", repository.datasets("bias", [RUN]), None, None)
    assert len(repository.associations("bias", ["both"])) == 3


@pytest.mark.parametrize("how", ["forget", "remove"])
def test_whoever_is_killed_before_the_trash_is_emptied_leaves_it_to_the_next(
    repository: Repository, root: Path, how: str
) -> None:
    """Forgotten, and their files still there: the Butler would never come back to them."""
    biases = {"bias": [{"detector": n} for n in range(3)]}
    items = publish(repository, RUN, biases)
    repository.ingest_products(RUN, items)

    def do() -> None:
        if how == "forget":
            repository.forget_products(RUN, [(name, data_id) for name, data_id, _ in items])
        else:
            repository.remove_run(RUN)

    with (
        patch.object(repository._butler._datastore, "emptyTrash", side_effect=KeyboardInterrupt),
        suppress(KeyboardInterrupt),
    ):
        do()
    assert all(Path(path).exists() for _, _, path in items)
    do()
    assert not any(Path(path).exists() for _, _, path in items)
    repository.ingest_products(RUN, publish(repository, RUN, biases))
    assert [d.data_id["detector"] for d in repository.datasets("bias", [RUN])] == [0, 1, 2]


def test_a_product_that_is_not_there_is_not_recorded(repository: Repository) -> None:
    items = publish(repository, RUN, {"bias": [{"detector": 0}, {"detector": 1}]})
    Path(items[1][2]).unlink()
    with pytest.raises(ConfigurationError, match="does not exist"):
        repository.ingest_products(RUN, items)
    assert repository.datasets("bias", [RUN]) == ()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (("biass", {"detector": 0}), "unknown dataset type 'biass': did you mean bias"),
        (("bias", {"detector": 77}), "detector"),
        (("bias", {}), "required dimension 'detector'"),
    ],
)
def test_a_product_that_cannot_be_named_is_refused(
    repository: Repository, item: tuple[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        repository.predict_paths(RUN, [(item[0], {"instrument": CAMERA, **item[1]})])


def test_every_dataset_type_has_a_path_and_can_be_registered(repository: Repository, root: Path) -> None:
    values = {"instrument": CAMERA, "detector": 0, "physical_filter": "r_03", "exposure": 2024120800000}
    wanted = {
        name: [{d: values[d] for d in kind.dimensions}] for name, kind in dataset_types().items() if name != "raw"
    }
    items = publish(repository, RUN, wanted)
    repository.ingest_products(RUN, items)
    assert len({path for _, _, path in items}) == len(dataset_types()) - 1
    with Butler.from_config(str(root)) as butler:
        for name, kind in dataset_types().items():
            registered = butler.get_dataset_type(name)
            assert set(registered.dimensions.required) == set(kind.dimensions)
            curves = ("ptc", "linearizerPtc", "bfkPtc")
            others = ("crosstalk", "cti", "linearizer", "linearizerUnnormalized", "defects", "bfk", "gain_correction")
            tables = (*others, *curves)
            made = ("bias", "dark", "flat", "sky", "fringe", "biasBootstrap", "darkBootstrap", "flatBootstrap")
            assert registered.isCalibration() == (name in (*made, *tables))


def test_dataset_types_of_the_rubin_stack_are_used_as_registered(tmp_path: Path) -> None:
    """Its storage classes and formatters cannot be imported here, its repositories can be worked in."""
    Butler.makeRepo(str(tmp_path / "repo"))
    with Butler.from_config(str(tmp_path / "repo"), writeable=True) as butler:
        for name, kind in (("raw", "Exposure"), ("bias", "ExposureF")):
            dimensions = dataset_types()[name].dimensions
            calibration = dataset_types()[name].calibration
            butler.registry.registerDatasetType(
                DatasetType(name, dimensions, kind, universe=butler.dimensions, isCalibration=calibration)
            )
    with open_repository(str(tmp_path / "repo"), writeable=True) as repository:
        repository.register_instrument(CAMERA, "toy.Camera", DETECTORS, FILTERS)
        assert len(repository.ingest_raws([observation(tmp_path, 1, 0)], "direct").new) == 1
        assert len(repository.select([RAWS], EVERYTHING).raws) == 1
        publish_biases(repository, RUN)
        assert len(repository.datasets("bias", [RUN])) == 3
    with Butler.from_config(str(tmp_path / "repo")) as butler:
        assert butler.get_dataset_type("bias").storageClass_name == "ExposureF"


# Collections


def test_a_run_is_claimed_by_exactly_one_of_several(root: Path) -> None:
    openers = [open_repository(str(root), writeable=True) for _ in range(4)]
    ready = threading.Barrier(len(openers))
    claims: list[bool] = []

    def claim(repository: Repository) -> None:
        ready.wait()
        claims.append(repository.claim_run(RUN))

    threads = [threading.Thread(target=claim, args=(repository,)) for repository in openers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for opened in openers:
        opened.close()
    assert sorted(claims) == [False, False, False, True]


def test_a_collection_of_another_type_is_not_taken(repository: Repository) -> None:
    with pytest.raises(ConfigurationError, match=f"{CAMERA}/calib exists as CHAINED, it should be RUN"):
        repository.claim_run(f"{CAMERA}/calib")
    with pytest.raises(ConfigurationError, match=f"{RAWS} exists as RUN, it should be CHAINED"):
        repository.chain(RAWS)


def test_the_output_chain_is_pipetasks(repository: Repository, root: Path) -> None:
    output = f"{CAMERA}/calib/DM-1/TAG/biasGen.a"
    ticket = f"{CAMERA}/calib/DM-1"
    inputs = [ticket, f"{CAMERA}/defaults"]
    assert repository.require_inputs(inputs, ticket)
    assert not repository.require_inputs(inputs, ticket)
    for name in ("one", "two", "one"):
        repository.claim_run(f"{output}/{name}")
        repository.chain_output(output, f"{output}/{name}", inputs)
    with Butler.from_config(str(root)) as butler:
        children = butler.collections.get_info(output).children
    assert children == (f"{output}/one", f"{output}/two", RAWS)


def test_missing_inputs_are_named_and_nothing_is_made(repository: Repository) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown collection ToyCam/raw/al: .* unknown collection nowhere"):
        repository.require_inputs([f"{CAMERA}/calib/DM-1", "ToyCam/raw/al", "nowhere"], f"{CAMERA}/calib/DM-1")
    assert repository.collection_type(f"{CAMERA}/calib/DM-1") is None


def test_collections_are_listed_with_their_types(repository: Repository) -> None:
    repository.register_calibration(f"{CAMERA}/calib/bias.1")
    assert repository.collections(f"{CAMERA}/calib*") == {
        f"{CAMERA}/calib": "CHAINED",
        f"{CAMERA}/calib/bias.1": "CALIBRATION",
    }


# Find-first


@pytest.fixture(scope="module")
def calibrated(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """Chains of chains over certified collections whose ranges cut the exposures differently, and plain RUNs."""
    root = shutil.copytree(base / "repo", tmp_path_factory.mktemp("calibrated") / "repo")
    with open_repository(str(root), writeable=True) as repository:
        yield calibrate(repository)


def calibrate(repository: Repository) -> Repository:
    edges = ["1970-01-01T00:00:00", "2024-12-08T20:01:30", "2024-12-08T20:03:00", "2100-01-01T00:00:00"]
    for run in ("runA", "runB", "runC"):
        publish_biases(repository, run)
    for number, (begin, end) in enumerate(pairwise(edges)):
        datasets = repository.datasets("bias", [f"run{'ABC'[number]}"])
        repository.certify("split", datasets[: number + 1], begin, end)
    repository.certify("old", repository.datasets("bias", ["runA"]), None, "2024-12-08T20:02:30")
    repository.certify("new", repository.datasets("bias", ["runB"])[1:], "2024-12-08T20:02:00", None)
    repository.define_chain("inner", ["new", "old"])
    repository.define_chain("outer", ["split", "inner", "runC"])
    return repository


@pytest.mark.parametrize(
    "collections",
    [["old"], ["new", "old"], ["outer"], ["inner", "split"], ["runB"], ["old", "runC"], [RAWS, "inner", "runA"]],
)
def test_find_calibrations_is_find_dataset_in_bulk(calibrated: Repository, collections: list[str]) -> None:
    exposures = calibrated.select([RAWS], EVERYTHING).exposures
    found = calibrated.find_calibrations("bias", collections, exposures, (0, 1, 2))
    with Butler.from_config(calibrated.root) as butler:
        for exposure, detector in product(exposures, (0, 1, 2)):
            (record,) = butler.query_dimension_records("exposure", instrument=CAMERA, exposure=exposure.id)
            ref = butler.find_dataset(
                "bias", instrument=CAMERA, detector=detector, collections=collections, timespan=record.timespan
            )
            ours = found.get((exposure.id, detector))
            assert (ours and ours.dataset_id) == (ref and str(ref.id))
            if ours is not None and ref is not None:
                assert (ours.run, ours.path) == (ref.run, butler.getURI(ref).ospath)


def test_find_calibrations_tells_collection_and_validity(calibrated: Repository) -> None:
    exposures = calibrated.select([RAWS], f"{EVERYTHING} and exposure.seq_num in (0, 2, 4)").exposures
    found = calibrated.find_calibrations("bias", ["outer"], exposures, (0, 2))
    told_of = {(e % 10, d): (c.collection, c.run, c.begin, c.end) for (e, d), c in found.items()}
    assert told_of == {
        (0, 0): ("split", "runA", None, "2024-12-08T20:01:30"),
        (0, 2): ("old", "runA", None, "2024-12-08T20:02:30"),
        (2, 0): ("split", "runB", "2024-12-08T20:01:30", "2024-12-08T20:03:00"),
        (2, 2): ("new", "runB", "2024-12-08T20:02:00", None),
        (4, 0): ("split", "runC", "2024-12-08T20:03:00", None),
        (4, 2): ("split", "runC", "2024-12-08T20:03:00", None),
    }


def test_an_ambiguous_calibration_is_refused(calibrated: Repository) -> None:
    (short,) = calibrated.select([RAWS], f"{EVERYTHING} and exposure.seq_num = 1").exposures
    exposures = [dataclasses.replace(short, end="2024-12-08T20:02:00")]
    with pytest.raises(ConfigurationError, match="detector 0: two calibrations of split are valid, from runA and runB"):
        calibrated.find_calibrations("bias", ["split"], exposures, (0,))


def test_find_dataset_reads_back_by_time(calibrated: Repository) -> None:
    key = {"instrument": CAMERA, "detector": 0}
    early = calibrated.find_dataset("bias", key, ["outer"], "2024-12-08T20:00:00", "2024-12-08T20:00:01")
    late = calibrated.find_dataset("bias", key, ["outer"], "2024-12-08T20:04:00", "2024-12-08T20:04:01")
    assert early is not None
    assert late is not None
    assert (early.run, late.run) == ("runA", "runC")
    assert calibrated.find_dataset("bias", key, ["new"], "2024-12-08T20:04:00", "2024-12-08T20:04:01") is None


def test_no_calibration_yet(repository: Repository) -> None:
    exposures = repository.select([RAWS], EVERYTHING).exposures
    assert repository.find_calibrations("dark", [f"{CAMERA}/calib"], exposures, (0,)) == {}


# Times, and the command line of others


@given(st.integers(0, 4102444800 * 10**9))
def test_times_survive_writing_and_reading(nsec: int) -> None:
    assert to_nsec(to_iso(nsec)) == nsec
    with_astropy = Time(to_iso(nsec), format="isot", scale="tai") - Time("1970-01-01T00:00:00", scale="tai")
    assert abs(with_astropy.to_value("s") * 1e9 - nsec) <= 1000


@pytest.mark.parametrize("text", ["2025-02-30", "yesterday", "2025-02-07T00:00:00Z", "2025-02-07T00:00:00.5+01:00", ""])
def test_what_is_no_tai_time(text: str) -> None:
    with pytest.raises(ValueError):
        to_nsec(text)


def test_the_butlers_own_command_line_reads_our_repository(repository: Repository, root: Path) -> None:
    publish_biases(repository, RUN)
    repository.chain_output("out", RUN, [f"{CAMERA}/defaults"])
    commands = [
        ["query-datasets", str(root), "bias", "--collections", "out"],
        ["query-collections", str(root), "--chains", "TREE"],
    ]
    running = [
        subprocess.Popen(apart("butler", *command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    (datasets, errors), (tree, more) = (process.communicate(timeout=60) for process in running)
    assert [process.returncode for process in running] == [0, 0], errors + more
    assert [line.split()[:2] for line in datasets.splitlines() if RUN in line] == [["bias", RUN]] * 3
    lines = [line.split() for line in tree.splitlines()]
    start = lines.index(["out", "CHAINED"])
    assert lines[start + 1 : start + 3] == [[RUN, "RUN"], [RAWS, "RUN"]]
