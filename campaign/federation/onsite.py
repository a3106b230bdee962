"""The run of a share at its site: unpack the bundle, check the inputs, run; without a Butler."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from campaign.console import repeating
from campaign.errors import ConfigurationError, SubmissionRefused, TransientError
from campaign.federation.siteplan import PLAN, SitePlan, checksum, inside, parse, store
from campaign.jobs.file import JobTask, write_text
from campaign.journal.events import Event
from campaign.journal.plan import Group, Plan, PlanTask
from campaign.sites.transport import TarMember

if TYPE_CHECKING:
    from campaign.schedulers.protocol import Backend

#: Time between two blank lines, by which a site's run shows that it lives, second.
HEARTBEAT_S = 2.0
#: Largest site plan, byte; for a whole camera and a thousand exposures it takes some tens of MiB.
MAX_PLAN = 1 << 29
_CHECKSUM = re.compile(r"[0-9a-f]{64}")


def receive(source: IO[bytes]) -> SitePlan:
    """Unpack a bundle below the scratch folder that its site plan names.

    Raises
    ------
    ConfigurationError
        The stream is no bundle.
    TransientError
        The bundle was cut short, or damaged on its way.
    """
    try:
        with tarfile.open(fileobj=source, mode="r|", tarinfo=TarMember) as tar:
            members = iter(tar)
            first = next(members, None)
            content = tar.extractfile(first) if first is not None and first.name == PLAN else None
            if content is None:
                raise ConfigurationError(f"a bundle begins with {PLAN}, this one does not")
            if first is None or first.size > MAX_PLAN:
                raise ConfigurationError(f"a site plan of more than {MAX_PLAN >> 20} MiB")
            site_plan = parse(content.read(), PLAN)
            for member in members:
                _unpack(tar, member, site_plan.run_folder)
    except tarfile.TarError as error:
        raise TransientError(f"the bundle is cut short or damaged: {error}") from error
    return site_plan


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    parts = member.name.split("/")
    content = tar.extractfile(member) if member.isreg() else None
    if content is None or len(parts) != 3 or parts[0] != "files" or not _CHECKSUM.fullmatch(parts[1]):
        raise ConfigurationError(f"a bundle has no place for {member.name!r}")
    inside(member.name)
    store(content, folder / member.name, parts[1])


def placed(site_plan: SitePlan) -> Plan:
    """Give the plan the paths of this site, as a runner takes it."""
    folder = site_plan.folder
    roots = {"raw": Path(site_plan.raw_root), "files": site_plan.run_folder / "files", "made": folder}
    files = {
        key: {"path": str(roots[f["root"]] / f["path"])} | ({"bytes": f["bytes"]} if f.get("bytes") else {})
        for key, f in site_plan.plan.files.items()
    }
    groups = [_placed(group, folder) for group in site_plan.plan.groups]
    return replace(site_plan.plan, submit_path=str(folder), files=files, groups=groups)


def _placed(group: Group, folder: Path) -> Group:
    def job(job: JobTask) -> JobTask:
        return replace(job, outputs={name: str(folder / path) for name, path in job.outputs.items()})

    tasks = [
        PlanTask(job(t.job), [replace(o, path=str(folder / o.path)) for o in t.outputs], t.needs) for t in group.tasks
    ]
    config = {k: str(folder / v) if k == "inputs_table" else v for k, v in group.config.items()}
    return replace(group, tasks=tasks, config=config)


def require_inputs(site_plan: SitePlan, plan: Plan) -> None:
    """Check that every input that is not made here is present and complete.

    Raises
    ------
    SubmissionRefused
        Some inputs are missing or damaged; the first is named.
    """
    lacking = []
    for key, file in site_plan.plan.files.items():
        path, size = Path(plan.files[key]["path"]), file.get("bytes")
        if file["root"] == "made":
            continue
        if not path.is_file():
            lacking.append(f"{path} is not there")
        elif size is not None and path.stat().st_size != size:
            lacking.append(f"{path} has {path.stat().st_size} bytes, not {size}")
        elif file["root"] == "raw" and "sha256" in file and checksum(str(path)) != file["sha256"]:
            lacking.append(f"{path} has another SHA-256 than in the archive")
    if lacking:
        raise SubmissionRefused(
            f"{len(lacking)} of {len(plan.files)} inputs are not as the archive has them; the first: {lacking[0]}",
            where=site_plan.site,
            do=f"look at raw_root ({site_plan.raw_root}) of the site",
        )


def run(site_plan: SitePlan, backend: Backend, tell: Callable[[Event | None], None]) -> bool:
    """Run a site's share; tell whether every task was done.

    ``tell`` is called with every event of the journal, and with `None` now and then.

    Raises
    ------
    SubmissionRefused
        Inputs are missing, or the share was begun before.
    """
    from campaign.running.runner import Runner

    plan = placed(site_plan)
    require_inputs(site_plan, plan)
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        plan.folder.mkdir()
    except FileExistsError as error:
        raise SubmissionRefused("this share was begun before", where=str(plan.folder)) from error
    write_text(plan.folder / PLAN, site_plan.text())
    plan.write()

    with repeating(lambda: tell(None), HEARTBEAT_S):
        share = f"{site_plan.site}.{site_plan.name}"
        return Runner(plan, tell, backend, site_plan.token, share).run().done
