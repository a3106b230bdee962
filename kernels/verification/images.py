"""Metrics of a combined image: bias, dark or flat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.config import IsrConfig
from kernels.camera.geometry import Detector
from kernels.verification.applied import Applied, per_electron, shot, still
from kernels.verification.metric import Values, metric, wanted
from kernels.verification.rows import Rows, Sheet
from kernels.verification.stack import COLD, HOT

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

PRODUCT = "product"


@dataclass(frozen=True)
class Image:
    """A combined image."""

    kind: str
    detector: Detector
    #: [y, x], float32: In the product's unit, and its square; `None` without.
    image: F32
    variance: F32 | None
    #: [y, x], bool: Flagged BAD in it; and by the defects table, `None` without one.
    bad: Bool
    defects: Bool | None
    isr: IsrConfig
    made_of: Applied
    #: ``electron`` or ``adu``: unit of the frames that it corrects.
    unit: str = "electron"

    @property
    def there(self) -> set[str]:
        """Needs of metrics that it meets."""
        parts = {"variance": self.variance is not None, "defects": self.defects is not None}
        return {"product", *(name for name, has in parts.items() if has)}

    def each(self) -> list[tuple[F32, Bool]]:
        """Cut pixels and mask by amplifier, that of the defects included."""
        mask = self.bad if self.defects is None else self.bad | self.defects
        boxes = [a.target.slices for a in self.detector.amplifiers]
        return [(self.image[at], mask[at]) for at in boxes]


def _share(image: Image, which: Bool) -> F64:
    return np.array([float(np.mean(which[a.target.slices])) for a in image.detector.amplifiers])


@metric("FRAC", "", of=PRODUCT)
def frac(image: Image) -> Values:
    """Share of pixels that are masked."""
    return Values(_share(image, image.bad if image.defects is None else image.bad | image.defects))


@metric("COMPLETE", "pixel", of=PRODUCT)
def complete(image: Image) -> Values:
    """Number of pixels that are no number and not masked."""
    return Values(np.array([float(np.count_nonzero(~np.isfinite(p) & ~m)) for p, m in image.each()]))


@metric("HOT", "pixel", of=PRODUCT, kinds=("dark",), needs=("defects",))
def hot(image: Image) -> Values:
    """Number of pixels above 5 electron/second that are not masked."""
    limits = HOT * per_electron(image.detector, image.unit)
    found = [float(np.count_nonzero((p > h) & ~m)) for (p, m), h in zip(image.each(), limits, strict=True)]
    return Values(np.array(found))


@metric("COLD", "pixel", of=PRODUCT, kinds=("flat",), needs=("defects",))
def cold(image: Image) -> Values:
    """Number of pixels below 80 % of the amplifier's median that are not masked."""
    found = []
    for pixels, mask in image.each():
        good = pixels[~mask & np.isfinite(pixels)]
        found.append(float(np.count_nonzero(good < COLD * np.median(good))) if good.size else np.nan)
    return Values(np.array(found))


@metric("DARK_95", "electron/second", of=PRODUCT, kinds=("dark",))
def dark_95(image: Image) -> Values:
    """Rate that 95 % of the pixels do not exceed."""
    return Values(np.array([float(np.percentile(p[~m], 95)) if (~m).any() else np.nan for p, m in image.each()]))


@metric("ADDED_NOISE", "", of=PRODUCT, needs=("variance",))
def added_noise(image: Image) -> Values:
    """Noise of a frame that it corrects over the frame's own, less 1 (DMTN-101), by VARIANCE."""
    assert image.variance is not None
    scales = np.array(image.made_of.scales or (1.0,))
    typical = float(np.mean(scales))
    product = []
    for amplifier in image.detector.amplifiers:
        at = amplifier.target.slices
        good = ~image.bad[at] & np.isfinite(image.variance[at])
        product.append(float(np.mean(image.variance[at], where=good, dtype=np.float64)) if good.any() else np.nan)
    adds = np.array(product) * typical**2
    electron = per_electron(image.detector, image.unit)
    frame = still(image.detector, image.isr).total * electron**2
    if image.kind == "flat":
        frame = frame + shot(typical / electron) * electron**2
    return Values(np.sqrt(1 + adds / frame) - 1)


def pictured(image: Image, mjd: float = 0.0) -> Rows:
    """Measure a combined image; rows with exposure 0 and the role ``product``."""
    sheet = Sheet(image.detector.id, [a.name for a in image.detector.amplifiers], image.kind)
    for one in wanted(PRODUCT, image.kind, image.there):
        sheet.add(one, one.compute(image), mjd=mjd, role=PRODUCT)
    return sheet.rows()
