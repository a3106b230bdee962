"""``$CAMPAIGN_HOME``: the list of runs, and the record of every command."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from campaign import lines
from campaign.errors import ConfigurationError, UsageError
from campaign.wording import command, count

#: Fields, and their types, of a line about a run, about a command, and about the resources of a run.
RUN = dict.fromkeys(("t", "run", "template", "ticket", "output_run", "submit_path"), str)
COMMAND = {**dict.fromkeys(("t", "command", "line", "ticket", "user", "host"), str), "versions": dict, "detail": dict}
#: The same for a line about a run that claims its output RUN, and about a campaign's step.
CLAIM = dict.fromkeys(("t", "run", "submit_path"), str)
SPOKEN = dict.fromkeys(("t", "event", "step"), str)
USAGE = {"label": str}
RECORDED = ("drp-campaign", "lsst-daf-butler", "numpy", "numba", "fitsio", "mpi4py", "dask")


def now() -> str:
    """Give the time, for an event: ISO-8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def typed_line() -> str:
    """Write the present command, so that it can be given again."""
    return command(*sys.argv[1:])


def versions() -> dict[str, str]:
    """List the versions of all that makes the products; the project's own is `unknown` in a bare checkout."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


@dataclass(frozen=True)
class Home:
    """The folder that lists a repository's runs and commands."""

    path: Path

    @property
    def runs_file(self) -> Path:
        """One line a run."""
        return self.path / "runs.jsonl"

    @property
    def claims_file(self) -> Path:
        """One line a run, written before the repository names it as the owner of its output RUN."""
        return self.path / "claims.jsonl"

    @property
    def history_file(self) -> Path:
        """One line a command that changed something."""
        return self.path / "history.jsonl"

    @property
    def usage_file(self) -> Path:
        """One line a run and task label: the resources used."""
        return self.path / "usage.jsonl"

    @property
    def cameras(self) -> Path:
        """Folder of the cameras that ingests have used."""
        return self.path / "cameras"

    def add_run(self, entry: Mapping[str, Any]) -> None:
        """List a new run."""
        append_line(self.runs_file, {"t": now(), **entry})

    def add_claim(self, run: str, folder: str) -> None:
        """Note the submit folder of a run that is about to claim its output RUN, and is listed after."""
        append_line(self.claims_file, {"t": now(), "run": run, "submit_path": folder})

    def folder_of(self, run: str) -> str:
        """Find the submit folder of a run by its id; empty for a run of another home."""
        known = (*lines.read(self.claims_file, CLAIM), *self.runs())
        return str({line["run"]: line["submit_path"] for line in known}.get(run, ""))

    def remove_run(self, run: str) -> None:
        """Take a run off the list."""
        append_line(self.runs_file, {"t": now(), "run": run, "cleaned": True})

    @property
    def campaigns(self) -> dict[str, Path]:
        """Journals of campaigns, by name."""
        return {path.parent.name: path for path in sorted(self.path.glob("campaigns/*/journal.jsonl"))}

    def add_usage(self, *entries: Mapping[str, Any]) -> None:
        """Keep the resources of a run, an entry a label."""
        append_line(self.usage_file, *entries)

    def usage(self) -> list[dict[str, Any]]:
        """Read the resources of runs, oldest first."""
        return lines.read(self.usage_file, USAGE)

    def record(self, command: str, ticket: str, detail: Mapping[str, Any]) -> None:
        """Record a command that changed something: user, time, command line, versions."""
        entry = {
            "t": now(),
            "command": command,
            "line": typed_line(),
            "ticket": ticket,
            "user": getpass.getuser(),
            "host": os.uname().nodename,
            "versions": versions(),
            "detail": dict(detail),
        }
        append_line(self.history_file, entry)

    def runs(self) -> list[dict[str, Any]]:
        """List all runs that are still there, in the order of their claims (not of clocks), oldest first.

        A damaged line is left out; see `campaign.lines`.
        """
        found: dict[str, dict[str, Any]] = {}
        for number, line in lines.numbered(self.runs_file):
            gone = line.get("cleaned")
            if wrong := lines.lacking(line, {"run": str} if gone else RUN):
                lines.leave_out(str(self.runs_file), number, wrong)
            elif gone:
                found.pop(line["run"], None)
            else:
                output = line["output_run"].rpartition("/")[0]
                found[line["run"]] = {"output": output, "product": "", "detectors": [], **line}
        return list(found.values())

    def history(self) -> list[dict[str, Any]]:
        """List all recorded commands, oldest first; a damaged line is left out, see `campaign.lines`."""
        return lines.read(self.history_file, COMMAND)

    def find_run(self, name: str) -> dict[str, Any]:
        """Find a run by id, unique prefix of an id, or its output RUN collection.

        Raises
        ------
        UsageError
            No run is found, or the prefix fits several.
        """
        runs = self.runs()
        exact = [r for r in runs if name in (r["run"], r["output_run"])]
        found = exact or [r for r in runs if r["run"].startswith(name)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(r["run"] for r in (found or runs)[-5:]) or "none yet"
        what = f"{name!r} fits {count(len(found), 'run')}" if found else f"no run {name!r}"
        raise UsageError(what, where=str(self.runs_file), do=f"runs: {known}")


def append_line(file: Path, *entries: Mapping[str, Any]) -> None:
    """Add a line for each entry, all or none; several commands may do so at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines.append(file, b"".join(json.dumps(entry, separators=(",", ":")).encode() + b"\n" for entry in entries))


def home_of_new(repository: Path, environment: Mapping[str, str]) -> Home:
    """Choose the home of a repository that need not exist yet: ``$CAMPAIGN_HOME``, else ``<REPO>/campaign``."""
    return Home(Path(environment.get("CAMPAIGN_HOME") or repository / "campaign"))


def home_of(repository: str | None, environment: Mapping[str, str]) -> Home:
    """Find the home: ``$CAMPAIGN_HOME``, else ``<REPO>/campaign``, else the user's data directory.

    Raises
    ------
    ConfigurationError
        The repository's path does not exist; labels and URIs are left to the Butler.
    """
    if explicit := environment.get("CAMPAIGN_HOME"):
        return Home(Path(explicit))
    if repository and Path(repository).is_dir():
        return Home(Path(repository) / "campaign")
    if repository and "/" in repository and "://" not in repository:
        raise ConfigurationError(
            f"no Butler repository at {repository}", do="`campaign ingest` or `campaign simulate` make one"
        )
    data = environment.get("XDG_DATA_HOME") or str(Path(environment.get("HOME", "/")) / ".local" / "share")
    return Home(Path(data) / "drp-campaign")
