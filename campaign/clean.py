"""What a ticket has left behind that was not certified, and its removal.

In this order, each of which may be done again: the RUN with its files, then
what sites still have of it, then the submit folder, and last the line in the
list of runs; a clean that was killed is gone on with by another.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign import claim, status
from campaign import order as orders
from campaign.chunk import clear
from campaign.errors import CampaignError, UsageError
from campaign.home import Home
from campaign.members import transport
from campaign.plan import load as load_plan
from campaign.repository import Repository
from campaign.sites import load
from campaign.template_vocabulary import is_collection
from campaign.transport import remove


@dataclass(frozen=True)
class Remains:
    """What a run has left.

    Parameters
    ----------
    run, output, output_run, submit_path : `str`
    state : `str`
        See `campaign.status.state_of`.
    bytes : `int`
        Its products, and its submit folder.
    kept : `str`
        Why it is not to be removed; empty where it is.
    """

    run: str
    output: str
    output_run: str
    submit_path: str
    state: str
    bytes: int
    kept: str


def remains(ticket: str, repository: Repository, home: Home) -> list[Remains]:
    """List the runs of a ticket, oldest first.

    Raises
    ------
    UsageError
        It has none.
    """
    listed = [entry for entry in home.runs() if entry["ticket"] == ticket]
    found = [*listed, *_unlisted(ticket, repository, {entry["output_run"] for entry in listed})]
    if not found:
        known = ", ".join(sorted({entry["ticket"] for entry in home.runs()})) or "none"
        raise UsageError(f"no run of ticket {ticket!r}", where=str(home.runs_file), do=f"tickets: {known}")
    certified = repository.certified({entry["output_run"] for entry in found})
    return [_remains(entry, repository, certified.get(entry["output_run"], ())) for entry in found]


def _unlisted(ticket: str, repository: Repository, known: set[str]) -> Iterator[Mapping[str, str]]:
    """RUNs that were claimed for a submission which did not come as far as the list."""
    for name, kind in repository.collections(f"*calib/{ticket}/*").items() if is_collection(ticket) else ():
        run, _, folder = repository.run_owner(name).partition(" ") if kind == "RUN" else ("", "", "")
        if folder and name not in known:
            yield {"run": run, "output": name.rpartition("/")[0], "output_run": name, "submit_path": folder}


def _remains(entry: Mapping[str, Any], repository: Repository, certified: tuple[str, ...]) -> Remains:
    folder = Path(entry["submit_path"])
    owner = claim.read(folder)
    kept = f"certified in {', '.join(certified)}" if certified else ""
    if owner is not None and owner.alive is not False:
        kept = f"made by {owner.text}"
    output = entry.get("output") or entry["output_run"].rpartition("/")[0]
    size = _bytes(Path(repository.root) / entry["output_run"]) + _bytes(folder)
    return Remains(entry["run"], output, entry["output_run"], str(folder), status.state_of(folder), size, kept)


def _bytes(folder: Path) -> int:
    """Of all files below a folder; 0 where there is none."""
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)


def clean(one: Remains, repository: Repository, home: Home) -> None:
    """Remove what a run has left."""
    folder = Path(one.submit_path)
    repository.remove_run(one.output_run)
    _clear_unrecorded(one, folder, repository)
    _remove_chain(one, repository)
    _prune(Path(repository.root) / one.output_run, one.output_run)
    if folder.is_dir():
        _clean_sites(one, folder, home)
        shutil.rmtree(folder)
        _prune(folder, one.output_run)
    home.remove_run(one.run)


def _clear_unrecorded(one: Remains, folder: Path, repository: Repository) -> None:
    """Remove products that the journal alone knows, or nobody: their driver was killed before it recorded them."""
    try:
        plan = load_plan(folder / "plan.json")
    except CampaignError:  # it has made nothing
        return
    place = Path(repository.root) / one.output_run
    paths = (output.path for task in plan.tasks for output in task.outputs)
    clear(path for path in paths if Path(os.path.normpath(path)).is_relative_to(place))


def _remove_chain(one: Remains, repository: Repository) -> None:
    """The output chain goes with the last RUN of its own."""
    if repository.collection_type(one.output) != "CHAINED":
        return
    if not any(name.startswith(f"{one.output}/") for name in repository.chain(one.output)):
        repository.remove_chain(one.output)


def _prune(folder: Path, output_run: str) -> None:
    """Remove a folder that is empty, as far as it is, and those above it that the RUN's name has made."""
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
    """Have the sites that it ran at remove what they have of it; one that is not there any more keeps it."""
    try:
        order = orders.read(folder)
    except CampaignError:
        return
    sites = load({**os.environ, **order.variables}, home)
    for name in str(order.sites).split(",") if order.sites else ():
        site = sites.get(name)
        if site is not None and site.scratch:
            remove(transport(site, home), f"{site.scratch}/{one.run}", folder / "logs" / f"clean-{name}.log")
