"""Fused instrument signature removal: compressed raw rows to cubes of corrected pixels, in memory.

The order is that of IsrTaskLSST: serial overscan, saturation, gain, crosstalk,
parallel overscan, linearity, deferred charge, trim, bias, dark; the result is
flipped to the detector's orientation.  Every step uses one row, or one column's
parallel overscan, so that the result does not depend on how an amplifier is cut
into row blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import crosstalk
from kernels.calibrations.applied import Calibrations
from kernels.calibrations.config import IsrConfig
from kernels.camera.geometry import Box
from kernels.errors import JobError
from kernels.fits.raw import Frames, Stack
from kernels.fits.rowbytes import Summed
from kernels.isr import load
from kernels.isr.blanks import empty, places, without_blanks
from kernels.isr.channel import Block, Canvas, Channel, Exposures, Frame, target
from kernels.isr.overscan import column_levels
from kernels.isr.placing import place
from kernels.jobs.job import File
from kernels.jobs.scratch import Scratch

F32 = NDArray[np.float32]

#: Size of a block's cube, and of its raw rows, that stays in a core's share of the cache.
CACHE_BYTES = 2_000_000
#: Largest size of a block with a halo; small blocks would read the halo too often.
BLOCK_BYTES = 32 << 20
#: Frames whose parallel overscan is decoded at once.
_SOME = 16
_NO_FLAGS = np.empty((0, 0), np.bool_)


class Reader:
    """Reads and corrects a group of amplifiers of a detector: one amplifier, or all where there is crosstalk.

    Parameters
    ----------
    frames : `Frames`
        Reader of the files.
    scratch : `Scratch`
        Memory for the blocks.
    numbers : sequence of `int`
        Amplifiers of the group.
    config : `IsrConfig`
        Corrections to apply.
    unit : `str`
        ``electron`` or ``adu``.
    calibrations : `Calibrations`
        Calibrations that ``config`` asks for.
    """

    def __init__(
        self,
        frames: Frames,
        scratch: Scratch,
        numbers: Sequence[int],
        config: IsrConfig,
        unit: str,
        calibrations: Calibrations,
    ) -> None:
        self._frames, self.scratch, self.config, self.calibrations = frames, scratch, config, calibrations
        self.channels = [Channel(k, config, unit, calibrations) for k in numbers]
        self.ceiling = calibrations.detector.adc_max
        self._columns: tuple[Exposures, list[F32]] | None = None
        self.height = self.channels[0].amplifier.data.ny
        amplifiers = [c.amplifier for c in self.channels]
        boxes = [(a.raw, a.data, a.parallel_overscan or Box(0, 0, 0, 0)) for a in amplifiers]
        sizes = {(raw, data.y0, data.ny, parallel.y0, parallel.ny) for raw, data, parallel in boxes}
        if len(sizes) > 1:
            name = calibrations.detector.name
            raise JobError(f"{name}: crosstalk needs amplifiers of one size; set doCrosstalk: false for it")

    def rows(self, exposures: Exposures, first: int, last: int, halo: int = 0) -> Rows:
        """Read data rows ``[first, last)`` of all frames, and up to ``halo`` more on both sides.

        The next call reuses the memory.

        Raises
        ------
        DataError
            A file cannot be read.
        """
        return Rows(self, exposures, first, last, halo)

    def step(self, frames: int, halo: int = 0) -> int:
        """Return the rows of a block that fits into a core's cache; with a halo ten times as many, within memory."""
        row = 4 * frames * max(c.amplifier.raw[0] for c in self.channels) * len(self.channels)
        return max(1, CACHE_BYTES // row, min(10 * halo, BLOCK_BYTES // row))

    def frame(
        self, file: File, dark_time: float, first: int = 0, last: int | None = None, canvas: Canvas | None = None
    ) -> list[Frame]:
        """Read and correct data rows of a single frame: a `Frame` an amplifier, valid until the next call.

        With a canvas the pixels that it flags become NaN, too, and the pixels are those of its image, if it has one.

        Raises
        ------
        DataError
            The file cannot be read.
        """
        top = self.height if last is None else last
        amplifiers = len(self.calibrations.detector.amplifiers)
        rows = self.rows(Exposures.plain([file], [dark_time], amplifiers), first, top)
        flags, images, corners, origins = self._places(first, top, canvas)
        lacking, shape = [0] * len(self.channels), [(top - first, c.amplifier.data.nx) for c in self.channels]
        for start, blocks in rows.blocks(first, top, self.step(1)):
            for a, (channel, block) in enumerate(zip(self.channels, blocks, strict=True)):
                (y0, x0), flip_y = corners[a], channel.amplifier.flip_y
                y0, up = (y0 + top - 1 - start, -1) if flip_y else (y0 + start - first, 1)
                lacking[a] += place(block.pixels[0], flags, origins[a], images[a], y0, up, x0, channel.amplifier.flip_x)
        return [
            Frame(
                channel,
                images[a][y0 : y0 + top - first, x0 : x0 + channel.amplifier.data.nx],
                rows.samples(a),
                rows.saturated[a],
                rows.blank[a],
                empty(shape[a], rows.places[a], channel.amplifier, first),
                lacking[a],
                empty(shape[a], rows.suspects[a], channel.amplifier, first),
            )
            for a, (channel, (y0, x0)) in enumerate(zip(self.channels, corners, strict=True))
        ]

    def _places(
        self, first: int, last: int, canvas: Canvas | None
    ) -> tuple[NDArray[np.bool_], list[F32], list[tuple[int, int]], list[tuple[int, int]]]:
        """Give the flags, and by amplifier the image for data rows, their corner there, and the image's corner on them.

        Without a canvas, or without its image, the next call of any reader of the same scratch reuses the images.
        """
        boxes = [target(c.amplifier, first, last) for c in self.channels]
        flags, corners = _NO_FLAGS if canvas is None else canvas.flags, [(box.y0, box.x0) for box in boxes]
        nowhere = [(0, 0)] * len(boxes)
        if canvas is not None and canvas.image is not None:
            return flags, [canvas.image] * len(boxes), corners, nowhere
        images = [self.scratch.array(f"frame {a}", (last - first, box.nx), np.float32) for a, box in enumerate(boxes)]
        return flags, images, nowhere, corners

    def stacks(self, files: Sequence[File], first: int, last: int, core: tuple[int, int] | None = None) -> list[Stack]:
        """Read the compressed bytes of data rows of the group's amplifiers, and the raw rows before and behind all.

        The rows of a ``core`` are added up: `kernels.fits.raw.Frames`.
        """
        data, top = self.channels[0].amplifier.data, self.channels[0].amplifier.raw[1]

        def raw(row: int) -> int:
            return {0: 0, self.height: top}.get(row, data.y0 + row)

        summed = None if core is None else (raw(core[0]), raw(core[1]))
        return self._stacks(files, raw(first), raw(last), summed)

    def _stacks(
        self, files: Sequence[File], first: int, last: int, summed: tuple[int, int] | None = None
    ) -> list[Stack]:
        return [
            self._frames.stack(files, channel.amplifier, first, last, slot, summed)
            for slot, channel in enumerate(self.channels)
        ]

    def signals(
        self,
        raws: Sequence[NDArray[np.int32]],
        levels: Sequence[tuple[F32, F32]],
        blanks: Sequence[Sequence[int]],
    ) -> list[F32] | None:
        """Subtract levels and crosstalk from all columns [frame, row, raw width]; `None` without crosstalk.

        ``blanks`` lists, by amplifier, the frames with blank pixels, which leave no crosstalk.
        """
        coefficients = self.calibrations.crosstalk
        if coefficients is None:
            return None
        frames, rows, width = raws[0].shape
        signal = np.empty((len(raws), frames * rows, width), np.float32)
        nothing = np.zeros((frames, width), np.float32)
        for channel, raw, (base, rest), out, some in zip(self.channels, raws, levels, signal, blanks, strict=True):
            load.signal(raw, 0, width, base, rest, nothing, channel.gain, out.reshape(frames, -1))
            without_blanks(raw, 0, width, some, out.reshape(raw.shape), 0)
            if channel.amplifier.leftwards:  # crosstalk is between pixels read at the same time
                out[:] = channel.as_read(out).copy()
        crosstalk.correct(signal, coefficients.c0, coefficients.c1)
        whole = signal.reshape(len(raws), frames, rows, width)
        return [channel.as_read(out) for channel, out in zip(self.channels, whole, strict=True)]

    def column_levels(self, exposures: Exposures, whole: Sequence[Stack] | None = None) -> list[F32]:
        """Measure the parallel overscan [frame, data column] by amplifier, ADU; with crosstalk in the job's unit.

        ``whole`` are stacks of all raw rows; without them the overscan is read.
        """
        if self._columns is None or self._columns[0] is not exposures:  # once for all pieces of an amplifier
            self._columns = exposures, self._column_levels(exposures.files, whole)
        return self._columns[1]

    def _column_levels(self, files: Sequence[File], whole: Sequence[Stack] | None) -> list[F32]:
        box = self.channels[0].amplifier.parallel_overscan  # the same for the whole group
        if box is None or not self.config.parallel:
            return [np.zeros((len(files), c.amplifier.data.nx), np.float32) for c in self.channels]
        if whole is not None:
            return self._levels_of(whole, len(files), box)
        parts = [files[start : start + _SOME] for start in range(0, len(files), _SOME)]
        found = [self._levels_of(self._stacks(part, box.y0, box.y1), len(part), box) for part in parts]
        return [np.concatenate(levels) for levels in zip(*found, strict=True)]

    def _levels_of(self, stacks: Sequence[Stack], n: int, box: Box) -> list[F32]:
        """Measure the parallel overscan of ``n`` frames."""
        raws = [np.empty((n, box.ny, c.amplifier.raw[0]), np.int32) for c in self.channels]
        for stack, raw in zip(stacks, raws, strict=True):
            stack.rows(box.y0, box.y1, raw)
        blanks, levels = [stack.blanks for stack in stacks], []
        serial = [c.levels(raw, some) for c, raw, some in zip(self.channels, raws, blanks, strict=True)]
        whole = self.signals(raws, serial, blanks)
        for a, channel in enumerate(self.channels):
            data = channel.amplifier.data
            if whole is None:
                flat = np.empty((n, box.ny, data.nx), np.float32)
                nothing = np.zeros((n, data.nx), np.float32)
                load.signal(raws[a], data.x0, data.x1, *serial[a], nothing, 1.0, flat.reshape(n, -1))
            else:
                flat = whole[a][:, :, data.x0 : data.x1]
            without_blanks(raws[a], data.x0, data.x1, blanks[a], flat, np.inf)
            levels.append(column_levels(flat))
        return levels


class Rows:
    """Data rows of a group of amplifiers of many frames, read together and corrected block by block.

    Attributes
    ----------
    saturated, blank : `numpy.ndarray` [amplifier, frame], int64
        Numbers of saturated pixels, and of pixels that hold no value, halo excluded.
    places : `list` [`list` [`numpy.ndarray`]]
        By amplifier, places [n, (data row, data column)] of pixels that hold no value in any frame.
    suspects : `list` [`list` [`numpy.ndarray`]]
        The same of pixels that are suspect in any frame.
    """

    def __init__(self, reader: Reader, exposures: Exposures, first: int, last: int, halo: int) -> None:
        self._reader, self._exposures, self._halo = reader, exposures, halo
        self._n, self._height = len(exposures.files), reader.height
        self._bottom, self._top = max(0, first - halo), min(self._height, last + halo)
        if (self._bottom, self._top) == (0, self._height):
            self._stacks = reader.stacks(exposures.files, self._bottom, self._top)
            self._columns = reader.column_levels(exposures, self._stacks)
        else:  # the overscan goes into the buffers of the rows
            self._columns = reader.column_levels(exposures)
            self._stacks = reader.stacks(exposures.files, self._bottom, self._top, (first, last))
        self._samples: list[list[NDArray[np.float64]]] = [[] for _ in reader.channels]
        self.saturated = np.zeros((len(reader.channels), self._n), np.int64)
        self.blank = np.zeros_like(self.saturated)
        self.places: list[list[NDArray[np.intp]]] = [[] for _ in reader.channels]
        self.suspects: list[list[NDArray[np.intp]]] = [[] for _ in reader.channels]

    def sums(self, a: int) -> Sequence[Summed | None]:
        """Return the sums of the raw bytes by frame of the group's amplifier ``a``: `kernels.fits.raw.Frames`."""
        return self._stacks[a].sums

    def samples(self, a: int) -> NDArray[np.float64]:
        """Join the samples [frame, sampled row, SAMPLED] of the group's amplifier ``a``: `kernels.isr.load.sample`."""
        return np.concatenate(self._samples[a], axis=1)

    def blocks(self, first: int, last: int, step: int) -> Iterator[tuple[int, list[Block]]]:
        """Correct rows ``[first, last)``, ``step`` at a time; yield the first row, and a `Block` an amplifier.

        Raises
        ------
        DataError
            A file is corrupt.
        """
        for start in range(first, last, step):
            yield start, self._block(start, min(start + step, last), step)

    def _block(self, first: int, last: int, step: int) -> list[Block]:
        bottom, top = max(self._bottom, first - self._halo), min(self._top, last + self._halo)
        core, channels = slice(first - bottom, last - bottom), self._reader.channels
        raws = self._decode(bottom, top)
        blanks = [stack.blanks for stack in self._stacks]
        levels = [c.levels(raw, some) for c, raw, some in zip(channels, raws, blanks, strict=True)]
        most = min(step + 2 * self._halo, self._top - self._bottom)
        blocks = []
        for a, channel in enumerate(channels):
            columns = channel.amplifier.data.nx
            cube = self._reader.scratch.cube(f"amplifier {a}", self._n, most * columns)
            blocks.append(Block(cube, self._n, top - bottom, columns, core))
        direct = self._signal(raws, levels, blanks, blocks)
        for a, channel in enumerate(channels):
            channel.straighten(blocks[a].pixels)
            self._finish(a, bottom, raws[a], levels[a], blocks[a], direct[a])
            self._samples[a].append(channel.samples(raws[a], *levels[a], first, core))
        return blocks

    def _decode(self, bottom: int, top: int) -> list[NDArray[np.int32]]:
        """Decode raw rows [frame, row, raw width] of every amplifier."""
        widths = [c.amplifier.raw[0] for c in self._reader.channels]
        each = self._n * (top - bottom) * max(widths)
        memory = self._reader.scratch.array("raw rows", (each * len(widths),), np.int32)
        raws = []
        for k, (stack, channel) in enumerate(zip(self._stacks, self._reader.channels, strict=True)):
            shape = (self._n, top - bottom, widths[k])
            raw = memory[k * each : k * each + prod(shape)].reshape(shape)
            y0 = channel.amplifier.data.y0
            stack.rows(y0 + bottom, y0 + top, raw)
            raws.append(raw)
        return raws

    def _signal(
        self,
        raws: Sequence[NDArray[np.int32]],
        levels: Sequence[tuple[F32, F32]],
        blanks: Sequence[Sequence[int]],
        blocks: Sequence[Block],
    ) -> list[bool]:
        """Fill the cubes with the data columns above both overscans, in the job's unit; 0 where blank.

        Amplifiers that need no correction of these pixels are left to `kernels.isr.load.finish`; returns which ones.
        """
        whole, direct = self._reader.signals(raws, levels, blanks), [False] * len(blocks)
        for a, (channel, block) in enumerate(zip(self._reader.channels, blocks, strict=True)):
            data, columns = channel.amplifier.data, self._columns[a]
            if whole is not None:
                np.subtract(whole[a][:, :, data.x0 : data.x1], columns[:, np.newaxis], out=block.pixels)
            elif blanks[a] or not channel.straight:
                load.signal(raws[a], data.x0, data.x1, *levels[a], columns, channel.gain, block.cube)
            else:
                direct[a] = True
            without_blanks(raws[a], data.x0, data.x1, blanks[a], block.pixels, 0)
        return direct

    def _finish(
        self, a: int, bottom: int, raw: NDArray[np.int32], levels: tuple[F32, F32], block: Block, direct: bool
    ) -> None:
        """Apply bias, dark, scale and saturation to one amplifier's block; ``direct``: the overscans first."""
        channel, exposures, reader = self._reader.channels[a], self._exposures, self._reader
        amplifier, k = channel.amplifier, channel.number
        calibrations = channel.calibration(self._bottom, self._top)
        bias, dark = (whole[bottom - self._bottom :] for whole in calibrations)
        load.finish(
            raw, amplifier.data.x0, amplifier.data.x1, *levels,
            self._columns[a] if direct else self._columns[a][:, :0].copy(), channel.gain,
            reader.ceiling, amplifier.saturation / amplifier.gain, reader.config.saturation,
            bias, dark, exposures.dark_times, exposures.scales[:, k], exposures.offsets[:, k],
            block.cube, block.core.start, block.core.stop, self.saturated[a],
        )  # fmt: skip
        data, first = amplifier.data, bottom + block.core.start
        if not np.isnan(channel.suspect):
            some = channel.suspects(raw, *levels)[:, block.core].any(axis=0)
            self.suspects[a].append(np.argwhere(some) + np.array((first, 0)))
        for n in self._stacks[a].blanks:
            at = places(raw[n, block.core, data.x0 : data.x1], first)
            self.blank[a, n] += len(at)
            self.saturated[a, n] -= len(at)
            self.places[a].append(at)
