"""The expectation step of variational Bayes: topics of documents, under uncertain topics.

Arithmetic only; `daskps.kernels.lda` is the way in.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._lda_fold import FAST
from daskps.kernels._lda_sweep import F32, F64, I64

TINY = np.float32(1e-30)
LARGE = 8
"""From here on the digamma function is its asymptotic series, to 1e-10."""


@njit(inline="always")
def psi(x: Any) -> Any:
    """Return the digamma function of a number above 0 (Abramowitz and Stegun 6.3.5, 6.3.18)."""
    below = 0.0
    while x < LARGE:
        below += 1.0 / x
        x += 1.0
    y = 1.0 / (x * x)
    series = y * (1.0 / 12 - y * (1.0 / 120 - y * (1.0 / 252 - y * (1.0 / 240 - y / 132))))
    return math.log(x) - 0.5 / x - series - below


@njit(nogil=True, cache=True)
def expected(weights: F64, totals: F64, out: F32) -> None:
    """Fill `out` (m, K) with exp E[log phi] of rows (m, K) of a Dirichlet, by columns' totals."""
    K = weights.shape[1]
    below = np.empty(K)
    for k in range(K):
        below[k] = psi(totals[k])
    for w in range(weights.shape[0]):
        for k in range(K):
            out[w, k] = math.exp(psi(weights[w, k]) - below[k])


@njit(inline="always")
def _shares(gamma: F64, out: F32) -> Any:
    """Fill `out` with exp E[log theta]; return psi of the sum."""
    whole = 0.0
    for k in range(gamma.size):
        whole += gamma[k]
    below = psi(whole)
    for k in range(gamma.size):
        out[k] = math.exp(psi(gamma[k]) - below)
    return below


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def e_step(
    indptr: I64,
    indices: NDArray[np.uint32],
    counts: F32,
    beta: F32,
    alpha: F64,
    n_iter: int,
    tol: float,
    stats: F32,
    logs: F64,
) -> float:
    """Add the documents' topics by word to `stats` (m, K), and E[log theta] to `logs` (K,).

    Return the documents' part of the bound. See `daskps.kernels.lda.e_step`.
    """
    K = np.uint64(alpha.size)
    theta, new = np.empty(K, np.float32), np.empty(K, np.float32)
    gamma = np.empty(K)
    bound, prior, whole_prior = 0.0, 0.0, 0.0
    for k in range(K):
        prior -= math.lgamma(alpha[k])
        whole_prior += alpha[k]
    prior += math.lgamma(whole_prior)
    for d in range(np.uint64(indptr.size - 1)):
        first, last = np.uint64(indptr[d]), np.uint64(indptr[d + 1])
        for k in range(K):
            gamma[k] = 1.0 if last > first else alpha[k]
        below = _shares(gamma, theta)
        for _ in range(n_iter if last > first else 0):
            new[:] = np.float32(0)
            for x in range(first, last):
                row = beta[indices[x]]
                s = TINY
                for k in range(K):
                    s += theta[k] * row[k]
                c = counts[x] / s
                for k in range(K):
                    new[k] += c * row[k]
            change = 0.0
            for k in range(K):
                value = alpha[k] + np.float64(theta[k] * new[k])
                change += abs(value - gamma[k])
                gamma[k] = value
            below = _shares(gamma, theta)
            if change < tol * K:
                break
        for x in range(first, last):
            row, stat = beta[indices[x]], stats[indices[x]]
            s = TINY
            for k in range(K):
                s += theta[k] * row[k]
            bound += counts[x] * math.log(s)
            c = counts[x] / s
            for k in range(K):
                stat[k] += c * theta[k] * row[k]
        whole = 0.0
        for k in range(K):
            log = psi(gamma[k]) - below
            logs[k] += log
            whole += gamma[k]
            bound += (alpha[k] - gamma[k]) * log + math.lgamma(gamma[k])
        bound += prior - math.lgamma(whole)
    return bound
