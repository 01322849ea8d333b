"""Hashed features: column ids of any width mapped to a chosen number of columns.

Owns the hash, and the checks of its arguments. It is applied when partitions are built (see
`ingest`), or when they are read, for data to predict on (see `Dataset.hashed`).

References
----------
Weinberger et al. (2009), "Feature Hashing for Large Scale Multitask Learning". The mixer is the
finaliser of MurmurHash3 (Appleby 2011), a bijection of 64-bit numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.errors import DataError

from .format import Hashing, index_dtype
from .partition import Partition


def hashing(n_columns: int | None, alternate_sign: bool, seed: int) -> Hashing | None:
    """Return the checked arguments of an ingest; None where ids are kept."""
    if n_columns is None:
        if alternate_sign or seed:
            raise DataError(
                f"alternate_sign={alternate_sign!r} and hash_seed={seed!r} mean nothing without "
                "hash_features; give the number of columns as well."
            )
        return None
    whole = isinstance(n_columns, (int, np.integer)) and not isinstance(n_columns, bool)
    if not whole or not 2 <= n_columns <= 2**63 or n_columns & (n_columns - 1):
        raise DataError(
            f"hash_features is {n_columns!r}, expected a power of two from 2 to 2**63, for example "
            "2**20."
        )
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
        raise DataError(f"hash_seed is {seed!r}, expected an integer from 0 to 2**63 - 1.")
    return Hashing(int(n_columns), bool(alternate_sign), int(seed))


def hashed(part: Partition, how: Hashing) -> Partition:
    """Return `part` with hashed columns, ascending in a row; what collides in a row is summed."""
    bits = how.n_columns.bit_length() - 1
    indices = np.empty(part.nnz, index_dtype(how.n_columns))
    values = np.empty(part.nnz, np.float32)
    indptr = np.zeros(part.n_rows + 1, np.int64)
    given = np.empty(0, np.float32) if part.values is None else part.values
    key = np.uint64(_mix_int(how.seed))
    _hash(
        *(_frozen(part.indptr), _frozen(part.indices), _frozen(given), part.values is None),
        *(key, np.uint64(64 - bits), how.alternate_sign),
        *(indptr, indices, values),
    )
    nnz = int(indptr[-1])
    if nnz < part.nnz:  # copies: views would keep the room of what collided
        indices, values = indices[:nnz].copy(), values[:nnz].copy()
    plain = None if bool((values == 1).all()) else values
    return Partition(indptr, indices, plain, part.label, part.weight, how.n_columns)


def _mix_int(seed: int) -> int:
    x = seed + 1  # 0 is what the mixer maps to itself
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = (x ^ (x >> 33)) * factor % 2**64
    return x ^ (x >> 33)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view: numba compiles for it once, whether or not the owner may write."""
    view = array.view()
    view.flags.writeable = False
    return view


@njit(nogil=True, cache=True)
def _mix(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))


@njit(nogil=True, cache=True)
def _hash(
    indptr: Any,
    ids: Any,
    given: Any,
    ones: bool,
    key: Any,
    shift: Any,
    alternate: bool,
    new_indptr: Any,
    columns: Any,
    values: Any,
) -> None:
    end = 0
    for row in range(indptr.size - 1):
        start = end
        for i in range(indptr[row], indptr[row + 1]):
            h = _mix(np.uint64(ids[i]) ^ key)
            # the column is in the high bits, the sign in the lowest
            columns[end] = h >> shift
            values[end] = np.float32(1) if ones else given[i]
            if alternate and h & np.uint64(1):
                values[end] = -values[end]
            end += 1
        # stable: what collides is summed in the order of the ids
        order = np.argsort(columns[start:end], kind="mergesort")
        end = _sum_equal(columns, values, start, order)
        new_indptr[row + 1] = end


@njit(nogil=True, cache=True)
def _sum_equal(columns: Any, values: Any, start: int, order: Any) -> int:
    """Bring a row, from `start` on, into `order`, sum equal columns, and return where it ends."""
    n = order.size
    row_columns, row_values = columns[start : start + n].copy(), values[start : start + n].copy()
    end = start
    for j in order:
        if end > start and columns[end - 1] == row_columns[j]:
            values[end - 1] += row_values[j]
        else:
            columns[end] = row_columns[j]
            values[end] = row_values[j]
            end += 1
    return end
