"""How the Butler reads and writes frames and calibrations; named in a repository's configuration.

Every `butler` command that touches such a dataset imports this module: it needs
nothing else of the project.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import fitsio
import numpy as np
from lsst.daf.butler import FormatterV2, Location
from lsst.resources import ResourcePath

#: Keys of what a calibration was made from.
SOURCE = r"CALIB_\w+_RUN"
#: Keywords of a table's columns and size.
_COLUMN = re.compile(r"XTENSION|EXTNAME|NAXIS\d|PCOUNT|GCOUNT|TFIELDS|T(TYPE|FORM|UNIT|DIM|NULL|SCAL|ZERO|DISP)\d+")
STRUCTURAL = frozenset({"SIMPLE", "BITPIX", "NAXIS", "EXTEND", "CHECKSUM", "DATASUM", "COMMENT", "HISTORY"})


_BLOCK = 2880
#: How files are packed as a whole, by their first bytes.
_PACKED: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
}


@contextmanager
def _opened(path: str) -> Iterator[fitsio.FITS]:
    """Open a file for cfitsio by its handle: of a path, it would take brackets, ``+n``, ``$`` and more for orders.

    A file that is packed as a whole, or ends within a block, is unpacked or padded in memory for cfitsio.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        start = os.pread(handle, 8, 0)
        unpack = next((unpack for magic, unpack in _PACKED.items() if start.startswith(magic)), None)
        if unpack or os.fstat(handle).st_size % _BLOCK:
            data = Path(path).read_bytes()
            data = unpack(data) if unpack else data
            whole = os.memfd_create("fits", os.MFD_CLOEXEC)
            os.close(handle)
            handle = whole
            with open(handle, "wb", closefd=False) as file:
                file.write(data)
                file.write(bytes(-len(data) % _BLOCK))
        with fitsio.FITS(f"/proc/self/fd/{handle}") as fits:
            yield fits
    finally:
        os.close(handle)


def _write(path: str, write: Callable[[fitsio.FITS], None]) -> None:
    """Have a file written in memory, and put it where it belongs."""
    fits = fitsio.FITS("mem://", "rw")
    try:
        write(fits)
        Path(path).write_bytes(fits.read_raw())
    finally:
        fits.close()


@dataclass(frozen=True, eq=False)
class CalibImage:
    """A combined calibration, a binned one or a mosaic."""

    #: (rows, columns), float32: Pixels, in the unit that the header's BUNIT names.
    image: np.ndarray
    #: (rows, columns), int32, or `None`: Bits as the header names them; `None` for bins and mosaics.
    mask: np.ndarray | None = None
    #: (rows, columns), float32, or `None`: Square of the image's unit.
    variance: np.ndarray | None = None
    #: The primary header, without the keywords that only describe the file.
    header: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CalibTable:
    """A calibration that is a table: crosstalk, linearizer, defects, ptc."""

    #: structured: One record an amplifier, or a box of defects.
    rows: np.ndarray
    #: The primary header, without the keywords that only describe the file.
    header: Mapping[str, Any]
    #: The columns' units, '' of a number or a name.
    units: Mapping[str, str]
    #: The table's own header, without the keywords that only describe the file: upstream's metadata.
    metadata: Mapping[str, Any] = field(default_factory=dict)
    #: structured: Rows of further tables, such as the detector's kernel of a bfk; read only.
    others: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True, eq=False)
class RawFrame:
    """A frame as the camera wrote it."""

    #: The primary header.
    header: Mapping[str, Any]
    #: The pixels of each HDU that has some, ADU as stored, by EXTNAME, or by HDU number where there is no name.
    images: Mapping[str | int, np.ndarray]


def _header(hdu: Any) -> dict[str, Any]:
    cards = hdu.read_header()
    return {key: cards[key] for key in cards if key and key not in STRUCTURAL}


def sources(path: str) -> set[str]:
    """The RUNs that the header of a calibration names as those that it was made from; none where it is no FITS file."""
    try:
        with _opened(path) as fits:
            cards = _header(fits[0])
    except OSError:
        return set()
    return {str(value) for key, value in cards.items() if re.fullmatch(SOURCE, key)}


class CalibImageFormatter(FormatterV2):
    """FITS with the metadata in the primary header and HDUs IMAGE, MASK and VARIANCE (the last two optional)."""

    default_extension: ClassVar[str | None] = ".fits"
    supported_extensions = frozenset({".fits", ".fits.gz", ".fits.fz"})
    unsupported_parameters = None
    can_read_from_local_file = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> CalibImage:
        """Read the file; see the base class."""
        with _opened(path) as fits:
            names = {hdu.get_extname() for hdu in fits}
            mask, variance = (fits[name].read() if name in names else None for name in ("MASK", "VARIANCE"))
            return CalibImage(fits["IMAGE"].read(), mask, variance, _header(fits[0]))

    def write_local_file(self, in_memory_dataset: CalibImage, uri: ResourcePath) -> None:
        """Write the file; see the base class."""
        planes = {
            "IMAGE": (in_memory_dataset.image, np.float32),
            "MASK": (in_memory_dataset.mask, np.int32),
            "VARIANCE": (in_memory_dataset.variance, np.float32),
        }

        def write(fits: fitsio.FITS) -> None:
            fits.write(None, header=dict(in_memory_dataset.header))
            for name, (plane, dtype) in planes.items():
                if plane is not None:
                    fits.write(np.asarray(plane, dtype), extname=name)

        _write(uri.ospath, write)


