"""What `check` and `submit` share: a template resolved, its pipeline, repository and selection at hand."""

from __future__ import annotations

import grp
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign import pipeline as pipelines
from campaign.camera import Camera
from campaign.errors import ConfigurationError
from campaign.home import Home, home_of
from campaign.ingest import camera_of
from campaign.inputs import for_purpose, without
from campaign.pipeline import Pipeline
from campaign.selection import check_expression, instruments
from campaign.template import StepConfig, resolve

if TYPE_CHECKING:
    from campaign.repository import Repository
    from campaign.repository_records import Selection


@dataclass(frozen=True)
class Options:
    """What the command line adds to template and environment.

    Parameters
    ----------
    overrides : `dict`
        Template keys.
    site : `str` or `None`
        In place of the template's ``computeSite``.
    exclude : collection of `int`
        Exposures to be left out.
    allow_missing : `bool`
        Combine what there is of a detector that lacks some exposures.
    ranks : `int`
        MPI ranks of a gang.
    """

    overrides: Mapping[str, Any]
    site: str | None
    exclude: Collection[int]
    allow_missing: bool
    ranks: int


@dataclass(frozen=True)
class Step:
    """A template resolved, with the pipeline and the home of its repository."""

    config: StepConfig
    pipeline: Pipeline
    home: Home

    @property
    def ticket_chain(self) -> str:
        """The ticket-level chain that the step's calibrations are found in."""
        prefix = self.config.variables.get("USER_CALIB_PREFIX", "")
        return f"{prefix}{self.config.instrument}/calib/{self.config.ticket}"

    @property
    def permissions(self) -> dict[str, str]:
        """Mode and group of published files, where template or site give them.

        Raises
        ------
        ConfigurationError
            The mode is not octal, or there is no such group.
        """
        mode, group = (self.config.resource("", key) for key in ("outputMode", "outputGroup"))
        if mode and not re.fullmatch(r"0?[0-7]{3}", str(mode)):
            raise ConfigurationError(
                f"outputMode {mode!r} is not octal", where=self.config.path, do='write it as "0640"'
            )
        if group and str(group) not in {entry.gr_name for entry in grp.getgrall()}:
            raise ConfigurationError(
                f"there is no group {group!r} on this machine", where=f"{self.config.path}: outputGroup"
            )
        return {key: str(value) for key, value in {"mode": mode, "group": group}.items() if value}


def load(template: str, environment: Mapping[str, str], options: Options) -> Step:
    """Resolve a template and load its pipeline.

    Raises
    ------
    ConfigurationError
        Everything that is wrong with either.
    """
    config = resolve(template, environment, options.overrides, options.site)
    pipeline = pipelines.load(config.pipeline_yaml, config.instrument, environment, config.pipeline_options)
    return Step(config, pipeline, home_of(config.butler_config, environment))


def select(step: Step, repository: Repository, options: Options) -> tuple[Camera, Selection]:
    """Run the selection: one Butler query.

    Raises
    ------
    ConfigurationError
        The expression is malformed, names an unknown instrument or collection,
        or an exposure to be left out is not in it.
    """
    query = step.config.data_query
    if not query:
        raise ConfigurationError("the step selects nothing: dataQuery is empty", where=step.config.path)
    mistakes = check_expression(query)
    if mistakes:
        raise ConfigurationError(
            "\n".join(str(m) for m in mistakes), where=step.config.origins.get("payload.dataQuery", "dataQuery")
        )
    for name in sorted(instruments(query) | {step.config.instrument}):
        repository.require_instrument(name)
    present = [c for c in step.config.in_collections if c != step.ticket_chain or repository.collection_type(c)]
    selection = repository.select(present, query)
    camera = camera_of(step.home, step.config.instrument)
    return camera, without(for_purpose(selection, camera, query), options.exclude)


def require_writeable(folder: Path, need_bytes: int = 0) -> None:
    """Try to write a file where products will go, before anything runs.

    Raises
    ------
    ConfigurationError
        The file system is read-only, full, or not ours to write.
    """
    import shutil

    while not folder.exists():
        folder = folder.parent
    probe = folder / f".campaign-probe.{os.getpid()}"
    try:
        probe.write_bytes(b"probe")
    except OSError as error:
        raise ConfigurationError(
            f"cannot write into it: {error.strerror} (uid {os.getuid()})",
            where=str(folder),
            do="free it, or choose another place",
        ) from error
    finally:
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    if free < need_bytes:
        raise ConfigurationError(
            f"{need_bytes >> 20} MiB will be written, {free >> 20} MiB are free",
            where=str(folder),
            do="free some space",
        )
