"""Loops over cells: sorted keys with counts, merged, and gathered by rows.

A key is ``row x columns + column``. Owns no table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def merge(keys: Any, counts: Any, more: Any, changes: Any, out: Any, sums: Any) -> int:
    """Fill `out` and `sums` with what two ascending runs add up to; return how many are not zero.

    A key may come several times in `more`.
    """
    i = j = n = 0
    while i < keys.size or j < more.size:
        if j == more.size or (i < keys.size and keys[i] <= more[j]):
            key, total = keys[i], counts[i]
            i += 1
        else:
            key, total = more[j], changes[j]
            j += 1
        while j < more.size and more[j] == key:
            total += changes[j]
            j += 1
        out[n], sums[n] = key, total
        n += total != 0
    return n


@njit(nogil=True, cache=True)
def row_edges(keys: Any, rows: Any, columns: int, edges: Any) -> None:
    """Fill `edges` (rows + 1) with where each of the ascending `rows` begins among the keys."""
    n = 0
    for r in range(rows.size):
        first = np.uint64(rows[r]) * np.uint64(columns)
        while n < keys.size and keys[n] < first:
            n += 1
        edges[r] = n
    edges[rows.size] = keys.size


@njit(nogil=True, cache=True)
def lengths(edges: Any, at: Any, out: Any) -> int:
    """Fill `out` with the cells of each row of `at`; return their sum."""
    total = 0
    for i in range(at.size):
        n = edges[at[i] + np.uint64(1)] - edges[at[i]]
        out[i] = n
        total += n
    return total


@njit(nogil=True, cache=True)
def gather(
    edges: Any, keys: Any, counts: Any, rows: Any, at: Any, columns: int, out: Any, values: Any
) -> None:
    """Copy columns and counts of the cells of the rows at `at`."""
    n = 0
    for i in range(at.size):
        first = np.uint64(rows[at[i]]) * np.uint64(columns)
        for j in range(np.uint64(edges[at[i]]), np.uint64(edges[at[i] + np.uint64(1)])):
            out[n] = keys[j] - first
            values[n] = counts[j]
            n += 1
