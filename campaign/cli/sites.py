"""Commands of sites: list, up, down, ping."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from campaign.cli.root import as_json, cli

if TYPE_CHECKING:
    from campaign.home import Home
    from campaign.sites.model import Site
    from campaign.sites.ping import Answer


@cli.group(invoke_without_command=True)
@click.pass_context
@as_json
def sites(context: click.Context, as_json: bool) -> None:
    """List the sites that a campaign can run at; `up`, `down` and `ping` them."""
    if context.invoked_subcommand is None:
        _list(as_json)


def _loaded() -> tuple[Home, dict[str, Site]]:
    from campaign.home import home_of
    from campaign.sites.model import load

    home = home_of(os.environ.get("REPO"), os.environ)
    return home, load(os.environ, home)


def _chosen(known: Mapping[str, Site], names: tuple[str, ...]) -> list[Site]:
    """Select the named sites, each once; by default those that share the processing."""
    from campaign.sites.model import find

    shared = [name for name, site in known.items() if site.fraction]
    return [find(known, name) for name in dict.fromkeys(names or shared)]


def _list(as_json: bool) -> None:
    from campaign import console
    from campaign.sites.model import plain

    _, known = _loaded()
    if as_json:
        console.emit({"sites": [plain(site) for site in known.values()]})
        return
    console.table(
        ("site", "fraction", "roles", "scheduler", "transport", "repository", "scratch"),
        [
            (
                site.name,
                "" if site.fraction is None else f"{site.fraction:g}",
                ", ".join(site.roles),
                "development cluster, up" if site.development else str(site.scheduler),
                f"ssh {site.host}" if site.transport == "ssh" else site.transport,
                site.repository or "the step's",
                site.scratch or "the step's",
            )
            for site in known.values()
        ],
    )


@sites.command()
@click.argument("names", nargs=-1)
@click.option("--nodes", type=click.IntRange(1, 64), default=4, show_default=True, help="Virtual nodes of each.")
@click.option(
    "--cpus", type=click.IntRange(1), default=4, show_default=True, help="Cores of each node, as claimed to Slurm."
)
@click.option("--memory", type=click.IntRange(256), default=8000, show_default=True, help="MiB of a node.")
@as_json
def up(names: tuple[str, ...], nodes: int, cpus: int, memory: int, as_json: bool) -> None:
    """Start development clusters on this machine for the sites NAMES (default: those that share the processing).

    The clusters are private: no system service, no root.  Each has an empty repository and scratch under
    $CAMPAIGN_HOME/clusters/<site>, by default in the user's data directory: any later shell finds it, under any REPO.
    """
    from campaign import console
    from campaign.errors import UsageError
    from campaign.sites.model import clusters_folder, has_own_cluster
    from campaign.sites.up import up

    _, known = _loaded()
    chosen = _chosen(known, names)
    if own := [site.name for site in chosen if has_own_cluster(site)]:
        do = "a cluster here stands in for a site whose scheduler.conf and host are empty"
        raise UsageError(f"the site file of {own[0]} says where its jobs go", do=do)
    clusters = up(clusters_folder(os.environ), [site.name for site in chosen], nodes, cpus, memory)
    if as_json:
        console.emit({"clusters": [{**asdict(cluster), "conf": cluster.conf} for cluster in clusters]})
        return
    for cluster in clusters:
        size = f"{len(cluster.nodes)} nodes of {cluster.cpus} cores, {cluster.memory_mib} MiB"
        print(f"{cluster.name}: {size}; SLURM_CONF={cluster.conf}")


@sites.command()
@click.argument("names", nargs=-1)
@as_json
def down(names: tuple[str, ...], as_json: bool) -> None:
    """Stop development clusters and their jobs (default: all); their files stay."""
    from campaign import console
    from campaign.errors import UsageError
    from campaign.problems import suggest
    from campaign.sites.model import clusters_folder
    from campaign.sites.up import down

    folder = clusters_folder(os.environ)
    there = sorted(lock.parent.name for lock in folder.glob("*/cluster.lock"))
    if strangers := set(names) - set(there):
        name = min(strangers)
        raise UsageError(f"there is no development cluster {name!r}", where=str(folder), do=suggest(name, there))
    wanted = list(dict.fromkeys(names or there))
    down(folder, wanted)
    if as_json:
        console.emit({"down": wanted})
    else:
        console.say(f"down: {', '.join(wanted) or 'none was there'}")


@sites.command()
@click.argument("names", nargs=-1)
@click.option(
    "--wait", type=click.FloatRange(1), default=60.0, show_default=True, help="Longest wait for a site's job, second."
)
@click.option("--override", is_flag=True, help="Only warn of another release or configuration.")
@as_json
def ping(names: tuple[str, ...], wait: float, override: bool, as_json: bool) -> None:
    """Prove the sites NAMES (default: those that share the processing) by using each part of them.

    The scheduler answers, a job runs with the site's Python, scratch can be
    written from both ends, the repository opens, release and configuration are
    the same at both ends.  Exit code 4: the message names all that failed.
    """
    from campaign import console
    from campaign.sites.ping import ping

    _, known = _loaded()
    answers = ping(_chosen(known, names), wait)
    if as_json:
        console.emit({"sites": [asdict(answer) for answer in answers]})
    else:
        rows = [(a.site, "ok" if p.ok else "NO", p.what, p.found) for a in answers for p in a.proofs]
        console.table(("site", "", "what", "found"), rows)
    _judge(answers, override)


def _judge(answers: list[Answer], override: bool) -> None:
    """Name everything that failed, over all sites.

    Raises
    ------
    SubmissionRefused
        A check has failed.
    """
    from campaign import console
    from campaign.errors import SubmissionRefused

    failed = [(answer.site, proof) for answer in answers for proof in answer.proofs if not proof.ok]
    console.warn(f"{site}: {p.what}: {p.found}" for site, p in failed if override and p.difference)
    texts = [f"{site}: {p.what}: {p.found}\n  -> {p.do}" for site, p in failed if not (override and p.difference)]
    if texts:
        raise SubmissionRefused("\n".join(texts))
