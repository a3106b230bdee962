"""Flats of a detector as the linearity's fit takes them: measured, or read back from a linearizer that has them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import isrfiles, linearity
from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError
from kernels.transfer.linearmodel import Light

F64 = NDArray[np.float64]

#: Dataset types of a linearizer against the monitor alone, and of the light that the focal plane saw.
UNNORMALISED: Final = "linearizerUnnormalized"
NORMALISATION: Final = "linearizerNormalization"
#: Entries of a linearizer that is to be normalised: `Flats.photon`, and flats without a reading.
PHOTON, LACKING = "PHOTON", "NODIODE"


@dataclass(frozen=True)
class Flats:
    """Signals of a detector's flats, and their light."""

    #: [amplifier, exposure], float64: Means, ADU; not a number where an amplifier could not be measured.
    signals: F64
    #: Noise of a mean, relative, times the root of the mean, ADU^0.5.
    photon: float
    light: Light
    #: [amplifier], float64: Turnoffs of the PTC, ADU; not a number without one.
    ptc: F64
    #: By amplifier, electron.
    noises: Sequence[float]
    #: Flats without a reading of the monitor, and why the first one has none.
    lacking: int = 0
    reason: str = ""
    #: Whether the exposure time takes the place of such a reading; otherwise the flat is left out.
    timed: bool = False
    #: [exposure], float64: By which the light was multiplied; scatter of the monitor before, and uncertainty after it.
    normalisation: F64 | None = None
    scatter: float = 0.0
    common: float = 0.0

    @property
    def left_out(self) -> int:
        """Number of flats without light."""
        return 0 if self.timed else self.lacking

    def normalised(self, factor: F64, scatter: float, common: float) -> Flats:
        """Correct the light by what the focal plane saw."""
        light = replace(self.light, amount=self.light.amount * factor)
        return replace(self, light=light, normalisation=factor, scatter=scatter, common=common)


def read(path: str, camera: Camera, detector: Detector) -> tuple[Flats, Detector]:
    """Read the flats of a linearizer, and the detector with the gains that they were measured with.

    Raises
    ------
    DataError
        It is another detector's, or lacks a column.
    """
    found = isrfiles.read(path)
    found.require(linearity.KIND, camera, detector)
    columns, order = found.tables[0].columns, found.order(detector)
    wanted = ("INP_ABSCISSA", "INP_ORDINATE", "INP_GROUPING_INDEX", "INPUT_TURNOFF", "INPUT_GAIN", "ABS_REF_AMP")
    if missing := [name for name in wanted if name not in columns]:
        raise DataError(path, f"has no column {missing[0]}: it holds no flats")
    cells: dict[str, NDArray[Any]] = {name: columns[name][order] for name in wanted}
    if PHOTON not in found.metadata:
        raise DataError(path, f"has no {PHOTON}: it was not made to be normalised")
    light = Light(
        np.asarray(cells["INP_ABSCISSA"][0], np.float64), np.asarray(cells["INP_GROUPING_INDEX"][0], np.int64)
    )
    reference = str(cells["ABS_REF_AMP"][0]).strip()
    # the reference amplifier stays what it was: it alone is quiet
    noises = [0.0 if a.name == reference else math.inf for a in detector.amplifiers]
    gains = zip(detector.amplifiers, cells["INPUT_GAIN"], strict=True)
    with_gains = replace(detector, amplifiers=tuple(replace(a, gain=float(gain)) for a, gain in gains))
    signals, ptc = (np.asarray(cells[name], np.float64) for name in ("INP_ORDINATE", "INPUT_TURNOFF"))
    photon, lacking = float(found.metadata[PHOTON]), found.whole(LACKING, "0") or 0
    return Flats(signals, photon, light, ptc, noises, lacking), with_gains


def write_normalisation(path: str, content: dict[str, Any]) -> None:
    """Write the light of the focal plane; floats keep all bits."""
    with open(path, "w") as file:
        json.dump(content, file, separators=(",", ":"))


def read_normalisation(path: str, exposures: Sequence[int]) -> tuple[F64, float, float]:
    """Read the factors of a detector's exposures, the scatter of the monitor, and the uncertainty of what is left.

    Raises
    ------
    DataError
        The file cannot be read, or lacks an exposure.
    """
    try:
        with open(path) as file:
            found = json.load(file)
        factors = dict(zip(found["exposures"], found["factor"], strict=True))
        wanted = np.array([factors[e] for e in exposures], np.float64)
        return wanted, float(found["monitor"]), float(found["common"])
    except KeyError as error:
        raise DataError(path, f"has no light of exposure {error}") from error
    except (OSError, ValueError, TypeError) as error:
        raise DataError(path, f"not readable as JSON: {error}") from error
