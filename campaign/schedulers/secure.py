"""Dask with keys of the run's own, and with no configuration but this one.

Whoever can talk to a scheduler, a worker or a nanny can run code there.  So
each listens on one address and talks only to holders of the run's key.  The key
is made anew for every cluster, lies in a folder that only the operator can
open, and is removed with the cluster.
"""

from __future__ import annotations

import datetime
import importlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from campaign.errors import ConfigurationError

KEY, CERTIFICATE = "key.pem", "certificate.pem"
PROTOCOL: Final = "tls://"
#: Beginning of the names of folders with keys, in the folder of their run.
PREFIX: Final = ".keys-"
#: Validity before and after now: the clocks of nodes may differ; no run lasts that long.
BEFORE, AFTER = datetime.timedelta(days=7), datetime.timedelta(days=366)
#: Configuration of every process of a cluster. HTTP servers have no pages, and do not listen to other machines.
SETTINGS: Final[dict[str, Any]] = {
    "distributed.comm.require-encryption": True,
    "distributed.comm.tls.min-version": 1.3,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # A worker above its memory limit is killed, which is noticed; a paused one would wait without end.
    **{f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")},
}
#: Address of HTTP servers, which Dask always starts.
DASHBOARD: Final = "127.0.0.1:0"
_LOCK = threading.Lock()
_pinned = False


def pin() -> None:
    """Configure Dask by its defaults and `SETTINGS` alone: a file in somebody's home could do without keys.

    Raises
    ------
    ConfigurationError
        A file of configuration, or a variable ``DASK_...``, cannot be read: Dask's own processes would read it too.
    """
    global _pinned
    with _LOCK:
        if _pinned:
            return
        try:
            config = importlib.import_module("dask.config")
            importlib.import_module("distributed")
        except Exception as error:
            why = " ".join(str(error).split()) or repr(error)
            do = "mend the file, or unset DASK_CONFIG; Dask reads it, though nothing of it counts for a run"
            raise ConfigurationError(f"Dask does not start: {why}", where="Dask's configuration", do=do) from error
        config.refresh(paths=[], env={})
        config.set(SETTINGS)
        _pinned = True


def _pair() -> tuple[bytes, bytes]:
    """Make a key and a self-signed certificate; both PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "campaign")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now + AFTER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(serialization.Encoding.PEM, *plain), certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # for nodes that read it later


def forget(folder: Path) -> None:
    """Remove the keys that a killed driver left in its run's folder: they open nothing any more."""
    for left in folder.glob(f"{PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def keys(folder: Path) -> Iterator[Path]:
    """Make keys for a cluster in the run's folder; remove them at the end, and those of a killed driver now.

    Yields
    ------
    keys : `~pathlib.Path`
        A folder of mode 0700, its files of mode 0600.
    """
    forget(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
    try:
        for name, content in zip((KEY, CERTIFICATE), _pair(), strict=True):
            _write(made / name, content)
        yield made
    finally:
        with suppress(OSError):
            shutil.rmtree(made)


def security(folder: Path) -> Any:
    """Give Dask's `distributed.security.Security` for keys that `keys` made."""
    import ssl

    from distributed.security import Security

    certificate, key = str(folder / CERTIFICATE), str(folder / KEY)
    roles = {f"tls_{role}_key": key for role in ("client", "scheduler", "worker")}
    roles |= {f"tls_{role}_cert": certificate for role in ("client", "scheduler", "worker")}
    return Security(require_encryption=True, tls_ca_file=certificate, tls_min_version=ssl.TLSVersion.TLSv1_3, **roles)


def own_address(peer: str = "") -> str:
    """Give this machine's address as a peer sees it; without one, as other machines do."""
    from distributed.comm import get_address_host
    from distributed.utils import get_ip

    return str(get_ip(get_address_host(peer)) if peer else get_ip())
