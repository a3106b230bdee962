"""Other calibrations as the source of a plan, which makes a detector's calibration from others of that detector."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from campaign.errors import SubmissionRefused
from campaign.frames.ingest import camera_of
from campaign.kinds.model import Calibrations
from campaign.kinds.task import PipelineTask
from campaign.pipeline.makers import kind_of, some
from campaign.pipeline.model import Pipeline
from campaign.planning.corrections import require_known
from campaign.planning.step import Options, Step
from campaign.wording import listed

if TYPE_CHECKING:
    from campaign.butler.repository import Dataset, Repository

Found = Mapping[str, Mapping[int, Sequence["Dataset"]]]


def is_derived(pipeline: Pipeline) -> bool:
    """Whether a pipeline reads no raw frames.

    Raises
    ------
    ConfigurationError
        It makes nothing, or several products.
    """
    return isinstance(kind_of(pipeline).made_of, Calibrations)


def readers(pipeline: Pipeline) -> dict[str, PipelineTask]:
    """Give the tasks that each read a calibration, by its role; none if the product is made of frames."""
    made_of = kind_of(pipeline).made_of
    if not isinstance(made_of, Calibrations):
        return {}
    return {str(task.config[made_of.role]): task for task in some(pipeline, made_of.kernel)}


class MadeCalibrations:
    """The calibrations that a step's product is made from.

    Raises
    ------
    ConfigurationError, SubmissionRefused
        One is absent, or some detectors lack it.
    """

    raws: Sequence[tuple[int, int]] = ()
    excluded: Sequence[int] = ()
    applied: Sequence[str] = ()
    physical_filter = ""

    def __init__(self, step: Step, repository: Repository, options: Options, made_of: Calibrations) -> None:
        self._step, self._repository, self._named = step, repository, options.named
        self.camera = camera_of(step.home, step.config.instrument)
        self._types = {role: task.inputs[made_of.connection] for role, task in readers(step.pipeline).items()}
        self._found = self._find()
        self.detectors: Sequence[int] = self._complete()
        self.shared: Mapping[str, Any] = {}
        self.notes = [f"{role} is that of {name}, as --calibration says" for role, name in self._named.items()]

    def _find(self) -> Found:
        """By role and detector: the first in the inputs for each data ID."""
        found: dict[str, dict[int, list[Dataset]]] = {}
        config = self._step.config
        require_known(self._named, self._types, self._step.pipeline.path)
        for collection in self._named.values():
            self._repository.require_collections([collection])
        inputs = [name for name in config.in_collections if self._repository.collection_type(name)]
        for role, wanted in self._types.items():
            there = [self._named[role]] if role in self._named else inputs
            by = defaultdict[int, "list[Dataset]"](list)
            for one in self._repository.datasets(wanted, there, config.data_query):
                by[int(one.data_id["detector"])].append(one)
            if not by:
                raise SubmissionRefused(
                    f"no {wanted} of {config.data_query} in {', '.join(there)}",
                    where=config.path,
                    do=f"submit bps_{wanted} first",
                )
            found[role] = dict(by)
        return found

    def _complete(self) -> list[int]:
        """List the science detectors; refuse if some lack a calibration that others have."""
        science, every = self.camera.detector_ids("SCIENCE"), {d for by in self._found.values() for d in by}
        for role, by in self._found.items():
            if lacking := sorted((every & set(science)) - by.keys()):
                names = listed(self.camera.by_id[d].name for d in lacking)
                raise SubmissionRefused(
                    f"no {self._types[role]} of {names}, which have others",
                    where=self._step.config.path,
                    do="make it, or leave these detectors out of dataQuery",
                )
        return [d for d in science if d in every]

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """The calibrations by dataset ID."""
        used = [one for by in self._found.values() for d in self.detectors for one in by[d]]
        return {one.dataset_id: {"path": one.path} for one in used}

    def inputs(self, detector: int, exposure: int | None = None) -> dict[str, list[str]]:
        """The detector's calibrations, by role."""
        return {role: [one.dataset_id for one in by[detector]] for role, by in self._found.items()}

    def parameters(self, detector: int, exposure: int | None = None) -> dict[str, Any]:
        """Return nothing: there are no frames."""
        return {}

    def alike(self, detector: int | None, exposure: int | None) -> None:
        """Return nothing: there are no frames."""

    def cards(self, detector: int | None, exposure: int | None = None) -> dict[str, Any]:
        """Give the calibrations' IDs and RUNs; of several of a type all but the first are numbered."""
        cards: dict[str, Any] = {}
        for by in self._found.values():
            for number, one in enumerate(by[detector] if detector is not None else ()):
                key = f"CALIB_{one.type.upper()}" + (f"_{number}" if number else "")
                cards |= {f"{key}_ID": one.dataset_id, f"{key}_RUN": one.run}
        return cards | {f"CALIB_{self._types[role].upper()}_NAMED": "by the operator" for role in self._named}

    def summary(self) -> list[dict[str, Any]]:
        """The calibrations: a row a RUN."""
        rows: dict[tuple[str, str], list[int]] = defaultdict(list)
        for by in self._found.values():
            for d in self.detectors:
                for one in by[d]:
                    rows[one.type, one.run] += [d]
        names = ("type", "run", "collection", "begin", "end", "detectors")
        return [dict(zip(names, (kind, run, run, None, None, some), strict=True)) for (kind, run), some in rows.items()]
