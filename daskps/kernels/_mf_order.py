"""The ratings of a partition in the order in which SGD visits them.

A pass is cut by blocks of items, for the rotation, and a block by runs of items whose rows the
second cache holds. In each run the users stand in tiles, and the ratings of a tile in random
order: the rows of a tile's users stay in the nearest cache, and neighbouring ratings have different
rows, so that one need not wait for the other.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._state import F32, Scalar

TILE = 64
"""Users of a tile."""


@njit(nogil=True, cache=True)
def by_block(
    indptr: NDArray[np.int64],
    columns: NDArray[np.uint32],
    n_blocks: Scalar,
    bounds: NDArray[np.int64],
    users: NDArray[np.uint32],
    source: NDArray[np.uint32],
) -> None:
    """Sort the entries of CSR rows by block of columns: that of column j is j modulo `n_blocks`.

    Fills `bounds` (n_blocks + 1,), and for each entry in the new order its row, `users` (nnz,),
    and where it stood, `source` (nnz,).
    """
    bounds[:] = 0
    for t in range(np.uint64(columns.size)):
        bounds[columns[t] % n_blocks + np.uint32(1)] += 1
    for b in range(n_blocks):
        bounds[b + np.uint32(1)] += bounds[b]
    at = bounds[:-1].copy()
    for row in range(np.uint64(indptr.size - 1)):
        for t in range(np.uint64(indptr[row]), np.uint64(indptr[row + np.uint64(1)])):
            b = columns[t] % n_blocks
            users[at[b]] = row
            source[at[b]] = t
            at[b] += 1


@njit(nogil=True, cache=True)
def order(
    users: NDArray[np.uint32], items: NDArray[np.uint32], run: Scalar, n_runs: Scalar, seed: Scalar
) -> NDArray[np.uint32]:
    """Return the order of visits to ratings of ascending users: by run of items, tile, chance."""
    found = np.empty(users.size, np.uint32)
    bounds = np.zeros(n_runs + np.uint64(1), np.int64)
    for t in range(np.uint64(items.size)):
        bounds[items[t] // run + np.uint64(1)] += 1
    for k in range(n_runs):
        bounds[k + np.uint64(1)] += bounds[k]
    at = bounds[:-1].copy()
    for t in range(np.uint64(items.size)):
        k = items[t] // run
        found[at[k]] = t
        at[k] += 1
    state = seed
    for k in range(n_runs):
        first = bounds[k]
        for t in range(bounds[k] + 1, bounds[k + np.uint64(1)] + 1):
            same = t < bounds[k + np.uint64(1)]
            if same and users[found[t]] // TILE == users[found[first]] // TILE:
                continue
            for a in range(t - 1, first, -1):  # Fisher and Yates
                state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
                span = np.uint64(a - first + 1)
                b = first + np.int64(((state >> np.uint64(32)) * span) >> np.uint64(32))
                found[a], found[b] = found[b], found[a]
            first = t
    return found


@njit(nogil=True, cache=True)
def scaled(
    values: F32 | None, source: NDArray[np.uint32], center: Scalar, unit: Scalar, out: F32
) -> None:
    """Fill `out` with the ratings at `source`, as distances from `center` in units."""
    for t in range(np.uint64(source.size)):
        v = np.float32(1) if values is None else values[source[t]]
        out[t] = (v - center) / unit


@njit(nogil=True, cache=True)
def by_item(indptr: NDArray[np.int64], items: NDArray[np.uint32], tile: int) -> NDArray[np.uint32]:
    """Return the order of CSR entries by tile of `tile` rows and, in it, by item; then by row."""
    n = indptr.size - 1
    order, spare = np.empty(items.size, np.uint32), np.empty(items.size, np.uint32)
    for t in range(np.uint64(items.size)):
        order[t] = t
    high = np.uint32(0)
    for t in range(np.uint64(items.size)):
        high = max(high, items[t])
    at = np.empty(65537, np.int64)
    for first in range(0, n, tile):
        a, b = np.uint64(indptr[first]), np.uint64(indptr[min(first + tile, n)])
        for shift in (np.uint32(0), np.uint32(16)):  # by one half of the number after the other
            if shift and high < 65536:
                break
            at[:] = 0
            for t in range(a, b):
                at[((items[t] >> shift) & np.uint32(65535)) + np.uint32(1)] += 1
            at[0] = a
            for k in range(np.uint64(65536)):
                at[k + np.uint64(1)] += at[k]
            for t in range(a, b):
                k = (items[order[t]] >> shift) & np.uint32(65535)
                spare[at[k]] = order[t]
                at[k] += 1
            order[a:b] = spare[a:b]
    return order
