"""Files as upstream publishes them, written by astropy and PyYAML from calibrations of ours: nothing here is ours."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from astropy.io import fits
from astropy.table import Table

from kernels.calibrations import isrfiles

#: Name of a file that is valid for ever.
FIRST = "19700101T000000"


def _table(columns: Any, metadata: Any) -> Table:
    plain = {key: value for key, value in metadata.items() if value is not None}
    return Table({name: np.array(values) for name, values in columns.items()}, meta=plain)


def ecsv(source: str | Path, folder: Path, date: str = FIRST) -> Path:
    """Write a file of ours as ``<folder>/<kind>/<detector>/<date>.ecsv``."""
    found = isrfiles.read(str(source))
    path = folder / found.kind / found.detector_name.lower() / f"{date}.ecsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    _table(found.tables[0].columns, found.metadata).write(path, format="ascii.ecsv")
    return path


def table(source: str | Path, folder: Path, date: str = FIRST) -> Path:
    """Write a file of ours as FITS, the metadata in the tables' headers and nothing in the primary one."""
    found = isrfiles.read(str(source))
    path = folder / found.kind / found.detector_name.lower() / f"{date}.fits"
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of HIERARCH cards
        tables = [fits.table_to_hdu(_table(one.columns, found.metadata)) for one in found.tables]
        fits.HDUList([fits.PrimaryHDU(), *tables]).writeto(path)
    return path


def kernel(instrument: str, number: int, name: str, folder: Path, date: str = FIRST, side: int = 17) -> Path:
    """Write a brighter-fatter kernel of a detector as YAML, with a PropertyList; the order of its axes is not said."""
    path = folder / "bfk" / name.lower() / f"{date}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"OBSTYPE": "bfk", "bfk_SCHEMA": "Brighter-fatter kernel", "bfk_VERSION": 1.0, "INSTRUME": instrument,
            "DETECTOR": number, "DET_NAME": name, "KERNEL_DX": side, "KERNEL_DY": side}  # fmt: skip
    kinds = {str: "String", int: "Int", float: "Double"}
    properties = [[key, kinds[type(value)], value, ""] for key, value in said.items()]
    y, x = np.mgrid[:side, :side] - side // 2
    values = (-1e-7 / (1 + x**2 + 2 * y**2)).ravel().tolist()
    listed = yaml.safe_dump(properties, default_flow_style=True, width=1000).strip()
    plain = {"ampKernels": {}, "badAmps": [], "detKernels": {name: values}, "gain": {}, "shape": [side, side]}
    path.write_text(yaml.safe_dump(plain) + f"metadata: !<lsst.daf.base.PropertyList> {listed}\n")
    return path
