"""A journal of a million events, read and folded; and what a thousand more cost."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.benchmarks.bars import BARS
from tests.benchmarks.harness import Bench, Result, ratio
from tests.benchmarks.journal_process import MORE
from tests.benchmarks.process import ask, module

EVENTS, QUICK_EVENTS = 1_000_000, 20_000
#: Where fsync has nothing to wait for, and the bytes that a million events take there.
MEMORY, NEED_BYTES = Path("/dev/shm"), 1 << 30
READERS = {"fold": "a driver's outcome", "index": "a new index"}


def _place(bench: Bench) -> Path:
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > NEED_BYTES
    return MEMORY if roomy else bench.data.folder


def journal(bench: Bench) -> Iterator[Result]:
    """Time and memory by reader: a driver that resumes the run, and the index that ``campaign status`` asks."""
    many = QUICK_EVENTS if bench.quick else EVENTS
    with tempfile.TemporaryDirectory(dir=_place(bench), prefix="campaign-bench-") as name:
        folder = Path(name)
        bench.say(f"writing {many} events")
        ask(module("journal_data", folder / "journal", str(many)))
        size = sum(path.stat().st_size for path in (folder / "journal").iterdir()) / 1e6

        def once(how: str) -> dict[str, float]:
            return dict(json.loads(ask(module("journal_process", how, folder))))

        found = bench.alternate(3, {how: partial(once, how) for how in ("decode", *READERS)})
    cpu, new, peaks = (
        {how: [one[key] for one in some] for how, some in found.items()} for key in ("cpu_s", "more_s", "peak_mib")
    )
    condition = f"{many} events, {size:.0f} MB, written by the kernels' and the driver's own writers; CPU of one core"
    for how, what in READERS.items():
        parts = {what: cpu[how], "decoding its lines": cpu["decode"]}
        yield Result(
            f"read and folded into {what}",
            statistics.median(cpu[how]),
            "s",
            BARS[f"journal: {how}"],
            parts,
            "CPU s",
            condition,
        )
        yield Result(f"{what} / decoding its lines alone, one by one", ratio(cpu[how], cpu["decode"]))
        yield Result(f"VmHWM, {what}", max(peaks[how]), "MiB", BARS["journal: memory"], {what: peaks[how]}, "MiB")
        yield Result(
            f"{MORE} more events into {what}",
            statistics.median(new[how]),
            "s",
            BARS["journal: increment"],
            {what: new[how]},
            "CPU s",
        )
