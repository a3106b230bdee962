"""A task with upstream's prerequisites, by dataset types as our repositories have them: upstream's own are not on PyPI.

`pipetask qgraph` imports it, and asks its connections alone: nothing is run.
"""

from __future__ import annotations

from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, connectionTypes


def _prerequisite(name: str, storage: str, *more: str) -> connectionTypes.PrerequisiteInput:
    # None at all is allowed: an exposure outside all dates still gets its quantum, to be compared.
    return connectionTypes.PrerequisiteInput(
        doc=name,
        name=name,
        storageClass=storage,
        dimensions=("instrument", "detector", *more),
        isCalibration=True,
        minimum=0,
    )


class CorrectConnections(PipelineTaskConnections, dimensions=("instrument", "exposure", "detector")):
    raw = connectionTypes.Input(
        doc="raw", name="raw", storageClass="RawFrame", dimensions=("instrument", "exposure", "detector")
    )
    bias = _prerequisite("bias", "CalibImage")
    dark = _prerequisite("dark", "CalibImage")
    defects = _prerequisite("defects", "CalibTable")
    flat = _prerequisite("flat", "CalibImage", "physical_filter")
    corrected = connectionTypes.Output(
        doc="made by nobody",
        name="corrected",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "exposure", "detector"),
    )


class CorrectConfig(PipelineTaskConfig, pipelineConnections=CorrectConnections):
    pass


class CorrectTask(PipelineTask):
    ConfigClass = CorrectConfig
    _DefaultName = "correct"
