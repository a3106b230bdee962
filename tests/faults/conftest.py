"""The victims of the faults: a small repository, and an operator who types commands."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from campaign.simulation.demo import variables
from campaign.simulation.simulate import Places
from tests.conftest import COMBINED, apart, command, typed

CALIB = "LSSTComCam/calib/DM-00000"
NUMBERS = ("--bias", "4", "--dark", "3", "--flat", "0", "--scale", "32", "--detector", "0", "--detector", "1")
#: A user without any rights.
NOBODY = 65534


@dataclass(frozen=True)
class Answer:
    """Result of a command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Operator:
    """An operator with a repository of four biases and three darks of two detectors."""

    places: Places
    variables: Mapping[str, str]
    type: Callable[..., Answer]

    @property
    def repo(self) -> Path:
        return self.places.repository

    @property
    def scratch(self) -> Path:
        return Path(self.variables["SCRATCH"])

    def run(self, *arguments: str, **more: str | None) -> Answer:
        """Run a command; whatever goes wrong, no traceback is shown."""
        answer = self.type(*arguments, **more)
        assert "Traceback" not in answer.err + answer.out, answer.err
        return answer

    def submit(self, tag: str, *arguments: str, **more: str | None) -> Answer:
        """Make a bias by one rank, two tasks."""
        return self.run("submit", "bps_bias", "--ranks", "1", *COMBINED, *arguments, **{"TAG": tag, **more})

    def refuse(self, code: int, *arguments: str, **more: str | None) -> str:
        """Run a command that must be refused without a trace; give its output."""
        before = self.left()
        answer = self.run(*arguments, **more)
        assert answer.code == code, answer
        assert self.left() == before
        return answer.err + answer.out

    def left(self) -> tuple[set[str], set[Path]]:
        """All collections and all files, but for those of the database itself."""
        with closing(sqlite3.connect(self.repo / "gen3.sqlite3")) as database:
            names = {name for (name,) in database.execute("select name from collection")}
        files = {p for p in self.repo.parent.rglob("*") if p.is_file() and "sqlite3-" not in p.name}
        return names, files

    def start(self, *arguments: str, how: Mapping[str, Any] | None = None, **more: str) -> subprocess.Popen[str]:
        """Start a command as a process of its own; a true one, where it matters how."""
        line = [sys.executable, "-P", "-m", "campaign", *arguments] if how else apart("campaign", *arguments)
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(line, env={**os.environ, **self.variables, **more}, **{**pipes, **(how or {})})

    def raw(self, number: int, detector: int) -> Path:
        """A raw by its place in the order of exposures."""
        return sorted(self.places.raw.rglob(f"*_R22_S0{detector}.fits"))[number]

    def products(self, tag: str) -> list[Path]:
        """All products of a tag, temporary files too."""
        return sorted(p for p in (self.repo / CALIB / tag).rglob("*") if p.is_file())

    def folder(self, tag: str) -> Path:
        """The submit folder of a tag's only run."""
        (folder,) = (self.scratch / "submit" / CALIB / tag).glob("*/*")
        return folder

    def events(self, tag: str) -> list[dict[str, Any]]:
        """Every line of the journals of a tag's run."""
        files = sorted(self.folder(tag).glob("journal/*.jsonl"))
        return [json.loads(line) for path in files for line in path.read_text().splitlines()]

    def recorded(self, tag: str) -> int:
        """How many datasets of a tag's RUNs the Butler has."""
        query = "select count(*) from file_datastore_records where path like ?"
        with closing(sqlite3.connect(self.repo / "gen3.sqlite3")) as database:
            return int(database.execute(query, (f"{CALIB}/{tag}/%",)).fetchone()[0])


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Places:
    made = Places(tmp_path_factory.mktemp("faults") / "repo")
    done = command("simulate", str(made.repository), *NUMBERS, "--json")
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def operator(repository: Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Operator:
    environment = variables(repository)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)  # files of a shell that ran injected words would appear here

    def type(*arguments: str, **more: str | None) -> Answer:
        with pytest.MonkeyPatch.context() as changed:
            for name in (name for name, value in more.items() if value is None):
                changed.delenv(name)
            done = typed(*arguments, environment={name: value for name, value in more.items() if value is not None})
        return Answer(done.returncode, done.stdout, done.stderr)

    return Operator(repository, environment, type)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount small file systems."""
    mounted: list[Path] = []

    def mount(path: Path, *options: str) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        line = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(path)]
        if subprocess.run(line, capture_output=True).returncode:
            pytest.skip("a small disk takes the right to mount one")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


@contextmanager
def altered(path: Path) -> Iterator[Path]:
    """A file that may be damaged inside, and is itself again afterwards."""
    content = path.read_bytes()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(content)
