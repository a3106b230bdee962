"""Calibrations in upstream's layout: astropy writes and reads the files as lsst.ip.isr does."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.table import Table as AstropyTable

from campaign.camera import model as cameras
from campaign.formatter import CalibTableFormatter
from kernels.calibrations import bfk, crosstalk, cti, defects, gaincorrection, isrfiles, isrtext, linearity, ptc
from kernels.calibrations.applied import Calibrations
from kernels.calibrations.config import IsrConfig
from kernels.calibrations.isrcalib import IsrCalib
from kernels.camera import geometry
from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError
from tests.kernels.conftest import Lab
from tests.kernels.test_tables import BOXES, C0, C1, CTI, GAIN, NODES, NOISE, VALUES, akima

#: The order in which these files have the amplifiers: not the camera's.
NAMES = ["C00", "C10", "C01", "C11"]
LONG = "LSST CALIB DEFECTS C00 N_HOT"


@pytest.fixture
def camera(lab: Lab) -> Camera:
    return replace(geometry.camera(lab.camera()), aliases=frozenset({"tiny"}))


def metadata(obstype: str, version: float, **more: Any) -> dict[str, Any]:
    prefix = obstype.removeprefix("manual_")
    return {
        "OBSTYPE": obstype, f"{prefix}_SCHEMA": "as upstream has it", f"{prefix}_VERSION": version, "INSTRUME": "tiny",
        "RAFTNAME": None, "DETECTOR": 1, "DET_NAME": "R22_S01", "FILTER": "", LONG: 3,
        "comment_of_the_maker": "it's " + 9 * "a long text, " + "to its end",
        "SLOTNAME": None, "slotName": "S01", **more,
    }  # fmt: skip


def tables(kind: str, version: float = 0.0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Give a file of a kind: metadata and columns."""
    rows, rng = len(NAMES), np.random.default_rng(1)
    place = [["C10", "C11", "C01", "C00"].index(name) for name in NAMES]
    if kind == "crosstalk":
        meta = metadata("CROSSTALK", version or 1.2, HAS_CROSSTALK=True, NAMP=4, CROSSTALK_SHAPE=[4, 4])
        meta |= {"CROSSTALK_RATIOS_UNITS": "electron"}
        first = {
            "CT_COEFFS": C0.T.reshape(1, -1),
            "CT_ERRORS": np.full((1, 16), np.nan),
            "CT_VALID": C0.T.reshape(1, -1) > -1,
        }
        return meta, [first | {"CT_COUNTS": np.arange(16)[None], "CT_COEFFS_SQR": C1.T.reshape(1, -1)}]
    if kind == "defects":
        return metadata("manual_defects", version or 2.0), [dict(zip(defects.COLUMNS, BOXES.T, strict=True))]
    if kind == "linearizer":
        meta = metadata("LINEARIZER", version or 1.8, HAS_LINEARITY=True)
        coefficients = np.concatenate([NODES, VALUES], axis=1)[place]
        columns = {
            "AMPLIFIER_NAME": NAMES,
            "TYPE": ["Spline"] * rows,
            "COEFFS": coefficients,
            "RED_CHI_SQ": [np.nan] * rows,
        }
        return meta, [columns | {"BBOX_X0": np.arange(rows), "INP_MASK": rng.random((rows, 5)) > 0.5}]
    if kind == "ptc":
        columns = {"AMPLIFIER_NAME": NAMES, "PTC_FIT_TYPE": ["FULLCOVARIANCE"] * rows, "GAIN": GAIN[place]}
        columns |= {
            "NOISE": NOISE[place],
            "A_MATRIX": rng.random((rows, 9)),
            "INPUT_EXP_ID_PAIRS": np.ones((rows, 5, 2), int),
        }
        return metadata("PTC", version or 2.6), [columns | {"FINAL_VARS": np.full((rows, 5), np.nan)}]
    if kind == "cti":
        values = np.array(CTI)[place]
        columns = {
            "AMPLIFIER": NAMES,
            "GLOBAL_CTI": values[:, 0],
            "DRIFT_SCALE": values[:, 2],
            "DECAY_TIME": values[:, 4],
        }
        traps = {"AMPLIFIER": NAMES[:1], "SIZE": [5.0], "EMISSION_TIME": [0.4], "PIXEL": [1], "TYPE": ["linear"]}
        return metadata("CTI", version or 1.3), [columns, traps | {"COEFFS": [[0.1]]}]
    if kind == "gain_correction":
        columns = {"AMP_NAME": NAMES, "GAIN_ADJUSTMENT": 1 + np.arange(rows) / 1000}
        return metadata("gainCorrection", version or 1.0), [columns]
    columns = {"AMPLIFIER": NAMES, "KERNEL": rng.random((rows, 15)), "VALID": [True] * rows}
    meta = metadata("bfk", version or 1.1, LEVEL="AMP", KERNEL_DX=5, KERNEL_DY=3)
    return meta, [columns, {"DETECTOR": ["R22_S01"], "KERNEL": rng.random((1, 15))}]


KINDS = ("crosstalk", "defects", "linearizer", "ptc", "cti", "bfk", "gain_correction")


def write_fits(path: Path, meta: Mapping[str, Any], columns: list[dict[str, Any]]) -> Path:
    """Write a file as IsrCalib.writeFits does."""
    found = [AstropyTable(some) for some in columns]
    found[0].meta = dict(meta)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList([fits.PrimaryHDU(), *map(fits.table_to_hdu, found)]).writeto(path)
    return path


