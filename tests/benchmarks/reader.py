"""Reads every HDU of the files listed in a file through fitsio, and does nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import fitsio


def main() -> None:
    """Read."""
    for path in Path(sys.argv[1]).read_text().splitlines():
        with fitsio.FITS(path) as fits:
            for hdu in fits:
                hdu.read()


if __name__ == "__main__":
    main()
