"""The sites that take part in a submission: chosen, reached, and asked for their release."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign import release
from campaign.errors import ConfigurationError, SubmissionRefused, UsageError
from campaign.federation.driver import Federation, Participant, shares
from campaign.federation.partition import DEFAULT
from campaign.federation.siteplan import Place, out_of_reach
from campaign.home import Home
from campaign.jobs.logs import last_words
from campaign.journal.events import Event
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Plan
from campaign.limited import from_json
from campaign.planning.allocation import at_site, slots
from campaign.running.placement import probe as probe_site
from campaign.sites.model import Site, check_release, find, load
from campaign.sites.model import plain as plain_site
from campaign.sites.transport import LocalTransport, SshTransport, Transport, ask
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
        A name is unknown, given twice, or is that of a site without a fraction of the processing.
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
        return SshTransport(site.host, site.environment, site.python, site.ssh_options)
    own = {"CAMPAIGN_HOME": str(home.path.absolute()), **site.environment}
    return LocalTransport(own, site.python)


def _place(site: Site, folder: Path, ranks: int | None) -> Place:
    if site.transport == "ssh" and not site.scratch:
        raise ConfigurationError(f"site {site.name} is reached by ssh, and its file names no scratch", where="scratch")
    scratch = site.scratch or str(folder / "scratch" / site.name)
    sized = partial(at_site, site=site, asked=ranks)
    return Place(site.name, site.raw_root, scratch, plain_site(site), slots(site, ranks), sized)


def members(chosen: Sequence[Site], folder: Path, home: Home, ranks: int | None) -> list[Participant]:
    """Describe each site to the federation of a run, by the run's folder."""
    return [
        Participant(_place(site, folder, ranks), float(site.fraction or 0), transport(site, home)) for site in chosen
    ]


def raw_root(sites: Mapping[str, Site], plan: Plan) -> str:
    """Find the root of the archive's raws: the site file's, else the common folder of the plan's raws."""
    said = [site.raw_root for site in sites.values() if "archive" in site.roles and site.raw_root]
    if said:
        return said[0]
    keys = {key for task in plan.tasks for key in task.job.inputs.get("raw", ())}
    folders = {os.path.dirname(plan.files[key]["path"]) for key in keys}
    return os.path.commonpath(folders) if folders else "/"  # a step made of calibrations, which travel


def _answer(member: Participant) -> dict[str, str]:
    """Ask a site for its release; over ssh, it answers once its own scheduler does.

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
        why = last_words(complaints) or str(error)
        advice = next((line.strip()[3:] for line in complaints if line.strip().startswith("-> ")), do)  # its own
        raise SubmissionRefused(f"site {name} does not say what release it has: {why}", do=advice) from error


def require_release(asked: Sequence[Participant], override: bool) -> list[str]:
    """Ask every site for its release; give the differences that were overridden.

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


def _chosen(step: Step, order: Order) -> list[Site]:
    return choose(load(step.environment, step.home), str(order.sites).split(","))


def overrides(step: Step, order: Order, probe: bool) -> list[str]:
    """Compare the sites' releases with this one, before anything is planned; note what was overridden or not asked.

    ``probe`` asks the sites for their release; with ``order.override`` a different one causes only a warning.

    Raises
    ------
    CampaignError
        A site is unknown, cannot be used, or has another release.
    """
    chosen = _chosen(step, order)
    asked = members(chosen, Path(step.config.submit_path), step.home, order.ranks)
    texts = [*check_release(chosen, order.override), *(require_release(asked, order.override) if probe else ())]
    notes = [*(f"overridden: {text}" for text in texts), *_renormalised(asked)]
    unasked = "the sites were not asked whether they are there, and what release they have"
    return notes if probe else [*notes, unasked]


def federate(
    step: Step, plan: Plan, order: Order, say: Callable[[str], None], probe: bool
) -> tuple[Run, list[dict[str, Any]]]:
    """Prepare a plan to be run at several sites.

    Parameters
    ----------
    order : `Order`
        Sites, and ranks of a gang.
    say : callable
        See `Federation`.
    probe : `bool`
        Check that schedulers answer, and would take the jobs.

    Returns
    -------
    run : callable
        Runs it; see `campaign.runs.drive.drive`.
    shares : `list` [`dict`]
        See `campaign.federation.driver.shares`.

    Raises
    ------
    CampaignError
        A site cannot be used; sites could not find a raw.
    """
    chosen = _chosen(step, order)
    asked = members(chosen, plan.folder, step.home, order.ranks)
    root = raw_root(load(step.environment, step.home), plan)
    _require_below(root, plan)
    for site in chosen:
        if probe and site.transport == "local":
            probe_site(site, at_site(plan.groups, plan.camera, site, order.ranks))
    labels = [group.label for group in plan.groups if group.kind == "quantum"]
    by = {label: str(step.config.resource(label, "partition") or DEFAULT) for label in labels}
    fractions = {m.place.name: m.fraction for m in asked}

    def run(plan: Plan, listener: Callable[[Event], None]) -> Outcome:
        return Federation(plan, asked, root, by, listener, say).run()

    return run, shares(plan, fractions, by)


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
        raise out_of_reach(f"{len(outside)} of {len(paths)} raws do not lie below {root}; the first: {outside[0]}")
