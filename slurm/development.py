"""Private Slurm clusters on this machine: munged, slurmctld and virtual nodes, for development and tests.

Every daemon runs under the calling user, root or not, in a session of its own; no system service is started.  All
files are in the cluster's folder.  Only if its path is too long for a Unix socket, or has characters that
``slurm.conf`` cannot have, are the daemons' files in a new folder under ``/tmp``, which is removed with the cluster.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slurm.commands import Access
from slurm.proc import pids, stat, variables

STATE = "cluster.json"
MARK = "CAMPAIGN_CLUSTER"
"""In the environment of every daemon, and of what Slurm itself starts: the cluster's folder."""
PORTS = range(20000, 32000)
"""Below the range that Linux gives to outgoing connections."""
JOBS = 5000
"""Job ids of a cluster's own: MPI names a job's shared memory by its id, and clusters here share the machine."""
SOCKET_PATH = 100
"""Longest path of a Unix socket, byte; Linux takes 107."""
START = 20.0
"""Patience with daemons that start, second."""
STOP = 1.0
"""Patience with daemons that were asked to end, second."""
SYSTEM_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo")
PLAIN = re.compile(r"[A-Za-z0-9._/+-]+")

_choosing = threading.Lock()
_chosen: set[int] = set()


class ClusterError(Exception):
    """A development cluster does not start."""


class _PortTaken(ClusterError):
    """Another process has taken a port."""


@dataclass(frozen=True)
class Cluster:
    """A development cluster."""

    #: Name in Slurm.
    name: str
    #: Folder of its state file.
    folder: str
    #: Folder of its daemons' files.
    run: str
    #: Names of the virtual nodes.
    nodes: tuple[str, ...]
    #: Cores that a node claims to have.
    cpus: int
    #: Memory that a node claims to have, MiB.
    memory_mib: int
    #: Process ids by ``munged``, ``slurmctld`` and names of nodes.
    daemons: dict[str, int]

    @property
    def conf(self) -> str:
        """Path of its ``slurm.conf``; a client with this as ``SLURM_CONF`` talks to this cluster."""
        return f"{self.run}/slurm.conf"

    @property
    def access(self) -> Access:
        """Access by its commands."""
        return Access(conf=self.conf)

    @property
    def alive(self) -> bool:
        """Whether all its daemons run."""
        return len(self.daemons) == len(self.nodes) + 2 and self.daemons_alive == list(self.daemons.values())

    @property
    def daemons_alive(self) -> list[int]:
        """Process ids of daemons that run; a number that another program has now does not count."""
        return [pid for pid in self.daemons.values() if variables(pid).get(MARK) == self.folder]


def missing() -> str:
    """Name the first program that this machine lacks; empty if it has all."""
    return next((name for name in PROGRAMS if shutil.which(name, path=_path()) is None), "")


