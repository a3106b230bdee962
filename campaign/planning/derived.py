"""Steps that read no raws: what they find in the calibrations of a detector is another calibration of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from campaign.camera.model import Camera
from campaign.documents import load_plain
from campaign.errors import ConfigurationError, SubmissionRefused
from campaign.home import versions
from campaign.jobs.file import JobTask
from campaign.journal.plan import Group, Output, Plan, PlanTask
from campaign.pipeline.makers import kind_of
from campaign.pipeline.model import Pipeline, PipelineTask
from campaign.planning.corrections import require_known
from campaign.planning.inputs import listed

if TYPE_CHECKING:
    from campaign.butler.repository import Dataset, Repository
    from campaign.planning.step import Step

#: Numbers of pixels, which shrink with the camera's scale.
COUNTS: Final = ("column_bad", "column_gap", "column_whole", "edge_rows", "edge_columns", "ring")
#: By kind, the thresholds that its task says.
THRESHOLDS: Final[Mapping[str, tuple[str, ...]]] = {
    "bias": ("bias",),
    "dark": ("mode", "dark", "bright_sigma"),
    "flat": ("flat", "vampire", "dark_sigma"),
}
Inputs = Mapping[str, Mapping[int, Sequence["Dataset"]]]


def is_derived(pipeline: Pipeline) -> bool:
    """Whether a pipeline combines no frames.

    Raises
    ------
    ConfigurationError
        It makes nothing, or several products.
    """
    return not kind_of(pipeline)


def _measures(pipeline: Pipeline) -> dict[str, PipelineTask]:
    """What looks at the bias, the dark and the flat, by kind."""
    return {str(t.config["productType"]): t for t in pipeline.tasks.values() if t.kernel == "measure_defects"}


class Deriver:
    """Builds the plan of one such step.

    Parameters
    ----------
    ranks : `int`
        MPI ranks of its gang.
    named : `dict` [`str`, `str`]
        By kind (``bias``), the collection that it is to come from, whatever the inputs have.
    """

    def __init__(
        self, step: Step, repository: Repository, camera: Camera, ranks: int, run: str, named: Mapping[str, str]
    ) -> None:
        self._step, self._repository, self._camera = step, repository, camera
        self._ranks, self._run, self._named = ranks, run, named
        (self._merge,) = (t for t in step.pipeline.tasks.values() if t.kernel == "defects")
        self._measures = _measures(step.pipeline)

    def freeze(self) -> Plan:
        """Decide everything.

        Raises
        ------
        ConfigurationError, SubmissionRefused
            An input is not there, or some detectors lack it; the boxes drawn by hand cannot be read.
        """
        config, found = self._step.config, self._inputs()
        detectors = self._detectors(found)
        product = self._merge.outputs["mergedDefects"]
        ids = [{"instrument": self._camera.name, "detector": d} for d in detectors]
        paths = self._repository.predict_paths(config.output_run, [(product, data_id) for data_id in ids])
        tasks = [self._task(found, Output(product, data_id, path)) for data_id, path in zip(ids, paths, strict=True)]
        fused = [task.label for task in self._measures.values()]
        group = Group(self._merge.label, "defects", "gang", self._ranks, fused, self._config(), tasks, [])
        used = [one for by in found.values() for d in detectors for one in by[d]]
        return Plan(
            run=self._run,
            template=str(config.path),
            instrument=self._camera.name,
            ticket=config.ticket,
            repository=self._repository.root,
            output=config.output,
            output_run=config.output_run,
            inputs=config.in_collections,
            submit_path=config.submit_path,
            product=product,
            data_query=config.data_query,
            excluded=[],
            camera=self._camera.plain(detectors),
            files={one.dataset_id: {"path": one.path} for one in used}
            | {f"{product}:{d}": {"path": p} for d, p in zip(detectors, paths, strict=True)},
            groups=[group],
            notes=[f"{kind} is that of {name}, as --calibration says" for kind, name in self._named.items()],
            calibrations=self._summary(found, detectors),
        )

    def _inputs(self) -> Inputs:
        """What is looked at: by kind and detector, of each data ID the first that the inputs have."""
        found: dict[str, dict[int, list[Dataset]]] = {}
        require_known(self._named, self._measures, str(self._step.pipeline.path))
        for collection in self._named.values():
            self._repository.require_collections([collection])
        inputs = [name for name in self._step.config.in_collections if self._repository.collection_type(name)]
        for kind, task in self._measures.items():
            there = [self._named[kind]] if kind in self._named else inputs
            wanted, by = task.inputs["inputExp"], defaultdict[int, "list[Dataset]"](list)
            for one in self._repository.datasets(wanted, there, self._step.config.data_query):
                by[int(one.data_id["detector"])].append(one)
            if not by:
                raise SubmissionRefused(
                    f"no {wanted} of {self._step.config.data_query} in {', '.join(there)}",
                    where=self._step.config.path,
                    do=f"submit bps_{wanted} first",
                )
            found[kind] = dict(by)
        return found

    def _detectors(self, found: Inputs) -> list[int]:
        """The science detectors that have all of it; refuses where some lack a part."""
        science, every = self._camera.detector_ids("SCIENCE"), {d for by in found.values() for d in by}
        for kind, by in found.items():
            if lacking := sorted((every & set(science)) - by.keys()):
                names = listed(self._camera.by_id[d].name for d in lacking)
                raise SubmissionRefused(
                    f"no {self._measures[kind].inputs['inputExp']} of {names}, which have others",
                    where=self._step.config.path,
                    do="make it, or leave these detectors out of dataQuery",
                )
        return [d for d in science if d in every]

    def _config(self) -> dict[str, Any]:
        scale = self._camera.scale
        thresholds = {n: self._measures[kind].settings[n] for kind in self._measures for n in THRESHOLDS[kind]}
        growth = dict(self._merge.settings)
        drawn = growth.pop("manual")
        for name in COUNTS:
            growth[name] = max(1, round(growth[name] / scale)) if growth[name] else 0
        config = {"thresholds": thresholds, "growth": growth, "permissions": dict(self._step.permissions)}
        return {**config, "manual": read_boxes(drawn, self._camera)} if drawn else config

    def _task(self, found: Inputs, output: Output) -> PlanTask:
        detector = int(output.data_id["detector"])
        inputs = {kind: [one.dataset_id for one in by[detector]] for kind, by in found.items()}
        job = JobTask(
            f"{self._merge.label}:{detector}",
            detector,
            inputs,
            {output.type: output.path},
            {},
            self._provenance(found, detector),
        )
        return PlanTask(job, [output], [])

    def _provenance(self, found: Inputs, detector: int) -> dict[str, Any]:
        config = self._step.config
        cards: dict[str, Any] = {
            "OUT_RUN": config.output_run,
            "TEMPLATE": config.name,
            "PIPELINE": str(self._step.pipeline.path),
            "TICKET": config.ticket,
            "QUERY": config.data_query,
        }
        for by in found.values():
            for number, one in enumerate(by[detector]):
                key = f"CALIB_{one.type.upper()}" + (f"_{number}" if number else "")
                cards |= {f"{key}_ID": one.dataset_id, f"{key}_RUN": one.run}
        for kind in self._named:
            cards[f"CALIB_{self._measures[kind].inputs['inputExp'].upper()}_NAMED"] = "by the operator"
        return cards | {f"VERSION_{name.upper()}": version for name, version in versions().items()}

    def _summary(self, found: Inputs, detectors: Sequence[int]) -> list[dict[str, Any]]:
        rows: dict[tuple[str, str], list[int]] = defaultdict(list)
        for by in found.values():
            for d in detectors:
                for one in by[d]:
                    rows[one.type, one.run] += [d]
        names = ("type", "run", "collection", "begin", "end", "detectors")
        return [dict(zip(names, (kind, run, run, None, None, some), strict=True)) for (kind, run), some in rows.items()]


def read_boxes(path: str, camera: Camera) -> dict[str, list[list[int]]]:
    """Read boxes that were drawn by hand: YAML, by a detector's name a list of [x0, y0, width, height].

    Raises
    ------
    ConfigurationError
        The file cannot be read, names a detector that the camera has not, or
        holds what is no box.
    """
    try:
        plain = load_plain(Path(path))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the boxes drawn by hand cannot be read: {error}", where=path) from error
    names = {detector.name for detector in camera.by_id.values()}
    for name, drawn in plain.items() if isinstance(plain, dict) else [(path, None)]:
        whole = isinstance(drawn, list) and all(
            isinstance(box, list) and len(box) == 4 and all(type(n) is int for n in box) for box in drawn
        )
        if name not in names or not whole:
            raise ConfigurationError(
                f"{name!r}: {'a detector and a list of boxes was expected' if name in names else 'no such detector'}",
                where=path,
                do="write for example   R22_S11: [[120, 40, 5, 9]]   (x0, y0, width, height)",
            )
    return {str(name): drawn for name, drawn in plain.items()}
