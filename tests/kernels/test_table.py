"""The table of kernels: what each module declares, and what other distributions add."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels import table
from kernels.fits import product

ROOT = Path(kernels.__file__).parents[1]
ENTRY = "entry points drp_campaign.kernels"
KERNEL = """
KERNEL = "answer"


def execute(job, comm):
    print(job.config["question"], comm)
    return 0
"""


@pytest.mark.parametrize("name", table.KERNELS)
def test_a_kernel_declares_its_name_and_how_it_is_run(name: str) -> None:
    module = table.find(name)
    assert name == module.KERNEL
    assert [*inspect.signature(module.execute).parameters] == ["job", "comm"]
    if hasattr(module, "warm"):
        assert [*inspect.signature(module.warm).parameters] == ["bench"]


def test_every_module_that_executes_jobs_is_a_kernel() -> None:
    rooms = ("products", "response", "simulation", "verification")
    files = [file for room in rooms for file in (ROOT / "kernels" / room).glob("*.py")]
    executing = [f"kernels.{f.parent.name}.{f.stem}" for f in files if "\ndef execute(" in f.read_text()]
    ours = [module for module in table.KERNELS.values() if module.startswith("kernels.")]  # a benchmark adds its own
    assert sorted(ours) == sorted(executing)
    assert len(executing) >= 14


@pytest.mark.processes
def test_the_table_is_read_without_importing_a_kernel() -> None:
    code = (
        "import sys, kernels.run; print(*{'numpy', 'numba', 'scipy', 'fitsio', 'importlib.metadata'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.processes
def test_serial_kernels_load_no_compiler(tmp_path: Path) -> None:
    """A numba that is loaded costs more than all of their work; pixels are read without it, too."""
    path = tmp_path / "a.fits"
    product.write(str(path), [("CALUNIT", "adu", "")], np.ones((4, 6), np.float32))
    code = (
        "import sys; from kernels import table\n"
        "for name in ('headers', 'mosaic', 'flat_normalise'): table.find(name)\n"
        "from kernels.camera.geometry import Box; from kernels.fits.product import Product\n"
        "opened = Product.open(sys.argv[1], 'adu'); assert opened.planes\n"
        "assert opened.read(Box(1, 1, 3, 2)).sum() == 6\n"
        "print(*{'numba', 'scipy', 'mpi4py'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def distribution(folder: Path, name: str, module: str, text: str | None = KERNEL, kernel: str = "answer") -> None:
    """Lay out an installed distribution with one kernel."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{table.GROUP}]\n{kernel} = {module}\n")
    if text is not None:
        (folder / f"{module}.py").write_text(text)


def run(folder: Path, kernel: str = "answer") -> subprocess.CompletedProcess[str]:
    """Run a job without tasks, with the distributions of a folder."""
    plain = {
        "version": 1, "kernel": kernel, "run": "r", "attempt": 1, "site": "here", "token": 1, "ranks": 1,
        "journal": str(folder / "journal"), "camera": {}, "files": {}, "tasks": [], "config": {"question": "why"},
    }  # fmt: skip
    (folder / "job.json").write_text(json.dumps(plain))
    line = [sys.executable, "-P", "-m", "kernels.run", str(folder / "job.json")]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run(line, env=environment, capture_output=True, text=True)


@pytest.mark.processes
def test_a_kernel_of_another_distribution_runs(tmp_path: Path) -> None:
    distribution(tmp_path, "first", "first_kernel")
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (0, "why None\n"), done.stderr


@pytest.mark.processes
def test_an_unknown_kernel_is_refused_with_all_names(tmp_path: Path) -> None:
    distribution(tmp_path, "first", "first_kernel")
    done = run(tmp_path, "anser")
    assert done.returncode == 3
    assert done.stderr.startswith("error: no kernel 'anser'; there are answer, bfk, combine, ")


@pytest.mark.processes
def test_a_kernel_of_this_package_is_not_replaced(tmp_path: Path) -> None:
    distribution(tmp_path, "first", "first_kernel", kernel="headers")
    done = run(tmp_path, "headers")
    assert "why" not in done.stdout


@pytest.mark.processes
@pytest.mark.parametrize(
    ("module", "text", "why"),
    [
        ("second_kernel", KERNEL, f"of first_kernel and second_kernel ({ENTRY}): uninstall all but one"),
        ("first_kernel", "KERNEL = 'x'\ndef execute(job, comm): ...", f"({ENTRY}) must have KERNEL = 'answer'"),
        ("first_kernel", "KERNEL = 'answer'", "must have KERNEL = 'answer' and execute(job, comm)"),
        ("first_kernel", "import nosuch", "cannot be imported: ModuleNotFoundError: No module named 'nosuch'"),
        ("first_kernel", "raise SystemExit(0)", "cannot be imported: SystemExit: 0"),
    ],
)  # fmt: skip
def test_a_kernel_that_cannot_be_used_is_refused(tmp_path: Path, module: str, text: str, why: str) -> None:
    distribution(tmp_path, "first", "first_kernel", None if module == "first_kernel" else KERNEL)
    if module == "first_kernel":
        (tmp_path / "first_kernel.py").write_text(text)
    else:
        distribution(tmp_path, "second", module, text)
    done = run(tmp_path)
    assert done.returncode == 3
    assert why in done.stderr