def write_ecsv(path: Path, meta: Mapping[str, Any], columns: list[dict[str, Any]]) -> Path:
    """Write a file as IsrCalib.writeText does."""
    AstropyTable(columns[0], meta=dict(meta)).write(path, format="ascii.ecsv")
    return path


def write_yaml(path: Path, meta: Mapping[str, Any], content: Mapping[str, Any]) -> Path:
    """Write a file as IsrCalib.writeText does, with a PropertyList for the metadata."""
    kinds = {str: "String", int: "Int", float: "Double", bool: "Bool", type(None): "Undef", list: "Int"}
    entries = [[key, kinds[type(value)], value, ""] for key, value in meta.items()]
    text = yaml.safe_dump({"metadata": entries, **content}).replace(
        "metadata:", "metadata: !<lsst.daf.base.PropertyList>"
    )
    path.write_text(text)
    return path


def same(one: IsrCalib, other: IsrCalib) -> None:
    """Require the same content, bit by bit; NaN equals NaN."""
    assert one.metadata == other.metadata and list(one.metadata) == list(other.metadata)
    assert [list(t.columns) for t in one.tables] == [list(t.columns) for t in other.tables]
    for left, right in zip(one.tables, other.tables, strict=True):
        assert left.units == right.units
        for name, values in left.columns.items():
            again = right.columns[name]
            assert (values.dtype, values.shape) == (again.dtype, again.shape), name
            assert values.tobytes() == again.tobytes(), name


def apply(kind: str, path: str, camera: Camera) -> Any:
    """Read a file as the signature removal does."""
    detector = camera.detectors[1]
    return {
        "crosstalk": lambda: crosstalk.Crosstalk.open(path, camera, detector, True),
        "defects": lambda: defects.Defects.open(path, camera, detector),
        "linearizer": lambda: linearity.Linearizer.open(path, camera, detector).tables(),
        "ptc": lambda: ptc.apply(path, camera, detector),
        "cti": lambda: cti.read(path, camera, detector),
        "bfk": lambda: bfk.Kernels.open(path, camera, detector, "yx"),
        "gain_correction": lambda: gaincorrection.apply(path, camera, detector),
    }[kind]()


# Reading and writing


