"""Combined dark, in rates."""

from __future__ import annotations

from typing import Final

from campaign.kinds.combining import kind
from campaign.kinds.draft import Planner
from campaign.kinds.model import Correction

#: Mean t^2 times mean 1 / t^2 from which the kernel weights darks (`kernels.products.reduce.WORTH`).
UNLIKE: Final = 1.02


def _notes(planner: Planner) -> list[str]:
    from statistics import fmean

    notes, config = [], planner.maker.config
    if "bias" not in planner.applied:
        notes.append("no bias is subtracted from these darks: what a bias holds is in the dark, divided by its time")
    if config["inputWeights"] == "AUTO" and config["combine"] != "MEDIAN":
        frames = map(planner.parameters, planner.detectors)
        known = dict(pair for p in frames for pair in zip(p["exposures"], p["dark_times"], strict=True))
        times = list(known.values())
        if min(times) > 0 and fmean(t**2 for t in times) * fmean(t**-2 for t in times) > UNLIKE:
            span = f"{min(times):g} to {max(times):g} s"
            notes.append(f"dark times are {span}: exposures are weighted by their noise")
    return notes


KIND = kind(
    "dark",
    ("instrument", "detector"),
    correction=Correction("doDark", "dark", needed=True),
    misses=("bias",),
    notes=_notes,
    unit="{unit} / s",
)
