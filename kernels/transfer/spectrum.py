"""Models of a flat's covariances, in Fourier space, where convolutions are products.

Covariances in electron^2 at a signal of M electrons have the spectrum C~(k); a~ is that of a_ij in all four quadrants.

EXACT, with b = 0: C~ = [exp(2 a~ M) - 1] / (2 a~).  It solves dC~/dM = 1 + 2 a~ C~: each electron adds its own
variance, and the charge that has gathered deflects it (Astier et al. 2019, A&A 629, A36, section 3, cut the series).

FULLCOVARIANCE, with c = a b, is their eq. 20, whose products stand for convolutions:
C~ = M [1 + a~ M + 2/3 (a~^2 + c~) M^2 + (1/3 a~^3 + 5/6 a~ c~) M^3].  Without b it is EXACT, cut after four terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: Below this 2 a~ M, series replace differences.
SMALL = 1e-3


@dataclass(frozen=True)
class Grid:
    """Transforms between lags in one quadrant and the spectrum, symmetric in both axes."""

    #: Lags per axis, 0 included.
    side: int

    @cached_property
    def size(self) -> int:
        """Period: no lag of four factors comes round to a lag in use."""
        return 5 * self.side - 3 + (5 * self.side - 3) % 2

    @cached_property
    def forth(self) -> F64:
        """[k, lag]: ``a~ = forth a forth^T``."""
        k, lag = np.arange(self.size // 2 + 1), np.arange(self.side)
        return np.cos(2 * np.pi * np.outer(k, lag) / self.size) * np.where(lag == 0, 1.0, 2.0)

    @cached_property
    def back(self) -> F64:
        """[lag, k]: ``C = back C~ back^T``."""
        k, lag = np.arange(self.size // 2 + 1), np.arange(self.side)
        ends = np.where((k == 0) | (k == self.size // 2), 1.0, 2.0)
        return np.cos(2 * np.pi * np.outer(lag, k) / self.size) * ends / self.size

    @cached_property
    def pairs(self) -> F64:
        """[lag i, lag k, frequency]: ``back[i] forth[:, k]``, for derivatives of C_ij by a_kl."""
        return self.back[:, np.newaxis, :] * self.forth.T[np.newaxis]

    def spectrum(self, lags: F64) -> F64:
        """Transform [i, j] to [p, q]."""
        return self.forth @ lags @ self.forth.T

    def lags(self, spectrum: F64) -> F64:
        """Transform [..., p, q] back to [..., i, j]."""
        return np.asarray(self.back @ spectrum @ self.back.T)

    def derivatives(self, slopes: F64) -> F64:
        """Derivatives of the lags C_ij by the lags a_kl, of ``slopes`` = dC~/da~ [point, p, q]: [point, ij, kl]."""
        n, points = self.side, len(slopes)
        flat = self.pairs.reshape(n * n, -1)
        half = (slopes.reshape(-1, slopes.shape[-1]) @ flat.T).reshape(points, -1, n * n)  # over q: (j, l)
        both = np.matmul(flat, half)  # over p: [point, (i, k), (j, l)]
        return both.reshape(points, n, n, n, n).transpose(0, 1, 3, 2, 4).reshape(points, n * n, n * n)


@dataclass(frozen=True)
class Spectra:
    """A model's spectrum at all points, and its derivatives: each [point, p, q]."""

    value: F64
    by_signal: F64
    by_a: F64
    #: By c; none in models without b.
    by_c: F64 | None


def exact(a: F64, signal: F64) -> Spectra:
    """Compute EXACT for a~ [p, q], 1/electron, at signals [point], electron."""
    m = signal[:, np.newaxis, np.newaxis]
    t = 2 * a * m
    small, safe = np.abs(t) < SMALL, np.where(np.abs(2 * a) * signal.max() < SMALL, 1.0, a)
    grown = np.exp(t)
    value = np.where(small, m * (1 + t / 2 * (1 + t / 3 * (1 + t / 4))), np.expm1(t) / (2 * safe))
    by_a = np.where(small, m**2 * (1 + t * (2 / 3 + t * (1 / 4 + t / 15))), (m * grown - value) / safe)
    return Spectra(value, grown, by_a, None)


def series(a: F64, c: F64, signal: F64, with_b: bool) -> Spectra:
    """Compute FULLCOVARIANCE for a~, 1/electron, and c~, 1/electron^2, both [p, q], at signals [point], electron."""
    m = signal[:, np.newaxis, np.newaxis]
    second, third = 2 / 3 * (a**2 + c), a**3 / 3 + 5 / 6 * a * c
    value = m * (1 + m * (a + m * (second + m * third)))
    by_signal = 1 + m * (2 * a + m * (3 * second + m * 4 * third))
    by_a = m**2 * (1 + m * (4 / 3 * a + m * (a**2 + 5 / 6 * c)))
    by_c = m**3 * (2 / 3 + m * (5 / 6 * a)) if with_b else None
    return Spectra(value, by_signal, by_a, by_c)
