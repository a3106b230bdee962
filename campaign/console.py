"""Output for operators: a progress bar on a terminal, plain lines in a log, JSON lines for a program.

Names of files, header cards and words of sites come from elsewhere, and may hold
control characters.  A terminal shows these, and does not obey them: `guarded`
escapes them in all that is printed, the tables and bars here in their cells.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, TextIO

#: Characters that move a cursor, colour, reverse or hide text, or are no text: C0 (except tab and line end), C1, marks
#: of direction, breaks and blanks of no width, and lone surrogates, which Python makes of undecodable bytes.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def visible(text: str, lines: bool = True) -> str:
    """Escape the control characters of a text, as Python writes them.

    ``lines`` keeps line ends and tabs; without, they are escaped too, as in a name or a cell of a table.
    """
    text = _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return text if lines else text.replace("\n", "\\n").replace("\t", "\\t")


class _Guarded:
    """A standard stream that prints no control characters."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Print a text."""
        self.stream.write(visible(text))
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        """Print texts."""
        for text in texts:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def guarded() -> Iterator[None]:
    """Escape control characters on standard output and standard error; connect closed standard streams to nowhere.

    The next file that is opened would else become a standard stream.
    """
    for number in range(3):
        with suppress(OSError):
            os.fstat(number)
            continue
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number
    kept = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = kept[0] or os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = (
        _Guarded(stream or os.fdopen(number, "w", closefd=False)) for number, stream in enumerate(kept[1:], 1)
    )
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        sys.stdin, sys.stdout, sys.stderr = kept


def rich_console(stream: Any, **options: Any) -> Any:
    """Make Rich's console on a standard stream; it reads no markup in texts."""
    from rich.console import Console

    return Console(
        file=getattr(stream, "stream", stream), markup=False, emoji=False, highlight=False, soft_wrap=False, **options
    )


#: Time between two signs of life of a command that has nothing else to say, second.
EVERY_S = 30.0


def emit(document: Any) -> None:
    """Print one JSON document on standard output."""
    print(json.dumps(document, indent=1, default=str), flush=True)


def say(text: str) -> None:
    """Print a line of progress or explanation on standard error, so that output stays clean."""
    print(visible(text), file=sys.stderr, flush=True)


def deafen() -> None:
    """Send output nowhere, once its reader has gone."""
    _deafen((sys.stdout, sys.stderr))


def _deafen(streams: Iterable[TextIO]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def unheard() -> Iterator[None]:
    """Keep output from failing where a pipe's reader has gone, or a terminal was closed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        deafen()


def deafen_closed() -> None:
    """Send output to a closed terminal nowhere; output into files continues."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            number = stream.fileno()
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                os.dup2(nowhere, number)
    os.close(nowhere)


def warn(texts: Iterable[str]) -> None:
    """Print warnings."""
    for text in texts:
        say(f"warning: {text}")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table on standard output; no cell is cut or broken, so that names can be copied.

    On a terminal that is too narrow, the widest columns stand below their rows;
    without a terminal, the table is as wide as it needs.
    """
    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = laid_out(columns, [[_cell(cell) for cell in row] for row in rows], wide)
    if title:
        print(visible(title, lines=False))
    head, *others = lines
    if sys.stdout.isatty():  # past the guard, which would print the bold as text
        rich_console(sys.stdout).print(visible(head), style="bold", soft_wrap=True)
    else:
        print(head)
    for line in others:
        print(line)
    sys.stdout.flush()


def _cell(value: object) -> str:
    """Write a value as one line, without control characters."""
    return visible(str(value), lines=False)


def laid_out(columns: Sequence[str], rows: Sequence[Sequence[str]], wide: int | None) -> list[str]:
    """Lay out the lines of a table: its heading, then its rows.

    Parameters
    ----------
    wide : `int` or `None`
        Columns of the terminal; `None` for as many as the table needs.
    """
    from rich.cells import cell_len

    widths = [max(map(cell_len, (name, *(row[n] for row in rows)))) for n, name in enumerate(columns)]
    beside, below = list(range(len(columns))), list[int]()
    while wide is not None and len(beside) > 1 and sum(widths[n] + 2 for n in beside) - 2 > wide:
        widest = max(beside[1:], key=widths.__getitem__)  # the first names the row
        beside.remove(widest)
        below.append(widest)

    def line(cells: Sequence[str]) -> str:
        return "  ".join(cells[n] + " " * (widths[n] - cell_len(cells[n])) for n in beside).rstrip()

    label = max((cell_len(columns[n]) for n in below), default=0)
    found = [line(columns)]
    for row in rows:
        found.append(line(row))
        found += [f"    {columns[n]:{label}s}  {row[n]}".rstrip() for n in sorted(below) if row[n]]
    return found


@contextmanager
def repeating(act: Callable[[], float | None], pause: float, leave: float | None = None) -> Iterator[None]:
    """Call a function again and again, in a thread of its own, until the context ends.

    Parameters
    ----------
    act : callable
        May return the pause, second, before all further calls.
    pause : `float`
        Before the first call, second.
    leave : `float`, optional
        Second that the end of the context waits for a call that is under way; without it, until the call returns.
    """
    over = threading.Event()

    def run() -> None:
        seconds = pause
        while not over.wait(seconds):
            seconds = act() or seconds

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(leave)


@contextmanager
def patience(
    what: Callable[[], str], quiet: bool = False, first: float | None = None, again: float | None = None
) -> Iterator[None]:
    """Say now and then that something long is under way, and how far it is: a silent log looks like a hang.

    Parameters
    ----------
    what : callable
        Gives the words; an empty text is not said.
    quiet : `bool`
        Say nothing.
    first, again : `float`, optional
        Second before something is said, and between two times; both `EVERY_S` by default.
    """
    began = time.monotonic()

    def tell() -> float | None:
        with suppress(OSError):  # nobody listens any more, or the files that are counted do not exist yet
            if text := what():
                say(f"{text} ({time.monotonic() - began:.0f} s)")
                return again
        return None

    with nullcontext() if quiet else repeating(tell, EVERY_S if first is None else first):
        yield