def _text_table(path: str) -> CalibTable:
    """Read a table as text: a photodiode's reading; astropy's importing takes half a second, so only here."""
    from astropy.table import Table

    table = Table.read(path, format="ascii.ecsv")
    units = {name: str(table[name].unit or "") for name in table.colnames}
    return CalibTable(np.asarray(table.as_array()), {}, units, dict(table.meta))


class CalibTableFormatter(FormatterV2):
    """FITS with the metadata in the primary header and one table, in the extension that OBSTYPE names; or ECSV."""

    default_extension: ClassVar[str | None] = ".fits"
    supported_extensions = frozenset({".fits", ".fits.gz", ".fits.fz", ".ecsv"})
    unsupported_parameters = None
    can_read_from_local_file = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> CalibTable:
        """Read the file; see the base class."""
        if path.endswith(".ecsv"):
            return _text_table(path)
        with _opened(path) as fits:
            kind = str(fits[0].read_header().get("OBSTYPE", "")).strip().upper()
            there = {hdu.get_extname() for hdu in fits}
            table = fits[kind if kind and kind in there else 1]  # upstream's own files name it otherwise
            cards, names = table.read_header(), table.get_colnames()
            units = {name: str(cards.get(f"TUNIT{n}") or "").strip() for n, name in enumerate(names, 1)}
            rows = table.read() if table.get_nrows() else np.zeros(0, table.get_rec_dtype()[0])
            metadata = {k: v for k, v in _header(table).items() if not _COLUMN.fullmatch(k)}
            name = table.get_extname()
            others = tuple(hdu.read() for hdu in fits[1:] if hdu.get_extname() != name and hdu.has_data())
            return CalibTable(rows, _header(fits[0]), units, metadata, others)

    def write_local_file(self, in_memory_dataset: CalibTable, uri: ResourcePath) -> None:
        """Write the file; see the base class."""
        rows, kind = in_memory_dataset.rows, str(in_memory_dataset.header["OBSTYPE"]).strip().upper()

        def write(fits: fitsio.FITS) -> None:
            fits.write(None, header=dict(in_memory_dataset.header))
            units = [in_memory_dataset.units.get(name, "") for name in rows.dtype.names or ()]
            fits.create_table_hdu(rows, extname=kind, units=units)
            fits[-1].write_keys(dict(in_memory_dataset.metadata))
            if len(rows):
                fits[-1].write(rows)

        _write(uri.ospath, write)


class RawFrameFormatter(FormatterV2):
    """FITS as any camera writes it: plain, tile-compressed, or gzip whatever its name."""

    default_extension: ClassVar[str | None] = ".fits"
    unsupported_parameters = None
    can_read_from_local_file = True

    @classmethod
    def validate_extension(cls, location: Location) -> None:
        """Accept any name: cameras write .fits, .FIT.gz, .fz and more, and the reader goes by content."""

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> RawFrame:
        """Read the file; see the base class."""
        with _opened(path) as fits:
            packed = len(fits) > 1 and not fits[0].has_data() and bool(fits[1].read_header().get("ZSIMPLE"))
            hdus = list(fits)[1:] if packed else list(fits)  # fpack puts a primary image behind an empty one
            images = {
                hdu.get_extname().replace("COMPRESSED_IMAGE", "") or number: hdu.read()
                for number, hdu in enumerate(hdus)
                if hdu.get_info()["hdutype"] == fitsio.IMAGE_HDU and hdu.has_data()
            }
            return RawFrame(_header(hdus[0]), images)


class ExposureFormatter(CalibImageFormatter):
    """The same files in a repository of Rubin's stack, which reads them by the formatter that is recorded for them."""

    recorded: ClassVar[str] = "lsst.obs.base.formatters.fitsExposure.FitsExposureFormatter"

    @classmethod
    def name(cls) -> str:
        """Give the name that is recorded; the class of that name need not be installed."""
        return cls.recorded


class ImageFormatter(ExposureFormatter):
    """A mosaic in a repository of Rubin's stack."""

    recorded = "lsst.obs.base.formatters.fitsExposure.FitsImageFormatter"


class CalibrationFormatter(CalibTableFormatter):
    """A table in a repository of Rubin's stack."""

    @classmethod
    def name(cls) -> str:
        """Give the name that is recorded; the class of that name need not be installed."""
        return "lsst.obs.base.formatters.fitsGeneric.FitsGenericFormatter"
