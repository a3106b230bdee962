"""Readings of an exposure that lie beside its frames: which files they are, and whose."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: Dataset type.
PHOTODIODE: Final = "photodiode"
#: Name of a photodiode's reading, as Rubin's and the simulator's are: the exposure's ``obs_id`` and this.
_NAME: Final = re.compile(r"(?:Photodiode_Readings_)?(?P<obs_id>.+)_photodiode\.ecsv")


def separated(paths: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Separate frames from readings.

    Returns
    -------
    frames : `list` [`str`]
    readings : `dict` [`str`, `str`]
        ``obs_id`` of the exposure, by path.
    """
    frames, readings = [], {}
    for path in paths:
        if match := _NAME.fullmatch(Path(path).name):
            readings[path] = match["obs_id"]
        else:
            frames.append(path)
    return frames, readings
