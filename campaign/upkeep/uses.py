"""Find the uses of a run: certifications, products made from it, a living driver, a campaign."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.campaigns.document import IDENTITY, Campaign
from campaign.campaigns.document import load as load_campaign
from campaign.campaigns.state import WORDS, Books, folder_of, look
from campaign.errors import CampaignError
from campaign.journal import claim
from campaign.journal.books import DOCUMENT
from campaign.journal.events import Journals
from campaign.journal.plan import load as load_plan

if TYPE_CHECKING:
    from campaign.butler.repository import Repository
    from campaign.home import Home

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Use:
    """A reason to keep a run."""

    text: str
    #: Nothing removes the run: it is certified, or a driver makes it.
    firm: bool = False


@dataclass
class Uses:
    """Finds the uses of a repository's runs."""

    repository: Repository
    #: Gives the list of runs, and the campaigns.
    home: Home

    _sources: dict[str, frozenset[str]] = field(default_factory=dict)
    _campaigns: dict[str, Campaign | None] = field(default_factory=dict)

    def of(self, entries: Iterable[Entry]) -> dict[str, Use]:
        """Find the runs that are kept, by output RUN, each with the reason.

        All runs that a certified product was made from, directly or not, are
        kept with it; so are the sources of a run that is being made.
        """
        wanted = list(entries)
        listed = {entry["output_run"]: entry for entry in (*self.home.runs(), *wanted)}
        certified = self.repository.certified()
        living = {run: use for run, entry in listed.items() if (use := _owner(entry["submit_path"]))}
        ancestors = self._ancestors(certified, listed)
        needed = {source: run for run in living for source in self._made_from(run, listed)}
        campaigns = dict(self._by_campaigns())
        found = {}
        for entry in wanted:
            run = entry["output_run"]
            if run in certified:
                found[run] = Use(f"certified in {', '.join(certified[run])}", firm=True)
            elif run in living:
                found[run] = living[run]
            elif run in ancestors:
                found[run] = Use(f"{ancestors[run]}, which is certified, was made from it")
            elif run in needed:
                found[run] = Use(f"{needed[run]} is being made from it")
            elif entry["run"] in campaigns:
                found[run] = Use(campaigns[entry["run"]])
        return found

    def _ancestors(self, certified: Iterable[str], listed: Mapping[str, Entry]) -> dict[str, str]:
        """Find the RUNs that certified products were made from, directly or not, each with one such product."""
        found: dict[str, str] = {}
        waiting = [(run, run) for run in certified]
        while waiting:
            run, product = waiting.pop()
            for source in self._made_from(run, listed):
                if source not in found:
                    found[source] = product
                    waiting.append((source, product))
        return found

    def _made_from(self, run: str, listed: Mapping[str, Entry]) -> frozenset[str]:
        """Find the sources of a RUN: in the list of runs, else in its plan, else in the headers of its products."""
        if run not in self._sources:
            self._sources[run] = frozenset(self._asked(run, listed.get(run)))
        return self._sources[run]

    def _asked(self, run: str, entry: Entry | None) -> Iterable[str]:
        if entry is not None and isinstance(entry.get("made_from"), list):
            return map(str, entry["made_from"])
        if entry is not None and entry["submit_path"]:
            try:
                return load_plan(Path(entry["submit_path"]) / "plan.json").made_from
            except (CampaignError, AttributeError, KeyError, TypeError):  # its folder was cleared, its plan is damaged
                pass
        return self.repository.made_from(run)

    def _by_campaigns(self) -> Iterator[tuple[str, str]]:
        """Give the runs of campaigns, each with its part in its campaign."""
        for name in self.home.campaigns:
            books = Books(folder_of(self.home, name))
            try:
                campaign = self._campaign(name, books)
                states = look(campaign, self.home, books.lines()) if campaign else None
            except CampaignError:  # its templates do not resolve here
                states = None
            if states is None:
                yield from _mentioned(name, books)
                continue
            for state in states.values():
                if state.run:
                    what = "waited for at the gate" if state.state == "gate" else "step"
                    more = "" if state.state == "gate" else f", which {_said(WORDS[state.state])}"
                    yield state.run, f"{what} {state.name} of campaign {name}{more}"

    def _campaign(self, name: str, books: Books) -> Campaign | None:
        """Read a campaign as it was run last; `None` where its books cannot be read."""
        if name not in self._campaigns:
            kept = {str(key): str(value) for key, value in books.variables().items()}
            known = dict(zip(IDENTITY, name.rsplit(".", len(IDENTITY))[1:], strict=False))
            # Scratch space is in no collection's name, and may not exist here.
            shell = {"SCRATCH": str(books.folder), **os.environ, **known, **kept}
            try:
                self._campaigns[name] = load_campaign(str(books.folder / DOCUMENT), None, shell) if kept else None
            except (OSError, ValueError, CampaignError):
                self._campaigns[name] = None
        return self._campaigns[name]


def _said(words: str) -> str:
    return f"is {words}" if words == "done" else words


def _owner(place: str) -> Use | None:
    """Name the driver that makes, or may make, the run of a folder; `None` without one, and for another home's run."""
    if not place:
        return None
    folder = Path(place)
    owner = claim.read(folder)
    if owner is not None:
        return None if owner.alive is False else Use(f"made by {owner.text}", firm=True)
    return Use("planned for a driver that has not begun: campaign cancel gives it up") if _handed_over(folder) else None


def _handed_over(folder: Path) -> bool:
    """Whether a run was planned, and handed to a driver in the background, or a job, that has not begun."""
    if not (folder / "plan.json").exists():
        return False
    return not any(not event.task for event in Journals(folder / "journal").new())


def _mentioned(name: str, books: Books) -> Iterator[tuple[str, str]]:
    """Give the last run that a campaign's journal names for each step, unless it was rejected."""
    decided = books.decisions
    for step, runs in decided.named.items():
        if kept := [run for run in runs if run not in decided.rejected]:
            yield kept[-1], f"step {step} of campaign {name}"
