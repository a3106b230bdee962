"""Pipelines in upstream's shape, mapped to kernels.

A pipeline imports others, names tasks by label and class, and configures them.
Configuration is data: a ``python:`` block is refused.
"""

from __future__ import annotations

import ast
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from campaign.documents import Entry, plain
from campaign.kinds import table
from campaign.kinds.task import PipelineTask
from campaign.pipeline.files import Draft, DraftPipeline, Reader
from campaign.problems import Problem, Problems, near, suggest
from campaign.template import unmade

_OPTIONS = "extraQgraphOptions"


class PipelineErrors(Problems):
    """All problems of a pipeline and of its imports."""


@dataclass(frozen=True)
class Pipeline:
    """A resolved pipeline."""

    #: The file that was read.
    path: str
    #: As written; may be empty.
    description: str
    instrument: str
    #: By label, in order.
    tasks: Mapping[str, PipelineTask]
    #: Labels by name.
    subsets: Mapping[str, tuple[str, ...]]
    #: Parts that were ignored.
    warnings: tuple[str, ...]


def load(path: str, instrument: str, environment: Mapping[str, str], options: str = "") -> Pipeline:
    """Read a pipeline and its imports.

    Parameters
    ----------
    path : `str`
        The file; ``#label,...`` or ``#subset`` selects a part of it.  In place of
        an absent ``.../<instrument>/X.yaml`` serves ``.../any/X.yaml``.
    instrument : `str`
        The Butler's instrument name.
    environment : `~collections.abc.Mapping` [`str`, `str`]
        For ``$CP_PIPE_DIR`` and the like.
    options : `str`, optional
        ``--config label:field=value``, as often as needed.

    Raises
    ------
    PipelineErrors
        With all problems.
    """
    reader = Reader(instrument, environment)
    location, _, wanted = path.partition("#")
    if lacking := unmade.problem(Path(location).stem):
        raise PipelineErrors(location, [lacking])
    file = reader.find(Entry(location, ""), Path())
    if file is None:
        raise PipelineErrors(location, reader.all_problems())
    draft = reader.read(file, ())
    reader.problems += _configure(draft, options)
    if wanted:
        reader.problems += _keep(draft, {name.strip() for name in wanted.split(",")})
    tasks = {}
    for label, task in draft.tasks.items():
        built = _task(label, task, draft.parameters)
        if isinstance(built, PipelineTask):
            tasks[label] = built
        else:
            reader.problems += built
    if not draft.tasks and not reader.all_problems():
        reader.problems.append(Problem("there are no tasks", file.name))
    if problems := reader.all_problems():
        raise PipelineErrors(str(file), problems)
    return Pipeline(str(file), draft.description, draft.instrument, tasks, draft.subsets, tuple(reader.warnings))


def _value(text: str) -> Any:
    """Read a value from the command line: a number, true, false, a list as in JSON or Python, or text."""
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text) if text.startswith("[") else text
    except (ValueError, SyntaxError):
        return text


def _entry(value: Any) -> Entry:
    """Give a value of the command line its place."""
    if isinstance(value, list):
        return Entry([_entry(one) for one in value], _OPTIONS)
    if isinstance(value, dict):
        return Entry({name: _entry(one) for name, one in value.items()}, _OPTIONS)
    return Entry(value, _OPTIONS)


def _configure(draft: DraftPipeline, options: str) -> list[Problem]:
    """Apply ``--config label:field=value``."""
    try:
        words = shlex.split(options.replace("--config=", "--config "))
    except ValueError as error:
        return [Problem(f"{options}: {error}", _OPTIONS)]
    problems = []
    while words:
        word = words.pop(0)
        argument = words.pop(0) if word in ("-c", "--config") and words else ""
        label, _, rest = argument.partition(":")
        name, equals, text = rest.partition("=")
        if not equals:
            problems.append(Problem(f"{word} {argument}: not understood", _OPTIONS, "--config label:field=value"))
        elif label not in draft.tasks:
            problems.append(Problem(f"there is no task {label}", _OPTIONS, suggest(label, draft.tasks)))
        else:
            task = draft.tasks[label]
            draft.tasks[label] = replace(task, config={**task.config, name: _entry(_value(text))})
    return problems


def _keep(draft: DraftPipeline, wanted: set[str]) -> list[Problem]:
    """Drop the tasks that are not selected."""
    known = [*draft.tasks, *draft.subsets]
    problems = [Problem(f"#{name}: there is no such task", "", suggest(name, known)) for name in wanted - set(known)]
    labels = wanted.union(*(draft.subsets.get(name, ()) for name in wanted))
    draft.tasks = {label: task for label, task in draft.tasks.items() if label in labels or problems}
    return problems


def _task(label: str, draft: Draft, parameters: Mapping[str, Entry]) -> PipelineTask | list[Problem]:
    """Map a task to its kernel, or list its problems."""
    cls = str(draft.cls.value)
    mapped = table.tasks()
    known = mapped.get(cls)
    if known is None:
        meant = near(cls, mapped, cutoff=0.95)
        hint = f"did you mean {meant}?" if meant else f"mapped are {', '.join(sorted(mapped))}"
        return [Problem(f"{label}: the task class {cls} is not mapped to a kernel", draft.cls.where, hint)]
    values = {name: entry.default for name, entry in known.fields.items()}
    connections = {**known.inputs, **known.outputs}
    problems = []
    for name, entry in draft.config.items():
        value, wrong = _substituted(entry, parameters)
        connection = name.removeprefix("connections.")
        if wrong:
            problems.append(replace(wrong, what=f"{label}: {name}: {wrong.what}"))
        elif connection != name and connection in connections and isinstance(value, str):
            connections[connection] = value
        elif name not in known.fields:
            names = [*known.fields, *(f"connections.{other}" for other in connections)]
            problems.append(Problem(f"{label}: {cls} has no field {name}", entry.where, suggest(name, names)))
        elif objection := known.fields[name].objection(value):
            problems.append(Problem(f"{label}: {name}: {value!r}: {objection}", entry.where))
        else:
            values[name] = value
    closed = {name for name, switch in known.optional.items() if not _is_on(switch, values)}
    values = {name: value for name, value in values.items() if name not in closed}
    told = {name: known.fields[name] for name in values if known.fields[name].kernel}
    settings = {f.kernel: values[name] for name, f in told.items() if not (f.quiet and values[name] == f.default)}
    return problems or PipelineTask(
        *(label, cls, known.kernel, known.kind, known.dimensions, values, settings),
        {name: connections[name] for name in known.inputs if name not in closed},
        {name: connections[name] for name in known.outputs if name not in closed},
    )


def _is_on(switch: str, values: Mapping[str, Any]) -> bool:
    """Whether a switch of `campaign.kinds.task.TaskClass.optional` is on."""
    name, _, wanted = switch.partition("=")
    return values[name] in wanted.split("|") if wanted else bool(values[name])


def _substituted(entry: Entry, parameters: Mapping[str, Entry]) -> tuple[Any, Problem | None]:
    """Put a parameter's value in place of ``parameters.name``."""
    value = plain(entry)
    if not isinstance(value, str) or not value.startswith("parameters."):
        return value, None
    name = value.removeprefix("parameters.")
    if name not in parameters:
        return None, Problem(f"there is no parameter {name}", entry.where, suggest(name, parameters))
    return plain(parameters[name]), None
