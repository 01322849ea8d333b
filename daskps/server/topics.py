"""Server functions over topic counts: sums that must agree, and likelihoods.

A table of cells holds how often each word has each topic, a table of one row how many tokens each
topic has. Owns no message: `functions` registers these.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F64 = NDArray[np.float64]

N_SUMS = 7
MAX_TABLE = 4096
"""Counts from this one on get their log-gamma by itself, smaller ones from a table."""


def measure(tables: Mapping[str, Any], *, words: str, topics: str, beta: float, n: int) -> F64:
    """Return sums over the slot's cells and totals.

    Parameters
    ----------
    tables
        Of one slot.
    words, topics
        Names of the table of cells, and of that of totals.
    beta
        Prior of a topic's words.
    n
        Number of words.

    Returns
    -------
    sums
        Tokens by the cells and by the totals; fingerprints of the topics' sums, exact in float64
        to 2**53, by both; numbers that are negative (or zero, in a cell); cells; and log p(w | z)
        (Griffiths and Steyvers 2004, equation 2).
    """
    sums = np.zeros(N_SUMS)
    if words in tables:
        slot = tables[words]
        counts = slot.rows[:, 0, 0]
        _cells(slot.keys, counts, slot.spec.columns, beta, _log_gammas(beta), sums)
    if topics in tables:
        _totals(tables[topics].rows[0, 0], beta * n, sums)
    return sums


@functools.lru_cache(maxsize=4)
def _log_gammas(beta: float) -> F64:
    """Return log Gamma(c + beta) / Gamma(beta) of small counts; a table for all slots."""
    return np.array([math.lgamma(c + beta) - math.lgamma(beta) for c in range(MAX_TABLE)])


@njit(inline="always")
def _print(k: Any) -> Any:
    """Return a number below 2**10 that is as good as drawn for topic `k`."""
    x = (np.uint64(k) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return np.float64((x ^ (x >> np.uint64(29))) >> np.uint64(54))


@njit(nogil=True, cache=True)
def _cells(keys: Any, counts: Any, K: int, beta: float, logs: F64, sums: F64) -> None:
    base = math.lgamma(beta)
    for i in range(keys.size):
        c = counts[i]
        sums[0] += c
        sums[2] += c * _print(keys[i] % np.uint64(K))
        sums[4] += c <= 0
        if c > 0:
            sums[6] += logs[c] if c < logs.size else math.lgamma(c + beta) - base
    sums[5] += keys.size


@njit(nogil=True, cache=True)
def _totals(totals: Any, whole: float, sums: F64) -> None:
    base = math.lgamma(whole)
    for k in range(totals.size):
        c = totals[k]
        sums[1] += c
        sums[3] += c * _print(k)
        sums[4] += c < 0
        sums[6] += base - math.lgamma(max(c, 0) + whole)
