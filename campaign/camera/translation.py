"""Translates a raw frame's header to an observation, by the table in the camera file."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from campaign import numbers
from campaign.camera.headertable import Field, Translation, parts, pattern, suggest
from campaign.camera.model import Camera
from campaign.camera.observation import Observation
from campaign.camera.parts import Detector
from campaign.errors import ConfigurationError

#: Until this day_obs the camera's own controller numbered its exposures from 1 each day, beside the observatory's.
_LAST_SHIFTED_DAY = 20231004
#: No exposure lasts longer, second.
LONGEST = 1e8
#: Years that fit a timespan of the Butler in every zone and time scale.
YEARS = (1971, 2098)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}")
#: A day_obs further than this from the begin of the exposure is noted.
_DAYS_OFF = 2


class TranslationError(ConfigurationError):
    """A frame's header does not fit the camera file."""


@dataclass(frozen=True)
class Overrides:
    """Values that the operator gives in place of the header's; `None` keeps the header's."""

    type: str | None = None
    filter: str | None = None
    day_obs: int | None = None


@dataclass(frozen=True)
class _Header:
    """Fields of one frame, looked up by the table."""

    path: str
    values: Mapping[str, Any]
    table: Translation

    def error(self, what: str, do: str = "") -> TranslationError:
        return TranslationError(what, where=self.path, do=do)

    def text(self, field: Field) -> str | None:
        """Give the first source of a field that is in the header and not blank."""
        for source in self.table.keywords.get(field, ()):
            found = {k: str(self.values[k]).strip() for k in parts(source) if self.values.get(k) is not None}
            if len(found) == len(parts(source)) and all(found.values()):
                return source.format_map(found) if "{" in source else found[source]
        return None

    def name(self, field: Field) -> str:
        """Join the field's keywords for a message."""
        return " or ".join(self.table.keywords.get(field, ()))

    def need(self, field: Field) -> str:
        text = self.text(field)
        if text is None:
            raise self.error(f"the header has no {self.name(field)}, which tells the {field.replace('_', ' ')}")
        return text

    def seconds(self, field: Field) -> float:
        """Read a field as a time in second."""
        text = self.need(field)
        try:
            value = numbers.real(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise self.error(f"{self.name(field)} is {text!r}, not a number of seconds")
        if value > LONGEST:
            raise self.error(f"{self.name(field)} is {text} seconds: no exposure lasts {value / 3.15576e7:.3g} years")
        return value

    def integer(self, field: Field) -> int:
        text = self.need(field)
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise self.error(f"{self.name(field)} is {text!r}, not a whole number")
        return int(text)

    def time(self) -> datetime:
        """Read the begin of the exposure, on the header's clock."""
        text = self.need("begin")
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            value = None
        if value is None or not _TIME.match(text):
            raise self.error(f"{self.name('begin')} is {text!r}, not a date and time like 2024-12-08T21:03:12.345")
        if not YEARS[0] <= value.year <= YEARS[1]:
            raise self.error(f"{self.name('begin')} is {text!r}: a repository holds the years {YEARS[0]} to {YEARS[1]}")
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value


def lsst_id(day_obs: int, seq_num: int, controller: str) -> int:
    """Build the exposure id of the LSST cameras: day_obs, then the sequence number in 5 digits.

    Until `_LAST_SHIFTED_DAY` the camera's controller (C) counted independently of
    the observatory's (O); 10000000 is added to its days until then.

    Raises
    ------
    ValueError
        Another controller, or a sequence number of more than 5 digits.
    """
    shifts = {"O": 0, "C": 1 if day_obs <= _LAST_SHIFTED_DAY else 0}
    if controller not in shifts:
        raise ValueError(f"controller is {controller!r}; known are {', '.join(shifts)}")
    if seq_num > 99999:
        raise ValueError(f"sequence number {seq_num} has more than 5 digits")
    return (day_obs + 10_000_000 * shifts[controller]) * 100_000 + seq_num


def timestamp_id(begin: datetime) -> int:
    """Build the exposure id of a camera without frame numbers: YYMMDDhhmmss and 3 digits of milliseconds.

    The id depends on the frame alone, so that frames added later renumber nothing.
    """
    return int(f"{begin:%y%m%d%H%M%S}{begin.microsecond // 1000:03d}")


def numbered_id(begin: datetime, seq_num: int) -> int:
    """Build the exposure id of a camera that numbers its frames: YYMMDDhhmmss and the number's last three digits.

    Up to a thousand exposures may begin within one second, or under a stopped clock.
    """
    return int(f"{begin:%y%m%d%H%M%S}{seq_num % 1000:03d}")


def timestamp_seq_num(begin: datetime) -> int:
    """Count milliseconds since the noon before ``begin``, where the observing day starts."""
    midday = timedelta(hours=begin.hour - 12, minutes=begin.minute, seconds=begin.second)
    return int(midday.total_seconds()) % 86400 * 1000 + begin.microsecond // 1000


def tai(time: datetime, clock: str) -> datetime:
    """Convert a time of a clock, ``utc`` or ``tai``, to TAI."""
    if clock == "utc":
        from astropy.time import Time

        time = Time(time, scale="utc").tai.to_datetime()
    return time


def _accept(header: _Header, camera: str) -> None:
    for keyword, values in header.table.accept.items():
        found = header.values.get(keyword)
        if found is None:
            raise header.error(f"the header has no {keyword}, so it is not known to be a frame of {camera}")
        if str(found).strip() not in values:
            raise header.error(
                f"{keyword} is {str(found).strip()!r}: a frame of another camera",
                f"{camera} accepts {', '.join(values)}",
            )


def _type(header: _Header, override: str | None) -> str:
    known = dict.fromkeys(["bias", "dark", "flat", *(rule.type for rule in header.table.types)])
    if override is not None:
        if override not in known:
            raise header.error(f"no observation type {override!r}", suggest(override, known))
        return override
    label = header.need("observation_type")
    for rule in header.table.types:
        texts = ((header.text(field), wanted) for field, wanted in rule.when.items())
        if all(text is not None and pattern(wanted).fullmatch(text) for text, wanted in texts):
            return rule.type
    what = f"{header.name('observation_type')} is {label!r}, which is no known observation type"
    raise header.error(what, f"say which with --type; known are {', '.join(known)}")


def _filter(header: _Header, override: str | None, camera: Camera) -> str:
    label = override if override is not None else header.text("physical_filter")
    name = header.table.no_filter if label is None else header.table.filters.get(label, label)
    if name not in camera.bands:
        source = "" if override is not None else f"{header.name('physical_filter')} is {name!r}: "
        raise header.error(f"{source}{camera.name} has no filter {name!r}", suggest(name, camera.bands))
    return name


def _detector(header: _Header, camera: Camera) -> Detector:
    if "detector" not in header.table.keywords:
        return camera.detectors[0]
    label = header.need("detector")
    by_label = {**{str(k): d for k, d in camera.by_id.items()}, **camera.by_name}
    if label not in by_label:
        close = difflib.get_close_matches(label, camera.by_name, n=3)
        raise header.error(
            f"{header.name('detector')} is {label!r}: {camera.name} has no such detector",
            f"it has {len(camera.detectors)}, like {', '.join(close or list(camera.by_name)[:3])}",
        )
    return by_label[label]


def _identify(header: _Header, override: int | None, begin: datetime) -> tuple[int, int, int]:
    """Give exposure id, day_obs and sequence number."""
    if header.table.exposure_ids == "timestamp":
        day_obs = int(f"{begin - timedelta(hours=12):%Y%m%d}") if override is None else override
        return timestamp_id(begin), day_obs, timestamp_seq_num(begin)
    if header.table.exposure_ids == "numbered":
        day_obs = int(f"{begin - timedelta(hours=12):%Y%m%d}") if override is None else override
        seq_num = header.integer("seq_num")
        return numbered_id(begin, seq_num), day_obs, seq_num
    day_obs = header.integer("day_obs") if override is None else override
    seq_num = header.integer("seq_num")
    try:
        return lsst_id(day_obs, seq_num, header.need("controller")), day_obs, seq_num
    except ValueError as error:
        raise header.error(str(error)) from error


def _check_day(header: _Header, day_obs: int, begin: datetime, given: bool) -> list[str]:
    """Note a day_obs far from the exposure's begin, unless the operator has ``given`` it."""
    try:
        day = datetime.strptime(f"{day_obs:08d}", "%Y%m%d")
    except ValueError as error:
        raise header.error(f"day_obs {day_obs} is not a date like 20241208") from error
    off = abs((day.date() - (begin - timedelta(hours=12)).date()).days)
    if given or off <= _DAYS_OFF:
        return []
    return [f"{header.name('day_obs')} is {day_obs}, {off} days off {header.name('begin')} {begin:%Y-%m-%d}"]


def _id_from(header: _Header) -> str:
    """Name the sources of an exposure's id."""
    if header.table.exposure_ids == "lsst":
        return f"{header.name('day_obs')} and {header.name('seq_num')}"
    begin = header.name("begin")
    if header.table.exposure_ids == "numbered":
        return f"{begin} to the second and the last three digits of {header.name('seq_num')}"
    advice = "exposure_ids: numbered in the camera file lets a frame number enter it"
    return f"{begin} to the millisecond; {advice}"


def _size(shape: Sequence[int]) -> str:
    return f"{'x'.join(map(str, shape))} pixels" if shape else "no image"


def _named(hdu: Mapping[str, Any], key: str | int) -> bool:
    """Whether an HDU has a number, or an EXTNAME in any case."""
    return bool(hdu["hdu"] == key if isinstance(key, int) else (hdu["extname"] or "").upper() == key.strip().upper())


def _check_frame(header: _Header, hdus: Sequence[Mapping[str, Any]], detector: Detector, camera: Camera) -> list[str]:
    """Compare the HDUs with the amplifiers of the detector; give notes on their pixels."""
    notes: dict[str, None] = {}
    whose = f"{camera.name} {detector.name} (type {detector.type}, scale {camera.scale})"
    for amplifier in camera.types[detector.type].amplifiers:
        key = amplifier.hdu
        found = [h for h in hdus if _named(h, key)]
        if not found:
            raise header.error(f"there is no HDU {key}, which holds amplifier {amplifier.name} of {whose}")
        if len(found) > 1:
            which = ", ".join(str(h["hdu"]) for h in found)
            raise header.error(f"HDUs {which} are all called {key}", "give the HDU's number in the camera file")
        hdu = found[0]
        if tuple(hdu["shape"]) != amplifier.raw:
            raise header.error(f"HDU {key} is {_size(hdu['shape'])}, {whose} has {_size(amplifier.raw)}")
        datasec = hdu["datasec"]
        if header.table.datasec and datasec is not None and datasec.replace(" ", "") != str(amplifier.data):
            raise header.error(f"HDU {key} has DATASEC {datasec}, {whose} has {amplifier.data}")
        if hdu.get("unreadable"):
            raise header.error(hdu["unreadable"])
        if hdu.get("beyond") and not camera.types[detector.type].signed:
            number, value = hdu["beyond"]
            wrapped = 1 << 31 <= value < 1 << 32
            advice = "; if these are negative, say signed: true in the camera file" if wrapped else ""
            notes[f"HDU {key}: {number} pixels beyond 32 bits ({value:.10g}) are masked{advice}"] = None
    return list(notes)


def translate(
    camera: Camera,
    path: str,
    headers: Mapping[str, Any],
    hdus: Sequence[Mapping[str, Any]],
    overrides: Overrides = Overrides(),
    after: int = 0,
) -> Observation:
    """Translate the header of a raw frame.

    Parameters
    ----------
    headers : `dict`
        Primary header: keyword to value, at least those of
        `Translation.wanted` that the frame has.
    hdus : `list` [`dict`]
        ``{"hdu", "extname", "shape": [width, height], "datasec"}`` of each,
        with ``unreadable`` and ``beyond`` where its pixels were read
        (see ``kernels.products.headers.read``).
    after : `int`
        Bytes after the last HDU.

    Raises
    ------
    TranslationError
        A frame of another camera, a value missing, malformed or unknown, or
        an HDU whose size or data region is not the detector's.
    """
    header = _Header(path, headers, camera.translation)
    _accept(header, camera.name)
    detector = _detector(header, camera)
    notes = _check_frame(header, hdus, detector, camera)
    notes += [f"{after} bytes after its last HDU are not read"] if after else []
    begin = header.time()
    exposure, day_obs, seq_num = _identify(header, overrides.day_obs, begin)
    notes += _check_day(header, day_obs, begin, given=overrides.day_obs is not None)
    return Observation(
        path=path,
        instrument=camera.name,
        exposure=exposure,
        detector=detector.id,
        day_obs=day_obs,
        seq_num=seq_num,
        obs_id=header.text("obs_id") or f"{camera.name}_{exposure}",
        observation_type=_type(header, overrides.type),
        observation_reason=header.text("observation_reason") or "unknown",
        science_program=header.text("science_program") or "unknown",
        physical_filter=_filter(header, overrides.filter, camera),
        exposure_time=header.seconds("exposure_time"),
        dark_time=None if header.text("dark_time") is None else header.seconds("dark_time"),
        begin=tai(begin, camera.translation.clock).isoformat(timespec="milliseconds"),
        notes=tuple(notes),
        id_from=_id_from(header),
    )