def up(folder: Path, name: str, nodes: int = 4, cpus: int = 4, memory_mib: int = 8000) -> Cluster:
    """Start a cluster, or find it running.

    Parameters
    ----------
    folder : `pathlib.Path`
        Of this cluster alone; made if missing.
    name : `str`
        Small letters and digits; its nodes are ``<name>1``, ``<name>2``, ...
    nodes, cpus, memory_mib : `int`
        Number of virtual nodes, and cores and MiB that each claims to have.

    Raises
    ------
    ClusterError
        A program is missing, a daemon ends or does not answer, or the cluster runs with another shape.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]{0,19}", name):
        raise ClusterError(f"{name!r} is no name of a cluster: at most 20 small letters and digits, a letter first")
    if lacking := missing():
        raise ClusterError(f"no {lacking} on this machine: install Slurm and munge (Debian: make slurm-deps)")
    folder = folder.absolute()
    with _locked(folder):
        there = read(folder)
        if there is not None and there.alive:
            if (len(there.nodes), there.cpus, there.memory_mib) != (nodes, cpus, memory_mib):
                raise ClusterError(f"{name} is up with {len(there.nodes)} nodes of {there.cpus} cores: down first")
            return there
        _clear(folder, there)
        for _ in range(5):
            with suppress(_PortTaken):
                return _start(folder, name, nodes, cpus, memory_mib)
        raise ClusterError(f"{name} found no free ports from {PORTS.start} to {PORTS.stop}")


def down(folder: Path) -> None:
    """Stop a cluster, if there is one, its jobs and their processes; its logs stay until it starts again."""
    folder = folder.absolute()
    if folder.is_dir():
        with _locked(folder):
            _clear(folder, read(folder))


def living(root: Path) -> list[Cluster]:
    """Give the running clusters whose folders are in ``root``, ordered by folder."""
    found = [read(file.parent) for file in sorted(root.absolute().glob(f"*/{STATE}"))]
    return [cluster for cluster in found if cluster is not None and cluster.alive]


def read(folder: Path) -> Cluster | None:
    """Read a cluster's state file; give `None` if it is missing, or not whole."""
    try:
        state = json.loads((folder / STATE).read_text())
        return Cluster(**{**state, "nodes": tuple(state["nodes"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def processes(cluster: Cluster) -> list[int]:
    """Find every process of a cluster: its daemons, its jobs, and their descendants, without zombies.

    A shell with the cluster's ``SLURM_CONF`` is not one of them.
    """
    parents = {pid: parent for pid, state, parent in map(stat, pids()) if state not in "ZX"}
    found = {pid for pid in parents if _belongs(variables(pid), cluster)}
    while children := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= children
    return sorted(found - {os.getpid()})


def _belongs(environment: dict[str, str], cluster: Cluster) -> bool:
    job = environment.get("SLURM_CONF") == cluster.conf and "SLURM_JOB_ID" in environment
    return job or environment.get(MARK) == cluster.folder


# Up


def _start(folder: Path, name: str, nodes: int, cpus: int, memory_mib: int) -> Cluster:
    run = _run_folder(folder, f"{name}{nodes}")
    names = tuple(f"{name}{number}" for number in range(1, nodes + 1))
    cluster = Cluster(name, str(folder), str(run), names, cpus, memory_mib, {})
    with _free_ports(nodes + 1) as ports:
        _write_files(cluster, ports)
        _save(cluster)  # from here on `down` finds it
    try:
        munged = [f"--{key}={run}/munge/{value}" for key, value in MUNGE_FILES.items()]
        _daemon(cluster, "munged", "munged", "-F", "--force", *munged)
        _wait(cluster, lambda: (run / "munge" / "s").exists())
        _daemon(cluster, "slurmctld", "slurmctld", "-D", "-f", cluster.conf)
        _wait(cluster, lambda: _listens(ports[0]))
        for node in names:  # a node that does not reach slurmctld at once would wait for seconds
            _daemon(cluster, node, "slurmd", "-D", "-f", cluster.conf, "-N", node)
        _wait(cluster, lambda: _idle(cluster))
    except BaseException:
        _clear(folder, cluster)
        raise
    _save(cluster)
    return cluster


MUNGE_FILES = {"socket": "s", "key-file": "key", "pid-file": "pid", "seed-file": "seed"}


def _run_folder(folder: Path, node: str) -> Path:
    """Choose the folder of the daemons' files."""
    run = folder / "slurm"
    longest = run / "spool" / node / f"sock.pmi2.{2**31}.{2**31}"
    if PLAIN.fullmatch(str(run)) and len(os.fsencode(longest)) <= SOCKET_PATH:
        run.mkdir(mode=0o700)  # whoever reaches munge can run jobs as the operator
        return run
    return Path(tempfile.mkdtemp(prefix="campaign-", dir="/tmp"))


@contextmanager
def _free_ports(number: int) -> Iterator[list[int]]:
    """Hold free ports until the daemons' files are written."""
    with _choosing:
        found: list[socket.socket] = []
        try:
            for port in random.sample(PORTS, len(PORTS)):
                if len(found) == number:
                    break
                if port not in _chosen and (bound := _bind(port)) is not None:
                    found.append(bound)
            ports = [bound.getsockname()[1] for bound in found]
            _chosen.update(ports)
            yield ports
        finally:
            for bound in found:
                bound.close()


def _bind(port: int) -> socket.socket | None:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("", port))
        bound.listen()  # with SO_REUSEADDR only this finds another listener
    except OSError:
        bound.close()
        return None
    return bound


def _write_files(cluster: Cluster, ports: Sequence[int]) -> None:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    run = Path(cluster.run)
    for part in ("munge", "state", "log", *(f"spool/{node}" for node in cluster.nodes)):
        (run / part).mkdir(parents=True, mode=0o755)
    key = run / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    loader = PackageLoader("templates", "slurm")
    template = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=False).get_template("slurm.conf.j2")
    nodes = [{"name": name, "port": port} for name, port in zip(cluster.nodes, ports[1:], strict=True)]
    values: dict[str, Any] = {**asdict(cluster), "nodes": nodes, "port": ports[0]}
    values["first_job"] = (ports[0] - PORTS.start + 1) * JOBS
    values["user"] = pwd.getpwuid(os.geteuid()).pw_name
    values["host"] = socket.gethostname().partition(".")[0]
    Path(cluster.conf).write_text(template.render(values) + "\n")


def _save(cluster: Cluster) -> None:
    """Write the state file whole, or not at all."""
    file = Path(cluster.folder) / STATE
    new = file.with_suffix(".new")
    new.write_text(json.dumps(asdict(cluster), indent=1) + "\n")
    new.replace(file)


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_PATH])


