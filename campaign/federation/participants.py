"""The sites that take part in a submission: chosen, reached, and asked for their release."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign import release
from campaign.errors import ConfigurationError, SubmissionRefused, UsageError
from campaign.federation.driver import Federation, Participant, shares
from campaign.federation.partition import DEFAULT
from campaign.federation.siteplan import Place
from campaign.home import Home
from campaign.journal.events import Event
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Plan
from campaign.limited import from_json
from campaign.planning.allocation import slots, with_ranks
from campaign.running.placement import probe as probe_site
from campaign.sites.model import Site, check_release, find, load
from campaign.sites.model import plain as plain_site
from campaign.sites.transport import Local, Ssh, Transport, ask
from campaign.wording import command

if TYPE_CHECKING:
    from campaign.planning.order import Order
    from campaign.planning.step import Step
    from campaign.running.runner import Run

ANSWER_SECONDS = 60


def choose(sites: Mapping[str, Site], names: Sequence[str]) -> list[Site]:
    """Find the sites of these names.

    Raises
    ------
    UsageError
        A name is of no site, stands twice, or is of a site without a fraction of the processing.
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
    """Choose the transport to a site."""
    if site.transport == "ssh":
        return Ssh(site.host, site.environment, site.python, site.ssh_options)
    own = {"CAMPAIGN_HOME": str(home.path.absolute()), **site.environment}
    return Local(own, site.python)


def _place(site: Site, plan: Plan, ranks: int | None) -> Place:
    if site.transport == "ssh" and not site.scratch:
        raise ConfigurationError(f"site {site.name} is reached by ssh, and its file names no scratch", where="scratch")
    scratch = site.scratch or str(plan.folder / "scratch" / site.name)
    return Place(site.name, site.raw_root, scratch, plain_site(site), slots(site, ranks), ranks)


def members(chosen: Sequence[Site], plan: Plan, home: Home, ranks: int | None) -> list[Participant]:
    """What the federation must know of each."""
    return [Participant(_place(site, plan, ranks), float(site.fraction or 0), transport(site, home)) for site in chosen]


def raw_root(sites: Mapping[str, Site], plan: Plan) -> str:
    """Find the root of the archive's raws: the site file's, else the common folder of the plan's raws."""
    said = [site.raw_root for site in sites.values() if "archive" in site.roles and site.raw_root]
    if said:
        return said[0]
    keys = {key for task in plan.tasks for key in task.job.inputs.get("raw", ())}
    folders = {os.path.dirname(plan.files[key]["path"]) for key in keys}
    return os.path.commonpath(folders) if folders else "/"  # a step made of calibrations, which travel


def _answer(member: Participant) -> dict[str, str]:
    """Ask a site for its release; over ssh, it answers once its own Slurm does.

    Raises
    ------
    SubmissionRefused
        The site cannot be reached, has no campaign, or a scheduler that does not answer.
    """
    name, python = member.place.name, member.transport.python[0]
    settings = json.dumps(member.place.settings).encode()
    do = f"{command('sites', 'ping', name)} looks closer; leave it out of --sites to go without"
    words = [*member.transport.python, "-m", "campaign", "site-run", "probe"]
    try:
        said, complaints = ask(member.transport, words, settings, ANSWER_SECONDS)
    except OSError as error:
        raise SubmissionRefused(f"site {name}: its python {python}: {error.strerror}", do=do) from error
    try:
        return {str(k): str(v) for k, v in from_json(said.splitlines()[-1]).items()}
    except (ValueError, LookupError, AttributeError) as error:
        why = _complaint(complaints) or str(error)
        raise SubmissionRefused(f"site {name} does not say what release it has: {why}", do=do) from error


def _complaint(lines: Sequence[str]) -> str:
    """Of what a site says on standard error, its own error, else its last words."""
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return next(iter([*errors, *(line for line in reversed(lines) if line.strip())]), "")


def require_release(asked: Sequence[Participant], override: bool) -> list[str]:
    """Ask every site for what it runs.

    Returns
    -------
    warnings : `list`
        Differences that were overridden.

    Raises
    ------
    SubmissionRefused
        A site cannot be asked, or has a release that would not make the same bits.
    """
    warnings = []
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
    step: Step, plan: Plan, order: Order, say: Callable[[str], None], probe: bool
) -> tuple[Plan, Run, list[dict[str, Any]]]:
    """Prepare a plan to be run at several sites.

    Parameters
    ----------
    order : `Order`
        Which sites, whether a release that differs is only warned of, and how many ranks.
    say : callable
        See `Federation`.
    probe : `bool`
        Ask the sites for their release, and whether their schedulers answer.

    Returns
    -------
    plan : `Plan`
        With notes on what was overridden and renormalised.
    run : callable
        Runs it; see `campaign.runs.drive.drive`.
    shares : `list` [`dict`]
        See `campaign.federation.driver.shares`.

    Raises
    ------
    CampaignError
        A site that is none, cannot be used, or has another release; a raw that sites could not find.
    """
    sites = load(step.environment, step.home)
    chosen = choose(sites, str(order.sites).split(","))
    asked, root = members(chosen, plan, step.home, order.ranks), raw_root(sites, plan)
    _require_below(root, plan)
    overridden = check_release(chosen, order.override)
    if probe:
        overridden += _probed(chosen, asked, plan, order)
    labels = [group.label for group in plan.groups if group.kind == "quantum"]
    by = {label: str(step.config.resource(label, "partition") or DEFAULT) for label in labels}
    fractions = {m.place.name: m.fraction for m in asked}
    notes = [*(f"overridden: {text}" for text in overridden), *_renormalised(asked)]
    notes += [] if probe else ["the sites were not asked whether they are there, and what release they have"]

    def run(plan: Plan, listener: Callable[[Event], None]) -> Outcome:
        return Federation(plan, asked, root, by, listener, say).run()

    return replace(plan, notes=[*plan.notes, *notes]), run, shares(plan, fractions, by)


def _probed(chosen: Sequence[Site], asked: Sequence[Participant], plan: Plan, order: Order) -> list[str]:
    """See that the sites are there, and would take their jobs; give what was overridden."""
    for site in chosen:
        if site.transport == "local":
            probe_site(site, with_ranks(plan, site, order.ranks))
    return require_release(asked, order.override)


def _renormalised(asked: Sequence[Participant]) -> list[str]:
    whole = sum(member.fraction for member in asked)
    if abs(whole - 1) <= 1e-9:
        return []
    each = ", ".join(f"{m.place.name} {m.fraction / whole:.4g}" for m in asked)
    return [f"the fractions of the chosen sites sum to {whole:g}, renormalised: {each}"]


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
