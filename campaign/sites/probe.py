"""Describes a site's installation: ``python -P -m campaign.sites.probe [SCRATCH]`` prints one line of JSON."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import tempfile

from campaign.release import about
from templates import ROOT


def configuration() -> str:
    """Compute the SHA-256 of packaged pipelines, templates and cameras: they decide the products beside the release.

    Site files are left out: each site has its own.
    """
    total = hashlib.sha256()
    for file in sorted(ROOT.rglob("*")):
        parts = file.relative_to(ROOT).parts
        if file.is_file() and "__pycache__" not in parts and parts[0] != "sites":
            content = file.read_bytes()
            total.update(f"{'/'.join(parts)}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def write_test(folder: str) -> str:
    """Write and sync a block, which a full or read-only disk refuses; give the error, or nothing."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".ping-") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def main() -> None:
    """Print the description."""
    answer = {
        "release": about(),
        "configuration": configuration(),
        "host": socket.gethostname(),
        "python": sys.executable,
        "scratch": write_test(sys.argv[1]) if len(sys.argv) > 1 else "",
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
