"""Decides whether a dead job is tried again, and with which resources; each cause has its own budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from campaign.jobs.death import Cause
from campaign.schedulers.protocol import MEMORY_MIB, MINUTES

#: Other causes are never retried: the same would happen again (data, configuration, code, disk, killed), or the end
#: was asked for (cancelled).
RETRIED = frozenset({Cause.MEMORY, Cause.WALLTIME, Cause.INFRASTRUCTURE, Cause.FAILED})
#: Tries after failures of scheduler, node or network, which are not charged to the tasks.
INFRASTRUCTURE = 5
#: Tries with doubled walltime.
WALLTIME = 3
#: Pause before each try after a failure of the infrastructure, second; the last counts for all that follow.
PAUSES_S = (0.0, 1.0, 5.0, 20.0, 60.0)
#: Defaults of a template: number of tries, factor on the memory, and its limit, MiB.
RETRIES, MULTIPLIER, LIMIT_MIB = 5, 2.0, 491520


def in_turn(jobs: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Give the resources of a job that does the work of several, one after another."""
    found = {key: [one[key] for one in jobs if key in one] for job in jobs for key in job}
    return {key: sum(values) if key == "minutes" else max(values) for key, values in found.items()}


@dataclass
class Budget:
    """Tries that a group has left."""

    #: Of its next job: ``memory_mib``, ``cores``, ``minutes``.
    resources: Mapping[str, int]
    #: Keys of templates: ``numberOfRetries``, ``memoryMultiplier``, ``memoryLimit`` (MiB), ``retryUnlessExit`` (list).
    policy: Mapping[str, Any]

    _used: Counter[str] = field(default_factory=Counter)

    def again(self, cause: str, code: int | None = None) -> bool:
        """Decide whether another try is worth it; `resources` are then those of that try.

        ``cause`` is one of `campaign.jobs.death.Cause`.
        """
        if cause not in RETRIED:
            return False
        self._used[cause] += 1
        if cause == Cause.MEMORY:
            return self._more_memory()
        if cause == Cause.WALLTIME:
            return self._more_time()
        if cause == Cause.INFRASTRUCTURE:
            return self._used[cause] <= INFRASTRUCTURE
        unless = self.policy.get("retryUnlessExit") or []
        return code not in unless and self._used[cause] <= int(self.policy.get("numberOfRetries", RETRIES))

    @property
    def pause_s(self) -> float:
        """Pause before the next try, second: a node that reboots takes its time."""
        lost = self._used[Cause.INFRASTRUCTURE]
        return PAUSES_S[min(lost - 1, len(PAUSES_S) - 1)] if lost else 0.0

    def _more_memory(self) -> bool:
        had = self.resources.get("memory_mib", MEMORY_MIB)
        limit = int(self.policy.get("memoryLimit", LIMIT_MIB))
        wanted = min(limit, int(had * float(self.policy.get("memoryMultiplier", MULTIPLIER))))
        self.resources = {**self.resources, "memory_mib": max(had, wanted)}
        return wanted > had

    def _more_time(self) -> bool:
        self.resources = {**self.resources, "minutes": 2 * self.resources.get("minutes", MINUTES)}
        return self._used[Cause.WALLTIME] <= WALLTIME
