"""Write FITS images block by block: a block is swapped, hashed and written while it is in cache.

cfitsio reads the data three times, for writing, DATASUM and CHECKSUM, and the
file's SHA-256 takes one more pass.  Two passes suffice here; one does not,
because DATASUM precedes the data, in the file and so in its hash.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.fits.seal import BLOCK, folded, sealed

#: Words of 32 bits that are swapped, hashed and written at a time: 256 KiB, for the second-level cache.
WORDS = 1 << 16

#: Bytes after which the system is asked to write out, and then to drop the written pages.
WINDOW = 4 << 20

#: Cards of a header, without END, and the image [y, x] of 32-bit pixels that follows, if any.
Unit = tuple[Sequence[bytes], NDArray[Any] | None]


def add_words(words: NDArray[np.uint32]) -> int:
    """Sum 32-bit words; the sum of native pixels is that of the file's big-endian words.

    Two words are added at once, modulo 2^64, and their upper halves once more, in half the time of numpy's own sum.
    """
    total = 0
    for first in range(0, words.size, WORDS):
        block = words[first : first + WORDS]
        pairs, last = block[: block.size // 2 * 2].view(np.uint64), block[block.size // 2 * 2 :]
        upper = int((pairs >> np.uint64(32)).sum())
        total += upper + (int(pairs.sum()) - (upper << 32)) % (1 << 64) + int(last.sum())
    return total


def _words(image: NDArray[Any] | None) -> NDArray[np.uint32]:
    if image is None:
        return np.empty(0, np.uint32)
    return np.ascontiguousarray(image, image.dtype.newbyteorder("=")).reshape(-1).view(np.uint32)


def _sized(cards: Sequence[bytes], shape: tuple[int, ...]) -> list[bytes]:
    """Set the size of the image in its header."""
    sizes = {b"NAXIS%-3d" % n: b"%20d" % size for n, size in enumerate(reversed(shape), 1)}
    return [card[:10] + sizes[card[:8]] + card[30:] if card[:8] in sizes else card for card in cards]


def _parts(units: Sequence[Unit]) -> Iterator[bytes | memoryview]:
    """Yield the parts of the file in order, each valid until the next."""
    buffer = np.empty(WORDS, ">u4")
    for cards, image in units:
        words = _words(image)
        yield sealed(_sized(cards, () if image is None else image.shape), folded(add_words(words)))
        for first in range(0, words.size, WORDS):
            block = words[first : first + WORDS]
            buffer[: block.size] = block
            yield buffer[: block.size].view(np.uint8).data
        yield bytes(-words.nbytes % BLOCK)


def write(path: str, units: Sequence[Unit]) -> str:
    """Write a file of images, with DATASUM and CHECKSUM in every HDU.

    Parameters
    ----------
    path : `str`
        A new file.
    units : sequence of (cards, image)
        One for each HDU.  An image that is not contiguous is copied.  Its size
        goes into NAXISn, which the cards must have; other cards are unchanged.

    Returns
    -------
    sha256 : `str`
        Checksum of the file.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    digest, written, asked = hashlib.sha256(), 0, 0
    with open(path, "wb", buffering=0) as file:
        for part in _parts(units):
            digest.update(part)
            left = memoryview(part)
            while left:
                left = left[os.write(file.fileno(), left) :]
            written += len(part)
            if written - asked >= WINDOW:  # new pages for the whole file would cost more than all else
                os.posix_fadvise(file.fileno(), 0, written, os.POSIX_FADV_DONTNEED)
                asked = written
    return digest.hexdigest()
