"""Flavours of a repository: storage classes of dataset types, and formatters, by which datasets are written and read.

A repository of Rubin's stack has its dataset types with the storage classes of the stack, whose Python types and
formatters are rarely installed here.  Products go in under these types.  For each of them the formatter of the stack is
recorded, and one of ours names, writes and reads its file; the Butler's ``get`` would import the stack's.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from lsst.daf.butler import ButlerConfig, DatasetRef, DatasetType, FileDescriptor, FormatterV2, Location
from lsst.resources import ResourcePath

from campaign.errors import ConfigurationError
from campaign.kinds import table
from campaign.kinds.model import DatasetType as Declared
from campaign.kinds.model import Flavour

FLAVOURS: Final[tuple[Flavour, ...]] = ("plain", "rubin")
#: Formatter of a dataset that is a `dict`; the Butler's own would be YAML.
JSON: Final = "lsst.daf.butler.formatters.json.JsonFormatter"
#: Formatters of the plain storage classes: `templates/repository.yaml` has the same.
PLAIN: Final[Mapping[str, str]] = {
    "CalibImage": "campaign.formatter.CalibImageFormatter",
    "CalibTable": "campaign.formatter.CalibTableFormatter",
    "RawFrame": "campaign.formatter.RawFrameFormatter",
    "StructuredDataDict": JSON,
    "ArrowAstropy": "lsst.daf.butler.formatters.parquet.ParquetFormatter",
}
#: Formatters of the stack's storage classes, by the plain one.
RUBIN: Final[Mapping[str, str]] = {
    **PLAIN,
    "CalibImage": "campaign.formatter.ExposureFormatter",
    "CalibTable": "campaign.formatter.CalibrationFormatter",
}
#: Formatters of some of the stack's storage classes.
SPECIAL: Final[Mapping[str, str]] = {"ImageF": "campaign.formatter.ImageFormatter"}


def formatter_of(declared: Declared, flavour: Flavour) -> str:
    """Name our formatter of a dataset type in a repository of a flavour."""
    if declared.stored(flavour) == declared.storage_class:
        return PLAIN.get(declared.storage_class, "")
    return SPECIAL.get(declared.rubin) or RUBIN[declared.storage_class]


def formatter_class(name: str) -> type[FormatterV2]:
    """Import a formatter."""
    module, _, attribute = name.rpartition(".")
    found: type[FormatterV2] = getattr(importlib.import_module(module), attribute)
    return found


def overlay(config: ButlerConfig) -> None:
    """Have our formatters write and read our dataset types in this process; the repository keeps its configuration."""
    formatters = {}
    for name, declared in table.dataset_types().items():
        if name in table.RAW or declared.storage_class == "StructuredDataDict":
            formatters[name] = formatter_of(declared, "plain")  # of whatever storage class
        else:
            formatters |= {declared.stored(one): formatter_of(declared, one) for one in FLAVOURS}
    for name, formatter in formatters.items():
        if formatter:
            config["datastore", "formatters", name] = formatter


def flavour_of(types: Mapping[str, str]) -> Flavour | None:
    """Tell the flavour of dataset types: that of the raws, else of the first other type; `None` where none is known.

    Parameters
    ----------
    types : `~collections.abc.Mapping`
        Storage classes by dataset type.
    """
    for name, declared in table.dataset_types().items():
        for flavour in FLAVOURS:
            if declared.stored("plain") != declared.stored("rubin") and types.get(name) == declared.stored(flavour):
                return flavour
    return "rubin" if table.RAW.keys() & types.keys() else None


def require_known(there: DatasetType, declared: Declared, root: str) -> None:
    """Refuse a registered dataset type that our products do not fit.

    Raises
    ------
    ConfigurationError
        Its storage class is none of ours, its dimensions are others, or it cannot be certified.
    """
    if there.name in table.RAW:  # only its files are used
        return
    known = {flavour: declared.stored(flavour) for flavour in FLAVOURS}
    wrong = ""
    if there.storageClass_name not in known.values():
        fit = " or ".join(f"{name} ({flavour})" for flavour, name in known.items())
        wrong = f"the storage class {there.storageClass_name}, and this program's products are {fit}"
    elif set(there.dimensions.required) != set(declared.dimensions):
        wrong = f"the dimensions {', '.join(there.dimensions.required)}, not {', '.join(declared.dimensions)}"
    elif declared.calibration and not there.isCalibration():
        wrong = "no validity ranges: it is not registered as a calibration"
    if wrong:
        raise ConfigurationError(
            f"the dataset type {there.name} is registered with {wrong}",
            where=root,
            do="make another repository (`campaign ingest --flavour rubin`), or ask this one's owner to remove it "
            f"with its datasets: `butler remove-dataset-type {root} {there.name}`",
        )


def read(ref: DatasetRef, uri: ResourcePath) -> Any:
    """Read a dataset's file by our own formatter of its dataset type, whatever formatter is recorded.

    Raises
    ------
    ConfigurationError
        The dataset type, or its storage class, is none of ours.
    """
    there, declared = ref.datasetType, table.dataset_types().get(ref.datasetType.name)
    flavour = next((one for one in FLAVOURS if declared and declared.stored(one) == there.storageClass_name), None)
    name = formatter_of(declared, flavour) if declared and flavour else ""
    if not name:
        raise ConfigurationError(f"{there.name} of the storage class {there.storageClass_name} cannot be read here")
    file = FileDescriptor(Location(None, uri), there.storageClass)
    return formatter_class(name)(file, ref=ref).read()
