"""Runs many independent gangs as arrays, within what a site lets one array, and one user, have."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from slurm.commands import cancel, find, submit
from slurm.scripts import Resources, Scheduler, array_script, keep, log_of, write_commands
from slurm.states import Status
from slurm.watcher import Watcher


@dataclass(frozen=True)
class Part:
    """One array.

    Parameters
    ----------
    name : `str`
        Its name.
    script : `~pathlib.Path`
        Its job script.
    logs : `tuple` [`~pathlib.Path`, ...]
        Of its elements.
    """

    name: str
    script: Path
    logs: tuple[Path, ...]


def split(count: int, max_array: int, max_submit: int) -> list[range]:
    """Cut ``count`` elements into arrays, as even as can be.

    Where not all may be in the queue at once, two arrays may: while one ends, the other one runs.

    Parameters
    ----------
    count : `int`
        Elements; none is no array.
    max_array : `int`
        Elements that an array may have.
    max_submit : `int`
        Elements that may be in the queue.
    """
    room = max_submit if count <= max_submit else max(1, max_submit // 2)
    parts = ceil(count / min(max_array, room))
    return [range(count * n // parts, count * (n + 1) // parts) for n in range(parts)]


def prepare(
    name: str, commands: Sequence[Sequence[str]], log: Path, resources: Resources, scheduler: Scheduler
) -> list[Part]:
    """Write the scripts, and the file of commands, for one command an element.

    Parameters
    ----------
    name : `str`
        Arrays are called ``<name>``, or ``<name>-p<n>`` where there is more than one.
    commands : sequence
        Argument lists.
    log : `~pathlib.Path`
        ``<folder>/<name>.log``: logs, scripts and commands lie in that folder.
    resources : `Resources`
        Of each element.
    scheduler : `Scheduler`
        The site.
    """
    file = write_commands(log.with_suffix(".commands"), commands)
    parts = split(len(commands), scheduler.max_array, scheduler.max_submit)
    prepared = []
    for number, elements in enumerate(parts):
        ending = f"-p{number}" if len(parts) > 1 else ""
        here = log.with_name(f"{log.stem}{ending}{log.suffix}")
        script = array_script(name + ending, file, elements, here, resources, scheduler)
        logs = tuple(log_of(here, index) for index in range(len(elements)))
        prepared.append(Part(name + ending, keep(script, here), logs))
    return prepared


def run(
    parts: Sequence[Part],
    watcher: Watcher,
    scheduler: Scheduler,
    announce: Callable[[Part], None] = lambda part: None,
) -> list[Status]:
    """Run arrays to their end, as many at a time as the site's ``max_submit`` has room for.

    A living array of a part's name is adopted.  Whatever goes wrong here, none is left running.

    Parameters
    ----------
    parts : sequence of `Part`
        As prepared.
    watcher : `Watcher`
        Of the site's cluster.
    scheduler : `Scheduler`
        The site.
    announce : callable, optional
        Told of each part before it is submitted.

    Returns
    -------
    statuses : `list` [`Status`]
        By element, in the order of the commands.

    Raises
    ------
    SlurmError
        An array was refused.
    """
    ended: list[Status] = []
    living: deque[list[str]] = deque()
    known = find(scheduler.access, [part.name for part in parts])
    try:
        for part in parts:
            while living and sum(map(len, living)) + len(part.logs) > scheduler.max_submit:
                ended += _finish(living, watcher)
            found = known[part.name]
            if not found:
                announce(part)
            job = found[0].job.split("_")[0] if found else submit(scheduler.access, part.script)
            living.append([f"{job}_{index}" for index in range(len(part.logs))])
            for element, log in zip(living[-1], part.logs, strict=True):
                watcher.watch(element, part.name, log)
        while living:
            ended += _finish(living, watcher)
    except BaseException:  # an operator's ^C too
        cancel(scheduler.access, *(elements[0].split("_")[0] for elements in living))
        raise
    return ended


def _finish(living: deque[list[str]], watcher: Watcher) -> list[Status]:
    """Wait for the oldest array."""
    statuses = [watcher.wait(element) for element in living[0]]
    living.popleft()
    return statuses
