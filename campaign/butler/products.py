"""Calibrations and products: find, name, record, read, certify."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lsst.daf.butler import Butler, CollectionType, DatasetAssociation, DatasetRef, FileDataset, Timespan

from campaign.butler.base import DataId
from campaign.butler.collections import Collections
from campaign.butler.errors import answers
from campaign.butler.flavours import read
from campaign.butler.ingest import timespan
from campaign.butler.opening import file_uri
from campaign.butler.paths import predict, templates_of
from campaign.butler.records import Association, CalibrationRef, Dataset, ExposureRecord, to_iso
from campaign.butler.wait import writes
from campaign.errors import ConfigurationError, SubmissionRefused

Key = tuple[Any, ...]


def _bounds(span: Timespan | None) -> tuple[str | None, str | None]:
    """Write a validity range as ISO-8601 TAI; open ends and none at all are `None`."""
    if span is None:
        return None, None
    begin, end = (to_iso(nsec) for nsec in span.nsec)
    return begin if span.begin is not None else None, end if span.end is not None else None


def _index(links: Sequence[DatasetAssociation], order: Sequence[str]) -> dict[Key, list[DatasetAssociation]]:
    """Group datasets by data ID, each group in the order of the search."""
    rank = {name: n for n, name in enumerate(order)}
    index: dict[Key, list[DatasetAssociation]] = defaultdict(list)
    for link in sorted(links, key=lambda link: rank[link.collection]):
        index[link.ref.dataId.required_values].append(link)
    return index


def _first(links: Sequence[DatasetAssociation], span: Timespan, what: str) -> DatasetAssociation | None:
    """Take the first dataset that is valid at a time, as `Butler.find_dataset` does.

    Raises
    ------
    ConfigurationError
        One collection has two such datasets.
    """
    valid = [link for link in links if link.timespan is None or link.timespan.overlaps(span)]
    if len(valid) > 1 and valid[1].collection == valid[0].collection:
        runs = f"{valid[0].ref.run} and {valid[1].ref.run}"
        raise ConfigurationError(
            f"{what}: two calibrations of {valid[0].collection} are valid, from {runs}",
            do="recertify so that one validity range ends before the exposure or after it",
        )
    return valid[0] if valid else None


def _remove_unused(butler: Butler, target: str) -> None:
    """Remove a CALIBRATION collection, unless another process has certified into it meanwhile."""
    registry = butler.registry
    with butler.transaction():
        kinds = [kind for kind in registry.queryDatasetTypes() if kind.isCalibration()]
        if not any(link for kind in kinds for link in registry.queryDatasetAssociations(kind, [target])):
            registry.removeCollection(target)


class Products(Collections):
    """Part of a repository: calibrations and products."""

    def _links(self, type: str, flat: Sequence[str]) -> list[DatasetAssociation]:
        if not flat or not self._registered(type):
            return []
        return list(self._butler.registry.queryDatasetAssociations(type, collections=flat))

    @answers
    def associations(self, type: str, collections: Sequence[str]) -> tuple[Association, ...]:
        """List the datasets of a type in each collection, chains flattened, with their validity."""
        self.require_collections(collections)
        return tuple(
            Association(str(a.ref.id), a.ref.run, a.collection, dict(a.ref.dataId.required), *_bounds(a.timespan))
            for a in self._links(type, self.flatten(collections))
        )

    @answers
    def find_calibrations(
        self, type: str, collections: Sequence[str], exposures: Sequence[ExposureRecord], detectors: Sequence[int]
    ) -> dict[tuple[int, int], CalibrationRef]:
        """Find the calibration of each exposure and detector, valid at its time, in the first collection that has one.

        One query serves the whole search, however many pairs there are.

        Returns
        -------
        found : `dict`
            By (exposure, detector); pairs without a calibration are left out.

        Raises
        ------
        ConfigurationError
            An unknown collection, or two calibrations of one collection that
            are valid during one exposure.
        """
        self.require_collections(collections)
        if not self._registered(type):
            return {}
        flat = self.flatten(collections)
        index = _index(self._links(type, flat), flat)
        required = tuple(self._type(type).dimensions.required)
        found: dict[tuple[int, int], DatasetAssociation] = {}
        for exposure in exposures:
            span = timespan(exposure.begin, exposure.end)
            for detector in detectors:
                key = tuple(_value(dimension, exposure, detector) for dimension in required)
                link = _first(index.get(key, ()), span, f"{type} of exposure {exposure.id}, detector {detector}")
                if link is not None:
                    found[exposure.id, detector] = link
        paths = self._paths(list({link.ref for link in found.values()}))
        return {
            pair: CalibrationRef(str(a.ref.id), paths[a.ref], a.ref.run, a.collection, *_bounds(a.timespan))
            for pair, a in found.items()
        }

    @answers
    def predict_paths(self, run: str, items: Sequence[tuple[str, DataId]]) -> tuple[str, ...]:
        """Name the files of datasets that do not exist yet, as the datastore would, in the order given.

        Parameters
        ----------
        run : `str`
            The RUN that will hold them; it need not exist.
        items : `~collections.abc.Sequence` [`tuple`]
            (dataset type, data ID).
        """
        refs = self._refs(run, items, expand=True)
        return tuple(predict(self._butler, templates_of(self._config, self._butler), refs))

    @writes
    def ingest_products(self, run: str, items: Sequence[tuple[str, DataId, str]], known: Sequence[str] = ()) -> None:
        """Record products that lie under their final names in the datastore; a second call changes nothing.

        Parameters
        ----------
        run : `str`
            The RUN; registered if it is not.
        items : `~collections.abc.Sequence` [`tuple`]
            (dataset type, data ID, path).
        known : `~collections.abc.Sequence` [`str`], optional
            Ids of datasets that come from another repository, empty for the others.

        Raises
        ------
        ConfigurationError
            A file is not there or not in the datastore; nothing was recorded.
        """
        self._ensure_types(name for name, _, _ in items)
        self.claim_run(run)
        refs = self._refs(run, [(name, data_id) for name, data_id, _ in items], expand=False, known=known)
        files = [FileDataset(file_uri(path), [ref]) for ref, (_, _, path) in zip(refs, items, strict=True)]
        self._butler.ingest(*files, transfer=None, skip_existing=True)

    @answers
    def datasets(
        self, type: str, collections: Sequence[str], where: str = "", find_first: bool = True
    ) -> tuple[Dataset, ...]:
        """List datasets of a type, ordered by data ID: for each data ID the first found, or all."""
        self.require_collections(collections)
        if not self._registered(type):
            return ()
        with self._butler.query() as query:
            refs = list(query.datasets(type, collections, find_first=find_first).where(where))
        return self._datasets(sorted(refs))

    @answers
    def find_dataset(
        self, type: str, data_id: DataId, collections: Sequence[str], begin: str | None = None, end: str | None = None
    ) -> Dataset | None:
        """Find one dataset by find-first; a certified one by its validity in [begin, end), ISO-8601 TAI."""
        self.require_collections(collections)
        span = timespan(begin, end) if begin or end else None
        ref = self._butler.find_dataset(self._type(type), dict(data_id), collections=list(collections), timespan=span)
        return self._datasets([ref])[0] if ref is not None else None

    def _datasets(self, refs: Sequence[DatasetRef]) -> tuple[Dataset, ...]:
        paths = self._paths(refs)
        return tuple(
            Dataset(str(r.id), r.datasetType.name, r.run, dict(r.dataId.required), paths.get(r, ""), r) for r in refs
        )

    @answers
    def get(self, dataset: Dataset) -> Any:
        """Read a dataset's file by our formatter: a `campaign.formatter.CalibImage`, a `dict`, ...

        Raises
        ------
        ConfigurationError
            The dataset type, or its storage class, is none of ours.
        """
        return read(dataset.ref, self._butler.getURI(dataset.ref))

    def certify(self, target: str, datasets: Sequence[Dataset], begin: str | None, end: str | None) -> None:
        """Link datasets, valid in [begin, end), into a CALIBRATION collection; see `certify_all`."""
        self.certify_all([(target, datasets, begin, end)])

    @writes
    def certify_all(self, links: Sequence[tuple[str, Sequence[Dataset], str | None, str | None]]) -> None:
        """Link datasets into CALIBRATION collections, all or none; make the collections that are missing.

        Parameters
        ----------
        links : `~collections.abc.Sequence` [`tuple`]
            (collection, datasets, begin, end), each valid in [begin, end).

        Raises
        ------
        ConfigurationError
            A validity range overlaps an existing one; nothing was changed.
        """
        made = [target for target in dict.fromkeys(link[0] for link in links) if self.register_calibration(target)]
        try:
            with self._butler.transaction():
                for target, datasets, begin, end in links:
                    self._butler.registry.certify(target, [one.ref for one in datasets], timespan(begin, end))
        except Exception:
            for target in made:
                _remove_unused(self._butler, target)
            raise

    @answers
    def forget_products(self, run: str, items: Sequence[tuple[str, DataId]]) -> int:
        """Forget datasets of a RUN, with their files, before they are made again; missing ones do not matter.

        Returns
        -------
        forgotten : `int`

        Raises
        ------
        SubmissionRefused
            A dataset is certified, so that others may use it; nothing was changed.
        """
        wanted = {(type, _key(data_id)) for type, data_id in items}
        refs: list[DatasetRef] = []
        for type in sorted({type for type, _ in items}):
            for link in self._links(type, [run]):
                if (type, _key(dict(link.ref.dataId.required))) in wanted:
                    refs.append(link.ref)
        _require_uncertified(self._butler, refs, self.root)
        if refs:
            self._butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)
        self.empty_trash()  # datasets made again have the same ids and paths
        return len(refs)


def _require_uncertified(butler: Butler, refs: Sequence[DatasetRef], root: str) -> None:
    """Refuse datasets that stand in a CALIBRATION collection."""
    ids = {ref.id for ref in refs}
    for type in sorted({ref.datasetType.name for ref in refs}):
        for link in butler.registry.queryDatasetAssociations(type, collectionTypes={CollectionType.CALIBRATION}):
            if link.ref.id in ids:
                raise SubmissionRefused(
                    f"{type} {dict(link.ref.dataId.required)} of {link.ref.run} is certified in {link.collection}",
                    where=root,
                    do="it is in use: make a new one under a new RERUN",
                )


def _key(data_id: DataId) -> frozenset[tuple[str, Any]]:
    """Reduce a data ID to the values that differ within one instrument."""
    return frozenset((key, value) for key, value in data_id.items() if key != "instrument")


def _value(dimension: str, exposure: ExposureRecord, detector: int) -> Any:
    values: Mapping[str, Any] = {
        "instrument": exposure.instrument,
        "exposure": exposure.id,
        "detector": detector,
        "physical_filter": exposure.physical_filter,
        "day_obs": exposure.day_obs,
        "band": exposure.band,
    }
    return values[dimension]
