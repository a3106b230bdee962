"""The table of product kinds agrees with the kernels, the files and the documentation that it speaks of."""

from __future__ import annotations

import tomllib
from dataclasses import fields

import pytest
import yaml

from campaign.kinds import isr, table
from campaign.kinds.defects import THRESHOLDS
from campaign.kinds.model import Calibrations, ProductKind
from campaign.kinds.task import PipelineTask
from campaign.quality.tables import TABLES
from kernels import run
from kernels.calibrations.config import IsrConfig
from kernels.products.defectfind import KINDS
from templates import ROOT as TEMPLATES
from tests.conftest import ROOT

EVERY = table.packaged()


def test_every_kernel_of_a_kind_exists() -> None:
    named = {task.kernel for task in table.tasks().values() if task.kind != "fused"}
    costs = {kernel for kind in EVERY for kernel in kind.costs}
    assert named | costs | {"correct"} <= run.KERNELS.keys()
    assert named >= {"combine", "cti", "defects", "flat_measure", "flat_normalise", "mosaic"}


def test_kernels_know_every_setting_of_a_correction() -> None:
    corrections = table.corrections().values()
    assert len({one.setting for one in corrections}) == len(corrections)
    IsrConfig.from_plain({one.setting: True for one in corrections})
    assert tuple(THRESHOLDS) == KINDS


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.name)
def test_a_kind_is_whole(kind: ProductKind) -> None:
    """Kinds that are made have a task, an output and groups; those that are read have a type; formats are known."""
    formats = {
        *yaml.safe_load((TEMPLATES / "repository.yaml").read_text())["storageClasses"],
        "StructuredDataDict",
        "ArrowAstropy",
    }
    assert {one.storage_class for one in kind.datasets.values()} <= formats
    assert kind.picture in ("", "image", "bins", *TABLES)
    makers = [task for task in {**kind.tasks, **isr.tasks({})}.values() if task.kernel == kind.maker]
    assert bool(kind.maker) == bool(makers) == bool(kind.made_of) == (kind.groups is not None)
    for task in makers:
        # a task behind the maker, in the same kernel, has one output: the kind's own
        behind = [table.of_dataset(name) for name in task.outputs.values()] == [kind]
        assert (kind.output in task.outputs or behind) and kind.config.keys() <= task.fields.keys()
    if isinstance(kind.made_of, Calibrations):
        readers = [task for task in kind.tasks.values() if task.kernel == kind.made_of.kernel]
        assert readers and all(kind.made_of.connection in task.inputs for task in readers)
    if kind.correction:
        assert kind.datasets[kind.name].calibration


def test_the_packaged_kinds_are_declared_as_others_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["drp_campaign.kinds"]
    assert declared.items() <= {kind.name: f"campaign.kinds.{kind.name}:KIND" for kind in EVERY}.items()
    assert declared.keys() >= set(table.ORDER)


def test_every_dataset_type_is_documented() -> None:
    section = (ROOT / "docs" / "products.md").read_text().partition("## Dataset types")[2].partition("\n## ")[0]
    first = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| "))
    named = set(first.replace(",", " ").split())
    whole = {name for name in table.dataset_types() if not any(part in name for part in ("Bin", "Mosaic", "Bootstrap"))}
    assert whole <= named


def test_a_digest_of_an_earlier_run_is_still_comparable() -> None:
    """Runs keep a digest of their pipeline's tasks, field by field."""
    names = ("label", "cls", "kernel", "kind", "dimensions", "config", "settings", "inputs", "outputs")
    assert tuple(field.name for field in fields(PipelineTask)) == names


def test_a_dataset_type_tells_its_kind() -> None:
    for name, kind in {"biasBootstrapMosaic8": "bias", "flatMeasure": "flat", "postISRCCD": "corrected"}.items():
        found = table.of_dataset(name)
        assert found is not None and found.name == kind
    assert table.of_dataset("skyline") is None
    assert [name for name in ("bias", "cti", "defects", "ptc", "sky") if table.judged(name)] == ["bias", "cti"]
