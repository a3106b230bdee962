"""Many submissions of one process: file descriptors, threads, shared memory and memory stay as they are."""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import typed
from tests.soak import scenarios, world
from tests.soak.world import World

pytestmark = pytest.mark.soak

SUBMITS = int(os.environ.get("CAMPAIGN_SOAK_SUBMITS", "50"))
#: Submissions after which everything is imported, and caches are full.
SETTLED = 5
#: Accepted growth of a process's heap, MiB: in all, and for each submission.
GROWTH_MIB, EACH_MIB = 24.0, 0.5


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = world.make(tmp_path_factory.mktemp("leaks"))
    scenarios.ingested(made)
    return made


@dataclass(frozen=True)
class Held:
    """Resources of a process."""

    files: frozenset[str]
    threads: int
    children: int
    shared: int
    mib: float

    @classmethod
    def now(cls) -> Held:
        """Measure this process."""
        gc.collect()
        files = {name: _link(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")}
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            frozenset(f"{name} {path}" for name, path in files.items() if path),
            threading.active_count(),
            len(children),
            len([path for path in Path("/dev/shm").iterdir() if path.stat().st_uid == os.geteuid()]),
            pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        )


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


@pytest.mark.parametrize(("options", "share"), [((), 0.7), (scenarios.FRAMES, 0.3)], ids=["gangs", "quanta"])
def test_many_submissions_of_one_process(here: World, options: tuple[str, ...], share: float) -> None:
    many, before = max(SETTLED + 1, round(SUBMITS * share)), None
    for number in range(1, many + 1):
        variables = {**here.environment, "TAG": f"n{number}{len(options)}"}
        answer = typed(*scenarios.SUBMIT, *options, environment=variables)
        assert answer.returncode == 0, answer.stderr
        held = Held.now()
        print(f"  {number}: {len(held.files)} files, {held.threads} threads, {held.shared} in shm, {held.mib:.1f} MiB")
        before = held if number <= SETTLED or before is None else before
    assert len(held.files) <= len(before.files), sorted(held.files - before.files)
    assert (held.threads, held.children) <= (before.threads, before.children)
    assert held.shared <= before.shared
    assert held.mib - before.mib < GROWTH_MIB + EACH_MIB * (many - SETTLED)
