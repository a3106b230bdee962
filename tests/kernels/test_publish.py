"""Nothing under its final name is partial or overwritten, whatever happens in between."""

from __future__ import annotations

import grp
import hashlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits as astropy_fits

from kernels.fits import product
from kernels.jobs.publish import PublishError, publish, publish_all
from kernels.products import levels

pytestmark = pytest.mark.processes

ROOT = os.getuid() == 0
CONTENT = b"pixels" * 1000


def put(path: str, content: bytes = CONTENT) -> None:
    Path(path).write_bytes(content)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A tiny file system of its own."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(["size=64k", *options]), "tmpfs", str(folder)]
    if not ROOT or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_the_detail_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "bias.fits"
    detail = publish(str(path), put, "run.1", {})
    assert detail == {"path": str(path), "bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def test_a_checksum_that_the_writer_knows_is_taken(tmp_path: Path) -> None:
    def write(path: str) -> str:
        put(path)
        return "known"

    assert publish(str(tmp_path / "a"), write, "run.1", {})["sha256"] == "known"


def test_the_file_is_written_beside_under_another_name(tmp_path: Path) -> None:
    seen = []

    def write(path: str) -> None:
        seen.append(Path(path).name)
        put(path)
        assert not (tmp_path / "bias.fits").exists()

    publish(str(tmp_path / "bias.fits"), write, "run.2", {})
    assert seen == [".bias.fits.run.2.tmp"]


def test_a_product_waits_twice_for_the_disk_before_and_after_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, fsync = [], os.fsync

    def counted(handle: int) -> None:
        waits.append((Path(os.readlink(f"/proc/self/fd/{handle}")), (tmp_path / "bias.fits").exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", counted)
    publish(str(tmp_path / "bias.fits"), put, "run.1", {})
    assert waits == [(tmp_path / ".bias.fits.run.1.tmp", False), (tmp_path, True)]


def test_a_product_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "bias.fits"
    path.write_text("precious")
    with pytest.raises(PublishError, match="bias.fits: exists already; a product is never overwritten"):
        publish(str(path), put, "run.1", {})
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("error writing"), ValueError("a defect"), KeyboardInterrupt()])
def test_a_failed_write_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def write(path: str) -> None:
        put(path)
        raise error

    with pytest.raises(PublishError if isinstance(error, OSError) else type(error)):
        publish(str(tmp_path / "bias.fits"), write, "run.1", {})
    assert not list(tmp_path.iterdir())


def test_a_task_is_published_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("precious")
    with pytest.raises(PublishError, match="/b: exists already"):
        publish_all({name: (str(tmp_path / name), put) for name in "abc"}, "run.1", {})
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    (tmp_path / "b").unlink()
    detail = publish_all({name: (str(tmp_path / name), put) for name in "abc"}, "run.1", {})
    assert {name: d["path"] for name, d in detail.items()} == {n: str(tmp_path / n) for n in "abc"}


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with mounted(tmp_path / "full") as disk:
        for write in (lambda p: put(p, bytes(1 << 20)), lambda p: product.write(p, [], np.zeros((500, 500), "f4"))):
            with pytest.raises(PublishError, match="bias.fits: cannot be written: no space left on the disk of .*full"):
                publish(str(disk / "bias.fits"), write, "run.1", {})
            assert not list(disk.iterdir())
        with pytest.raises(PublishError, match="a.csv: cannot be written: no space left"):
            levels.write(str(disk / "a.csv"), [["x" * 1000]] * 1000)
        assert not list(disk.iterdir())


def test_a_read_only_disk_is_said(tmp_path: Path) -> None:
    with mounted(tmp_path / "ro", "ro") as disk:
        for path in (disk / "bias.fits", disk / "new" / "bias.fits"):
            with pytest.raises(PublishError, match=f"cannot be written: {disk} is not writable for uid 0"):
                publish(str(path), put, "run.1", {})
        with pytest.raises(PublishError, match=f"a.csv: cannot be written: {disk} is not writable"):
            levels.write(str(disk / "a.csv"), [])


@pytest.mark.skipif(ROOT, reason="root may write anywhere")
def test_a_read_only_folder_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(PublishError, match=f"{tmp_path} is not writable for uid {os.getuid()}"):
        publish(str(tmp_path / "bias.fits"), put, "run.1", {})


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(PublishError, match="a/b/bias.fits: cannot be written: "):
        publish(str(tmp_path / "a" / "b" / "bias.fits"), put, "run.1", {})


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_the_umask_is_obeyed(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        publish(str(tmp_path / "a"), put, "run.1", {})
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "a") == 0o666 & ~umask


def test_the_site_gives_mode_and_group(tmp_path: Path) -> None:
    other = next((g for g in (os.getgroups() if not ROOT else [1]) if g != os.getgid()), os.getgid())
    publish(str(tmp_path / "a"), put, "run.1", {"mode": "0640", "group": grp.getgrgid(other).gr_name})
    assert mode_of(tmp_path / "a") == 0o640
    assert (tmp_path / "a").stat().st_gid == other


def test_an_unknown_group_is_said(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="name not found: 'nobodies'"):
        publish(str(tmp_path / "a"), put, "run.1", {"group": "nobodies"})
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from kernels.jobs import publish
when = sys.argv[2]
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
def write(path):
    with open(path, "wb") as file:
        file.write(b"half")
        file.flush()
        if when == "write": die()
if when == "commit": publish._commit = die
publish.publish(sys.argv[1], write, "run.1", {})
"""


@pytest.mark.parametrize("when", ["write", "commit"])
def test_a_killed_writer_leaves_no_product_and_can_be_repeated(tmp_path: Path, when: str) -> None:
    path = tmp_path / "bias.fits"
    done = subprocess.run([sys.executable, "-P", "-c", KILLED, str(path), when], timeout=30)
    assert done.returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir()] == [".bias.fits.run.1.tmp"]
    publish(str(path), put, "run.1", {})
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == CONTENT


def test_a_disk_without_hard_links_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such file systems (FAT, some network ones) answer EPERM; there is none here to mount."""

    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    publish(str(tmp_path / "a"), put, "run.1", {})
    with pytest.raises(PublishError, match="exists already"):
        publish(str(tmp_path / "a"), lambda p: put(p, b"other"), "run.1", {})
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert len(list(tmp_path.iterdir())) == 1


def test_the_checksums_of_a_product_are_valid(tmp_path: Path) -> None:
    path, image = tmp_path / "a.fits", np.random.default_rng(1).normal(size=(30, 20)).astype("f4")
    cards = [("OBSTYPE", "bias", "a comment"), ("A_LONG_KEYWORD", "x" * 150, ""), ("N", 3, "")]
    mask = (image > 1).astype("i4")
    detail = publish(str(path), lambda p: product.write(p, cards, image, mask, image**2), "run.1", {})
    content = path.read_bytes()
    assert detail == {"path": str(path), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with astropy_fits.open(path, checksum=True) as fits:  # a wrong sum is a warning, and a warning an error
        fits.verify("exception")
        assert all("DATASUM" in hdu.header and "CHECKSUM" in hdu.header for hdu in fits)
        assert fits[0].header["A_LONG_KEYWORD"] == "x" * 150
        np.testing.assert_array_equal(fits["IMAGE"].data, image)
        np.testing.assert_array_equal(fits["MASK"].data, mask)
        np.testing.assert_array_equal(fits["VARIANCE"].data, image**2)
