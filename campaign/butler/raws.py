"""Instruments, exposures and raw frames: registering, ingesting, selecting."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lsst.daf.butler import DatasetRef, DimensionRecord, FileDataset, InvalidQueryError
from lsst.daf.butler.queries import Query

from campaign.butler.collections import Collections
from campaign.butler.errors import ConflictingDefinitionError, answers, similar
from campaign.butler.ingest import Sorting, insert_exposures
from campaign.butler.opening import analyse, file_uri
from campaign.butler.records import ExposureRecord, IngestReport, Raw, Selection, to_iso
from campaign.butler.wait import writes
from campaign.camera.observation import Observation
from campaign.errors import ConfigurationError
from campaign.killpoints import reach

Detector = tuple[int, str, str, str, str]
DETECTOR_FIELDS = ("id", "full_name", "raft", "name_in_raft", "purpose")
BULK = 1000
#: Files that others ingest at the same time are looked for as often.
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


class Raws(Collections):
    """The part of a repository that knows instruments and their raw frames."""

    @answers
    def known_instruments(self) -> tuple[str, ...]:
        """List the registered instruments."""
        return tuple(sorted(record.name for record in self._records("instrument")))

    def require_instrument(self, name: str) -> None:
        """Refuse an instrument that is not registered.

        Raises
        ------
        ConfigurationError
            It is not, with those that are.
        """
        known = self.known_instruments()
        if name not in known:
            raise ConfigurationError(f"unknown instrument {name!r}: {similar(name, known)}", where=self.root)

    def _records(self, element: str, **data_id: Any) -> Sequence[DimensionRecord]:
        return self._butler.query_dimension_records(element, explain=False, limit=None, **data_id)

    @writes
    def register_instrument(
        self, name: str, class_name: str, detectors: Sequence[Detector], filters: Sequence[tuple[str, str]]
    ) -> None:
        """Register an instrument, its raw RUN and its chains, or what is missing of them.

        Parameters
        ----------
        name, class_name : `str`
            As the Butler's instrument record has them.
        detectors : `~collections.abc.Sequence` [`tuple`]
            (id, full name, raft, slot, purpose).
        filters : `~collections.abc.Sequence` [`tuple`]
            (physical filter, band).

        Raises
        ------
        ConfigurationError
            The repository has a detector or filter of another meaning.
        """
        known = name in self.known_instruments()
        if known:
            self._require_same(name, "detector", "id", "full_name", {d[0]: d[1] for d in detectors})
            self._require_same(name, "physical_filter", "name", "band", dict(filters))
        insert = self._butler.registry.insertDimensionData
        limits = {"detector_max": max(d[0] for d in detectors) + 1, "visit_max": 2**52, "exposure_max": 2**52}
        with self._butler.transaction():
            if not known:
                insert("instrument", {"name": name, "class_name": class_name, "visit_system": 0, **limits})
            # A camera without rafts has no raft's name; the Butler takes none, and refuses an empty one.
            fields = (zip(DETECTOR_FIELDS, d, strict=True) for d in detectors)
            rows = [{"instrument": name} | {key: v for key, v in some if v != ""} for some in fields]
            insert("detector", *rows, skip_existing=True)
            bands = [{"instrument": name, "name": f, "band": band} for f, band in filters]
            insert("physical_filter", *bands, skip_existing=True)
        reach("instrument-recorded")
        self.claim_run(f"{name}/raw/all")
        self.ensure_chain(f"{name}/calib")
        self.ensure_chain(f"{name}/defaults", [f"{name}/raw/all", f"{name}/calib"])

    def _require_same(self, instrument: str, element: str, key: str, field: str, wanted: Mapping[Any, str]) -> None:
        for record in self._records(element, instrument=instrument):
            name, there = getattr(record, key), getattr(record, field)
            if wanted.get(name, there) != there:
                raise ConfigurationError(
                    f"{element.replace('_', ' ')} {name} of {instrument} has {field.replace('_', ' ')} {there!r} in "
                    f"the repository and {wanted[name]!r} in the camera",
                    where=self.root,
                    do="use the camera that the repository was made with",
                )

    @writes
    def ingest_raws(self, observations: Sequence[Observation], transfer: str) -> IngestReport:
        """Add exposures and raws to ``<instrument>/raw/all``, all in one transaction.

        The same files again change nothing. A file that does not fit is
        refused, and the others go in.

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
        except ConflictingDefinitionError:  # somebody has put some of them in since it was looked
            self._butler.registry.refresh()
            return self._ingest_raws(observations, transfer)

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
            except ConflictingDefinitionError:  # another has ingested some of them meanwhile
                if turn + 1 == TURNS:
                    raise
        new = tuple(observation.path for sorting in sortings.values() for observation in sorting.new.values())
        existing = tuple(path for sorting in sortings.values() for path in sorting.existing)
        refused = tuple(refusal for sorting in sortings.values() for refusal in sorting.refused)
        return IngestReport(new, existing, refused)

    def _insert(self, sortings: Mapping[str, Sorting], transfer: str) -> None:
        """Add what is new of each instrument, all of it or nothing."""
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
        """Read the exposure records that the repository has of some exposures."""
        with self._butler.query() as query:
            some = query.where(query.expression_factory.exposure.in_iterable(ids), instrument=instrument)
            return {record.id: record.toDict() for record in some.dimension_records("exposure")}

    def _limits(self) -> dict[str, int]:
        """Give the longest text that each field of an exposure record holds, in characters."""
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
            Searched in order; the first that has a raw gives it.
        where : `str`
            The expression; it must name the instrument.
        dataset : `str`
            The dataset type.

        Raises
        ------
        ConfigurationError
            An unknown collection, an expression that the Butler cannot read
            or that names what it does not know.
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
        """Count the raws that `select` would find, by detector, without looking where they are.

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
        """What an expression finds of a dataset type."""
        try:
            with self._butler.query() as query:
                yield query.join_dataset_search(dataset, collections).where(where)
        except (InvalidQueryError, AssertionError) as error:  # its parser asserts that a text alone is a condition
            raise ConfigurationError(f"the selection cannot be used: {error}", where=where) from error