@pytest.mark.parametrize("kind", KINDS)
def test_upstreams_fits_is_read_applied_and_written_alike(kind: str, camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables(kind)
    found = isrfiles.read(str(write_fits(tmp_path / "x.fits", meta, columns)))
    assert (found.kind, found.obstype, found.instrument) == (kind, meta["OBSTYPE"], "tiny")
    assert (found.detector, found.detector_name, found.version) == (
        1,
        "R22_S01",
        max(v for k, v in meta.items() if k.endswith("_VERSION")),
    )
    assert found.metadata[LONG] == 3 and found.metadata["comment_of_the_maker"] == meta["comment_of_the_maker"]
    for table, wanted in zip(found.tables, columns, strict=True):
        for name, values in wanted.items():
            assert np.array_equal(
                table.columns[name],
                np.reshape(values, table.columns[name].shape),
                equal_nan=name not in ("AMP_NAME", "AMPLIFIER", "AMPLIFIER_NAME", "TYPE", "DETECTOR", "PTC_FIT_TYPE"),
            )
    isrfiles.write(found, str(tmp_path / "y.fits"))
    same(found, isrfiles.read(str(tmp_path / "y.fits")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = AstropyTable.read(tmp_path / "y.fits", hdu=1)
    upper = {"slotName": "SLOTNAME"}
    wanted = {upper.get(k, k): v for k, v in meta.items() if v is not None}
    assert {k: back.meta[k] for k in wanted} == wanted
    apply(kind, str(tmp_path / "y.fits"), camera)


@pytest.mark.parametrize("kind", ["crosstalk", "defects", "linearizer", "ptc"])
def test_ecsv_says_the_same_as_fits(kind: str, camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables(kind)
    text = isrfiles.read(str(write_ecsv(tmp_path / "x.ecsv", meta, columns)))
    binary = isrfiles.read(str(write_fits(tmp_path / "x.fits", meta, columns)))
    assert text.metadata == {**meta} and list(text.tables[0].columns) == list(binary.tables[0].columns)
    isrfiles.write(text, str(tmp_path / "y.fits"))
    same(text, isrfiles.read(str(tmp_path / "y.fits")))
    for one, other in zip(text.tables[0].columns.values(), binary.tables[0].columns.values(), strict=True):
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes()


def contents(kind: str) -> dict[str, Any]:
    """Give a file's mappings as IsrCalib.toDict does."""
    _, columns = tables(kind)
    plain = [{name: np.asarray(v).tolist() for name, v in some.items()} for some in columns]
    first = plain[0]
    by = {
        key: dict(zip(NAMES, first[name], strict=True))
        for key, name in {"gain": "GAIN", "noise": "NOISE"}.items()
        if name in first
    }
    if kind == "crosstalk":
        return {"hasCrosstalk": True, "coeffs": first["CT_COEFFS"][0], "coeffsSqr": first["CT_COEFFS_SQR"][0]}
    if kind == "defects":
        return first
    if kind == "linearizer":
        rows = zip(NAMES, first["TYPE"], first["COEFFS"], strict=True)
        return {"amplifiers": {n: {"linearityType": t, "linearityCoeffs": c} for n, t, c in rows}}
    if kind == "ptc":
        return {"ptcFitType": "FULLCOVARIANCE", **by, "ptcTurnoff": {}, "finalVars": {n: [] for n in NAMES}}
    if kind == "cti":
        keys = {"driftScale": "DRIFT_SCALE", "decayTime": "DECAY_TIME", "globalCti": "GLOBAL_CTI"}
        traps = {"C00": {"size": 5.0, "emissionTime": 0.4, "pixel": 1, "trap_type": "linear", "coeffs": [0.1]}}
        return {"serialTraps": traps, **{k: dict(zip(NAMES, first[n], strict=True)) for k, n in keys.items()}}
    if kind == "gain_correction":
        return {"ampNames": NAMES, "gainAdjustments": first["GAIN_ADJUSTMENT"]}
    kernels = dict(zip(NAMES, first["KERNEL"], strict=True))
    return {
        "ampKernels": kernels,
        "detKernels": {"R22_S01": plain[1]["KERNEL"][0]},
        "gain": {},
        "valid": dict.fromkeys(NAMES, True),
        "means": {n: [] for n in NAMES},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_yaml_says_the_same_as_fits(kind: str, camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables(kind)
    text = isrfiles.read(str(write_yaml(tmp_path / "x.yaml", meta, contents(kind))))
    assert {k: text.metadata[k] for k in meta} == meta
    isrfiles.write(text, str(tmp_path / "y.fits"))
    same(text, isrfiles.read(str(tmp_path / "y.fits")))
    assert AstropyTable.read(tmp_path / "y.fits", hdu=1).meta["slotName"] == "S01"
    binary = str(write_fits(tmp_path / "x.fits", meta, columns))
    one, other = (apply(kind, path, camera) for path in (str(tmp_path / "y.fits"), binary))
    assert repr(one) == repr(other)


def test_yaml_of_unknown_objects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("metadata: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(DataError, match="is no YAML file of plain values: .*os.system"):
        isrfiles.read(str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_here_has_every_column_that_upstream_reads(kind: str, camera: Camera, tmp_path: Path) -> None:
    path, detector = str(tmp_path / "x.fits"), camera.detectors[1]
    kernels = bfk.Kernels(np.ones((3, 3)), np.ones((4, 3, 3)))
    {
        "crosstalk": lambda: crosstalk.write(path, camera, detector, C0, C1),
        "defects": lambda: defects.write(path, camera, detector, BOXES),
        "linearizer": lambda: linearity.write(path, camera, detector, NODES, VALUES),
        "ptc": lambda: ptc.write(path, camera, detector, GAIN, NOISE, GAIN),
        "cti": lambda: cti.write(path, camera, detector, CTI, [("RUNID", "r-1", "")]),
        "bfk": lambda: bfk.write(path, camera, detector, kernels),
        "gain_correction": lambda: gaincorrection.write(
            path, camera, detector, {"GAIN_ADJUSTMENT": GAIN / GAIN, "GAIN_ADJUSTMENT_ERR": 0 * GAIN}
        ),
    }[kind]()
    found = isrfiles.read(path)
    ours, newest = ("EPER", "EXPOSURES", "GLOBAL_CTI_ERROR", "DRIFT_SCALE_ERROR"), ("MEANS", "VARIANCES")
    wanted = [
        c.name for c in found.layout.table.columns if c.name not in newest and (kind == "cti" or c.name not in ours)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = AstropyTable.read(path, hdu=1)
        second = AstropyTable.read(path, hdu=2) if found.layout.second and kind in ("cti", "bfk") else None
    assert table.colnames == wanted
    assert [table.meta[k] for k in ("OBSTYPE", "DETECTOR", "DET_NAME")] == [found.layout.obstype, 1, "R22_S01"]
    assert table.meta[f"{found.layout.obstype}_VERSION"] == found.layout.version
    assert table.meta["CALIBCLS"] == found.layout.calibcls and table.meta["INSTRUME"] == "Small"
    if second is not None:
        assert second.colnames == [c.name for c in found.layout.second.columns]
    if kind == "crosstalk":
        assert np.array_equal(np.reshape(table["CT_COEFFS"][0], (4, 4))[3, 0], np.float32(C0[0, 3]))
        assert table.meta["CROSSTALK_SHAPE"] == [4, 4] and table.meta["CROSSTALK_RATIOS_UNITS"] == "electron"
    if kind == "cti":
        assert table.meta["RUNID"] == "r-1"
    again = str(tmp_path / "y.fits")
    isrfiles.write(found, again)
    same(found, isrfiles.read(again))


def test_the_butler_reads_upstreams_file(tmp_path: Path) -> None:
    """Its primary header is empty, and its table has no name."""
    meta, columns = tables("ptc")
    found = CalibTableFormatter.read_from_local_file(None, str(write_fits(tmp_path / "x.fits", meta, columns)))
    assert found.rows.dtype.names == tuple(columns[0]) and found.rows["GAIN"].tolist() == columns[0]["GAIN"].tolist()
    assert found.metadata["PTC_VERSION"] == 2.6 and not {"TTYPE1", "NAXIS2"} & set(found.metadata)


# Applying


def test_crosstalk_is_turned_from_source_target(camera: Camera, tmp_path: Path) -> None:
    """Without names the order is upstream's, whatever the camera file's."""
    meta, columns = tables("crosstalk")  # in the order of the camera: C10, C11, C01, C00, which is upstream's
    path = str(write_fits(tmp_path / "x.fits", meta, columns))
    found = crosstalk.Crosstalk.open(path, camera, camera.detectors[1], True)
    assert np.array_equal(found.c0, C0.astype("f4")) and np.array_equal(found.c1, C1.astype("f4"))
    swapped = replace(camera.detectors[1], amplifiers=camera.detectors[1].amplifiers[::-1])
    turned = crosstalk.Crosstalk.open(path, camera, swapped, True)
    assert np.array_equal(turned.c0, C0[::-1, ::-1].astype("f4"))
    named = replace(camera.detectors[1], amplifiers=tuple(replace(a, name=f"A{a.name}") for a in swapped.amplifiers))
    with pytest.raises(DataError, match="does not name its amplifiers, and the order of AC00, .* in it is unknown"):
        crosstalk.Crosstalk.open(path, camera, named, True)
    meta["AMPNAMES"] = "AC10 AC11 AC01 AC00"
    path = str(write_fits(tmp_path / "y.fits", meta, columns))
    assert np.array_equal(crosstalk.Crosstalk.open(path, camera, named, True).c0, turned.c0)


def test_crosstalk_that_is_not_valid_counts_as_none(camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables("crosstalk", 1.0)
    meta["CROSSTALK_RATIOS_UNITS"] = "electron"
    adu = replace(camera, unit="adu")  # version 1.0 knew no other
    flat, valid = columns[0]["CT_COEFFS"].copy(), columns[0]["CT_VALID"].copy()
    flat[0, 1], valid[0, 2] = np.nan, False
    path = write_fits(tmp_path / "x.fits", meta, [{"CT_COEFFS": flat, "CT_VALID": valid}])
    found = crosstalk.Crosstalk.open(str(path), adu, adu.detectors[1], True)
    wanted = C0.astype("f4")
    wanted[1, 0] = wanted[2, 0] = 0
    assert np.array_equal(found.c0, wanted) and not found.c1.any()
    assert found.notes == (
        "crosstalk: 1 coefficients are no numbers and count as 0",
        "crosstalk: the file has no part that grows with the square (CT_COEFFS_SQR)",
    )
    with pytest.raises(DataError, match=r"is in adu \(CROSSTALK_RATIOS_UNITS\), the frames .* are in electron"):
        crosstalk.Crosstalk.open(str(path), camera, camera.detectors[1], True)


def test_the_square_of_crosstalk_is_judged_by_the_fullest_source(camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables("crosstalk")
    for number, what in ((np.nan, ""), (1e-3, "CT_COEFFS_SQR: a coefficient of 0.001 cannot be: a source of 1.11e.05")):
        flat = columns[0]["CT_COEFFS_SQR"].copy()
        flat[0, 1] = number
        path = str(write_fits(tmp_path / f"{number}.fits", meta, [{**columns[0], "CT_COEFFS_SQR": flat}]))
        if what:
            with pytest.raises(DataError, match=what):
                apply("crosstalk", path, camera)
        else:
            notes = apply("crosstalk", path, camera).notes
            assert "crosstalk: 1 coefficients of the square are no numbers and count as 0" in notes


@pytest.mark.parametrize(
    ("kind", "coefficients"),
    [("Polynomial", [1e300, 1e300]), ("DoubleSpline", [2, 2, 0, 1e5, 0, 1e300, 0, 1e5, 0, 0])],
)
def test_a_linearity_beyond_all_numbers(kind: str, coefficients: list[float], camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables("linearizer")
    rows = {"TYPE": [kind] * len(NAMES), "COEFFS": np.tile(coefficients, (len(NAMES), 1))}
    path = write_fits(tmp_path / "x.fits", meta, [columns[0] | rows])
    with pytest.raises(DataError, match="amplifier C10: "):
        apply("linearizer", str(path), camera)


@pytest.mark.parametrize("kind", ["linearizer", "ptc", "cti", "gain_correction"])
def test_a_table_without_rows(kind: str, camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables(kind)
    none = {name: np.array(values)[:0] for name, values in columns[0].items()}
    path = write_fits(tmp_path / "x.fits", meta, [none, *columns[1:]])
    with pytest.raises(DataError, match="its table has no rows; 4 are wanted, one an amplifier"):
        apply(kind, str(path), camera)


def test_a_double_spline_is_two_after_one_another(camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables("linearizer")
    x1, x2 = np.linspace(0, 9e4, 8), np.linspace(0, 8e4, 5)
    y1, y2 = 40 * np.sin(x1 / 2e4), -90 * (x2 / 8e4) ** 2
    both = np.concatenate([[8, 5], x1, y1, x2, y2, [np.nan] * 3])
    columns[0]["TYPE"], columns[0]["COEFFS"] = ["DoubleSpline"] * 4, np.tile(both, (4, 1))
    grid = apply("linearizer", str(write_fits(tmp_path / "x.fits", meta, columns)), camera)
    adu = np.concatenate([np.linspace(0, 1.2e5, 2000), [-50.0]])
    one = [akima(x1, y1, min(max(x, 0), 9e4)) for x in adu]
    wanted = [s + akima(x2, y2, min(max(x - s, 0), 8e4)) for x, s in zip(adu, one, strict=True)]
    signal = adu.astype("f4")[np.newaxis]
    linearity.apply(signal, grid.values[2], grid.step[2], 1.0)
    assert np.ptp(wanted) > 80 and np.abs(signal[0] - (adu - wanted)).max() < 0.02
    # but for float32 and the two steps at the ends of the splines
    assert np.quantile(np.abs(signal[0] - (adu - wanted)), 0.99) < 0.012


def test_a_linearizer_in_electrons(camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables("linearizer")
    plain = apply("linearizer", str(write_fits(tmp_path / "x.fits", meta, columns)), camera)
    meta["LINEARITY_UNITS"] = "electron"
    gains = np.array([a.gain for name in NAMES for a in camera.detectors[1].amplifiers if a.name == name])
    columns[0]["COEFFS"] = columns[0]["COEFFS"] * gains[:, np.newaxis]
    found = apply("linearizer", str(write_fits(tmp_path / "y.fits", meta, columns)), camera)
    assert np.allclose(found.step, plain.step, rtol=1e-12) and np.allclose(found.values, plain.values, atol=1e-3)


def test_no_linearity_and_types_that_are_not_applied(camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables("linearizer")
    columns[0]["TYPE"], columns[0]["COEFFS"] = ["None"] * 4, np.full((4, 3), np.nan)
    assert not apply("linearizer", str(write_fits(tmp_path / "x.fits", meta, columns)), camera).values.any()
    columns[0]["TYPE"] = ["None", "None", "LookupTable", "None"]
    with pytest.raises(DataError, match="amplifier C01: .* column COEFFS|amplifier C01: column COEFFS"):
        apply("linearizer", str(write_fits(tmp_path / "y.fits", meta, columns)), camera)
    columns[0]["COEFFS"] = np.zeros((4, 3))
    for kind, why in (
        ("LookupTable", "amplifier C01: a LookupTable needs the second table, LOOKUP_VALUES"),
        ("Cubic", "amplifier C01: a linearity of TYPE Cubic cannot be applied; Spline"),
    ):
        columns[0]["TYPE"][2] = kind
        with pytest.raises(DataError, match=why):
            apply("linearizer", str(write_fits(tmp_path / f"{kind}.fits", meta, columns)), camera)


def lookups(signal: Any) -> Any:
    """Make 2 rows of a table of the deviation from squares."""
    return np.array([2e-7 * signal**2, -1e-6 * signal**2])


@pytest.mark.parametrize("gain", [1.0, 1.7])
def test_polynomials_and_look_up_tables_are_applied_as_upstream_does(
    gain: float, camera: Camera, tmp_path: Path
) -> None:
    meta, columns = tables("linearizer")
    kinds = dict(zip(NAMES, ["Squared", "Polynomial", "LookupTable", "LookupTable"], strict=True))
    numbers = [[3e-7, 0.5, np.nan], [-4e-7, 2e-12, -1e-17], [1, 100.0, np.nan], [0, 50.5, np.nan]]
    columns[0]["TYPE"], columns[0]["COEFFS"] = list(kinds.values()), np.array(numbers)
    values = lookups(np.arange(100_000.0))
    found = [columns[0], {"LOOKUP_VALUES": values}]
    grid = apply("linearizer", str(write_fits(tmp_path / "x.fits", meta, found)), camera)
    adu = np.random.default_rng(1).uniform(-90, 1.3e5, 3000)
    for number, amplifier in enumerate(camera.detectors[1].amplifiers):
        row = np.array(numbers[NAMES.index(amplifier.name)])
        signal = (adu * gain).astype("f4")[np.newaxis]
        x = signal[0].astype(float) / gain
        if kinds[amplifier.name] == "LookupTable":
            at = np.clip((x + row[1]).astype(int), 0, 99_999)
            wanted = x + values[int(row[0])][at]
        else:
            powers = row[:1] if kinds[amplifier.name] == "Squared" else row
            wanted = x + sum(c * x**k for k, c in enumerate(powers, 2))
        linearity.apply(signal, grid.values[number], grid.step[number], gain, grid.first[number], grid.smooth[number])
        # a float32 may be on either side of a step of the table
        off = np.abs(signal[0] / gain - wanted)
        assert np.ptp(wanted - x) > 500 and np.quantile(off, 0.97) < 0.02 and off.max() < 0.3


def test_look_up_tables_that_cannot_be(camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables("linearizer")
    columns[0]["TYPE"], columns[0]["COEFFS"] = ["LookupTable"] * 4, np.tile([0.0, 0.0], (4, 1))
    values = lookups(np.arange(1000.0))
    for name, change, why in (
        ("row", {"COEFFS": np.tile([2.0, 0.0], (4, 1))}, "COEFFS name row 2 of LOOKUP_VALUES, which has 2"),
        ("nan", {"values": np.where(values == values[0, 5], np.nan, values)}, "row 0 of LOOKUP_VALUES holds"),
        ("unit", {"LINEARITY_UNITS": "electron"}, "its entries are steps of 1 ADU"),
        ("short", {"COEFFS": np.tile([0.0], (4, 1))}, "COEFFS of a LookupTable cannot be 1 numbers"),
    ):
        own = [{**columns[0], **{k: v for k, v in change.items() if k == "COEFFS"}}]
        own.append({"LOOKUP_VALUES": change.get("values", values)})
        entries = meta | {k: v for k, v in change.items() if k == "LINEARITY_UNITS"}
        with pytest.raises(DataError, match=why):
            apply("linearizer", str(write_fits(tmp_path / f"{name}.fits", entries, own)), camera)


def test_a_linearity_that_ends_early_is_said(camera: Camera, tmp_path: Path) -> None:
    path, plain = str(tmp_path / "x.fits"), camera.detectors[1]
    detector = replace(plain, amplifiers=tuple(replace(a, saturation=1e5 * a.gain) for a in plain.amplifiers))
    nodes = np.array([np.linspace(0, end, 4) for end in (1e4, *[8e4] * (len(detector.amplifiers) - 1))])
    linearity.write(path, camera, detector, nodes, 1e-8 * nodes**2)
    found = linearity.Linearizer.open(path, camera, detector)
    assert found.short(detector) == [f"linearity of {plain.amplifiers[0].name}: ends at 10000 of 100000 ADU"]
    assert not found.short(plain)  # no saturation is known


@pytest.mark.parametrize(("version", "power"), [(1.8, 2), (1.9, 1), (2.6, 1)])
def test_the_noise_of_an_old_fit_of_all_covariances_was_a_square(
    version: float, power: int, camera: Camera, tmp_path: Path
) -> None:
    meta, columns = tables("ptc", version)
    columns[0]["NOISE"] = columns[0]["NOISE"] ** power
    found = apply("ptc", str(write_fits(tmp_path / "x.fits", meta, columns)), camera)
    assert [a.gain for a in found.amplifiers] == list(GAIN)
    assert np.allclose([a.read_noise for a in found.amplifiers], NOISE, rtol=1e-15)


def test_defects_may_be_floats_and_none(camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables("defects")
    floats = {name: values.astype(float) for name, values in columns[0].items()}
    found = apply("defects", str(write_ecsv(tmp_path / "x.ecsv", meta, [floats])), camera)
    assert np.array_equal(found.boxes, BOXES) and found.boxes.dtype == np.int64
    none = {name: values[:0] for name, values in floats.items()}
    assert len(apply("defects", str(write_ecsv(tmp_path / "y.ecsv", meta, [none])), camera).boxes) == 0
    floats["x0"][1] += 0.5
    with pytest.raises(DataError, match="is not of whole pixels"):
        apply("defects", str(write_ecsv(tmp_path / "z.ecsv", meta, [floats])), camera)


def test_what_is_not_applied_is_named(camera: Camera, tmp_path: Path) -> None:
    paths = {kind: str(write_fits(tmp_path / f"{kind}.fits", *tables(kind))) for kind in ("crosstalk", "cti")}
    found = Calibrations.open(
        camera, camera.detectors[1], IsrConfig(crosstalk=True, deferred=True), lambda role: paths[role]
    )
    assert found.notes == ("cti: the serial traps of 1 amplifiers are not corrected",)
    assert found.left_out == [("LEFTOUT0", found.notes[0], "not applied")]
    assert found.deferrals is not None and [d.cti for d in found.deferrals] == [row[0] for row in CTI]


def test_the_order_of_a_kernels_axes_is_never_guessed(camera: Camera, tmp_path: Path) -> None:
    path, detector = str(write_fits(tmp_path / "x.fits", *tables("bfk"))), camera.detectors[1]
    with pytest.raises(DataError, match="the order of the kernel's axes is unknown: KERNEL_AXES is missing"):
        bfk.Kernels.open(path, camera, detector)
    one, other = (bfk.Kernels.open(path, camera, detector, axes) for axes in ("xy", "yx"))
    assert (
        one.detector is not None and other.detector is not None and one.detector.shape == other.detector.shape == (3, 5)
    )
    assert not np.array_equal(one.detector, other.detector)
    assert one.amplifiers is not None and one.amplifiers.shape == (4, 3, 5)
    bfk.write(str(tmp_path / "y.fits"), camera, detector, one)
    back = bfk.Kernels.open(str(tmp_path / "y.fits"), camera, detector)
    assert back.detector is not None and back.amplifiers is not None
    assert np.array_equal(back.detector, one.detector) and np.array_equal(back.amplifiers, one.amplifiers)
    with pytest.raises(DataError, match="KERNEL_AXES is yx, xy was given"):
        bfk.Kernels.open(str(tmp_path / "y.fits"), camera, detector, "xy")


# Bad input


def test_a_ptc_whose_noise_is_in_adu_is_refused(camera: Camera, tmp_path: Path) -> None:
    path = write_fits(tmp_path / "x.fits", *tables("ptc"))
    with fits.open(path, mode="update") as file:
        file[1].columns["NOISE"].unit = "adu"
    with pytest.raises(DataError, match=r"column NOISE is in adu \(TUNIT\), electron is wanted"):
        apply("ptc", str(path), camera)


NEEDED = {"crosstalk": "CT_COEFFS", "defects": "width", "linearizer": "TYPE", "ptc": "GAIN", "cti": "DECAY_TIME"}


@pytest.mark.parametrize("kind", list(NEEDED))
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"INSTRUME": "Large"}, "is of Large (INSTRUME), the frames are of Small (tiny)"),
        ({"INSTRUME": None}, "is of no instrument (INSTRUME), the frames are of Small (tiny)"),
        ({"DETECTOR": 0}, "is of detector 0 R22_S01 (DETECTOR, DET_NAME), the frames are of 1 R22_S01"),
        ({"DET_NAME": "R22_S00"}, "is of detector 1 R22_S00 (DETECTOR, DET_NAME), the frames are of 1 R22_S01"),
        ({"DETECTOR": None, "DET_NAME": ""}, "is of detector nothing (DETECTOR, DET_NAME)"),
        ({"VERSION": 9.5}, "version 9.5; "),
        ({"VERSION": "new"}, "_VERSION is 'new', which is no version"),
        ({"OBSTYPE": "FLAT"}, "is FLAT (OBSTYPE), which is none of crosstalk, "),
        ({"OBSTYPE": "bfk", "bfk_VERSION": 1.0}, "is bfk (OBSTYPE), "),
        ({"without": ""}, "has no column "),
        ({"unit": "mm"}, "is in mm (TUNIT), "),
    ],
)
def test_a_file_that_cannot_be_applied(
    kind: str, change: dict[str, Any], said: str, camera: Camera, tmp_path: Path
) -> None:
    meta, columns = tables(kind)
    version = next(key for key in meta if key.endswith("_VERSION"))
    if "without" in change:
        del columns[0][NEEDED[kind]]
    else:
        meta |= {version if key == "VERSION" else key: value for key, value in change.items() if key != "unit"}
    path = write_fits(tmp_path / "x.fits", meta, columns)
    if "unit" in change:
        with fits.open(path, mode="update") as file:
            number = file[1].columns.names.index(NEEDED[kind]) + 1
            file[1].header[f"TUNIT{number}"] = "mm"
    with pytest.raises(DataError) as error:
        apply(kind, str(path), camera)
    assert said in error.value.why and "\n" not in str(error.value)


def test_a_version_too_old_to_be_understood(camera: Camera, tmp_path: Path) -> None:
    path = write_fits(tmp_path / "x.fits", *tables("cti", 1.0))
    with pytest.raises(DataError, match=r"is CTI version 1; 1\.1 to 1\.3 are known here"):
        apply("cti", str(path), camera)


@pytest.mark.parametrize(
    ("kind", "column"), [("linearizer", "COEFFS"), ("ptc", "NOISE"), ("cti", "GLOBAL_CTI"), ("cti", "DECAY_TIME")]
)
def test_no_number_in_what_is_applied(kind: str, column: str, camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables(kind)
    values = np.array(columns[0][column], float)
    values[(2, 4) if values.ndim > 1 else 2] = np.nan
    path = write_fits(tmp_path / "x.fits", meta, [columns[0] | {column: values}, *columns[1:]])
    with pytest.raises(DataError, match=r"C01.*(is no number|decay nan)|is no number \(amplifier C01\)"):
        apply(kind, str(path), camera)


@pytest.mark.parametrize(
    ("kind", "number", "column"),
    [
        ("crosstalk", 0, "CT_COEFFS"), ("crosstalk", 0, "CT_VALID"), ("defects", 0, "x0"), ("linearizer", 0, "COEFFS"),
        ("ptc", 0, "GAIN"), ("cti", 0, "DECAY_TIME"), ("cti", 1, "SIZE"), ("bfk", 1, "KERNEL"),
    ],
)  # fmt: skip
def test_texts_in_place_of_numbers(kind: str, number: int, column: str, camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables(kind)
    columns[number] |= {column: np.full(np.shape(columns[number][column]), "many")}
    path = write_fits(tmp_path / "x.fits", meta, columns)
    with pytest.raises(DataError, match=f"{column}.* no (numbers|switches)"):
        apply(kind, str(path), camera)


@pytest.mark.parametrize("kind", ["linearizer", "ptc", "cti"])
def test_amplifiers_of_another_detector(kind: str, camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables(kind)
    name = "AMPLIFIER" if kind == "cti" else "AMPLIFIER_NAME"
    for names, said in (
        (["C00", "C10", "C01", "C17"], "only the table has C17; only the camera has C11"),
        (["C00", "C10", "C01", "C00"], "only the camera has C11"),
    ):
        path = tmp_path / f"{names[-1]}.fits"
        write_fits(path, meta, [columns[0] | {name: names}, *columns[1:]])
        with pytest.raises(DataError, match=said):
            apply(kind, str(path), camera)


def test_a_crosstalk_of_another_number_of_amplifiers(camera: Camera, tmp_path: Path) -> None:
    meta, columns = tables("crosstalk")
    path = write_fits(tmp_path / "x.fits", meta, [{"CT_COEFFS": columns[0]["CT_COEFFS"][:, :9]}])
    with pytest.raises(DataError, match="column CT_COEFFS holds 9 values, .*; 4 x 4 are wanted for the amplifiers"):
        apply("crosstalk", str(path), camera)


@pytest.mark.parametrize(
    "text", ["", "a\x00b", "# %ECSV 1.0\n# ---\nnothing", "- 1\n- 2\n", "metadata: 3\n", "&a [*a]"]
)
@pytest.mark.parametrize("name", ["x.fits", "x.ecsv", "x.yaml"])
def test_a_file_that_is_none(text: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError) as error:
        isrfiles.read(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "column", "value", "said"),
    [
        ("ptc", "GAIN", [[1.0, 1.0]] * 4, "column GAIN has cells of (2,) values, a number a row is wanted"),
        ("defects", "x0", [[1, 1]] * len(BOXES), "column x0 has cells of (2,) values"),
        ("cti", "DECAY_TIME", ["long"] * 4, "column DECAY_TIME holds <U4, no numbers"),
        ("crosstalk", "CT_VALID", [["yes"] * 16], "column CT_VALID holds <U3, no switches"),
        ("crosstalk", "CT_COEFFS", np.full((1, 16), 1e39), "a coefficient of 1e+39 cannot be"),
    ],
)
def test_a_column_of_something_else(
    kind: str, column: str, value: Any, said: str, camera: Camera, tmp_path: Path
) -> None:
    meta, columns = tables(kind)
    path = write_fits(tmp_path / "x.fits", meta, [columns[0] | {column: value}, *columns[1:]])
    with pytest.raises(DataError) as error:
        apply(kind, str(path), camera)
    assert said in error.value.why


@pytest.mark.parametrize(
    ("kind", "name", "value"), [("ptc", "DETECTOR", -1), ("defects", "DETECTOR", "R22"), ("bfk", "KERNEL_DX", 1.5)]
)
def test_what_is_no_whole_number_is_not_passed_over(
    kind: str, name: str, value: Any, camera: Camera, tmp_path: Path
) -> None:
    meta, columns = tables(kind)
    path = write_fits(tmp_path / "x.fits", meta | {name: value}, columns)
    with pytest.raises(DataError, match=f"{name} is '{value}', a whole number is wanted"):
        apply(kind, str(path), camera)


@pytest.mark.parametrize("value", ["!!int ''", "!!bool x", "!!timestamp x", "!!float ''", "!!python/object:a.B {}"])
def test_yaml_of_odd_values_is_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"metadata: {{OBSTYPE: {value}}}\n")
    with pytest.raises(DataError, match="is no YAML file of plain values"):
        isrfiles.read(str(path))


def test_text_beyond_the_limits_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    levels = [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefgh")]
    path.write_text(f"a: &a [{', '.join('1' * 10)}]\n{''.join(levels)}metadata: {{OBSTYPE: PTC, x: *h}}\n")
    with pytest.raises(DataError, match="more than 10000000 values, aliases expanded"):
        isrfiles.read(str(path))
    monkeypatch.setattr(isrtext, "LARGEST", 100)
    for name in ("x.yaml", "x.ecsv"):
        (tmp_path / name).write_text("# %ECSV 1.0\n" * 20 if name == "x.ecsv" else path.read_text())
        with pytest.raises(DataError, match="is larger than"):
            isrfiles.read(str(tmp_path / name))


# Real files


load = cache(cameras.load)  # LSSTCam's file takes a second


def real(instrument: str, detector: int | None, unit: str) -> tuple[Camera, Detector]:
    name = {"ComCam": "LSSTComCam"}.get(instrument, instrument)
    camera = geometry.camera(load(name).plain([detector or 0]))
    return replace(camera, unit=unit or camera.unit), camera.detectors[detector or 0]


def test_every_file_that_rubin_publishes_is_read_applied_and_written_alike(curated: list[Path], tmp_path: Path) -> None:
    applied = dict.fromkeys(("crosstalk", "defects"), 0)
    for number, path in enumerate(curated):
        found, copy = isrfiles.read(str(path)), str(tmp_path / f"{number}.fits")
        isrfiles.write(found, copy)
        same(found, isrfiles.read(copy))
        if found.kind == "bfk":
            assert found.axes == "" and found.tables[1].columns["KERNEL"].shape == (1, 289)
            continue
        camera, detector = real(found.instrument, found.detector, found.unit)
        for file in (str(path), copy):
            if found.kind == "defects":
                boxes = defects.Defects.open(file, camera, detector).boxes
                assert len(boxes) == found.tables[0].rows
            else:
                c = crosstalk.Crosstalk.open(file, camera, detector, True)
                names, n = [a.name for a in detector.amplifiers], len(detector.amplifiers)
                flat = found.tables[0].columns["CT_COEFFS"].reshape(n, n)
                target, source = names.index("C11"), names.index("C10")
                assert c.c0.shape == (n, n) and c.c0[target, source] == np.float32(flat[source, target])
        applied[found.kind] += 1
    assert min(applied.values()) > 20


def test_the_crosstalk_of_comcam_is_not_symmetric(curated: list[Path]) -> None:
    """So that a matrix taken for its transpose would be seen."""
    (path,) = (p for p in curated if "comcam/crosstalk/r22_s00" in str(p).lower())
    camera, detector = real("ComCam", 0, "electron")
    c0 = crosstalk.Crosstalk.open(str(path), camera, detector, False).c0
    assert 0.2 * np.abs(c0).max() < np.abs(c0 - c0.T).max() < np.abs(c0).max()
    assert c0[1, 0] == np.float32(0.00020173155215294508) and c0[0, 1] == np.float32(0.00019157291095787406)


def test_a_real_crosstalk_in_adu_is_refused_for_frames_in_electron(curated: list[Path]) -> None:
    (path,) = (p for p in curated if "latiss/crosstalk" in str(p))
    camera, detector = real("LATISS", 0, "electron")
    with pytest.raises(DataError, match=r"is in adu \(CROSSTALK_RATIOS_UNITS\)"):
        crosstalk.Crosstalk.open(str(path), camera, detector, True)
