"""The document of a campaign: its steps, their needs, and the gates where a person decides.

The document, which commands call PLAN, is a YAML file::

    description: what it is for
    variables:                  # what an operator would export; the shell, then --env, override them
      INSTRUMENT: LSSTComCam
      SELECTION_BIAS: "instrument='$INSTRUMENT' and exposure.observation_type='bias'"
    steps:
      bias:
        template: bps_bias      # a name or a file
        needs: [defects]        # steps that are done, accepted and certified before
        certify: {chain: prepend}
        gate: true              # a person accepts it before it is certified
    simulation: {...}           # see campaign.simulation.blocks

All errors of a document are found at once, before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from campaign import documents as template_yaml
from campaign.campaigns.variables import IDENTITY, DocumentErrors, variables
from campaign.certification.certify import validity_range
from campaign.certification.command import UNCHOSEN, Certification, begin_of, by_template, request
from campaign.errors import CampaignError, ConfigurationError
from campaign.problems import Problem, Problems, suggest
from campaign.simulation.blocks import Simulation
from campaign.template.config import StepConfig
from campaign.template.resolve import resolve
from campaign.validation import sentences
from campaign.wording import listed
from templates import ROOT

FOLDER = ROOT / "plans"
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Certify(_Model):
    """Certification of a step's product."""

    #: Change of the ticket's chain: ``prepend`` or ``redefine``.
    chain: Literal["prepend", "redefine"] = "prepend"
    #: Validity, ISO-8601, TAI; by default from ``$START_DATE`` on, without an end.
    begin: str | None = None
    end: str | None = None

    @field_validator("begin", "end", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        """Take a date with a blank before its time."""
        return None if value is None else str(_text(value)).replace(" ", "T", 1)


class CampaignStep(_Model):
    """One step."""

    #: Name or file.
    template: str
    #: Steps that must be done first.
    needs: tuple[str, ...] = ()
    #: Without it, nothing is certified.
    certify: Certify | None = None
    #: A person accepts the product before it is certified and used.
    gate: bool = False
    #: The sites that run it, as `campaign submit` takes them.
    site: str | None = None
    sites: str | None = None
    #: Template keys.
    set: Mapping[str, str] = Field(default_factory=dict)
    #: Exposures to leave out.
    exclude: tuple[int, ...] = ()
    #: Combine the exposures that a detector has where some are missing.
    allow_missing: bool = False
    #: By kind, the collection of a calibration, as `campaign submit --calibration` takes it.
    calibrations: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("certify", mode="before")
    @classmethod
    def _plainly(cls, value: Any) -> Any:
        """Read ``certify: true`` as a certification with defaults."""
        return {} if value is True else None if value is False else value


class CampaignFile(_Model):
    """The document as it is written; see the module's text."""

    description: str = ""
    variables: Mapping[str, str] = Field(default_factory=dict)
    steps: Mapping[Name, CampaignStep]
    simulation: Simulation | None = None

    @field_validator("variables", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        """Turn numbers and dates of YAML into texts, as the shell has them."""
        return {key: _text(v) for key, v in value.items()} if isinstance(value, dict) else value


def _text(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if type(value) in (int, float) else value


@dataclass(frozen=True)
class Campaign:
    """The document of a campaign, with its variables."""

    path: Path
    file: CampaignFile
    #: Environment of every step's template.
    environment: Mapping[str, str]
    #: The steps, each after those that it needs.
    order: tuple[str, ...]

    _configs: dict[tuple[str, str], StepConfig] = field(default_factory=dict, repr=False, compare=False)

    @property
    def rerun(self) -> str:
        """The RERUN that the campaign began with."""
        return self.environment["RERUN"]

    @property
    def chosen_variables(self) -> dict[str, str]:
        """The document's variables, and the repository, with their final values."""
        return {name: self.environment[name] for name in (*self.file.variables, "REPO")}

    @property
    def name(self) -> str:
        """The campaign's identity within the repository: ``DM-48520.DP1.20250207a``."""
        return ".".join([self.path.stem, *(self.environment[key] for key in IDENTITY)])

    @property
    def steps(self) -> Mapping[str, CampaignStep]:
        """Steps, by name."""
        return self.file.steps

    def ancestors(self, step: str) -> set[str]:
        """Find all steps that a step needs, directly or not."""
        found: set[str] = set()
        waiting = [*self.steps[step].needs]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.steps[name].needs
        return found

    def descendants(self, step: str) -> set[str]:
        """Find all steps that need a step, directly or not."""
        return {name for name in self.steps if step in self.ancestors(name)}

    def config(self, step: str, rerun: str) -> StepConfig:
        """Resolve a step's template under a RERUN; only the time in it changes.

        Raises
        ------
        ConfigurationError
            Lists all errors of the template.
        """
        if (step, rerun) not in self._configs:
            chosen, variables = self.steps[step], {**self.environment, "RERUN": rerun}
            self._configs[step, rerun] = resolve(chosen.template, variables, dict(chosen.set), chosen.site)
        return self._configs[step, rerun]

    def target(self, step: str) -> str:
        """Name the collection that a step's product is certified into.

        Raises
        ------
        ConfigurationError
            CERT_RERUN is not set.
        """
        return str(by_template(self.config(step, self.rerun), self.environment)["target"])

    def certification(self, step: str, rerun: str, source: str | None = None) -> Certification:
        """Make the request that certifies a step's product: the RUN ``source``, by default the step's output.

        Raises
        ------
        ConfigurationError
            There is no such repository.
        """
        chosen = self.steps[step]
        assert chosen.certify is not None
        known = {
            **UNCHOSEN,
            "source": source,
            "begin_date": chosen.certify.begin,
            "end_date": chosen.certify.end,
            "mode": chosen.certify.chain if rerun == self.rerun else "prepend",
        }
        return request(chosen.template, {**self.environment, "RERUN": rerun}, known, dict(chosen.set))


def locate(name_or_path: str) -> Path:
    """Find a document: a path, or a packaged one by name.

    Raises
    ------
    ConfigurationError
        There is no such document.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path.absolute()
    packaged = FOLDER / f"{name_or_path.removesuffix('.yaml')}.yaml"
    if packaged.is_file():
        return packaged
    known = [p.stem for p in FOLDER.glob("*.yaml")]
    raise ConfigurationError(f"there is no plan {name_or_path!r}", do=suggest(name_or_path, known))


def read(path: Path) -> CampaignFile:
    """Read a document.

    Raises
    ------
    ConfigurationError, DocumentErrors
        The document cannot be read; all its errors are listed.
    """
    try:
        tree = template_yaml.load(path)
        plain = template_yaml.plain(tree)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the plan cannot be read: {error}", where=str(path)) from error
    if not isinstance(plain, dict):
        what = "is empty" if plain is None else f"holds a {type(plain).__name__}"
        do = "write description:, variables: and steps:; docs/plans.md has an example"
        raise ConfigurationError(f"the plan {what}: its sections were expected", where=str(path), do=do)
    if isinstance(plain.get("variables"), dict):
        plain["variables"] = template_yaml.plain(tree.value["variables"], as_text=True)
    try:
        file = CampaignFile.model_validate(plain)
    except ValidationError as error:
        raise DocumentErrors(str(path), [Problem(text) for text in sentences(error, plain, CampaignFile)]) from error
    if found := list(_misordered(file)):
        raise DocumentErrors(str(path), found)
    return file


def _misordered(file: CampaignFile) -> Iterator[Problem]:
    for name, step in file.steps.items():
        for other in step.needs:
            if other not in file.steps:
                yield Problem(f"step {name} needs {other}, which is no step", do=suggest(other, file.steps))
    try:
        _sorted(file)
    except CycleError as error:
        yield Problem(f"the steps need one another: {' -> '.join(error.args[1])}", do="take one of these needs out")


def _sorted(file: CampaignFile) -> tuple[str, ...]:
    sorter = TopologicalSorter({name: [n for n in step.needs if n in file.steps] for name, step in file.steps.items()})
    sorter.prepare()
    found: list[str] = []
    places = {name: k for k, name in enumerate(file.steps)}
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=places.__getitem__)
        found += ready
        sorter.done(*ready)
    return tuple(found)


def load(name_or_path: str, env_file: Path | None, shell: Mapping[str, str]) -> Campaign:
    """Read a document with its variables, and check that its steps can be made.

    Raises
    ------
    DocumentErrors, ConfigurationError
        Lists all errors: unknown steps, cycles, templates that do not resolve,
        two steps that write one collection.
    """
    path = locate(name_or_path)
    file = read(path)
    campaign = Campaign(path, file, variables(file.variables, path, env_file, shell), _sorted(file))
    if problems := list(_clashes(campaign)):
        raise DocumentErrors(str(path), problems)
    return campaign


def kept(path: Path, variables: Mapping[str, str]) -> Campaign:
    """Read a campaign from its books: its steps are known, its templates need not resolve here.

    Raises
    ------
    DocumentErrors, ConfigurationError
        The document in the books cannot be read.
    """
    file = read(path)
    return Campaign(path, file, variables, _sorted(file))


def _clashes(campaign: Campaign) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    wrong: dict[tuple[str, str], list[str]] = {}
    for name in campaign.order:
        try:
            written = [campaign.config(name, campaign.rerun).output]
            if certify := campaign.steps[name].certify:
                validity_range(begin_of(certify.begin, campaign.environment), certify.end)
                written.append(campaign.target(name))
        except Problems as error:  # what is wrong with several is said once
            for problem in error.problems:
                wrong.setdefault((problem.what, problem.do), []).append(name)
            continue
        except CampaignError as error:
            what = f"{error.where}: {error.what}" if error.where else error.what
            wrong.setdefault((what, error.do), []).append(name)
            continue
        for collection in written:
            if other := owners.get(collection):
                what = f"steps {other} and {name} write one collection: {collection}"
                yield Problem(what, do="give one another output")
            owners[collection] = name
    for (what, do), names in wrong.items():
        yield Problem(f"step{'s' * (len(names) > 1)} {listed(names)}: {what}", do=do)
