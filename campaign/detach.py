"""Hands a run that is planned and claimed to a driver of its own: a process here, or a job of its site."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from campaign import claim
from campaign.allocation import site_of
from campaign.errors import SubmissionRefused, TransientError
from campaign.plan import Plan
from campaign.step import Step

#: What a driver may take to begin, second; one that is a job may have to wait for its turn.
BEGINS_S = 60.0
POLL_S = 0.1
#: What a driver that is a job asks for.
RESOURCES = {"memory_mib": 4096, "cores": 1, "minutes": 24 * 60}


def detach(step: Step, plan: Plan, how: str) -> dict[str, Any]:
    """Have a run made by another process.

    Parameters
    ----------
    how : `str`
        ``process``: in the background here; ``job``: by the site's scheduler.

    Returns
    -------
    found : `dict`
        ``run`` and by whom it is made (``made_by``).

    Raises
    ------
    SubmissionRefused
        The site has no scheduler.
    TransientError
        The driver ended at once, or does not begin.
    """
    log = plan.folder / "logs" / "driver.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "campaign", "restart", str(plan.folder.absolute())]
    claim.release(plan.folder)
    if how == "job":
        return {"run": plan.run, "made_by": _job(step, plan, command)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    until = time.monotonic() + BEGINS_S
    while (owner := claim.read(plan.folder)) is None or owner.pid != process.pid:
        if process.poll() is not None:
            if process.returncode == 0:
                break
            last = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise TransientError(f"the driver ended: {' '.join(last)}", where=str(log))
        if time.monotonic() > until:
            raise TransientError(f"the driver has not begun in {BEGINS_S:.0f} s", where=str(log))
        time.sleep(POLL_S)
    return {"run": plan.run, "made_by": owner.text if owner else f"process {process.pid}"}


def _job(step: Step, plan: Plan, command: list[str]) -> str:
    """Submit the driver as a job of the site; it is told to drain before its time is up."""
    site, _ = site_of(step)
    if site is None or site.scheduler is None:
        raise SubmissionRefused(
            "the site of this run has no scheduler", where="--detach=job", do="--detach, or --site with a scheduler"
        )
    from campaign.backend_slurm import Slurm

    variables = {name: value for name, value in os.environ.items() if name.startswith("CAMPAIGN_")}
    backend = Slurm(site.name, site.scheduler, 1)
    job = backend.submit_driver(
        command, plan.folder / "logs" / "driver.log", f"{plan.run}-driver", RESOURCES, variables
    )
    return f"job {job} of {site.name}"
