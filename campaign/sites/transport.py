"""Transports: start commands of a site on this machine, or over ssh.

A transport starts a command and gives its standard streams: bundles go in by
standard input, events and products come out by standard output.  Commands are
argument lists; ssh alone hands a string to a shell, with every word quoted.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from campaign.errors import ConfigurationError, TransientError
from campaign.jobs.launch import environment
from campaign.limited import into_log

#: ``[user@]host``, or an alias of ssh's own configuration.
_HOST = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.:-]*", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
#: Patience with a site that removes a folder, second.
REMOVE_S = 60.0
#: Longest answer of a site, byte.
MAX_ANSWER = 1 << 20
#: Largest header (names and the like) of one member of a tar, byte.
MAX_HEADER = 1 << 16
SSH = (
    *("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"),
    *("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"),
)


class TarMember(tarfile.TarInfo):
    """A member of a foreign tar: its header is read into memory, and so has a limit."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> TarMember:
        """See `tarfile.TarInfo.frombuf`."""
        member = super().frombuf(buf, encoding, errors)
        if member.type not in tarfile.REGULAR_TYPES and member.size > MAX_HEADER:
            raise tarfile.ReadError("a name, or what else is said of a file, is too long")
        return member


class Transport(Protocol):
    """Way to a site."""

    def start(self, arguments: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a command there, with pipes to its standard input and output, and its standard error into ``log``."""

    @property
    def python(self) -> Sequence[str]:
        """Command of the site's Python, which imports nothing from the working directory."""


def _popen(arguments: Sequence[str], log: IO[bytes], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=dict(variables),
        start_new_session=True,  # an operator's ^C is for the driver, which ends its commands
    )


def _check_variables(variables: Mapping[str, str]) -> None:
    wrong = [name for name in variables if not _VARIABLE.fullmatch(name)]
    if wrong:
        raise ConfigurationError(f"{wrong[0]!r} cannot be the name of a variable", where="environment of a site")


@dataclass(frozen=True)
class LocalTransport:
    """Site on this machine, or on a file system that it sees."""

    #: Added to the environment.
    variables: Mapping[str, str] = field(default_factory=dict)
    #: Python of the site.
    interpreter: str = sys.executable

    def __post_init__(self) -> None:
        _check_variables(self.variables)

    @property
    def python(self) -> Sequence[str]:
        """See `Transport`."""
        return [self.interpreter, "-P"]

    def start(self, arguments: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """See `Transport`."""
        return _popen(arguments, log, {**environment(), **self.variables})


@dataclass(frozen=True)
class SshTransport:
    """Site on another machine."""

    #: ``[user@]host``, or an alias; ports and keys belong into ssh's configuration.
    host: str
    #: See `LocalTransport`; no other variable goes there.
    variables: Mapping[str, str] = field(default_factory=dict)
    interpreter: str = "python3"
    #: Arguments of ssh before the host.
    options: Sequence[str] = ()

    def __post_init__(self) -> None:
        _check_variables(self.variables)
        if not _HOST.fullmatch(self.host):
            raise ConfigurationError(f"{self.host!r} cannot be a host", where="host of a site", do="[user@]name")

    @property
    def python(self) -> Sequence[str]:
        """See `Transport`."""
        return [self.interpreter, "-P"]

    def start(self, arguments: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """See `Transport`."""
        sent = {"PYTHONSAFEPATH": "1", **self.variables}
        there = ["env", *(f"{name}={value}" for name, value in sent.items()), *arguments]
        return _popen([*SSH, *self.options, "--", self.host, shlex.join(there)], log, os.environ)


def end(process: subprocess.Popen[bytes], patience: float = 15.0) -> None:
    """End a command and its children; nothing is left running here."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            try:
                os.killpg(process.pid, sign)
                os.killpg(process.pid, signal.SIGCONT)  # a stopped process gets no signal
                process.wait(patience)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
    process.wait()
    if process.stdin is not None:  # not before: a thread that still writes holds its lock
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def remove(transport: Transport, folder: str, log: Path) -> None:
    """Remove a folder of a site; one that cannot be removed does no harm."""
    with into_log(log) as errors:
        process = transport.start(["rm", "-r", "-f", "--", folder], errors)
        assert process.stdout
        try:
            _said(process, b"", REMOVE_S)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            pass
        finally:
            end(process)
            process.stdout.close()


def ask(transport: Transport, arguments: Sequence[str], question: bytes, seconds: float) -> tuple[bytes, list[str]]:
    """Ask a command of a site a question on its standard input.

    Returns
    -------
    answer : `bytes`
        Its standard output; empty if that takes too long, or is too long.
    complaints : `list` [`str`]
        Lines of its standard error, and last the reason if there is no answer.

    Raises
    ------
    OSError
        It cannot be started.
    """
    answer, why = b"", list[str]()
    with tempfile.TemporaryDirectory(prefix="campaign-ask-") as folder:
        log = Path(folder) / "log"
        with into_log(log, MAX_ANSWER) as errors:
            process = transport.start(arguments, errors)
            assert process.stdout
            try:
                answer = _said(process, question, seconds)
            except subprocess.TimeoutExpired:
                why = [f"no answer in {seconds:g} s"]
            except (OSError, ValueError) as error:
                why = [str(error)]
            finally:
                end(process)
                process.stdout.close()
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if not (answer.strip() or said or why):
            why = [f"it said nothing (exit code {process.returncode})"]
        return answer, [*said, *why]


def _said(process: subprocess.Popen[bytes], question: bytes, seconds: float) -> bytes:
    """Give the answer of a process to a question; raise `ValueError` if it is too long."""
    parts: list[bytes] = []

    def talk() -> None:
        assert process.stdin and process.stdout
        with contextlib.suppress(OSError, ValueError):  # it has ended
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(question)
                process.stdin.close()
            parts.append(process.stdout.read(MAX_ANSWER + 1))

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise subprocess.TimeoutExpired(process.args, seconds)
    answer = b"".join(parts)
    if len(answer) > MAX_ANSWER:
        raise ValueError(f"its answer is longer than {MAX_ANSWER >> 20} MiB")
    process.wait(seconds)
    return answer


def fetch(
    transport: Transport, folder: str, names: Sequence[str], take: Callable[[str, IO[bytes]], None], log: Path
) -> None:
    """Fetch files, or whole folders, of a site by one command and one stream.

    Parameters
    ----------
    folder : `str`
        Of the site.
    names : sequence of `str`
        Paths below it.
    take : callable
        Called with each file's name and content; reads no more than it can use.  Links and devices are ignored.
    log : `Path`
        Takes the standard error.

    Raises
    ------
    TransientError
        Files did not arrive, or are incomplete.
    """
    command = ["tar", "--create", "--file=-", "--format=pax", f"--directory={folder}", "--null"]
    command += ["--verbatim-files-from", "--files-from=-"]
    with into_log(log) as errors:
        process = transport.start(command, errors)
        assert process.stdin and process.stdout
        try:
            process.stdin.write(b"".join(os.fsencode(name) + b"\0" for name in names))
            process.stdin.close()
            with tarfile.open(fileobj=process.stdout, mode="r|", tarinfo=TarMember) as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.isreg() else None
                    if content is not None:
                        take(member.name, content)
            while process.stdout.read(MAX_ANSWER):  # the padding
                continue
            code = process.wait()
        except (tarfile.TarError, BrokenPipeError, ValueError, EOFError) as error:
            raise TransientError(f"products arrived incomplete: {error}", where=folder, do=f"see {log}") from error
        finally:
            end(process)
            process.stdout.close()
    if code:
        raise TransientError(f"tar at the site ended with code {code}", where=folder, do=f"see {log}")
