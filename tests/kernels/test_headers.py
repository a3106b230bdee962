"""Headers at ingest: read as fitsio reads them, and every way in which a file is not whole."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import sysconfig
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from astropy.io import fits

from kernels.errors import DataError, KernelError
from kernels.fits.cards import BLOCK
from kernels.jobs.job import VERSION, Job, from_plain
from kernels.products.headers import execute, read

pytestmark = pytest.mark.processes

KEYWORDS = ["IMGTYPE", "EXPTIME", "SEQNUM", "LAMP", "OBJECT", "ESO DET OUT1 CONAD", "ABSENT", "NOTHING"]
VALUES = {
    "IMGTYPE": "BIAS",
    "EXPTIME": 1.5e-3,
    "SEQNUM": 310,
    "LAMP": True,
    "OBJECT": "it's / here",
    "ESO DET OUT1 CONAD": 1.1,
}


def pixels(width: int, height: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.random.default_rng(3).normal(1000, 5, (height, width)).astype(np.int32)


def write_segments(path: Path, compress: str | None) -> None:
    """A primary header without data and two image extensions, as the LSST camera's frames have them."""
    with fitsio.FITS(str(path), "rw") as file:
        file.write(None, header=VALUES)
        for name, width in [("Segment10", 96), ("Segment11", 40)]:
            header = {"DATASEC": f"[4:{width - 20},1:80]", "DETSEC": f"[{width}:1,1:80]"}
            file.write(pixels(width, 90), extname=name, header=header, compress=compress)


