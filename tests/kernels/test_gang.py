"""Real MPI worlds: the same bits for all ranks and row blocks, and a clear end for each failure."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest

from kernels.errors import DataError, JobError
from kernels.isr import reader as isr
from kernels.jobs import gang, job
from kernels.jobs.publish import PublishError

pytestmark = pytest.mark.processes

N = 6
Plain = dict[str, Any]
Planes = dict[str, bytes]


@pytest.fixture(scope="module")
def raws(shared_lab: Any) -> dict[int, list[str]]:
    """Flats of three detectors with a gradient, hit by cosmic rays at the edges of every possible row block."""
    rng, found = np.random.default_rng(8), {}
    gradient = np.linspace(1500, 2500, shared_lab.size[0])[None, :]
    for d in (0, 1, 2):
        found[d] = []
        for n in range(N):
            electrons = rng.poisson(np.broadcast_to((1 + 0.1 * n) * (1 + 0.05 * d) * gradient, shared_lab.size[::-1]))
            hits = rng.integers(0, electrons.size, 5)
            electrons.flat[hits] += rng.integers(900, 9000, 5)
            found[d].append(shared_lab.write(f"flat{n}-{d}.fits", shared_lab.expose(rng, electrons)))
    return found


@pytest.fixture(scope="module")
def calibrations(shared_lab: Any) -> dict[int, dict[str, str]]:
    """Bias and dark of each detector."""
    rng, shape = np.random.default_rng(9), shared_lab.size[::-1]
    mask = (rng.random(shape) < 0.01).astype(np.int32)
    return {
        d: {
            "bias": shared_lab.product(f"bias{d}.fits", rng.normal(0, 3, shape), mask, detector=d),
            "dark": shared_lab.product(f"dark{d}.fits", rng.normal(0.1, 0.01, shape), detector=d),
        }
        for d in (0, 1, 2)
    }


def combine(lab: Any, raws: Any, name: str, cosmic: bool = False, **config: Any) -> Plain:
    outputs = {d: str(lab.folder / name / f"dark{d}.fits") for d in raws}
    parameters = lab.parameters(N, 30.0) | {"scales": [1 + 0.1 * n for n in range(N)]}
    tasks = [
        {"task": f"dark:{d}", "detector": d, "inputs": {"raw": paths}, "outputs": {"dark": outputs[d]},
         "parameters": parameters}
        for d, paths in raws.items()
    ]  # fmt: skip
    flag = {"fwhm": 3.0, "nsigma": 6.0, "grow": 2} if cosmic else None
    plain: Plain = lab.job("combine", tasks, name=name, config={"type": "dark", "cosmic": flag, **config})
    return plain


def planes(plain: Plain) -> Planes:
    """Every plane of every product, and the inputs table."""
    found = {}
    for task in plain["tasks"]:
        for kind, path in task["outputs"].items():
            with fitsio.FITS(path) as fits:
                found |= {f"{task['task']} {kind} {hdu.get_extname()}": hdu.read().tobytes() for hdu in fits[1:]}
    tables = sorted(Path(plain["config"]["inputs_table"]).iterdir())
    return found | {table.name: table.read_bytes() for table in tables}


def events(lab: Any, plain: Plain) -> dict[str, dict[str, Any]]:
    """The last event of each task."""
    return {e["task"]: e for e in lab.journal(plain)}


@pytest.mark.parametrize("cosmic", [False, True])
def test_ranks_and_row_blocks_change_no_bit(
    shared_lab: Any, raws: Any, cosmic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece is ``rows`` of an amplifier for one rank; ``step`` rows of it are in the cache at a time."""

    def made(name: str, ranks: int, rows: int, step: int = 1000) -> Planes:
        monkeypatch.setattr(isr, "CACHE_BYTES", step * 4 * N * shared_lab.amplifiers[0]["raw"][0])
        name = f"{name}{step}"
        block = rows * 4 * N * shared_lab.amplifiers[0]["raw"][0]
        plain = combine(shared_lab, raws, f"{name}{ranks}-{rows}-{cosmic}", cosmic, piece_bytes=block)
        if ranks == 1:
            assert shared_lab.serial(plain) == 0
        else:
            done = shared_lab.mpi(plain, ranks)
            assert done.returncode == 0, done.stderr
        assert [e["event"] for e in events(shared_lab, plain).values()] == ["published"] * len(raws)
        return planes(plain)

    whole = made("combine", 1, 1000)
    assert len(whole) == 3 * 4
    for ranks, rows in [(1, 1), (1, 3), (1, 7), (1, 19), *((2, 7), (3, 5), (4, 1000))[0 if cosmic else 2 :]]:
        assert made("combine", ranks, rows) == whole
    for step in (1, 3, 16):
        assert made("combine", 1, 1000, step) == whole


