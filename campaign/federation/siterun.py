"""One share at one site, seen from the archive: started, listened to, its products taken home."""

from __future__ import annotations

import contextlib
import errno
import grp
import json
import os
import queue
import subprocess
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from campaign.errors import CampaignError, SubmissionRefused, TransientError, naming
from campaign.federation.said import MAX_LINE, MAX_NOISE, Nonsense
from campaign.federation.said import event as said
from campaign.federation.siteplan import SitePlan, copy, local_name, send, store
from campaign.journal.events import ENDED, Event, EventName
from campaign.journal.plan import Group, Plan, PlanTask
from campaign.killpoints import reach
from campaign.limited import MAX_LOG, into_log
from campaign.sites.transport import Transport, end, fetch, remove

#: Fetched with one command.
BATCH = 200
#: Before products that did not come whole are fetched again, second.
PAUSES_S = (0.5, 5.0)
#: Events that a site may say: so many, and so many a task; one that is tried again and again says some twenty.
EVENTS, EVENTS_A_TASK = 20_000, 200
#: A task's inputs table, and what a site wrote for whoever looks closely: a file of it, and all of it; byte.
MAX_TABLE, MAX_RECORD, MAX_RECORDS = 1 << 25, 1 << 27, 1 << 29
#: Of file systems that have no hard links.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


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

    @property
    def token(self) -> int:
        """What is granted now is granted under: what was withdrawn under an older one counts again."""
        return self._token

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
        See `campaign.federation.siteplan.send`.
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
        self._closing, self._deaf = threading.Event(), threading.Event()
        self._lines: queue.Queue[bytes | None] = queue.Queue(2 * BATCH)
        self._tasks = {task.name: [output.type for output in task.outputs] for task in share.plan.tasks}
        self._labels = {"workers", *(group.label for group in share.plan.groups)}
        self._noise, self._heard, self._ended_tasks = 0, 0, set[str]()
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
        with into_log(self.log) as log:
            self._follow(self._transport.start(command, log))

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Feed the site's run, listen to it, and take its products home, until it or this thread is to end."""
        feeder = threading.Thread(target=self._feed, args=(process.stdin,), daemon=True)
        reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        feeder.start()
        reader.start()
        try:
            if self._listen():
                code = process.wait()
                self._bring_records()
                whole = code in (0, 1) and self._tasks.keys() <= self._ended_tasks
                if whole:  # its products are home
                    remove(self._transport, f"{self._share.folder}/products", self.log)
                self._tell("" if whole else self._reason(code))
        finally:
            self._deaf.set()
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
            while line := pipe.readline(MAX_LINE + 1):
                if not self._put(line):
                    return
        self._put(None)

    def _put(self, line: bytes | None) -> bool:
        """Hand a line on, as quickly as lines are taken; `False` where nobody takes them any more."""
        while not self._deaf.is_set():
            with contextlib.suppress(queue.Full):
                self._lines.put(line, timeout=0.2)
                return True
        return False

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
        """An event out of a line; what is none (a login's greetings, say) goes into the log.

        Raises
        ------
        TransientError
            What it says makes no sense, or does not end: nothing that it says is believed any more.
        """
        if line is None or not line.strip():
            return None
        try:
            if len(line) > MAX_LINE:
                raise Nonsense(f"a line of more than {MAX_LINE >> 10} KiB")
            event = said(line, self._tasks, self._labels)
            self._heard += 1
            if self._heard > EVENTS + EVENTS_A_TASK * len(self._tasks):
                raise Nonsense(f"{self._heard} events of {len(self._tasks)} tasks")
        except Nonsense as error:
            raise TransientError(f"it talks nonsense: {error}") from error
        except ValueError:
            self._noise += len(line)
            if self._noise > MAX_NOISE:
                raise TransientError(f"it talks nonsense: more than {MAX_NOISE >> 20} MiB that are no events") from None
            with self.log.open("ab") as log:
                log.write(line if log.tell() < MAX_LOG else b"")
            return None
        return event and replace(event, run=self._plan.run, site=self.site, token=self.token)

    def _take(self, events: Sequence[Event]) -> None:
        """Journal events, those of products once the products are here."""
        wanted = [e for e in events if e.event == EventName.PUBLISHED and self._wanted(e.task)]
        arrived: dict[str, Path] = {}
        try:
            if wanted:
                self._fetch(wanted, arrived)
            with self._ledger.lock:
                valid = [e for e in events if _of_share(e) or self._wanted(e.task)]
                self.refused += _published(events) - _published(valid)
                self._write([self._committed(e, arrived) if e.event == EventName.PUBLISHED else e for e in valid])
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
        self._ended_tasks |= {event.task for event in events if event.event in ENDED}

    # Products

    def _fetch(self, events: Sequence[Event], arrived: dict[str, Path]) -> None:
        """Bring products home, beside their final places: ``arrived`` is filled, a path here by its name there."""
        wanted: dict[str, tuple[Path, str, int]] = {}
        for event in events:
            group, task = self._ledger.about(event.task)
            for output in task.outputs:
                there = local_name(task.name, output.type, output.path)
                about = event.detail[output.type]
                wanted[there] = _beside(output.path, self.token), about["sha256"], about["bytes"]
            if "inputs_table" in group.config:
                wanted[_table(task)] = self._plan.folder / _table(task), "", MAX_TABLE

        def take(name: str, content: IO[bytes]) -> None:
            if name not in wanted:
                raise TransientError(f"the site sent {name!r}, which was not asked for", where=self.site)
            path, sha256, most = wanted[name]
            if sha256:
                store(content, path, sha256, most)
                arrived[name] = path
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    copy(content, file, most, str(path))

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
            return replace(event, event=EventName.FAILED, detail={"error": str(error), "cause": "infrastructure"})
        return replace(event, detail=detail)

    # The end

    def _reason(self, code: int) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        last = (errors or [line for line in lines if line.strip()] or ["no word of it"])[-1]
        return f"its run ended with code {code}: {last}"

    def _bring_records(self) -> None:
        """Fetch the site's own journal, jobs and logs, for whoever wants to look closely."""
        folder = self._plan.folder / "sites" / self.site / self._share.name
        left = MAX_RECORDS

        def take(name: str, content: IO[bytes]) -> None:
            nonlocal left
            path = folder / name
            if not path.resolve().is_relative_to(folder.resolve()):
                raise TransientError(f"the site sent {name!r}, which was not asked for", where=self.site)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                left -= copy(content, file, min(left, MAX_RECORD), str(path))[0]

        with contextlib.suppress(TransientError, OSError):  # a run that was refused has none; names may be odd
            fetch(self._transport, str(self._share.folder), ["journal", "jobs", "logs"], take, self.log)


