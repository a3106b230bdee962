"""Find stale products: those that would be made from other calibrations today.

A product's provenance names its calibrations by dataset ID.  The search of the
same inputs for the same exposures and detectors is repeated: if find-first
gives another dataset, one in place of none, or none in place of one, the product
is stale.  Calibrations that an operator named do not count.  No chart of
dependencies is kept that could be out of date.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from campaign.errors import CampaignError
from campaign.journal.plan import load
from campaign.wording import listed

if TYPE_CHECKING:
    from campaign.butler.repository import Repository
    from campaign.home import Home
    from campaign.jobs.file import JobTask
    from campaign.journal.plan import Plan

#: Cards of a product's calibrations; of several of a kind all but the first are numbered, ``CALIB_FLAT_1_ID``.
_ID: Final = re.compile(r"CALIB_(.+)_ID")
_NONE: Final = re.compile(r"CALIB_(.+)")
#: By detector and kind: dataset IDs and RUNs.
Uses = dict[int, dict[str, set[tuple[str, str]]]]
#: In place of a calibration that is absent.
NONE: Final = ("", "")


@dataclass(frozen=True)
class Stale:
    """One reason why products are stale."""

    #: Dataset type of the products.
    product: str
    #: Their detectors.
    detectors: tuple[int, ...]
    #: Kind of the calibration that differs: ``ptc``, ``bias``.
    kind: str
    #: Its RUN then, and now; empty for none.
    had: str
    has: str

    @property
    def text(self) -> str:
        """One line for the operator."""
        which = f"detector{'s' * (len(self.detectors) > 1)} {listed(self.detectors)}"
        return f"{self.kind} was {self.had or 'none'}, is {self.has or 'none'} now ({which})"


def stale(plan: Plan, repository: Repository) -> list[Stale]:
    """Say why the products of a run are stale; empty if they are not.

    Raises
    ------
    CampaignError
        The repository cannot be asked.
    """
    had = _had(plan)
    there = [name for name in plan.inputs if repository.collection_type(name)]
    kinds = sorted({kind for found in had.values() for kind in found})
    has = (_found_certified if plan.kind else _found_made)(plan, repository, there, kinds)
    return list(_differences(plan.product, had, has))


def _products(plan: Plan) -> list[JobTask]:
    """Give the tasks that make the product."""
    return [t.job for t in plan.tasks if t.job.detector is not None and plan.product in t.job.outputs]


def _had(plan: Plan) -> Uses:
    """Give the calibrations of each product, without those that an operator named."""
    found: Uses = {}
    known = {str(row["type"]).upper() for row in plan.calibrations}
    for job in _products(plan):
        assert job.detector is not None
        kinds, cards = found.setdefault(job.detector, defaultdict(set)), job.provenance
        for key, value in cards.items():
            if match := _ID.fullmatch(key):
                kind = _kind(match[1], known)
                if f"CALIB_{kind}_NAMED" not in cards:
                    kinds[kind.lower()].add((str(value), str(cards.get(f"CALIB_{match[1]}_RUN", ""))))
            elif (match := _NONE.fullmatch(key)) and value == "none":
                kinds[match[1].lower()].add(NONE)
    return found


def _kind(name: str, known: Set[str]) -> str:
    """Give the kind in a card's name, without the number of one of several."""
    kind, _, number = name.rpartition("_")
    return kind if kind and number.isdigit() and name not in known else name


def _found_certified(plan: Plan, repository: Repository, there: Sequence[str], kinds: Sequence[str]) -> Uses:
    """Give what find-first finds today, for the exposures of each product."""
    types = {row["type"]: row.get("dataset_type", row["type"]) for row in plan.calibrations}
    known = {e.id: e for e in repository.select(there, plan.data_query).exposures}
    used = {job.detector: [e for e in job.parameters["exposures"] if e in known] for job in _products(plan)}
    exposures = [known[e] for e in sorted({e for some in used.values() for e in some})]
    detectors = [d for d in used if d is not None]
    found: Uses = {d: defaultdict(set) for d in detectors}
    for kind in kinds:
        refs = repository.find_calibrations(types.get(kind, kind), there, exposures, detectors)
        for d in detectors:
            pairs = ((e, d) for e in used[d])
            found[d][kind] = {(refs[p].dataset_id, refs[p].run) if p in refs else NONE for p in pairs}
    return found


def _found_made(plan: Plan, repository: Repository, there: Sequence[str], kinds: Sequence[str]) -> Uses:
    """Give what the inputs hold today, for products made of other calibrations."""
    names = {row["type"].lower(): row["type"] for row in plan.calibrations}
    found: Uses = defaultdict(lambda: defaultdict(set))
    for kind in kinds:
        for one in repository.datasets(names.get(kind, kind), there, plan.data_query):
            found[int(one.data_id["detector"])][kind].add((one.dataset_id, one.run))
    return found


def _differences(product: str, had: Uses, has: Uses) -> Iterator[Stale]:
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for detector, kinds in had.items():
        for kind, before in kinds.items():
            now = has.get(detector, {}).get(kind, {NONE})
            if now and now != before:
                groups[kind, _runs(before), _runs(now)].append(detector)
    for (kind, then, today), detectors in sorted(groups.items()):
        yield Stale(product, tuple(sorted(detectors)), kind, then, today)


def _runs(uses: Set[tuple[str, str]]) -> str:
    """Name RUNs for the operator; empty for none at all."""
    runs = sorted({run or "none" for _, run in uses})
    return "" if runs == ["none"] else " and ".join(runs)


def of_calibrations(
    calibrations: Sequence[Mapping[str, Any]], home: Home, repository: Repository
) -> dict[str, list[Stale]]:
    """Find stale calibrations among those that a step would apply, by RUN.

    Calibrations of unknown runs, or of runs without a plan, are left out.
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
