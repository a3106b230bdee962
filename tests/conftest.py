"""Fixtures shared by the whole suite."""

from __future__ import annotations

import atexit
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import settings

import campaign.cli

if TYPE_CHECKING:
    from slurm.development import Cluster

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a process that a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline would time the machine: the first example of a kernel loads its machine code.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

ROOT = Path(__file__).resolve().parent.parent
FRAMES = Path(os.environ.get("CAMPAIGN_FRAMES", ROOT.parent / "shared" / "frames"))
CURATED = Path(os.environ.get("CAMPAIGN_CURATED", ROOT.parent / "shared" / "curated"))
#: Tables of real measurements with published results.
ORACLES = FRAMES.parent / "oracles"

#: Fixtures of tests that start processes.
PROCESSES = {"cluster", "demo", "new_cluster", "operator", "postgresql", "repository", "slurm_here"}
STARTS = {"subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec", "os.system"}
#: Files that use the demo, which takes longest.
DEMO = (
    "tests/campaign/test_end_to_end.py",
    "tests/campaign/test_federation.py",
    "tests/campaign/test_slurm_submit.py",
)
#: Has a run of a bias make no mosaics and no pictures, which take longer than the rest.
COMBINED = ("--set", "pipelineYaml=${CP_PIPE_DIR}/pipelines/${INSTRUMENT}/cpBias.yaml#cpBiasIsr,cpBiasCombine")
#: Begun before all others, the longest first, so that the workers end together.
LONGEST = (
    "tests/dmtn222/test_section7.py",
    "tests/faults/test_kill_points.py",
    "tests/faults/test_restart.py",
    *DEMO,
    "tests/faults/test_slurm.py",
    "tests/campaign/test_real_frames.py",
    "tests/campaign/test_bad_input.py",
)


def soak(*values: Any) -> Any:
    """Mark one case of a parametrised test as long."""
    return pytest.param(*values, marks=pytest.mark.soak)


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start processes by their fixtures; put the longest files first."""
    for item in items:
        if PROCESSES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("processes")
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(file_of(item.nodeid), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a worker a whole file, and all files that use the demo together."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "the demo" if file_of(nodeid) in DEMO else file_of(nodeid)

    return ByFile(config, log)


class Guard:
    """Fails a test that starts a process or opens a Butler's database without the marker `processes`, or `soak`."""

    def __init__(self) -> None:
        self.test = ""
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.test and (event in STARTS or (event == "sqlite3.connect" and "gen3" in str(arguments[0]))):
            raise RuntimeError(f"{self.test}: {event} {arguments[:2]}: mark it with pytest.mark.processes")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        may = item.get_closest_marker("processes") or item.get_closest_marker("soak")
        self.test = "" if may else item.nodeid
        try:
            return (yield)
        finally:
            self.test = ""


def pytest_configure(config: pytest.Config) -> None:
    if "not processes" in config.getoption("markexpr"):  # else threads of other tests run beside a test
        config.pluginmanager.register(Guard())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how long each file took, the longest last."""
    took: Counter[str] = Counter()
    for report in chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            took[file_of(report.nodeid)] += report.duration
    shown = {file: seconds for file, seconds in took.items() if seconds >= 1}
    if len(shown) > 1:
        terminalreporter.section("seconds by file")
        for file, seconds in sorted(shown.items(), key=lambda item: item[1]):
            terminalreporter.write_line(f"{seconds:7.1f}  {file}")
        terminalreporter.write_line(f"{took.total():7.1f}  in all, {len(took) - len(shown)} files below 1 s")


@pytest.fixture(scope="session")
def frames() -> Callable[[str], Path]:
    """Find a folder of real frames, or skip: they are not part of the repository."""

    def find(name: str) -> Path:
        folder = FRAMES / name
        if not folder.is_dir():
            pytest.skip(f"no real frames at {folder} (set CAMPAIGN_FRAMES)")
        return folder

    return find


@pytest.fixture(scope="session")
def curated() -> list[Path]:
    """Find real calibrations as Rubin publishes them, or skip: they are not part of the repository."""
    files = sorted(path for path in CURATED.rglob("*") if path.is_file())
    if not files:
        pytest.skip(f"no real calibrations at {CURATED} (set CAMPAIGN_CURATED)")
    return files


@pytest.fixture(scope="session")
def oracle() -> Callable[[str], Path]:
    """Find a table of real measurements, or skip: they are not part of the repository."""

    def find(name: str) -> Path:
        if not (ORACLES / name).is_file():
            pytest.skip(f"no real measurements at {ORACLES} (beside CAMPAIGN_FRAMES)")
        return ORACLES / name

    return find


@dataclass(frozen=True)
class Demo:
    """Result of one run of the demo: its repository, its answer, and the variables that an operator would export."""

    folder: Path
    answer: subprocess.CompletedProcess[str]
    variables: Mapping[str, str]
    products: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Type a command."""
        return typed(*arguments, environment={**self.variables, **more})


