"""The Rice decoder, a core, into a reused block of rows, against fitsio reading the same HDUs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from tests.benchmarks.harness import Bar, Bench, Result, number, ratio
from tests.benchmarks.process import ask, avx2_environment, module


def measure(bench: Bench) -> Iterator[Result]:
    """Unsigned 16 and 32 bits, the noise of a bias and of a flat."""
    folder, (width, height) = bench.data.folder / "tiles", bench.data.plain_size
    folder.mkdir(exist_ok=True)
    line = module("decoder_process", folder, str(width), str(height), str(bench.rounds(9)))
    for kind, parts in _speeds(bench, line, None).items():
        yield _result(kind, parts, (width, height), Bar(5, 7, least=True))
    for kind, parts in _speeds(bench, line, avx2_environment(bench.data.folder)).items():
        yield _result(f"{kind}, compiled for AVX2", parts, (width, height), None)


def _speeds(bench: Bench, line: list[str], env: Mapping[str, str] | None) -> dict[str, dict[str, list[float]]]:
    answer: dict[str, dict[str, list[float]]] = json.loads(ask(line, env))
    for kind, parts in answer.items():
        bench.say(f"  {kind}: " + ", ".join(f"{name} {number(speeds[-1])}" for name, speeds in parts.items()))
    return answer


def _result(kind: str, parts: Mapping[str, list[float]], size: tuple[int, int], bar: Bar | None) -> Result:
    return Result(
        f"decoder / fitsio, {kind}",
        ratio(parts["kernels.fits.rice"], parts["fitsio"]),
        bar=bar,
        parts=parts,
        parts_unit="Mpix/s",
        condition=f"one core, {size[0]}x{size[1]} pixels in one HDU, tiles of one row, reading from the page cache "
        "included, blocks of 64 rows decoded into the same memory; fitsio reads the HDU whole; every pixel compared",
    )
