"""Numbers of a run whose product is a table: what the operator reads at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from campaign.quality.summary import FILE, Summary


@dataclass(frozen=True)
class Table:
    rows: Any
    header: dict[str, Any] = field(default_factory=dict)


def ptc(gains: list[float], **header: Any) -> Table:
    names = ("GAIN", "GAIN_ERR", "NOISE", "NOISE_ERR", "PTC_TURNOFF", "PTC_TURNOFF_SAMPLING_ERROR")
    rows = np.zeros(len(gains), [("AMPLIFIER_NAME", "U3"), *((name, "f8") for name in names),
                                 ("PTC_FIT_PARS", "f8", 3), ("PTC_FIT_PARS_ERROR", "f8", 3)])  # fmt: skip
    rows["AMPLIFIER_NAME"] = [f"C{n:02}" for n in range(len(gains))]
    rows["GAIN"], rows["GAIN_ERR"], rows["NOISE"], rows["PTC_TURNOFF"] = gains, 0.01, 6.0, 9e4
    rows["PTC_FIT_PARS"][:, 0], rows["PTC_FIT_PARS_ERROR"][:, 0] = -3e-6, 1e-7
    return Table(rows, header)


def test_a_ptc_in_numbers() -> None:
    bad = {"NBADAMP": 1, "BADAMP1": "C02: 9 of 9 pairs: no light", "UNEQUAL1": "7 8 +0.2500", "SINGLE1": 33}
    tables = {4: ptc([1.4, 1.5, np.nan], **bad), 5: ptc([1.6, 1.5, 1.7], UNEQUAL1="7 8 +0.2400", DARK1="9 10")}
    found = Summary.of(tables, {4: "R22_S11", 5: "R22_S12"})
    assert found is not None
    assert found.lines == [
        "measured    5 of 6 amplifiers of 2 detectors",
        "numbers     gain: median 1.5 electron/ADU, scatter 0.15, error 0.01; 1.4 (R22_S11 C00) to 1.7 (R22_S12 C02)",
        "numbers     read noise: median 6 electron, scatter 0; 6 (R22_S11 C00) to 6 (R22_S11 C00)",
        "numbers     turnoff: median 90000 ADU, scatter 0; 90000 (R22_S11 C00) to 90000 (R22_S11 C00)",
        "numbers     a00: median -3 1e-6/electron, scatter 0, error 0.1; -3 (R22_S11 C00) to -3 (R22_S11 C00)",
        "BAD         R22_S11 C02: 9 of 9 pairs: no light",
        "left out    exposure 7 and 8: light changed, of 2 detectors",
        "left out    exposure 33: no partner, of 1 detector",
        "left out    exposure 9 and 10: no light, of 1 detector",
    ]


def test_it_is_kept_in_the_runs_folder(tmp_path: Path) -> None:
    found = Summary.of({4: ptc([1.4, 1.5])}, {4: "R22_S11"})
    assert found is not None and Summary.load(tmp_path) is None
    found.save(tmp_path)
    assert Summary.load(tmp_path) == found
    (tmp_path / FILE).write_text("{}")
    assert Summary.load(tmp_path) is None


def test_tables_without_numbers_of_amplifiers_have_none() -> None:
    boxes = np.zeros(3, [("x0", "i4"), ("y0", "i4"), ("width", "i4"), ("height", "i4")])
    assert Summary.of({4: Table(boxes)}, {4: "R22_S11"}) is None and Summary.of({}, {}) is None


def test_kernels_and_linearity_have_their_own() -> None:
    kernels = np.zeros(2, [("AMPLIFIER", "U3"), ("VALID", "?"), ("KERNEL", "f8", 9), ("MEAN_XCORRS", "f8", 9)])
    kernels["AMPLIFIER"], kernels["VALID"], kernels["KERNEL"][:, 4] = ["C00", "C01"], [True, False], [-2e-7, -9e-7]
    found = Summary.of({4: Table(kernels, {"LEFTAMP1": "C01: VALID is false"})}, {4: "R22_S11"})
    assert found is not None and found.measured == 1 and found.bad == {"R22_S11 C01": "VALID is false"}
    assert "centre of the kernel: median -2 1e-7/electron" in found.lines[1]
    linear = np.zeros(2, [("AMPLIFIER_NAME", "U3"), ("LINEARITY_TURNOFF", "f8"), ("FIT_RES_SIGMAD", "f8")])
    linear["AMPLIFIER_NAME"], linear["LINEARITY_TURNOFF"] = ["C00", "C01"], [8e4, np.nan]
    again = Summary.of({4: Table(linear)}, {4: "R22_S11"})
    assert again is not None and again.measured == 1 and "turnoff of linearity: median 80000 ADU" in again.lines[1]
