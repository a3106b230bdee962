"""Repositories whose dataset types are those of Rubin's stack, which is not installed: they are registered by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from lsst.daf.butler import Butler

from campaign.butler.flavours import formatter_class, formatter_of
from campaign.butler.repository import Dataset, Repository, open_repository
from campaign.formatter import CalibImage, CalibTable
from campaign.kinds.table import packaged
from campaign.simulation.demo import variables
from campaign.simulation.simulate import Places
from tests.conftest import command, typed

pytestmark = pytest.mark.processes

TAG = "LSSTComCam/calib/DM-00000/demo"
SELECTION = "instrument='LSSTComCam' and exposure.observation_type="
RUBIN = {
    "bias": "ExposureF",
    "biasBin8": "ExposureF",
    "biasMosaic8": "ImageF",
    "biasBootstrap": "ExposureF",
    "flat": "ExposureF",
    "flatMeasure": "StructuredDataDict",
    "defects": "Defects",
    "raw": "Exposure",
}
#: Options of each submission, and the tasks without the mosaics, which the bias has.
STEPS = {
    "bps_biasBootstrap": ((), "cpBiasBootstrap.yaml#cpBiasBootstrapIsr,cpBiasBootstrapCombine"),
    "bps_darkBootstrap": ((), "cpDarkBootstrap.yaml#cpDarkBootstrapIsr,cpDarkBootstrapCombine"),
    "bps_flatBootstrap": ((), "cpFlatBootstrap.yaml#cpFlatBootstrapIsr,cpFlatBootstrapMeasure,cpFlatBootstrapCombine"),
    "bps_defects": ((), ""),
    "bps_bias": ((), ""),
    "bps_dark": ((), "cpDark.yaml#cpDarkIsr,cpDark,cpDarkCombine"),
    "bps_flat_r": (
        ("--sites", "usdf,frdf"), "cpFlat.yaml#cpFlatIsr,cpFlatMeasure,cpFlatNormalize,cpFlatCombine",
    ),
}  # fmt: skip


# The table


def test_the_formatters_are_those_that_the_stack_gives_its_storage_classes() -> None:
    known = yaml.safe_load(
        (Path(sys.modules["lsst.daf.butler"].__path__[0]) / "configs/datastores/formatters.yaml")
        .read_text()
        .replace("!include", "")
    )
    ours = {one: kind for one in packaged() for one, kind in one.datasets.items()}
    assert {"bias", "dark", "flat", "crosstalk", "defects", "ptc", "linearizer", "cti"} <= ours.keys()
    for name, kind in ours.items():
        formatter = formatter_class(formatter_of(kind, "rubin")).name()
        if kind.storage_class == "StructuredDataDict":
            assert (kind.rubin, formatter) == ("", formatter_of(kind, "plain"))
        else:
            assert kind.rubin and formatter == known[kind.rubin], name


# A whole chain


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Raws that were simulated elsewhere, ingested into a new repository of Rubin's flavour."""
    folder = tmp_path_factory.mktemp("rubin")
    numbers = ("--bias", "4", "--dark", "3", "--flat", "3", "--scale", "16", "--detector", "0", "--detector", "4")
    assert command("simulate", str(folder / "plain"), *numbers).returncode == 0
    camera = folder / "plain" / "campaign" / "cameras" / "LSSTComCam.yaml"
    made = Places(folder / "repo")
    raws = (str(folder / "plain-raw"), "--camera", str(camera))
    done = command("ingest", str(made.repository), *raws, "--flavour", "rubin")
    assert done.returncode == 0, done.stderr
    (folder / "sites").mkdir()
    for name in ("usdf", "frdf"):
        (folder / "sites" / f"{name}.yaml").write_text(f"name: {name}\nscheduler: none\nscratch: {folder}/at-{name}\n")
    return made


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(places: Places) -> Run:
    bootstraps = {f"SELECTION_{k.upper()}_BOOTSTRAP": f"{SELECTION}'{k}'" for k in ("bias", "dark", "flat")}
    sites = str(places.repository.parent / "sites")
    environment = {**variables(places), **bootstraps, "BOOTSTRAP_RUN_NUMBER": "1", "CAMPAIGN_SITES": sites}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = typed(*arguments, environment=environment)
        assert done.returncode == 0, done.stderr
        return done

    return call


@pytest.fixture(scope="module")
def chain(run: Run) -> Mapping[str, str]:
    """From bootstraps to a certified flat, which two sites make; what each command said."""
    said = {}
    for name, (more, tasks) in STEPS.items():
        few = f"pipelineYaml=${{CP_PIPE_DIR}}/pipelines/${{INSTRUMENT}}/{tasks}"
        said[name] = run("submit", name, "--ranks", "1", *more, *(("--set", few) if tasks else ())).stdout
        if "Bootstrap" not in name:
            said[f"certify {name}"] = run("certify", name).stdout
    return said


