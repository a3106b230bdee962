"""Command that a site runs: its share of a plan, without a Butler."""

from __future__ import annotations

import os
import signal
from typing import Any

import click

from campaign.cli.root import cli

#: Most bytes of the settings that `probe` reads.
MAX_SETTINGS = 1 << 20


def _outlive_nobody() -> None:
    """End when the archive ends, which holds the other end of standard input."""
    while os.read(0, 4096):
        continue
    os.kill(os.getpid(), signal.SIGINT)


def _settings(text: bytes) -> dict[str, Any]:
    """Read a site's settings, as `campaign.sites.model.plain` gave them."""
    from campaign.errors import ConfigurationError
    from campaign.limited import from_json

    try:
        return dict(from_json(text))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"not the settings of a site: {error}", where="standard input") from error


@cli.command("site-run")
@click.argument("plan")
def site_run(plan: str) -> None:
    """Run a site's share of a plan: a bundle (FILE.tar, or - for standard input), or its site-plan.json.

    Journal events go to standard output as JSON lines; a blank line now and then
    is a sign of life.  `probe` as PLAN prints this installation's release once the
    scheduler of the site described on standard input answers.  Started by
    `campaign submit --sites`.
    """
    import json
    import sys
    import threading
    from dataclasses import asdict
    from pathlib import Path

    from campaign.federation import onsite, siteplan
    from campaign.journal.events import Event
    from campaign.release import about
    from campaign.running.placement import backend_of
    from campaign.sites.model import from_plain

    if plan == "probe":
        backend_of(from_plain(_settings(sys.stdin.buffer.read(MAX_SETTINGS))), 1).probe()
        print(json.dumps(about()))
        return
    if plan == "-":
        share = onsite.receive(sys.stdin.buffer)
    elif plan.endswith(".tar"):
        with open(plan, "rb") as file:
            share = onsite.receive(file)
    else:
        share = siteplan.parse(Path(plan).read_bytes(), plan)
    lock = threading.Lock()

    def tell(event: Event | None) -> None:
        line = json.dumps(asdict(event), separators=(",", ":")) if event else ""
        try:
            with lock:
                print(line, flush=True)
        except BrokenPipeError:  # the archive has given this site up, or is gone
            os.kill(os.getpid(), signal.SIGINT)

    for sign in (signal.SIGTERM, signal.SIGINT):  # submitted jobs are cancelled, even where a shell ignores ^C
        signal.signal(sign, signal.default_int_handler)
    if plan == "-":
        threading.Thread(target=_outlive_nobody, daemon=True).start()
    backend = backend_of(from_plain(share.settings), share.slots)
    raise SystemExit(0 if onsite.run(share, backend, tell) else 1)
