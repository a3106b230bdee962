"""Check a selection: right type, one filter, enough frames, nothing missing."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import replace

from campaign.butler.records import ExposureRecord, Raw, Selection
from campaign.camera.model import Camera
from campaign.errors import ConfigurationError, SubmissionRefused
from campaign.kinds.model import Frames, ProductKind
from campaign.pipeline.model import Pipeline
from campaign.wording import listed

#: Most raws of a step; more are a mistake, or work for several steps.
MOST = 1_000_000
MEND = "mend the selection, or leave frames out with --exclude ID"


def without(selection: Selection, excluded: Collection[int]) -> Selection:
    """Leave exposures out.

    Raises
    ------
    ConfigurationError
        An exposure is not in the selection.
    """
    strangers = sorted(set(excluded) - {e.id for e in selection.exposures})
    if strangers:
        there = sorted(e.id for e in selection.exposures)
        raise ConfigurationError(
            f"the selection has no exposure {listed(strangers)}",
            where="--exclude",
            do=f"its {len(there)} exposures are {there[0]} to {there[-1]}",
        )
    return Selection(
        tuple(e for e in selection.exposures if e.id not in excluded),
        tuple(r for r in selection.raws if r.exposure not in excluded),
    )


#: A condition that names detectors or a purpose; a condition that only excludes some does not match.
_NAMED = re.compile(r"(?<![\w.])detector(?:\.\w+)?\s*(?:=|in\b|[<>])", re.IGNORECASE)


def names_detectors(query: str) -> bool:
    """Tell whether an expression itself chooses detectors."""
    return _NAMED.search(re.sub(r"'[^']*'", "''", query)) is not None


def absent(selection: Selection, camera: Camera, query: str) -> list[str]:
    """List science detectors without any selected raw, where the expression excludes none."""
    if "detector" in query:
        return []
    return [camera.by_id[d].name for d in camera.detector_ids("SCIENCE") if d not in selection.detectors]


def for_purpose(selection: Selection, camera: Camera, query: str) -> Selection:
    """Keep the science detectors, unless the expression itself names others."""
    wanted = purposed({raw.detector for raw in selection.raws}, camera, query)
    return Selection(selection.exposures, tuple(r for r in selection.raws if r.detector in wanted))


def purposed(detectors: Set[int], camera: Camera, query: str) -> Set[int]:
    """Keep the science detectors among those found, unless the expression itself names others."""
    return detectors if names_detectors(query) else detectors & set(camera.detector_ids("SCIENCE"))


def _types(exposures: Sequence[ExposureRecord], name: str, wanted: Frames) -> str | None:
    wrong = [e for e in exposures if e.type not in (wanted.type, *wanted.also)]
    if not wrong or not wanted.type:
        return None
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(e.type for e in exposures).most_common())
    made = f"a {name} is made of {' or '.join((wanted.type, *wanted.also))} frames"
    return f"{made}, the selection has {kinds}: exposure {listed(e.id for e in wrong)}"


def allowed(kind: ProductKind, pipeline: Pipeline) -> ProductKind:
    """Give the kind, with frames of several filters where the pipeline allows them."""
    wanted = kind.made_of
    if not isinstance(wanted, Frames) or not wanted.filters_field:
        return kind
    if not any(task.config.get(wanted.filters_field) for task in pipeline.tasks.values()):
        return kind
    return replace(kind, made_of=replace(wanted, one_filter=False))


def _filters(exposures: Sequence[ExposureRecord], wanted: Frames) -> str | None:
    filters = Counter(e.physical_filter for e in exposures)
    if not wanted.one_filter or len(filters) == 1:
        return None
    odd = filters.most_common()[-1][0]
    counts = ", ".join(f"{n} in {name}" for name, n in filters.most_common())
    ids = listed(e.id for e in exposures if e.physical_filter == odd)
    return f"frames of several filters: {counts}; {odd} is exposure {ids}"


def _unreachable(raws: Sequence[Raw]) -> str | None:
    lost = [r for r in raws if r.bytes is None]
    return f"{len(lost)} of {len(raws)} raw files cannot be reached: {listed(r.path for r in lost)}" if lost else None


def unreadable(paths: Iterable[str]) -> list[str]:
    """List the files that this user may not read."""
    return [path for path in paths if not os.access(path, os.R_OK, effective_ids=True)]


def _denied(raws: Sequence[Raw]) -> str | None:
    shut = unreadable(r.path for r in raws if r.bytes is not None)
    who = f"{len(shut)} of {len(raws)} raw files may not be read (uid {os.geteuid()})"
    return f"{who}: {listed(shut)}" if shut else None


def problems(selection: Selection, kind: ProductKind, allow_missing: bool) -> list[str]:
    """Say why a selection cannot become a product; empty if it can.

    Parameters
    ----------
    selection : `Selection`
    kind : `ProductKind`
        The product; only one that is made of frames has problems.
    allow_missing : `bool`
        Combine a detector that lacks some exposures.
    """
    exposures, wanted = selection.exposures, kind.made_of
    if not isinstance(wanted, Frames):
        return []
    if len(selection.raws) > MOST:
        return [f"the selection has {len(selection.raws)} raws, a step can have {MOST}"]
    found = [_types(exposures, kind.name, wanted), _filters(exposures, wanted), _unreachable(selection.raws)]
    found.append(_denied(selection.raws))
    counts = Counter(r.detector for r in selection.raws)
    few = [d for d in selection.detectors if counts[d] < wanted.least]
    if few:
        have = listed(f"detector {d} has {counts[d]}" for d in few)
        found.append(f"a {kind.name} is made of {wanted.least} frames at least: {have}")
    if selection.missing and not allow_missing and not wanted.alone:
        found.append(f"{missing(selection)}; --allow-missing combines what there is")
    return [text for text in found if text]


def missing(selection: Selection) -> str:
    """Name the (exposure, detector) pairs without a raw; empty where there are none."""
    pairs = listed(f"({e}, {d})" for e, d in selection.missing)
    return f"no raw of (exposure, detector) {pairs}" if pairs else ""


def require(selection: Selection, kind: ProductKind, allow_missing: bool, where: str) -> None:
    """Refuse a selection with `problems`.

    Parameters
    ----------
    where : `str`
        Place of the selection, for the message; other parameters are those of `problems`.

    Raises
    ------
    SubmissionRefused
        It cannot become the product.
    """
    found = problems(selection, kind, allow_missing)
    if found:
        raise SubmissionRefused("; ".join(found), where=where, do=MEND)
