"""Corrected frames: results of the signature removal, beside a product or as the product."""

from __future__ import annotations

from typing import Final

from campaign.errors import ConfigurationError
from campaign.kinds.draft import GroupDraft, Planner, TaskDraft
from campaign.kinds.isr import BINNED, OF_FRAMES
from campaign.kinds.model import CostModel, DatasetType, Frames, ProductKind
from campaign.kinds.task import PipelineTask
from campaign.wording import listed

TYPE: Final = "postISRCCD"
_DIMENSIONS: Final = ("instrument", "exposure", "detector")


def corrected(planner: Planner) -> list[GroupDraft]:
    """Plan a quantum for each raw frame, if ``doWrite`` asks for it; nothing waits for them."""
    isr = planner.only("isr")
    return [_frames(planner, isr, TYPE)] if isr.config["doWrite"] else []


def _frames(planner: Planner, isr: PipelineTask, product: str) -> GroupDraft:
    bins = _bins(planner, isr)
    tasks = [
        TaskDraft(
            {"exposure": e, "detector": d}, [product, *bins], planner.inputs(d, e), planner.parameters(d, e)
        )
        for e, d in planner.raws
    ]  # fmt: skip
    config = {**planner.shared, "bins": bins} if bins else planner.shared
    return GroupDraft(isr.label, "correct", "quantum", config, tasks, whole=OF_FRAMES)


def _bins(planner: Planner, isr: PipelineTask) -> dict[str, int]:
    """Give the binnings of the frames, which shrink with the camera's scale, by dataset type."""
    wanted = {connection: field for connection, field in BINNED.items() if connection in isr.outputs}
    return {isr.outputs[name]: max(1, round(isr.config[field] / planner.scale)) for name, field in wanted.items()}


def _groups(planner: Planner) -> list[GroupDraft]:
    """Plan the frames, and mosaics of each exposure.

    Raises
    ------
    ConfigurationError
        The dataset type is unknown, or no task makes the bins of a mosaic.
    """
    types = [planner.product, *planner.maker.outputs.values()]
    types += [task.outputs["outputData"] for task in planner.some("mosaic")]
    known = [*KIND.datasets, planner.maker.outputs["outputStatistics"]]
    if unknown := [name for name in types if name not in known]:
        raise ConfigurationError(
            f"{planner.maker.label}: corrected frames are written as {listed(KIND.datasets)}, not as {unknown[0]}",
            where=planner.pipeline,
            do=f"--set extraQgraphOptions='--config {planner.maker.label}:connections.outputExposure={TYPE}'",
        )
    frames = _frames(planner, planner.maker, planner.product)
    return [frames, *(_mosaics(planner, task) for task in planner.some("mosaic"))]


def _mosaics(planner: Planner, task: PipelineTask) -> GroupDraft:
    """Plan a mosaic of the focal plane for each exposure."""
    isr, binned = planner.maker, task.inputs["inputExps"]
    binning = _bins(planner, isr).get(binned)
    if binning is None:
        raise ConfigurationError(
            f"{task.label} makes a mosaic of {binned}, and {isr.label} does not bin to it",
            where=planner.pipeline,
            do="set doBinnedExposures: true, and connections.outputBin1Exposure or outputBin2Exposure to it",
        )
    by_exposure: dict[int, list[int]] = {}
    for exposure, detector in planner.raws:
        by_exposure.setdefault(exposure, []).append(detector)
    tasks = [
        TaskDraft(
            {"exposure": e},
            [task.outputs["outputData"]],
            {"binned": [f"{binned}:{e},{d}" for d in some]},
            {"detectors": some, "binning": binning},
            [f"{isr.label}:{e},{d}" for d in some],
        )
        for e, some in by_exposure.items()
    ]
    return GroupDraft(
        task.label, task.kernel, task.kind, {"permissions": planner.permissions}, tasks, needs=[isr.label]
    )


def _types(frame: str, bins: tuple[str, str]) -> dict[str, DatasetType]:
    return {
        frame: DatasetType(_DIMENSIONS, "CalibImage", rubin="Exposure"),
        **{name: DatasetType(_DIMENSIONS, "CalibImage", rubin="ExposureF") for name in bins},
    }


#: Upstream's names of frames that verify the calibrations of science.
_SCIENCE: Final = "verifyScience"
_MOSAICS: Final = {f"{_SCIENCE}{n}": DatasetType(_DIMENSIONS[:2], "CalibImage", rubin="ImageF") for n in (8, 64)}

KIND: Final = ProductKind(
    "corrected",
    {
        **_types(TYPE, ("postIsrBin1", "postIsrBin2")),
        **_types(f"{_SCIENCE}IsrExp", (f"{_SCIENCE}IsrExpBin8", f"{_SCIENCE}IsrExpBin64")),
        **_MOSAICS,
    },
    maker="isr",
    output="outputExposure",
    config={"doWrite": True},
    made_of=Frames("", least=1, alone=True),
    groups=_groups,
    costs={"correct": CostModel(mpixels_per_second=5.0, pixel_bytes=56, output_bytes=12)},
    picture="image",
)
