"""Kills: one process of a command, some time while it runs, or the process that passes a kill point."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from campaign.killpoints import DRIVER, KERNEL
from tests.soak.world import World

#: Processes that may be killed, by a part of their command lines.
VICTIMS: Mapping[str, tuple[str, ...]] = {
    "driver": (),
    "mpiexec": ("mpiexec", "hydra_pmi_proxy"),
    "rank": ("kernels.run",),
    "dask worker": ("spawn_main",),
    "dask helper": ("resource_tracker",),
    "site-run": ("site-run",),
    "ssh": ("ssh -T",),
    "sshd": (),
    "step": ("-m campaign submit", "-m campaign restart"),
    "tar": ("tar --create",),
}
SIGNALS = (signal.SIGKILL,) * 6 + (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGHUP)
#: Of how many kills one is at a kill point.
AT_A_POINT = 3
#: Points that are passed once a job.
SEVERAL = ("job-", "tasks-settled")
POLL_S = 0.004


@dataclass(frozen=True)
class Kill:
    """How a try is hurt.

    Parameters
    ----------
    victim : `str`
        See `VICTIMS`.
    sign : `int`
        The signal.
    moment : `float`
        Second after the command was begun, or, of another victim than its driver, after the first such one was seen.
    point : `str`
        A kill point, in place of all that; empty for none.
    """

    victim: str
    sign: int
    moment: float
    point: str = ""

    def __str__(self) -> str:
        if self.point:
            return f"killed at {self.point}"
        return f"{signal.Signals(self.sign).name} to {self.victim} after {self.moment:.2f} s"


def draw(chance: random.Random, victims: Sequence[str], points: Sequence[str], seconds: float, idle: float) -> Kill:
    """Choose a kill.

    Parameters
    ----------
    victims, points : sequence of `str`
        Kinds of processes in the command; every other kill hits its driver.
    seconds, idle : `float`
        How long the command takes, and of it how long nothing but imports is done.
    """
    victim = chance.choice(("driver", chance.choice(victims)))
    if victim == "driver":
        moment = chance.uniform(idle, max(seconds, idle + 0.1))
    else:
        moment = chance.uniform(0, chance.choice((0.05, 0.3, 1.0, seconds / 2)))
    sign = chance.choice(SIGNALS)
    point = chance.choice(points) if points and chance.randrange(AT_A_POINT) == 0 else ""
    times = chance.choice((1, 1, 2, 3)) if point.startswith(SEVERAL) else 1
    return Kill(victim, sign, moment, f"{point}:{times}" if point else "")


#: Kill points of a driver on this machine, and of kernels.
HERE = tuple(p for p in (*DRIVER, *KERNEL) if p not in ("job-queued", "share-committed", "quanta-submitted"))
QUANTA = (*HERE, "quanta-submitted", "quanta-submitted")
JOBS = (*HERE, "job-queued", "job-queued")
SITES = (*HERE, "share-committed", "share-committed")


def hurt(world: World, process: subprocess.Popen[str], kill: Kill) -> str:
    """Kill; give victim and time, or nobody if the command was quicker."""
    if kill.point:
        return kill.point
    begun = wanted = time.monotonic()
    seen = kill.victim == "driver"
    while process.poll() is None:
        now = time.monotonic()
        if (not seen or now >= wanted + kill.moment) and (pid := _victim(world, process.pid, kill.victim)):
            if seen:
                with suppress(ProcessLookupError):
                    os.kill(pid, kill.sign)
                    return f"{kill.victim} (process {pid}) after {now - begun:.2f} s"
            seen, wanted = True, now
        time.sleep(POLL_S)
    return "nobody"


def _victim(world: World, driver: int, kind: str) -> int:
    if kind == "driver":
        return driver
    if kind == "sshd":
        return random.choice(_connections(world) or [0])
    words = VICTIMS[kind]
    found = [pid for pid, line in world.running().items() if pid != driver and any(w in line for w in words)]
    return random.choice(found) if found else 0


def _connections(world: World) -> list[int]:
    """The processes of the world's sshd that each have a connection."""
    servers, parents = [], dict[int, int]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if (
                    f"{world.base}/".encode() in (entry / "cmdline").read_bytes()
                    and b"sshd" in (entry / "cmdline").read_bytes().split(b"\0")[0]
                ):
                    servers.append(int(entry.name))
    return [pid for pid, parent in parents.items() if parent in servers]
