"""What every part of the repository builds on: the Butler, dataset types, identities, paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lsst.daf.butler import Butler, DataCoordinate, DatasetIdGenEnum, DatasetRef, DatasetType, MissingDatasetTypeError
from lsst.resources import ResourcePath

from campaign.errors import ConfigurationError
from campaign.repository_errors import similar
from campaign.repository_records import DATASET_TYPES

DataId = Mapping[str, Any]


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
        The SQLite file, if it is one.
    """

    def __init__(self, butler: Butler, root: str, database: str | None) -> None:
        self.root = root
        self._butler = butler
        self._database = database
        self.waiting = False  # somebody else's lock is being waited for, see `campaign.repository_wait`

    def close(self) -> None:
        """Let go of the database."""
        self._butler.close()

    def _registered(self, name: str) -> bool:
        try:
            self._butler.get_dataset_type(name)
        except MissingDatasetTypeError:
            return False
        return True

    def _type(self, name: str) -> DatasetType:
        """Take a dataset type as it is registered, else as our table has it."""
        if self._registered(name):
            return self._butler.get_dataset_type(name)
        if name not in DATASET_TYPES:
            raise ConfigurationError(f"unknown dataset type {name!r}: {similar(name, DATASET_TYPES)}", where=self.root)
        kind = DATASET_TYPES[name]
        universe = self._butler.dimensions
        return DatasetType(name, kind.dimensions, kind.storage_class, universe=universe, isCalibration=kind.calibration)

    def _ensure_types(self, names: Iterable[str]) -> None:
        for name in sorted(set(names)):
            self._butler.registry.registerDatasetType(self._type(name))

    def _refs(self, run: str, items: Sequence[tuple[str, DataId]], expand: bool) -> list[DatasetRef]:
        """Make refs whose ids follow from dataset type, data ID and RUN: making them again gives the same.

        With ``expand``, the data IDs get their records, which file templates need.
        """
        types = {name: self._type(name) for name in {name for name, _ in items}}

        def identify(kind: DatasetType, data_id: DataId) -> DataCoordinate:
            if expand:
                return self._butler.registry.expandDataId(data_id, dimensions=kind.dimensions)
            return DataCoordinate.standardize(data_id, dimensions=kind.dimensions)

        mode = DatasetIdGenEnum.DATAID_TYPE_RUN
        return [DatasetRef(types[n], identify(types[n], data_id), run, id_generation_mode=mode) for n, data_id in items]

    def _paths(self, refs: Sequence[DatasetRef]) -> dict[DatasetRef, str]:
        """Locate datasets in bulk; one that the datastore does not have is left out."""
        found = self._butler.get_many_uris(refs, allow_missing=True)
        return {ref: path_of(uris.primaryURI) for ref, uris in found.items()}
