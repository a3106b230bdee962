"""The product of a pipeline: the task that makes it, its kind, its dataset type."""

from __future__ import annotations

from campaign.errors import ConfigurationError
from campaign.kinds import table
from campaign.kinds.model import ProductKind
from campaign.kinds.task import PipelineTask
from campaign.pipeline.model import Pipeline


def only(pipeline: Pipeline, kernel: str) -> PipelineTask:
    """Give the pipeline's only task of a kernel.

    Raises
    ------
    ConfigurationError
        The pipeline has none, or several.
    """
    found = some(pipeline, kernel)
    if len(found) != 1:
        raise ConfigurationError(f"{len(found)} tasks of kernel {kernel}, one is needed", where=pipeline.path)
    return found[0]


def some(pipeline: Pipeline, kernel: str) -> list[PipelineTask]:
    """List the pipeline's tasks of a kernel."""
    return [t for t in pipeline.tasks.values() if t.kernel == kernel]


def before(pipeline: Pipeline, task: PipelineTask) -> set[str]:
    """Give the labels of the tasks that make what a task reads, directly or by way of others.

    The signature removal ends the search: its calibrations come from elsewhere.
    """
    found, todo = set[str](), [task]
    others = [t for t in pipeline.tasks.values() if t.kernel != "isr"]
    while todo:
        reads = set(todo.pop().inputs.values())
        more = [t for t in others if reads & set(t.outputs.values()) and t.label not in found]
        found |= {t.label for t in more}
        todo += more
    return found - {task.label}


def maker(pipeline: Pipeline) -> PipelineTask:
    """Give the task that makes the product.

    Raises
    ------
    ConfigurationError
        There is none, or several.
    """
    makers = table.makers()
    found = [t for t in pipeline.tasks.values() if t.kernel in makers]
    if len(found) > 1:  # a product may be made on the way to another one: the last one counts
        read = [label for task in found for label in before(pipeline, task)]
        found = [task for task in found if task.label not in read] or found
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


def kind_of(pipeline: Pipeline) -> ProductKind:
    """Give the kind of the product.

    Raises
    ------
    ConfigurationError
        See `maker`; its configuration fits no kind.
    """
    return table.made_by(maker(pipeline))


def product_of(pipeline: Pipeline) -> str:
    """Give the dataset type of the product: ``bias``, ``biasBootstrap``, ``defects``."""
    return maker(pipeline).outputs[kind_of(pipeline).output]
