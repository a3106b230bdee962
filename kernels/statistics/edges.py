"""Edges of the light in a frame, compared with the sections of a camera file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, median_filter

from kernels.camera.geometry import Amplifier, Box

F64 = NDArray[np.float64]

#: Reach of an amplifier's profiles beyond its own sections, pixel.
MARGIN: Final = 32
#: The level of light at a place is the highest within this many pixels: a fall to half over a shorter distance is an
#: edge, over a longer one a gradient.
REACH: Final = 12
#: Least length of a dark run that does not end at the border of the image, pixel: shorter runs are bad columns.
SHORTEST: Final = 4
#: Largest level without light, relative to that of the data: above it, light cannot be told from the offset.
WEAK: Final = 0.9
#: Light of a pixel relative to the light around it: half marks an edge; data below NONE have no light; an overscan
#: above SOME has light.
#: Columns at the border of a CCD lose some light, the first ones of an overscan keep some charge.
HALF, NONE, SOME = 0.5, 0.15, 0.25
#: The light must be this many times the scatter of its own profile, and this many ADU.
CONTRAST, LEAST_ADU = 20.0, 20.0
#: Pixels shown on each side of a border.
SHOWN: Final = 24
#: Sides of a box: which axis, and whether it is the upper one.
SIDES: Final = {"left": (0, False), "right": (0, True), "bottom": (1, False), "top": (1, True)}


@dataclass(frozen=True)
class Border:
    """A side of the data section."""

    #: left, right, bottom or top.
    side: str
    #: The first pixel (0-based) behind the border, by the camera file.
    declared: int
    #: By the light, which may reach the end of the image; `None` where it continues into another amplifier's data.
    found: int | None
    #: Whether the light ends there, before the end of the image.
    edge: bool
    #: Mean of the three pixels on either side of the declared border, ADU.
    inside: float | None
    outside: float | None
    #: Pixel of the first value of ``profile``.
    first: int
    #: Levels around the border, ADU.
    profile: list[float]


@dataclass
class Fit:
    """Position of an amplifier's sections in the light."""

    #: Whether there is enough light to tell.
    judged: bool = False
    #: Faults of the sections, and remarks for the operator.
    misfits: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    borders: list[Border] = field(default_factory=list)
    #: ``[x0, y0, x1, y1]`` of the light around the data section.
    lit: list[int] = field(default_factory=list)
    #: Dark runs ``[first, beyond]``, by axis.
    dark: list[list[list[int]]] = field(default_factory=list)


@dataclass(frozen=True)
class Profile:
    """Levels along an axis, from pixel ``first`` of the image on."""

    #: [pixel], float64: ADU.
    values: F64

    first: int
    #: Level without light, ADU.
    low: float
    #: Length of the image along this axis, pixel.
    size: int

    @property
    def light(self) -> F64:
        """Light of each pixel relative to the light around it; 0 where there is none."""
        smooth = median_filter(self.values, 5, mode="nearest") - self.low
        near = maximum_filter1d(smooth, 2 * REACH + 1, mode="nearest")
        there = near > 0.1 * max(float(np.percentile(smooth, 75)), 1e-9)
        return np.where(there, (self.values - self.low) / np.where(there, near, 1.0), 0.0)

    def dark(self) -> list[list[int]]:
        """List runs of pixels without light, ``[first, beyond]``, that are long enough and have an edge at one end."""
        found, light = [], self.light
        for first, beyond in _runs(light < HALF):
            at_border = first + self.first == 0 or beyond + self.first == self.size
            if (beyond - first >= SHORTEST or at_border) and self._sharp(light, first, beyond):
                found.append([first + self.first, beyond + self.first])
        return found

    def _sharp(self, light: F64, first: int, beyond: int) -> bool:
        """Whether the light falls at an end of a run by 40 % within three pixels, and by 5 % of the usual light."""
        inner = self.values - self.low
        least = 0.05 * float(np.percentile(inner, 75))
        ends = [(first - 3, first, first, min(first + 3, beyond))] if first >= 3 else []
        ends += [(beyond, beyond + 3, max(first, beyond - 3), beyond)] if beyond + 3 <= light.size else []
        steps = [(inner[a:b].max(), inner[c:d].mean()) for a, b, c, d in ends]
        return any(dim < 0.6 * bright and bright - dim > least for bright, dim in steps)


