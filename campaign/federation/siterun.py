"""One share at one site, seen from the archive: started, followed, its products fetched."""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from campaign.errors import CampaignError, naming
from campaign.federation.conversation import Conversation
from campaign.federation.ledger import Ledger
from campaign.federation.products import Products
from campaign.federation.siteplan import SitePlan
from campaign.jobs.logs import last_words, lines_of
from campaign.journal.events import ENDED, Event, EventName
from campaign.journal.plan import Plan
from campaign.killpoints import reach
from campaign.limited import into_log
from campaign.sites.transport import Transport


class SiteRun(threading.Thread):
    """Runs one share of a plan at its site.

    Parameters
    ----------
    share : `SitePlan`
    travelling : `dict`
        See `campaign.federation.siteplan.send`.
    transport : `Transport`
    plan : `Plan`
        The archive's.
    ledger : `Ledger`
    ended : callable
        Called once, when the share is done or the site is lost (see ``why``).
    silence : `float`
        Second; a site that says nothing for longer is lost.  It is listened to until `dismiss`.

    Attributes
    ----------
    why : `str`
        Reason why the site is lost; empty otherwise.
    refused : `int`
        Results that came too late.
    tasks : `list` [`str`]
        The share's.
    """

    def __init__(
        self,
        share: SitePlan,
        travelling: Mapping[str, str],
        transport: Transport,
        plan: Plan,
        ledger: Ledger,
        ended: Callable[[SiteRun], None],
        silence: float,
    ) -> None:
        super().__init__(name=f"{share.site} {share.name}", daemon=True)
        self.site, self.token, self.tasks = share.site, share.token, [task.name for task in share.plan.tasks]
        self.why, self.refused = "", 0
        self._share, self._travelling, self._transport = share, travelling, transport
        self._ledger, self._ended, self._silence = ledger, ended, silence
        self._told, self._closing = False, threading.Event()
        self._over: set[str] = set()
        stem = f"{share.site}.{share.name}"
        self.log = plan.folder / "logs" / f"site-{stem}.log"
        self._journal = plan.journal / f"site-{stem}.jsonl"
        self._products = Products(share, transport, plan, ledger, self.log, self._closing)

    def run(self) -> None:
        """Run the share; report its end once, whatever happens."""
        try:
            self._run()
        except (CampaignError, OSError) as error:
            self._tell(str(error).splitlines()[0])
        except Exception as error:  # whatever happens here must not end the work of other sites
            with self.log.open("a") as log:
                log.write(traceback.format_exc())
            self._tell(f"{type(error).__name__}: {error}")
        finally:
            self._tell("its run was ended")

    def dismiss(self) -> None:
        """Stop listening, which ends the site's run and this thread."""
        self._closing.set()

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told, self.why = True, why
            self._ended(self)

    def _run(self) -> None:
        """Feed the site's run, follow it, and fetch its products, until it ends or this thread is to end."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [*self._transport.python, "-m", "campaign", "site-run", "-"]
        with into_log(self.log) as log:
            process = self._transport.start(command, log)
            with Conversation(process, self._share, self._travelling, self.log) as talk:
                for events in talk.events(self._closing, self._silence, self._tell):
                    self._take(events)
                if talk.over:
                    self._conclude(process.wait())

    def _conclude(self, code: int) -> None:
        self._products.bring_records()
        whole = code in (0, 1) and self._over.issuperset(self.tasks)
        if whole:
            self._products.clear()
        said = "" if whole else last_words(lines_of(self.log)) or "it said nothing"
        self._tell("" if whole else f"its run ended with code {code}: {said}")

    def _take(self, events: Sequence[Event]) -> None:
        """Journal events; those of products only once the products are here."""
        wanted = [event for event in events if _published(event) and self._wanted(event.task)]
        with self._products.fetched(wanted) as arrived, self._ledger.lock:
            # Events of a group, or of its workers, are wanted always.
            valid = [e for e in events if (e.task and not e.of_task) or self._wanted(e.task)]
            many = sum(map(_published, valid))
            self.refused += sum(map(_published, events)) - many
            self._write([self._products.committed(e, arrived) if _published(e) else e for e in valid])
            if many:
                reach("share-committed")

    def _wanted(self, task: str) -> bool:
        with self._ledger.lock:
            return self._ledger.holds(task, self.site, self.token)

    def _write(self, events: Sequence[Event]) -> None:
        """Append to the share's own journal at the archive."""
        lines = [json.dumps(asdict(event), separators=(",", ":")) + "\n" for event in events]
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        with naming(self._journal), self._journal.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
            file.flush()
            os.fsync(file.fileno())
        self._over |= {event.task for event in events if event.event in ENDED}


def _published(event: Event) -> bool:
    return event.event == EventName.PUBLISHED
