"""Uncompressed frames, whole process, against programs that people stack with: Siril and IRAF."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from campaign.jobs.launch import cores
from tests.benchmarks import jobs
from tests.benchmarks.bars import BARS
from tests.benchmarks.harness import Bench, Result, Skipped, ratio
from tests.benchmarks.process import Usage, run, run_kernel

SIRIL = """requires 1.0.0
setext fit
stack bias rej s 3 3 -nonorm -out=stacked
"""
IRAF = """images
immatch
imcombine ("@list.txt", "stacked.fits", combine="average", reject="sigclip", lsigma=3., hsigma=3., mclip=yes, \\
    outtype="real", scale="none", zero="none", weight="none", logfile="")
logout
"""


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Skipped(f"no {name}: make bench installs Debian's package {package} where it runs as root")
    return found


def _work(bench: Bench, name: str) -> tuple[Path, Mapping[str, str]]:
    """Make a folder with the frames, and an environment with it as home, so that the user's settings do not count."""
    folder = jobs.fresh(bench.data.folder / name)
    for frame in bench.data.plain:
        (folder / frame.name).symlink_to(frame)
    return folder, {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config")}


def _peer(line: list[str], env: Mapping[str, str], folder: Path, output: str) -> Usage:
    made = folder / output
    made.unlink(missing_ok=True)
    used = run(line, env, folder)
    if not made.exists():
        raise RuntimeError(f"{' '.join(line)}: made no {made.name}")
    return used


def siril(bench: Bench) -> Iterator[Result]:
    """Siril's rejection stack with all its threads against as many ranks."""
    program = _program("siril-cli", "siril")
    folder, env = _work(bench, "siril")
    (folder / "stack.ssf").write_text(SIRIL)
    count = cores()
    turns = bench.alternate(
        5,
        {
            "ours": lambda: run_kernel(jobs.plain(bench.data, count), count),
            "siril-cli": lambda: _peer([program, "-s", "stack.ssf", "-d", "."], env, folder, "stacked.fit"),
        },
    )
    width, height = bench.data.plain_size
    parts = {name: [used.wall for used in samples] for name, samples in turns.items()}
    yield Result(
        f"siril-cli / ours, {bench.data.frames} uncompressed frames",
        ratio(parts["siril-cli"], parts["ours"]),
        bar=BARS["siril / ours"],
        parts=parts,
        parts_unit="s wall",
        condition=f"whole process, {width}x{height} uint16; sigma clip 3 3, no normalisation, all threads, one image; "
        f"ours {count} ranks by mpiexec: image, mask, variance, checksums",
    )


def imcombine(bench: Bench) -> Iterator[Result]:
    """IRAF's imcombine, one process against one rank."""
    program = _program("irafcl", "iraf")
    folder, env = _work(bench, "iraf")
    (folder / "list.txt").write_text("".join(f"{frame.name}\n" for frame in bench.data.plain))
    (folder / "stack.cl").write_text(IRAF)
    turns = bench.alternate(
        3,
        {
            "ours": lambda: run_kernel(jobs.plain(bench.data), 1),
            "imcombine": lambda: _peer([program, "-f", "stack.cl"], env, folder, "stacked.fits"),
        },
    )
    parts = {name: [used.cpu for used in samples] for name, samples in turns.items()}
    width, height = bench.data.plain_size
    yield Result(
        f"IRAF imcombine / ours, {bench.data.frames} uncompressed frames",
        ratio(parts["imcombine"], parts["ours"]),
        parts=parts,
        parts_unit="CPU s",
        condition=f"whole process, {width}x{height} uint16; average, sigclip 3 3, one image; ours 1 rank",
    )
