"""Campaigns in the index: the last event of every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign import lines
from campaign.console import say
from campaign.documents import load_plain
from campaign.home import SPOKEN, Home
from campaign.journal.books import DOCUMENT
from campaign.journal.database import Database
from campaign.journal.events import Decision
from campaign.journal.tables import CAMPAIGNS, STEPS

#: Fields in which an event gives its reason.
NOTES = ("reason", "error", "target", "log")


@dataclass(frozen=True)
class Spoken:
    """A campaign, and the last event of each of its steps."""

    campaign: str
    #: Number of its steps.
    steps: int
    #: ``step``, ``event``, ``t``, ``user``, ``run``, ``note``, oldest first.
    said: list[dict[str, Any]]

    def of(self, event: str) -> list[str]:
        """Steps whose last event this is."""
        return [one["step"] for one in self.said if one["event"] == event]


def refresh_campaigns(database: Database, home: Home) -> int:
    """Read the new lines of all campaigns' journals; give their number."""
    known = {row["campaign"]: row["offset"] for row in database.rows("SELECT * FROM campaigns")}
    found = 0
    for name, journal in home.campaigns.items():
        start = known.get(name, 0)
        try:
            size = journal.stat().st_size
            if size == start:
                continue
            new, end = _new(journal, start if size > start else 0)
        except OSError as error:  # another operator's
            unread(error, str(journal))
            continue
        steps = {line["step"]: _row(name, line) for line in new if line["step"] and line["event"] != Decision.PROCESS}
        database.replace(STEPS, list(steps.values()))
        database.replace(CAMPAIGNS, [{"campaign": name, "offset": end, "steps": _steps(journal.parent)}])
        found += len(new)
    return found


def unread(error: OSError, place: str) -> None:
    """Say that a file was left out because it may not be read."""
    say(f"warning: left out: {error.filename or place}: {error.strerror or error}")


def _new(journal: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """Read the whole lines from a place on; give them, and the place where they end."""
    with journal.open("rb") as file:
        file.seek(start)
        text = file.read()
    text = text[: text.rfind(b"\n") + 1]
    found = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = lines.parse(raw)
        wrong = line if isinstance(line, str) else lines.lacking(line, SPOKEN)
        if isinstance(line, dict) and not wrong:
            found.append(line)
        elif raw.strip():
            lines.leave_out(str(journal), _before(journal, start) + number, wrong)
    return found, start + len(text)


def _before(journal: Path, place: int) -> int:
    """Count the lines before a place."""
    with journal.open("rb") as file:
        return file.read(place).count(b"\n")


def _row(name: str, line: Mapping[str, Any]) -> dict[str, Any]:
    note = next((str(line[key]) for key in NOTES if line.get(key)), "")
    known = {key: str(line.get(key, "")) for key in ("step", "event", "t", "user", "run")}
    return {"campaign": name, **known, "note": note}


def _steps(folder: Path) -> int:
    try:
        return len(load_plain(folder / DOCUMENT)["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def spoken(database: Database, home: Home) -> list[Spoken]:
    """See `campaign.journal.index.Index.campaigns`."""
    said: dict[str, list[dict[str, Any]]] = {}
    for row in database.rows("SELECT * FROM steps ORDER BY t, step"):
        said.setdefault(row.pop("campaign"), []).append(row)
    sizes = {row["campaign"]: row["steps"] for row in database.rows("SELECT * FROM campaigns")}
    return [Spoken(name, sizes[name], said.get(name, [])) for name in home.campaigns if name in sizes]
