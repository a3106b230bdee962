"""Configuration of a step: a template with everything in it resolved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from campaign.problems import Problem, Problems, suggest
from campaign.template.vocabulary import DEFAULTS, input_collections, vocabulary


def _labels(value: Any) -> list[str]:
    parts = value if isinstance(value, list) else str(value or "").split(",")
    return [str(part).strip() for part in parts]


def find(values: Mapping[str, Any], command_line: Mapping[str, Any], key: str) -> Any:
    """Look a key up on the command line, in payload and at the outermost level; `None` where there is none."""
    for section in (command_line, values["payload"], values):
        if key in section:
            return section[key]
    return None


class _Text:
    """A key whose value is read as text."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __get__(self, config: StepConfig, owner: type[StepConfig]) -> str:
        return str(config.find(self._key))


@dataclass(frozen=True)
class StepConfig:
    """Template with every ``${..}`` and ``{..}`` resolved."""

    #: The file.
    path: str
    #: Name of the template: ``bps_flat_g.yaml`` also where one source serves all bands.
    name: str
    #: The configuration: nested, plain. ``inCollection`` is a list, ``dataQuery`` one line.
    values: Mapping[str, Any]
    #: Origin of each value, by dotted key: ``file:line``, ``packaged defaults``, ``environment``, ``generated`` or
    #: ``command line``.
    origins: Mapping[str, str]
    #: Environment variables that were used.
    variables: Mapping[str, str]
    #: Values from the command line, by key.
    command_line: Mapping[str, Any] = field(default_factory=dict)
    #: Guesses, and values that are probably not meant.
    warnings: tuple[str, ...] = ()

    #: Pipeline, in the form that `campaign.pipeline.model.load` takes.
    pipeline_yaml = _Text("pipelineYaml")
    #: Folder of the run.
    submit_path = _Text("submitPath")
    #: CHAINED output collection.
    output = _Text("output")
    #: RUN output collection.
    output_run = _Text("outputRun")
    #: Selection of exposures, on one line; may be empty.
    data_query = _Text("dataQuery")
    #: Butler repository.
    butler_config = _Text("butlerConfig")
    #: Time of the resolution, UTC, like 20211117T155008Z.
    timestamp = _Text("timestamp")
    #: Submitting user.
    operator = _Text("operator")

    @property
    def again(self) -> str:
        """Path that resolves to this template again; where one source serves all bands, the name gives the band."""
        return os.path.join(os.path.dirname(self.path), self.name)

    def find(self, key: str) -> Any:
        """Look a key up on the command line, in payload and at the outermost level; `None` where there is none."""
        return find(self.values, self.command_line, key)

    def chosen(self, key: str) -> bool:
        """Whether anything but the packaged defaults sets a key, at any level."""
        names = [name for name in self.origins if name == key or name.endswith(f".{key}")]
        return any(self.origins[name] != DEFAULTS for name in names)

    def resource(self, label: str, key: str) -> Any:
        """Look up a setting of one task; `None` where the key is not set.

        Parameters
        ----------
        label : `str`
            The task's label.
        key : `str`
            A resource key: ``requestMemory`` (MiB), ``requestCpus``, ``requestWalltime`` (minute), ...

        Raises
        ------
        Problems
            There is no such key.
        """
        if key not in vocabulary().resources:
            raise Problems(self.name, [Problem(f"there is no resource {key}", do=suggest(key, vocabulary().resources))])
        groups = [group for group in self.cluster.values() if label in _labels(group.get("pipetasks"))]
        task = (self.values.get("pipetask") or {}).get(label) or {}
        site = (self.values.get("site") or {}).get(self.find("computeSite")) or {}
        for section in (self.command_line, self.values["payload"], *groups, task, site, self.values):
            if section.get(key) is not None:
                return section[key]
        return None

    @property
    def cluster(self) -> Mapping[str, Mapping[str, Any]]:
        """Groups of tasks by name."""
        return {name: group or {} for name, group in (self.values.get("cluster") or {}).items()}

    @property
    def pipeline_options(self) -> str:
        """``extraQgraphOptions``, in the form that `campaign.pipeline.model.load` takes."""
        return str(self.find("extraQgraphOptions") or "")

    @property
    def in_collections(self) -> tuple[str, ...]:
        """Input collections, in order."""
        return tuple(input_collections(self.find("inCollection")))

    @property
    def instrument(self) -> str:
        """``$INSTRUMENT``; empty where the template does not ask for it."""
        return self.variables.get("INSTRUMENT", "")

    def portable(self, path: str) -> str:
        """Write a file without this machine's folders: from the variable that names its folder, else its name alone."""
        folders = {name: value.rstrip("/") for name, value in self.variables.items() if value.startswith("/")}
        above = [name for name, value in folders.items() if value and path.startswith(f"{value}/")]
        if not above:
            return os.path.basename(path)
        name = max(above, key=lambda name: len(folders[name]))
        return f"${name}{path.removeprefix(folders[name])}"

    @property
    def ticket(self) -> str:
        """``$TICKET``; empty where the template does not ask for it."""
        return self.variables.get("TICKET", "")
