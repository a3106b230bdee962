"""What a pipeline makes: the one task that makes its product, of which frames, and the product's dataset type."""

from __future__ import annotations

from campaign.errors import ConfigurationError
from campaign.pipeline.model import Pipeline, PipelineTask


def only(pipeline: Pipeline, kernel: str) -> PipelineTask:
    """The pipeline's one task of a kernel.

    Raises
    ------
    ConfigurationError
        It has none, or several.
    """
    found = [t for t in pipeline.tasks.values() if t.kernel == kernel]
    if len(found) != 1:
        raise ConfigurationError(f"{len(found)} tasks of kernel {kernel}, one is needed", where=str(pipeline.path))
    return found[0]


def some(pipeline: Pipeline, kernel: str) -> list[PipelineTask]:
    """The pipeline's tasks of a kernel."""
    return [t for t in pipeline.tasks.values() if t.kernel == kernel]


#: By kernel, the connection of the product that a pipeline is for, and of which frames it is made where its task does
#: not say; '' for none.
MAKERS = {"combine": ("outputData", ""), "cti": ("outputCalib", "flat"), "defects": ("mergedDefects", "")}


def maker(pipeline: Pipeline) -> PipelineTask:
    """The task that makes what the pipeline is for.

    Raises
    ------
    ConfigurationError
        There is none, or several.
    """
    found = [t for t in pipeline.tasks.values() if t.kernel in MAKERS]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigurationError("no task makes a product", where=pipeline.path, do="add the task that combines")
    names = ", ".join(task.label for task in found)
    raise ConfigurationError(
        f"{len(found)} tasks make a product each, one is possible: {names}",
        where=pipeline.path,
        do=f"split the pipeline, or take a part of it: {pipeline.path}#LABEL,... with one of these",
    )


def kind_of(pipeline: Pipeline) -> str:
    """Of what the pipeline makes its product: ``bias``, ``dark`` or ``flat`` frames; empty where of none."""
    task = maker(pipeline)
    return str(task.config.get("calibrationType", MAKERS[task.kernel][1]))


def product_of(pipeline: Pipeline) -> str:
    """The dataset type that the pipeline makes: ``bias``, ``biasBootstrap``, ``defects``."""
    task = maker(pipeline)
    return task.outputs[MAKERS[task.kernel][0]]