def _runs(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield first and beyond of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _span(box: Box, axis: int) -> tuple[int, int]:
    return (box.x0, box.x1) if axis == 0 else (box.y0, box.y1)


def _territory(amplifier: Amplifier, axis: int) -> tuple[int, int]:
    """Return the range of an amplifier's own sections along an axis, widened by `MARGIN`."""
    boxes = [b for b in (amplifier.data, amplifier.serial_overscan, amplifier.parallel_overscan) if b]
    first = min(_span(box, axis)[0] for box in boxes) - MARGIN
    beyond = max(_span(box, axis)[1] for box in boxes) + MARGIN
    return max(0, first), min(amplifier.raw[axis], beyond)


def _core(box: Box, axis: int) -> slice:
    """Slice the middle four fifths of a box, which are in the light even where the box is a few pixels off."""
    first, beyond = _span(box, axis)
    tenth = (beyond - first) // 10
    return slice(first + tenth, max(beyond - tenth, first + tenth + 1))


def profiles(amplifier: Amplifier, image: F64 | NDArray[np.float32], subtracted: bool) -> list[Profile]:
    """Measure levels along x and along y, through the middle of the data section.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x]
        Mean of lit frames, ADU.
    subtracted : `bool`
        A bias was subtracted, so that the level without light is 0.
    """
    along = []
    for axis in (0, 1):
        first, beyond = _territory(amplifier, axis)
        core = _core(amplifier.data, 1 - axis)
        part = image[core, first:beyond] if axis == 0 else image[first:beyond, core]
        along.append((np.median(part, axis=axis).astype(np.float64), first))
    low = (
        0.0
        if subtracted
        else min(float(median_filter(values, 2 * SHORTEST - 1, mode="mirror").min()) for values, _ in along)
    )
    return [Profile(values, first, low, amplifier.raw[axis]) for axis, (values, first) in enumerate(along)]


def fit(amplifier: Amplifier, others: Sequence[Amplifier], image: NDArray[np.float32], subtracted: bool) -> Fit:
    """Compare an amplifier's sections with the light.

    Parameters
    ----------
    others : sequence of `Amplifier`
        The others of the same HDU.
    """
    both, answer = profiles(amplifier, image, subtracted), Fit()
    middle = both[0].values[slice(*(v - both[0].first for v in _span(amplifier.data, 0)))]
    signal = float(np.median(middle)) - both[0].low
    scatter = 1.4826 * float(np.median(np.abs(np.diff(middle)))) if middle.size > 1 else 0.0
    level = float(np.median(middle))
    answer.judged = signal > max(LEAST_ADU, CONTRAST * scatter) and (subtracted or both[0].low < WEAK * level)
    dark = [profile.dark() if answer.judged else [] for profile in both]
    if not (subtracted or any(run[1] - run[0] >= SHORTEST for runs in dark for run in runs)):
        answer.judged, dark = False, [[], []]  # the supposed level without light is just the dimmest row's
    answer.dark = dark
    if not answer.judged:
        _unjudged(answer, amplifier, level, subtracted)
    for axis, profile in enumerate(both):
        sides = [side for side, (where, _) in SIDES.items() if where == axis]
        answer.borders += [_border(profile, amplifier.data, others, dark[axis], side) for side in sides]
        if answer.judged:
            _judge(answer, profile, amplifier, axis)
    unknown = [border.side for border in answer.borders if border.found is None or not answer.judged]
    found = {b.side: b.declared if b.side in unknown else b.found or 0 for b in answer.borders}
    answer.lit = [found["left"], found["bottom"], found["right"], found["top"]]
    return answer


def _unjudged(answer: Fit, amplifier: Amplifier, level: float, subtracted: bool) -> None:
    """Say why an amplifier cannot be judged; an overscan that is as bright as a lit frame's data is wrong."""
    declared = [name for name, _ in (_overscan(amplifier, axis) for axis in (0, 1)) if _]
    if declared and not subtracted:
        answer.misfits += [
            f"{name} is as bright as the data ({level:.0f} ADU): it lies in the light, or there is hardly any light (a"
            " bias among the frames would tell)"
            for name in declared
        ]
    elif subtracted:
        answer.notes.append("there is hardly any light")
    else:
        answer.notes.append("nothing in the frame is without light (a bias among the frames would tell more)")


def _border(profile: Profile, data: Box, others: Sequence[Amplifier], runs: list[list[int]], side: str) -> Border:
    axis, upper = SIDES[side]
    first, beyond = _span(data, axis)
    declared, middle = beyond if upper else first, (first + beyond) // 2
    beside = [_middle(a, axis) for a in _beside(others, data, axis)]
    if upper:
        limit = min((m for m in beside if m > middle), default=None)
        edges = [run[0] for run in runs if middle < run[0] < (profile.size if limit is None else limit)]
        found = min(edges, default=profile.size if limit is None else None)
    else:
        limit = max((m for m in beside if m < middle), default=None)
        edges = [run[1] for run in runs if (0 if limit is None else limit) < run[1] <= middle]
        found = max(edges, default=0 if limit is None else None)
    at = declared - profile.first
    below, above = profile.values[max(0, at - 3) : at], profile.values[at : at + 3]
    means = [float(part.mean()) if part.size else None for part in (below, above)]
    inside, outside = means if upper else means[::-1]
    start = max(0, at - SHOWN)
    shown = [round(float(v), 3) for v in profile.values[start : at + SHOWN]]
    return Border(side, declared, found, bool(edges), inside, outside, start + profile.first, shown)


def _middle(amplifier: Amplifier, axis: int) -> int:
    return sum(_span(amplifier.data, axis)) // 2


def _beside(others: Sequence[Amplifier], data: Box, axis: int) -> list[Amplifier]:
    """List the amplifiers that lie beside a data section along an axis."""
    first, beyond = _span(data, 1 - axis)
    return [a for a in others if _span(a.data, 1 - axis)[0] < beyond and first < _span(a.data, 1 - axis)[1]]


WORDS: Final = {0: ("column", "left", "right"), 1: ("row", "bottom", "top")}


def _many(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number > 1)}"