def _of_share(event: Event) -> bool:
    """Whether an event is of a group, or of its workers, and not of a task."""
    return event.task != "" and ":" not in event.task


def _published(events: Sequence[Event]) -> int:
    return sum(event.event == EventName.PUBLISHED for event in events)


def _table(task: PlanTask) -> str:
    """The inputs table of a task, below a run's folder: as `kernels.products.levels` names it."""
    return f"inputs/{task.name.replace(':', '_')}.csv"


def _beside(path: str, token: int) -> Path:
    final = Path(path)
    return final.with_name(f".{final.name}.{token}.{os.getpid()}.part")


def _commit(temporary: Path, final: Path, permissions: Mapping[str, Any]) -> None:
    """Give a product its final name, which must be free, with a hard link or without; see ``kernels.jobs.publish``."""
    if group := permissions.get("group"):
        os.chown(temporary, -1, grp.getgrnam(group).gr_gid)
    if mode := permissions.get("mode"):
        os.chmod(temporary, int(str(mode), 8))
    taken = SubmissionRefused("exists already; a product is never overwritten", where=str(final))
    try:
        os.link(temporary, final)
        temporary.unlink()
    except FileExistsError as error:
        raise taken from error
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if final.exists():
            raise taken from error
        temporary.rename(final)
    handle = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
