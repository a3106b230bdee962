"""Calibrations of a task's frames, opened and checked once for each detector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import bfk, cti, gaincorrection, ptc
from kernels.calibrations.config import IsrConfig
from kernels.calibrations.crosstalk import Crosstalk
from kernels.calibrations.defects import Defects
from kernels.calibrations.deferred import Deferral
from kernels.calibrations.linearity import Grid, Linearizer
from kernels.camera.geometry import Box, Camera, Detector
from kernels.fits.product import BAD, ROWS, Card, Product
from kernels.fits.rowbytes import verify
from kernels.fits.tables import check_identity


def _product(kind: str, path: str, camera: Camera, detector: Detector) -> Product:
    """Open a combined calibration; require that it is the detector's, and in the unit of the frames."""
    opened = Product.open(path, camera.unit)
    check_identity(path, opened.header, kind, camera, detector, camera.unit)
    return opened


@dataclass(frozen=True)
class Calibrations:
    """Calibrations of a detector's frames; `None` where the job does not ask for one."""

    #: With the gains and read noises of the ptc, else of the camera file; gains corrected by a gain_correction.
    detector: Detector
    #: In the unit of the frames; the dark per second.
    bias: Product | None = None
    dark: Product | None = None
    #: Between all amplifiers of the detector.
    crosstalk: Crosstalk | None = None
    #: By amplifier.
    linearity: Grid | None = None
    #: By amplifier.
    deferrals: Sequence[Deferral] | None = None
    #: Boxes on the assembled detector.
    defects: Defects | None = None
    #: Parts of the files that are not applied.
    notes: tuple[str, ...] = ()
    #: Amplifiers without a photon transfer curve, on the assembled detector.
    unusable: Sequence[Box] = ()
    #: Brighter-fatter kernels.
    kernels: bfk.Kernels | None = None
    #: Relative; the flat is of the frames' filter.
    flat: Product | None = None
    fringe: Product | None = None
    #: [amplifier]: Signals from which on pixels are suspect, ADU; NaN where unknown; `None`: none is.
    suspects: NDArray[np.float64] | None = None

    @classmethod
    def open(cls, camera: Camera, detector: Detector, isr: IsrConfig, path_of: Callable[[str], str]) -> Calibrations:
        """Open the calibrations that ``isr`` asks for.

        Parameters
        ----------
        path_of : callable
            Returns the path of the calibration of a role (``bias``, ``ptc``, ...).

        Raises
        ------
        DataError
            A calibration cannot be read, is another detector's, or is in another unit than the frames.
        """
        bad = ptc.bad(path_of("ptc"), camera, detector) if isr.ptc else []
        unusable = [a.target for a in detector.amplifiers if a.name in bad]
        lost = [f"{name} has no photon transfer curve: BAD" for name in bad]
        lost += ["no SUSPECT pixels: without a ptc no turnoff is known"] if isr.suspect and not isr.ptc else []
        suspects = ptc.turnoffs(path_of("ptc"), camera, detector) if isr.suspect and isr.ptc else None
        if suspects is not None:
            pairs = zip(detector.amplifiers, suspects, strict=True)
            unknown = [a.name for a, limit in pairs if np.isnan(limit) and a.name not in bad]
            lost += [f"no SUSPECT pixels of {name}: the ptc has no turnoff" for name in unknown]
        detector = ptc.apply(path_of("ptc"), camera, detector) if isr.ptc else detector
        if isr.gain_correction:
            detector = gaincorrection.apply(path_of("gain_correction"), camera, detector)
        crosstalk = Crosstalk.open(path_of("crosstalk"), camera, detector, isr.quadratic) if isr.crosstalk else None
        deferrals, notes = cti.read(path_of("cti"), camera, detector) if isr.deferred else (None, ())
        linear = Linearizer.open(path_of("linearizer"), camera, detector) if isr.linearity else None
        return cls(
            detector,
            _product("bias", path_of("bias"), camera, detector) if isr.bias else None,
            _product("dark", path_of("dark"), camera, detector) if isr.dark else None,
            crosstalk,
            linear.tables() if linear else None,
            deferrals,
            Defects.open(path_of("defects"), camera, detector) if isr.defects else None,
            (*(crosstalk.notes if crosstalk else ()), *notes, *lost, *(linear.short(detector) if linear else ())),
            unusable,
            bfk.Kernels.open(path_of("bfk"), camera, detector) if isr.brighter_fatter else None,
            _product("flat", path_of("flat"), camera, detector) if isr.flat else None,
            _product("fringe", path_of("fringe"), camera, detector) if isr.fringe else None,
            suspects,
        )

    def verify(self) -> None:
        """Compare the pixels of bias, dark and flat with their DATASUM, once; this reads them all.

        Raises
        ------
        DataError
            Data and DATASUM disagree, or the file cannot be read.
        """
        assert self._whole

    @cached_property
    def _whole(self) -> bool:
        for product in filter(None, (self.bias, self.dark, self.flat, self.fringe)):
            verify(product.path, ("IMAGE", "MASK", "VARIANCE"))
        return True

    @property
    def left_out(self) -> list[Card]:
        """Make the cards of a product that name what was not applied."""
        return [(f"LEFTOUT{n}", note, "not applied") for n, note in enumerate(self.notes)]

    @property
    def flags(self) -> bool:
        """Whether any calibration can flag a pixel BAD."""
        return any((self.bias, self.dark, self.flat, self.defects, self.unusable))

    @cached_property
    def _bad(self) -> NDArray[np.uint8]:
        """Flags of the whole detector, decoded once and packed along its rows."""
        width, height = self.detector.size
        packed = np.empty((height, -(-width // 8)), np.uint8)
        for y0 in range(0, height, ROWS):
            box = Box(0, y0, width, min(ROWS, height - y0))
            bad = np.zeros((box.ny, box.nx), np.bool_) if self.defects is None else self.defects.mask(box)
            for product in filter(None, (self.bias, self.dark, self.flat)):
                bad |= product.flagged(box, BAD)
            for dead in self.unusable:
                bad[max(dead.y0 - y0, 0) : max(dead.y1 - y0, 0), dead.x0 : dead.x1] = True
            packed[y0 : box.y1] = np.packbits(bad, axis=1)
        return packed

    def flagged(self, box: Box) -> NDArray[np.bool_]:
        """Flag the pixels [y, x] of a box that are BAD in any of the calibrations."""
        some = self._bad[box.y0 : box.y1, box.x0 // 8 : -(-box.x1 // 8)]
        left = box.x0 % 8
        return np.unpackbits(some, axis=1)[:, left : left + box.nx].view(np.bool_)
