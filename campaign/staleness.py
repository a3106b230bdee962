"""Stale products: those that would be made from something else today.

What a product was made from stands in its provenance, by dataset id.  The same
search, of the same inputs for the same exposures and detectors, is done again:
where find-first gives another dataset now, or one where there was none, or none
where there was one, the product is stale; but not for what an operator named.
No chart of what depends on what is
needed, and one that is out of date cannot mislead.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from campaign.errors import CampaignError
from campaign.inputs import listed
from campaign.plan import load

if TYPE_CHECKING:
    from campaign.home import Home
    from campaign.plan import Plan
    from campaign.repository import Repository
    from campaign.repository_records import Selection

_ID: Final = re.compile(r"CALIB_([A-Z]+)(?:_(\d+))?_ID")
_NONE: Final = re.compile(r"CALIB_([A-Z]+)")


@dataclass(frozen=True)
class Stale:
    """One reason why products are stale.

    Parameters
    ----------
    product : `str`
        Their dataset type.
    detectors : `tuple` [`int`]
        Which of them.
    kind : `str`
        What they would be made from otherwise: ``ptc``, ``bias``.
    had, has : `str`
        The RUN that it was of then, and is of now; empty for none.
    """

    product: str
    detectors: tuple[int, ...]
    kind: str
    had: str
    has: str

    @property
    def text(self) -> str:
        """For a person."""
        which = f"detector{'s' * (len(self.detectors) > 1)} {listed(self.detectors)}"
        return f"{self.kind} was {self.had or 'none'}, is {self.has or 'none'} now ({which})"


def stale(plan: Plan, repository: Repository) -> list[Stale]:
    """Say why what a run made is stale; nothing where it is not.

    Raises
    ------
    CampaignError
        The repository cannot be asked.
    """
    had = _had(plan)
    there = [name for name in plan.inputs if repository.collection_type(name)]
    kinds = {kind for found in had.values() for kind in found}
    types = {row["type"]: row.get("dataset_type", row["type"]) for row in plan.calibrations}
    has: dict[int, dict[str, tuple[str, str]]] = defaultdict(dict)
    selection = None
    for kind in sorted(kinds):
        if _is_combined(plan):
            selection = selection or repository.select(there, plan.data_query)
            _find_certified(repository, kind, types.get(kind, kind), there, (plan, selection), has)
        else:
            _find_made(repository, kind, there, plan, has)
    return list(_differences(plan.product, had, has))


def _is_combined(plan: Plan) -> bool:
    """Whether it was made of frames."""
    return bool(plan.kind)


def _had(plan: Plan) -> dict[int, dict[str, tuple[str, str]]]:
    """By detector and kind: dataset id and RUN of what a product was made from; both empty for none."""
    found: dict[int, dict[str, tuple[str, str]]] = {}
    for task in plan.tasks:
        if task.job.detector is None or plan.product not in task.job.outputs:
            continue
        kinds: dict[str, tuple[str, str]] = {}
        cards = task.job.provenance
        for key, value in cards.items():
            if (match := _ID.fullmatch(key)) and not match[2] and f"CALIB_{match[1]}_NAMED" not in cards:
                kinds[match[1].lower()] = (str(value), str(cards.get(f"CALIB_{match[1]}_RUN", "")))
            elif (match := _NONE.fullmatch(key)) and value == "none":
                kinds[match[1].lower()] = ("", "")
        found[task.job.detector] = kinds
    return found


def _find_certified(
    repository: Repository,
    kind: str,
    dataset_type: str,
    there: Sequence[str],
    what: tuple[Plan, Selection],
    has: dict[int, dict[str, tuple[str, str]]],
) -> None:
    plan, selection = what
    exposures = [e for e in selection.exposures if e.id not in plan.excluded]
    refs = repository.find_calibrations(dataset_type, there, exposures, selection.detectors)
    for (_, detector), ref in refs.items():
        has[detector][kind] = (ref.dataset_id, ref.run)


def _find_made(
    repository: Repository, kind: str, there: Sequence[str], plan: Plan, has: dict[int, dict[str, tuple[str, str]]]
) -> None:
    names = {row["type"].lower(): row["type"] for row in plan.calibrations}
    for one in repository.datasets(names.get(kind, kind), there, plan.data_query):
        has[int(one.data_id["detector"])].setdefault(kind, (one.dataset_id, one.run))


def _differences(
    product: str, had: Mapping[int, Mapping[str, tuple[str, str]]], has: Mapping[int, Mapping[str, tuple[str, str]]]
) -> Iterator[Stale]:
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for detector, kinds in had.items():
        for kind, (dataset_id, run) in kinds.items():
            now_id, now_run = has.get(detector, {}).get(kind, ("", ""))
            if now_id != dataset_id:
                groups[kind, run, now_run].append(detector)
    for (kind, before, now), detectors in sorted(groups.items()):
        yield Stale(product, tuple(sorted(detectors)), kind, before, now)


def of_calibrations(
    calibrations: Sequence[Mapping[str, Any]], home: Home, repository: Repository
) -> dict[str, list[Stale]]:
    """Of the calibrations that a step would apply, those that are stale themselves, by RUN.

    Those that no run of this home made, or whose plan is gone, are left out: nothing is known of them.
    """
    folders = {entry["output_run"]: Path(entry["submit_path"]) for entry in home.runs()}
    found: dict[str, list[Stale]] = {}
    for run in dict.fromkeys(str(row["run"]) for row in calibrations):
        if run not in folders:
            continue
        try:
            reasons = stale(load(folders[run] / "plan.json"), repository)
        except (CampaignError, OSError):
            continue
        if reasons:
            found[run] = reasons
    return found