def test_cosmic_ray_flagging_takes_rays_out(shared_lab: Any, raws: Any) -> None:
    """Without it the comparison above would compare nothing new."""
    images = []
    for cosmic in (False, True):
        plain = combine(shared_lab, {0: raws[0]}, f"rays-{cosmic}", cosmic)
        assert shared_lab.serial(plain) == 0
        images.append(fitsio.read(plain["tasks"][0]["outputs"]["dark"], ext="IMAGE"))
    assert 5 < np.count_nonzero(images[0] != images[1]) < images[0].size / 2


def test_a_flat_is_the_same_on_any_number_of_ranks(shared_lab: Any, raws: Any, calibrations: Any) -> None:
    corrections = shared_lab.isr | {"bias": True, "dark": True}
    parameters = {k: v for k, v in shared_lab.parameters(N, 5.0).items() if k != "scales"}
    found = []
    for ranks, block in [(1, 1 << 20), (1, 3000), (3, 9000)]:
        folder = shared_lab.folder / f"flat{ranks}-{block}"
        measured = {d: str(folder / f"measure{d}.json") for d in raws}
        measure = [
            {"task": f"measure:{d}", "detector": d,
             "inputs": {"raw": paths} | {k: [v] for k, v in calibrations[d].items()},
             "outputs": {"flatMeasure": measured[d]}, "parameters": parameters}
            for d, paths in raws.items()
        ]  # fmt: skip
        scales = str(folder / "scales.json")
        normalise = {"task": "normalise:", "inputs": {"flatMeasure": list(measured.values())},
                     "outputs": {"flatNormalization": scales}}  # fmt: skip
        combined = [
            {**t, "task": f"flat:{t['detector']}", "inputs": {**t["inputs"], "flatNormalization": [scales]},
             "outputs": {k: str(folder / f"{k}{t['detector']}.fits") for k in ("flat", "flatBin8")}}
            for t in measure
        ]  # fmt: skip
        settings = {"isr": corrections, "type": "flat", "bins": {"flatBin8": 8}, "piece_bytes": block}
        steps = [
            shared_lab.job("flat_measure", measure, name=f"measure{ranks}-{block}", config=settings),
            shared_lab.job(
                "flat_normalise", [normalise], name=f"n{ranks}-{block}", config={"level": "AMP", "iterations": 10}
            ),
            shared_lab.job("combine", combined, name=f"flat{ranks}-{block}", config=settings),
        ]
        for plain in steps:
            if ranks == 1:
                assert shared_lab.serial(plain) == 0
            else:
                assert shared_lab.mpi(plain, ranks).returncode == 0, plain["kernel"]
        texts = {path: Path(path).read_text() for path in [*measured.values(), scales]}
        found.append((planes(steps[-1]), list(texts.values())))
        assert len(found[0][0]) == 3 * 5, "three planes, the binned one and the table of each detector"
    assert found[1:] == found[:1] * 2


@pytest.mark.parametrize("world", [1, 2])
def test_a_smaller_world_than_asked_for_is_refused(lab: Any, world: int) -> None:
    done = lab.mpi(lab.job("combine", []), 4, world)
    assert done.returncode == 3
    message = f"error: 4 ranks were asked for, the MPI world has {world}: launcher and MPI library differ"
    assert [line for line in done.stderr.splitlines() if "error: " in line] == [message]


