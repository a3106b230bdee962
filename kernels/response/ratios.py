"""Gains of a detector whose ratios are those of its flats: upstream's PhotonTransferCurveAdjustGainRatiosTask.

A photon transfer curve gives each gain by itself, to some tenths of a percent; the steps between amplifiers in a flat
give their ratios a hundred times better.  The median gain of the detector stays.  An amplifier that truly responds
otherwise than its neighbours, by its silicon or by a sharp edge of the light, is taken for one of another gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera.focalplane import radius_at
from kernels.camera.geometry import Detector
from kernels.errors import JobError
from kernels.fits.product import Card
from kernels.transfer import gainratios
from kernels.transfer.curve import Solution
from kernels.transfer.gainratios import Bins, NoRatios, Ratios

F64 = NDArray[np.float64]

#: Error of a median over that of a mean.
MEDIAN: Final = float(np.sqrt(np.pi / 2))


@dataclass(frozen=True)
class Settings:
    """Settings of the ratios."""

    #: Largest noise (electron) of the amplifier that the others are told from, and lowest percentile of its turnoff.
    noise: float
    percentile: float
    #: Whether the light may change along the radius.
    radial: bool
    #: Side of a bin, and distance from an amplifier's edges, pixel.
    bin: int
    boundary: int
    fit: gainratios.Rule

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], nsigma: float) -> Settings:
        """Check and freeze.

        Raises
        ------
        JobError
            A setting is missing or unknown.
        """
        try:
            return cls(
                float(plain["reference_noise"]), float(plain["reference_percentile"]), bool(plain["radial"]),
                int(plain["bin"]), int(plain["boundary"]),
                gainratios.Rule(
                    order=int(plain["order"]), nodes=int(plain["nodes"]), most=float(plain["most"]),
                    nsigma=nsigma,
                ),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(f"settings of the gain ratios: {error}") from error


def of_flat(images: Mapping[int, NDArray[np.float32]], detector: Detector, settings: Settings) -> Ratios | None:
    """Fit the brightness of the amplifiers of one flat, ADU; `None` where there is nothing to fit.

    Parameters
    ----------
    images : mapping
        By number of the amplifier, its pixels [y, x] in detector orientation, ADU; NaN where bad.
    """
    parts, levels = [], np.full(len(detector.amplifiers), np.nan)
    for number, image in sorted(images.items()):
        box = detector.amplifiers[number].target
        try:
            one = gainratios.binned(image, [(0, 0, box.nx, box.ny)], settings.bin, settings.boundary)
        except NoRatios:
            continue
        if not np.isfinite(one.values).any() or not np.nanmedian(one.values) > 0:
            continue
        levels[number] = np.nanmedian(one.values)
        # over the median, so that gains may differ by any factor
        parts.append((one.values / levels[number], np.full(one.values.size, number), one.x + box.x0, one.y + box.y0))
    if not parts:
        return None
    bins = Bins(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    radius = radius_at(detector, bins.x, bins.y) if settings.radial else None
    try:
        found = gainratios.ratios(
            Bins(bins.values, bins.amplifier, bins.x, bins.y, radius), len(levels), None, settings.fit
        )
    except NoRatios:
        return None
    return gainratios.scaled(found, levels)


@dataclass(frozen=True)
class Adjusted:
    """Gains of a detector by its ratios."""

    #: By amplifier, electron/ADU: gain and its standard error.
    gains: Mapping[str, tuple[float, float]]
    #: Amplifier that the others were told from; empty where nothing was adjusted.
    reference: str = ""
    #: Number of flats.
    flats: int = 0
    #: Reason why nothing was adjusted.
    why: str = ""
    #: Largest change of a gain, relative.
    largest: float = 0.0
    #: Amplifiers with a curve whose gains stay: no ratio, or one too far off.
    kept: Sequence[str] = ()

    @property
    def cards(self) -> list[Card]:
        """Cards of what was done."""
        return [
            ("GAINADJ", not self.why, "whether ratios of gains are those of the flats"),
            ("GAINADJW", self.why[:60], "reason why they are not"),
            ("GAINREF", self.reference, "amplifier that the others were told from"),
            ("GAINFLAT", self.flats, "flats in the ratios"),
            ("GAINMOSF", self.largest, "largest change of a gain, relative"),
            ("GAINKEPT", " ".join(self.kept), "amplifiers whose gains stay as they were"),
        ]


def adjust(
    solution: Solution, names: Sequence[str], flats: Sequence[Ratios], most: int, settings: Settings
) -> Adjusted:
    """Give the gains of the curves the ratios of the flats.

    Parameters
    ----------
    names : sequence of `str`
        The detector's amplifiers, in order.
    flats : sequence of `Ratios`
        Results of `of_flat`.
    most : `int`
        Number of flats that are used, evenly chosen.
    """
    curves = [solution.curves.get(name) for name in names]
    known = {name: (curve.gain, curve.gain_error) for name, curve in solution.curves.items()}

    def column(read: Any) -> F64:
        return np.array([np.nan if one is None else read(one) for one in curves], np.float64)

    gains = column(lambda one: one.gain)
    if not flats:
        return Adjusted(known, why="no flat is in the range of signals")
    used = [flats[n] for n in np.unique(np.linspace(0, len(flats) - 1, min(most, len(flats))).round().astype(int))]
    noises, turnoffs = column(lambda one: one.noise), column(lambda one: one.turnoff.signal)
    try:
        reference = gainratios.reference(gains, noises, turnoffs, settings.noise, settings.percentile)
        # every flat is bright by its own factor: all are told from the reference first
        each = [_over(gainratios.scaled(one, gains), reference) for one in used]
        levels = np.array([np.nanmedian(one.factors) for one in used])
        whole = gainratios.referred(gainratios.levelled(each, levels), reference, settings.fit.most)
    except NoRatios as error:
        return Adjusted(known, why=str(error))
    new = gainratios.adjusted(gains, whole)
    measured = np.isfinite(whole.factors)
    relative = column(lambda one: one.gain_error / one.gain)
    common = MEDIAN * float(np.nanmedian(relative[measured])) / np.sqrt(measured.sum())
    errors = np.where(measured, new * np.hypot(whole.apart / whole.factors, common), gains * relative)
    kept = [name for k, name in enumerate(names) if name in known and not measured[k]]
    return Adjusted(
        {name: (float(new[k]), float(errors[k])) for k, name in enumerate(names) if name in known},
        names[reference],
        len(used),
        largest=float(np.nanmax(np.abs(new / gains - 1))),
        kept=kept,
    )


def _over(found: Ratios, reference: int) -> Ratios:
    """Refer a flat's factors to an amplifier; NaN throughout where it has none."""
    return Ratios(*(part / found.factors[reference] for part in vars(found).values()))
