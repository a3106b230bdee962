"""Raw frames: rows of one amplifier, from plain, gzipped or tile-compressed FITS."""

from __future__ import annotations

import os
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Amplifier
from kernels.errors import DataError
from kernels.fits import oddimage
from kernels.fits.blocks import packing
from kernels.fits.fitsfile import Open, unpacked
from kernels.fits.rawstack import Buffer, Coded, Decoded, Stack
from kernels.fits.rice import SPARE
from kernels.fits.rowbytes import Summed, Wanted, check, compare, load, room
from kernels.fits.tiles import Odd, RowTiles, Scanned, scan
from kernels.jobs.job import File

#: Largest number of files whose HDUs are remembered: those of a task, and some more.
REMEMBERED = 2000


def _require_size(file: File) -> None:
    try:
        size = os.stat(file.path).st_size
    except OSError as error:
        raise DataError(file.path, error.strerror or str(error)) from error
    if file.bytes not in (None, size):
        raise DataError(file.path, f"has {size} bytes, it had {file.bytes} when the run was planned")


class Frames:
    """Rows of many frames; keeps a bounded number of unpacked files, and of images that cfitsio reads.

    Parameters
    ----------
    limit : `int`
        Largest number of files, and of images, in memory (a process has only 1024 handles).
    sums : `bool`
        Rows of a part of an image are only added up (`Stack.sums`): whoever reads all parts, maybe on several ranks,
        must `compare` the sums.  Otherwise the first rows that are read verify their HDU, which reads it whole.
    """

    def __init__(self, limit: int = 64, sums: bool = False) -> None:
        self._limit, self._sums = limit, sums
        self._packed: dict[str, str] = {}
        self._unpacked: OrderedDict[str, int] = OrderedDict()
        self._alone: OrderedDict[tuple[str, int], Open] = OrderedDict()
        self._scanned: dict[str, Scanned] = {}
        self._verified: set[tuple[str, int]] = set()
        self._buffers: defaultdict[int, Buffer] = defaultdict(Buffer)
        self._finalizer = finalize(self, _let_go, self._unpacked, self._alone)  # kernels do not close their frames

    def stack(
        self,
        files: Sequence[File],
        amplifier: Amplifier,
        first: int,
        last: int,
        slot: int = 0,
        summed: tuple[int, int] | None = None,
    ) -> Stack:
        """Read raw rows ``[first, last)`` of an amplifier of many frames, for `Stack.rows` to decode.

        The compressed bytes go into the slot's buffer, and the slot's next stack overwrites them.  Images that cannot
        be read by rows of whole numbers are decoded at once, and the stack holds their pixels.

        Parameters
        ----------
        summed : `tuple`, optional
            The rows that are added up, of those that are read.

        Raises
        ------
        DataError
            A file or its HDU cannot be read, is corrupt or has another shape.
        """
        described = [self._described(file, amplifier) for file in files]
        keys = [(file.path, image.table) for file, image in zip(files, described, strict=True)]
        unverified = [i.datasum is not None and k not in self._verified for k, i in zip(keys, described, strict=True)]
        later = Wanted(first, last, summed=summed) if self._sums and last - first < amplifier.raw[1] else None
        wanted = [later if one and later else Wanted(first, last, verify=one) for one in unverified]
        coded = [(t, rows) for t, rows in zip(described, wanted, strict=True) if isinstance(t, RowTiles)]
        needed = sum(room(t, rows) for t, rows in coded) + max((t.data_bytes for t, r in coded if r.verify), default=0)
        data, at = self._buffers[slot].reserve(needed + SPARE), 0
        parts: list[Coded | Decoded] = []
        sums: list[Summed | None] = []
        for file, tiles, rows in zip(files, described, wanted, strict=True):
            if isinstance(tiles, Odd):
                parts.append(Decoded(self._odd(file.path, tiles, amplifier.signed, first, last).pixels))
                sums.append(None)
                continue
            loaded = load(file.path, tiles, rows, data, at, self._handle(file.path))
            if rows.verify:
                self._verified.add((file.path, tiles.table))
            parts.append(Coded(file.path, tiles, loaded.starts, loaded.lengths, tiles.half(amplifier.signed)))
            sums.append(loaded.summed)
            at = (loaded.end + 7) // 8 * 8
        return Stack(first, parts, data[: at + SPARE], sums)

    def rows(self, file: File, amplifier: Amplifier, first: int, last: int) -> NDArray[np.int32]:
        """Read raw rows ``[first, last)`` of an amplifier of one frame.

        Returns
        -------
        rows : `numpy.ndarray` [last - first, raw width], int32
            ADU; prescan and overscan included.

        Raises
        ------
        DataError
            The file or its HDU cannot be read, is corrupt or has another shape.
        """
        out = np.empty((1, last - first, amplifier.raw[0]), np.int32)
        self.stack([file], amplifier, first, last, -1).rows(first, last, out)
        return out[0]

    def compare(self, file: File, amplifier: Amplifier, sums: Sequence[Summed | None]) -> None:
        """Compare the sums of all rows of an image (`Stack.sums`) with its DATASUM.

        Raises
        ------
        DataError
            The data are corrupt.
        """
        image, parts = self._described(file, amplifier), [one for one in sums if one is not None]
        if parts and isinstance(image, RowTiles):
            compare(file.path, image, parts, self._handle(file.path))

    def _described(self, file: File, amplifier: Amplifier) -> RowTiles | Odd:
        """Describe the storage of an amplifier's HDU."""
        image = self.scanned(file)[amplifier.hdu]
        if image is None:
            raise DataError(file.path, f"HDU {amplifier.hdu} is no image")
        shape = oddimage.shape(image.cards) if isinstance(image, Odd) else (image.width, image.height)
        if tuple(shape) != amplifier.raw:
            raise DataError(file.path, f"HDU {amplifier.hdu} is {tuple(shape)} pixels, the camera says {amplifier.raw}")
        return image

    def scanned(self, file: File) -> Scanned:
        """Scan the images of a file.

        Raises
        ------
        DataError
            The file cannot be read, or has another size than the job says.
        """
        if file.path not in self._scanned:
            if len(self._scanned) >= REMEMBERED:
                self.forget()
            _require_size(file)
            self._scanned[file.path] = scan(file.path, self._handle(file.path))
        return self._scanned[file.path]

    def _handle(self, path: str) -> int | None:
        """Return the handle of the unpacked copy of a packed file; `None` for other files."""
        if path in self._unpacked:
            self._unpacked.move_to_end(path)
            return self._unpacked[path]
        if self._packed.get(path) == "":
            return None
        try:
            with open(path, "rb") as file:
                packed = self._packed[path] = packing(path, file)
                if not packed:
                    return None
                self._unpacked[path] = handle = unpacked(path, file, packed)
        except OSError as error:
            raise DataError(path, error.strerror or str(error)) from error
        if len(self._unpacked) > self._limit:
            os.close(self._unpacked.popitem(last=False)[1])
        return handle

    def _odd(self, path: str, image: Odd, signed: bool, first: int, last: int) -> oddimage.Whole:
        """Read rows of an image that is not stored row by row; its data are checked once against their DATASUM."""
        handle = self._handle(path)
        if (path, image.table) not in self._verified:
            check(path, image, handle)
            self._verified.add((path, image.table))
        with oddimage.understood(path, image):
            if image.cards.compressed:
                pixels = oddimage.decompressed(path, image, self._by_cfitsio(path, image, handle), first, last)
            else:
                pixels = oddimage.stored(path, image, first, last, handle)
            found = oddimage.values(path, image, pixels, first, handle)
        return oddimage.whole(path, image, found, oddimage.half(image.cards, signed))

    def _by_cfitsio(self, path: str, image: Odd, handle: int | None) -> Open:
        key = path, image.table
        if key in self._alone:
            self._alone.move_to_end(key)
        else:
            self._alone[key] = oddimage.whole_file(path, image, handle)
            if len(self._alone) > self._limit:
                self._alone.popitem(last=False)[1].close()
        return self._alone[key]

    def examine(self, path: str, scanned: Scanned) -> dict[int, str | tuple[int, float]]:
        """Read all images of a file that are not stored as whole numbers by rows.

        Returns
        -------
        found : `dict`
            By HDU, why it cannot be read; or the number of pixels beyond 32 bits, and one of them.
        """
        found: dict[int, str | tuple[int, float]] = {}
        for number, image in enumerate(scanned.images):
            if isinstance(image, Odd) and image.width and image.height:
                try:
                    read = self._odd(path, image, False, 0, image.height)
                except DataError as error:
                    found[number] = error.why
                    continue
                if read.beyond:
                    found[number] = read.beyond, read.example
        return found

    def forget(self) -> None:
        """Forget the files, before those of another detector."""
        for known in (self._scanned, self._packed, self._verified):
            known.clear()

    def close(self) -> None:
        """Close every file."""
        _let_go(self._unpacked, self._alone)

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _let_go(unpacked: OrderedDict[str, int], alone: OrderedDict[tuple[str, int], Open]) -> None:
    while unpacked:
        os.close(unpacked.popitem()[1])
    while alone:
        alone.popitem()[1].close()
