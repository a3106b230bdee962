"""Site files: YAML in two layers, packaged and the operator's, every value checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from campaign.documents import Entry, merge, parse, plain, read_text
from campaign.errors import ConfigurationError
from campaign.home import Home
from campaign.problems import Problem, Problems, suggest
from campaign.schedulers import table
from campaign.schedulers.local import LocalScheduler
from campaign.schedulers.protocol import Scheduler
from campaign.schedulers.values import MEANT, FilePath, Fraction, Model, Text, text
from templates import ROOT

Checked = TypeVar("Checked", bound=Model)

PACKAGED = ROOT / "sites"
_USE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)
#: Settings in which ``$NAME`` stands for a variable of the operator's.
_EXPANDED = ("raw_root", "repository", "scratch", "python")


def _text(value: Any) -> Any:
    """Take a number as it was written; not `True`, which may have been yes, on or true."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Name = Annotated[str, text(r"^[a-z][a-z0-9]{0,19}$", "small letters and digits, a letter first, at most 20")]
HostName = Annotated[str, text(r"^([A-Za-z0-9][A-Za-z0-9_.@-]*)?$", "letters, digits, _ . @ -")]
Release = Annotated[str, text(r"^[A-Za-z0-9.+!_-]*$", "a version, like 1.2.0")]
Variable = Annotated[str, text(r"^[A-Za-z_][A-Za-z0-9_]*$", "the name of a variable")]
Value = Annotated[Text, BeforeValidator(_text)]


class SiteSettings(Model):
    """Settings of a site file; the scheduler's own kind checks ``scheduler``."""

    name: Name
    #: Share of work that is split over sites; `None` takes no part.
    fraction: Fraction | None = None
    roles: tuple[Literal["archive", "construction", "processing"], ...] = ()
    scheduler: Scheduler | None
    #: Folder of the site's raws; empty: that of the archive's repository.
    raw_root: FilePath = ""
    #: Folder, label or URI of its Butler repository; empty: the step's own.
    repository: Text = ""
    #: Folder for logs, job scripts and intermediate files, writable for its nodes; empty: the step's own.
    scratch: FilePath = ""
    #: Variables of every job.
    environment: dict[Variable, Value] = Field(default_factory=dict)
    python: FilePath = ""
    #: Version of drp-campaign that is installed there; empty: the same as here.
    release: Release = ""
    #: ``local``: its commands run on this machine; ``ssh``: on ``host``.
    transport: Literal["local", "ssh"] = "local"
    #: Destination of ssh.
    host: HostName = ""
    #: Arguments of ssh before the host.
    ssh_options: tuple[Text, ...] = ()


def read_all(environment: Mapping[str, str], home: Home) -> dict[str, tuple[SiteSettings, Entry]]:
    """Read the packaged site files and lay the operator's over them, site by site and key by key.

    Parameters
    ----------
    environment : `~collections.abc.Mapping` [`str`, `str`]
        ``CAMPAIGN_SITES`` names a folder, or one file, in place of ``<home>/sites``; paths may use other variables.
    home : `Home`
        Has the operator's files in ``sites/*.yaml``.

    Returns
    -------
    sites : `dict`
        By name, in the order of the files: checked settings, and the tree with the place of each.

    Raises
    ------
    ConfigurationError
        A value is wrong: with file, line and key.
    """
    own = environment.get("CAMPAIGN_SITES")
    place = Path(own) if own else home.path / "sites"
    if own and not place.exists():
        raise ConfigurationError(f"{own} is not there", where="CAMPAIGN_SITES", do="name a folder, or a file, of sites")
    merged = _layer(PACKAGED)
    for name, entry in _layer(place).items():
        below = merged.get(name)
        merged[name] = Entry(merge(below.value, entry.value), entry.where) if below else entry
    return {name: (_settings(entry, environment), entry) for name, entry in merged.items()}


def _layer(place: Path) -> dict[str, Entry]:
    """Read the files of a folder, or one file; give them by the names of their sites.

    Raises
    ------
    ConfigurationError
        A file is not YAML, or names no site, or one that another file names.
    """
    found: dict[str, Entry] = {}
    for file in [place] if place.is_file() else sorted(place.glob("*.yaml")):
        problems: list[Problem] = []
        try:
            entry = parse(read_text(file), str(file), problems)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"cannot be read: {error}", where=str(file)) from error
        if problems or entry is None:
            raise Problems(str(file), problems)
        name = entry.value.get("name")
        if name is None or not isinstance(name.value, str):
            raise ConfigurationError("name: a site needs one", where=str(file), do="write name: usdf, say")
        if name.value in found:
            first = found[name.value].value["name"].where
            do = "rename one; what changes a packaged site needs one file"
            raise ConfigurationError(f"name: {name.value} is also the name of {first}", where=name.where, do=do)
        found[name.value] = entry
    return found


