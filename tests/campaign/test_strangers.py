"""Only the operator controls a run: ports, keys, folders, and Dask's configuration."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from campaign.journal.events import Event
from campaign.journal.plan import Plan
from campaign.running.runner import Runner
from campaign.schedulers import secure, worker
from tests import strangers
from tests.campaign import plans

pytestmark = pytest.mark.processes

DETECTORS, EXPOSURES, RANKS = 2, 3, 2


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may look into, as a run's is."""
    made = Path(tempfile.mkdtemp(prefix="campaign-strangers-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Path]:
    """A stranger's."""
    with secure.keys(tmp_path) as made:
        yield made


class Held:
    """A plan in a thread, whose first task waits for a frame until it is released.

    A lease has the kernel hold up whoever opens the file.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self._there = plan, threading.Event()
        self._before = signal.signal(signal.SIGIO, lambda *_: None)  # reports that somebody waits
        self._handle = os.open(plan.files["0:0"]["path"], os.O_RDONLY)
        fcntl.fcntl(self._handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        self.runner = Runner(self.plan, self._heard)
        self._thread = threading.Thread(target=self.runner.run, daemon=True)
        self._thread.start()
        assert self._there.wait(60), "it never began"
        time.sleep(0.3)  # all of its processes

    def _heard(self, event: Event) -> None:
        if event.event == "started" and event.task:
            self._there.set()

    def end(self) -> None:
        """Let it go; it is done."""
        os.close(self._handle)
        self._thread.join(60)
        signal.signal(signal.SIGIO, self._before)
        assert not self._thread.is_alive(), "it hangs"


def make(folder: Path, kind: Callable[..., object]) -> Plan:
    files = plans.frames(folder / "raw", EXPOSURES, DETECTORS)
    more = (RANKS,) if kind is plans.gang else ()
    return plans.plan(folder, [kind(folder, EXPOSURES, DETECTORS, *more)], files, DETECTORS, f"r-{folder.name}")


def test_a_stranger_gets_nothing_of_a_run_on_this_machine(folder: Path, keys: Path) -> None:
    held = Held(make(folder, plans.quanta))
    ports = sorted(set(strangers.listening(os.getpid())))
    assert len(ports) >= 4, "scheduler, worker, nanny, the driver's own worker"
    assert [host for host, _ in ports if not ipaddress.ip_address(host).is_loopback] == []
    assert [port for port in ports if strangers.given(strangers.answer(*port, keys))] == []
    (own,) = held.plan.folder.glob(f"{secure.PREFIX}*")
    assert not strangers.may_read(own)
    held.end()
    assert list(held.plan.folder.glob(f"{secure.PREFIX}*")) == []


def test_a_stranger_gets_nothing_of_a_gang(folder: Path, keys: Path) -> None:
    held = Held(make(folder, plans.gang))
    ports = sorted(set(strangers.listening(os.getpid())))
    assert [port for port in ports if strangers.given(strangers.answer(*port, keys))] == []
    # mpiexec's port is at every address and accepts nobody; no rank has a port.
    assert len([host for host, _ in ports if not ipaddress.ip_address(host).is_loopback]) <= 1
    held.end()
    assert "combine:1" in held.runner.outcome.published


def dask(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script under a configuration of Dask's."""
    line = [sys.executable, "-P", "-c", script]
    return subprocess.run(line, env={**os.environ, "DASK_CONFIG": str(folder)}, capture_output=True, text=True)


def test_a_configuration_of_dasks_counts_for_nothing(tmp_path: Path) -> None:
    """A configuration without keys, with a page for everybody, and with code of its own."""
    (tmp_path / "dask.yaml").write_text(
        "distributed:\n  comm: {require-encryption: false}\n  worker: {preload: [nothing_of_this_name]}\n"
        "  scheduler: {http: {routes: [distributed.http.scheduler.api]}}\n"
    )
    script = "from campaign.schedulers import secure; secure.pin(); import dask; "
    script += "print(dask.config.get('distributed.worker.preload'),"
    script += " *map(dask.config.get, sorted(secure.SETTINGS)))"
    done = dask(script, tmp_path)
    wanted = [[], *(secure.SETTINGS[name] for name in sorted(secure.SETTINGS))]
    assert done.stdout == " ".join(map(str, wanted)) + "\n", done.stderr


def test_a_configuration_of_dasks_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Before anything is claimed: `check` and `submit` do so with every plan that has quanta."""
    (tmp_path / "dask.yaml").write_text("a: [\n")
    script = "from campaign.schedulers import secure\nfrom campaign.errors import ConfigurationError\n"
    script += "try:\n    secure.pin()\nexcept ConfigurationError as error:\n    print(error)"
    done = dask(script, tmp_path)
    assert f"{tmp_path}/dask.yaml" in done.stdout and "unset DASK_CONFIG" in done.stdout, done.stderr


def test_a_worker_listens_where_its_node_reaches_the_scheduler(tmp_path: Path) -> None:
    words = worker.options(tmp_path, "tls://127.0.0.1:1", ["--name", "w"], "/scratch")
    assert words[-2:] == ["--host", "127.0.0.1"]
    words = worker.options(tmp_path, "tls://127.0.0.1:1", ["--interface", "ib0"], "/scratch")
    assert words[-2:] == ["--interface", "ib0"] and "--host" not in words
