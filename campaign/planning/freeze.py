"""From a resolved step, a pipeline and a selection to a frozen plan."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from statistics import fmean
from typing import Any

from campaign.butler.records import ExposureRecord, Selection
from campaign.butler.repository import Repository
from campaign.camera.model import Camera
from campaign.errors import ConfigurationError, SubmissionRefused
from campaign.home import versions
from campaign.jobs.file import JobTask
from campaign.journal.plan import Group, Output, Plan, PlanTask
from campaign.pipeline.makers import kind_of, maker, only, product_of, some
from campaign.pipeline.model import Pipeline, PipelineTask
from campaign.planning.corrections import Corrections, Finder
from campaign.planning.inputs import absent, listed
from campaign.template.resolve import StepConfig


def run_id() -> str:
    """A new run's id: UTC time and four random characters."""
    salt = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(4))
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{salt}"


@dataclass(frozen=True)
class Request:
    """What `freeze` needs to know.

    Parameters
    ----------
    ranks : `int`
        MPI ranks of a gang.
    excluded : sequence of `int`
        Exposures that the operator left out.
    named : `dict`
        By kind, the collection that the operator wants a calibration from.
    permissions : `dict`
        The site's ``mode`` and ``group`` for published files.
    cards : `dict`
        More for the products' headers: the camera's settings.
    """

    step: StepConfig
    pipeline: Pipeline
    camera: Camera
    selection: Selection
    ranks: int
    excluded: Sequence[int]
    named: Mapping[str, str]
    permissions: Mapping[str, Any]
    cards: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Scales that are made before the frames are combined: by which kernel, as what, and whether for each detector."""

    kernel: str
    type: str
    each: bool


#: Mean t^2 times mean 1 / t^2 from which on the kernel weights darks (`kernels.products.reduce.WORTH`).
UNLIKE = 1.02

#: By ``exposureScaling``.
MEASURED = {
    "InputList": Measured("flat_normalise", "flatNormalization", False),
    "MeanStats": Measured("flat_measure", "flatMeasure", True),
}


class Freezer:
    """Builds the plan of one step."""

    def __init__(self, request: Request, repository: Repository, run: str) -> None:
        self._request = request
        self._repository = repository
        self._run = run
        self._kind, self._product = kind_of(request.pipeline), product_of(request.pipeline)
        self._maker = maker(request.pipeline)
        self._exposures = {e.id: e for e in request.selection.exposures}
        self._isr = only(request.pipeline, "isr")
        self._notes: list[str] = []
        self._files: dict[str, dict[str, Any]] = {}
        self._dark_times = self._fill_dark_times()
        self._by_detector: dict[int, list[ExposureRecord]] = {d: [] for d in request.selection.detectors}
        for raw in request.selection.raws:
            self._by_detector[raw.detector].append(self._exposures[raw.exposure])
        self._cards: dict[int | None, dict[str, Any]] = {}
        self._versions = {f"VERSION_{name.upper()}": version for name, version in versions().items()}

    def freeze(self) -> Plan:
        """Decide everything.

        Raises
        ------
        SubmissionRefused
            A calibration that the pipeline asks for is missing, or cannot be
            applied by this version.
        """
        step, request = self._request.step, self._request
        self._check_mask()
        self._notes += self._corrections.notes
        self._notes += self._notes_on_darks()
        self._files |= self._corrections.files
        gone = absent(request.selection, request.camera, step.data_query)
        if gone:
            self._notes.append(f"no raw of {len(gone)} science detectors is selected: {listed(gone)}")
        for raw in request.selection.raws:
            self._files[f"{raw.exposure}:{raw.detector}"] = {"path": raw.path, "bytes": raw.bytes}
        groups = self._located(self._groups())
        return Plan(
            run=self._run,
            template=str(step.path),
            instrument=request.camera.name,
            ticket=step.ticket,
            repository=self._repository.root,
            output=step.output,
            output_run=step.output_run,
            inputs=step.in_collections,
            submit_path=step.submit_path,
            product=self._product,
            kind=self._kind,
            data_query=step.data_query,
            excluded=sorted(request.excluded),
            camera=request.camera.plain(request.selection.detectors),
            files=self._files,
            groups=groups,
            notes=self._notes,
            calibrations=self._corrections.summary(),
        )

    def _check_mask(self) -> None:
        """What the combine is to leave out must be flagged by somebody, and the other way round."""
        pipeline = self._request.pipeline
        mask = self._maker.config.get("mask", ())
        flagged = {"SAT": self._isr.config["doSaturation"], "CR": bool(some(pipeline, "cosmic"))}
        for plane, done in flagged.items():
            if done != (plane in mask):
                what = f"the combine's mask {mask} {'lacks' if done else 'has'} {plane}"
                raise ConfigurationError(
                    f"{what}, which the pipeline {'flags' if done else 'does not flag'}",
                    where=pipeline.path,
                    do="change mask together with doSaturation (SAT) and the cosmic-ray task (CR)",
                )

    # What corrects the frames

    def _fill_dark_times(self) -> dict[int, float]:
        without = [e.id for e in self._exposures.values() if e.dark_time is None and e.exposure_time > 0]
        if without:
            of_all = f"{len(without)} of {len(self._exposures)} exposures"
            self._notes.append(f"no DARKTIME in {of_all}: the exposure time is used")
        return {e.id: e.exposure_time if e.dark_time is None else e.dark_time for e in self._exposures.values()}

    @cached_property
    def _corrections(self) -> Corrections:
        request = self._request
        return Finder(
            self._isr,
            str(request.pipeline.path),
            request.step.in_collections,
            request.camera.unit,
            request.selection,
            self._repository,
            request.named,
        ).find()

    @property
    def _bias_stays(self) -> bool:
        """Whether a dark is made of frames that still hold the bias."""
        return self._kind == "dark" and self._maker.kernel == "combine" and "bias" not in self._corrections.refs

    def _notes_on_darks(self) -> list[str]:
        notes = []
        if self._bias_stays:
            notes.append(
                "no bias is subtracted from these darks: what a bias holds is in the dark, divided by its time"
            )
        config = self._maker.config
        if self._kind == "dark" and config.get("inputWeights") == "AUTO" and config["combine"] != "MEDIAN":
            times = [self._dark_times[e] for e in self._exposures]
            if min(times) > 0 and fmean(t**2 for t in times) * fmean(t**-2 for t in times) > UNLIKE:
                span = f"{min(times):g} to {max(times):g} s"
                notes.append(f"dark times are {span}: exposures are weighted by their noise")
        return notes

    @property
    def _settings(self) -> dict[str, Any]:
        """What the kernels are told of the signature removal."""
        return {**self._isr.settings, **self._corrections.settings}

    # The tasks

    def _exposures_of(self, detector: int) -> list[ExposureRecord]:
        return self._by_detector[detector]

    def _inputs_of(self, detector: int) -> dict[str, list[str]]:
        return {
            "raw": [f"{e.id}:{detector}" for e in self._exposures_of(detector)],
            **self._corrections.inputs(detector),
        }

    def _scales(self, scaling: str, exposures: Sequence[ExposureRecord]) -> list[float]:
        times = {
            "Unity": lambda e: 1.0,
            "ExposureTime": lambda e: e.exposure_time,
            "DarkTime": lambda e: self._dark_times[e.id],
        }
        if scaling not in times:
            what, do = f"exposureScaling {scaling} cannot be planned", f"possible are InputList, {', '.join(times)}"
            raise ConfigurationError(what, where=self._request.pipeline.path, do=do)
        scales = [times[scaling](e) for e in exposures]
        zero = [e.id for e, s in zip(exposures, scales, strict=True) if s <= 0]
        if zero:
            raise SubmissionRefused(f"exposure {listed(zero)} has no time to be scaled by ({scaling})")
        return scales

    def _parameters(self, exposures: Sequence[ExposureRecord]) -> dict[str, Any]:
        return {
            "exposures": [e.id for e in exposures],
            "dates": [e.begin for e in exposures],
            "exposure_times": [e.exposure_time for e in exposures],
            "dark_times": [self._dark_times[e.id] for e in exposures],
        }

    def _provenance(self, detector: int | None) -> dict[str, Any]:
        """The cards that all tasks of a detector have."""
        if detector not in self._cards:
            self._cards[detector] = self._cards_of(detector)
        return self._cards[detector]

    def _cards_of(self, detector: int | None) -> dict[str, Any]:
        step = self._request.step
        cards: dict[str, Any] = {
            "OUT_RUN": step.output_run,
            "TEMPLATE": step.name,
            "PIPELINE": str(self._request.pipeline.path),
            "TICKET": step.ticket,
            "QUERY": step.data_query,  # short: fitsio misreads an equals sign in a value behind HIERARCH
            "EXCLUDED": " ".join(map(str, sorted(self._request.excluded))) or "none",
            "GAINS_FROM": self._gains_from,
        }
        cards |= self._request.cards
        cards |= self._corrections.cards(detector)
        if self._bias_stays:
            cards["CALIB_BIAS"] = "none"
        if detector is not None:
            gone = [e for e, d in self._request.selection.missing if d == detector]
            cards["MISSING"] = " ".join(map(str, gone)) or "none"
        return cards | self._versions

    @property
    def _gains_from(self) -> str:
        if self._request.camera.unit != "electron":
            return "not applied"
        return "ptc" if "ptc" in self._corrections.refs else "camera file"

    def _task(
        self,
        label: str,
        where: Mapping[str, int],
        types: Sequence[str],
        inputs: Mapping[str, Sequence[str]],
        parameters: Mapping[str, Any],
        needs: Sequence[str],
    ) -> PlanTask:
        """A task named by ``where`` (exposure, detector), whose outputs are not yet located."""
        data_id: dict[str, Any] = {"instrument": self._request.camera.name, **where}
        if "physical_filter" in self._maker.dimensions and "exposure" not in where:
            data_id["physical_filter"] = self._request.selection.exposures[0].physical_filter
        name, detector = f"{label}:{','.join(map(str, where.values()))}", where.get("detector")
        job = JobTask(name, detector, inputs, {}, parameters, self._provenance(detector))
        return PlanTask(job, [Output(t, data_id, "") for t in types], needs)

    # The groups

    def _groups(self) -> list[Group]:
        pipeline, labels = self._request.pipeline, list(self._request.pipeline.tasks)
        groups = [self._correct()] if self._isr.config["doWrite"] else []
        for measure in some(pipeline, "flat_measure"):
            groups += [self._measure(measure, "flatMeasure")]
            groups += [self._normalise(task, measure) for task in some(pipeline, "flat_normalise")]
        if self._maker.kernel == "combine":
            combine = self._combine(self._maker)
            groups += [combine, *(self._mosaic(task, combine) for task in some(pipeline, "mosaic"))]
        else:
            groups += [self._measure(self._maker, self._product)]
        return sorted(groups, key=lambda g: _rank_of(g, groups, labels))

    def _clip(self, task: PipelineTask) -> dict[str, Any]:
        return self._shared | dict(task.settings)

    @property
    def _shared(self) -> dict[str, Any]:
        """What every kernel that reads raws is told."""
        return {
            "isr": self._settings,
            "identity": self._request.camera.translation.identity,
            "permissions": dict(self._request.permissions),
        }

    def _correct(self) -> Group:
        """Quanta that write corrected frames; the combine does not wait for them, it corrects its own."""
        tasks = []
        for raw in self._request.selection.raws:
            one = self._parameters([self._exposures[raw.exposure]])
            inputs = {"raw": [f"{raw.exposure}:{raw.detector}"], **self._corrections.inputs(raw.detector)}
            tasks.append(
                self._task(
                    self._isr.label,
                    {"exposure": raw.exposure, "detector": raw.detector},
                    ["postISRCCD"],
                    inputs,
                    one,
                    [],
                )
            )
        return Group(self._isr.label, "correct", "quantum", 1, [], self._shared, tasks, [])

    def _measure(self, task: PipelineTask, product: str) -> Group:
        """What is measured of each detector's frames, one file a detector."""
        tasks = [
            self._task(
                task.label,
                {"detector": d},
                [product],
                self._inputs_of(d),
                self._parameters(self._exposures_of(d)),
                [],
            )
            for d in self._request.selection.detectors
        ]
        return Group(
            task.label, task.kernel, task.kind, self._request.ranks, [self._isr.label], self._clip(task), tasks, []
        )

    def _normalise(self, task: PipelineTask, measure: PipelineTask) -> Group:
        detectors = self._request.selection.detectors
        inputs = {"flatMeasure": [f"flatMeasure:{d}" for d in detectors]}
        config = {**task.settings, "permissions": dict(self._request.permissions)}
        needs = [f"{measure.label}:{d}" for d in detectors]
        one = self._task(task.label, {}, ["flatNormalization"], inputs, {}, needs)
        return Group(task.label, task.kernel, task.kind, 1, [], config, [one], [measure.label])

    def _combine(self, task: PipelineTask) -> Group:
        pipeline, detectors = self._request.pipeline, self._request.selection.detectors
        bins = some(pipeline, "bin")
        cosmic = some(pipeline, "cosmic")
        scaling = task.config["exposureScaling"]
        measured = MEASURED.get(scaling)
        waits = [only(pipeline, measured.kernel).label] if measured else []
        names = {b.label: b.outputs["outputExp"] for b in bins}
        tasks = []
        for d in detectors:
            inputs, parameters = self._inputs_of(d), self._parameters(self._exposures_of(d))
            needs = [f"{label}:{d if measured and measured.each else ''}" for label in waits]
            if measured:
                inputs[measured.type] = [f"{measured.type}:{d if measured.each else ''}"]
            else:
                parameters["scales"] = self._scales(scaling, self._exposures_of(d))
            tasks.append(
                self._task(task.label, {"detector": d}, [self._product, *names.values()], inputs, parameters, needs)
            )
        config = self._clip(task) | {
            "product": self._product,
            "bins": {names[b.label]: self._binning(b) for b in bins},
            "inputs_table": f"{self._request.step.submit_path}/inputs",
        }
        if task.config["doVignette"]:
            config["vignette_mm"] = task.config["vignette.radius"]
        if cosmic:
            config["cosmic"] = dict(cosmic[0].settings)
        fused = [t.label for t in [self._isr, *cosmic, *bins]]
        return Group(task.label, task.kernel, task.kind, self._request.ranks, fused, config, tasks, waits)

    def _binning(self, task: PipelineTask) -> int:
        """Pixel-count settings shrink with the camera's scale."""
        return max(1, round(task.config["binning"] / self._request.camera.scale))

    def _mosaic(self, task: PipelineTask, combine: Group) -> Group:
        detectors, binning = self._request.selection.detectors, task.config["binning"]
        binned = task.inputs["inputExps"]
        if binned not in combine.config["bins"]:
            raise ConfigurationError(
                f"{task.label} makes a mosaic of {binned}, and no task of the pipeline bins by {binning}",
                where=str(self._request.pipeline.path),
            )
        inputs = {"binned": [f"{binned}:{d}" for d in detectors]}
        parameters = {"detectors": list(detectors), "binning": self._binning(task)}
        needs = [f"{combine.label}:{d}" for d in detectors]
        one = self._task(task.label, {}, [task.outputs["outputData"]], inputs, parameters, needs)
        config = {"permissions": dict(self._request.permissions)}
        return Group(task.label, task.kernel, task.kind, 1, [], config, [one], [combine.label])

    # Where the outputs will lie

    def _located(self, groups: Sequence[Group]) -> list[Group]:
        """Ask the datastore, in one call, for every path; enter the outputs in the file table."""
        outputs = [(o.type, o.data_id) for g in groups for t in g.tasks for o in t.outputs]
        paths = iter(self._repository.predict_paths(self._request.step.output_run, outputs))
        placed = []
        for group in groups:
            tasks = []
            for task in group.tasks:
                known = [replace(o, path=next(paths)) for o in task.outputs]
                for o in known:
                    self._files[f"{o.type}:{task.name.partition(':')[2]}"] = {"path": o.path}
                job = replace(task.job, outputs={o.type: o.path for o in known})
                tasks.append(replace(task, job=job, outputs=known))
            placed.append(replace(group, tasks=tasks))
        return placed


def _rank_of(group: Group, groups: Sequence[Group], labels: Sequence[str]) -> tuple[int, int]:
    """Order of execution: after what it needs, then as the pipeline lists it."""
    by_label = {g.label: g for g in groups}

    def depth(g: Group) -> int:
        return 1 + max((depth(by_label[n]) for n in g.needs), default=0)

    return depth(group), labels.index(group.label)


def freeze(request: Request, repository: Repository, run: str) -> Plan:
    """Freeze the plan of one step; nothing is written.

    Raises
    ------
    ConfigurationError, SubmissionRefused
        The pipeline cannot be planned, or a calibration that it needs is missing.
    """
    return Freezer(request, repository, run).freeze()
