"""Hand a planned and claimed run to a driver of its own: a process here, or a job of its site."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import Any

from campaign.errors import SubmissionRefused, TransientError
from campaign.jobs.logs import last_words, lines_of
from campaign.journal import claim
from campaign.journal.plan import Plan
from campaign.planning.allocation import site_of
from campaign.planning.step import Step
from campaign.running.placement import backend_of
from campaign.schedulers.protocol import Refused

#: Time for a driver process to begin, second; a driver job may queue for longer.
BEGINS_S = 60.0
POLL_S = 0.1


def require_driver(step: Step, how: str) -> None:
    """Check that a site would take a driver that is a job, before anything is claimed.

    Raises
    ------
    Refused
        The site has no scheduler, its scheduler does not answer, or does not take the job.
    """
    if how == "job":
        backend_of(site_of(step)[0], 1).probe_driver(_resources(step))


def _resources(step: Step) -> dict[str, int]:
    """Read the resources of a driver job from the template."""
    memory, minutes = (int(step.config.resource("", key)) for key in ("driverMemory", "driverWalltime"))
    return {"memory_mib": memory, "cores": 1, "minutes": minutes}


def detach(step: Step, plan: Plan, how: str) -> dict[str, Any]:
    """Hand a run to another process; give ``run``, and its owner (``made_by``).

    ``how`` is ``process`` (in the background here) or ``job`` (by the site's scheduler).

    Raises
    ------
    Refused
        The site has no scheduler, or does not take the job: nothing of the run is left.
    TransientError
        The driver ended at once, or did not begin.
    """
    log = plan.folder / "logs" / "driver.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "campaign", "restart", str(plan.folder.absolute())]
    if how == "job":
        return {"run": plan.run, "made_by": _job(step, plan, command)}
    claim.release(plan.folder)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    until = time.monotonic() + BEGINS_S
    while (owner := claim.read(plan.folder)) is None or owner.pid != process.pid:
        if process.poll() is not None:
            if process.returncode == 0:
                break
            why = last_words(lines_of(log)) or "it said nothing"
            do = f"campaign restart {plan.run} resumes the run"
            raise TransientError(f"the driver ended: {why}", where=str(log), do=do)
        if time.monotonic() > until:
            raise TransientError(f"the driver has not begun in {BEGINS_S:.0f} s", where=str(log))
        time.sleep(POLL_S)
    return {"run": plan.run, "made_by": owner.text if owner else f"process {process.pid}"}


def _job(step: Step, plan: Plan, command: list[str]) -> str:
    """Submit the driver as a job of the site; it is told to drain before its time is up.

    The run is given up first, since the job may begin at once.
    """
    backend = backend_of(site_of(step)[0], 1)
    variables = {name: value for name, value in os.environ.items() if name.startswith("CAMPAIGN_")}
    log = plan.folder / "logs" / "driver.log"
    claim.release(plan.folder)
    try:
        job = backend.submit_driver(command, log, f"{plan.run}-driver", _resources(step), variables)
    except Refused:
        _withdraw(step, plan)
        raise
    return f"job {job} of {backend.site}"


def _withdraw(step: Step, plan: Plan) -> None:
    """Remove every trace of a run, unless another process has taken it meanwhile."""
    from campaign.butler.repository import open_repository

    try:
        claim.take(plan.folder)
    except (SubmissionRefused, OSError):
        return
    with open_repository(step.config.butler_config, writeable=True) as repository:
        repository.remove_run(plan.output_run)
    shutil.rmtree(plan.folder)
    step.home.remove_run(plan.run)
