"""Find the unused runs of a ticket, and remove them.

Each run is one decision: under the repository's lock, so that nobody certifies
or restarts the run meanwhile, its uses are looked up again, its claim is taken,
and its RUN is removed with its files.  Then the sites' files, the submit folder,
and last the line in the list of runs are removed.  Each of these steps may be
repeated: the next clean finishes one that was killed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from campaign.butler.repository import Repository
from campaign.errors import CampaignError, SubmissionRefused, UsageError
from campaign.federation.participants import transport
from campaign.home import Home
from campaign.journal import claim, status
from campaign.journal.plan import load as load_plan
from campaign.killpoints import reach
from campaign.planning import order as orders
from campaign.running.chunk import clear
from campaign.sites.model import load
from campaign.sites.transport import remove
from campaign.template.vocabulary import is_collection
from campaign.upkeep.uses import Use, Uses

#: Reason to keep a run that was begun, and is not in this home's list.
ELSEWHERE = "listed in another home ($CAMPAIGN_HOME){}, which knows who uses it"


@dataclass(frozen=True)
class Remains:
    """A run that may be removed."""

    run: str
    output: str
    output_run: str
    submit_path: str
    #: See `campaign.journal.status.state_of`; ``elsewhere`` for a run of another home, whose folder is not known here.
    state: str
    #: Size of its products and its submit folder.
    bytes: int
    #: Reason to keep the run; empty where it is removed.
    kept: str
    #: Keep the run even where it is named for removal.
    firm: bool
    #: The run is named for removal though it is used.
    forced: bool
    #: Size of its driver's journal, byte: shows whether the run was resumed since.
    journal: int


def remains(ticket: str, repository: Repository, home: Home, forced: Sequence[str] = ()) -> list[Remains]:
    """List the runs of a ticket, oldest first.

    Parameters
    ----------
    forced : sequence of `str`
        Runs (ids, unique beginnings of ids, or output RUNs) that are removed though a campaign uses them, or
        something was made from them.

    Raises
    ------
    UsageError
        The ticket has no runs, or none of a name.
    SubmissionRefused
        A named run is certified, or is being made.
    """
    listed = [entry for entry in home.runs() if entry["ticket"] == ticket]
    unlisted = list(_unlisted(ticket, repository, home, {entry["output_run"] for entry in listed}))
    found = [*listed, *unlisted]
    if not found:
        known = ", ".join(sorted({entry["ticket"] for entry in home.runs()})) or "none"
        raise UsageError(f"no run of ticket {ticket!r}", where=str(home.runs_file), do=f"tickets: {known}")
    uses = Uses(repository, home).of(found)
    for entry in unlisted:
        if not entry["submit_path"]:
            uses.setdefault(entry["output_run"], Use(ELSEWHERE.format(entry["submitter"]), firm=True))
        elif _begun(Path(entry["submit_path"])):
            uses.setdefault(entry["output_run"], Use(ELSEWHERE.format("")))
    named = {_named(name, ticket, found) for name in forced}
    for entry in found:
        use = uses.get(entry["output_run"])
        if entry["run"] in named and use is not None and use.firm:
            do = "nothing was removed" + ("" if entry["submit_path"] else ": give the command with that home")
            raise SubmissionRefused(f"{entry['output_run']} is not removed: {use.text}", do=do)
        if entry["run"] in named:
            uses.pop(entry["output_run"], None)
    return [_remains(entry, repository, uses.get(entry["output_run"]), entry["run"] in named) for entry in found]


def _begun(folder: Path) -> bool:
    """Whether a run was ever listed: it has a journal, or had a folder."""
    return not folder.is_dir() or _journal(folder) > 0


def _named(name: str, ticket: str, found: Sequence[Mapping[str, Any]]) -> str:
    """Find the id of the run that a name stands for."""
    exact = [one["run"] for one in found if name in (one["run"], one["output_run"])]
    fit = exact or [one["run"] for one in found if name and one["run"].startswith(name)]
    if len(fit) != 1:
        what = f"{name!r} fits {len(fit)} runs of {ticket}" if fit else f"no run {name!r} of {ticket}"
        raise UsageError(what, do=f"campaign clean {ticket} lists them")
    return str(fit[0])


def _unlisted(ticket: str, repository: Repository, home: Home, known: set[str]) -> Iterator[Mapping[str, str]]:
    """Find RUNs of another home, and those claimed for a submission which ended before its run was listed."""
    for name, kind in repository.collections(f"*calib/{ticket}/*").items() if is_collection(ticket) else ():
        if kind != "RUN" or name in known or not (owner := repository.run_owner(name)).run:
            continue
        yield {
            "run": owner.run,
            "output": name.rpartition("/")[0],
            "output_run": name,
            "submit_path": owner.folder or home.folder_of(owner.run),
            "submitter": owner.submitter,
        }


def _remains(entry: Mapping[str, Any], repository: Repository, use: Use | None, forced: bool) -> Remains:
    folder = Path(entry["submit_path"]) if entry["submit_path"] else None
    size = _bytes(Path(repository.root) / entry["output_run"]) + (_bytes(folder) if folder else 0)
    return Remains(
        run=entry["run"],
        output=entry["output"],
        output_run=entry["output_run"],
        submit_path=str(folder or ""),
        state=status.state_of(folder) if folder else "elsewhere",
        bytes=size,
        kept=use.text if use else "",
        firm=use is not None and use.firm,
        forced=forced,
        journal=_journal(folder) if folder else 0,
    )


def _journal(folder: Path) -> int:
    try:
        return os.stat(folder / "journal" / "driver.jsonl").st_size
    except OSError:
        return 0


def _bytes(folder: Path) -> int:
    """Sum up the sizes of all files below a folder; 0 where there is none."""
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)


def clean(one: Remains, repository: Repository, home: Home, uses: Uses) -> str:
    """Remove a run; give the reason to keep it after all, empty where it was removed.

    ``uses`` are looked up again: a run that is used by now is kept.
    """
    folder = Path(one.submit_path)
    with repository.deciding():
        if kept := _used(one, uses):
            return kept
        if folder.is_dir():
            try:
                claim.take(folder)
            except SubmissionRefused as error:
                return error.what
        reach("clean-decided")
        repository.remove_run(one.output_run)
        _clear_unrecorded(one, folder, repository)
        _remove_chain(one, repository)
        _prune(Path(repository.root) / one.output_run, one.output_run)
    reach("clean-removed")
    aside = folder.with_name(f".{folder.name}.cleaned")
    if folder.is_dir():
        _clean_sites(one, folder, home)
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)  # in one step, so that nobody finds half of it
    if aside.is_dir():
        shutil.rmtree(aside)
        _prune(folder, one.output_run)
    reach("clean-unlisted")
    home.remove_run(one.run)
    return ""


def _used(one: Remains, uses: Uses) -> str:
    """Give the reason to keep a run now; empty where there is none."""
    folder = Path(one.submit_path)
    use = uses.of([asdict(one)]).get(one.output_run)
    if use is not None and (use.firm or not one.forced):
        return use.text
    if _journal(folder) != one.journal:
        return "it was resumed since it was listed"
    return ""


def _clear_unrecorded(one: Remains, folder: Path, repository: Repository) -> None:
    """Remove products that are not in the repository: their driver was killed before it recorded them."""
    try:
        plan = load_plan(folder / "plan.json")
    except CampaignError:  # it has made nothing
        return
    place = Path(repository.root) / one.output_run
    paths = (output.path for task in plan.tasks for output in task.outputs)
    clear(path for path in paths if Path(os.path.normpath(path)).is_relative_to(place))


def _remove_chain(one: Remains, repository: Repository) -> None:
    """Remove the output chain with the last of its own RUNs."""
    if repository.collection_type(one.output) != "CHAINED":
        return
    if not any(name.startswith(f"{one.output}/") for name in repository.chain(one.output)):
        repository.remove_chain(one.output)


def _prune(folder: Path, output_run: str) -> None:
    """Remove the empty folders of a RUN, and those above them that its name has made."""
    for place, _, _ in sorted(os.walk(folder), reverse=True):
        _remove_empty(Path(place))
    for parent in folder.parents if not folder.exists() else ():
        if parent.name not in output_run.split("/") or not _remove_empty(parent):
            return


def _remove_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _clean_sites(one: Remains, folder: Path, home: Home) -> None:
    """Remove the run's files at its sites; a site that does not answer any more keeps its files."""
    try:
        order = orders.read(folder)
    except CampaignError:
        return
    sites = load({**os.environ, **order.variables}, home)
    for name in str(order.sites).split(",") if order.sites else ():
        site = sites.get(name)
        if site is not None and site.scratch:
            remove(transport(site, home), f"{site.scratch}/{one.run}", folder / "logs" / f"clean-{name}.log")