@pytest.fixture(params=["plain", "tile-compressed", "gzip"])
def frame(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A whole frame in each container; the name does not tell which."""
    path = tmp_path / "frame.fits"
    write_segments(path, "rice" if request.param == "tile-compressed" else None)
    if request.param == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return path, request.param


def test_headers_and_sizes_are_read(frame: tuple[Path, str]) -> None:
    path, container = frame
    found = read(str(path), KEYWORDS)
    assert found["headers"] == VALUES
    assert found["container"] == container
    assert found["bytes"] == path.stat().st_size
    assert [(h["hdu"], h["extname"], h["shape"]) for h in found["hdus"]] == [
        (0, None, []),
        (1, "Segment10", [96, 90]),
        (2, "Segment11", [40, 90]),
    ]
    assert [h["compressed"] for h in found["hdus"][1:]] == [container == "tile-compressed"] * 2
    assert found["hdus"][1]["datasec"] == "[4:76,1:80]"
    assert found["hdus"][1]["detsec"] == "[96:1,1:80]"
    json.dumps(found, allow_nan=False)


def test_a_packed_single_image_counts_as_the_primary(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.fits", tmp_path / "a.fits.fz"
    fitsio.write(str(plain), pixels(64, 48), header=VALUES)
    fitsio.write(str(packed), pixels(64, 48), header=VALUES, compress="rice")
    one, two = read(str(plain), KEYWORDS), read(str(packed), KEYWORDS)
    assert one["headers"] == two["headers"] == VALUES
    assert (
        [(h["hdu"], h["shape"]) for h in one["hdus"]]
        == [(h["hdu"], h["shape"]) for h in two["hdus"]]
        == [(0, [64, 48])]
    )
    assert (one["container"], two["container"]) == ("plain", "tile-compressed")


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(1, 1), (90, 96), (1, 1440), (3, 20, 40)])
def test_the_size_of_a_file_agrees_with_its_headers(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    fitsio.write(str(path), np.zeros(shape, kind))
    assert read(str(path), [])["hdus"][0]["shape"] == list(shape[::-1])


@pytest.mark.parametrize("folder", ["stl1001e", "efosc2", "lsst_headers"])
def test_real_frames_are_whole(folder: str, frames: Callable[[str], Path]) -> None:
    path = sorted(frames(folder).iterdir())[-1]
    keywords = ["INSTRUME", "EXPTIME", "DATE-OBS", "DAYOBS", "SEQNUM", "DARKTIME", "ESO DET OUT1 CONAD"]
    found = read(str(path), keywords)
    with fits.open(path) as file:
        assert found["headers"] == {k: file[0].header[k] for k in keywords if k in file[0].header}
        assert found["container"] == "gzip"
        assert [h["extname"] or "" for h in found["hdus"]] == [hdu.name.removeprefix("PRIMARY") for hdu in file]
        assert [h["shape"][::-1] for h in found["hdus"][:17]] == [list(hdu.shape) for hdu in file[:17]]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Bias_ASIImg_frame0001.fit", "HDU 0: EXPTIME is 3,2E-05, which is no FITS value"),
        (
            "Flat_ASIImg_frame0001.fit",
            "HDU 0: truncated in its data, 2465280 bytes expected by its end, 2097152 found",
        ),
    ],
)
def test_real_broken_frames_are_told_why(name: str, why: str, frames: Callable[[str], Path]) -> None:
    path = str(frames("broken") / name)
    with pytest.raises(DataError) as caught:
        read(path, ["INSTRUME", "EXPTIME"])
    assert (caught.value.path, caught.value.why) == (path, why)


@pytest.mark.parametrize("compress", [None, "rice"])
def test_a_file_cut_anywhere_is_told(compress: str | None, tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    write_segments(path, compress)
    whole = path.read_bytes()
    ends = _ends(path)
    cuts = {n * BLOCK + d for n in range(len(whole) // BLOCK) for d in (1, BLOCK // 2, BLOCK)}
    cuts |= {data_end + d for data_end, _ in ends for d in (-1, 0, 1)}
    for cut in sorted(cuts - {0, 1 + len(whole)}):
        path.write_bytes(whole[:cut])
        fitting = [n for n, (data_end, end) in enumerate(ends) if data_end <= cut <= end]
        if fitting:  # nothing but padding is lost of these HDUs, and all of the others
            assert len(read(str(path), KEYWORDS)["hdus"]) == fitting[0] + 1
            continue
        with pytest.raises(DataError, match=r"truncated|not a FITS file|after the last HDU"):
            read(str(path), KEYWORDS)


def _ends(path: Path) -> list[tuple[int, int]]:
    """Where each HDU's data, and its padding, end, by cfitsio and astropy."""
    with fitsio.FITS(str(path)) as file, fits.open(path, disable_image_compression=True) as same:
        sizes = [hdu.size for hdu in same]
        offsets = [hdu.get_offsets() for hdu in file]
        found = [(o["data_start"] + size, o["data_end"]) for o, size in zip(offsets, sizes, strict=True)]
        end = path.read_bytes().index(b"END" + b" " * 77)
        return [(end + 8, found[0][1]), *found[1:]]  # the primary HDU has no data


@pytest.mark.parametrize(
    ("keep", "why"),
    [
        (BLOCK + 100, "HDU 1: truncated in its header, no END card in the blocks of bytes 2880 to 2980"),
        (2 * BLOCK + 40, r"HDU Segment10: truncated in its data, \d+ bytes expected by its end, 5800 found"),
    ],
)
def test_a_cut_is_told_with_its_bytes(keep: int, why: str, tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    write_segments(path, None)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=why):
        read(str(path), [])


@pytest.mark.parametrize("extra", [b"\0", b"garbage", b"\0" * BLOCK, b"x" * 3 * BLOCK])
def test_something_after_the_end_is_counted(extra: bytes, tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    write_segments(path, None)
    before = read(str(path), KEYWORDS)
    path.write_bytes(path.read_bytes() + extra)
    assert read(str(path), KEYWORDS) == before | {"after": len(extra), "bytes": path.stat().st_size}


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (b"XTENS", "5 bytes after the last HDU, at byte {size}"),
        (b"SIMPLE  =                    T", "another FITS file follows at byte {size}"),
    ],
)
def test_what_follows_may_not_be_the_beginning_of_more(extra: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    write_segments(path, None)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + extra)
    with pytest.raises(DataError, match=why.format(size=size)):
        read(str(path), [])


