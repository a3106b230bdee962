"""Pairs of flats that are left out before a curve is fitted: those without light, and those of unequal light.

The difference of a pair is scaled to equal light, d = (I1 mu2 - I2 mu1) / mu, so a lamp that changes little does no
harm.  But its variance is mu (1 - x^2 / 4) / gain, x = (mu2 - mu1) / mu: a change of 25 % looks like 1.6 % of gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from kernels.fits.product import Card
from kernels.transfer.covariance import Pair

#: A pair is left out beyond `NSIGMA` robust standard deviations of the pairs, but never below the first and always
#: above the second of these relative changes: 1e-4 and 2.5e-3 of its variance.
NSIGMA: Final = 5.0
LIMITS: Final = (0.02, 0.1)
#: Beginning of the reason why an amplifier cannot be measured in a dark frame.
DARK: Final = "no light"
#: Pairs that a message names.
SOME: Final = 4
_MAD: Final = 1.4826


@dataclass(frozen=True)
class LeftOut:
    """Pairs that are left out of all amplifiers."""

    #: Relative change of light, by exposures of the pair.
    unequal: Mapping[tuple[int, int], float]
    #: Pairs of exposures without light in most amplifiers.
    dark: Sequence[tuple[int, int]]
    #: Largest relative change of light that is no reason.
    limit: float

    @property
    def number(self) -> int:
        """Number of pairs."""
        return len(self.unequal) + len(self.dark)

    @property
    def exposures(self) -> list[list[int]]:
        """Pairs of exposures, those of unequal light first."""
        return [list(pair) for pair in (*self.unequal, *self.dark)]

    def __str__(self) -> str:
        texts = [f"{a} and {b} ({change:+.1%} of light)" for (a, b), change in self.unequal.items()]
        texts += [f"{a} and {b} ({DARK})" for a, b in self.dark]
        return ", ".join(texts[:SOME]) + (f" and {len(texts) - SOME} more" if len(texts) > SOME else "")

    @property
    def cards(self) -> list[Card]:
        """Cards that name the pairs."""
        found: list[Card] = [
            ("NUNEQUAL", len(self.unequal), "pairs of unequal light, left out: UNEQUALn"),
            ("MAXDELTA", self.limit, "largest change of light in a pair, relative"),
            ("NDARK", len(self.dark), "pairs without light, left out: DARKn"),
        ]
        found += [(f"UNEQUAL{n}", f"{a} {b} {x:+.4f}", "") for n, ((a, b), x) in enumerate(self.unequal.items(), 1)]
        return found + [(f"DARK{n}", f"{a} {b}", "") for n, (a, b) in enumerate(self.dark, 1)]


def left_out(
    measured: Sequence[list[Pair | str]], pairs: Sequence[tuple[int, int]]
) -> tuple[LeftOut, list[list[Pair | str]]]:
    """Find the pairs to be left out; also give what was measured without them, the reason in their place.

    Parameters
    ----------
    measured : sequence
        By pair and amplifier.
    pairs : sequence of (`int`, `int`)
        The exposures of each pair.
    """
    changes, dark = {}, []
    for n, pair in enumerate(measured):
        known = [one.delta / one.mean for one in pair if isinstance(one, Pair) and one.mean > 0]
        if known:
            changes[n] = float(np.median(known))
        if 2 * sum(isinstance(one, str) and one.startswith(DARK) for one in pair) > len(pair):
            dark.append(n)
    sigma = _MAD * float(np.median(np.abs(list(changes.values())))) if changes else 0.0
    limit = float(np.clip(NSIGMA * sigma, *LIMITS))
    far = {n: change for n, change in changes.items() if abs(change) > limit and n not in dark}
    found = LeftOut({pairs[n]: change for n, change in far.items()}, [pairs[n] for n in dark], limit)
    rest = list(measured)
    for n in (*far, *dark):
        why = f"its light changed by {far[n]:+.1%}, more than {limit:.1%}" if n in far else f"{DARK} in most amplifiers"
        rest[n] = [one if isinstance(one, str) else why for one in rest[n]]
    return found, rest
