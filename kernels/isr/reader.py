"""Fused instrument signature removal: compressed raw rows to cubes of corrected pixels, in memory.

The order is that of IsrTaskLSST: serial overscan, saturation, gain, crosstalk,
parallel overscan, linearity, deferred charge, trim, bias, dark; the flip to the detector's
orientation comes last, with the result.  Every step looks at one row, or at one
column's parallel overscan, so that the result does not depend on how an
amplifier is cut into row blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import crosstalk, linearity
from kernels.calibrations.applied import Calibrations
from kernels.calibrations.config import IsrConfig
from kernels.calibrations.deferred import restore, restoring
from kernels.camera.geometry import Amplifier, Box
from kernels.errors import JobError
from kernels.fits.product import Product
from kernels.fits.raw import Frames, Stack
from kernels.fits.rowbytes import BLANK
from kernels.isr import load
from kernels.isr.blanks import empty, oriented, places, without_blanks
from kernels.isr.overscan import column_levels, serial_levels, serial_region
from kernels.jobs.job import File
from kernels.jobs.scratch import Scratch

F32 = NDArray[np.float32]

SAMPLED_ROWS = 64
#: A block's cube and its raw rows, each, should stay in a core's share of the cache.
CACHE_BYTES = 2_000_000
#: What it may be at most, where its halo would be read again and again.
BLOCK_BYTES = 32 << 20
#: Frames whose parallel overscan is decoded at once.
_SOME = 16
_NOTHING: F32 = np.empty((0, 0), np.float32)


def target(amplifier: Amplifier, first: int, last: int) -> Box:
    """Where data rows ``[first, last)`` lie on the assembled detector."""
    box = amplifier.target
    y0 = amplifier.data.ny - last if amplifier.flip_y else first
    return Box(box.x0, box.y0 + y0, box.nx, last - first)


@dataclass(frozen=True)
class Exposures:
    """The frames of one detector, and what their pixels become.

    Parameters
    ----------
    files : sequence of `File`
        The raw frames.
    dark_times : `numpy.ndarray` [exposure], float32
        second; what the dark is multiplied by.
    scales, offsets : `numpy.ndarray` [exposure, amplifier], float32
        Corrected pixels become (pixel - offset) / scale.
    """

    files: Sequence[File]
    dark_times: F32
    scales: F32
    offsets: F32

    @classmethod
    def plain(cls, files: Sequence[File], dark_times: Sequence[float], amplifiers: int) -> Exposures:
        """Neither scaled nor offset."""
        shape = (len(files), amplifiers)
        times = np.asarray(dark_times, np.float32)
        return cls(files, times, np.ones(shape, np.float32), np.zeros(shape, np.float32))


@dataclass(frozen=True)
class Block:
    """Corrected rows of one amplifier of all frames.

    Parameters
    ----------
    cube : `numpy.ndarray` [row, width], float32
        From `kernels.statistics.network.workspace`: pixels of each frame row by row, as
        they were read, in the job's unit; +infinity where masked.  Used again
        by the next block.
    frames, rows, columns : `int`
        What of it counts.
    core : `slice`
        The rows that are not halo.
    """

    cube: F32
    frames: int
    rows: int
    columns: int
    core: slice

    @property
    def pixels(self) -> F32:
        """View of the cube: [frame, row, column]."""
        return self.cube[: self.frames, : self.rows * self.columns].reshape(self.frames, self.rows, self.columns)

    def image(self, flat: NDArray[Any]) -> NDArray[Any]:
        """What a cube was reduced to [width], as [row, column] without halo."""
        return flat[: self.rows * self.columns].reshape(self.rows, self.columns)[self.core]


class Channel:
    """One amplifier: how its rows are corrected, and what was found in those that were.

    Parameters
    ----------
    number : `int`
        Of the amplifier in the detector.
    """

    def __init__(self, number: int, config: IsrConfig, unit: str, calibrations: Calibrations) -> None:
        self.number = number
        self.amplifier = calibrations.detector.amplifiers[number]
        self.gain = self.amplifier.gain if unit == "electron" else 1.0
        self.config, self._calibrations = config, calibrations
        self._step = max(1, self.amplifier.data.ny // SAMPLED_ROWS)
        self._kept: tuple[tuple[int, int], F32, F32] | None = None
        region, data = serial_region(self.amplifier, config), self.amplifier.data
        self._columns = np.array([data.x0, data.x1])
        self._deferral = calibrations.deferrals[number] if calibrations.deferrals else None
        if self._deferral:
            self._factors = restoring(self._deferral, self.amplifier.read_order(data).x0, data.nx)
        self._overscan = np.array([region.x0, region.x1] if region else [0, 0])

    @property
    def zeroed(self) -> bool:
        """Whether the electronics' offset was subtracted, by an overscan or the bias: what is left is light."""
        parallel = self.config.parallel and self.amplifier.parallel_overscan is not None
        return bool(self._overscan.any()) or parallel or self._calibrations.bias is not None

    @property
    def darkened(self) -> bool:
        """Whether a dark is subtracted."""
        return self._calibrations.dark is not None

    @property
    def whole(self) -> bool:
        """Whether corrected pixels of a frame lie whole converter steps apart."""
        of = self._calibrations
        straight = of.linearity is None and of.crosstalk is None and of.deferrals is None
        return straight and self.config.serial != "meanclip"

    @property
    def level_pixels(self) -> tuple[int, int]:
        """How many pixels the medians of serial and parallel overscan are of; 0 without."""
        parallel = self.amplifier.parallel_overscan if self.config.parallel else None
        return int(np.ptp(self._overscan)), parallel.ny if parallel else 0

    def levels(self, rows: NDArray[np.int32], blanks: Sequence[int]) -> tuple[F32, F32]:
        """Serial overscan of each row; see `kernels.isr.overscan.serial_levels`.

        Of the frames ``blanks``, rows without any overscan become blank.
        """
        base, rest = serial_levels(rows, self.amplifier, self.config)
        for k in blanks:
            lost = np.isnan(base[k])
            rows[k, lost], base[k, lost], rest[k, lost] = BLANK, 0, 0
        return base, rest

    def calibration(self, first: int, last: int) -> tuple[F32, F32]:
        """Bias and dark of data rows ``[first, last)`` as they are read out; empty without.  The last ones are kept."""
        if self._kept is None or self._kept[0] != (first, last):
            box = target(self.amplifier, first, last)

            def read(product: Product | None) -> F32:
                if product is None:
                    return _NOTHING
                return np.ascontiguousarray(oriented(product.read(box), self.amplifier), np.float32)

            self._kept = (first, last), read(self._calibrations.bias), read(self._calibrations.dark)
        return self._kept[1:]

    def straighten(self, pixels: F32) -> None:
        """Take deviation from a straight line and deferred charge out of pixels [frame, row, column], in place."""
        grid = self._calibrations.linearity
        if grid is not None:
            for frame in pixels:
                linearity.apply(frame, grid.values[self.number], float(grid.step[self.number]), self.gain)
        deferral = self._deferral
        if deferral:
            for frame in pixels:
                restore(self.as_read(frame), self._factors, deferral.drift, deferral.kept)

    def as_read(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Columns [..., x] in the order in which they are read, or back from it."""
        return rows[..., ::-1] if self.amplifier.leftwards else rows

    def samples(self, rows: NDArray[np.int32], base: F32, rest: F32, first: int, core: slice) -> NDArray[np.float64]:
        """What `kernels.isr.load.sample` says [frame, row, SAMPLED] of every n-th row of a core from ``first`` on."""
        picked = core.start + np.arange((self._step // 2 - first) % self._step, core.stop - core.start, self._step)
        out = np.empty((len(rows), picked.size, load.SAMPLED))
        if picked.size:
            level = base.astype(np.float64) + rest
            load.sample(rows, picked, self._columns, self._overscan, level, out)
        return out


@dataclass(frozen=True)
class Frame:
    """Corrected rows of one amplifier of one frame.

    Parameters
    ----------
    channel : `Channel`
        The amplifier.
    pixels : `numpy.ndarray` [y, x], float32
        In detector orientation and the job's unit; NaN where masked.
    samples : `numpy.ndarray` [1, sampled row, SAMPLED], float64
        What `kernels.isr.load.sample` says of every n-th row, in the order of the raw rows.
    saturated, blank : `numpy.ndarray` [1], int64
        Number of saturated pixels, and of those that hold no value.
    empty : `numpy.ndarray` [y, x], bool, or `None`
        Which these are; `None`: there are none.
    """

    channel: Channel
    pixels: F32
    samples: NDArray[np.float64]
    saturated: NDArray[np.int64]
    blank: NDArray[np.int64]
    empty: NDArray[np.bool_] | None = None


class Reader:
    """Reads and corrects a group of amplifiers of a detector: a single one, or all where there is crosstalk.

    Parameters
    ----------
    frames : `Frames`
        What reads the files.
    scratch : `Scratch`
        Where blocks are made.
    numbers : sequence of `int`
        Which amplifiers.
    config : `IsrConfig`
        What to correct.
    unit : `str`
        ``electron`` or ``adu``.
    calibrations : `Calibrations`
        What ``config`` asks for.
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
        self._images: list[F32] = []
        self.height = self.channels[0].amplifier.data.ny
        amplifiers = [c.amplifier for c in self.channels]
        boxes = [(a.raw, a.data, a.parallel_overscan or Box(0, 0, 0, 0)) for a in amplifiers]
        sizes = {(raw, data.y0, data.ny, parallel.y0, parallel.ny) for raw, data, parallel in boxes}
        if len(sizes) > 1:
            name = calibrations.detector.name
            raise JobError(f"{name}: crosstalk needs amplifiers of one size; set doCrosstalk: false for it")

    def rows(self, exposures: Exposures, first: int, last: int, halo: int = 0) -> Rows:
        """Read data rows ``[first, last)``, and ``halo`` more on both sides where there are any, of all frames.

        One at a time: the next call takes the same memory.

        Raises
        ------
        DataError
            A file cannot be read.
        """
        return Rows(self, exposures, first, last, halo)

    def step(self, frames: int, halo: int = 0) -> int:
        """Rows of a block that fits into a core's cache; with a halo ten times as many rows, as far as memory goes."""
        row = 4 * frames * max(c.amplifier.raw[0] for c in self.channels) * len(self.channels)
        return max(1, CACHE_BYTES // row, min(10 * halo, BLOCK_BYTES // row))

    def frame(self, file: File, dark_time: float, first: int = 0, last: int | None = None) -> list[Frame]:
        """Read and correct data rows of a single frame: a `Frame` an amplifier, good until the next call.

        Raises
        ------
        DataError
            The file cannot be read.
        """
        top = self.height if last is None else last
        amplifiers = len(self.calibrations.detector.amplifiers)
        rows = self.rows(Exposures.plain([file], [dark_time], amplifiers), first, top)
        shapes = [(top - first, c.amplifier.data.nx) for c in self.channels]
        if [image.shape for image in self._images] != shapes:
            self._images = [np.empty(shape, np.float32) for shape in shapes]
        images = self._images
        for start, blocks in rows.blocks(first, top, self.step(1)):
            for image, block in zip(images, blocks, strict=True):
                image[start - first : start - first + block.rows] = block.pixels[0]
        for image in images:
            image[np.isinf(image)] = np.nan
        return [
            Frame(
                channel,
                oriented(image, channel.amplifier),
                rows.samples(a),
                rows.saturated[a],
                rows.blank[a],
                empty(image.shape, rows.places[a], channel.amplifier, first),
            )
            for a, (channel, image) in enumerate(zip(self.channels, images, strict=True))
        ]

    def stacks(self, files: Sequence[File], first: int, last: int) -> list[Stack]:
        """The compressed bytes of data rows of the group's amplifiers."""
        y0 = self.channels[0].amplifier.data.y0
        return self._stacks(files, y0 + first, y0 + last)

    def _stacks(self, files: Sequence[File], first: int, last: int) -> list[Stack]:
        return [
            self._frames.stack(files, channel.amplifier, first, last, slot)
            for slot, channel in enumerate(self.channels)
        ]

    def signals(
        self,
        raws: Sequence[NDArray[np.int32]],
        levels: Sequence[tuple[F32, F32]],
        blanks: Sequence[Sequence[int]],
    ) -> list[F32] | None:
        """All columns [frame, row, raw width] above their rows' levels, less crosstalk; `None` where there is none.

        A blank pixel, of the frames ``blanks`` of its amplifier, leaves nothing in others.
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
            if channel.amplifier.leftwards:  # pixels that are read at the same time disturb each other
                out[:] = channel.as_read(out).copy()
        crosstalk.correct(signal, coefficients.c0, coefficients.c1)
        whole = signal.reshape(len(raws), frames, rows, width)
        return [channel.as_read(out) for channel, out in zip(self.channels, whole, strict=True)]

    def column_levels(self, exposures: Exposures) -> list[F32]:
        """Parallel overscan [frame, data column], by amplifier: ADU, or the job's unit with crosstalk."""
        if self._columns is None or self._columns[0] is not exposures:  # once for all pieces of an amplifier
            self._columns = exposures, self._column_levels(exposures.files)
        return self._columns[1]

    def _column_levels(self, files: Sequence[File]) -> list[F32]:
        levels = [np.zeros((len(files), c.amplifier.data.nx), np.float32) for c in self.channels]
        box = self.channels[0].amplifier.parallel_overscan  # all of the group's
        if box is None or not self.config.parallel:
            return levels
        for start in range(0, len(files), _SOME):
            some = files[start : start + _SOME]
            raws = [np.empty((len(some), box.ny, c.amplifier.raw[0]), np.int32) for c in self.channels]
            stacks = self._stacks(some, box.y0, box.y1)
            for stack, raw in zip(stacks, raws, strict=True):
                stack.rows(box.y0, box.y1, raw)
            blanks = [stack.blanks for stack in stacks]
            serial = [c.levels(raw, some) for c, raw, some in zip(self.channels, raws, blanks, strict=True)]
            whole = self.signals(raws, serial, blanks)
            for a, channel in enumerate(self.channels):
                data = channel.amplifier.data
                if whole is None:
                    flat = np.empty((len(some), box.ny, data.nx), np.float32)
                    nothing = np.zeros((len(some), data.nx), np.float32)
                    load.signal(raws[a], data.x0, data.x1, *serial[a], nothing, 1.0, flat.reshape(len(some), -1))
                else:
                    flat = whole[a][:, :, data.x0 : data.x1]
                without_blanks(raws[a], data.x0, data.x1, blanks[a], flat, np.inf)
                levels[a][start : start + _SOME] = column_levels(flat)
        return levels


class Rows:
    """Data rows of a group of amplifiers of many frames, read, and corrected block by block.

    Attributes
    ----------
    saturated, blank : `numpy.ndarray` [amplifier, frame], int64
        Saturated pixels, and those that hold no value, halo excluded.
    places : `list` [`list` [`numpy.ndarray`]]
        By amplifier, where pixels that hold no value lie in any frame [n, (data row, data column)].
    """

    def __init__(self, reader: Reader, exposures: Exposures, first: int, last: int, halo: int) -> None:
        self._reader, self._exposures, self._halo = reader, exposures, halo
        self._n, self._height = len(exposures.files), reader.height
        self._bottom, self._top = max(0, first - halo), min(self._height, last + halo)
        self._columns = reader.column_levels(exposures)
        self._stacks = reader.stacks(exposures.files, self._bottom, self._top)
        self._samples: list[list[NDArray[np.float64]]] = [[] for _ in reader.channels]
        self.saturated = np.zeros((len(reader.channels), self._n), np.int64)
        self.blank = np.zeros_like(self.saturated)
        self.places: list[list[NDArray[np.intp]]] = [[] for _ in reader.channels]

    def samples(self, a: int) -> NDArray[np.float64]:
        """What `kernels.isr.load.sample` says [frame, sampled row, SAMPLED] of the group's amplifier ``a``."""
        return np.concatenate(self._samples[a], axis=1)

    def blocks(self, first: int, last: int, step: int) -> Iterator[tuple[int, list[Block]]]:
        """Correct rows ``[first, last)``, ``step`` at a time: the first row, and a `Block` an amplifier.

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
        self._signal(raws, levels, blanks, blocks)
        for a, channel in enumerate(channels):
            channel.straighten(blocks[a].pixels)
            self._finish(a, bottom, raws[a], levels[a], blocks[a])
            self._samples[a].append(channel.samples(raws[a], *levels[a], first, core))
        return blocks

    def _decode(self, bottom: int, top: int) -> list[NDArray[np.int32]]:
        """Raw rows [frame, row, raw width] of every amplifier."""
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
    ) -> None:
        """Fill the cubes with the data columns above both overscans, in the job's unit; 0 where blank."""
        whole = self._reader.signals(raws, levels, blanks)
        for a, (channel, block) in enumerate(zip(self._reader.channels, blocks, strict=True)):
            data, columns = channel.amplifier.data, self._columns[a]
            if whole is None:
                load.signal(raws[a], data.x0, data.x1, *levels[a], columns, channel.gain, block.cube)
            else:
                np.subtract(whole[a][:, :, data.x0 : data.x1], columns[:, np.newaxis], out=block.pixels)
            without_blanks(raws[a], data.x0, data.x1, blanks[a], block.pixels, 0)

    def _finish(self, a: int, bottom: int, raw: NDArray[np.int32], levels: tuple[F32, F32], block: Block) -> None:
        """Bias, dark, scale and saturation of one amplifier's block."""
        channel, exposures, reader = self._reader.channels[a], self._exposures, self._reader
        amplifier, k = channel.amplifier, channel.number
        calibrations = channel.calibration(self._bottom, self._top)
        bias, dark = (whole[bottom - self._bottom :] for whole in calibrations)
        load.finish(
            raw, amplifier.data.x0, amplifier.data.x1, *levels,
            reader.ceiling, amplifier.saturation / amplifier.gain, reader.config.saturation,
            bias, dark, exposures.dark_times, exposures.scales[:, k], exposures.offsets[:, k],
            block.cube, block.core.start, block.core.stop, self.saturated[a],
        )  # fmt: skip
        data = amplifier.data
        for n in self._stacks[a].blanks:
            at = places(raw[n, block.core, data.x0 : data.x1], bottom + block.core.start)
            self.blank[a, n] += len(at)
            self.saturated[a, n] -= len(at)
            self.places[a].append(at)
