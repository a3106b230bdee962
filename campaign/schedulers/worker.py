"""A Dask worker as a scheduler's job: ``python -P -m campaign.schedulers.worker KEYS SCHEDULER [option ...]``.

KEYS is the folder that `campaign.schedulers.secure.keys` made; the options are those of
``dask worker``.  The worker listens on one address: the one by which its node
reaches the scheduler, or that of ``--interface``.  Its files lie in a folder
where nobody else can put files.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from campaign.schedulers import secure


def options(keys: Path, scheduler: str, given: Sequence[str], folder: str) -> list[str]:
    """Give the arguments of ``dask worker``."""
    words = [scheduler, "--tls-ca-file", str(keys / secure.CERTIFICATE)]
    words += ["--tls-cert", str(keys / secure.CERTIFICATE), "--tls-key", str(keys / secure.KEY)]
    words += ["--no-dashboard", "--dashboard-address", secure.DASHBOARD, "--local-directory", folder, *given]
    return words if "--interface" in given else [*words, "--host", secure.own_address(scheduler)]


def main(arguments: Sequence[str]) -> None:
    """Run a worker until the scheduler is gone."""
    secure.pin()
    from distributed.cli.dask_worker import main as worker

    keys, scheduler, *given = arguments
    with tempfile.TemporaryDirectory(prefix="campaign-worker-", ignore_cleanup_errors=True) as folder:
        worker(options(Path(keys), scheduler, given, folder))


if __name__ == "__main__":
    main(sys.argv[1:])
