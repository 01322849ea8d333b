"""The largest scores of each row, kept while blocks of scores go by."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._state import F32, Scalar
from daskps.kernels._vectors import LANES, above


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
    k, m, run = np.uint64(best.shape[1]), np.uint64(scores.shape[1]), np.uint64(LANES)
    one = np.uint64(1)
    for row in range(np.uint64(scores.shape[0])):
        s, kept, names = scores[row], best[row], which[row]
        least = kept[k - one]
        for first in range(np.uint64(0), m, run):
            stop = min(first + run, m)
            # nearly all runs have nothing to offer
            if stop - first == run and not above(scores, row, first, least):
                continue
            for c in range(first, stop):
                if not s[c] > least:
                    continue
                at = k - one
                while at > np.uint64(0) and s[c] > kept[at - one]:
                    kept[at], names[at] = kept[at - one], names[at - one]
                    at -= one
                kept[at], names[at] = s[c], np.int64(start) + np.int64(c)
                least = kept[k - one]
