"""ccdproc's combine on the raws listed in a file, fed by fitsio with trimmed arrays; writes one image."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import fitsio
import numpy as np
from astropy.nddata import CCDData

warnings.simplefilter("ignore")  # warnings of ccdproc's own dependencies
from ccdproc import combine  # noqa: E402


def _section(text: str) -> tuple[slice, slice]:
    """``[x0:x1,y0:y1]``, 1-based and inclusive, as ``[y, x]`` slices."""
    (x0, x1), (y0, y1) = (map(int, part.split(":")) for part in text.strip("[]").split(","))
    return slice(y0 - 1, y1), slice(x0 - 1, x1)


def _frame(path: str) -> CCDData:
    """A frame, trimmed, its amplifiers beside one another in two rows."""
    with fitsio.FITS(path) as fits:
        parts = [hdu.read()[_section(hdu.read_header()["DATASEC"])].astype(np.float32) for hdu in list(fits)[1:]]
    half = len(parts) // 2
    return CCDData(np.vstack([np.hstack(parts[:half]), np.hstack(parts[half:])]), unit="adu")


def main() -> None:
    """Combine."""
    frames = [_frame(path) for path in Path(sys.argv[1]).read_text().splitlines()]
    made = combine(frames, method="average", sigma_clip=True, sigma_clip_low_thresh=3, sigma_clip_high_thresh=3)
    fitsio.write(sys.argv[2], np.asarray(made.data, np.float32), clobber=True)


if __name__ == "__main__":
    main()
