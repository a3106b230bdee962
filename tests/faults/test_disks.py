"""Items 12, 13 and 15: disks that are full, or hang."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.conftest import Operator

KIB = 1 << 10


def job_elsewhere(operator: Operator, tag: str, place: Path) -> Path:
    """The combine's job of a run, made to write somewhere else."""
    plain = json.loads(next(operator.folder(tag).glob("jobs/cpBiasCombine*.json")).read_text())
    plain["journal"], plain["config"]["inputs_table"] = f"{place}/journal/combine", f"{place}/inputs"
    for task in plain["tasks"]:
        task["outputs"] = {kind: f"{place}/{Path(path).name}" for kind, path in task["outputs"].items()}
    (place / "job.json").write_text(json.dumps(plain))
    return place / "job.json"


def test_item_12_a_quota_is_reached_while_a_product_is_written(operator: Operator, tmp_path: Path) -> None:
    """No file may be larger than 16 KiB: nothing of the product is left, and with more room it is made."""
    assert operator.submit("roomy").code == 0
    job = job_elsewhere(operator, "roomy", tmp_path)

    def run(**how: Any) -> tuple[int, str, list[dict[str, Any]]]:
        line = [sys.executable, "-P", "-m", "kernels.run", str(job)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, **how)
        text = (tmp_path / "journal" / "combine.r0.jsonl").read_text()
        return done.returncode, done.stderr, [json.loads(line) for line in text.splitlines()]

    code, err, events = run(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16 * KIB, 16 * KIB)))
    assert (code, err) == (1, "")
    assert [event["event"] for event in events] == ["started", "failed"] * 2
    for event in events[1::2]:
        assert event["detail"]["error"].endswith("cannot be written: File too large"), event
        assert event["detail"]["cause"] == "disk"
    assert list(tmp_path.glob("bias*")) + list(tmp_path.glob(".*")) == []
    code, _, events = run()
    assert (code, [event["event"] for event in events[4:]]) == (0, ["started", "published"] * 2)
    assert len(list(tmp_path.glob("bias*.fits"))) == 2


def filled(path: Path) -> None:
    """Write a file until the disk has no room for another byte."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4 * KIB)):
            pass


def test_item_13_the_disk_of_the_journal_is_full(operator: Operator, disk: Callable[..., Path], tmp_path: Path) -> None:
    """A job that cannot be recorded is not started, and the run does not end as if it were done."""
    scratch = disk(tmp_path / "scratch", "size=4m")
    more = {"SCRATCH": str(scratch), "TAG": "unrecorded"}
    with operator.start("submit", "bps_bias", "--ranks", "1", "--json", **more) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # the run has begun
        filled(scratch / "others")
        _, err = process.communicate(timeout=60)
    print(process.returncode, err)
    assert process.returncode in (1, 75)
    assert "Traceback" not in err
    assert "o space left on" in err and str(scratch) in err, err
    (scratch / "others").unlink()
    assert "the kernel ended with code 3" not in err  # a full disk is no operator's mistake: exit code for another try
    lines = [json.loads(line) for path in scratch.rglob("journal/*.jsonl") for line in path.read_text().splitlines()]
    published = {
        p["path"] for e in lines if e["event"] == "published" for p in e["detail"].values() if "path" in str(p)
    }
    assert {str(path) for path in operator.products("unrecorded")} <= published
    assert operator.recorded("unrecorded") <= len(published)


def test_item_15_a_frame_cannot_be_opened_for_seconds(operator: Operator) -> None:
    """A lease has the kernel hold up whoever opens the file, as a file server does that is away: the run waits."""
    asked = threading.Event()
    before = signal.signal(signal.SIGIO, lambda *_: asked.set())
    handle = os.open(operator.raw(0, 1), os.O_RDONLY)
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with operator.start("submit", "bps_bias", "--ranks", "1", TAG="hanging") as process:
            until = time.monotonic() + 30
            while not asked.wait(0.05) and time.monotonic() < until:
                assert process.poll() is None, process.communicate()
            assert asked.is_set()
            time.sleep(2.0)
            assert process.poll() is None
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            out, err = process.communicate(timeout=60)
    finally:
        os.close(handle)
        signal.signal(signal.SIGIO, before)
    assert process.returncode == 0, err
    assert "published   4 of 4 tasks" in out
    assert {event["event"] for event in operator.events("hanging")} <= {"submitted", "started", "published", "done"}
