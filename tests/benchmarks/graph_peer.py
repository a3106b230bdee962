"""A bias with its signature removal as a graph of lsst-pipe-base, from the raws of a repository; CPU in JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

logging.disable(logging.CRITICAL)  # warnings about packages that eups does not know
from lsst.daf.butler import Butler  # noqa: E402
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, connectionTypes  # noqa: E402
from lsst.pipe.base.all_dimensions_quantum_graph_builder import AllDimensionsQuantumGraphBuilder  # noqa: E402
from lsst.pipe.base.pipeline_graph import PipelineGraph  # noqa: E402

from tests.benchmarks.graph_data import CAMERA  # noqa: E402

FRAME = ("instrument", "exposure", "detector")
DETECTOR = ("instrument", "detector")
CORRECTED = {"name": "postISRCCD", "storageClass": "CalibImage", "dimensions": FRAME}
BIAS = {"name": "bias", "storageClass": "CalibImage", "dimensions": DETECTOR, "isCalibration": True}


class IsrConnections(PipelineTaskConnections, dimensions=FRAME):
    """A corrected frame from a raw."""

    raw = connectionTypes.Input(doc="raw", name="raw", storageClass="RawFrame", dimensions=FRAME)
    corrected = connectionTypes.Output(doc="corrected", **CORRECTED)


class IsrConfig(PipelineTaskConfig, pipelineConnections=IsrConnections):
    """Nothing to be set."""


class IsrTask(PipelineTask):
    """Signature removal."""

    ConfigClass = IsrConfig
    _DefaultName = "cpBiasIsr"


class CombineConnections(PipelineTaskConnections, dimensions=DETECTOR):
    """A bias from corrected frames."""

    corrected = connectionTypes.Input(doc="corrected", multiple=True, **CORRECTED)
    bias = connectionTypes.Output(doc="bias", **BIAS)


class CombineConfig(PipelineTaskConfig, pipelineConnections=CombineConnections):
    """Nothing to be set."""


class CombineTask(PipelineTask):
    """Combine."""

    ConfigClass = CombineConfig
    _DefaultName = "cpBiasCombine"


class MosaicConnections(PipelineTaskConnections, dimensions=("instrument",)):
    """A mosaic from biases."""

    bias = connectionTypes.Input(doc="bias", multiple=True, **BIAS)
    mosaic = connectionTypes.Output(
        doc="mosaic", name="biasMosaic8", storageClass="CalibImage", dimensions=("instrument",)
    )


class MosaicConfig(PipelineTaskConfig, pipelineConnections=MosaicConnections):
    """Nothing to be set."""


class MosaicTask(PipelineTask):
    """Mosaic."""

    ConfigClass = MosaicConfig
    _DefaultName = "cpBiasMosaic8"


def main(folder: Path) -> None:
    """Build it."""
    began = time.process_time()
    graph = PipelineGraph()
    for task in (IsrTask, CombineTask, MosaicTask):
        graph.add_task(task._DefaultName, task, task.ConfigClass())
    where = f"instrument='{CAMERA}' and exposure.observation_type='bias'"
    with Butler.from_config(str(folder / "repo"), writeable=False) as butler:
        builder = AllDimensionsQuantumGraphBuilder(
            graph, butler, where=where, input_collections=[f"{CAMERA}/raw/all"], output_run="u/peer/run"
        )
        made = builder.build(attach_datastore_records=False)
    print(json.dumps({"tasks": len(made), "cpu_s": time.process_time() - began}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
