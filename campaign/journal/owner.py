"""The owner of an output RUN, as a repository keeps it: the collection's documentation, which travels with exports.

It names the run and its submitter, and no folder: the home of the run knows
that (`campaign.home.Home.folder_of`).  Repositories made before have the folder
in place of the submitter.
"""

from __future__ import annotations

import getpass
import re
import socket
from dataclasses import dataclass

_WRITTEN = re.compile(r"(?P<run>\S+) of (?P<user>.+) on (?P<host>\S+)")
_BEFORE = re.compile(r"(?P<run>\S+) (?P<folder>/.*)")


@dataclass(frozen=True)
class Owner:
    """The run that owns an output RUN; all empty where no run does."""

    run: str = ""
    user: str = ""
    host: str = ""
    #: Submit folder, in repositories made before.
    folder: str = ""

    @property
    def written(self) -> str:
        """The documentation of the RUN."""
        return f"{self.run} of {self.user} on {self.host}"

    @property
    def submitter(self) -> str:
        """User and host, for messages; empty where they are not known."""
        return f" of {self.user} on {self.host}" if self.user else ""


def mine(run: str) -> Owner:
    """Make the owner of a run that this process submits."""
    return Owner(run, getpass.getuser(), socket.gethostname())


def parse(documentation: str) -> Owner:
    """Read the documentation of a RUN, in either form; another text names no owner."""
    found = _WRITTEN.fullmatch(documentation) or _BEFORE.fullmatch(documentation)
    return Owner(**found.groupdict()) if found else Owner()


def importer() -> str:
    """Write the documentation of a RUN of imported calibrations, which no run owns."""
    return f"imported by {getpass.getuser()} on {socket.gethostname()}"
