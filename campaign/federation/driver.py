"""Runs a plan at several sites: shares out, events and products back, the archive alone keeps the books.

Each site's share of a round is a site plan, which `campaign site-run` does
there.  What it publishes is fetched, compared with its checksum, renamed to
its final path at the archive and journalled there, in this order: that line is
the commit point, as on one machine.  Every task is held by one site under a
fencing token.  A site that dies loses what it has not brought home; the others
get it under the next token, and whatever still comes under an older one is
refused.  A task that a living site gave up for its infrastructure's sake is
tried at another one, once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from campaign.federation.partition import ARCHIVE, part, rounds, split
from campaign.federation.siteplan import Place, Writer
from campaign.federation.siterun import Ledger, SiteRun
from campaign.journal.control import CANCEL, DRAIN, asked
from campaign.journal.events import DriverJournal, Event, EventName, Journals
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Plan
from campaign.running.chunk import clear
from campaign.running.runner import Cancelled, Runner
from campaign.sites.transport import Transport, remove

#: A site that has not said a word for so long is dead, second; it says one every two.
SILENCE_S = 60.0


@dataclass(frozen=True)
class Member:
    """A site that takes part.

    Parameters
    ----------
    place : `Place`
    fraction : `float`
        Of the processing, relative to the others'.
    transport : `Transport`
    """

    place: Place
    fraction: float
    transport: Transport


class Federation:
    """Runs one plan at some sites; what needs everything at once runs here.

    Parameters
    ----------
    plan : `Plan`
        Written already.
    members : sequence of `Member`
    raw_root : `str`
        The archive's.
    chosen : `dict`
        What quanta are split by; see `campaign.federation.partition.split`.
    listener : callable
        Told every event, as it is journalled here.
    say : callable
        Told what an operator should know and no event says: results that were refused.
    silence : `float`
        Second; see `SILENCE_S`.
    """

    def __init__(
        self,
        plan: Plan,
        members: Sequence[Member],
        raw_root: str,
        chosen: Mapping[str, str],
        listener: Callable[[Event], None],
        say: Callable[[str], None],
        silence: float = SILENCE_S,
    ) -> None:
        self._plan = plan
        self._members = {m.place.name: m for m in members}
        self._alive = {m.place.name: m.fraction for m in members}
        self._chosen = chosen
        self._listener, self._say, self._silence = listener, say, silence
        self._writer = Writer(plan, raw_root)
        self._sent: dict[str, set[str]] = {name: set() for name in self._members}
        self._driver = DriverJournal(plan.journal, plan.run)
        self._journals = Journals(plan.journal)
        self._ledger = Ledger(plan)
        self._places: dict[str, str] = {}
        self._moved: set[str] = set()
        self._ended: queue.Queue[SiteRun] = queue.Queue()
        self._lock = threading.Lock()
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Run everything that is left and can be run; a failed task stops only what needs it.

        Raises
        ------
        campaign.running.runner.Cancelled
            It was asked to end: what sites have not brought home is theirs no more.
        """
        self._places = split(self._plan, self._alive, self._chosen, self._recover())
        for number, one in enumerate(rounds(self._plan, self._places)):
            names = [task for tasks in one.tasks.values() for task in tasks]
            self._round(number, self._ready(names))
        self._tidy()
        self._drain()
        return self.outcome

    def _recover(self) -> dict[str, str]:
        """Learn what an earlier driver has brought home, from where; what its sites still do comes under an old token.

        Returns
        -------
        recorded : `dict`
            Site by task.
        """
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
        self._ledger = Ledger(self._plan, self.outcome.token + 1)
        left = (task for task in self._plan.tasks if task.name not in self.outcome.published)
        clear(output.path for task in left for output in task.outputs)
        return {task: site for task, site in recorded.items() if task in self.outcome.published}

    def _drain(self) -> None:
        with self._lock:
            for event in self._journals.new():
                self.outcome.fold(event)
                self._listener(event)

    def _ready(self, names: Sequence[str]) -> list[str]:
        """Tasks of a round whose needs are, or will be in this round; the others are lost."""
        self._drain()
        ready = set(names) - self.outcome.published.keys()
        for task in self._plan.tasks:
            if task.name not in ready:
                continue
            lost = [n for n in task.needs if n not in self.outcome.published and n not in ready]
            if lost:
                ready.discard(task.name)
                self._driver.write(EventName.LOST, {"error": f"needs {lost[0]}, which failed"}, task.name)
        return [name for name in names if name in ready]

    def _round(self, number: int, names: Sequence[str]) -> None:
        runs = [self._start(number, site, tasks) for site, tasks in self._by_place(names).items() if site != ARCHIVE]
        try:
            if own := self._by_place(names).get(ARCHIVE):
                here = replace(self._plan, groups=part(self._plan, own))
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
                self._say(f"{late.refused} late results of {late.site} under token {late.token} were refused")

    def _next(self) -> SiteRun:
        while True:
            try:
                return self._ended.get(timeout=0.2)
            except queue.Empty:
                self._drain()
            if asked(self._plan.folder, CANCEL) or asked(self._plan.folder, DRAIN):
                raise Cancelled

    def _by_place(self, names: Sequence[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(self._places[name], []).append(name)
        return found

    def _start(self, number: int, site: str, tasks: Sequence[str]) -> SiteRun:
        """Give a site its share, under the present token."""
        member = self._members[site]
        token = self._ledger.grant(tasks, site)
        share = self._writer.make(tasks, member.place, f"{number}.{token}", token)
        travelling = {n: p for n, p in self._writer.travelling(share).items() if n not in self._sent[site]}
        one = SiteRun(share, travelling, member.transport, self._plan, self._ledger, self._ended.put, self._silence)
        detail = {"site": site, "token": token, "tasks": list(tasks), "files": len(travelling)}
        self._driver.write(EventName.SUBMITTED, detail, site)
        self._sent[site] |= set(travelling)
        one.start()
        return one

    def _lose(self, number: int, ended: SiteRun) -> list[SiteRun]:
        """A site is dead: its unfinished tasks go to the others under the next token."""
        site = ended.site
        self._alive.pop(site, None)
        with self._ledger.lock:  # nothing is committed between what is known and what is taken away
            self._drain()
            left = [t for t in self._ledger.held(site) if not self._known(t)]
            self._ledger.revoke(left)
        error = f"{ended.why}; {len(left)} of its tasks go to {', '.join(self._alive) or 'nobody, no site is left'}"
        self._driver.write(EventName.LOST, {"error": error, "site": site, "token": ended.token, "tasks": left}, site)
        if not self._alive:
            why = {"error": f"no site is left; {site}: {ended.why}", "cause": "infrastructure"}
            for task in left:
                self._driver.write(EventName.FAILED, why, task)
            return []
        recorded = {t: s for t, s in self._places.items() if s in self._alive or self._known(t)}
        self._places = split(self._plan, self._alive, self._chosen, recorded)
        return [self._start(number, new, tasks) for new, tasks in self._by_place(left).items()]

    def _elsewhere(self, number: int, ended: SiteRun) -> list[SiteRun]:
        """Give to other sites, once, what one that lives has given up for its infrastructure's sake."""
        self._drain()
        known, others = self.outcome, {site: share for site, share in self._alive.items() if site != ended.site}
        again = {task for task in ended.tasks if known.causes.get(task) == "infrastructure"} - self._moved
        if not again or not others:
            return []
        again = self._with_waiting(again, ended.tasks)
        for task in again:
            known.forget(task)
        self._moved |= again
        names = [task for task in ended.tasks if task in again]
        self._ledger.revoke(names)
        detail = {"error": "infrastructure", "site": ended.site, "token": ended.token, "tasks": names}
        self._driver.write(EventName.RETRY, detail, ended.site)
        recorded = {task: site for task, site in self._places.items() if task not in again}
        self._places |= split(self._plan, others, self._chosen, recorded)
        return [self._start(number, site, tasks) for site, tasks in self._by_place(names).items()]

    def _with_waiting(self, tasks: Collection[str], share: Sequence[str]) -> set[str]:
        """Add what waited for tasks, in vain, in the same share; needs come before those who have them."""
        found = set(tasks)
        needs = {task.name: task.needs for task in self._plan.tasks}
        for task in share:
            if task in self.outcome.skipped and found & set(needs[task]):
                found.add(task)
        return found

    def _tidy(self) -> None:
        """Have the sites that live remove what had travelled to them."""

        def clear_files(site: str) -> None:
            member, log = self._members[site], self._plan.folder / "logs" / f"site-{site}.log"
            remove(member.transport, f"{member.place.scratch}/{self._plan.run}/files", log)

        sites = [site for site, sent in self._sent.items() if sent and site in self._alive]
        with ThreadPoolExecutor(max(1, len(sites))) as pool:
            list(pool.map(clear_files, sites))

    def _known(self, task: str) -> bool:
        return task in self.outcome.published or task in self.outcome.failed


def shares(plan: Plan, fractions: Mapping[str, float], chosen: Mapping[str, str]) -> list[dict[str, Any]]:
    """What each site will be given, for a person: site, fraction, tasks, frames."""
    places = split(plan, fractions, chosen)
    whole, rows = sum(fractions.values()), []
    for site, fraction in fractions.items():
        own = [task for task in plan.tasks if places[task.name] == site]
        frames = sum(len(task.job.inputs.get("raw", ())) for task in own)
        rows.append({"site": site, "fraction": fraction / whole, "tasks": len(own), "frames": frames})
    return rows
