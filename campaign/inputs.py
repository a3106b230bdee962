"""What a selection must be to become a product: right type, one filter, enough frames, nothing missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from campaign.camera import Camera
from campaign.errors import ConfigurationError, SubmissionRefused
from campaign.repository_records import ExposureRecord, Raw, Selection

MINIMUM = 3
SHOWN = 8


def listed(items: Iterable[object]) -> str:
    """A few of many, for a message."""
    words = [str(item) for item in items]
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def without(selection: Selection, excluded: Collection[int]) -> Selection:
    """Leave exposures out.

    Raises
    ------
    ConfigurationError
        One of them was not selected anyhow.
    """
    strangers = sorted(set(excluded) - {e.id for e in selection.exposures})
    if strangers:
        raise ConfigurationError(f"--exclude {strangers[0]}: the selection has no such exposure")
    return Selection(
        tuple(e for e in selection.exposures if e.id not in excluded),
        tuple(r for r in selection.raws if r.exposure not in excluded),
    )


def for_purpose(selection: Selection, camera: Camera, query: str) -> Selection:
    """Keep the science detectors, unless the expression itself says which detectors."""
    if "detector" in query.replace("detector_max", ""):
        return selection
    science = set(camera.detector_ids("SCIENCE"))
    return Selection(selection.exposures, tuple(r for r in selection.raws if r.detector in science))


def _types(exposures: Sequence[ExposureRecord], product: str) -> str | None:
    wrong = [e for e in exposures if e.type != product]
    if not wrong:
        return None
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(e.type for e in exposures).most_common())
    return f"a {product} is made of {product} frames, the selection has {kinds}: exposure {listed(e.id for e in wrong)}"


def _filters(exposures: Sequence[ExposureRecord], product: str) -> str | None:
    filters = Counter(e.physical_filter for e in exposures)
    if product != "flat" or len(filters) == 1:
        return None
    odd = filters.most_common()[-1][0]
    counts = ", ".join(f"{n} in {name}" for name, n in filters.most_common())
    ids = listed(e.id for e in exposures if e.physical_filter == odd)
    return f"frames of several filters: {counts}; {odd} is exposure {ids}"


def _unreachable(raws: Sequence[Raw]) -> str | None:
    lost = [r for r in raws if r.bytes is None]
    return f"{len(lost)} raw files cannot be reached, the first is {lost[0].path}" if lost else None


def problems(selection: Selection, product: str, allow_missing: bool) -> list[str]:
    """Why this selection cannot become the product; empty if it can.

    Parameters
    ----------
    selection : `Selection`
    product : `str`
        ``bias``, ``dark`` or ``flat``.
    allow_missing : `bool`
        Combine what there is of a detector that lacks some exposures.
    """
    exposures = selection.exposures
    if not exposures or not selection.raws:
        return ["the selection finds no raw frame"]
    found = [_types(exposures, product), _filters(exposures, product), _unreachable(selection.raws)]
    counts = Counter(r.detector for r in selection.raws)
    few = [d for d in selection.detectors if counts[d] < MINIMUM]
    if few:
        found.append(
            f"a clipped mean needs {MINIMUM} inputs at least, detector {listed(few)} has {min(counts[d] for d in few)}"
        )
    if selection.missing and not allow_missing:
        pairs = listed(f"({e}, {d})" for e, d in selection.missing)
        found.append(
            f"{len(selection.missing)} (exposure, detector) pairs have no raw: {pairs}; --allow-missing, or --exclude"
        )
    return [text for text in found if text]


def require(selection: Selection, product: str, allow_missing: bool, query: str) -> None:
    """Refuse a selection with `problems`.

    Raises
    ------
    ConfigurationError
        It finds nothing.
    SubmissionRefused
        What it finds cannot be combined.
    """
    if not selection.raws:
        raise ConfigurationError(
            "the selection finds no raw frame", where=query, do="campaign ingest --summary shows what there is"
        )
    found = problems(selection, product, allow_missing)
    if found:
        raise SubmissionRefused(
            "; ".join(found), where=query, do="mend the selection, or leave frames out with --exclude ID"
        )
