"""One share at one site, seen from the archive: started, listened to, its products taken home."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import queue
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from campaign.errors import CampaignError, SubmissionRefused, TransientError, naming
from campaign.events import Event
from campaign.killpoints import reach
from campaign.plan import Group, Plan, PlanTask
from campaign.siteplan import SitePlan, local_name, send, store
from campaign.transport import Transport, end, fetch, remove

#: Fetched with one command.
BATCH = 200
#: Before products that did not come whole are fetched again, second.
PAUSES_S = (0.5, 5.0)


class Ledger:
    """Who holds each task, under which fencing token.

    Parameters
    ----------
    plan : `Plan`
    token : `int`
        The first; above those of an earlier driver.
    """

    def __init__(self, plan: Plan, token: int = 1) -> None:
        self._holders: dict[str, tuple[str, int]] = {}
        self._tasks = {task.name: (group, task) for group in plan.groups for task in group.tasks}
        self._token = token
        self.lock = threading.RLock()

    def grant(self, tasks: Sequence[str], site: str) -> int:
        """Give tasks to a site; return the token that it has them under."""
        with self.lock:
            self._holders |= {task: (site, self._token) for task in tasks}
            return self._token

    def holds(self, task: str, site: str, token: int) -> bool:
        """Whether a result is wanted; hold `lock` for as long as the answer is to be true."""
        return self._holders.get(task) == (site, token)

    def revoke(self, tasks: Sequence[str]) -> None:
        """Take tasks from whoever has them, and grant what is granted from now on under the next token."""
        with self.lock:
            self._token += 1
            for task in tasks:
                del self._holders[task]

    def held(self, site: str) -> list[str]:
        """Tasks that a site has, done or not."""
        with self.lock:
            return [task for task, (holder, _) in self._holders.items() if holder == site]

    def about(self, task: str) -> tuple[Group, PlanTask]:
        """A task with its group; `KeyError` where there is none of that name."""
        return self._tasks[task]


class SiteRun(threading.Thread):
    """Runs one share of a plan at its site.

    Parameters
    ----------
    share : `SitePlan`
    travelling : `dict`
        See `campaign.siteplan.send`.
    transport : `Transport`
    plan : `Plan`
        The archive's.
    ledger : `Ledger`
    ended : callable
        Told once, when the share is done or the site is lost; see ``why``.
    silence : `float`
        Second; a site that says nothing for longer is lost.  It is listened to until `dismiss`.

    Attributes
    ----------
    why : `str`
        Why the site is lost; empty where it is not.
    refused : `int`
        Results that came too late.
    tasks : `list` [`str`]
        Its share.
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
        self._plan, self._ledger, self._ended, self._silence = plan, ledger, ended, silence
        self._told = False
        self._closing = threading.Event()
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._tasks = set(self.tasks)
        stem = f"{share.site}.{share.name}"
        self.log = plan.folder / "logs" / f"site-{stem}.log"
        self._journal = plan.journal / f"site-{stem}.jsonl"

    def run(self) -> None:
        """Run the share; whatever happens, say so once."""
        try:
            self._run()
        except (CampaignError, OSError) as error:
            self._tell(str(error).splitlines()[0])
        except Exception as error:  # whatever it is, the run goes on without this site
            with self.log.open("a") as log:
                log.write(traceback.format_exc())
            self._tell(f"{type(error).__name__}: {error}")
        finally:
            self._tell("its run was ended")

    def dismiss(self) -> None:
        """Say that nobody listens any more: what was started is ended, and with it this thread."""
        self._closing.set()

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told, self.why = True, why
            self._ended(self)

    def _run(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [*self._transport.python, "-m", "campaign", "site-run", "-"]
        with self.log.open("ab") as log:
            process = self._transport.start(command, log)
        feeder = threading.Thread(target=self._feed, args=(process.stdin,), daemon=True)
        reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        feeder.start()
        reader.start()
        try:
            if self._listen():
                code = process.wait()
                self._bring_records()
                whole = code in (0, 1) and self._complete()
                if whole:  # its products are home
                    remove(self._transport, f"{self._share.folder}/products", self.log)
                self._tell("" if whole else self._reason(code))
        finally:
            end(process)
            feeder.join()
            reader.join()
            for pipe in filter(None, (process.stdin, process.stdout)):
                pipe.close()

    def _feed(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):  # it says itself why it does not listen
            send(self._share, self._travelling, pipe)
            pipe.flush()  # and it stays open: a site ends when its archive does

    def _read(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(ValueError):  # closed meanwhile
            for line in pipe:
                self._lines.put(line)
        self._lines.put(None)

    def _listen(self) -> bool:
        """Take in what the site says, until its end; `False` where nobody wants to hear it any more."""
        quiet = 0.0
        while not self._closing.is_set():
            try:
                line = self._lines.get(timeout=0.1)
            except queue.Empty:
                quiet += 0.1
                if quiet > self._silence:
                    self._tell(f"it has not said a word for {self._silence:.0f} s")
                continue
            quiet, lines = 0.0, [line]
            while lines[-1] is not None and len(lines) < BATCH and not self._lines.empty():
                lines.append(self._lines.get())
            self._take([event for event in map(self._event, lines) if event is not None])
            if lines[-1] is None:
                return True
        return False

    def _event(self, line: bytes | None) -> Event | None:
        """An event out of a line; what is none (a login's greetings, say) goes into the log."""
        if line is None or not line.strip():
            return None
        try:
            event = Event(**json.loads(line))
        except (ValueError, TypeError):
            with self.log.open("ab") as log:
                log.write(line)
            return None
        if event.task not in self._tasks and not _of_share(event):
            return None
        return replace(event, run=self._plan.run, site=self.site, token=self.token)

    def _take(self, events: Sequence[Event]) -> None:
        """Journal events, those of products once the products are here."""
        wanted = [e for e in events if e.event == "published" and self._wanted(e.task)]
        arrived: dict[str, Path] = {}
        try:
            if wanted:
                self._fetch(wanted, arrived)
            with self._ledger.lock:
                valid = [e for e in events if _of_share(e) or self._wanted(e.task)]
                self.refused += _published(events) - _published(valid)
                self._write([self._committed(e, arrived) if e.event == "published" else e for e in valid])
                if _published(valid):
                    reach("share-committed")
        finally:
            for path in arrived.values():
                path.unlink(missing_ok=True)

    def _wanted(self, task: str) -> bool:
        with self._ledger.lock:
            return self._ledger.holds(task, self.site, self.token)

    def _write(self, events: Sequence[Event]) -> None:
        """Append to this share's own journal at the archive."""
        lines = [json.dumps(asdict(event), separators=(",", ":")) + "\n" for event in events]
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        with naming(self._journal), self._journal.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
            file.flush()
            os.fsync(file.fileno())

    # Products

    def _fetch(self, events: Sequence[Event], arrived: dict[str, Path]) -> None:
        """Bring products home, beside their final places: ``arrived`` is filled, a path here by its name there."""
        wanted: dict[str, tuple[Path, str]] = {}
        for event in events:
            group, task = self._ledger.about(event.task)
            for output in task.outputs:
                there = local_name(task.name, output.type, output.path)
                wanted[there] = _beside(output.path, self.token), str(event.detail[output.type]["sha256"])
            if "inputs_table" in group.config:
                wanted[_table(task)] = self._plan.folder / _table(task), ""

        def take(name: str, content: IO[bytes]) -> None:
            path, sha256 = wanted[name]
            if sha256:
                store(content, path, sha256)
                arrived[name] = path
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())

        for pause in PAUSES_S:
            try:
                return fetch(self._transport, str(self._share.folder), list(wanted), take, self.log)
            except TransientError:
                if self._closing.wait(pause):
                    break
        fetch(self._transport, str(self._share.folder), list(wanted), take, self.log)

    def _committed(self, event: Event, arrived: Mapping[str, Path]) -> Event:
        """Give products their final names, all of a task's or none; the event names them as they are here."""
        group, task = self._ledger.about(event.task)
        permissions: Mapping[str, Any] = group.config.get("permissions", {})
        detail, made = dict(event.detail), list[Path]()
        try:
            for output in task.outputs:
                temporary = arrived[local_name(task.name, output.type, output.path)]
                _commit(temporary, Path(output.path), permissions)
                made.append(Path(output.path))
                detail[output.type] = {**event.detail[output.type], "path": output.path}
        except (CampaignError, OSError) as error:
            for path in made:
                path.unlink()
            return replace(event, event="failed", detail={"error": str(error), "cause": "infrastructure"})
        return replace(event, detail=detail)

    # The end

    def _complete(self) -> bool:
        """Whether every task has ended, one way or the other."""
        with self._journal.open(encoding="utf-8") as file:
            ended = {e["task"] for e in map(json.loads, file) if e["event"] in ("published", "failed", "lost")}
        return self._tasks <= ended

    def _reason(self, code: int) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        last = (errors or [line for line in lines if line.strip()] or ["no word of it"])[-1]
        return f"its run ended with code {code}: {last}"

    def _bring_records(self) -> None:
        """Fetch the site's own journal, jobs and logs, for whoever wants to look closely."""
        folder = self._plan.folder / "sites" / self.site / self._share.name

        def take(name: str, content: IO[bytes]) -> None:
            path = folder / name
            if not path.resolve().is_relative_to(folder.resolve()):
                raise TransientError(f"the site sent {name!r}, which was not asked for", where=self.site)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())

        with contextlib.suppress(TransientError):  # a run that was refused has none
            fetch(self._transport, str(self._share.folder), ["journal", "jobs", "logs"], take, self.log)


def _of_share(event: Event) -> bool:
    """Whether an event is of a group, or of its workers, and not of a task."""
    return event.task != "" and ":" not in event.task


def _published(events: Sequence[Event]) -> int:
    return sum(event.event == "published" for event in events)


def _table(task: PlanTask) -> str:
    """The inputs table of a task, below a run's folder: as `kernels.levels` names it."""
    return f"inputs/{task.name.replace(':', '_')}.csv"


def _beside(path: str, token: int) -> Path:
    final = Path(path)
    return final.with_name(f".{final.name}.{token}.{os.getpid()}.part")


def _commit(temporary: Path, final: Path, permissions: Mapping[str, Any]) -> None:
    """Give a product its final name, which must be free; see ``kernels.publish``."""
    if group := permissions.get("group"):
        os.chown(temporary, -1, grp.getgrnam(group).gr_gid)
    if mode := permissions.get("mode"):
        os.chmod(temporary, int(str(mode), 8))
    try:
        os.link(temporary, final)
    except FileExistsError as error:
        raise SubmissionRefused("exists already; a product is never overwritten", where=str(final)) from error
    temporary.unlink()
    handle = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
