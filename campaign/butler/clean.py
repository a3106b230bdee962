"""Remove runs from a repository."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from lsst.daf.butler import CollectionType

from campaign.butler.collections import Collections
from campaign.butler.errors import answers
from campaign.butler.wait import writes
from campaign.formatter import sources


class Cleaning(Collections):
    """Part of a repository: removal."""

    @answers
    def certified(self) -> Mapping[str, tuple[str, ...]]:
        """List the CALIBRATION and TAGGED collections that hold datasets of a RUN, by RUN; only RUNs that have some."""
        found: dict[str, set[str]] = defaultdict(set)
        kinds = self.collections()
        types = list(self._butler.registry.queryDatasetTypes())
        for kind in (CollectionType.CALIBRATION, CollectionType.TAGGED):
            holders = [name for name, there in kinds.items() if there == kind.name]
            for type in types if holders else ():
                if type.isCalibration() or kind is CollectionType.TAGGED:
                    for run, holder in self._held(type.name, holders):
                        found[run].add(holder)
        return {run: tuple(sorted(names)) for run, names in found.items()}

    def _held(self, type: str, holders: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Give the RUN and the collection of every dataset of a type in some collections."""
        with self._butler.query() as query:
            joined = query.join_dataset_search(type, holders)
            fields = {type: {"run", "collection"}}
            for row in joined.general(self._butler.dimensions.empty, dataset_fields=fields, find_first=False):
                yield str(row[f"{type}.run"]), str(row[f"{type}.collection"])

    @answers
    def made_from(self, run: str) -> set[str]:
        """Find the RUNs of the calibrations that a RUN's calibrations were made from, in their headers.

        Files that are not FITS, or cannot be read, are left out.
        """
        found: set[str] = set()
        for type in self._butler.registry.queryDatasetTypes():
            if type.isCalibration() and self.collection_type(run) is not None:
                refs = [link.ref for link in self._butler.registry.queryDatasetAssociations(type, collections=[run])]
                for path in self._paths(refs).values():
                    found |= sources(path)
        return found

    @writes
    def remove_run(self, run: str) -> None:
        """Remove a RUN, its datasets and their files; if the RUN is gone already, its remaining files."""
        if self.collection_type(run) == CollectionType.RUN.name:
            self._butler.removeRuns([run], unlink_from_chains=True)
        self.empty_trash()

    @writes
    def remove_chain(self, chain: str) -> None:
        """Remove a chain; its children stay."""
        if self.collection_type(chain) == CollectionType.CHAINED.name:
            self._butler.collections.x_remove(chain)