@contextmanager
def said() -> Iterator[list[str]]:
    """Collect standard output and standard error of this process and its children within the context."""
    texts: list[str] = []
    kept, streams = [os.dup(1), os.dup(2)], (sys.stdout, sys.stderr)
    with TemporaryFile() as out, TemporaryFile() as err:
        for stream in streams:
            stream.flush()
        os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        try:
            yield texts
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            sys.stdout, sys.stderr = streams
            for number, copy in enumerate(kept, 1):
                os.dup2(copy, number), os.close(copy)
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())


def typed(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which saves the imports, most of the time of a short command."""
    with patch.dict(os.environ, environment), said() as texts, pytest.raises(SystemExit) as end:
        campaign.cli.main(arguments)
    return subprocess.CompletedProcess(arguments, int(end.value.code or 0), *texts)


@cache
def forks() -> str:
    """Start the server of `tests.forked`, once; give its socket."""
    folder = Path(tempfile.mkdtemp(prefix="campaign-forks-"))
    line = [sys.executable, "-P", str(ROOT / "tests" / "forked.py"), str(folder / "door")]
    server = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd="/")
    assert server.stdin and server.stdout

    def end() -> None:
        with server:
            server.communicate()
        shutil.rmtree(folder)

    atexit.register(end)
    assert server.stdout.readline() == b"ready\n"
    return line[-1]


def apart(*words: str) -> list[str]:
    """Give the command line that runs ``campaign`` or ``butler`` as a process of its own, without its imports."""
    return [sys.executable, "-S", "-E", "-P", str(ROOT / "tests" / "forked.py"), forks(), *words]


def command(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``campaign`` as a process of its own."""
    line = apart("campaign", *arguments)
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run ``campaign demo --json`` once, in a folder whose name has a blank."""
    from campaign.simulation.demo import variables
    from campaign.simulation.simulate import Places

    folder = tmp_path_factory.mktemp("the demo") / "here"
    answer = command("demo", str(folder), "--json")
    assert answer.returncode == 0, answer.stderr
    products = {p["name"]: p for p in json.loads(answer.stdout)["products"]}
    return Demo(folder, answer, variables(Places(folder / "repo")), products)


@pytest.fixture(scope="session")
def slurm_here() -> None:
    """Skip where Slurm is not installed."""
    from slurm.development import missing

    if lacking := missing():
        pytest.skip(f"no {lacking} (make slurm-deps)")


GUARD = """
import sys
from pathlib import Path
sys.stdin.read()  # until the suite ends, however it ends
from slurm.development import down
down(Path(sys.argv[1]))
"""


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Bring a cluster down at the end; also when the suite itself is killed."""
    line = [sys.executable, "-P", "-c", GUARD, str(folder)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, start_new_session=True, cwd=ROOT):
        yield


@pytest.fixture
def new_cluster(slurm_here: None, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Start clusters of one's own, ``new_cluster("frdf", nodes=2, cpus=2)``, to be hurt; they end with the test."""
    from slurm import development

    with ExitStack() as guards:

        def start(name: str = "own", **shape: int) -> Cluster:
            folder = tmp_path / "clusters" / name
            guards.enter_context(guarded(folder))
            return development.up(folder, name, **shape)

        yield start


@pytest.fixture(scope="session")
def cluster(slurm_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start one cluster of 4 nodes of 4 cores for all tests that do not change it."""
    from slurm import development

    folder = tmp_path_factory.mktemp("clusters") / "shared"
    with guarded(folder):
        yield development.up(folder, "shared")


@pytest.fixture
def postgresql() -> Iterator[str]:
    """A server of its own, under a user without rights: PostgreSQL does not run as root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found or os.geteuid() or "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("no PostgreSQL, or not root (make postgresql-deps)")
    folder, tools = Path(tempfile.mkdtemp(prefix="campaign-pg-", dir="/tmp")), found[-1].parent
    shutil.chown(folder, "postgres")

    def tool(name: str, *arguments: str) -> None:
        line = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", str(tools / name), *arguments]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")

    data = str(folder / "data")
    try:
        tool("initdb", "-D", data, "-A", "trust", "-N")
        tool("pg_ctl", "-D", data, "-w", "-o", f"-k {folder} -c listen_addresses='' -F", "start")
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        with suppress(subprocess.CalledProcessError):
            tool("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)
