"""Run a plan at several sites: send shares, collect events and products; the archive alone keeps the journal.

A site's share of a round is a site plan, which `campaign site-run` runs there.
A product is fetched, compared with its checksum, renamed to its final path at
the archive and journalled there, in this order: the line in the journal is the
commit point, as on one machine.  Every task is held by one site under a fencing
token.  A site that dies loses the tasks whose products are not home yet; the other
sites get them under the next token, and results under an older token are
refused.  A task that failed for the infrastructure of a living site is tried
once at another site.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from campaign.federation.ledger import Ledger
from campaign.federation.partition import ARCHIVE, Placement, part, rounds, split
from campaign.federation.siteplan import Place, Writer
from campaign.federation.siterun import SiteRun
from campaign.jobs.death import Cause
from campaign.journal.control import CANCEL, DRAIN, asked
from campaign.journal.events import DriverJournal, Event, EventName, Journals
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Plan
from campaign.running.chunk import clear
from campaign.running.runner import Cancelled, Runner
from campaign.sites.transport import Transport, remove

#: Silence after which a site is dead, second; it says something every two.
SILENCE_S = 60.0


@dataclass(frozen=True)
class Participant:
    """A site that takes part."""

    place: Place
    #: Of the processing, relative to the others'.
    fraction: float

    transport: Transport


@dataclass
class Federation:
    """Runs one plan at some sites; tasks that need everything at once run here."""

    #: Written already.
    plan: Plan
    members: Sequence[Participant]
    #: The archive's.
    raw_root: str
    #: Keys that quanta are split by; see `campaign.federation.partition.split`.
    chosen: Mapping[str, str]
    #: Called with every event that is journalled here.
    listener: Callable[[Event], None]
    #: Called for results that were refused, for which there is no event.
    say: Callable[[str], None]
    #: Second; see `SILENCE_S`.
    silence: float = SILENCE_S

    def __post_init__(self) -> None:
        self._members = {m.place.name: m for m in self.members}
        self._placement = Placement(self.plan, {m.place.name: m.fraction for m in self.members}, self.chosen)
        self._writer = Writer(self.plan, self.raw_root)
        self._sent: dict[str, set[str]] = {name: set() for name in self._members}
        self._driver = DriverJournal(self.plan.journal, self.plan.run)
        self._journals = Journals(self.plan.journal)
        self._ledger = Ledger(self.plan)
        self._moved: set[str] = set()
        self._ended: queue.Queue[SiteRun] = queue.Queue()
        self._lock = threading.Lock()
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Run everything that is left and can be run; a failed task stops only the tasks that need it.

        Raises
        ------
        campaign.running.runner.Cancelled
            The run was asked to end; sites lose the tasks whose products are not home yet.
        """
        self._placement.place(self._recover())
        for number, tasks in enumerate(rounds(self.plan, self._placement.places)):
            self._round(number, self._ready(tasks))
        self._tidy()
        self._drain()
        return self.outcome

    def _recover(self) -> dict[str, str]:
        """Give the site, by task, of what an earlier driver brought home; results that come later bear an old token."""
        recorded: dict[str, str] = {}
        for event in self._journals.new(closely=True):
            self.outcome.fold(event)
            if event.event == EventName.PUBLISHED:
                recorded[event.task] = event.site
        self._journals.require_all_known()
        if not self.outcome.jobs:
            return {}
        for task in [*self.outcome.failed, *self.outcome.skipped]:
            self.outcome.forget(task)
        self._ledger = Ledger(self.plan, self.outcome.token + 1)
        left = (task for task in self.plan.tasks if task.name not in self.outcome.published)
        clear(output.path for task in left for output in task.outputs)
        return {task: site for task, site in recorded.items() if task in self.outcome.published}

    def _drain(self) -> None:
        with self._lock:
            for event in self._journals.new():
                self.outcome.fold(event)
                self.listener(event)

    def _ready(self, names: Sequence[str]) -> list[str]:
        """Find the tasks of a round whose needs are published, or will be in this round; record the others as lost."""
        self._drain()
        ready = set(names) - self.outcome.published.keys()
        for task in self.plan.tasks:
            if task.name not in ready:
                continue
            lost = [n for n in task.needs if n not in self.outcome.published and n not in ready]
            if lost:
                ready.discard(task.name)
                self._driver.write(EventName.LOST, {"error": f"needs {lost[0]}, which failed"}, task.name)
        return [name for name in names if name in ready]

    def _round(self, number: int, names: Sequence[str]) -> None:
        shared = self._placement.by_place(names)
        runs = [self._start(number, site, tasks) for site, tasks in shared.items() if site != ARCHIVE]
        try:
            if own := shared.get(ARCHIVE):
                here = replace(self.plan, groups=part(self.plan, own))
                Runner(here, lambda event: None, token=self._ledger.token).run()
            living = len(runs)
            while living:
                ended = self._next()
                living -= 1
                more = self._lose(number, ended) if ended.why else self._elsewhere(number, ended)
                runs += more
                living += len(more)
        finally:
            for one in runs:
                one.dismiss()
            for one in runs:
                one.join()
            self._drain()
            for late in (one for one in runs if one.refused):
                self.say(f"{late.refused} late results of {late.site} under token {late.token} were refused")

    def _next(self) -> SiteRun:
        while True:
            try:
                return self._ended.get(timeout=0.2)
            except queue.Empty:
                self._drain()
            if asked(self.plan.folder, CANCEL) or asked(self.plan.folder, DRAIN):
                raise Cancelled

    def _start(self, number: int, site: str, tasks: Sequence[str]) -> SiteRun:
        """Give a site its share, under the present token."""
        member = self._members[site]
        token = self._ledger.grant(tasks, site)
        share = self._writer.make(tasks, member.place, f"{number}.{token}", token)
        travelling = {n: p for n, p in self._writer.travelling(share).items() if n not in self._sent[site]}
        one = SiteRun(share, travelling, member.transport, self.plan, self._ledger, self._ended.put, self.silence)
        detail = {"site": site, "token": token, "tasks": list(tasks), "files": len(travelling)}
        self._driver.write(EventName.SUBMITTED, detail, site)
        self._sent[site] |= set(travelling)
        one.start()
        return one

    def _share_again(self, number: int, names: Sequence[str]) -> list[SiteRun]:
        return [self._start(number, site, tasks) for site, tasks in self._placement.by_place(names).items()]

    def _lose(self, number: int, ended: SiteRun) -> list[SiteRun]:
        """Give the unfinished tasks of a dead site to the others, under the next token."""
        site, sites = ended.site, self._placement.sites
        sites.pop(site, None)
        with self._ledger.lock:  # nothing is committed between the look and the revocation
            self._drain()
            left = [t for t in self._ledger.held(site) if not self._known(t)]
            self._ledger.revoke(left)
        error = f"{ended.why}; {len(left)} of its tasks go to {', '.join(sites) or 'nobody, no site is left'}"
        self._driver.write(EventName.LOST, {"error": error, "site": site, "token": ended.token, "tasks": left}, site)
        if not sites:
            why = {"error": f"no site is left; {site}: {ended.why}", "cause": Cause.INFRASTRUCTURE}
            for task in left:
                self._driver.write(EventName.FAILED, why, task)
            return []
        self._placement.leave(self._known)
        return self._share_again(number, left)

    def _elsewhere(self, number: int, ended: SiteRun) -> list[SiteRun]:
        """Give tasks that the infrastructure of a living site failed to other sites, once."""
        self._drain()
        known = self.outcome
        again = {task for task in ended.tasks if known.causes.get(task) == Cause.INFRASTRUCTURE} - self._moved
        if not again or not self._placement.sites.keys() - {ended.site}:
            return []
        again = _with_waiting(self.plan, again, ended.tasks, known.skipped)
        for task in again:
            known.forget(task)
        self._moved |= again
        names = [task for task in ended.tasks if task in again]
        self._ledger.revoke(names)
        detail = {"error": Cause.INFRASTRUCTURE, "site": ended.site, "token": ended.token, "tasks": names}
        self._driver.write(EventName.RETRY, detail, ended.site)
        self._placement.move(again, ended.site)
        return self._share_again(number, names)

    def _tidy(self) -> None:
        """Remove the files that were sent to the living sites."""

        def clear_files(site: str) -> None:
            member, log = self._members[site], self.plan.folder / "logs" / f"site-{site}.log"
            remove(member.transport, f"{member.place.scratch}/{self.plan.run}/files", log)

        sites = [site for site, sent in self._sent.items() if sent and site in self._placement.sites]
        with ThreadPoolExecutor(max(1, len(sites))) as pool:
            list(pool.map(clear_files, sites))

    def _known(self, task: str) -> bool:
        return task in self.outcome.published or task in self.outcome.failed


def _with_waiting(plan: Plan, tasks: Collection[str], share: Sequence[str], skipped: Collection[str]) -> set[str]:
    """Add the tasks of the same share that were skipped because these failed, in the order of their needs."""
    found = set(tasks)
    needs = {task.name: task.needs for task in plan.tasks}
    for task in share:
        if task in skipped and found & set(needs[task]):
            found.add(task)
    return found


def shares(plan: Plan, fractions: Mapping[str, float], chosen: Mapping[str, str]) -> list[dict[str, Any]]:
    """List the share of each site: site, fraction, tasks, frames."""
    places = split(plan, fractions, chosen)
    whole, rows = sum(fractions.values()), []
    for site, fraction in fractions.items():
        own = [task for task in plan.tasks if places[task.name] == site]
        frames = sum(len(task.job.inputs.get("raw", ())) for task in own)
        rows.append({"site": site, "fraction": fraction / whole, "tasks": len(own), "frames": frames})
    return rows
