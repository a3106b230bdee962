"""Bring a share's products home from its site, and give them their final names."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from campaign.errors import CampaignError, SubmissionRefused, TransientError
from campaign.federation.ledger import Ledger
from campaign.federation.siteplan import SitePlan, copy, local_name, store
from campaign.jobs.death import Cause
from campaign.journal.events import Event, EventName
from campaign.journal.plan import Plan, PlanTask
from campaign.sites.transport import Transport, fetch, remove

#: Pauses before incomplete products are fetched again, second.
PAUSES_S = (0.5, 5.0)
#: Largest size of a task's inputs table, and of a site's records: of one file, and of all; byte.
MAX_TABLE, MAX_RECORD, MAX_RECORDS = 1 << 25, 1 << 27, 1 << 29
#: Errors of file systems that have no hard links.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True)
class Products:
    """The products of one share."""

    share: SitePlan
    transport: Transport
    #: The archive's.
    plan: Plan
    ledger: Ledger
    #: Takes the errors of the site's commands.
    log: Path
    #: Set once nobody waits any more; then nothing is tried again.
    closing: threading.Event

    @contextmanager
    def fetched(self, events: Sequence[Event]) -> Iterator[dict[str, Path]]:
        """Fetch the products of ``published`` events beside their final places; give the path here, by the name there.

        Those that stay there are removed.

        Raises
        ------
        TransientError
            Products did not arrive, or are incomplete.
        """
        arrived: dict[str, Path] = {}
        try:
            if events:
                self._fetch(events, arrived)
            yield arrived
        finally:
            for path in arrived.values():
                path.unlink(missing_ok=True)

    def _fetch(self, events: Sequence[Event], arrived: dict[str, Path]) -> None:
        wanted: dict[str, tuple[Path, str, int]] = {}
        for event in events:
            group, task = self.ledger.about(event.task)
            for output in task.outputs:
                there = local_name(task.name, output.type, output.path)
                about = event.detail[output.type]
                wanted[there] = _beside(output.path, self.share.token), about["sha256"], about["bytes"]
            if "inputs_table" in group.config:
                wanted[_table(task)] = self.plan.folder / _table(task), "", MAX_TABLE

        def take(name: str, content: IO[bytes]) -> None:
            if name not in wanted:
                raise self._unasked(name)
            path, sha256, most = wanted[name]
            if sha256:
                store(content, path, sha256, most)
                arrived[name] = path
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    copy(content, file, most, str(path))

        for pause in PAUSES_S:
            try:
                return fetch(self.transport, str(self.share.folder), list(wanted), take, self.log)
            except TransientError:
                if self.closing.wait(pause):
                    break
        fetch(self.transport, str(self.share.folder), list(wanted), take, self.log)

    def _unasked(self, name: str) -> TransientError:
        return TransientError(f"the site sent {name!r}, which was not asked for", where=self.share.site)

    def committed(self, event: Event, arrived: Mapping[str, Path]) -> Event:
        """Give all products of a task their final names, or none; return the event with the names of the archive."""
        group, task = self.ledger.about(event.task)
        permissions: Mapping[str, Any] = group.config.get("permissions", {})
        detail, made = dict(event.detail), list[Path]()
        try:
            for output in task.outputs:
                temporary = arrived[local_name(task.name, output.type, output.path)]
                commit(temporary, Path(output.path), permissions)
                made.append(Path(output.path))
                detail[output.type] = {**event.detail[output.type], "path": output.path}
        except (CampaignError, OSError) as error:
            for path in made:
                path.unlink()
            return replace(event, event=EventName.FAILED, detail={"error": str(error), "cause": Cause.INFRASTRUCTURE})
        return replace(event, detail=detail)

    def bring_records(self) -> None:
        """Fetch the site's own journal, job files and logs, for inspection."""
        folder = self.plan.folder / "sites" / self.share.site / self.share.name
        left = MAX_RECORDS

        def take(name: str, content: IO[bytes]) -> None:
            nonlocal left
            path = folder / name
            if not path.resolve().is_relative_to(folder.resolve()):
                raise self._unasked(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                left -= copy(content, file, min(left, MAX_RECORD), str(path))[0]

        with contextlib.suppress(TransientError, OSError):  # a refused run has none; names may be odd
            fetch(self.transport, str(self.share.folder), ["journal", "jobs", "logs"], take, self.log)

    def clear(self) -> None:
        """Remove products that are home from the site."""
        remove(self.transport, f"{self.share.folder}/products", self.log)


def _table(task: PlanTask) -> str:
    """Name the inputs table of a task, below a run's folder, as `kernels.products.levels` does."""
    return f"inputs/{task.name.replace(':', '_')}.csv"


def _beside(path: str, token: int) -> Path:
    final = Path(path)
    return final.with_name(f".{final.name}.{token}.{os.getpid()}.part")


def commit(temporary: Path, final: Path, permissions: Mapping[str, Any]) -> None:
    """Give a product its final name, with a hard link where possible; see ``kernels.jobs.publish``.

    Raises
    ------
    SubmissionRefused
        The name is taken.
    """
    if group := permissions.get("group"):
        os.chown(temporary, -1, grp.getgrnam(group).gr_gid)
    if mode := permissions.get("mode"):
        os.chmod(temporary, int(str(mode), 8))
    taken = SubmissionRefused("exists already; a product is never overwritten", where=str(final))
    try:
        os.link(temporary, final)
        temporary.unlink()
    except FileExistsError as error:
        raise taken from error
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if final.exists():
            raise taken from error
        temporary.rename(final)
    handle = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
