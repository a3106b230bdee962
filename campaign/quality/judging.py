"""Judges the inputs table: finds exposures, amplifiers and groups of exposures unlike the others.

A value is reported when it is off by five of its own statistical errors and by
more than the scatter of its peers.  Few values estimate a scatter badly: the
fewer, the larger the deviation allowed (`campaign.quality.outlying`), by
simulations of such values.  Exposures are compared three times: by detector (the
median of its amplifiers), by amplifier (less the part that its detector shares),
and as groups, since two halves have no odd one out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from campaign.camera.model import Camera
from campaign.quality.levels import DIGITISATION, JUMP, Finding, Row, at_one_time, jumps, mistyped, saturated
from campaign.quality.outlying import NSIGMA, follow, groups, middle, odd, straight

F64 = NDArray[np.float64]

#: Systematic errors: of a level, in noises; of a flat's level and of a noise, as fractions.
PRECISION, OF_FLAT, OF_NOISE = 0.05, 1e-3, 5e-3
#: Fraction by which a flat's level may change with its lamp.
LAMP = 0.05
#: Deviation from the common shape that may occur by chance, as a fraction of a cell's noise.
OF_CELL = 0.3
#: Cells of a shape along each axis, most rows sampled for them, and fewest pixels of a cell.
CELLS, SAMPLED_ROWS, CELL_PIXELS = 8, 64, 12
#: Factor by which the noise and the camera file's read noise may differ.
AGREEING = 1.5
#: Cosmic rays: largest fraction of an amplifier, hits/cm^2/s, and pixels of a grown hit.
REJECTED, RATE, TAKEN = 0.01, 0.05, 60
#: Fraction of rows with one value that chance cannot explain.
CONSTANT = 0.01
#: An amplifier below this fraction of its detector's brightest level has no light.
UNLIT = 0.01
#: Least gap between groups, in errors.
GAP = 6.0
#: Most amplifiers that are named.
SHOWN = 4
SAMPLED_ROWS = 64


@dataclass(frozen=True)
class Table:
    """Rows as arrays.

    Parameters
    ----------
    exposures : `list` [`int`]
    channels : `list` [(detector, amplifier)]
    values : `dict` [`str`, `numpy.ndarray` [exposure, channel], float64]
        Values by column; NaN where there is no row.
    """

    exposures: list[int]
    channels: list[tuple[int, str]]
    values: Mapping[str, F64]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Table:
        """Arrange rows; see `Table`."""
        exposures = sorted({r.exposure for r in rows})
        channels = list(dict.fromkeys((r.detector, r.amplifier) for r in rows))
        row, column = ({key: n for n, key in enumerate(keys)} for keys in (exposures, channels))
        at = np.array([(row[r.exposure], column[r.detector, r.amplifier]) for r in rows])
        values = {}
        for name in Row.NUMBERS:
            values[name] = np.full((len(exposures), len(channels)), np.nan)
            values[name][at[:, 0], at[:, 1]] = [getattr(r, name) for r in rows]
        return cls(exposures, channels, values)

    @property
    def detectors(self) -> dict[int, NDArray[np.intp]]:
        """Columns of each detector."""
        owner = np.array([d for d, _ in self.channels])
        return {int(d): np.flatnonzero(owner == d) for d in dict.fromkeys(owner)}

    def some(self, keep: NDArray[np.bool_]) -> Table:
        """Select some exposures."""
        exposures = [e for e, kept in zip(self.exposures, keep, strict=True) if kept]
        return Table(exposures, self.channels, {name: v[keep] for name, v in self.values.items()})


@dataclass(frozen=True)
class Series:
    """Quantity that is compared over all exposures.

    Parameters
    ----------
    name, unit : `str`
        For messages.
    far : `numpy.ndarray` [exposure, channel], float64
        Deviations from the channel's median, in its errors; NaN where not to be compared.
    own : `numpy.ndarray` [exposure, channel], float64
        The same, less the part that a detector's channels share.
    error : `numpy.ndarray` [channel], float64
        Errors in the unit of the values.
    least : `float`
        Least reported deviation shared by all detectors, in errors.
    grouped : `bool`
        Whether a split of the exposures into groups is reported.
    """

    name: str
    far: F64
    own: F64
    error: F64
    least: float = NSIGMA
    grouped: bool = True


# Quantities


def _level_error(table: Table, camera: Camera, product: str) -> F64:
    """Estimate each channel's level error, ADU: medians of rows, overscans, light, and a systematic part."""
    noise = np.maximum(middle(table.values["noise"], 0), DIGITISATION)
    level = np.abs(middle(table.values["level"], 0))
    errors = []
    for (detector, name), n, light in zip(table.channels, noise, level, strict=True):
        d = camera.by_id.get(detector)
        known = {a.name: (a, g) for a, g in zip(camera.types[d.type].amplifiers, d.gains, strict=True)} if d else {}
        statistical = 0.0
        if name in known:
            a, gain = known[name]
            rows = min(SAMPLED_ROWS, a.data.ny)
            columns = 1 / (a.serial_overscan.nx - 3) if a.serial_overscan and a.serial_overscan.nx > 3 else 0.0
            shot = light / gain if product == "flat" or (product == "dark" and columns) else 0.0
            statistical = 2.46 * (n**2 * columns + (n**2 + shot) / a.data.nx) / rows
        floor = OF_FLAT * light if product == "flat" else 0.0
        errors.append(float(np.sqrt(statistical + (PRECISION * n) ** 2 + floor**2)))
    return np.array(errors)


