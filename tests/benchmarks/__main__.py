"""``python -P -m tests.benchmarks [NAME...] [--repeat N] [--quick] [--out DIR]``; ``make bench`` runs all of them."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks import (
    commands,
    decoder,
    flats,
    gang,
    graph,
    journal,
    kernel,
    nodes,
    raws,
    runner,
    slurm,
    stackers,
    submission,
    transfer,
    whole,
)
from tests.benchmarks.data import Data
from tests.benchmarks.harness import VERSION, Bench, Result, Skipped, markdown, row, table
from tests.benchmarks.machine import describe
from tests.benchmarks.process import run

Subject = Callable[[Bench], Iterator[Result]]
SUBJECTS: Mapping[str, Subject] = {
    "kernel": kernel.kernel,
    "avx2": kernel.avx2,
    "decoder": decoder.measure,
    "siril": stackers.siril,
    "imcombine": stackers.imcombine,
    "one_detector": whole.one_detector,
    "ccdproc": whole.ccdproc,
    "memory": gang.memory,
    "nine_detectors": whole.nine_detectors,
    "flat": flats.flat,
    "nine_flats": flats.nine_flats,
    "dark": raws.dark,
    "cti": raws.cti,
    "ranks": gang.ranks,
    "covariances": transfer.covariances,
    "ptc": transfer.ptc,
    "commands": commands.commands,
    "submit": submission.submission,
    "graph": graph.graph,
    "runner": runner.runner,
    "journal": journal.journal,
    "slurm_quanta": slurm.quanta,
    "nodes": nodes.nodes,
}
CONDITIONS = ("numba's cache is warm", "A and B take turns, medians", "data on local disk, in the page cache")
QUICK = "--quick: small data, one turn; nothing is judged"


def chosen(names: Sequence[str]) -> list[str]:
    """The subjects that were asked for, in their own order; all of them where none was."""
    unknown = sorted(set(names) - set(SUBJECTS))
    if unknown:
        raise SystemExit(f"no benchmark {unknown[0]!r}; there are {', '.join(SUBJECTS)}")
    return [name for name in SUBJECTS if not names or name in names]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--repeat", type=int, help="turns of A and B, instead of each benchmark's own number")
    parser.add_argument("--quick", action="store_true", help="small data, one turn: only to see that all runs")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="folder of the JSON file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="print an earlier result as Markdown and stop")
    return parser.parse_args(arguments)


def _measure(subject: Subject, bench: Bench) -> dict[str, Any]:
    """Run one subject; its failure does not end the others."""
    results: list[dict[str, Any]] = []
    began = time.monotonic()
    try:
        results += (row(result, bench.quick) for result in subject(bench))
    except Skipped as reason:
        return {"results": results, "skipped": str(reason)}
    except Exception as error:
        _say("".join(traceback.format_exception(error)))
        return {"results": results, "failed": f"{type(error).__name__}: {error}"}
    return {"results": results, "seconds": round(time.monotonic() - began, 1)}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run(names: Sequence[str], bench: Bench, report: dict[str, Any], path: Path) -> None:
    """Run all, and write the report after each, so that results survive an interruption."""
    _say("warming numba's cache")
    run([sys.executable, "-P", "-m", "kernels.run", "--warm"])
    for name in names:
        _say(f"{name}:")
        report["benchmarks"][name] = _measure(SUBJECTS[name], bench)
        path.write_text(json.dumps(report, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen benchmarks; return 1 if one failed to run (a missed bar is a result)."""
    options = _options(arguments)
    if options.markdown:
        print(markdown(json.loads(options.markdown.read_text())))
        return 0
    names, began = chosen(options.names), datetime.now(UTC)
    conditions = [*CONDITIONS, QUICK] if options.quick else list(CONDITIONS)
    report = {"version": VERSION, "date": f"{began:%Y-%m-%dT%H:%M:%SZ}", "machine": describe(), "quick": options.quick}
    report |= {"conditions": conditions, "benchmarks": {}}
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{began:%Y%m%dT%H%M%SZ}.json"
    with tempfile.TemporaryDirectory(prefix="campaign-bench-") as scratch:
        data = Data(Path(scratch), options.quick, _say)
        if lacking := data.room():
            raise SystemExit(lacking)
        _run(names, Bench(data, options.repeat, options.quick, _say), report, path)
    print(table(report))
    print(f"written to {path}")
    return 1 if any("failed" in entry for entry in report["benchmarks"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
