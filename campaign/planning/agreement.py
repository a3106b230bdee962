"""Compare the camera's settings (temperature, gain, read-out mode, ...) over the frames of a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from campaign.butler.records import Selection
from campaign.camera.headertable import Setting, parts
from campaign.camera.model import Camera
from campaign.errors import SubmissionRefused
from campaign.frames.ingest import read_headers
from campaign.planning.inputs import MEND
from campaign.wording import listed

Value = float | str


def number(text: str) -> Value:
    """Read a header's value as a number, where it is one."""
    try:
        return float(text)
    except ValueError:
        return text


def shown(value: Value) -> str:
    """Write a value for a message."""
    return f"{value:.6g}" if isinstance(value, float) else value


def card(name: str) -> str:
    """Give a setting's keyword in products."""
    return f"SETTING_{name.upper()}"


def alike(values: Mapping[int, Value], within: float) -> list[list[int]]:
    """Split exposures into groups whose values differ by at most ``within``; texts must be equal.

    Parameters
    ----------
    values : `dict`
        By exposure.
    """
    texts: dict[str, list[int]] = {}
    for exposure, value in values.items():
        if isinstance(value, str):
            texts.setdefault(value, []).append(exposure)
    found: list[list[int]] = []
    numbers = [(value, exposure) for exposure, value in values.items() if isinstance(value, float)]
    start: float | None = None
    for value, exposure in sorted(numbers):
        if start is None or value - start > within * (1 + 1e-9) + 1e-9:
            start = value
            found.append([])
        found[-1].append(exposure)
    return [sorted(group) for group in (*found, *texts.values())]


def _value(setting: Setting, headers: Mapping[str, Any]) -> Value | None:
    """Give a setting's value: the first of its sources in the header that is not blank."""
    for source in setting.keywords:
        found = {k: str(headers[k]).strip() for k in parts(source) if headers.get(k) is not None}
        if len(found) == len(parts(source)) and all(found.values()):
            return number(source.format_map(found) if "{" in source else found[source])
    return None


@dataclass(frozen=True)
class Settings:
    """The camera's settings by the frames' headers."""

    #: By setting and exposure; exposures without the keyword are absent.
    values: Mapping[str, Mapping[int, Value]] = field(default_factory=dict)
    #: Reasons against combining the frames; settings that are unknown.
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def cards(self) -> dict[str, Value]:
        """Cards for the products' headers: the first exposure's values."""
        return {card(name): next(iter(values.values())) for name, values in self.values.items() if values}


def read(camera: Camera, selection: Selection) -> Settings:
    """Read the settings from one raw of each exposure, and compare them."""
    wanted = camera.translation.agree
    if not wanted:
        return Settings()
    there = [raw for raw in selection.raws if raw.bytes is not None]
    often = Counter(raw.detector for raw in there)  # prefer one detector: each has its own temperature
    one: dict[int, str] = {}
    for raw in sorted(there, key=lambda r: (r.exposure, -often[r.detector], r.detector)):
        one.setdefault(raw.exposure, raw.path)
    keywords = [k for setting in wanted.values() for source in setting.keywords for k in parts(source)]
    wanted_of = list(one.values()), list(dict.fromkeys(keywords)), 1, camera.translation.headers
    answers = read_headers(*wanted_of, whole=False) if one else []
    headers = {e: a["headers"] for e, a in zip(one, answers, strict=True) if "error" not in a}
    values: dict[str, dict[int, Value]] = {}
    problems, notes = [], []
    for name, setting in wanted.items():
        known = {e: v for e, h in headers.items() if (v := _value(setting, h)) is not None}
        values[name] = known
        where = f"{name} ({' or '.join(setting.keywords)})"
        silent = [e for e in headers if e not in known]
        if silent:
            some = f"{len(silent)} of {len(headers)} exposures do not say their {where}: {listed(silent)}"
            notes.append(some if known else f"{where} is not compared: no frame has such a keyword")
        groups = alike(known, setting.within)
        if len(groups) > 1:
            lists = "; ".join(f"{_range([known[e] for e in g])} in {len(g)}: exposure {listed(g)}" for g in groups)
            most = f" by more than {setting.within:g}" if setting.within else ""
            problems.append(f"{where} differs{most}: {lists}")
    return Settings(values, problems, notes)


def _range(values: Sequence[Value]) -> str:
    numbers = [v for v in values if isinstance(v, float)]
    ends = [min(numbers), max(numbers)] if numbers else [values[0]]
    return " to ".join(dict.fromkeys(map(shown, ends)))


def require(settings: Settings, where: str) -> None:
    """Refuse frames whose settings do not agree.

    Raises
    ------
    SubmissionRefused
        Naming the groups.
    """
    if settings.problems:
        raise SubmissionRefused("; ".join(settings.problems), where=where, do=MEND)


def against(camera: Camera, settings: Settings, paths: Mapping[str, str]) -> list[str]:
    """Note calibrations with other settings than the frames that they are applied to.

    Parameters
    ----------
    paths : `dict`
        File of one calibration, by kind.
    """
    wanted = camera.translation.agree
    if not wanted or not paths:
        return []
    answers = read_headers(list(paths.values()), [card(n) for n in wanted], 1, whole=False)
    notes = []
    for kind, answer in zip(paths, answers, strict=True):
        for name, setting in wanted.items():
            there = answer.get("headers", {}).get(card(name))
            here = settings.cards.get(card(name))
            if there is None or here is None:
                continue
            there = number(str(there).strip())
            if len(alike({0: here, 1: there}, setting.within)) > 1:
                notes.append(
                    f"the {kind} that is applied was taken at {name} {shown(there)}, the frames at {shown(here)}"
                )
    return notes