def _own(table: Table, far: F64) -> F64:
    """Subtract the shared deviation of each detector from its channels."""
    out = np.empty_like(far)
    for columns in table.detectors.values():
        out[:, columns] = follow(middle(far[:, columns], 1), far[:, columns])
    return out


def _level(table: Table, camera: Camera, product: str, live: NDArray[np.bool_], error: F64) -> Series:
    values = np.where(live, table.values["level"], np.nan)
    far = (values - middle(values, 0)) / error
    if product == "flat":  # a lamp's level may change
        return Series("level", far, _own(table, far), error, LAMP / OF_FLAT, grouped=False)
    return Series("level", far, _own(table, far), error)


def _noise(table: Table, camera: Camera, product: str, live: NDArray[np.bool_]) -> Series:
    """Compare noises; without an overscan the light's part is removed along the level."""
    values = np.where(live, table.values["noise"], np.nan)
    if product != "bias":
        scanned = _scanned(table, camera)
        for k in np.flatnonzero(~scanned):
            square = straight(table.values["level"][:, k], values[:, k] ** 2) + np.nanmedian(values[:, k]) ** 2
            values[:, k] = np.sqrt(np.maximum(square, 0.0))
    usual = middle(values, 0)
    # Tables of older versions have no error of the noise: take a twentieth.
    known = middle(np.where(live, table.values["noise_error"], np.nan), 0)
    error = np.hypot(np.where(known > 0, known, PRECISION * np.maximum(usual, DIGITISATION)), OF_NOISE * usual)
    far = (values - usual) / error
    return Series("noise", far, _own(table, far), error)


def _shape(table: Table, product: str, live: NDArray[np.bool_]) -> Series:
    values = np.where(live, table.values["shape"], np.nan)
    level = np.abs(middle(table.values["level"], 0))
    floor = OF_FLAT * level if product == "flat" else PRECISION * middle(table.values["noise"], 0)
    # The longest dark has the noisiest cells: each frame counts by its own error.
    cell = np.fmax(table.values["shape_error"], middle(table.values["shape_error"], 0))
    error = np.maximum(np.hypot(floor, OF_CELL * cell), PRECISION * DIGITISATION)
    far = (values - middle(values, 0)) / error
    return Series("shape", far, far, middle(error, 0))


