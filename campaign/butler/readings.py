"""Readings of exposures, such as those of a photodiode that watches the lamp: ingest, find."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Mapping, Sequence

from lsst.daf.butler import FileDataset

from campaign.butler.errors import answers
from campaign.butler.instruments import Instruments
from campaign.butler.opening import file_uri
from campaign.butler.records import IngestReport, RefusedFrame
from campaign.butler.wait import writes


class Readings(Instruments):
    """Part of a repository: readings of exposures."""

    @writes
    def ingest_readings(self, type: str, instrument: str, readings: Mapping[str, str], transfer: str) -> IngestReport:
        """Add readings of exposures to ``<instrument>/raw/all``; files that are there already change nothing.

        Parameters
        ----------
        type : `str`
            Dataset type: ``photodiode``.
        readings : mapping
            ``obs_id`` of the exposure, by path.
        transfer : `str`
            As in `ingest_raws`.

        Raises
        ------
        ConfigurationError
            The instrument is not registered, or the place cannot be written.
        """
        self.require_instrument(instrument)
        run = f"{instrument}/raw/all"
        self._ensure_types([type])
        self.claim_run(run)
        exposures = self._by_obs_id(instrument, set(readings.values()))
        there = self.readings(type, [run], instrument, sorted(exposures.values()))
        new, existing, refused = dict[int, str](), list[str](), list[RefusedFrame]()
        for path, obs_id in readings.items():
            exposure = exposures.get(obs_id)
            before = None if exposure is None else there.get(exposure) or new.get(exposure)
            if exposure is None:
                why = f"{instrument} has no exposure {obs_id} here: ingest its raw frames first"
                refused.append(RefusedFrame(path, why))
            elif before in (None, path):
                existing += [path] if before else []
                new |= {} if before else {exposure: path}
            elif before and filecmp.cmp(before, path, shallow=False):
                existing.append(path)
            else:
                refused.append(RefusedFrame(path, f"exposure {exposure} has another {type} reading: {before}"))
        pairs = [(type, {"instrument": instrument, "exposure": exposure}) for exposure in new]
        refs = self._refs(run, pairs, expand=False)
        files = [FileDataset(file_uri(path), [ref]) for path, ref in zip(new.values(), refs, strict=True)]
        self._butler.ingest(*files, transfer=transfer, record_validation_info=False)
        return IngestReport(tuple(new.values()), tuple(existing), tuple(refused))

    def _by_obs_id(self, instrument: str, names: Iterable[str]) -> dict[str, int]:
        """Find exposures by their ``obs_id``."""
        with self._butler.query() as query:
            some = query.where(query.expression_factory.exposure.obs_id.in_iterable(sorted(names)))
            return {r.obs_id: r.id for r in some.where(instrument=instrument).dimension_records("exposure")}

    @answers
    def readings(
        self, type: str, collections: Sequence[str], instrument: str, exposures: Sequence[int]
    ) -> dict[int, str]:
        """Find the readings of some exposures: path by exposure, from the first collection that has one."""
        if not self._registered(type) or not exposures:
            return {}
        with self._butler.query() as query:
            found = query.datasets(type, collections)
            some = found.where(query.expression_factory.exposure.in_iterable(exposures), instrument=instrument)
            refs = list(some)
        return {int(ref.dataId["exposure"]): path for ref, path in self._paths(refs).items()}
