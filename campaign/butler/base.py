"""The base of every part of a repository: the Butler, dataset types, identities, paths."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from lsst.daf.butler import (
    Butler,
    ButlerConfig,
    DataCoordinate,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    DimensionGroup,
    MissingDatasetTypeError,
)
from lsst.daf.butler.dimensions import DimensionDataAttacher
from lsst.resources import ResourcePath

from campaign.butler.errors import answers, similar
from campaign.butler.flavours import flavour_of, require_known
from campaign.butler.records import RepositoryFlavour
from campaign.console import say
from campaign.errors import ConfigurationError
from campaign.journal.locks import alone
from campaign.kinds import table

#: Lock file in a repository's folder; its holder decides what to remove and what to certify.
LOCK = "campaign.lock"
DataId = Mapping[str, Any]
Values = tuple[int | str, ...]


def _parts(dimensions: DimensionGroup) -> list[DimensionGroup]:
    """Find the fewest groups that cover a group: each dimension's, unless another's contains it."""
    groups = [dimensions.universe[name].minimal_group for name in dimensions.required]
    parts = [group for group in groups if not any(group < other for other in groups)]
    return parts if {e for part in parts for e in part.elements} >= set(dimensions.elements) else [dimensions]


def path_of(uri: ResourcePath | None) -> str:
    """Give a local file's path, or the URI of one that is elsewhere."""
    if uri is None:
        return ""
    return uri.ospath if uri.isLocal else str(uri)


class Base:
    """An open Butler.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        The Butler.
    root : `str`
        Path (or URI) of the repository, for messages.
    database : `str` or `None`
        The SQLite file; `None` for a server.
    config : `lsst.daf.butler.ButlerConfig`
        The Butler's configuration.
    """

    def __init__(self, butler: Butler, root: str, database: str | None, config: ButlerConfig) -> None:
        self.root = root
        self._config = config
        self._butler = butler
        self._database = database
        self.waiting = False  # while somebody else holds the database; see `campaign.butler.wait`

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Hold the lock under which one process at a time, on any machine, decides what to remove and what to certify.

        Both the queries of a decision and its changes belong inside the context.
        Other processes wait; the lock ends with its holder.

        Raises
        ------
        ConfigurationError
            The repository's folder cannot be written, or its file system has no locks.
        """
        if not os.path.isdir(self.root):
            say(f"note: {self.root} is no folder of this machine: it cannot be locked against other processes")
            yield
            return
        with alone(Path(self.root) / LOCK, f"the repository {self.root}"):
            yield

    @contextmanager
    def at_one_time(self) -> Iterator[None]:
        """Read collections once, and know them from memory inside the context; nothing may be changed in it."""
        with self._butler.registry.caching_context():
            yield

    def close(self) -> None:
        """Close the database."""
        self._butler.close()

    def _registered(self, name: str) -> bool:
        try:
            self._butler.get_dataset_type(name)
        except MissingDatasetTypeError:
            return False
        return True

    def _type(self, name: str) -> DatasetType:
        """Take a dataset type as registered, else as our table defines it for the repository's flavour."""
        known = table.dataset_types()
        if self._registered(name):
            there = self._butler.get_dataset_type(name)
            if name in known:
                require_known(there, known[name], self.root)
            return there
        if name not in known:
            raise ConfigurationError(f"unknown dataset type {name!r}: {similar(name, known)}", where=self.root)
        kind, universe = known[name], self._butler.dimensions
        stored = kind.stored(self.flavour().name)
        return DatasetType(name, kind.dimensions, stored, universe=universe, isCalibration=kind.calibration)

    @answers
    def flavour(self) -> RepositoryFlavour:
        """Tell whose storage classes the dataset types have; a repository without any is plain."""
        registered = self._butler.registry.queryDatasetTypes()
        types = {type.name: type.storageClass_name for type in registered}
        name = flavour_of(types) or "plain"
        known = {one: kind.stored(name) for one, kind in table.dataset_types().items() if one not in table.RAW}
        unlike = {one: types[one] for one, stored in known.items() if types.get(one, stored) != stored}
        return RepositoryFlavour(name, unlike)

    def _ensure_types(self, names: Iterable[str]) -> None:
        for name in sorted(set(names)):
            self._butler.registry.registerDatasetType(self._type(name))

    def _refs(
        self, run: str, items: Sequence[tuple[str, DataId]], expand: bool, known: Sequence[str] = ()
    ) -> list[DatasetRef]:
        """Make refs whose ids follow from dataset type, data ID and RUN, so that a second call gives the same ids.

        With ``expand``, the data IDs get their records, which file templates need.  ``known`` has the ids of datasets
        that come from another repository, empty for the others.
        """
        types = {name: self._type(name) for name in {name for name, _ in items}}

        ids = [DataCoordinate.standardize(data_id, dimensions=types[name].dimensions) for name, data_id in items]
        if expand:
            ids = self._expanded(ids)
        mode = DatasetIdGenEnum.DATAID_TYPE_RUN
        own = [UUID(one) if one else None for one in known or [""] * len(items)]
        return [
            DatasetRef(types[name], data_id, run, id=one, id_generation_mode=mode, conform=False)
            for (name, _), data_id, one in zip(items, ids, own, strict=True)
        ]

    def _expanded(self, ids: Sequence[DataCoordinate]) -> list[DataCoordinate]:
        """Give data IDs their records; query those of each exposure, and of each detector, once."""
        places = defaultdict(list)
        for place, data_id in enumerate(ids):
            places[data_id.dimensions].append(place)
        expanded = list(ids)
        for dimensions, some in places.items():
            records = self._records_of(dimensions, [ids[place].required_values for place in some])
            for place, known in zip(some, records, strict=True):
                expanded[place] = ids[place].expanded(known)
        return expanded

    def _records_of(self, dimensions: DimensionGroup, values: Sequence[Values]) -> list[dict[str, Any]]:
        """The records of data IDs by their required values: the union of those of each of their dimensions."""
        required = list(dimensions.required)
        found: list[dict[str, Any]] = [{} for _ in values]
        for part in _parts(dimensions):
            indices = [required.index(name) for name in part.required]
            keys = [tuple(one[n] for n in indices) for one in values]
            ids = [DataCoordinate.from_required_values(part, key) for key in dict.fromkeys(keys)]
            with self._butler.query() as query:
                attached = DimensionDataAttacher(dimensions=part).attach(part, ids, query)
            known = {one.required_values: self._found(one, part) for one in attached}
            for records, key in zip(found, keys, strict=True):
                records |= known[key]
        return found

    def _found(self, data_id: DataCoordinate, part: DimensionGroup) -> dict[str, Any]:
        try:
            return {name: data_id.records[name] for name in part.elements}
        except KeyError:  # a query for one record names what is missing
            self._butler.registry.expandDataId(dict(data_id.required), dimensions=part)
            raise

    def _paths(self, refs: Sequence[DatasetRef]) -> dict[DatasetRef, str]:
        """Locate datasets in bulk; leave out those that the datastore does not have."""
        found = self._butler.get_many_uris(refs, allow_missing=True)
        return {ref: path_of(uris.primaryURI) for ref, uris in found.items()}
