"""The commit protocol: temporary name, fsync, checksum, rename, journal line.

No file under its final name is ever partial, and none is ever overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kernels.errors import Cause, KernelError
from kernels.killpoints import reach

CHUNK = 1 << 22
#: Errors of file systems without hard links.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)

#: Writes a whole file; returns its SHA-256 if every byte was hashed on the way.
Writer = Callable[[str], str | None]


class PublishError(KernelError):
    """A product cannot be written, or exists already."""

    cause = Cause.DISK


def sha256(path: Path) -> str:
    """Checksum of a file, read in pieces of 4 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Make the content of a file or folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _permit(path: Path, permissions: Mapping[str, Any]) -> None:
    """Set group and mode where the template asks for them; otherwise the umask decides."""
    if group := permissions.get("group"):
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    if mode := permissions.get("mode"):
        os.chmod(path, int(str(mode), 8))


def _commit(temporary: Path, final: Path) -> None:
    try:
        os.link(temporary, final)  # fails if the name is taken, unlike rename()
    except FileExistsError as error:
        raise PublishError(f"{final}: exists already; a product is never overwritten") from error
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if final.exists():  # a file system without hard links
            raise PublishError(f"{final}: exists already; a product is never overwritten") from error
        os.rename(temporary, final)
        return
    reach("product-linked")
    temporary.unlink()


def publish(final: str, write: Writer, stamp: str, permissions: Mapping[str, Any]) -> dict[str, str | int]:
    """Write one product under its final name, or leave nothing.

    Parameters
    ----------
    final : `str`
        The product's path.
    write : callable
        Called with the temporary path; writes the whole file there.  The
        file is read again for its checksum unless this is returned.
    stamp : `str`
        Mark of this attempt's temporary file.
    permissions : `dict`
        ``mode`` (octal text) and ``group``; may be empty.

    Returns
    -------
    detail : `dict`
        ``path``, ``bytes`` and ``sha256``, for the journal.

    Raises
    ------
    PublishError
        The folder cannot be written, the disk is full, the product exists.
    """
    target = Path(final)
    temporary = target.with_name(f".{target.name}.{stamp}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        checksum = write(str(temporary))
        reach("product-written")
        _permit(temporary, permissions)
        sync(temporary)
        detail: dict[str, str | int] = {
            "path": final,
            "bytes": temporary.stat().st_size,
            "sha256": checksum or sha256(temporary),
        }
        reach("product-synced")
        _commit(temporary, target)
        sync(target.parent)
        reach("product-published")
    except (OSError, KeyError) as error:
        raise PublishError(f"{final}: cannot be written: {reason(error, target.parent)}") from error
    finally:
        with contextlib.suppress(OSError):  # a read-only disk has no such file, and allows no unlink()
            temporary.unlink()
    return detail


def publish_all(
    files: Mapping[str, tuple[str, Writer]], stamp: str, permissions: Mapping[str, Any]
) -> dict[str, dict[str, str | int]]:
    """Write all products of one task, or none, so that the task can be repeated.

    Parameters
    ----------
    files : `dict`
        Final path and writer by dataset type; see `publish`, also for the
        other parameters and for errors.
    """
    done: dict[str, dict[str, str | int]] = {}
    try:
        for name, (final, write) in files.items():
            done[name] = publish(final, write, stamp, permissions)
    except KernelError:
        for detail in done.values():
            Path(str(detail["path"])).unlink()
        raise
    return done


def reason(error: BaseException, folder: Path) -> str:
    """Say why a write failed; cfitsio says only "error writing", so look at the disk."""
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return f"{folder} is not writable for uid {os.getuid()}"
    free = shutil.disk_usage(folder).free
    if free < CHUNK:
        return f"no space left on the disk of {folder} ({free // 1024} KiB free)"
    said = getattr(error, "strerror", None) or str(error)
    return str(said).splitlines()[0] if said else repr(error)
