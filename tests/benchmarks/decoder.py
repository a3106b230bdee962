"""The Rice decoder, a core, into a reused block of rows, beside peers that read the same HDUs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from tests.benchmarks.bars import BARS
from tests.benchmarks.harness import Bench, Result, Skipped, number, ratio
from tests.benchmarks.process import ask, avx2_environment, module

PEERS = ("fitsio", "rustfits", "imagecodecs")


def measure(bench: Bench) -> Iterator[Result]:
    """Unsigned 16 and 32 bits, the noise of a bias and of a flat."""
    folder, (width, height) = bench.data.folder / "tiles", bench.data.plain_size
    folder.mkdir(exist_ok=True)
    line = module("decoder_process", folder, str(width), str(height), str(bench.rounds(9)))
    found = _speeds(bench, line, None)
    for kind, parts in found.items():
        yield from (_result(kind, parts, peer, judged=True) for peer in PEERS if peer in parts)
    for kind, parts in _speeds(bench, line, avx2_environment(bench.data.folder)).items():
        yield _result(f"{kind}, compiled for AVX2", parts, "fitsio", judged=False)
    if lacking := [peer for peer in PEERS if any(peer not in parts for parts in found.values())]:
        raise Skipped(f"without {', '.join(lacking)}: pip install '.[bench]'")


def _speeds(bench: Bench, line: list[str], env: Mapping[str, str] | None) -> dict[str, dict[str, list[float]]]:
    answer: dict[str, dict[str, list[float]]] = json.loads(ask(line, env))
    for kind, parts in answer.items():
        bench.say(f"  {kind}: " + ", ".join(f"{name} {number(speeds[-1])}" for name, speeds in parts.items()))
    return answer


def _result(kind: str, parts: Mapping[str, list[float]], peer: str, judged: bool) -> Result:
    return Result(
        f"decoder / {peer}, {kind}",
        ratio(parts["kernels.fits.rice"], parts[peer]),
        bar=BARS[f"decoder / {peer}"] if judged else None,
        parts={name: parts[name] for name in ("kernels.fits.rice", peer)},
        parts_unit="Mpix/s",
        condition="one core, one HDU of one-row tiles, reading from the page cache included, blocks of 64 rows decoded "
        "into the same memory; peers open the file again for each read, fitsio and rustfits read the HDU whole, "
        "imagecodecs decodes tile by tile what one pread brings; every pixel compared",
    )
