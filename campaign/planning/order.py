"""The order of a run, kept in its folder so that a restart repeats it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from campaign.errors import ConfigurationError
from campaign.jobs.file import write_text
from campaign.lines import lacking
from campaign.planning.step import Options, Step, load

NAME = "order.json"
#: Variable by which a campaign's driver hands a submission the nonce of its step.
NONCE = "CAMPAIGN_NONCE"
#: Keys of the file, with their types.
NEEDS = {"template": str, "overrides": dict, "exclude": list, "allow_missing": bool, "named": dict, "variables": dict}


@dataclass(frozen=True)
class Order:
    """The command line and the environment of a submission."""

    template: str
    #: Template keys.
    overrides: Mapping[str, Any]
    #: One site in place of the template's; several that share the work.
    site: str | None
    sites: str | None
    #: Whether another release of a site only causes a warning.
    override: bool

    exclude: Sequence[int]
    allow_missing: bool
    #: MPI ranks of a gang; `None`: the site's.
    ranks: int | None
    #: Collection of the calibration, by kind.
    named: Mapping[str, str] = field(default_factory=dict)
    #: Environment variables that the template names.
    variables: Mapping[str, str] = field(default_factory=dict)
    #: Limits of a verification: a packaged name, or the path of a file; empty: ours.
    limits: str = ""
    #: Mark by which a campaign's driver knows its run; empty for an operator's own.
    nonce: str = ""

    @classmethod
    def of(
        cls, step: Step, options: Options, sites: str | None = None, override: bool = False, nonce: str = ""
    ) -> Order:
        """Make the order of a step that was just resolved."""
        return cls(
            template=step.config.again,
            overrides=options.overrides,
            site=options.site,
            sites=sites,
            override=override,
            exclude=sorted(options.exclude),
            allow_missing=options.allow_missing,
            ranks=options.ranks,
            named=options.named,
            limits=options.limits,
            variables={**step.config.variables, "CAMPAIGN_HOME": str(step.home.path.absolute())},
            nonce=nonce,
        )

    @property
    def options(self) -> Options:
        """The options of the step."""
        exclude = frozenset(self.exclude)
        return Options(self.overrides, self.site, exclude, self.allow_missing, self.ranks, self.named, self.limits)

    def write(self, folder: Path) -> None:
        """Write the order into a run's folder."""
        write_text(folder / NAME, json.dumps(asdict(self), indent=1))

    def step(self, output_run: str, submit_path: str) -> Step:
        """Resolve the step again, for the existing run.

        Raises
        ------
        ConfigurationError
            The template does not resolve any more.
        """
        fixed = {"outputRun": output_run, "submitPath": submit_path}
        options = replace(self.options, overrides={**self.overrides, **fixed})
        return load(self.template, {**os.environ, **self.variables}, options)


def read(folder: Path) -> Order:
    """Read a run's order.

    Raises
    ------
    ConfigurationError
        The folder holds none: nothing was planned there.
    """
    try:
        found = json.loads((folder / NAME).read_text())
        if wrong := lacking(found, NEEDS) if isinstance(found, dict) else "it is no JSON object":
            raise ValueError(wrong)
        return Order(**found)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ConfigurationError(
            f"no run was planned here: {error}", where=str(folder / NAME), do="submit the template again"
        ) from error


def fingerprint(step: Step) -> dict[str, str]:
    """Give checksums, by label, of everything but frames and code that decides the bits of products."""
    found = {label: _digest(asdict(task)) for label, task in step.pipeline.tasks.items()}
    return found | {"dataQuery": _digest([step.config.data_query, list(step.config.in_collections)])}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
