"""Commands of a step: render, check, submit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from campaign.cli.root import as_json, cli, env_file, environment, options, site_ranks
from campaign.wording import SHOWN, command, count, ranks_text, times

if TYPE_CHECKING:
    from campaign.planning.step import Options

template_options = options(
    click.argument("template"),
    env_file,
    click.option("--site", metavar="NAME", help="Run at this site instead of the template's."),
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set a template key (repeat)."),
)
selection_options = options(
    click.option("--exclude", type=int, multiple=True, metavar="ID", help="Leave an exposure out (repeat); recorded."),
    click.option("--allow-missing", is_flag=True, help="Combine the exposures at hand where a detector lacks some."),
    click.option(
        "--calibration",
        "named",
        multiple=True,
        metavar="KIND=COLLECTION",
        help="Take bias, dark, ... from COLLECTION instead of find-first's (repeat); recorded.",
    ),
)
limits_option = click.option(
    "--limits", default="", metavar="NAME|FILE", help="Judge a verification by these: ours (default), upstream, a file."
)
sites_options = options(
    click.option("--sites", metavar="A,B,...", help="Split the work over these sites, by their fractions."),
    click.option("--override", is_flag=True, help="Only warn of a site whose release differs."),
)


def _pairs(option: str, texts: tuple[str, ...], form: str = "KEY=VALUE") -> dict[str, str]:
    from campaign.errors import UsageError

    found = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign:
            raise UsageError(f"{option} {text!r} is not {form}")
        found[key] = value
    return found


def _options(
    settings: tuple[str, ...],
    site: str | None,
    exclude: tuple[int, ...],
    allow_missing: bool,
    named: tuple[str, ...],
    ranks: int | None,
    limits: str = "",
) -> Options:
    from campaign.planning.step import Options

    calibrations = _pairs("--calibration", named, "KIND=COLLECTION")
    return Options(_pairs("--set", settings), site, frozenset(exclude), allow_missing, ranks, calibrations, limits)


@cli.command()
@template_options
@click.option("--origins", is_flag=True, help="Show the origin of every value.")
@as_json
def render(
    template: str, env_file: str | None, site: str | None, settings: tuple[str, ...], origins: bool, as_json: bool
) -> None:
    """Print the configuration that TEMPLATE and the environment resolve to."""
    import json

    import yaml

    from campaign import console
    from campaign.template.resolve import resolve

    step = resolve(template, environment(env_file), _pairs("--set", settings), site)
    console.warn(step.warnings)
    if as_json:
        console.emit({"values": step.values, "origins": dict(step.origins), "variables": dict(step.variables)})
        return
    print(yaml.safe_dump(json.loads(json.dumps(step.values)), sort_keys=False, width=120), end="")
    for key, where in step.origins.items() if origins else ():
        print(f"# {key}: {where}")


@cli.command()
@template_options
@selection_options
@click.option("--levels", "with_levels", is_flag=True, help="Measure every frame, and list the outliers.")
@site_ranks
@as_json
def check(
    template: str,
    env_file: str | None,
    site: str | None,
    settings: tuple[str, ...],
    exclude: tuple[int, ...],
    allow_missing: bool,
    named: tuple[str, ...],
    with_levels: bool,
    ranks: int | None,
    as_json: bool,
) -> None:
    """Report everything that would keep TEMPLATE from running, and estimate its cost."""
    from campaign import console
    from campaign.runs.check import check

    options = _options(settings, site, exclude, allow_missing, named, ranks)
    found = check(template, environment(env_file), options, with_levels)
    if as_json:
        console.emit(found.plain())
    else:
        _show_check(found)
    raise SystemExit(found.exit_code)


def _exposures(found: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """Make the rows of the selection: an exposure time each, or one for a ramp of many."""
    ramps: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for one in found:
        ramps.setdefault((one["type"], one["day_obs"], one["physical_filter"]), []).append(one)
    rows: list[tuple[object, ...]] = []
    for key, some in ramps.items():
        several = [some] if len(some) > SHOWN else [[one] for one in some]
        rows += [
            (*key, times([e["exposure_time"] for e in each]), sum(e["exposures"] for e in each)) for each in several
        ]
    return rows


def _show_check(found: Any) -> None:
    from campaign import console

    if found.output_run:
        print(f"pipeline    {found.pipeline}\noutput run  {found.output_run}")
    if found.flavour:
        print(f"flavour     {found.flavour}")
    for name, kind in found.collections.items():
        print(f"input       {name} ({kind})")
    if found.exposures:
        console.table(
            ("type", "day_obs", "filter", "seconds", "exposures"),
            _exposures(found.exposures),
            "selection",
        )
        print(
            f"detectors   {len(found.detectors)}; raws {found.raws}, {found.raw_bytes / 2**20:.1f} MiB; "
            f"{count(len(found.missing), 'pair')} missing, {len(found.unreachable)} unreachable"
        )
    _show_calibrations(found.calibrations)
    for run, reasons in found.stale.items():
        print(f"stale       {run}: {'; '.join(reasons)}")
    if found.cost:
        console.table(
            ("task", "tasks", "ranks", "CPU s", "MiB a rank", "asks for MiB", "MiB written", "by"),
            [_cost_row(c, found.requests.get(c.label, {})) for c in found.cost],
            "estimate",
        )
    _show_findings(found.levels)
    for note in found.notes:
        print(f"note        {note}")
    for problem in found.problems:
        console.say(f"problem: {problem}")
    many = len(found.problems)
    console.say(count(many, "problem") if many else "nothing stands in the way of submit")


def _cost_row(c: Any, asked: Mapping[str, int]) -> tuple[object, ...]:
    by = count(c.seen, "run") if c.seen else "geometry"
    memory, ranks = asked.get("memory_mib", ""), ranks_text(c.ranks, c.ranks_by)
    return (
        c.label,
        c.tasks,
        ranks,
        f"{c.cpu_seconds:.0f}",
        c.rank_mib,
        memory,
        f"{c.output_mib:.0f}",
        by,
    )


def _show_calibrations(calibrations: Sequence[Mapping[str, Any]]) -> None:
    for c in calibrations:
        many = len(c["detectors"])
        which = f"{many} detectors" if many > 1 else f"detector {c['detectors'][0]}"
        valid = f"{c['begin'] or 'ever'} to {c['end'] or 'open'} TAI"
        print(f"applied     {c['type']} of {c['run']} for {which}, in {c['collection']}, valid {valid}")


def _show_findings(findings: Any, say: Callable[[str], None] = print) -> None:
    if findings is None:
        return
    for finding in findings:
        leave = "" if finding.exposure is None else f"; --exclude {finding.exposure} leaves it out"
        say(f"look at     {finding.subject}: {finding.why} ({finding.where}){leave}")
    if not findings:
        say("levels      no exposure stands out")


@cli.command()
@template_options
@selection_options
@limits_option
@sites_options
@click.option("--dry-run", is_flag=True, help="Plan, show, and write nothing.")
@click.option(
    "--detach",
    is_flag=False,
    flag_value="process",
    type=click.Choice(["process", "job"]),
    help="Run in the background, as a process here or a job of the site, and return.",
)
@site_ranks
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on standard output, and nothing else.")
def submit(
    template: str,
    env_file: str | None,
    site: str | None,
    settings: tuple[str, ...],
    exclude: tuple[int, ...],
    allow_missing: bool,
    named: tuple[str, ...],
    limits: str,
    sites: str | None,
    override: bool,
    dry_run: bool,
    detach: str | None,
    ranks: int | None,
    as_json: bool,
) -> None:
    """Plan TEMPLATE, run it, and record its products in the repository."""
    from campaign import console
    from campaign.butler.repository import open_repository
    from campaign.cli.progress import Progress
    from campaign.planning.order import NONCE, Order
    from campaign.planning.step import load
    from campaign.runs import verdict
    from campaign.runs.detach import require_driver
    from campaign.runs.drive import submit as run
    from campaign.runs.execution import execution, overrides
    from campaign.runs.submit import create, prepare

    chosen = _options(settings, site, exclude, allow_missing, named, ranks, verdict.named(limits))
    step = load(template, environment(env_file), chosen)
    console.warn(step.config.warnings)
    order = Order.of(step, chosen, sites, override, os.environ.get(NONCE, ""))
    with open_repository(step.config.butler_config, writeable=not dry_run) as repository:
        overridden = overrides(step, order, probe=not dry_run)
        plan, camera = prepare(step, repository, chosen, notes=overridden)
        verdict.require(plan, camera, chosen.limits)
        how, shares = execution(step, plan, order, console.say, probe=not dry_run)
        if shares and not as_json:
            _show_shares(shares)
        if dry_run:
            _show_plan(plan, as_json)
            return
        if detach:
            require_driver(step, detach)
            create(step, repository, plan, order)
        else:
            with Progress(len(plan.tasks), as_json) as progress:
                done = run(step, repository, plan, camera, progress, how, order)
    if detach:
        _detached(step, plan, detach, as_json)
    else:
        show_end(done, as_json)


def _detached(step: Any, plan: Any, how: str, as_json: bool) -> None:
    from campaign import console
    from campaign.runs.detach import detach

    found = detach(step, plan, how)
    if as_json:
        console.emit(found)
    else:
        print(f"run         {found['run']}, made by {found['made_by']}")
        print(f"follow it   {command('status', found['run'], '--watch')}")


def show_end(done: Any, as_json: bool) -> None:
    """Show the result of a submission or a restart; raise if it is incomplete.

    Raises
    ------
    TasksFailed
        Some tasks were not made.
    Drained
        Some tasks were not begun.
    """
    from dataclasses import asdict

    from campaign import console
    from campaign.errors import Drained, TasksFailed
    from campaign.kinds.table import judged

    plan = done.plan
    for note in done.notes:
        console.say(f"note: {note}")
    if done.findings or (judged(plan.product) and done.outcome.done):  # frames that were not read cannot be called good
        _show_findings(done.findings, console.say if as_json else print)
    if done.summary and as_json:
        _emit(plan.run, "summary", asdict(done.summary))
    if done.verification and as_json:
        _emit(plan.run, "verdict", done.verification.plain())
    if not as_json:
        for line in done.summary.lines if done.summary else ():
            print(line)
        _show_submission(done)
    if done.outcome.drained:
        raise Drained(
            f"drained: {len(done.outcome.published)} of {len(plan.tasks)} tasks are made, nothing is left running",
            where=plan.run,
            do=f"{command('restart', plan.run)} resumes it",
        )
    if not done.outcome.done:
        first = next(iter(done.outcome.failed.items()), ("", ""))
        lost = len(done.outcome.failed) + len(done.outcome.skipped)
        raise TasksFailed(
            f"{lost} of {len(plan.tasks)} tasks were not made; the first: {first[0]}: {first[1]}",
            where=plan.run,
            do=f"{command('errors', plan.run)} says more; logs are in {plan.submit_path}/logs",
        )


def _emit(run: str, event: str, detail: Mapping[str, Any]) -> None:
    """Print the numbers of a run, or the verdict, as the last of its JSON lines."""
    import json

    line = {"run": run, "task": "", "event": event, "detail": detail}
    print(json.dumps(line, separators=(",", ":")), flush=True)


def _show_shares(shares: Sequence[Mapping[str, Any]]) -> None:
    from campaign import console

    rows = [(s["site"], f"{s['fraction']:.4g}", s["tasks"], s["frames"]) for s in shares]
    console.table(("site", "fraction", "tasks", "frames"), rows, "shares")


def _show_plan(plan: Any, as_json: bool) -> None:
    from dataclasses import asdict

    from campaign import console
    from campaign.planning.cost import estimate

    if as_json:
        console.emit(asdict(plan))
        return
    print(f"would write {plan.output_run}\nby way of   {plan.submit_path}")
    rows = []
    for group, cost in zip(plan.groups, estimate(plan), strict=True):
        outputs = ", ".join(dict.fromkeys(o.type for t in group.tasks for o in t.outputs))
        fused = ", ".join(group.fused)
        ranks = ranks_text(group.ranks, group.ranks_by)
        rows.append((group.label, fused, len(group.tasks), ranks, outputs, f"{cost.cpu_seconds:.0f}"))
    console.table(("task", "fused in", "tasks", "ranks", "makes", "CPU s"), rows)
    _show_calibrations(plan.calibrations)
    for note in plan.notes:
        print(f"note: {note}")


def _show_submission(done: Any) -> None:
    plan = done.plan
    print(f"published   {len(done.outcome.published)} of {len(plan.tasks)} tasks into {plan.output_run}")
    if done.chain:
        print(f"chain       {plan.output} -> {', '.join(done.chain[:4])}{', ...' if len(done.chain) > 4 else ''}")
    for text in done.numbers:
        print(f"numbers     {text}")
    for picture in done.pictures:
        print(f"picture     {picture}")
    for text in done.verification.texts() if done.verification else ():
        print(text)