def _judge(answer: Fit, profile: Profile, amplifier: Amplifier, axis: int) -> None:
    """Report misfits of the data section and of the overscan along an axis, and light in no section."""
    word, low, high = WORDS[axis]
    light = dict(enumerate(profile.light, profile.first))
    first, beyond = _span(amplifier.data, axis)
    covered = {p for run in answer.dark[axis] for p in range(*run)}
    dark = [p for p in range(first, beyond) if light[p] < NONE and p in covered]
    for a, b in _runs(np.isin(np.arange(first, beyond), dark)):
        where = f"at its {low}" if a == 0 else f"at its {high}" if b == beyond - first else "in its middle"
        place = f"{word} {first + a + 1}" if b == a + 1 else f"{word}s {first + a + 1} to {first + b}"
        answer.misfits.append(f"data has {_many(b - a, word)} without light {where} ({place})")
    name, overscan = _overscan(amplifier, axis)
    if overscan is not None:
        lit = [p for p in range(*_span(overscan, axis)) if light.get(p, 0.0) > SOME]
        if len(lit) == _span(overscan, axis)[1] - _span(overscan, axis)[0]:
            answer.misfits.append(f"{name} is as lit as the data: no edge between them")
        elif lit:
            places = f"{word}s {lit[0] + 1} to {lit[-1] + 1}" if len(lit) > 1 else f"{word} {lit[0] + 1}"
            answer.misfits.append(f"{name} has {_many(len(lit), word)} in the light ({places})")
    for border in (b for b in answer.borders if SIDES[b.side][0] == axis and b.found is not None):
        unused = (
            (border.found or 0) - border.declared if SIDES[border.side][1] else border.declared - (border.found or 0)
        )
        if unused > 0:
            verb = "are" if unused > 1 else "is"
            answer.notes.append(
                f"{_many(unused, word)} in the light beyond its {border.side} {verb} in no data section"
            )


