"""Compiled code is kept on disk by the sources that it was made of, and warming makes all of it."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kernels
from kernels import compiled
from kernels.warm import compile_all

FOLDER = Path(kernels.__file__).parent
#: Beside the sources: a constant that another file's compiled function uses.
PARTS = """
from kernels.compiled import njit
from numba import types
from numba.extending import intrinsic
CONSTANT = 1

@njit
def helper():
    return 20

@intrinsic
def written(typing):
    return types.int64(), lambda context, *_: context.get_constant(types.int64, 300)
"""
WHOLE = """
from kernels.compiled import njit
from kernels.statistics.parts import CONSTANT, helper, written

@njit
def whole():
    return CONSTANT + helper() + written()
"""
ASK = "from kernels.isr.whole import whole; print(whole(), sum(whole.stats.cache_hits.values()))"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the kernels with two files more."""
    shutil.copytree(FOLDER, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "kernels" / "statistics" / "parts.py").write_text(PARTS)
    (tmp_path / "kernels" / "isr" / "whole.py").write_text(WHOLE)
    return tmp_path


def ask(sources: Path) -> tuple[int, int]:
    """Call the function in a new process: its result, and the times that its machine code came from the cache."""
    line = [sys.executable, "-P", "-c", ASK]
    environment = {**os.environ, "PYTHONPATH": str(sources), "NUMBA_CACHE_DIR": str(sources / "cache")}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    result, hits = done.stdout.split()
    return int(result), int(hits)


@pytest.mark.processes
def test_what_changes_in_another_file_is_compiled_again(sources: Path) -> None:
    parts = sources / "kernels" / "statistics" / "parts.py"
    assert [ask(sources), ask(sources)] == [(321, 0), (321, 1)]
    for then, now, result in (("= 1", "= 2", 322), ("return 20", "return 40", 342), ("300", "500", 542)):
        parts.write_text(parts.read_text().replace(then, now))
        assert [ask(sources), ask(sources)] == [(result, 0), (result, 1)]
    assert len([*(sources / "cache").glob("isr_*/kernels-*")]) == 4
    parts.write_text(PARTS)
    assert ask(sources) == (321, 1)


def test_compiled_functions_lie_where_the_digest_looks() -> None:
    files = {file.relative_to(FOLDER) for file in FOLDER.rglob("*.py") if "\n@njit" in file.read_text()}
    assert {file.parts[0] for file in files} <= {*compiled.ROOMS}
    assert len(files) > 10


def test_machine_code_of_former_sources_is_removed_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, now = 86400, time.time()
    used, old, recent, other = (tmp_path / name for name in ("kernels-a", "kernels-b", "kernels-c", "others-d"))
    for folder, age in ((used, 40), (old, 31), (recent, 29), (other, 40)):
        folder.mkdir()
        (folder / "f.nbc").touch()
        os.utime(folder, (now - age * day,) * 2)
    monkeypatch.setattr(compiled, "_folders", {tmp_path / "read-only" / "kernels-a", used})
    compiled.remove_old()
    assert sorted(tmp_path.iterdir()) == [used, recent, other]
    assert now - used.stat().st_mtime < day


def _dotted(file: Path) -> str:
    return ".".join(file.relative_to(FOLDER.parent).with_suffix("").parts)


def _compiled(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    """The functions of a module that numba compiles."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {f.name: f for f in functions if any("njit" in ast.unparse(d) for d in f.decorator_list)}


def _entries(tree: ast.Module) -> set[str]:
    """Find the compiled functions of a module that Python calls, not another compiled one."""
    functions = _compiled(tree)
    inner = {
        name.id
        for function in functions.values()
        for name in ast.walk(ast.Module(function.body, []))
        if isinstance(name, ast.Name)
    }
    return functions.keys() - inner


def test_warming_compiles_every_function_that_a_job_calls() -> None:
    """A job on a node must find it compiled: hundreds of ranks would compile it at once."""
    compile_all()
    cold, entries = [], 0
    for file in sorted(FOLDER.rglob("*.py")):
        for name in sorted(_entries(ast.parse(file.read_text()))):
            function = getattr(importlib.import_module(_dotted(file)), name)
            entries += 1
            if not function.nopython_signatures:
                cold.append(f"{_dotted(file)}.{name}")
    assert entries > 15
    assert cold == []
