"""Taking runs that nobody needs out of a repository."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from lsst.daf.butler import CollectionType

from campaign.repository_collections import Collections
from campaign.repository_errors import answers
from campaign.repository_wait import writes


class Cleaning(Collections):
    """The part of a repository that forgets."""

    @answers
    def certified(self, runs: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        """By RUN, the CALIBRATION collections that hold something of it; those RUNs alone that have some."""
        found: dict[str, set[str]] = defaultdict(set)
        holders = [name for name, kind in self.collections().items() if kind == CollectionType.CALIBRATION.name]
        types = [kind for kind in self._butler.registry.queryDatasetTypes() if kind.isCalibration()]
        for kind in types if holders else ():
            for link in self._butler.registry.queryDatasetAssociations(kind, collections=holders):
                if link.ref.run in runs:
                    found[link.ref.run].add(link.collection)
        return {run: tuple(sorted(names)) for run, names in found.items()}

    @writes
    def remove_run(self, run: str) -> None:
        """Remove a RUN, its datasets and their files; where there is none, what was left of it is."""
        if self.collection_type(run) == CollectionType.RUN.name:
            self._butler.removeRuns([run], unlink_from_chains=True)
        self.empty_trash()

    @writes
    def remove_chain(self, chain: str) -> None:
        """Remove a chain; what it holds stays."""
        if self.collection_type(chain) == CollectionType.CHAINED.name:
            self._butler.collections.x_remove(chain)
