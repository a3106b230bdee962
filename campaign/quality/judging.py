"""Judges the inputs table: finds exposures, amplifiers and groups of exposures unlike the others.

A value is reported when it is off by five of its own statistical errors and by
more than the scatter of its peers.  Few values estimate a scatter badly: the
fewer, the larger the deviation allowed (`campaign.quality.outlying`), by
simulations of such values.  Exposures are compared three times: by detector (the
median of its amplifiers), by amplifier (less the part that its detector shares),
and as groups, since two halves have no odd one out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from campaign.camera.model import Camera
from campaign.quality import series
from campaign.quality.levels import DIGITISATION, Finding, Row, at_one_time
from campaign.quality.outlying import NSIGMA, follow, groups, middle, odd
from campaign.quality.series import F64, JUMP, Series, Table

#: Fraction of saturated pixels that hot pixels and cosmic rays cannot explain.
SATURATED = 0.005
#: A bias or dark above this many read noises, or a flat below, is another kind of frame.
LIT = 100.0
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


def saturated(table: Table) -> list[Finding]:
    """Find exposures with more saturated or blank pixels than hot pixels and cosmic rays can explain."""
    found = []
    for value in ("saturated", "blank"):
        share = table.values[value]

        def why(n: int, columns: NDArray[np.intp], value: str = value, share: F64 = share) -> str:
            worst = columns[np.argmax(share[n, columns])]
            return f"{100 * share[n, worst]:.1f} % of amplifier {table.channels[worst][1]} {value}"

        found += _by_exposure(table, np.nan_to_num(share) > SATURATED, why)
    return [replace(one, amplifiers=()) for one in found]


def mistyped(table: Table, product: str, camera: Camera) -> list[Finding]:
    """Find lit darks and biases, and dark flats, by the level where an overscan gives its zero."""
    if any(a.serial_overscan is None for kind in camera.types.values() for a in kind.amplifiers):
        return []
    level = table.values["level"]
    noises = middle(level / np.maximum(table.values["noise"], DIGITISATION), 1)

    def why(n: int, columns: NDArray[np.intp]) -> str:
        what = "lit" if noises[n] > LIT else "dark"
        return f"a {what} {product}: its level is {middle(level[n], 0):.0f} ADU, {noises[n]:.0f} times the noise"

    wrong = ((noises > LIT) != (product == "flat"))[:, np.newaxis] & np.isfinite(level)
    return [replace(one, amplifiers=()) for one in _by_exposure(table, wrong, why)]


def jumps(table: Table, night: Mapping[int, str]) -> list[Finding]:
    """Find exposures whose overscans are far from those of the night with the most exposures."""
    table = table.some(np.array([e in night for e in table.exposures]))
    if not table.exposures:
        return []
    usual = Counter(night[e] for e in table.exposures).most_common(1)[0][0]
    overscan, noise = table.values["overscan"], middle(table.values["noise"], 0)
    centre = middle(overscan[[night[e] == usual for e in table.exposures]], 0)
    centre = np.where(np.isnan(centre), middle(overscan, 0), centre)
    far, numbers = table.by_detector((overscan - centre) / np.maximum(noise, DIGITISATION)), list(table.detectors)
    found = []
    for exposure, off in zip(table.exposures, far, strict=True):
        which = np.flatnonzero(np.abs(off) > JUMP)
        if which.size:
            worst = max((off[k] for k in which), key=abs)
            why = f"its bias level, of the night {night[exposure]}, is {worst:+.0f} noises from that of {usual}"
            found.append(_finding(exposure, [(numbers[k], "") for k in which], why))
    return found


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
        level = np.where(series.scanned(table, camera), table.values["level"], np.nan)
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
        measured = np.where(series.scanned(table, camera), measured, np.nan)
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


def outliers(table: Table, one: Series) -> Iterator[tuple[int, list[tuple[int, str]], str]]:
    """Find exposures far from their peers, by detector, then by amplifier; give channels and reasons."""
    detectors = table.detectors
    far = table.by_detector(one.far)
    which, numbers = _detectors(far, one.least), list(detectors)
    tests = max(int(np.isfinite(one.own).sum()), 1)
    least = max(NSIGMA, 1.2 * NormalDist().inv_cdf(1 - 0.005 / tests))
    several = np.array([len(detectors[d]) > 1 for d, _ in table.channels])
    single = odd(one.own, least) & several
    for n, exposure in enumerate(table.exposures):
        whole, columns = np.flatnonzero(which[n]), np.flatnonzero(single[n])
        if whole.size:
            worst = max((far[n, k] for k in whole), key=abs)
            yield exposure, [(numbers[k], "") for k in whole], f"{one.name} {worst:+.0f} sigma from its peers"
        elif columns.size:
            channels = [table.channels[k] for k in columns]
            worst = max((one.own[n, k] for k in columns), key=abs)
            yield exposure, channels, f"{one.name} of {_names(channels)} {worst:+.0f} sigma from its peers"


def parties(table: Table, one: Series, gap: float = GAP) -> list[Finding]:
    """Find exposures that fall into groups: one finding for all detectors that split alike."""
    numbers, parting = list(table.detectors), dict[tuple[tuple[int, ...], ...], list[tuple[int, float]]]()
    far = table.by_detector(one.far)
    shared = middle(far, 1)
    together = len(numbers) > 2 and bool(groups(shared, gap))
    own = far if together or len(numbers) < 3 else follow(shared, far)
    for k, (detector, columns) in enumerate(table.detectors.items()):
        heaps = groups(own[:, k], gap)
        if heaps:
            key = tuple(tuple(table.exposures[n] for n in sorted(heap)) for heap in heaps)
            centres = [float(np.median(own[heap, k])) for heap in heaps]
            apart = (max(centres) - min(centres)) * float(np.nanmedian(one.error[columns]))
            parting.setdefault(key, []).append((detector, apart))
    findings = []
    for heaps_, members in parting.items():
        lists = "; ".join(", ".join(map(str, heap)) for heap in heaps_)
        apart = max(a for _, a in members)
        why = f"{len(heaps_)} groups of exposures by {one.name}, {apart:.3g} ADU apart: {lists}"
        findings.append(Finding(None, tuple(d for d, _ in members), why))
    return findings


def compared(
    table: Table, rows: Sequence[Row], product: str, times: Mapping[int, float], camera: Camera
) -> Iterator[tuple[Table, Series]]:
    """List the quantities to compare, each with the exposures that are peers in it."""
    _, live = dead(table, camera, product)
    if product == "dark":
        table = Table.of(at_one_time(rows, times))
    error = series.level_error(table, camera, product)
    yield table, series.level(table, camera, product, live, error)
    for time in sorted({times[e] for e in table.exposures}):
        alike = np.array([times[e] == time for e in table.exposures])
        yield table.some(alike), series.noise(table.some(alike), camera, product, live[alike])
    yield table, series.shape(table, product, live & series.resolved(table, camera))


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
    jumped = jumps(table, night)
    findings = [
        *copies(table),
        *saturated(table),
        *off,
        *mistyped(table, product, camera),
        *jumped,
        *rejected(table, camera, times),
    ]
    named = {f.exposure for f in findings}
    findings += read_noises(table, camera, product, live)
    others = [r for r in rows if r.exposure not in named]
    if others:
        other = table if len(others) == len(rows) else Table.of(others)
        compare = list(compared(other, others, product, times, camera))
        compare.append((other, series.overscan(other)))
        for some, one in compare:
            findings += parties(some, one, NSIGMA if one.name == "bias level" else GAP) if one.grouped else []
            for exposure, channels, why in outliers(some, one):
                if exposure not in named:
                    findings.append(_finding(exposure, channels, why))
                    named.add(exposure)
    return sorted(findings, key=lambda f: (f.exposure is None, f.exposure or 0))
