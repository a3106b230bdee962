"""Compile every numba function for the types in use, by running small jobs of each kernel."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from kernels import compiled, table
from kernels.products.bench import Bench


def compile_all() -> None:
    """Warm every kernel, those of other distributions included; numba keeps the machine code on disk."""
    with TemporaryDirectory(prefix="campaign-warm-") as folder:
        bench = Bench(Path(folder))
        for kernel in map(table.find, table.names()):
            if hasattr(kernel, "warm"):
                kernel.warm(bench)
    compiled.remove_old()
