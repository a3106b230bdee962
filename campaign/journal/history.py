"""The record of a ticket: every command, decision, selection and version, as Markdown."""

from __future__ import annotations

import heapq
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from campaign.console import say
from campaign.errors import UsageError
from campaign.home import Home
from campaign.journal.books import Books, decisions
from campaign.journal.events import Decision
from campaign.wording import command

#: The command behind a decision.
DECISIONS: Mapping[str, str] = {Decision.ACCEPTED: "accept", Decision.REJECTED: "reject"}
#: Begins the line of a command that was started as a module.
MODULE = "__main__.py "


@dataclass(frozen=True)
class Origin:
    """The step that a run was made for: the campaign's name, the step's, and its RERUN."""

    campaign: str
    step: str
    rerun: str


def history(home: Home, ticket: str) -> str:
    """Write the record of a ticket, to be attached to it.

    Raises
    ------
    UsageError
        Nothing was recorded for the ticket.
    """
    commands = home.history()
    entries = [e for e in commands if e["ticket"] == ticket]
    decisions = sorted(_decisions(home, ticket), key=_time)
    if not entries and not decisions:
        known = sorted({e["ticket"] for e in commands if e["ticket"]})
        raise UsageError(
            f"nothing is recorded for {ticket}",
            where=str(home.history_file),
            do=f"tickets: {', '.join(known) or 'none yet'}",
        )
    parts = [f"# {ticket}\n"]
    origins, told = _origins(home), set[str]()
    before: Mapping[str, str] = {}
    for entry in heapq.merge(entries, decisions, key=_time):
        origin = origins.get(str(entry["detail"].get("run", ""))) if entry["command"] == "submit" else None
        if origin and origin.campaign not in told:
            told.add(origin.campaign)
            parts.append(_variables(home, origin.campaign))
        parts.append(_section(entry, origin))
        if entry.get("versions", before) != before:
            parts.append("Versions: " + ", ".join(f"{k} {v}" for k, v in entry["versions"].items()) + "\n")
            before = entry["versions"]
    return "\n".join(parts)


def _time(entry: Mapping[str, Any]) -> str:
    return str(entry["t"])


def _lines(books: Books) -> list[dict[str, Any]]:
    """Read a campaign's decisions; if its journal may not be read, report that and return none."""
    try:
        return books.lines()
    except OSError as error:
        say(f"warning: left out: {books.journal}: {error.strerror}")
        return []


def _decisions(home: Home, ticket: str) -> Iterator[dict[str, Any]]:
    """Give the decisions at the gates of the ticket's campaigns, as entries of the record."""
    for name, journal in home.campaigns.items():
        books = Books(journal.parent)
        if books.variables().get("TICKET", ticket if f".{ticket}." in name else "") != ticket:
            continue
        for line in _lines(books):
            if word := DECISIONS.get(line["event"]):
                typed = command(word, line["step"], "--run", line["run"], "--reason", line["reason"])
                detail = {key: line.get(key) for key in ("step", "run", "reason")} | {"campaign": name}
                known = {key: line.get(key, "") for key in ("t", "user", "host")}
                yield {
                    **known,
                    "command": f"{word} {line['step']}",
                    "line": line.get("line", typed),
                    "detail": detail | {"made next as RERUN": line.get("rerun")},
                }


def _origins(home: Home) -> dict[str, Origin]:
    """Find the step that each run was made for."""
    found: dict[str, Origin] = {}
    nonces: dict[str, Origin] = {}
    for name, journal in home.campaigns.items():
        decided = decisions(_lines(Books(journal.parent)))
        nonces |= {nonce: Origin(name, *key) for key, some in decided.nonces.items() for nonce in some}
        found = {run: Origin(name, *key) for run, key in decided.origins.items()} | found
    given = {entry["run"]: entry["nonce"] for entry in home.runs() if entry.get("nonce")}
    return found | {run: nonces[nonce] for run, nonce in given.items() if nonce in nonces}


def _variables(home: Home, name: str) -> str:
    """Write the variables that the submissions of a campaign need before their commands."""
    variables = Books(home.campaigns[name].parent).variables()
    lines = [f"export {key}={shlex.quote(value)}" for key, value in variables.items()]
    return "\n".join([f"## Campaign {name}\n", "Its submissions were made with:\n", *_block("\n".join(lines))]) + "\n"


def _block(text: str) -> list[str]:
    fence = "````" if "```" in text else "```"
    return [fence, text, fence, ""]


def _section(entry: Mapping[str, Any], origin: Origin | None) -> str:
    by = f"By {entry['user']} on {entry['host']}"
    line = f"campaign {entry['line'].removeprefix(MODULE)}" if entry["line"].startswith(MODULE) else entry["line"]
    if origin:
        by += f", for step {origin.step} of campaign {origin.campaign}"
        line = f"RERUN={origin.rerun} {line}"
    lines = [f"## {entry['t']} {entry['command']}\n", f"{by}:\n", *_block(line)]
    for key, value in entry["detail"].items():
        if value in (None, [], {}, ""):
            continue
        if isinstance(value, list):
            value = "; ".join(map(str, value))
        elif isinstance(value, dict):
            value = "; ".join(f"{k}: {v}" for k, v in value.items())
        lines.append(f"- {key.replace('_', ' ')}: {value}")
    return "\n".join(lines) + "\n"
