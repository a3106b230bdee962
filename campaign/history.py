"""The record of a ticket: every command, selection and version, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from campaign.errors import UsageError
from campaign.home import Home


def history(home: Home, ticket: str) -> str:
    """Write what was done for a ticket, to be attached to it.

    Raises
    ------
    UsageError
        Nothing was recorded for it.
    """
    entries = [e for e in home.history() if e["ticket"] == ticket]
    if not entries:
        known = sorted({e["ticket"] for e in home.history() if e["ticket"]})
        raise UsageError(
            f"nothing is recorded for {ticket}",
            where=str(home.history_file),
            do=f"tickets: {', '.join(known) or 'none yet'}",
        )
    parts = [f"# {ticket}\n"]
    before: Mapping[str, str] = {}
    for entry in entries:
        parts.append(_section(entry))
        if entry["versions"] != before:
            parts.append("Versions: " + ", ".join(f"{k} {v}" for k, v in entry["versions"].items()) + "\n")
            before = entry["versions"]
    return "\n".join(parts)


def _section(entry: Mapping[str, Any]) -> str:
    lines = [f"## {entry['t']} {entry['command']}\n", f"By {entry['user']} on {entry['host']}:\n"]
    lines += ["```", entry["line"], "```", ""]
    for key, value in entry["detail"].items():
        if value in (None, [], {}, ""):
            continue
        if isinstance(value, list):
            value = "; ".join(map(str, value))
        elif isinstance(value, dict):
            value = "; ".join(f"{k}: {v}" for k, v in value.items())
        lines.append(f"- {key.replace('_', ' ')}: {value}")
    return "\n".join(lines) + "\n"