def _resolved(table: Table, camera: Camera) -> NDArray[np.bool_]:
    """Which channels have cells of enough pixels to tell a level from a hit or a hot column."""
    many = {
        (d.id, a.name): (a.data.nx // CELLS) * (min(a.data.ny, SAMPLED_ROWS) // CELLS)
        for d in camera.detectors
        for a in camera.types[d.type].amplifiers
    }
    return np.array([many.get(c, 0) >= CELL_PIXELS for c in table.channels])


def _scanned(table: Table, camera: Camera) -> NDArray[np.bool_]:
    """Which channels have a serial overscan."""
    found = {(d.id, a.name) for d in camera.detectors for a in camera.types[d.type].amplifiers if a.serial_overscan}
    return np.array([c in found for c in table.channels])


# Findings


def _names(channels: Sequence[tuple[int, str]]) -> str:
    """Name a few amplifiers, for a message."""
    texts = [f"{name} of detector {d}" for d, name in channels]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return f"amplifier{'s' * (len(texts) > 1)} {', '.join(texts[:SHOWN])}{more}"


def _finding(exposure: int | None, channels: Sequence[tuple[int, str]], why: str) -> Finding:
    names = tuple(dict.fromkeys(name for _, name in channels if name))
    return Finding(exposure, tuple(sorted({d for d, _ in channels})), why, names)


def _by_exposure(table: Table, which: NDArray[np.bool_], why: Callable[[int, NDArray[np.intp]], str]) -> list[Finding]:
    """Make one finding an exposure, with the affected channels [exposure, channel]."""
    found = []
    for n, exposure in enumerate(table.exposures):
        columns = np.flatnonzero(which[n])
        if columns.size:
            found.append(_finding(exposure, [table.channels[k] for k in columns], why(n, columns)))
    return found


def copies(table: Table) -> list[Finding]:
    """Find exposures with the pixels of another exposure."""
    same = np.nan_to_num(table.values["same_as"])

    def why(n: int, columns: NDArray[np.intp]) -> str:
        return f"it has the very pixels of exposure {int(same[n, columns[0]])}"

    return [replace(found, refused=True) for found in _by_exposure(table, same > 0, why)]


def _hit(table: Table, camera: Camera, times: Mapping[int, float]) -> F64:
    """Give the largest plausible fraction of hits [exposure, channel]: 1 %, more where pixels are few."""
    limit = np.full((len(table.exposures), len(table.channels)), REJECTED)
    for k, (detector, name) in enumerate(table.channels):
        d = camera.by_id.get(detector)
        for a in camera.types[d.type].amplifiers if d else ():
            if a.name == name:
                pixels = a.data.nx * a.data.ny
                area = pixels * (camera.types[d.type].pixel_um * 1e-4) ** 2 if d else 0.0
                hits = 2 * RATE * area * np.array([times[e] for e in table.exposures])
                limit[:, k] = np.maximum(REJECTED, (hits + 5 * np.sqrt(hits) + 3) * TAKEN / pixels)
    return limit


def rejected(table: Table, camera: Camera, times: Mapping[int, float]) -> list[Finding]:
    """Find exposures with more rejected pixels than cosmic rays can hit."""
    share = table.values["rejected"]

    def why(n: int, columns: NDArray[np.intp]) -> str:
        worst = max(columns, key=lambda k: share[n, k])
        return f"{100 * share[n, worst]:.1f} % of amplifier {table.channels[worst][1]} rejected as cosmic rays"

    return _by_exposure(table, np.nan_to_num(share) > _hit(table, camera, times), why)


def dead(table: Table, camera: Camera, product: str) -> tuple[list[Finding], NDArray[np.bool_]]:
    """Find amplifiers that are off or without light; also give which values [exposure, channel] are live."""
    constant = np.nan_to_num(table.values["constant"]) > CONSTANT
    unlit = np.zeros_like(constant)
    if product == "flat":
        level = np.where(_scanned(table, camera), table.values["level"], np.nan)
        for columns in table.detectors.values():
            brightest = np.nanmax(np.nan_to_num(level[:, columns]), axis=1, keepdims=True)
            lit = np.median(brightest) > 0
            unlit[:, columns] = np.nan_to_num(level[:, columns], nan=np.inf) < UNLIT * brightest if lit else False
    findings = []
    reasons = {"is off: its rows hold one value each": constant, "answers no light": unlit & ~constant}
    for text, which in reasons.items():
        always = which.sum(axis=0) > 0.5 * np.isfinite(table.values["level"]).sum(axis=0)
        if always.any():
            channels = [table.channels[k] for k in np.flatnonzero(always)]
            many = int(which[:, always].any(axis=1).sum())
            found = f"{_names(channels)} {text}, in {many} of {len(table.exposures)} exposures"
            findings.append(_finding(None, channels, found))

        def why(n: int, columns: NDArray[np.intp], text: str = text) -> str:
            return f"{_names([table.channels[k] for k in columns])} {text}"

        findings += _by_exposure(table, which & ~always, why)
    return findings, ~(constant | unlit)


def read_noises(table: Table, camera: Camera, product: str, live: NDArray[np.bool_]) -> list[Finding]:
    """Find amplifiers whose noise differs from the camera file's read noise."""
    measured = middle(np.where(live, table.values["noise"], np.nan), 0)
    if product != "bias":  # without an overscan it includes the light's noise
        measured = np.where(_scanned(table, camera), measured, np.nan)
    expected = {
        (d.id, a.name): noise / gain
        for d in camera.detectors
        for a, noise, gain in zip(camera.types[d.type].amplifiers, d.read_noises, d.gains, strict=True)
    }
    off = []
    for channel, noise in zip(table.channels, measured, strict=True):
        wanted = expected.get(channel)
        if (
            wanted
            and np.isfinite(noise)
            and not 1 / AGREEING < max(noise, 1e-9) / np.hypot(wanted, DIGITISATION) < AGREEING
        ):
            off.append((channel, float(noise), wanted))
    if not off:
        return []
    (_, name), noise, wanted = max(off, key=lambda o: abs(np.log(max(o[1], 1e-9) / o[2])))
    channels = [channel for channel, _, _ in off]
    what = f"the noise of {_names(channels)} is not the camera file's read noise: {noise:.3g} ADU"
    return [_finding(None, channels, f"{what}, {wanted:.3g} ADU there (amplifier {name})")]


def _detectors(far: F64, least: float) -> NDArray[np.bool_]:
    """Which detectors [exposure, detector] are far from their peers.

    A deviation shared by all detectors, such as a change of the lamp, is judged
    once: many detectors then tell no more about the usual scatter than one.
    """
    if far.shape[1] < 3:
        return np.concatenate([odd(far[:, [k]] * NSIGMA / least) for k in range(far.shape[1])], axis=1)
    shared = middle(far, 1)
    with np.errstate(invalid="ignore"):
        return (odd(shared[:, np.newaxis] * NSIGMA / least) & (np.abs(far) > NSIGMA)) | odd(follow(shared, far))


def outliers(table: Table, series: Series) -> Iterator[tuple[int, list[tuple[int, str]], str]]:
    """Find exposures far from their peers, by detector, then by amplifier; give channels and reasons."""
    detectors = table.detectors
    far = np.stack([middle(series.far[:, columns], 1) for columns in detectors.values()], axis=1)
    which, numbers = _detectors(far, series.least), list(detectors)
    tests = max(int(np.isfinite(series.own).sum()), 1)
    least = max(NSIGMA, 1.2 * NormalDist().inv_cdf(1 - 0.005 / tests))
    several = np.array([len(detectors[d]) > 1 for d, _ in table.channels])
    single = odd(series.own, least) & several
    for n, exposure in enumerate(table.exposures):
        whole, columns = np.flatnonzero(which[n]), np.flatnonzero(single[n])
        if whole.size:
            worst = max((far[n, k] for k in whole), key=abs)
            yield exposure, [(numbers[k], "") for k in whole], f"{series.name} {worst:+.0f} sigma from its peers"
        elif columns.size:
            channels = [table.channels[k] for k in columns]
            worst = max((series.own[n, k] for k in columns), key=abs)
            yield exposure, channels, f"{series.name} of {_names(channels)} {worst:+.0f} sigma from its peers"


def parties(table: Table, series: Series, gap: float = GAP) -> list[Finding]:
    """Find exposures that fall into groups: one finding for all detectors that split alike."""
    numbers, parting = list(table.detectors), dict[tuple[tuple[int, ...], ...], list[tuple[int, float]]]()
    far = np.stack([middle(series.far[:, columns], 1) for columns in table.detectors.values()], axis=1)
    shared = middle(far, 1)
    together = len(numbers) > 2 and bool(groups(shared, gap))
    own = far if together or len(numbers) < 3 else follow(shared, far)
    for k, (detector, columns) in enumerate(table.detectors.items()):
        heaps = groups(own[:, k], gap)
        if heaps:
            key = tuple(tuple(table.exposures[n] for n in sorted(heap)) for heap in heaps)
            centres = [float(np.median(own[heap, k])) for heap in heaps]
            apart = (max(centres) - min(centres)) * float(np.nanmedian(series.error[columns]))
            parting.setdefault(key, []).append((detector, apart))
    findings = []
    for heaps_, members in parting.items():
        lists = "; ".join(", ".join(map(str, heap)) for heap in heaps_)
        apart = max(a for _, a in members)
        why = f"{len(heaps_)} groups of exposures by {series.name}, {apart:.3g} ADU apart: {lists}"
        findings.append(Finding(None, tuple(d for d, _ in members), why))
    return findings


def compared(
    table: Table, rows: Sequence[Row], product: str, times: Mapping[int, float], camera: Camera
) -> Iterator[tuple[Table, Series]]:
    """List the quantities to compare, each with the exposures that are peers in it."""
    _, live = dead(table, camera, product)
    if product == "dark":
        table = Table.of(at_one_time(rows, times))
    error = _level_error(table, camera, product)
    yield table, _level(table, camera, product, live, error)
    for time in sorted({times[e] for e in table.exposures}):
        alike = np.array([times[e] == time for e in table.exposures])
        yield table.some(alike), _noise(table.some(alike), camera, product, live[alike])
    yield table, _shape(table, product, live & _resolved(table, camera))


def _overscan(table: Table) -> Series:
    """Compare the electronics' level; overscan subtraction removes its drifts, so only a jump is reported."""
    values = table.values["overscan"]
    error = JUMP / NSIGMA * np.maximum(middle(table.values["noise"], 0), DIGITISATION)
    far = (values - middle(values, 0)) / error
    return Series("bias level", far, _own(table, far), error)


def judge(
    rows: Sequence[Row],
    product: str,
    times: Mapping[int, float],
    camera: Camera,
    night: Mapping[int, str] = MappingProxyType({}),
) -> list[Finding]:
    """List findings for the operator, exposures first.

    Parameters
    ----------
    rows : sequence of `Row`
    product : `str`
        ``bias``, ``dark`` or ``flat``.
    times : `dict`
        Exposure time of each exposure, second.
    camera : `Camera`
        Tells which amplifiers have an overscan (without one, a level includes
        the bias), and their read noises.
    night : `dict`, optional
        Night of each exposure; with it, jumps of the bias level are found.
    """
    if not rows:
        return []
    table = Table.of(rows)
    off, live = dead(table, camera, product)
    jumped = jumps(rows, night)
    findings = [
        *copies(table),
        *saturated(rows),
        *off,
        *mistyped(rows, product, camera),
        *jumped,
        *rejected(table, camera, times),
    ]
    named = {f.exposure for f in findings}
    findings += read_noises(table, camera, product, live)
    others = [r for r in rows if r.exposure not in named]
    if others:
        series = list(compared(Table.of(others), others, product, times, camera))
        series.append((Table.of(others), _overscan(Table.of(others))))
        for some, one in series:
            findings += parties(some, one, NSIGMA if one.name == "bias level" else GAP) if one.grouped else []
            for exposure, channels, why in outliers(some, one):
                if exposure not in named:
                    findings.append(_finding(exposure, channels, why))
                    named.add(exposure)
    return sorted(findings, key=lambda f: (f.exposure is None, f.exposure or 0))
