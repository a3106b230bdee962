"""The sites that a submission is split over: chosen, reached, and asked for their release."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign import release
from campaign.backend import backend_of
from campaign.errors import ConfigurationError, SubmissionRefused, UsageError
from campaign.events import Event
from campaign.federation import Federation, Member, shares
from campaign.home import Home
from campaign.outcome import Outcome
from campaign.partition import DEFAULT
from campaign.plan import Plan
from campaign.siteplan import Place
from campaign.sites import Site, check_release, find, load
from campaign.sites import plain as plain_site
from campaign.transport import Local, Ssh, Transport, end

if TYPE_CHECKING:
    from campaign.runner import Run
    from campaign.step import Step

ANSWER_SECONDS = 60


def choose(sites: Mapping[str, Site], names: Sequence[str]) -> list[Site]:
    """The sites of these names, each once.

    Raises
    ------
    UsageError
        There is none of that name, one is named twice, or takes no part in processing.
    """
    chosen = [find(sites, name) for name in names]
    twice = [name for n, name in enumerate(names) if name in names[:n]]
    if twice:
        raise UsageError(f"site {twice[0]} is named twice", where="--sites")
    idle = [site.name for site in chosen if not site.fraction]
    if idle:
        able = ", ".join(site.name for site in sites.values() if site.fraction)
        raise UsageError(f"site {idle[0]} has no fraction of the processing", where="--sites", do=f"there are {able}")
    return chosen


def transport(site: Site, home: Home) -> Transport:
    """How a site is reached."""
    if site.transport == "ssh":
        return Ssh(site.host, site.environment, site.python, site.ssh_options)
    own = {"CAMPAIGN_HOME": str(home.path.absolute()), **site.environment}
    return Local(own, site.python)


def _place(site: Site, plan: Plan, slots: int) -> Place:
    if site.transport == "ssh" and not site.scratch:
        raise ConfigurationError(f"site {site.name} is reached by ssh, and its file names no scratch", where="scratch")
    scratch = site.scratch or str(plan.folder / "scratch" / site.name)
    return Place(site.name, site.raw_root, scratch, plain_site(site), slots)


def members(chosen: Sequence[Site], plan: Plan, home: Home, slots: int) -> list[Member]:
    """What the federation must know of each."""
    return [Member(_place(site, plan, slots), float(site.fraction or 0), transport(site, home)) for site in chosen]


def raw_root(sites: Mapping[str, Site], plan: Plan) -> str:
    """Where the archive's raws lie: as its site file says, else what all raws of the plan lie below."""
    said = [site.raw_root for site in sites.values() if "archive" in site.roles and site.raw_root]
    if said:
        return said[0]
    keys = {key for task in plan.tasks for key in task.job.inputs.get("raw", ())}
    return os.path.commonpath({os.path.dirname(plan.files[key]["path"]) for key in keys})


def _answer(member: Member) -> dict[str, str]:
    """What a site says of its release.

    Raises
    ------
    SubmissionRefused
        It cannot be reached, or has no campaign.
    """
    with tempfile.TemporaryFile() as log:
        process = member.transport.start([*member.transport.python, "-m", "campaign", "site-run", "about"], log)
        try:
            said, _ = process.communicate(timeout=ANSWER_SECONDS)
            return {str(k): str(v) for k, v in json.loads(said.splitlines()[-1]).items()}
        except Exception as error:
            end(process)
            log.seek(0)
            lines = log.read().decode(errors="replace").split("\n")
            why = next((line for line in reversed(lines) if line.strip()), str(error))
            raise SubmissionRefused(
                f"site {member.place.name} does not say what release it has: {why}",
                do="campaign sites ping looks closer; leave it out of --sites to go without",
            ) from error


def require_release(chosen: Sequence[Site], asked: Sequence[Member], override: bool) -> list[str]:
    """Ask every site for what it runs.

    Returns
    -------
    warnings : `list`
        Differences that were overridden.

    Raises
    ------
    SubmissionRefused
        A site cannot be asked, or would not make the same bits.
    """
    warnings = check_release(chosen, override)
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(_answer, asked))
    here = release.about()
    for member, there in zip(asked, answers, strict=True):
        if other := release.differences(here, there):
            warnings.append(f"the release of site {member.place.name} differs: {', '.join(other)}")
    if warnings and not override:
        raise SubmissionRefused("; ".join(warnings), do="install the same release there, or --override")
    return warnings


def federate(
    step: Step, plan: Plan, names: Sequence[str], override: bool, slots: int, say: Callable[[str], None]
) -> tuple[Plan, Run, list[dict[str, Any]]]:
    """Prepare a plan to be run at several sites.

    Parameters
    ----------
    names : sequence of `str`
        The sites.
    override : `bool`
        Warn of a release that differs.
    slots : `int`
        Workers that quanta may have at each site with a scheduler.
    say : callable
        See `Federation`.

    Returns
    -------
    plan : `Plan`
        With notes on what was overridden and renormalised.
    run : callable
        Runs it; see `campaign.drive.drive`.
    shares : `list` [`dict`]
        See `campaign.federation.shares`.

    Raises
    ------
    CampaignError
        A site that is none, cannot be used, or has another release; a raw that sites could not find.
    """
    asked, root, notes = prepare(load(step.environment, step.home), names, plan, step.home, override, slots)
    labels = [group.label for group in plan.groups if group.kind == "quantum"]
    by = {label: str(step.config.resource(label, "partition") or DEFAULT) for label in labels}
    fractions = {m.place.name: m.fraction for m in asked}
    known = replace(plan, notes=[*plan.notes, *notes])

    def run(plan: Plan, listener: Callable[[Event], None]) -> Outcome:
        return Federation(plan, asked, root, by, listener, say).run()

    return known, run, shares(plan, fractions, by)


def prepare(
    sites: Mapping[str, Site], names: Sequence[str], plan: Plan, home: Home, override: bool, slots: int
) -> tuple[list[Member], str, list[str]]:
    """Choose sites and see that they can be used.

    Returns
    -------
    members : `list` [`Member`]
    raw_root : `str`
        The archive's.
    notes : `list` [`str`]
        What was overridden; what fractions were renormalised to.
    """
    chosen = choose(sites, names)
    for site in chosen:
        if site.transport == "local":
            backend_of(site, 1).probe()
    asked = members(chosen, plan, home, slots)
    root = raw_root(sites, plan)
    _require_below(root, plan)
    notes = [f"overridden: {text}" for text in require_release(chosen, asked, override)]
    whole = sum(member.fraction for member in asked)
    if abs(whole - 1) > 1e-9:
        each = ", ".join(f"{m.place.name} {m.fraction / whole:.4g}" for m in asked)
        notes.append(f"the fractions of the chosen sites sum to {whole:g}, renormalised: {each}")
    return asked, root, notes


def _require_below(root: str, plan: Plan) -> None:
    """Refuse, before anything runs, raws that the sites could not find."""
    keys = {key for task in plan.tasks for key in task.job.inputs.get("raw", ())}
    paths = sorted(plan.files[key]["path"] for key in keys)
    outside = [path for path in paths if not Path(path).is_relative_to(root)]
    if outside:
        raise SubmissionRefused(
            f"{len(outside)} of {len(paths)} raws do not lie below {root}; the first: {outside[0]}",
            where="raw_root of the archive site",
            do="a site finds a raw by its path below its raw root: correct the site file, or go without --sites",
        )
