"""A site's share of a plan: the site plan, and the files that travel with it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from campaign.errors import ConfigurationError, SubmissionRefused, TransientError, naming
from campaign.federation.partition import part
from campaign.journal.plan import Group, Plan, PlanTask, from_plain
from campaign.limited import from_json

VERSION = 1
PLAN = "site-plan.json"
CHUNK = 1 << 20
_WORD = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_+-]|\.(?!\.))*", re.ASCII)
#: A task's name after its label.
_REST = re.compile(r"[A-Za-z0-9_.+,-]*", re.ASCII)
#: Roots of inputs: the site's raw root, the bundle, and the products of the same site plan.
ROOTS = ("raw", "files", "made")


@dataclass(frozen=True)
class SitePlan:
    """A site's share."""

    #: Holder of the share: the archive refuses results under another token.
    site: str
    token: int
    #: Name of the share's folder, below ``<scratch>/<run>``.
    name: str
    #: Folders of the site.
    raw_root: str
    scratch: str
    #: The site's settings, as `campaign.sites.model.from_plain` takes them.
    settings: Mapping[str, Any]
    #: Most workers of quanta at a site with a scheduler.
    slots: int
    #: The plan of the share's tasks alone. Paths are relative: an input's to its ``root`` (see `ROOTS`), an output's to
    #: the folder of this share. An input is described by ``data_id``, and ``bytes`` or ``sha256``.
    plan: Plan

    v: int = VERSION

    def __post_init__(self) -> None:
        labels = [("label", group.label) for group in self.plan.groups]
        for what, text in (("site", self.site), ("name", self.name), ("run", self.plan.run), *labels):
            if not _WORD.fullmatch(text):
                raise ConfigurationError(f"{text!r:.80} cannot be the {what} of a site plan")
        for group in self.plan.groups:
            inside(*_texts(group.config), *(output.path for task in group.tasks for output in task.outputs))
            for task in group.tasks:
                label, _, rest = task.name.partition(":")
                if label != group.label or not _REST.fullmatch(rest):
                    raise ConfigurationError(f"{task.name!r:.80} cannot be a task of {group.label}")
            if group.ranks < 1:
                raise ConfigurationError(f"{group.label}: {group.ranks} ranks")
        for key, file in self.plan.files.items():
            if file.get("root") not in ROOTS:
                raise ConfigurationError(f"input {key} is of {file.get('root')!r}, not of {', '.join(ROOTS)}")
            inside(file["path"])
        for task in self.plan.tasks:
            for path in task.job.outputs.values():
                inside(path)

    @property
    def run_folder(self) -> Path:
        """Folder of all shares of the run at this site."""
        return Path(self.scratch) / self.plan.run

    @property
    def folder(self) -> Path:
        """Folder of this share: products, journal, logs."""
        return self.run_folder / self.name

    def text(self) -> str:
        """Write the JSON document."""
        return json.dumps({**vars(self), "plan": self.plan.plain()}, indent=1)


def inside(*paths: str) -> None:
    """Refuse a path that leads out of its folder."""
    for path in paths:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\0" in path:
            raise ConfigurationError(f"{path!r:.200} leads out of its folder", where="site plan")


def _texts(value: Any) -> Iterator[str]:
    """Give the texts in a group's settings: any may be used as a path."""
    if isinstance(value, str) and value:
        yield value
    for below in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _texts(below)


def parse(text: str | bytes, where: str) -> SitePlan:
    """Read a site plan; check the type of everything in it, and that no path leads elsewhere.

    Raises
    ------
    ConfigurationError
        The text is no site plan, or of another version.
    """
    try:
        plain = from_json(text)
        if plain["v"] != VERSION:
            raise ConfigurationError(f"site plan version {plain['v']!r:.20}, this is for {VERSION}", where=where)
        plan = from_plain(plain["plan"], where)
        groups = [{**vars(group), "tasks": [_taken_apart(task) for task in group.tasks]} for group in plan.groups]
        checked: SitePlan = TypeAdapter(SitePlan).validate_python({**plain, "plan": {**vars(plan), "groups": groups}})
        return checked
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"not a site plan: {place:.200}: {first['msg']}", where=where) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"not a site plan: {error!r:.200}", where=where) from error


def _taken_apart(task: PlanTask) -> dict[str, Any]:
    return {"job": vars(task.job), "outputs": [vars(output) for output in task.outputs], "needs": task.needs}


@dataclass(frozen=True)
class Place:
    """The settings of a site that its site plan holds; see `SitePlan`."""

    name: str
    raw_root: str
    scratch: str
    settings: Mapping[str, Any]
    slots: int = 1
    #: Gives groups, and a camera as plans have it, the size of their gangs: `campaign.planning.allocation.at_site`.
    sized: Callable[[Sequence[Group], Mapping[str, Any]], Sequence[Group]] = lambda groups, camera: groups


def out_of_reach(what: str) -> SubmissionRefused:
    """Say that sites could not find a raw of the archive."""
    do = "a site finds a raw by its path below its raw root: correct the site file, or go without --sites"
    return SubmissionRefused(what, where="raw_root of the archive site", do=do)


