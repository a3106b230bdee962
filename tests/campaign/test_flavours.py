"""Repositories whose dataset types are those of Rubin's stack, which is not installed: they are registered by name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from lsst.daf.butler import Butler, DatasetType, StorageClass
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.daf.butler.script import exportCalibs

from campaign.butler import lean
from campaign.butler.exports import convert
from campaign.butler.flavours import formatter_class, formatter_of
from campaign.butler.records import RepositoryFlavour
from campaign.butler.repository import Dataset, Repository, create, open_repository
from campaign.errors import ConfigurationError, UsageError
from campaign.formatter import CalibImage, CalibTable, ExposureFormatter
from campaign.kinds.model import Flavour
from campaign.kinds.table import packaged
from campaign.simulation.demo import variables
from campaign.simulation.simulate import Places
from kernels.fits import product
from tests.conftest import ROOT, command, typed

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
    "bps_bias": (("--sites", "usdf,frdf"), ""),
    "bps_dark": ((), "cpDark.yaml#cpDarkIsr,cpDark,cpDarkCombine"),
    "bps_flat_r": ((), "cpFlat.yaml#cpFlatIsr,cpFlatMeasure,cpFlatNormalize,cpFlatCombine"),
}


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


# Small repositories

CAMERA = "ToyCam"
RUN = f"{CAMERA}/calib/T-1/tag/biasGen.a/run"
CERTIFIED = f"{CAMERA}/calib/T-1/tag/bias.a"


def toy(root: Path, flavour: Flavour, *names: str) -> Path:
    """A repository with certified images and tables of two detectors, of some dataset types."""
    with create(str(root)) as repository:
        repository.settle_flavour(flavour)
        detectors = [(n, f"R22_S{n:02}", "R22", f"S{n:02}", "SCIENCE") for n in range(2)]
        repository.register_instrument(CAMERA, "toy.Camera", detectors, [("r_03", "r")])
        keys = [(name, {"instrument": CAMERA, "detector": n}) for name in names for n in range(2)]
        items = [(*key, path) for key, path in zip(keys, repository.predict_paths(RUN, keys), strict=True)]
        for number, (name, _, path) in enumerate(items):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            plane = np.full((4, 6), number + 0.5, "f4")
            product.write(path, [("OBSTYPE", name, ""), ("BUNIT", "adu", "")], plane, plane.astype("i4"), plane)
        repository.ingest_products(RUN, items)
        for name in names:
            repository.certify(CERTIFIED, repository.datasets(name, [RUN]), "2024-12-01T00:00:00", None)
    return root


def exported(root: Path, folder: Path) -> Path:
    """What `butler export-calibs` makes of all that is certified."""
    exportCalibs(str(root), str(folder), [CERTIFIED], dataset_type=(), transfer="copy")
    return folder


def brought(root: Path, export: Path) -> None:
    """Have the Butler import an export."""
    with Butler.from_config(str(root), writeable=True) as butler:
        butler.import_(directory=str(export), filename=str(export / "export.yaml"), transfer="copy")


@contextmanager
def obs_base() -> Iterator[None]:
    """Modules of the names of the stack's formatters, which an import wants to load."""
    names = ["lsst.obs", "lsst.obs.base", "lsst.obs.base.formatters", "lsst.obs.base.formatters.fitsExposure"]
    modules = {name: ModuleType(name) for name in names}
    vars(modules[names[-1]])["FitsExposureFormatter"] = ExposureFormatter
    with patch.dict(sys.modules, modules):
        yield


def test_an_export_goes_into_a_repository_of_the_other_flavour(tmp_path: Path) -> None:
    plain = exported(toy(tmp_path / "a", "plain", "bias", "dark"), tmp_path / "plain")
    stack = toy(tmp_path / "stack", "rubin")
    with open_repository(str(stack), writeable=True) as repository:
        repository._ensure_types(["bias", "dark"])
    with pytest.raises(ConflictingDefinitionError):
        brought(stack, plain)
    answer = typed("convert", str(plain), str(tmp_path / "rubin"), "--flavour", "rubin", environment={})
    assert answer.returncode == 0, answer.stderr
    assert "datasets    2 bias" in answer.stdout and "needs the stack's obs_base" in answer.stderr
    with obs_base():
        brought(stack, tmp_path / "rubin")
    assert {name: one for name, one in recorded(stack).items() if one} == {
        name: {("ExposureF", ExposureFormatter.recorded)} for name in ("bias", "dark")
    }
    with open_repository(str(stack)) as repository:
        found = [repository.get(one) for one in repository.datasets("dark", [RUN])]
        assert [int(one.image[0, 0]) for one in found] == [2, 3]
        assert len(repository.associations("dark", [CERTIFIED])) == 2
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "rubin", check=True)


def test_an_export_comes_back_as_it_was(tmp_path: Path) -> None:
    plain = exported(toy(tmp_path / "a", "plain", "bias", "dark"), tmp_path / "plain")
    convert(plain, tmp_path / "rubin", "rubin")
    back = convert(tmp_path / "rubin", tmp_path / "back", "plain")
    assert back.datasets == {"bias": 2, "dark": 2} and back.bytes == sum(
        p.stat().st_size for p in plain.rglob("*.fits")
    )
    assert (tmp_path / "back" / "export.yaml").read_bytes() == (plain / "export.yaml").read_bytes()
    Butler.makeRepo(str(tmp_path / "other"))
    brought(tmp_path / "other", tmp_path / "back")
    with Butler.from_config(str(tmp_path / "other")) as butler:
        assert butler.get("bias", instrument=CAMERA, detector=1, collections=RUN).image[0, 0] == 1.5


