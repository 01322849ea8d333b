"""Key sets: which rows of a table a partition touches, split over the slots once and reused.

Rows of a key set stand in slot order, so that what one shard sends or takes is a few contiguous
pieces; a partition's indices are rewritten to these local positions when it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.server.tables import Placement

DENSE_SHARE = 0.4
"""From this share of a table's rows on, all rows are asked for: no positions need to travel."""

SPARSE_SHARE = 0.05
"""With fewer indices than this share of a table's rows, sorting them is cheaper than a map of all
rows."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """Rows of one table in slot order.

    Parameters
    ----------
    table
        Name of the table.
    bounds
        Rows of slot s stand at bounds[s] .. bounds[s + 1], shape (n_slots + 1,).
    at
        Inside its slot, the position (range table, uint32) or key (hash table, uint64) of each
        row, shape (m,); None stands for all rows of the table.
    hashed
        Whether `at` holds keys.
    """

    table: str
    bounds: NDArray[np.int64]
    at: NDArray[np.uint32] | NDArray[np.uint64] | None
    hashed: bool = False

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.bounds[-1])

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        return int(self.bounds.nbytes) + (0 if self.at is None else int(self.at.nbytes))


def whole_table(placement: Placement) -> KeySet:
    """Return the key set of all rows of a range table."""
    assert placement.spec.keys == "range", placement.spec
    return KeySet(placement.spec.name, placement.bounds(), None)


def localise(placement: Placement, indices: NDArray[Any]) -> tuple[KeySet, NDArray[np.uint32]]:
    """Return the key set of `indices` and their positions in it.

    Parameters
    ----------
    placement
        Of the table that the indices name rows of.
    indices
        Keys with repetitions, shape (nnz,), uint32 or uint64.

    Returns
    -------
    keyset
        The distinct keys, or all rows where most of them are touched.
    local
        Position in the key set of each index, shape (nnz,), uint32.
    """
    if placement.spec.keys == "hash" or len(indices) < SPARSE_SHARE * placement.spec.n_rows:
        return _localise_few(placement, indices)
    touched = np.zeros(placement.spec.n_rows, np.bool_)
    _mark(touched, indices)
    order = np.empty(placement.spec.n_rows, np.uint32)
    if touched.mean() >= DENSE_SHARE:
        bounds = placement.bounds()
        _dense_order(order, bounds, placement.block, placement.n_slots)
        return KeySet(placement.spec.name, bounds, None), _take(order, indices)
    keys = np.flatnonzero(touched)
    keyset, sorted_keys = _in_slot_order(placement, keys)
    order[sorted_keys] = np.arange(len(keys), dtype=np.uint32)
    at = placement.positions(sorted_keys).astype(np.uint32)
    return KeySet(placement.spec.name, keyset, at), _take(order, indices)


def _localise_few(placement: Placement, indices: NDArray[Any]) -> tuple[KeySet, NDArray[np.uint32]]:
    keys, inverse = np.unique(indices.astype(np.uint64), return_inverse=True)
    bounds, ordered = _in_slot_order(placement, keys)
    rank = np.empty(len(keys), np.uint32)
    rank[np.searchsorted(keys, ordered)] = np.arange(len(keys), dtype=np.uint32)
    hashed = placement.spec.keys == "hash"
    at = ordered if hashed else placement.positions(ordered).astype(np.uint32)
    return KeySet(placement.spec.name, bounds, at, hashed), rank[inverse.ravel()]


def _in_slot_order(
    placement: Placement, keys: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    slots = placement.slots(keys)
    sizes = np.bincount(slots, minlength=placement.n_slots)
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return bounds, keys[np.argsort(slots, kind="stable")]


@njit(nogil=True, cache=True)
def _mark(touched: Any, indices: Any) -> None:
    for i in range(indices.size):
        touched[indices[i]] = True


@njit(nogil=True, cache=True)
def _take(order: Any, indices: Any) -> Any:
    out = np.empty(indices.size, np.uint32)
    for i in range(indices.size):
        out[i] = order[indices[i]]
    return out


@njit(nogil=True, cache=True)
def _dense_order(order: Any, bounds: Any, block: int, n_slots: int) -> None:
    turn = block * n_slots
    for r in range(order.size):
        order[r] = bounds[(r // block) % n_slots] + r // turn * block + r % block
