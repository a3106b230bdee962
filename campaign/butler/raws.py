"""Raw frames and their exposures: ingest, select, count."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lsst.daf.butler import DatasetRef, DatasetType, DimensionRecord, FileDataset, InvalidQueryError
from lsst.daf.butler.queries import Query

from campaign.butler.errors import ConflictingDefinitionError, answers
from campaign.butler.ingest import Sorting, insert_exposures
from campaign.butler.instruments import Instruments
from campaign.butler.opening import analyse, file_uri
from campaign.butler.records import ExposureRecord, IngestReport, Raw, Selection, to_iso
from campaign.butler.wait import writes
from campaign.camera.observation import Observation
from campaign.errors import ConfigurationError
from campaign.killpoints import reach
from campaign.kinds import table
from campaign.kinds.model import Flavour

BULK = 1000
#: Tries of an ingest, where others ingest some of the files at the same time.
TURNS = 5


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _exposure(record: DimensionRecord, band: str) -> ExposureRecord:
    begin, end = record.timespan.nsec
    return ExposureRecord(
        instrument=record.instrument,
        id=record.id,
        obs_id=record.obs_id,
        type=record.observation_type,
        reason=record.observation_reason,
        program=record.science_program,
        day_obs=record.day_obs,
        seq_num=record.seq_num,
        physical_filter=record.physical_filter,
        band=band,
        exposure_time=record.exposure_time,
        dark_time=record.dark_time,
        begin=to_iso(begin),
        end=to_iso(end),
    )


def _raw(ref: DatasetRef, path: str) -> Raw:
    return Raw(int(ref.dataId["exposure"]), int(ref.dataId["detector"]), path, str(ref.id), _size(path))


class Raws(Instruments):
    """Part of a repository: raw frames and their exposures."""

    @writes
    def ingest_raws(self, observations: Sequence[Observation], transfer: str) -> IngestReport:
        """Add exposures and raws to ``<instrument>/raw/all``, all in one transaction.

        Files that are there already change nothing. A file that does not fit
        is refused, and the others are ingested.

        Parameters
        ----------
        observations : `~collections.abc.Sequence` [`Observation`]
            Translated headers, of any number of registered instruments.
        transfer : `str`
            ``direct`` (the file stays where it is) or ``copy``.

        Raises
        ------
        ConfigurationError
            An instrument is not registered, or the place cannot be written.
        """
        try:
            return self._ingest_raws(observations, transfer)
        except ConflictingDefinitionError:  # another process has ingested some of them since the look
            self._butler.registry.refresh()
            return self._ingest_raws(observations, transfer)

    @writes
    def settle_flavour(self, flavour: Flavour) -> None:
        """Give a repository without dataset types its flavour, by the dataset type of the raws; may be repeated.

        Raises
        ------
        ConfigurationError
            The repository has another flavour.
        """
        if not self._butler.registry.queryDatasetTypes():
            kind = table.RAW["raw"]
            stored, universe = kind.stored(flavour), self._butler.dimensions
            self._butler.registry.registerDatasetType(DatasetType("raw", kind.dimensions, stored, universe=universe))
        there = self.flavour().name
        if there != flavour:
            raise ConfigurationError(
                f"the repository's dataset types are {there}, not {flavour}: they stay what they were first",
                where=self.root,
                do=f"leave --flavour {flavour} out, or make another repository",
            )

    def _ingest_raws(self, observations: Sequence[Observation], transfer: str) -> IngestReport:
        by_instrument: dict[str, list[Observation]] = {}
        for observation in observations:
            by_instrument.setdefault(observation.instrument, []).append(observation)
        self._ensure_types(["raw"])
        for turn in range(TURNS):
            sortings = {instrument: self._sort(instrument, some) for instrument, some in by_instrument.items()}
            try:
                self._insert(sortings, transfer)
                break
            except ConflictingDefinitionError:  # another process has ingested some of them meanwhile
                if turn + 1 == TURNS:
                    raise
        new = tuple(observation.path for sorting in sortings.values() for observation in sorting.new.values())
        existing = tuple(path for sorting in sortings.values() for path in sorting.existing)
        refused = tuple(refusal for sorting in sortings.values() for refusal in sorting.refused)
        return IngestReport(new, existing, refused)

    def _insert(self, sortings: Mapping[str, Sorting], transfer: str) -> None:
        """Add the new frames of all instruments, or none."""
        files = [file for instrument, sorting in sortings.items() for file in self._files(instrument, sorting)]
        reach("raws-sorted")
        with self._butler.transaction():
            insert_exposures(self._butler, [row for sorting in sortings.values() for row in sorting.rows.values()])
            self._butler.ingest(*files, transfer=transfer, record_validation_info=False)
        if self._database and len(files) >= BULK:
            analyse(self._database)

    def _sort(self, instrument: str, observations: Sequence[Observation]) -> Sorting:
        self.require_instrument(instrument)
        self.claim_run(f"{instrument}/raw/all")
        ids = sorted({o.exposure for o in observations})
        with self._butler.query() as query:
            found = query.datasets("raw", collections=f"{instrument}/raw/all")
            refs = list(found.where(query.expression_factory.exposure.in_iterable(ids), instrument=instrument))
        there = {(int(r.dataId["exposure"]), int(r.dataId["detector"])): path for r, path in self._paths(refs).items()}
        known = {name: list(self._records(name, instrument=instrument)) for name in ("detector", "physical_filter")}
        detectors = {record.id for record in known["detector"]}
        filters = {record.name for record in known["physical_filter"]}
        return Sorting(observations, detectors, filters, self._exposures(instrument, ids), there, self._limits())

    def _exposures(self, instrument: str, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Read the repository's records of some exposures."""
        with self._butler.query() as query:
            some = query.where(query.expression_factory.exposure.in_iterable(ids), instrument=instrument)
            return {record.id: record.toDict() for record in some.dimension_records("exposure")}

    def _limits(self) -> dict[str, int]:
        """Give the most characters that each field of an exposure record holds."""
        fields = self._butler.dimensions["exposure"].schema.all
        return {field.name: field.length for field in fields if field.type == "string"}

    def _files(self, instrument: str, sorting: Sorting) -> list[FileDataset]:
        pairs = ({"instrument": instrument, "exposure": e, "detector": d} for e, d in sorting.new)
        refs = self._refs(f"{instrument}/raw/all", [("raw", pair) for pair in pairs], expand=False)
        paths = (observation.path for observation in sorting.new.values())
        return [FileDataset(file_uri(path), [ref]) for path, ref in zip(paths, refs, strict=True)]

    @answers
    def select(self, collections: Sequence[str], where: str, dataset: str = "raw") -> Selection:
        """Find raws and their exposures by a Butler expression: one query, locations in bulk.

        Parameters
        ----------
        collections : `~collections.abc.Sequence` [`str`]
            Searched in order; a raw comes from the first that has it.
        where : `str`
            The expression; it must name the instrument.
        dataset : `str`
            The dataset type.

        Raises
        ------
        ConfigurationError
            A collection is unknown; the expression cannot be read, or names
            an unknown field.
        """
        self.require_collections(collections)
        if not self._registered(dataset):
            raise ConfigurationError(f"no dataset type {dataset!r} here: nothing was ingested yet", where=self.root)
        with self._selected(collections, where, dataset) as query:
            refs = list(query.datasets(dataset, collections))
            records = list(query.dimension_records("exposure"))
        filters = [f for i in {r.instrument for r in records} for f in self._records("physical_filter", instrument=i)]
        bands = {(f.instrument, f.name): f.band for f in filters}
        exposures = [_exposure(r, bands[r.instrument, r.physical_filter]) for r in records]
        raws = [_raw(ref, path) for ref, path in self._paths(refs).items()]
        return Selection(
            tuple(sorted(exposures, key=lambda e: e.id)), tuple(sorted(raws, key=lambda r: (r.exposure, r.detector)))
        )

    @answers
    def count_raws(self, collections: Sequence[str], where: str) -> dict[int, int]:
        """Count the raws that `select` would find, by detector, without their locations.

        Raises
        ------
        ConfigurationError
            See `select`.
        """
        self.require_collections(collections)
        with self._selected(collections, where, "raw") as query:
            return dict(Counter(int(one["detector"]) for one in query.data_ids(["exposure", "detector"])))

    @contextmanager
    def _selected(self, collections: Sequence[str], where: str, dataset: str) -> Iterator[Query]:
        """Query the datasets of a type that an expression finds."""
        try:
            with self._butler.query() as query:
                yield query.join_dataset_search(dataset, collections).where(where)
        except (InvalidQueryError, AssertionError) as error:  # the parser asserts that a lone text is a condition
            raise ConfigurationError(f"the selection cannot be used: {error}", where=where) from error
