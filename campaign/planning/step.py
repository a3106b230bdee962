"""A resolved template with its pipeline, repository and selection, as `check` and `submit` need it."""

from __future__ import annotations

import contextlib
import grp
import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.camera.model import Camera
from campaign.errors import ConfigurationError, SubmissionRefused
from campaign.frames.ingest import camera_of
from campaign.home import Home, home_of
from campaign.pipeline import model as pipelines
from campaign.pipeline.makers import some
from campaign.pipeline.model import Pipeline
from campaign.planning.inputs import for_purpose, without
from campaign.problems import suggest
from campaign.template.resolve import StepConfig, resolve
from campaign.template.selection import check_expression, instruments
from campaign.wording import command, count, listed

if TYPE_CHECKING:
    from campaign.butler.records import Selection
    from campaign.butler.repository import Repository


@dataclass(frozen=True)
class Options:
    """Options of the command line, which override template and environment."""

    #: Template keys.
    overrides: Mapping[str, Any]
    #: In place of the template's ``computeSite``.
    site: str | None
    #: Exposures to leave out.
    exclude: Collection[int]
    #: Combine a detector that lacks some exposures.
    allow_missing: bool
    #: MPI ranks of a gang; `None`: the site's.
    ranks: int | None
    #: Collection that replaces find-first, by kind (``bias``).
    named: Mapping[str, str] = field(default_factory=dict)
    #: Limits of a verification: a packaged name, or the path of a file; empty: the usual ones.
    limits: str = ""


@dataclass(frozen=True)
class Step:
    """A resolved template, with its environment and the home of its repository."""

    config: StepConfig
    environment: Mapping[str, str]
    home: Home

    @cached_property
    def pipeline(self) -> Pipeline:
        """The pipeline; a `ConfigurationError` has all its problems."""
        config = self.config
        return pipelines.load(config.pipeline_yaml, config.instrument, self.environment, config.pipeline_options)

    @property
    def query_place(self) -> str:
        """Place of the selection, for messages: the template's line and its variables."""
        names = [name for name in self.config.variables if name.startswith("SELECTION_")]
        place = self.config.origins.get("payload.dataQuery", "dataQuery")
        return f"{place} ({', '.join(names)})" if names else place

    @property
    def ticket_chain(self) -> str:
        """The ticket's chain, in which calibrations of the step are found."""
        prefix = self.config.variables.get("USER_CALIB_PREFIX", "")
        return f"{prefix}{self.config.instrument}/calib/{self.config.ticket}"

    @property
    def permissions(self) -> dict[str, str]:
        """Mode and group of published files, where template or site set them.

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
    """Resolve a template.

    Raises
    ------
    ConfigurationError
        With all problems.
    """
    config = resolve(template, environment, options.overrides, options.site)
    return Step(config, environment, home_of(config.butler_config, environment))


def _require_instruments(step: Step, repository: Repository) -> None:
    """Refuse instruments unknown to the repository: their selection would silently find nothing."""
    known = repository.known_instruments()
    places = dict.fromkeys(instruments(step.config.data_query), step.query_place)
    for name, where in {**places, step.config.instrument: "INSTRUMENT"}.items():
        if name not in known:
            raise ConfigurationError(
                f"{repository.root} has no instrument {name!r}, it has {listed(known) or 'none'}",
                where=where,
                do=suggest(name, known),
            )


def select(step: Step, repository: Repository, options: Options) -> tuple[Camera, Selection]:
    """Run the selection: one Butler query.

    Raises
    ------
    ConfigurationError
        The expression is malformed, names an unknown instrument, finds nothing
        or another camera's frames, or lacks an exposure that was to be left out.
    """
    query = step.config.data_query
    if not query:
        raise ConfigurationError("the step selects nothing: dataQuery is empty", where=step.config.path)
    mistakes = check_expression(query)
    if mistakes:
        raise ConfigurationError("\n".join(str(m) for m in mistakes), where=step.query_place)
    _require_instruments(step, repository)
    present = [c for c in step.config.in_collections if repository.collection_type(c)]
    selection, instrument = repository.select(present, query), step.config.instrument
    if not selection.raws:
        raise ConfigurationError(
            f"the selection finds no raw frame in {listed(present)}\n    {query}",
            where=step.query_place,
            do=f"{command('ingest', repository.root, '--camera', instrument, '--summary')} shows what there is",
        )
    others = {e.instrument for e in selection.exposures} - {instrument}
    if others:
        raise ConfigurationError(
            f"the selection finds frames of {listed(others)}, INSTRUMENT is {instrument}",
            where=step.query_place,
            do="select the frames of one camera",
        )
    camera = camera_of(step.home, instrument)
    left = without(for_purpose(selection, camera, query), options.exclude)
    if not left.raws:
        raise ConfigurationError(
            f"nothing is left of {count(len(selection.raws), 'raw')} of {count(len(selection.exposures), 'exposure')}",
            where=step.query_place,
            do="leave fewer out with --exclude, or name the detectors that are wanted (science ones are by default)",
        )
    return camera, left


def in_unit(camera: Camera, pipeline: Pipeline) -> Camera:
    """Give the camera in the unit of a pipeline: ADU where no gains are applied."""
    gains = [task.config["doApplyGains"] for task in some(pipeline, "isr")]
    return camera if all(gains) else camera.model_copy(update={"unit": "adu"})


def require_writeable(folder: Path, need_bytes: int = 0) -> None:
    """Try to write a file where products will go, before anything runs.

    Raises
    ------
    SubmissionRefused
        The file system is read-only or full, or this user may not write.
    """
    while not folder.exists():
        folder = folder.parent
    probe = folder / f".campaign-probe.{os.getpid()}"
    try:
        probe.write_bytes(b"probe")
    except OSError as error:
        raise SubmissionRefused(
            f"cannot be written: {error.strerror} (uid {os.geteuid()})", where=str(folder), do="choose another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # a file that could not be written cannot be removed
            probe.unlink()
    free = shutil.disk_usage(folder).free
    if free < need_bytes:
        raise SubmissionRefused(
            f"{need_bytes / 2**20:.1f} MiB will be written, this disk has {free / 2**20:.1f} MiB left",
            where=str(folder),
            do="make room, or choose another place",
        )
