"""The pipes to a site's run: a bundle is sent, checked events are received."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO

from campaign.errors import TransientError
from campaign.federation.said import MAX_LINE, MAX_NOISE, Nonsense
from campaign.federation.said import event as said
from campaign.federation.siteplan import SitePlan, send
from campaign.journal.events import Event
from campaign.limited import MAX_LOG
from campaign.sites.transport import end

#: Events that are passed on at once.
BATCH = 200
#: Events that a site may say: a base, and an allowance a task; a task that is tried again and again takes some twenty.
EVENTS, EVENTS_A_TASK = 20_000, 200


@dataclass
class Conversation:
    """Feeds a site's run and listens to it; ends the process and both threads at the end of its context."""

    #: ``campaign site-run -`` at the site.
    process: subprocess.Popen[bytes]
    share: SitePlan
    #: See `campaign.federation.siteplan.send`.
    travelling: Mapping[str, str]
    #: Takes lines that are no events, such as a login's greetings.
    log: Path
    #: The site's output has ended.
    over: bool = False

    _noise: int = 0
    _heard: int = 0

    def __post_init__(self) -> None:
        self._tasks = {task.name: [output.type for output in task.outputs] for task in self.share.plan.tasks}
        self._labels = {"workers", *(group.label for group in self.share.plan.groups)}
        self._lines: queue.Queue[bytes | None] = queue.Queue(2 * BATCH)
        self._deaf = threading.Event()
        self._threads = [
            threading.Thread(target=self._feed, args=(self.process.stdin,), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True),
        ]

    def __enter__(self) -> Conversation:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deaf.set()
        end(self.process)
        for thread in self._threads:
            thread.join()
        for pipe in filter(None, (self.process.stdin, self.process.stdout)):
            pipe.close()

    def _feed(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):  # the site itself reports why it does not listen
            send(self.share, self.travelling, pipe)
            pipe.flush()  # the pipe stays open: when it closes, the site ends

    def _read(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(ValueError):  # closed meanwhile
            while line := pipe.readline(MAX_LINE + 1):
                if not self._put(line):
                    return
        self._put(None)

    def _put(self, line: bytes | None) -> bool:
        """Queue a line, as quickly as lines are taken; `False` once the conversation is over."""
        while not self._deaf.is_set():
            with contextlib.suppress(queue.Full):
                self._lines.put(line, timeout=0.2)
                return True
        return False

    def events(self, closing: threading.Event, silence: float, silent: Callable[[str], None]) -> Iterator[list[Event]]:
        """Give the site's events as they come, several at once, until it ends or `closing` is set.

        Parameters
        ----------
        silence : `float`
            Second; a site that says nothing for longer is reported to ``silent``, and still listened to.

        Raises
        ------
        TransientError
            The site talks nonsense, or does not end a line: nothing that it says is believed any more.
        """
        quiet = 0.0
        while not self.over and not closing.is_set():
            try:
                line = self._lines.get(timeout=0.1)
            except queue.Empty:
                quiet += 0.1
                if quiet > silence:
                    silent(f"it has not said a word for {silence:.0f} s")
                continue
            quiet, lines = 0.0, [line]
            while lines[-1] is not None and len(lines) < BATCH and not self._lines.empty():
                lines.append(self._lines.get())
            yield [event for event in map(self._event, lines) if event is not None]
            self.over = lines[-1] is None

    def _event(self, line: bytes | None) -> Event | None:
        """Read an event, and name the share's run, site and token in it; any other line goes into the log."""
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
        share = self.share
        return event and replace(event, run=share.plan.run, site=share.site, token=share.token)
