"""A calibration that is a table, in upstream's layout (IsrCalib of lsst.ip.isr), as its file has it.

`kernels.calibrations.isrfiles` reads and writes the files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.layouts import LAYOUTS, Layout
from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError
from kernels.fits.tables import Table

#: Entry of the metadata that names the amplifiers of rows or matrices without names (ours).
AMPLIFIERS: Final = "AMPNAMES"
#: Entry of the metadata that says which axis of a kernel is which: ``xy``, axis 0 is x, or ``yx`` (ours).
AXES: Final = "KERNEL_AXES"
#: Order of the amplifiers in upstream's matrices without names, for the cameras of lsst.obs.lsst.
UPSTREAM_ORDER: Final = (*(f"C1{n}" for n in range(8)), *(f"C0{n}" for n in reversed(range(8))))


@dataclass(frozen=True)
class IsrCalib:
    """A calibration as its file has it."""

    path: str
    #: Our name of its kind: ``crosstalk``, ``defects``, ``linearizer``, ``ptc``, ``cti``, ``bfk`` or
    #: ``gain_correction``.
    kind: str
    #: Entries in the file's order: text, numbers, flags, `None`, or lists of these; unknown ones are kept.
    metadata: Mapping[str, Any]
    #: One or two; columns by upstream's names, in the file's order and types.
    tables: tuple[Table, ...]

    @property
    def layout(self) -> Layout:
        """Layout of its kind."""
        return LAYOUTS[self.kind]

    def said(self, *names: str) -> str:
        """Give the first of some entries of the metadata that is not empty, as text; empty without."""
        found = (self.metadata.get(name) for name in names)
        return next((str(value).strip() for value in found if value is not None and str(value).strip()), "")

    def _of_id(self, name: str) -> str:
        """Read a part of CALIB_ID."""
        match = re.search(rf"(?:^|\s){name}=(\S+)", self.said("CALIB_ID"))
        return match[1] if match else ""

    def whole(self, name: str, instead: str = "") -> int | None:
        """Read an entry of the metadata that is a whole number from 0; `None` without.

        Raises
        ------
        DataError
            It is something else.
        """
        text = self.said(name) or instead
        if text and not re.fullmatch(r"\d{1,9}(\.0*)?", text):
            raise DataError(self.path, f"{name} is {text[:60]!r}, a whole number is wanted")
        return int(float(text)) if text else None

    def denies(self, name: str) -> bool:
        """Whether an entry of the metadata is a switch, and off."""
        return self.said(name).lower() in ("false", "f", "0")

    @property
    def instrument(self) -> str:
        """Instrument, as the file names it; empty if it does not."""
        return self.said("INSTRUME") or self._of_id("instrument")

    @property
    def detector(self) -> int | None:
        """Detector's id; `None` if the file does not say it."""
        return self.whole("DETECTOR", self._of_id("detector"))

    @property
    def detector_name(self) -> str:
        """Detector's name; empty if the file does not say it."""
        return self.said("DET_NAME", "DETECTOR_NAME") or self._of_id("detectorName")

    @property
    def obstype(self) -> str:
        """OBSTYPE, as the file spells it."""
        return self.said("OBSTYPE")

    @property
    def version(self) -> float | None:
        """Version of the layout; `None` if the file does not say it."""
        prefix = self.layout.obstype.upper()
        names = [n for n in self.metadata if n.upper() in (f"{prefix}_VERSION", f"{prefix}_SCHEMA_VERSION")]
        text = self.said(*names)
        try:
            return float(text) if text else None
        except ValueError as error:
            raise DataError(self.path, f"{names[0]} is {text!r}, which is no version") from error

    @property
    def unit(self) -> str:
        """Unit of the frames that it is for, ``electron`` or ``adu``; empty if it is for any."""
        if not self.layout.unit:
            return ""
        version = self.version
        return "adu" if version is not None and version < 1.1 else self.said(self.layout.unit).lower() or "adu"

    @property
    def axes(self) -> str:
        """Order of a kernel's axes, ``xy`` or ``yx``; empty if the file does not say it, and then nobody knows."""
        text = self.said(AXES).lower()
        return text if text in ("xy", "yx") else ""

    @property
    def amplifiers(self) -> tuple[str, ...]:
        """Names of the amplifiers in the order of rows (of a crosstalk, of both its axes); empty without names."""
        if names := self.layout.table.names:
            return tuple(str(name).strip() for name in self.tables[0].columns.get(names, ()))
        return tuple(self.said(AMPLIFIERS).split())

    def column(self, name: str, table: int = 0) -> NDArray[Any]:
        """Return a column [row, ...].

        Raises
        ------
        DataError
            There is none of that name.
        """
        found = self.tables[table].columns
        if name not in found:
            raise DataError(self.path, f"has no column {name}; it has {', '.join(found)}")
        return found[name]

    def numbers(
        self, name: str, rows: Sequence[int] | None = None, table: int = 0, ndim: int = 1
    ) -> NDArray[np.float64]:
        """Return some rows of a column of finite numbers, by default all.

        Raises
        ------
        DataError
            See `values`; or a value is not finite.
        """
        numbers = self.values(name, rows, table, ndim)
        bad = ~np.isfinite(numbers).all(axis=tuple(range(1, numbers.ndim)))
        if bad.any():
            row = int(np.argmax(bad))
            names = self.amplifiers if not table and rows is not None else ()
            where = f" (amplifier {names[rows[row]]})" if names and rows is not None else ""
            raise DataError(self.path, f"column {name} holds a value that is no number{where}")
        return numbers

    def values(
        self, name: str, rows: Sequence[int] | None = None, table: int = 0, ndim: int = 1
    ) -> NDArray[np.float64]:
        """Return some rows of a column of numbers, which may be NaN; by default all.

        Parameters
        ----------
        ndim : `int`, optional
            1: a number a row; 2: a list a row.

        Raises
        ------
        DataError
            The column is missing, holds no numbers, or lists for numbers.
        """
        values = self.column(name, table)
        if values.dtype.kind not in "iuf":
            raise DataError(self.path, f"column {name} holds {values.dtype}, no numbers")
        if values.ndim != ndim:
            what = "a number" if ndim == 1 else "a list"
            raise DataError(self.path, f"column {name} has cells of {values.shape[1:]} values, {what} a row is wanted")
        return np.asarray(values if rows is None else values[list(rows)], np.float64)

    def require(self, kind: str, camera: Camera, detector: Detector) -> None:
        """Require a calibration of a kind, of a detector, for frames in the camera's unit.

        Raises
        ------
        DataError
            It is another's, or does not say whose it is.
        """
        if self.kind != kind:
            raise DataError(self.path, f"is {self.obstype} (OBSTYPE), {kind} is wanted")
        if not camera.is_named(self.instrument):
            what = f"is of {self.instrument or 'no instrument'} (INSTRUME), the frames are of {camera.name}"
            also = f" ({', '.join(sorted(camera.aliases))})" if camera.aliases else ""
            raise DataError(self.path, what + also)
        numbers = {self.detector, detector.id} - {None}
        names = {self.detector_name, detector.name} - {""}
        if len(numbers) > 1 or len(names) > 1 or (self.detector is None and not self.detector_name):
            found = " ".join(filter(None, ("" if self.detector is None else str(self.detector), self.detector_name)))
            what = f"is of detector {found or 'nothing'} (DETECTOR, DET_NAME)"
            raise DataError(self.path, f"{what}, the frames are of {detector.id} {detector.name}")
        if self.unit and self.unit != camera.unit:
            what = f"is in {self.unit} ({self.layout.unit}), the frames it is to correct are in {camera.unit}"
            raise DataError(self.path, what)

    def order(self, detector: Detector) -> list[int]:
        """Find the rows of the detector's amplifiers.

        Raises
        ------
        DataError
            The names are not those of the detector's amplifiers, each once; or the file has no names, and the
            order of the camera's amplifiers upstream is not known.
        """
        wanted, names = [a.name for a in detector.amplifiers], list(self.amplifiers)
        if not names and self.layout.table.names:
            raise DataError(self.path, f"its table has no rows; {len(wanted)} are wanted, one an amplifier")
        if not names:
            names = wanted if len(wanted) == 1 else [name for name in UPSTREAM_ORDER if name in wanted]
            if len(names) != len(wanted):
                what = f"does not name its amplifiers, and the order of {', '.join(wanted[:4])} ... in it is unknown"
                raise DataError(self.path, f"{what}: write their names, in its order, into {AMPLIFIERS}")
        parts = {"only the table has": set(names) - set(wanted), "only the camera has": set(wanted) - set(names)}
        if odd := [f"{who} {', '.join(sorted(some)[:4])}" for who, some in parts.items() if some]:
            raise DataError(self.path, f"its amplifiers are not those of detector {detector.name}: {'; '.join(odd)}")
        if twice := [name for name in wanted if names.count(name) > 1]:
            raise DataError(self.path, f"amplifier {twice[0]} stands in it more than once")
        return [names.index(name) for name in wanted]
