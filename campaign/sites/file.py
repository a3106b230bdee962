"""Site files: YAML in two layers, the packaged ones and the operator's, each value checked where it enters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from campaign.documents import Entry, merge, parse, plain, read_text
from campaign.errors import ConfigurationError
from campaign.home import Home
from campaign.problems import Problem, Problems, suggest
from templates import ROOT

PACKAGED = ROOT / "sites"
_USE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)
#: Settings in which ``$NAME`` stands for a variable of the operator's.
_EXPANDED = ("raw_root", "repository", "scratch", "python", "scheduler.conf", "scheduler.template")


def _text(value: Any) -> Any:
    """Take a number for a variable's value as it was written; `True` may have been yes, on or true."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("is not a number")
    return value


def _whole(value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("is not a whole number")
    return value


Text = Annotated[str, StringConstraints(strict=True, pattern=r"^[^\x00-\x1f\x7f]*$")]
#: A Slurm name: nothing that a shell or sbatch would take for more.
Word = Annotated[str, StringConstraints(strict=True, pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.,:@/+-]*)?$")]
#: Features with Slurm's own operators; the job script quotes them.
Features = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9_.,:@/+&|*()\[\]-]*$")]
Option = Annotated[str, StringConstraints(strict=True, pattern=r"^--?[A-Za-z][A-Za-z0-9-]*(=[A-Za-z0-9_.,:@/+%*-]+)?$")]
Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z][a-z0-9]{0,19}$")]
HostName = Annotated[str, StringConstraints(strict=True, pattern=r"^([A-Za-z0-9][A-Za-z0-9_.@-]*)?$")]
Release = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9.+!_-]*$")]
FilePath = Annotated[str, StringConstraints(strict=True, pattern=r"^(/[^\x00-\x1f\x7f]*)?$")]
Variable = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Value = Annotated[Text, BeforeValidator(_text)]
Fraction = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1, allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
WholeOrZero = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Seconds = Annotated[float, BeforeValidator(_number), Field(gt=0, le=3600)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SchedulerSettings(_Model):
    """``scheduler:`` of a site file; what is not given is `slurm.scripts.Scheduler`'s default."""

    partition: Word = ""
    account: Word = ""
    qos: Word = ""
    reservation: Word = ""
    constraint: Features = ""
    memory: Literal["mem", "mem-per-cpu", "none"] = "mem"
    ranks: Whole | None = None
    node_cores: Whole | None = None
    node_memory_mib: Whole | None = None
    signal_before_s: WholeOrZero = 0
    launcher: Literal["srun-pmi2", "srun-pmix", "mpiexec"] = "srun-pmi2"
    setup: tuple[Text, ...] = ()
    extra: tuple[Option, ...] = ()
    template: Text = "slurm"
    max_array: Whole = 1000
    max_submit: Whole = 1000
    interface: Word = ""
    conf: FilePath | None = None
    timeout: Seconds = 30.0


class SiteSettings(_Model):
    """A site file."""

    name: Name
    fraction: Fraction | None = None
    roles: tuple[Literal["archive", "construction", "processing"], ...] = ()
    scheduler: SchedulerSettings | Literal["none"] = "none"
    raw_root: FilePath = ""
    repository: Text = ""
    scratch: FilePath = ""
    environment: dict[Variable, Value] = {}
    python: FilePath = ""
    release: Release = ""
    transport: Literal["local", "ssh"] = "local"
    host: HostName = ""
    ssh_options: tuple[Text, ...] = ()


_MEANT = {
    Name: "small letters and digits, a letter first, at most 20",
    Word: "letters, digits, _ . , : @ / + -",
    Features: "letters, digits, _ . , : @ / + - and Slurm's & | * ( ) [ ]",
    Option: "an option of sbatch in one word, --name or --name=value",
    HostName: "letters, digits, _ . @ -",
    Release: "a version, like 1.2.0",
    FilePath: "a path from / on",
    Variable: "the name of a variable",
    Text: "text in one line",
}
_BY_PATTERN = {
    next(part.pattern for part in kind.__metadata__ if isinstance(part, StringConstraints)): meant  # type: ignore[attr-defined]
    for kind, meant in _MEANT.items()
}


def read_all(environment: Mapping[str, str], home: Home) -> dict[str, tuple[SiteSettings, Entry]]:
    """Read the packaged site files and lay the operator's over them, site by site and key by key.

    Parameters
    ----------
    environment : `~collections.abc.Mapping` [`str`, `str`]
        ``CAMPAIGN_SITES`` names a folder, or one file, in place of ``<home>/sites``; other variables may be used in
        paths.
    home : `Home`
        Whose ``sites/*.yaml`` are the operator's.

    Returns
    -------
    sites : `dict`
        By name, in the order of the files: the checked settings, and the tree that knows where each stands.

    Raises
    ------
    ConfigurationError
        Naming file, line and key.
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
    """Read the files of a folder (or one file); by the names of their sites.

    Raises
    ------
    ConfigurationError
        A file is no YAML, has no name, or the name of another one.
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
    """Check one site."""
    values = plain(entry)
    for key in _EXPANDED:
        _expand(values, entry, key, environment)
    try:
        return SiteSettings.model_validate(values)
    except ValidationError as error:
        problems = [_problem(entry, detail) for detail in error.errors() if not _beside(detail)]
        if len(problems) == 1:
            one = problems[0]
            raise ConfigurationError(one.what, where=one.where, do=one.do) from None
        raise Problems(f"site {values['name']}", problems) from None


def _expand(values: dict[str, Any], entry: Entry, key: str, environment: Mapping[str, str]) -> None:
    """Put variables into one setting, in place."""
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


def _beside(detail: Any) -> bool:
    """Tell the branch of ``scheduler`` that was not meant: a mapping is no "none", and a word no mapping."""
    other = "literal['none']" if isinstance(detail["input"], dict) else "SchedulerSettings"
    return bool(detail["loc"] == ("scheduler", other))


def _problem(entry: Entry, detail: Any) -> Problem:
    """Say what pydantic found in the words of the file."""
    loc = [part for part in detail["loc"] if part not in ("SchedulerSettings", "literal['none']", "[key]")]
    key, where = ".".join(map(str, loc)), place_of(entry, loc)
    if detail["type"] == "extra_forbidden":
        known = SchedulerSettings if loc[0] == "scheduler" else SiteSettings
        return Problem(f"{key}: there is no such setting", where, suggest(str(loc[-1]), known.model_fields))
    if detail["type"] == "string_pattern_mismatch":
        meant = _BY_PATTERN[detail["ctx"]["pattern"]]
    elif detail["type"] == "literal_error":
        meant = detail["ctx"]["expected"]
    else:
        meant = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("should be ")
    return Problem(f"{key}: {detail['input']!r} is not right", where, f"allowed: {meant}")


def place_of(entry: Entry, loc: Sequence[Any]) -> str:
    """Give file and line of a setting, or of what it would stand in."""
    where = entry.where
    for part in loc:
        try:
            entry = entry.value[part]
        except (KeyError, IndexError, TypeError):
            break
        where = entry.where
    return where


def check_fractions(sites: Mapping[str, tuple[SiteSettings, Entry]]) -> None:
    """See that the processing sites share the whole.

    Raises
    ------
    ConfigurationError
        The fractions do not sum to 1 within 1e-9, or one that has a fraction does not process.
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
