"""Run a command as a process of its own without its imports: fork it from a server that has imported everything.

On a small repository a command imports the Butler for longer than it works.  The server imports once and forks for each
command.  The fork takes over the words, folder, variables and files 0, 1 and 2 of a small client.  The client hands
signals on and ends as the command does, by SIGKILL too.  A true process is needed where a test kills the client by
SIGKILL, gives the command a terminal, or sets variables that Python reads at its start.

Server: ``python tests/forked.py SOCKET`` until its standard input ends.  Client: ``python tests/forked.py SOCKET
campaign|butler WORD...``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import suppress

FILES = (0, 1, 2)
#: Handed on by the client.
HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ask(path: str, words: list[str]) -> int:
    """Have the server run a command in this process's place; give its wait status."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        asked = {"words": words, "folder": os.getcwd(), "variables": dict(os.environ)}
        content = json.dumps(asked).encode()
        socket.send_fds(line, [len(content).to_bytes(8, "big")], list(FILES))
        line.sendall(content)
        with line.makefile("r") as answers:
            number = int(answers.readline())
            for one in HEARD:
                signal.signal(one, lambda heard, frame: os.kill(number, heard))
            return int(answers.readline())


def serve(path: str) -> None:
    """Fork commands until standard input ends.  Returns in the fork alone, which is the command then."""
    import select

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen()
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([door, sys.stdin], [], [])
            with suppress(ChildProcessError):  # reaped, which counts their time too
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if sys.stdin in ready:
                sys.exit(0)
            line, _ = door.accept()
            if not os.fork():
                door.close()
                if _look_after(line):
                    return
                os._exit(0)
            line.close()


def _look_after(line: socket.socket) -> bool:
    """Fork the command, where this gives `True`, and tell the client how it ended."""
    size, files, _, _ = socket.recv_fds(line, 8, len(FILES))
    content = bytearray()
    while len(content) < int.from_bytes(size, "big"):
        content += line.recv(1 << 20)
    if not (number := os.fork()):
        line.close()
        _become(json.loads(content), files)
        return True
    for file in (*files, *FILES):
        os.close(file)
    line.sendall(f"{number}\n".encode())
    _, status = os.waitpid(number, 0)
    with suppress(OSError):  # a client that was killed has no need of it
        line.sendall(f"{status}\n".encode())
    return False


def _become(asked: dict, files: list[int]) -> None:
    os.setsid()
    for number, file in zip(FILES, files, strict=True):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["variables"])
    sys.argv = asked["words"]


def main() -> None:
    """Import what commands import, serve, and in a fork run its command."""
    import lsst.daf.butler.cli.butler as butlers
    import lsst.daf.butler.cli.cmd
    import lsst.daf.butler.script  # noqa: F401

    import campaign.cli
    import campaign.quality.pictures
    import campaign.running.graph
    import campaign.runs.check
    import campaign.runs.drive

    serve(sys.argv[1])
    if os.path.basename(sys.argv[0]) == "butler":
        butlers.main()
    campaign.cli.main()


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main()
    ended = ask(sys.argv[1], sys.argv[2:])
    if os.WIFSIGNALED(ended):
        if os.WTERMSIG(ended) in HEARD:
            signal.signal(os.WTERMSIG(ended), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(ended))
    sys.exit(os.waitstatus_to_exitcode(ended))