def checksum(path: str) -> str:
    """Compute the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def local_name(task: str, dataset_type: str, path: str) -> str:
    """Name a product at its site, below the share's folder."""
    return f"products/{re.sub('[:,]', '_', task)}/{dataset_type}/{PurePosixPath(path).name}"


@dataclass
class Writer:
    """Makes the site plans of a run."""

    #: The whole one.
    plan: Plan
    #: Root of the archive's raws, below which a path names a raw.
    raw_root: str

    _checksums: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._made = {f"{o.type}:{t.name.partition(':')[2]}": (t.name, o) for t in self.plan.tasks for o in t.outputs}

    def make(self, tasks: Sequence[str], site: Place, name: str, token: int) -> SitePlan:
        """Make the plan of some tasks for one site.

        Raises
        ------
        SubmissionRefused
            A raw lies outside the archive's raw root.
        """
        groups = part(self.plan, tasks)
        wanted = set(tasks)
        files: dict[str, dict[str, Any]] = {}
        for task in (task for group in groups for task in group.tasks):
            for role, keys in task.job.inputs.items():
                files |= {key: self._file(role, key, wanted) for key in keys if key not in files}
        plan = replace(
            self.plan,
            repository="",
            submit_path="",
            files=files,
            groups=[_relative(group) for group in site.sized(groups, self.plan.camera)],
        )
        root = site.raw_root or self.raw_root
        return SitePlan(site.name, token, name, root, site.scratch, site.settings, site.slots, plan)

    def _file(self, role: str, key: str, wanted: set[str]) -> dict[str, Any]:
        entry = dict(self.plan.files[key])
        if role == "raw":
            exposure, detector = map(int, key.split(":"))
            data_id = {"instrument": self.plan.instrument, "exposure": exposure, "detector": detector}
            return {**entry, "root": "raw", "path": self._below(entry["path"]), "data_id": data_id}
        task, output = self._made.get(key, ("", None))
        data_id = dict(output.data_id) if output else {"id": key}
        if output and task in wanted:
            return {"root": "made", "path": local_name(task, output.type, output.path), "data_id": data_id}
        path = entry["path"]
        if path not in self._checksums:
            self._checksums[path] = checksum(path)
        name = f"{self._checksums[path]}/{Path(path).name}"
        return {"root": "files", "path": name, "sha256": self._checksums[path], "data_id": data_id}

    def _below(self, path: str) -> str:
        try:
            return str(Path(path).relative_to(self.raw_root))
        except ValueError as error:
            raise out_of_reach(f"the raw {path} does not lie below {self.raw_root}") from error

    def travelling(self, site_plan: SitePlan) -> dict[str, str]:
        """List the files that the bundle must hold: path here, by name there."""
        files = self.plan.files
        return {f["path"]: files[key]["path"] for key, f in site_plan.plan.files.items() if f["root"] == "files"}


def _relative(group: Group) -> Group:
    """Move a group's products into the share's folder; the archive gives them their mode and group."""
    tasks = []
    for task in group.tasks:
        outputs = [replace(o, path=local_name(task.name, o.type, o.path)) for o in task.outputs]
        tasks.append(PlanTask(replace(task.job, outputs={o.type: o.path for o in outputs}), outputs, task.needs))
    own = {"permissions": {}, "inputs_table": "inputs"}
    config = {key: own.get(key, value) for key, value in group.config.items()}
    return replace(group, tasks=tasks, config=config)


def send(site_plan: SitePlan, travelling: Mapping[str, str], to: IO[bytes]) -> None:
    """Write a bundle: a tar of the site plan, and of the files that travel with it, by checksum and name."""
    with tarfile.open(fileobj=to, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        text = site_plan.text().encode()
        about = tarfile.TarInfo(PLAN)
        about.size = len(text)
        tar.addfile(about, io.BytesIO(text))
        for name, path in travelling.items():
            with open(path, "rb") as file:
                member = tarfile.TarInfo(f"files/{name}")
                member.size = os.fstat(file.fileno()).st_size
                tar.addfile(member, file)


def copy(source: IO[bytes], to: IO[bytes], most: int | None, where: str) -> tuple[int, str]:
    """Copy a stream; give its size in bytes, and its SHA-256.

    Raises
    ------
    TransientError
        The stream is longer than ``most`` bytes.
    """
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        size += len(chunk)
        if most is not None and size > most:
            raise TransientError(f"more than the {most} bytes that were to come", where=where)
        digest.update(chunk)
        to.write(chunk)
    return size, digest.hexdigest()


def store(source: IO[bytes], path: Path, wanted: str, most: int | None = None) -> int:
    """Write a file under a temporary name, compare its SHA-256, then rename it; give its size in bytes.

    Raises
    ------
    TransientError
        The content is not the one that was sent.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with naming(path), temporary.open("wb") as file:
            size, found = copy(source, file, most, str(path))
            file.flush()
            os.fsync(file.fileno())
        if found != wanted:
            raise TransientError(f"SHA-256 is {found}, not {wanted}: damaged on its way", where=str(path))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return size