BAD: Mapping[str, tuple[Callable[[str], str], str]] = {
    "formatter": (
        lambda text: text.replace("CalibImageF", "OtherF", 1),
        "has the formatter 'campaign.formatter.OtherF",
    ),
    "class": (
        lambda text: text.replace(": CalibImage\n", ": ImageF\n"),
        "class ImageF, neither CalibImage nor ExposureF",
    ),
    "outside": (lambda text: text.replace("path: ToyCam", "path: ../ToyCam", 1), "lies outside the export"),
    "absolute": (lambda text: text.replace("path: ToyCam", "path: /ToyCam", 1), "lies outside the export"),
    "gone": (lambda text: text.replace("path: ToyCam", "path: TopCam", 1), "is not there"),
    "version": (lambda text: text.replace("version: 1.0", "version: 2.0", 1), "version 2.0.2 is not understood"),
    "another": (lambda text: text.replace("Repository", "Recipe", 1), "it is no export of the Butler"),
    "tag": (lambda text: text.replace("!uuid", "!!python/object/apply:os.getcwd", 1), "is not supported"),
    "flow": (lambda text: text.replace("storage_class: Cal", "'storage_class': Cal", 1), "not written as the Butler"),
    "no type": (lambda text: text.replace("type: dataset_type", "type: other", 1), "which it does not describe"),
    "empty": (lambda text: "", "it is no export of the Butler"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    return exported(toy(folder / "a", "plain", "bias"), folder / "plain")


@pytest.mark.parametrize("bad", BAD)
def test_an_export_that_cannot_be_converted(plain: Path, tmp_path: Path, bad: str) -> None:
    shutil.copytree(plain, tmp_path / "bad")
    change, words = BAD[bad]
    text = (plain / "export.yaml").read_text()
    (tmp_path / "bad" / "export.yaml").write_text(change(text))
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        convert(tmp_path / "bad", tmp_path / "out", "rubin")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_an_export_of_that_flavour_stays(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the export is plain already"):
        convert(plain, tmp_path / "out", "plain")
    with pytest.raises(UsageError, match="exists already"):
        convert(plain, tmp_path, "rubin")


@pytest.mark.parametrize(
    ("stored", "dimensions", "calibration", "words"),
    [
        ("ExposureI", ("instrument", "detector"), True, "the storage class ExposureI, and this program's products are"),
        (
            "ExposureF",
            ("instrument", "exposure", "detector"),
            True,
            "the dimensions instrument, detector, exposure, not",
        ),
        ("ExposureF", ("instrument", "detector"), False, "it is not registered as a calibration"),
    ],
)
def test_a_dataset_type_that_our_products_do_not_fit(
    tmp_path: Path, stored: str, dimensions: tuple[str, ...], calibration: bool, words: str
) -> None:
    root = toy(tmp_path / "repo", "rubin")
    with Butler.from_config(str(root), writeable=True) as butler:
        kind = DatasetType("bias", dimensions, stored, universe=butler.dimensions, isCalibration=calibration)
        butler.registry.registerDatasetType(kind)
    with open_repository(str(root), writeable=True) as repository:
        for call in (
            lambda: repository.predict_paths(RUN, [("bias", {"instrument": CAMERA, "detector": 0})]),
            lambda: repository.ingest_products(RUN, [("bias", {"instrument": CAMERA, "detector": 0}, "x.fits")]),
        ):
            with pytest.raises(ConfigurationError, match="the dataset type bias is registered with") as error:
                call()
            assert words in error.value.what and "butler remove-dataset-type" in error.value.do


def test_a_repository_keeps_its_flavour(tmp_path: Path) -> None:
    for first, then in (("plain", "rubin"), ("rubin", "plain")):
        with open_repository(str(toy(tmp_path / first, first)), writeable=True) as repository:  # type: ignore[arg-type]
            repository.settle_flavour(first)  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError, match=f"dataset types are {first}, not {then}") as error:
                repository.settle_flavour(then)  # type: ignore[arg-type]
            assert f"leave --flavour {then} out" in error.value.do


def test_a_dataset_type_is_used_as_it_was_registered_first(tmp_path: Path) -> None:
    """An earlier version registered ours in a repository of the stack."""
    root = toy(tmp_path / "repo", "rubin")
    with Butler.from_config(str(root), writeable=True) as butler:
        kind = StorageClass("CalibImage", pytype=CalibImage)
        where = ["instrument", "detector"]
        ours = DatasetType("bias", where, kind, universe=butler.dimensions, isCalibration=True)
        butler.registry.registerDatasetType(ours)
    with open_repository(str(root), writeable=True) as repository:
        repository._ensure_types(["bias", "dark"])
        assert repository.flavour() == RepositoryFlavour("rubin", {"bias": "CalibImage"})
        assert [repository._type(name).storageClass_name for name in ("bias", "dark")] == ["CalibImage", "ExposureF"]


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
    """From bootstraps to a certified flat, the bias made by two sites; what each command said."""
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


def test_the_butler_stays_lean_with_types_of_the_stack(places: Places, repository: Repository) -> None:
    """In a process that has imported nothing yet: neither the stack nor what the Butler can do without."""
    dark = made(repository, "dark")[0]
    program = f"""
import sys
from campaign.butler.repository import open_repository
with open_repository({str(places.repository)!r}) as repository:
    (found,) = repository.datasets("dark", [{dark.run!r}], "instrument='LSSTComCam' and detector=0")
    repository.predict_paths("x", [(name, found.data_id) for name in ("dark", "ptc", "crosstalk", "linearizer", "cti")])
    print(repository.flavour().name, repository.get(found).image.shape)
print([name for name in {[*lean.DEFERRED, "lsst.afw", "lsst.ip", "lsst.obs"]!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.splitlines() == [f"rubin {repository.get(dark).image.shape}", "[]"], done.stderr


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