def test_a_singleton_is_refused(lab: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from kernels.run import main

    path = lab.write_job({**lab.job("combine", []), "ranks": 4})
    assert main([str(path)]) == 3
    assert capsys.readouterr().err.startswith("error: 4 ranks were asked for, the MPI world has 1")
    assert main([str(path), "--ranks", "1"]) == 0


def test_a_corrupt_calibration_fails_its_task_whoever_reads_it(
    shared_lab: Any, raws: Any, calibrations: Any, tmp_path: Path
) -> None:
    """Three ranks share the detectors' exposures; the ranks that publish compare the calibrations with their sums."""
    broken = tmp_path / "bias.fits"
    shutil.copy(calibrations[1]["bias"], broken)
    with fitsio.FITS(str(broken), "rw") as fits:
        fits["IMAGE"].write_checksum()
        start = fits["IMAGE"].get_offsets()["data_start"]
    data = bytearray(broken.read_bytes())
    data[start + 40] ^= 1
    broken.write_bytes(data)
    tasks = [
        {"task": f"measure:{d}", "detector": d,
         "inputs": {"raw": raws[d], "dark": [files["dark"]], "bias": [str(broken) if d == 1 else files["bias"]]},
         "outputs": {"flatMeasure": str(tmp_path / f"{d}.json")}, "parameters": shared_lab.parameters(N, 5.0)}
        for d, files in calibrations.items()
    ]  # fmt: skip
    config = {"isr": shared_lab.isr | {"bias": True, "dark": True}}
    plain = shared_lab.job("flat_measure", tasks, name="corrupt-bias", config=config)
    assert shared_lab.mpi(plain, 3).returncode == 1
    last = events(shared_lab, plain)
    assert {t: e["event"] for t, e in last.items() if t != "measure:1"} == dict.fromkeys(
        ("measure:0", "measure:2"), "published"
    )
    assert last["measure:1"]["detail"]["error"].startswith(f"{broken}: HDU IMAGE: corrupt, its data are not")


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_corrupt_frame_fails_its_task_alone(lab: Any, raws: Any, ranks: int) -> None:
    broken = lab.folder / "broken.fits"
    shutil.copy(raws[1][2], broken)
    data = bytearray(broken.read_bytes())
    start = fitsio.FITS(str(broken))["Segment01"].get_offsets()["data_start"]
    broken.write_bytes(data[: start + 100])
    plain = combine(lab, {**raws, 1: [*raws[1][:2], str(broken), *raws[1][3:]]}, "corrupt", piece_bytes=4000)
    done = lab.mpi(plain, ranks)
    assert done.returncode == 1, done.stderr
    last = events(lab, plain)
    assert {t: e["event"] for t, e in last.items()} == {
        "dark:0": "published",
        "dark:1": "failed",
        "dark:2": "published",
    }
    detail = last["dark:1"]["detail"]
    assert (detail["kind"], detail["cause"]) == ("DataError", "data")
    assert detail["error"].startswith(f"{broken}: HDU Segment01: ")
    assert [p.name for p in sorted((lab.folder / "corrupt").glob("*.fits"))] == ["dark0.fits", "dark2.fits"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "combin"}, "error: no kernel 'combin'; there are bfk, combine, compare, "),
        ({"rank": 4}, "job: unknown key 'rank'"),
        ({"config": {"isr": {"serial": "mode"}}}, "error: isr.serial: 'mode' is none of median, meanclip, none"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_bad_job_ends_with_one_line(lab: Any, raws: Any, ranks: int, change: Plain, message: str) -> None:
    done = lab.mpi({**combine(lab, raws, "bad"), **change}, ranks)
    assert done.returncode == 3
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in done.stderr
    assert not (lab.folder / "bad").exists()


def test_a_programming_error_on_one_rank_ends_the_job(lab: Any, raws: Any) -> None:
    """The other ranks would wait for its pieces without end; `Lab.mpi` limits the time."""
    plain = combine(lab, raws, "defect", piece_bytes=2000)
    del plain["tasks"][2]["parameters"]["dark_times"]
    done = lab.mpi(plain, 3)
    assert done.returncode == 70
    assert "KeyError: 'dark_times'" in done.stderr


class Doubling:
    """A kernel of two pieces a task, some of which fail."""

    def __init__(self, failing: dict[str, Exception]) -> None:
        self.failing = failing

    def weights(self, task: job.Task) -> list[float]:
        return [1.0] * len(task.inputs.get("raw", ()))

    def compute(self, task: job.Task, piece: int) -> int:
        if error := self.failing.get(f"{task.task}{piece}"):
            raise error
        return 2 * piece

    def finish(self, task: job.Task, results: Any) -> dict[str, Any]:
        if error := self.failing.get(task.task):
            raise error
        return {"results": list(results)}


def small_job(lab: Any, inputs: int = 2) -> Plain:
    tasks = [{"task": t, "inputs": {"raw": ["/x"] * inputs}} for t in ("a:", "b:")]
    plain: Plain = lab.job("combine", tasks)
    return plain


def test_the_journal_says_what_happened(lab: Any) -> None:
    failing: dict[str, Exception] = {"a:1": DataError("/x", "is corrupt"), "b:": PublishError("/y: no space left")}
    plain = small_job(lab)
    assert gang.execute(job.from_plain(plain), None, Doubling(failing)) == 2
    a, b = events(lab, plain).values()
    assert a["detail"] == {"error": "/x: is corrupt", "kind": "DataError", "cause": "data"}
    assert b["detail"] == {"error": "/y: no space left", "kind": "PublishError", "cause": "disk"}
    head = {k: v for k, v in a.items() if k not in ("t", "detail")}
    assert head == {
        "v": 1, "run": plain["run"], "task": "a:", "attempt": 1, "site": "here", "token": 1, "event": "failed"
    }  # fmt: skip


def test_the_pieces_come_in_their_order_and_the_cost_is_told(lab: Any) -> None:
    plain = small_job(lab, 5)
    assert gang.execute(job.from_plain(plain), None, Doubling({})) == 0
    for event in events(lab, plain).values():
        assert event["detail"]["results"] == [0, 2, 4, 6, 8]
        assert event["detail"]["cpu_s"] >= 0 and event["detail"]["rss_mib"] > 10
    assert [e["event"] for e in lab.journal(plain)] == ["started", "published"] * 2


def test_a_second_attempt_appends_to_the_journal(lab: Any) -> None:
    plain = small_job(lab)
    for _ in range(2):
        gang.execute(job.from_plain(json.loads(json.dumps(plain))), None, Doubling({}))
    assert len(lab.journal(plain)) == 8


def test_a_task_without_input_is_refused(lab: Any) -> None:
    with pytest.raises(JobError, match="a:: has no input"):
        gang.execute(job.from_plain(small_job(lab, 0)), None, Doubling({}))


def test_a_killed_rank_ends_the_job(lab: Any, raws: Any) -> None:
    """The last rank waits at a pipe for a frame that never comes, and is killed there."""
    pipe = lab.folder / "pipe.fits"
    os.mkfifo(pipe)
    plain = {**combine(lab, {**raws, 2: [str(pipe), *raws[2][1:]]}, "killed"), "ranks": 3}
    job_path = lab.write_job(plain)
    process = subprocess.Popen(lab.command(job_path, 3), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while "dark:2" not in (found := events(lab, plain)) and time.monotonic() < until:
            time.sleep(0.05)
        pid = found["dark:2"]["detail"]["pid"]
        shared = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "/mpich_shm" in line]
        assert shared
        assert all(line.endswith(" (deleted)") for line in shared)  # killed, it leaves none on the node
        os.kill(pid, signal.SIGKILL)
        assert process.wait(20) not in (0, 1, 3)
    finally:
        process.kill()
        process.wait()
    assert not (lab.folder / "killed" / "dark2.fits").exists()
