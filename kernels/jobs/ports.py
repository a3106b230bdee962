"""Close the port that a launcher leaves open to everyone.

Hydra's mpiexec waits for its own processes at every address of the machine, and
tells anyone who asks about the job and its environment.  Ranks inherit that
socket, and nobody needs it once the MPI world exists.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from contextlib import suppress

SO_ATTACH_FILTER = 26
#: A filter that lets no packet through: ``BPF_RET | BPF_K`` of 0 bytes.
_NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)
_PROGRAM = struct.pack("HL", 1, ctypes.addressof(_NOTHING))


def _sockets(process: str) -> dict[str, int]:
    """Map a process's sockets from the system's name to the file number; empty if listing them is forbidden."""
    found: dict[str, int] = {}
    with suppress(OSError):
        for entry in os.listdir(f"/proc/{process}/fd"):
            with suppress(OSError):  # closed in the meantime
                found[os.readlink(f"/proc/{process}/fd/{entry}")] = int(entry)
    return {name: number for name, number in found.items() if name.startswith("socket:")}


def shut_inherited() -> int:
    """Let the sockets at which the parent process listens accept no connection; give their number.

    They stay open, because a launcher ends when its own is closed.
    """
    parents, shut = _sockets(str(os.getppid())), 0
    for name, number in _sockets("self").items():
        if name in parents:
            with suppress(OSError), socket.socket(fileno=os.dup(number)) as one:
                network = one.family in (socket.AF_INET, socket.AF_INET6)
                if network and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, _PROGRAM)
                    shut += 1
    return shut
