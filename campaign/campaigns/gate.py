"""The text at a gate: numbers, pictures, and the commands that decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from campaign.campaigns.decide import decision
from campaign.campaigns.state import StepState
from campaign.frames.ingest import camera_of
from campaign.home import Home
from campaign.journal.events import EventName, Journals
from campaign.journal.plan import load
from campaign.quality import levels, summary
from campaign.wording import count


def _levels(rows: Sequence[levels.Row]) -> dict[int, float]:
    """Median level of each exposure's amplifiers, ADU."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(row.exposure, []).append(row.level)
    return {exposure: median(several) for exposure, several in found.items()}


def gate_text(state: StepState, home: Home) -> list[str]:
    """Write the lines that a person reads before accepting a step."""
    from campaign.runs.drive import judge

    folder = Path(state.folder)
    plan = load(folder / "plan.json")
    kinds, bad = Counter[str](), dict[str, int]()
    for event in Journals(folder / "journal").new():
        if event.event == EventName.PUBLISHED:
            label, _, name = event.task.partition(":")
            kinds[label] += 1
            if "bad_pixels" in event.detail:
                bad[name] = event.detail["bad_pixels"]
    made = ", ".join(f"{kinds[group.label]} {group.label}" for group in plan.groups if kinds[group.label])
    texts = [f"{state.name:14s} waits for a person to look: {made}"]
    if any(bad.values()):
        most = max(bad, key=bad.__getitem__)
        texts.append(
            f"    bad pixels  {sum(bad.values())} in {count(len(bad), 'detector')}, most in {most}: {bad[most]}"
        )
    if rows := levels.read(folder / "inputs"):
        exposures = _levels(rows)
        low, high = min(exposures.values()), max(exposures.values())
        noise = median(row.noise for row in rows)
        many = count(len(exposures), "exposure")
        texts.append(f"    inputs      {many}, levels {low:.5g} to {high:.5g} ADU, noise {noise:.3g} ADU")
    for found in judge(plan, camera_of(home, plan.instrument)) if plan.kind else ():
        texts.append(f"    look at     {found.subject}: {found.why} ({count(len(found.detectors), 'detector')})")
    numbers = summary.Summary.load(folder)
    texts += [f"    {line}" for line in numbers.lines] if numbers else []
    texts += [f"    picture     {path}" for path in sorted((folder / "pictures").glob("*.png"))]
    for word, what in (("then", "accept"), ("or", "reject")):
        texts.append(f"    {word:11s} {decision(what, state.name, state.run)}")
    return texts
