"""Compiled code is kept by numba under the date of its own file, whatever it was made of."""

from __future__ import annotations

import ast
import hashlib
import importlib
from pathlib import Path

import pytest

import kernels
from kernels.warm import compile_all

FOLDER = Path(kernels.__file__).parent
#: What writes code into other files' compiled functions.
WRITERS = ("lanes", "simd")


def users(writer: str) -> list[Path]:
    """The files that use a writer and have compiled functions."""
    texts = {file: file.read_text() for file in sorted(FOLDER.rglob("*.py"))}
    use = f"from kernels.statistics.{writer} import"
    return [file for file, text in texts.items() if use in text and "@njit" in text]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_changed_writer_changes_the_files_that_were_compiled_with_it(writer: str) -> None:
    """Each of them names the writer that it was compiled with, so that a change there dates the file anew."""
    digest = hashlib.sha256((FOLDER / "statistics" / f"{writer}.py").read_bytes()).hexdigest()[:12]
    assert users(writer)
    for file in users(writer):
        assert f'"{digest}"' in file.read_text(), f"{file.name}: set BUILT_WITH to {digest!r}"


def _dotted(file: Path) -> str:
    return ".".join(file.relative_to(FOLDER.parent).with_suffix("").parts)


def _compiled(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    """The functions of a module that numba compiles."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {f.name: f for f in functions if any("njit" in ast.unparse(d) for d in f.decorator_list)}


def _called(tree: ast.Module, function: ast.FunctionDef) -> set[tuple[str, str]]:
    """(module, function) of the project that a function calls in other files."""
    sources = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kernels")
        for alias in node.names
    }
    found = set()
    for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
        head, *tail = ast.unparse(call.func).split(".")
        if head in sources:
            module, name = sources[head]
            found.add((f"{module}.{name}", tail[0]) if tail else (module, name))
    return found


def test_compiled_functions_call_none_of_another_file() -> None:
    """numba would go on using what was compiled with the other file's former code."""
    trees = {_dotted(file): ast.parse(file.read_text()) for file in FOLDER.rglob("*.py")}
    compiled = {module: _compiled(tree) for module, tree in trees.items()}
    assert sum(map(len, compiled.values())) > 20
    for module, functions in compiled.items():
        for name, function in functions.items():
            for there, called in _called(trees[module], function):
                assert called not in compiled.get(there, {}), f"{module}.{name} calls {there}.{called}"


def _entries(tree: ast.Module) -> set[str]:
    """The compiled functions of a module that no other compiled one of it calls: those that Python calls."""
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