def test_a_gzip_stream_cut_anywhere_is_told(tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    write_segments(path, None)
    whole = gzip.compress(path.read_bytes(), mtime=0)
    for cut in [3, 11, 200, len(whole) // 2, len(whole) - 9, len(whole) - 8, len(whole) - 4, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"corrupt after .* unpacked bytes"):
            read(str(path), [])


@pytest.mark.parametrize(("offset", "what"), [(-8, "CRC check failed"), (-4, "Incorrect length"), (-2000, "corrupt")])
def test_a_gzip_stream_with_a_flipped_bit_is_told(offset: int, what: str, tmp_path: Path) -> None:
    """In the checksum, in the length, and amid the pixels."""
    path = tmp_path / "frame.fits"
    write_segments(path, None)
    packed = bytearray(gzip.compress(path.read_bytes(), mtime=0))
    packed[offset] ^= 1
    path.write_bytes(packed)
    with pytest.raises(DataError, match=what):
        read(str(path), [])


def test_a_gzipped_frame_that_was_cut_before_is_told(tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    write_segments(path, None)
    path.write_bytes(gzip.compress(path.read_bytes()[:-BLOCK], mtime=0))
    with pytest.raises(DataError, match="HDU Segment11: truncated in its data"):
        read(str(path), [])


def test_something_after_a_gzip_stream_is_told(tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    write_segments(path, None)
    path.write_bytes(gzip.compress(path.read_bytes(), mtime=0) + b"garbage")
    with pytest.raises(DataError, match="corrupt"):
        read(str(path), [])


def test_a_large_gzipped_frame_is_checked_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    fitsio.write(str(path), np.zeros((4096, 4096), np.int32))
    path.write_bytes(gzip.compress(path.read_bytes(), 1, mtime=0))
    tracemalloc.start()
    try:
        read(str(path), [])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20  # of 64 MiB unpacked


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"SIM", "not a FITS file: it starts with 3 bytes"),
        (b"hello, world" * 1000, "not a FITS file: it starts with 'hello, wo'"),
        (b"\x89PNG" + b"\0" * 5000, "not a FITS file"),
        (gzip.compress(b"hello, world" * 1000, mtime=0), "not a FITS file: it starts with 'hello, wo'"),
        (
            b"SIMPLE  =                    T".ljust(80) * 72,
            "HDU 0: truncated in its header, no END card in the blocks of bytes 0 to 5760",
        ),
    ],
)
def test_what_is_not_fits_is_told(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(str(path), [])
    assert why in caught.value.why


def test_a_header_without_end_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    path.write_bytes(b"SIMPLE  =                    T".ljust(80) + b" " * 7_000_000)
    with pytest.raises(DataError, match="no END card in the blocks of bytes 0 to 57"):
        read(str(path), [])


def test_a_folder_and_a_missing_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Is a directory"):
        read(str(tmp_path), [])
    with pytest.raises(DataError, match="No such file or directory"):
        read(str(tmp_path / "gone.fits"), [])


@pytest.mark.parametrize(
    ("card", "instead", "why"),
    [
        (b"NAXIS1  =", b"NAXIS1  =                 -640", "HDU 0: NAXIS1 is -640, not a whole number"),
        (b"NAXIS1  =", b"NAXIS9  =                  640", "HDU 0: NAXIS1 is None, not a whole number"),
        (b"NAXIS   =", b"NAXIS   =                  1.5", "HDU 0: NAXIS is 1.5, not a whole number"),
        (b"BITPIX  =", b"BITPIX  =                   12", "HDU 0: BITPIX is 12"),
        (b"BITPIX  =", b"BITPIX  =                  1,6", "HDU 0: BITPIX is 1,6, which is no FITS value"),
        (b"EXPTIME =", b"EXPTIME =                1.2.3", "HDU 0: EXPTIME is 1.2.3, which is no FITS value"),
        (b"EXPTIME =", b"EXPTIME = 'unclosed", "HDU 0: EXPTIME is 'unclosed, which is no FITS value"),
    ],
)
def test_a_malformed_card_is_told(card: bytes, instead: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    fitsio.write(str(path), pixels(64, 48), header=VALUES)
    whole = path.read_bytes()
    at = whole.index(card)
    path.write_bytes(whole[:at] + instead.ljust(80) + whole[at + 80 :])
    with pytest.raises(DataError) as caught:
        read(str(path), KEYWORDS)
    assert caught.value.why == why


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5D-3 / s", 1.5e-3),
        ("+.5", 0.5),
        ("-7", -7),
        ("F", False),
        ("'a''b  ' / c", "a'b"),
        ("'  x'", "  x"),
        ("''", ""),
    ],
)
def test_values_are_read_as_the_standard_says(text: str, value: Any, tmp_path: Path) -> None:
    cards = ["SIMPLE  =                    T", "BITPIX  = 8", "NAXIS   = 0", f"EXPTIME = {text}", "END"]
    path = tmp_path / "frame.fits"
    path.write_bytes("".join(c.ljust(80) for c in cards).encode().ljust(BLOCK))
    found = read(str(path), ["EXPTIME"])["headers"]["EXPTIME"]
    assert found == value and type(found) is type(value)


def _job(folder: Path, paths: list[Path], ranks: int = 1) -> dict[str, Any]:
    return {
        "version": VERSION, "kernel": "headers", "run": "r", "attempt": 1, "site": "here", "token": 1, "ranks": ranks,
        "journal": str(folder / "journal"), "camera": {},
        "config": {"keywords": ["IMGTYPE", "SEQNUM"], "result": str(folder / "found.jsonl")},
        "files": {f"f{n}": {"path": str(p)} for n, p in enumerate(paths)},
        "tasks": [{"task": f"headers:{n}", "inputs": {"raw": [f"f{n}"]}} for n in range(len(paths))],
    }  # fmt: skip


def _job_of(plain: dict[str, Any]) -> Job:
    return from_plain(plain)


@pytest.fixture
def mixed(tmp_path: Path) -> list[Path]:
    """Seven files of which two are no frames."""
    paths = [tmp_path / f"raw{n}.fits" for n in range(7)]
    for n, path in enumerate(paths):
        fitsio.write(str(path), pixels(8, 8), header={"IMGTYPE": "DARK", "SEQNUM": n})
    paths[2].write_bytes(b"")
    paths[5].unlink()
    return paths


def _expected(paths: list[Path]) -> list[tuple[str, Any]]:
    errors = {2: "the file is empty", 5: "No such file or directory"}
    return [(str(p), errors.get(n, {"IMGTYPE": "DARK", "SEQNUM": n})) for n, p in enumerate(paths)]


def _found(folder: Path) -> list[tuple[str, Any]]:
    lines = [json.loads(line) for line in (folder / "found.jsonl").read_text().splitlines()]
    return [(line["path"], line.get("error") or line["headers"]) for line in lines]


def test_a_job_writes_one_line_a_frame(mixed: list[Path], tmp_path: Path) -> None:
    assert execute(_job_of(_job(tmp_path, mixed)), None) == 2
    assert _found(tmp_path) == _expected(mixed)
    assert list(tmp_path.glob(".*")) == []


def test_ranks_share_the_frames(mixed: list[Path], tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps(_job(tmp_path, mixed, ranks=3)))
    launcher = Path(sysconfig.get_path("scripts")) / "mpiexec"
    if not launcher.exists():
        pytest.skip(f"no MPI launcher at {launcher}")
    command = [str(launcher), "-n", "3", sys.executable, "-P", "-m", "mpi4py", "-m", "kernels.run"]
    done = subprocess.run([*command, str(tmp_path / "job.json")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert _found(tmp_path) == _expected(mixed)


def test_a_result_that_cannot_be_written_is_told(mixed: list[Path], tmp_path: Path) -> None:
    plain = _job(tmp_path, mixed)
    plain["config"]["result"] = str(tmp_path / "found.jsonl" / "deeper.jsonl")
    (tmp_path / "found.jsonl").write_text("")
    with pytest.raises(KernelError, match=r"deeper.jsonl: cannot be written: .*Not a directory"):
        execute(_job_of(plain), None)