@pytest.fixture
def repository(places: Places, chain: Mapping[str, str]) -> Iterator[Repository]:
    with open_repository(str(places.repository)) as found:
        yield found


def recorded(root: Path) -> dict[str, set[tuple[str, str]]]:
    """Storage class and formatter of every dataset, by dataset type, as the Butler's own records have them."""
    found: dict[str, set[tuple[str, str]]] = {}
    with Butler.from_config(str(root)) as butler:
        for kind in butler.registry.queryDatasetTypes():
            for ref in butler.query_datasets(kind, "*", find_first=False, explain=False, limit=None):
                (info,) = butler._datastore.getStoredItemsInfo(ref)
                found.setdefault(kind.name, set()).add((kind.storageClass_name, info.formatter))
    return found


def made(repository: Repository, name: str) -> tuple[Dataset, ...]:
    """The datasets of a type, of both detectors or of none."""
    runs = [one for one, kind in repository.collections(f"{TAG}/*").items() if kind == "RUN"]
    return repository.datasets(name, runs)


def test_the_products_are_recorded_as_the_stack_records_its_own(places: Places, repository: Repository) -> None:
    found = recorded(places.repository)
    assert {name: [stored for stored, _ in found[name]] for name in RUBIN} == {n: [s] for n, s in RUBIN.items()}
    base = "lsst.obs.base.formatters"
    assert {found[name].pop()[1] for name in ("bias", "dark", "flat", "biasBin8", "darkBootstrap")} == {
        f"{base}.fitsExposure.FitsExposureFormatter"
    }
    assert found["biasMosaic64"].pop()[1] == f"{base}.fitsExposure.FitsImageFormatter"
    assert found["defects"].pop()[1] == f"{base}.fitsGeneric.FitsGenericFormatter"
    assert found["raw"].pop()[1] == "campaign.formatter.RawFrameFormatter"


def test_they_are_read_here_by_our_own_formatters(repository: Repository) -> None:
    names = ("bias", "defects", "biasMosaic8", "flatMeasure")
    bias, table, mosaic, levels = (repository.get(made(repository, name)[0]) for name in names)
    assert isinstance(bias, CalibImage) and bias.image.shape == bias.mask.shape == bias.variance.shape
    assert isinstance(mosaic, CalibImage) and mosaic.mask is None
    assert isinstance(table, CalibTable) and table.header["OBSTYPE"] == "defects"
    assert isinstance(levels, dict) and levels["exposures"]
    assert "lsst.afw" not in sys.modules and "lsst.obs" not in sys.modules


def test_each_step_applies_what_was_certified_before(repository: Repository) -> None:
    header = repository.get(made(repository, "flat")[0]).header
    for kind in ("bias", "dark", "defects"):
        assert header[f"CALIB_{kind.upper()}_RUN"] == made(repository, kind)[0].run
        assert header[f"CALIB_{kind.upper()}_ID"] == made(repository, kind)[0].dataset_id


def test_check_status_pictures(places: Places, run: Run, chain: Mapping[str, str]) -> None:
    assert "flavour     rubin" in run("check", "bps_bias").stdout
    assert json.loads(run("check", "bps_bias", "--json").stdout)["flavour"] == "rubin"
    states = {one["template"]: one["state"] for one in json.loads(run("status", "--json").stdout)["runs"]}
    assert len(states) == 7 and set(states.values()) == {"done"}
    pictures = {path.stem for path in places.repository.parent.rglob("pictures/*.png")}
    assert pictures == {"defects", "biasMosaic8", "biasMosaic64"}


def test_changed_products_are_made_again_and_unused_runs_are_removed(run: Run, chain: Mapping[str, str]) -> None:
    more = ("--set", f"outputRun={TAG}/other/run", "--set", f"output={TAG}/other", "--json")
    few = f"pipelineYaml=${{CP_PIPE_DIR}}/pipelines/${{INSTRUMENT}}/{STEPS['bps_biasBootstrap'][1]}"
    events = [json.loads(line) for line in run("submit", "bps_biasBootstrap", *more, "--set", few).stdout.splitlines()]
    paths = [Path(e["detail"]["biasBootstrap"]["path"]) for e in events if e["event"] == "published"]
    before = [path.read_bytes() for path in paths]
    paths[0].write_bytes(before[0][:-1] + b"x")
    run("restart", events[0]["run"], "--verify")
    assert [path.read_bytes()[-2880:] for path in paths] == [content[-2880:] for content in before]
    run("clean", "DM-00000", "--yes")
    assert [path.exists() for path in paths] == [False, False]