def _daemon(cluster: Cluster, name: str, program: str, *options: str) -> None:
    """Start a daemon as a child of init, which waits for its end."""
    script = '"$@" </dev/null >>"$0" 2>&1 & echo $!'
    found = str(shutil.which(program, path=_path()))
    line = ["/bin/sh", "-c", script, f"{cluster.run}/log/{name}.out", found, *options]
    environment = {"PATH": _path(), "LC_ALL": "C", "SLURM_CONF": cluster.conf, MARK: cluster.folder}
    done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, start_new_session=True, check=True, cwd="/")
    cluster.daemons[name] = int(done.stdout)


def _listens(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _idle(cluster: Cluster) -> bool:
    """Ask whether all nodes are there."""
    line = ["sinfo", "-h", "-o", "%T %D"]
    shell = {"PATH": _path(), "LC_ALL": "C", "SLURM_CONF": cluster.conf}
    done = subprocess.run(line, env=shell, capture_output=True, text=True, timeout=START, check=False)
    return done.stdout.splitlines()[-1:] == [f"idle {len(cluster.nodes)}"]


def _wait(cluster: Cluster, ready: Callable[[], bool]) -> None:
    """Wait until the daemons are ready, or one of them ends.

    Raises
    ------
    ClusterError
        A daemon has ended, or they are not ready in time; with a line of its log.
    """
    end = time.monotonic() + START
    while not ready():
        dead = [name for name, pid in cluster.daemons.items() if stat(pid)[1] in "ZX"]
        if dead:
            why = _complaint(cluster, dead[0])
            kind = _PortTaken if "in use" in why else ClusterError
            raise kind(f"{dead[0]} of cluster {cluster.name} ended: {why}")
        if time.monotonic() > end:
            last = list(cluster.daemons)[-1]
            raise ClusterError(f"cluster {cluster.name} is not up after {START:g} s: {_complaint(cluster, last)}")
        time.sleep(0.02)


def _complaint(cluster: Cluster, daemon: str) -> str:
    """Find the error line of a daemon's logs."""
    names = (f"{daemon}.out", f"{daemon}.log", f"slurmd-{daemon}.log")
    files = [Path(cluster.run) / "log" / name for name in names]
    lines = [line for file in files if file.exists() for line in file.read_text(errors="replace").splitlines()]
    errors = [line for line in lines if re.search("fatal|error", line, re.IGNORECASE)]
    return (errors or lines or ["without a word"])[-1].strip()


# Down


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a cluster against changes by other processes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _clear(folder: Path, known: Cluster | None) -> None:
    """End all of a cluster's processes and remove its files but for the logs."""
    cluster = known or _orphaned(folder)
    _end(cluster)
    run, logs = Path(cluster.run), folder / "log"
    if (run / "log").is_dir():
        shutil.rmtree(logs, ignore_errors=True)
        shutil.move(run / "log", logs)
    shutil.rmtree(run, ignore_errors=True)
    (folder / STATE).unlink(missing_ok=True)


def _orphaned(folder: Path) -> Cluster:
    """Describe a cluster that may run although its state file was removed."""
    confs = [e["SLURM_CONF"] for e in map(variables, pids()) if e.get(MARK) == str(folder)]
    run = Path(confs[0]).parent if confs else folder / "slurm"
    return Cluster("", str(folder), str(run), (), 0, 0, {})


def _end(cluster: Cluster) -> None:
    """Ask the daemons to end, then kill what is left: jobs outlive their slurmd."""
    _signal(cluster.daemons_alive, signal.SIGTERM)
    end = time.monotonic() + STOP
    while time.monotonic() < end and cluster.daemons_alive:
        time.sleep(0.02)
    while left := processes(cluster):
        _signal(left, signal.SIGKILL)
        if time.monotonic() > end + START:
            raise ClusterError(f"processes {left} of cluster {cluster.name} cannot be killed")
        time.sleep(0.02)


def _signal(numbers: Sequence[int], number: signal.Signals) -> None:
    for pid in numbers:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