def _overscan(amplifier: Amplifier, axis: int) -> tuple[str, Box | None]:
    """Return name and box of the overscan beside the data along an axis."""
    return (
        ("serial_overscan", amplifier.serial_overscan)
        if axis == 0
        else ("parallel_overscan", amplifier.parallel_overscan)
    )


def proposal(amplifier: Amplifier, others: Sequence[Amplifier], answer: Fit) -> dict[str, Any]:
    """Propose sections that fit the light; sections that fit already are unchanged.

    A data section keeps its size where the lit region has room for it, near its former place: the author of the file
    may have left out columns at the border.

    Returns
    -------
    boxes : `dict`
        ``data``, ``serial_overscan``, ``parallel_overscan``: 0-based ``[x0, y0, nx, ny]``, or `None`.
    """
    spans = []
    for axis in (0, 1):
        first, beyond = _span(amplifier.data, axis)
        low, high = answer.lit[axis], answer.lit[axis + 2]
        if first < low or beyond > high or _reaches(amplifier, answer, axis):
            size = min(beyond - first, high - low)
            first = min(max(first, low), high - size)
            beyond = first + size
        spans.append((first, beyond))
    made: dict[str, Any] = {"data": _box(spans)}
    for axis in (0, 1):
        name, overscan = _overscan(amplifier, axis)
        good = spans == [_span(amplifier.data, 0), _span(amplifier.data, 1)] and not _reaches(amplifier, answer, axis)
        keep = overscan and [overscan.x0, overscan.y0, overscan.nx, overscan.ny]
        made[name] = keep if good or overscan is None else _moved(amplifier, others, overscan, answer, axis, spans)
    return made


def _box(spans: Sequence[tuple[int, int]]) -> list[int]:
    (x0, x1), (y0, y1) = spans
    return [x0, y0, x1 - x0, y1 - y0]


def _reaches(amplifier: Amplifier, answer: Fit, axis: int) -> bool:
    """Whether the overscan along an axis is in the light, so that the data section may be shifted the other way."""
    name, _ = _overscan(amplifier, axis)
    return any(text.startswith(name) for text in answer.misfits)


def _moved(
    amplifier: Amplifier,
    others: Sequence[Amplifier],
    overscan: Box,
    answer: Fit,
    axis: int,
    spans: list[tuple[int, int]],
) -> list[int] | None:
    """Move an overscan into the dark beside the data, at its former distance; `None` where there is no dark."""
    old, (first, beyond) = _span(amplifier.data, axis), _span(overscan, axis)
    behind = first >= old[1]
    edge = answer.lit[axis + 2] if behind else answer.lit[axis]
    run = next((r for r in answer.dark[axis] if edge == (r[0] if behind else r[1])), None)
    if run is None:
        if _reaches(amplifier, answer, axis):
            return None
        run = [first, beyond]
    gap = first - old[1] if behind else old[0] - beyond
    sharing = 1 + sum(
        o is not None and _meets(o, run, axis) for o in (_overscan(a, axis)[1] for a in _beside(others, overscan, axis))
    )
    share = (run[1] - run[0]) // sharing
    along = (run[0] + gap, run[0] + share) if behind else (run[1] - share, run[1] - gap)
    if along[0] == first and _inside((first, beyond), run):
        along = first, beyond
    across = _span(overscan, 1 - axis)
    if across == _span(amplifier.data, 1 - axis):
        across = spans[1 - axis]
    both = [along, across] if axis == 0 else [across, along]
    return _box(both) if along[1] - along[0] > 1 else None


def _meets(box: Box, run: Sequence[int], axis: int) -> bool:
    first, beyond = _span(box, axis)
    return first < run[1] and run[0] < beyond


def _inside(span: tuple[int, int], run: Sequence[int]) -> bool:
    return run[0] <= span[0] and span[1] <= run[1]
