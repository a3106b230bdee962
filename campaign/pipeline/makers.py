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
    """Give the task that makes the product; one that other tasks do in passing only where it stands alone.

    Raises
    ------
    ConfigurationError
        There is none, or several.
    """
    makers = table.makers()
    able = [t for t in pipeline.tasks.values() if t.kernel in makers]
    found = [t for t in able if t.kind != "fused"] or [t for t in able if t.config.get("doWrite")]
    if len(found) > 1:  # a product may be made on the way to another one: the last one counts
        read = [label for task in found for label in before(pipeline, task)]
        found = [task for task in found if task.label not in read] or found
    if len(found) == 1:
        return found[0]
    if not found:
        do = "add the task that combines, or set doWrite: true of the signature removal for corrected frames"
        raise ConfigurationError("no task makes a product", where=pipeline.path, do=do)
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
    outputs, kind = maker(pipeline).outputs, kind_of(pipeline)
    return outputs.get(kind.output) or next(iter(outputs.values()))  # of a task behind the maker: its only output
