"""`campaign sites up` and `down`: development clusters, each with an empty repository and scratch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from campaign.errors import SubmissionRefused, TransientError
from campaign.schedulers import development


def up(folder: Path, names: Sequence[str], nodes: int, cpus: int, memory_mib: int) -> list[development.Cluster]:
    """Start clusters, all at once; leave those that are up, with their repositories and scratch.

    Parameters
    ----------
    folder : `pathlib.Path`
        Gets a folder for each, with its daemons' files, ``repo`` and ``scratch``.
    names : sequence of `str`
        Of sites.
    nodes, cpus, memory_mib : `int`
        Nodes of each, and what a node claims to have; memory in MiB.

    Raises
    ------
    SubmissionRefused
        A cluster does not start; the others stay up.
    """

    def start(name: str) -> development.Cluster:
        (folder / name / "scratch").mkdir(parents=True, exist_ok=True)
        return development.up(folder / name, name, nodes, cpus, memory_mib)

    with ThreadPoolExecutor(len(names) or 1) as pool:
        clusters = [pool.submit(start, name) for name in names]
        _make_repositories([folder / name / "repo" for name in names])
    problems = [str(cluster.exception()) for cluster in clusters if cluster.exception()]
    if problems:
        raise SubmissionRefused("; ".join(problems), do=f"daemons' logs are in {folder}/<site>/log")
    return [cluster.result() for cluster in clusters]


def down(folder: Path, names: Sequence[str]) -> None:
    """Stop clusters, their jobs and their processes; repositories, scratch and logs stay.

    Raises
    ------
    TransientError
        A process cannot be ended.
    """

    def stop(name: str) -> str:
        try:
            development.down(folder / name)
        except development.ClusterError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(names) or 1) as pool:
        problems = [why for why in pool.map(stop, names) if why]
    if problems:
        raise TransientError("; ".join(problems))


def _make_repositories(places: Sequence[Path]) -> None:
    """Make missing repositories: the first by the Butler, the others as copies of it."""
    wanted = [place for place in places if not (place / "butler.yaml").exists()]
    if not wanted:
        return
    from campaign.butler.repository import create

    first, *others = wanted
    create(str(first)).close()
    for place in others:
        shutil.copytree(first, place, dirs_exist_ok=True)
