"""Items 21 and 22: somebody holds the repository's database, and clocks are wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import soak
from tests.faults.conftest import Operator

#: Opens the database, reads, and stays.
READER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("begin")
print(database.execute("select count(*) from collection").fetchone(), flush=True)
sys.stdin.read()
"""


@contextmanager
def reader(database: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold a repository's database open, in the middle of a reading."""
    line = [sys.executable, "-P", "-c", READER, str(database)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout and process.stdout.readline()
        yield process
        if not process.stdin.closed:
            process.stdin.close()


def held(operator: Operator, tag: str, seconds: float) -> tuple[int, str, str, int]:
    """Submit while a reader ends ``seconds`` after the notice; give code, output, errors, and the reader."""
    process = operator.start("submit", "bps_bias", "--ranks", "1", TAG=tag)
    assert process.stderr is not None
    with reader(operator.repo / "gen3.sqlite3") as other:
        said = process.stderr.readline()
        time.sleep(seconds)
        assert process.poll() is None
    out, err = process.communicate(timeout=60)
    return process.returncode, out, said + err, other.pid


def test_item_21_a_reader_holds_the_database(operator: Operator) -> None:
    """The writer waits, names the reader, and loses nothing."""
    code, out, err, pid = held(operator, "locked", 0.0)
    assert code == 0, err
    database = operator.repo / "gen3.sqlite3"
    first = err.splitlines()[0]
    assert first.startswith(f"waiting for the repository's database {database}: process {pid} (")
    assert re.search(r"\) holds it open \(\d+ s\)$", first)
    assert "published   4 of 4 tasks" in out
    assert operator.recorded("locked") == 8 == len(operator.products("locked"))


@pytest.mark.soak
def test_item_21_a_reader_holds_the_database_for_longer_than_the_butler_waits(operator: Operator) -> None:
    code, _, err, pid = held(operator, "locked-long", 320.0)
    assert code == 0, err
    assert re.search(rf"is locked: process {pid} \(.*\) holds it open; trying again", err)
    assert operator.recorded("locked-long") == 8


def shifted(path: Path, hours: float) -> None:
    """Have a journal's writer live in another hour; its file, too."""
    lines = []
    for line in path.read_text().splitlines():
        event = json.loads(line)
        event["t"] = (datetime.fromisoformat(event["t"]) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        lines.append(json.dumps(event, separators=(",", ":")) + "\n")
    path.write_text("".join(lines))
    when = time.time() + 3600 * hours
    os.utime(path, (when, when))


def told(operator: Operator, tag: str) -> list[dict[str, object]]:
    """Give the answer of `status` about a tag's runs, without times."""
    runs = json.loads(operator.run("status", "--json").out)["runs"]
    keys = ("run", "state", "published", "failed", "output_run")
    return [{key: run.get(key) for key in keys} for run in runs if f"/{tag}/" in run["output_run"]]


@pytest.mark.parametrize(("kernels", "driver"), [(1.0, -1.0), soak(-1.0, 1.0)], ids=["ahead", "behind"])
def test_item_22_clocks_that_are_hours_apart(operator: Operator, kernels: float, driver: float) -> None:
    """The order of a writer's lines and the content of files count, not the time of a clock."""
    tag = "ahead" if kernels > 0 else "behind"
    assert operator.submit(tag).code == 0
    before = told(operator, tag)
    assert [run["state"] for run in before] == ["done"]
    for path in operator.folder(tag).glob("journal/*.jsonl"):
        shifted(path, driver if path.name == "driver.jsonl" else kernels)
    for path in operator.products(tag):
        os.utime(path, (time.time() + 3600 * kernels,) * 2)
    assert told(operator, tag) == before
    assert operator.run("certify", "bps_bias", "--chain", f"LSSTComCam/calib/DM-00000/{tag}", TAG=tag).code == 0
    raw = operator.raw(0, 0)
    times = raw.stat().st_atime, raw.stat().st_mtime
    os.utime(raw, (time.time() + 3600 * kernels,) * 2)
    try:
        again = operator.submit(tag, RERUN="20241208b")
    finally:
        os.utime(raw, times)
    assert again.code == 0, again.err
