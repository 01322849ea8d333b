"""The ratings of a partition in the order in which SGD visits them.

A pass is cut by blocks of items. In each block the users stand in tiles, and the ratings of a tile
in random order: the rows of a tile's users stay in the nearest cache, a block's items in the next,
and neighbouring ratings have different rows, so that one need not wait for the other.
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
    source: NDArray[np.int64],
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
def shuffle_tiles(users: NDArray[np.uint32], source: NDArray[np.int64], seed: Scalar) -> None:
    """Shuffle the entries of each tile; `users` ascend before (Fisher and Yates)."""
    state = seed
    first = 0
    for t in range(1, users.size + 1):
        if t < users.size and users[t] // TILE == users[first] // TILE:
            continue
        for a in range(t - 1, first, -1):
            state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
            b = first + np.int64((state >> np.uint64(33)) % np.uint64(a - first + 1))
            users[a], users[b] = users[b], users[a]
            source[a], source[b] = source[b], source[a]
        first = t


@njit(nogil=True, cache=True)
def scaled(
    values: F32 | None, source: NDArray[np.int64], center: Scalar, unit: Scalar, out: F32
) -> None:
    """Fill `out` with the ratings at `source`, as distances from `center` in units."""
    for t in range(np.uint64(source.size)):
        v = np.float32(1) if values is None else values[source[t]]
        out[t] = (v - center) / unit
