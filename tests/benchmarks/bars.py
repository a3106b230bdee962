"""The bars of all benchmarks, in one table; a ratio holds on any machine, a time only on one like that of the pages."""

from __future__ import annotations

from collections.abc import Mapping

from tests.benchmarks.harness import Bar

BARS: Mapping[str, Bar] = {
    # Pixels a second: ratios of speeds
    "clip of 20 / numpy nanmean": Bar(1.0, 1.5, least=True),
    "clip of 100 / numpy nanmean": Bar(0.25, 0.5, least=True),
    "median of 20 / bottleneck nanmedian": Bar(12, 20, least=True),
    "AVX2 / this processor": Bar(0.6, least=True),
    "decoder / fitsio": Bar(5, 7, least=True),
    "decoder / rustfits": Bar(3, 4, least=True),
    "decoder / imagecodecs": Bar(2, 3, least=True),
    # Whole processes: ratios of CPU time, of wall time for Siril
    "siril / ours": Bar(1.0, 2.0, least=True),
    "ccdproc / ours": Bar(10, 15, least=True),
    "one bias / fitsio reads": Bar(0.50, 0.40),
    "nine biases / fitsio reads": Bar(0.35, 0.25),
    "flat / bias": Bar(3, 2.5),
    "flat_measure / combine": Bar(1.2, 0.8),
    "nine flats / fitsio reads": Bar(0.8, 0.6),
    "covariances / float32 FFT": Bar(0.5),
    "ptc / decode and FFT": Bar(1.5),
    "CPU of 1 rank / sum of 2": Bar(0.90, 0.95, least=True),
    "busiest of 2 ranks": Bar(0.55),
    # MiB of a rank
    "memory of a rank": Bar(400, 300),
    # The graph: CPU s, MB
    "graph: CPU": Bar(5),
    "graph: memory": Bar(300),
    # The runner: quanta a second; per cent
    "runner: quanta": Bar(5000, least=True),
    "runner: journal and index": Bar(5),
    # Slurm: quanta a second by kernel, s, questions a second
    "slurm: nothing": Bar(5000, least=True),
    "slurm: levels": Bar(250, least=True),
    "slurm: correct": Bar(100, least=True),
    "slurm: first worker": Bar(5),
    "slurm: questions": Bar(1),
    # Commands: ratios of CPU time to that of the Butler's import
    "check bps_bias": Bar(1.3, 1.1),
    "certify bps_bias --yes": Bar(1.3, 1.1),
    "plan PLAN": Bar(1.5, 1.3),
    "submit bps_bias": Bar(3, 2.5),
    # 100 nodes: driver s of CPU a task, share of the ranks' CPU, bytes
    "nodes: driver": Bar(0.005, 0.002),
    "nodes: start-up": Bar(0.10, 0.05),
    "nodes: bytes": Bar(1.3, 1.1),
    # The journal of a million events: CPU s, MiB
    "journal: fold": Bar(15, 5),
    "journal: index": Bar(15, 5),
    "journal: memory": Bar(300),
    "journal: increment": Bar(0.1),
}
#: Commands that can do without the Butler.
SELDOM = Bar(0.15, 0.1)
#: A whole submission: times its kernel job's wall time, and s more; and what comes then.
SUBMIT, SUBMIT_THEN = (1.25, 10.0), (1.1, 5.0)


def submit(alone: float) -> Bar:
    """Turn the bar of a whole submission into a ratio to the wall time of its kernel job, second."""
    limit, then = ((factor * alone + more) / alone for factor, more in (SUBMIT, SUBMIT_THEN))
    return Bar(limit, then)
