"""Products that upstream has a template for, and that cannot be made here: what is missing."""

from __future__ import annotations

from typing import Final

from campaign.problems import Problem

_STACK: Final = "make it with Rubin's stack"
#: What is missing, and what to do, by name of the template and pipeline without bps_ and cp, in small letters.
MISSING: Final = {
    "illuminationcorrection": (
        "an illumination correction is fitted to star catalogues of many visits: detection and photometry of stars, "
        "reference catalogues and the global calibration (fgcm) are missing here",
        f"{_STACK}; what flats leave of the sky's pattern is in bps_sky",
    ),
    "electrostaticbfdistortionmatrix": (
        "an electroBfDistortionMatrix is an electrostatic model of pixel boundaries, fitted to the a matrix of a ptc: "
        "model and fit are missing here, and so is its correction of frames",
        f"{_STACK}; the brighter-fatter kernel of the same flats is in bps_bfk",
    ),
}


def problem(stem: str, where: str = "") -> Problem | None:
    """Say why a product cannot be made; `None` for any other.

    Parameters
    ----------
    stem : `str`
        Name of a template or pipeline, without its ending.
    """
    name = stem.removeprefix("bps_").removeprefix("cp").replace("_", "").lower()
    found = MISSING.get(name)
    return Problem(f"{stem}: {found[0]}", where, found[1]) if found else None