def _settings(entry: Entry, environment: Mapping[str, str]) -> SiteSettings:
    """Check the settings of a site and of its scheduler.

    Raises
    ------
    ConfigurationError
        With all mistakes.
    """
    values = plain(entry)
    scheduler = values.pop("scheduler", "none")
    problems: list[Problem] = []
    model = _kind(entry, scheduler, problems)
    if isinstance(scheduler, dict):
        values["scheduler"] = scheduler = {key: value for key, value in scheduler.items() if key != "kind"}
    for key in (*_EXPANDED, *(f"scheduler.{key}" for key in model.expanded)):
        _expand(values, entry, key, environment)
    values["scheduler"] = _checked(model, scheduler if isinstance(scheduler, dict) else {}, entry, problems)
    settings = _checked(SiteSettings, values, entry, problems)
    if len(problems) == 1:
        one = problems[0]
        raise ConfigurationError(one.what, where=one.where, do=one.do)
    if settings is None or problems:
        raise Problems(f"site {values['name']}", problems)
    return settings


def _kind(entry: Entry, scheduler: Any, problems: list[Problem]) -> type[Scheduler]:
    """Find the kind of a site's scheduler; note a value that is neither ``none`` nor settings."""
    if isinstance(scheduler, dict):
        try:
            return table.kind(str(scheduler.get("kind", table.DEFAULT)))
        except ConfigurationError as error:
            place = place_of(entry, ["scheduler", "kind"])
            raise ConfigurationError(error.what, where=place, do=error.do) from error
    if scheduler != "none":
        where = place_of(entry, ["scheduler"])
        problems.append(Problem(f"scheduler: {scheduler!r} is not right", where, "allowed: none, or its settings"))
    return LocalScheduler


def _checked(model: type[Checked], values: Any, entry: Entry, problems: list[Problem]) -> Checked | None:
    """Check settings; note every problem with them."""
    under = () if model is SiteSettings else ("scheduler",)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems += [_problem(entry, detail, (*under, *detail["loc"]), model) for detail in error.errors()]
    return None


def _expand(values: dict[str, Any], entry: Entry, key: str, environment: Mapping[str, str]) -> None:
    """Expand variables in one setting, in place."""
    *sections, last = key.split(".")
    for section in sections:
        values = values[section] if isinstance(values.get(section), dict) else {}
    text = values.get(last)
    if not isinstance(text, str):
        return
    for braced, bare in _USE.findall(text):
        if (name := braced or bare) not in environment:
            do = f"export {name}, or write the path out"
            raise ConfigurationError(f"{key}: ${name} is not set", where=place_of(entry, key.split(".")), do=do)
    values[last] = _USE.sub(lambda match: environment[match[1] or match[2]], text)


def _problem(entry: Entry, detail: Any, place: Sequence[Any], model: type[Model]) -> Problem:
    """Translate an error of pydantic's into words of the file."""
    loc = [part for part in place if part != "[key]"]
    key, where = ".".join(map(str, loc)), place_of(entry, loc)
    if detail["type"] == "extra_forbidden":
        return Problem(f"{key}: there is no such setting", where, suggest(str(loc[-1]), model.model_fields))
    if detail["type"] == "string_pattern_mismatch":
        pattern = detail["ctx"]["pattern"]
        meant = MEANT.get(pattern, f"text like {pattern}")
    elif detail["type"] == "literal_error":
        meant = detail["ctx"]["expected"]
    else:
        meant = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("should be ")
    return Problem(f"{key}: {detail['input']!r} is not right", where, f"allowed: {meant}")


def place_of(entry: Entry, loc: Sequence[Any]) -> str:
    """Give file and line of a setting, or of its section."""
    where = entry.where
    for part in loc:
        try:
            entry = entry.value[part]
        except (KeyError, IndexError, TypeError):
            break
        where = entry.where
    return where


def check_fractions(sites: Mapping[str, tuple[SiteSettings, Entry]]) -> None:
    """Check that the fractions of the processing sites sum to 1.

    Raises
    ------
    ConfigurationError
        The sum differs by more than 1e-9, or a site with a fraction has no role of processing.
    """
    shares = {name: pair for name, pair in sites.items() if pair[0].fraction is not None}
    for settings, entry in shares.values():
        if settings.fraction and "processing" not in settings.roles:
            raise ConfigurationError(
                f"fraction: {settings.name} has {settings.fraction:g}, and no role of processing",
                where=place_of(entry, ["fraction"]),
                do="add processing to its roles, or take the fraction out",
            )
    total = math.fsum(settings.fraction or 0.0 for settings, _ in shares.values())
    if shares and abs(total - 1) > 1e-9:
        listed = ", ".join(f"{name} {settings.fraction:.12g}" for name, (settings, _) in shares.items())
        own = [place_of(e, ["fraction"]) for _, e in shares.values()]
        where = next((place for place in own if not place.startswith(str(PACKAGED))), own[0])
        raise ConfigurationError(
            f"fraction: the processing sites sum to {total:.12g}, not 1 ({listed})",
            where=where,
            do="change them together; a site with 0 takes no part",
        )
