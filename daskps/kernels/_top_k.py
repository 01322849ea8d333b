"""The largest scores of each row, kept while blocks of scores go by."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._state import F32, Scalar

_RUN = 16
"""Scores that are compared with the least one kept at once."""


@njit(nogil=True, cache=True)
def mask(
    scores: F32,
    start: Scalar,
    indptr: NDArray[np.int64],
    columns: NDArray[np.uint32],
) -> None:
    """Rule out scores of the CSR entries among columns `start` and on; columns ascend in a row."""
    low, high = np.int64(start), np.int64(start) + scores.shape[1]
    for row in range(scores.shape[0]):
        a, b = indptr[row], indptr[row + 1]
        while a < b:  # the first that is not below `low`
            middle = (a + b) // 2
            if np.int64(columns[middle]) < low:
                a = middle + 1
            else:
                b = middle
        while a < indptr[row + 1] and np.int64(columns[a]) < high:
            scores[row, np.int64(columns[a]) - low] = -np.inf
            a += 1


@njit(nogil=True, cache=True)
def offer(scores: F32, start: Scalar, best: F32, which: NDArray[np.int64]) -> None:
    """Update `best` (rows, k), descending, and `which`, the columns of them.

    Columns must be offered in ascending order: of equal scores the first one stays.
    """
    k, m = best.shape[1], scores.shape[1]
    for row in range(scores.shape[0]):
        s, kept, names = scores[row], best[row], which[row]
        least = kept[k - 1]
        for first in range(0, m, _RUN):
            stop = min(first + _RUN, m)
            largest = s[first]
            for c in range(first, stop):
                largest = max(largest, s[c])
            if not largest > least:
                continue
            for c in range(first, stop):
                if not s[c] > least:
                    continue
                at = k - 1
                while at > 0 and s[c] > kept[at - 1]:
                    kept[at], names[at] = kept[at - 1], names[at - 1]
                    at -= 1
                kept[at], names[at] = s[c], start + c
                least = kept[k - 1]
