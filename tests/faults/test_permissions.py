"""Item 30: places that may not be written or read are found beforehand, with path and uid."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import CALIB, NOBODY, Answer, Operator

#: Lets a plain user read and search everything, Python's own files too, and write nothing that is not his.
READER = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
READER += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


@pytest.fixture
def plain_user(operator: Operator, tmp_path: Path) -> Callable[..., Answer]:
    """Run a command as a user without rights; a plain user is one himself."""
    start = READER if os.geteuid() == 0 else []
    if start and subprocess.run([*start, "true"], capture_output=True).returncode:
        pytest.skip("root may do everything here: no setpriv, or no capabilities to give")
    home = tmp_path / "home"
    home.mkdir(mode=0o777)
    home.chmod(0o777)

    def run(*arguments: str, **more: str) -> Answer:
        line = [*start, sys.executable, "-P", "-B", "-m", "campaign", *arguments]
        own = {"CAMPAIGN_HOME": str(home), "SCRATCH": str(home), "HOME": str(home), "TMPDIR": str(home)}
        environment = {**os.environ, **operator.variables, **own, **more}
        done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def uid() -> int:
    return NOBODY if os.geteuid() == 0 else os.geteuid()


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Callable[[Path, int], Path]]:
    """Change modes, and change them back."""
    before: list[tuple[Path, int]] = []

    def close(path: Path, mode: int) -> Path:
        before.append((path, path.stat().st_mode & 0o777))
        path.chmod(mode)
        return path

    yield close
    for path, mode in reversed(before):
        path.chmod(mode)


def test_item_30_a_repository_that_may_not_be_written(
    operator: Operator, plain_user: Callable[..., Answer], closed: Callable[[Path, int], Path], uid: int
) -> None:
    closed(operator.repo, 0o555)
    closed(operator.repo / "gen3.sqlite3", 0o444)
    answer = plain_user("submit", "bps_bias", "--ranks", "1", TAG="denied")
    assert answer.code == 3
    assert answer.err.startswith(f"error: permission denied on {operator.repo} as uid {uid}\n  -> ask its owner")
    assert operator.products("denied") == []


@pytest.mark.parametrize("name", ["SCRATCH", "CAMPAIGN_HOME"])
def test_item_30_a_folder_that_may_not_be_written(
    operator: Operator,
    plain_user: Callable[..., Answer],
    closed: Callable[[Path, int], Path],
    tmp_path: Path,
    uid: int,
    name: str,
) -> None:
    """Every place that the run writes to is tried before anything is claimed."""
    closed(operator.repo, 0o777)
    closed(operator.repo / "gen3.sqlite3", 0o666)
    for folder in (operator.repo / CALIB / "any").parents:
        if folder.exists() and folder.is_relative_to(operator.repo):
            closed(folder, 0o777)
    place = tmp_path / "theirs"
    place.mkdir(mode=0o555)
    before = operator.left()
    answer = plain_user("submit", "bps_bias", "--ranks", "1", TAG="denied", **{name: str(place)})
    assert answer.code == 4, answer
    assert f"error: {place}: cannot be written: Permission denied (uid {uid})" in answer.err
    assert operator.left()[0] == before[0]


def test_item_30_products_that_may_not_be_written(
    operator: Operator, plain_user: Callable[..., Answer], closed: Callable[[Path, int], Path], uid: int
) -> None:
    closed(operator.repo, 0o777)
    closed(operator.repo / "gen3.sqlite3", 0o666)
    place = operator.repo / CALIB / "theirs"
    place.mkdir(parents=True)
    place.chmod(0o555)
    answer = plain_user("check", "bps_bias", "--ranks", "1", TAG="theirs")
    assert answer.code == 4, answer
    assert f"{place}: cannot be written: Permission denied (uid {uid})" in answer.err
    place.rmdir()


@pytest.mark.processes
def test_item_30_a_frame_that_may_not_be_read() -> None:
    """Tried by a process that gives up its rights when all that it needs is imported, as root reads everything."""
    script = (
        "import os, sys\n"
        "from campaign.planning.inputs import unreadable\n"
        f"if os.geteuid() == 0: os.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)\n"
        "print(unreadable(sys.argv[1:]))\n"
    )
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are shut to others
        Path(name).chmod(0o755)
        shut, open_ = Path(name, "shut.fits"), Path(name, "open.fits")
        for path, mode in ((shut, 0o000), (open_, 0o444)):
            path.touch()
            path.chmod(mode)
        line = [sys.executable, "-P", "-c", script, str(shut), str(open_)]
        done = subprocess.run(line, capture_output=True, text=True)
    assert done.stdout == f"{[str(shut)]}\n", done.stderr
