"""Key sets: which rows of a table a partition touches, split over the slots once and reused.

Rows of a key set stand in slot order, so that what one shard sends or takes is a few contiguous
pieces; a partition's indices are rewritten to these local positions when it is loaded. The memory
that this takes is a multiple of the indices, never of the table. Loops are in `_localise`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.server import _localise
from daskps.server.messages import Want
from daskps.server.tables import Placement

DENSE_SHARE = 0.4
"""From this share of a table's rows on, all rows are asked for: no positions need to travel."""

MAP_SHARE = 0.25
"""With fewer indices than this share of a table's rows they are hashed: a map of all rows takes 4
bytes for each. Measured on Zipf data: 0.07 s by map and 0.14 s by hashing at a share of 0.24,
0.57 s and 0.19 s at 0.024."""


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

    def only(self, known: NDArray[np.bool_]) -> KeySet:
        """Return those of the rows that are `known`, shape (m,), in the same order."""
        ends = np.concatenate(([0], np.cumsum(known, dtype=np.int64)))
        if self.at is None:  # a row's position is where it stands after the first of its slot
            first = np.repeat(self.bounds[:-1], np.diff(self.bounds))[known]
            at = (np.flatnonzero(known) - first).astype(np.uint32)
            return KeySet(self.table, ends[self.bounds], at)
        return KeySet(self.table, ends[self.bounds], self.at[known], self.hashed)

    def ids(self) -> NDArray[np.uint64]:
        """Return a number for each row that no other row of the table has, shape (m,).

        Those of a range table ascend; those of a hash table are the keys.
        """
        if self.hashed:
            assert self.at is not None, self.table
            return self.at.astype(np.uint64)
        sizes = np.diff(self.bounds)
        slots = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
        at = self.at
        if at is None:
            at = (np.arange(len(self)) - np.repeat(self.bounds[:-1], sizes)).astype(np.uint32)
        return (slots << np.uint64(32)) + at

    def span(self, first: int, stop: int) -> tuple[int, int]:
        """Return where the rows of slots [first, stop) stand."""
        return int(self.bounds[first]), int(self.bounds[stop])

    def want(self, first: int, stop: int) -> Want:
        """Return what to ask of slots [first, stop)."""
        if self.at is None:
            return Want(self.table, first, stop, None, None)
        sizes = np.diff(self.bounds[first : stop + 1]).tolist()
        return Want(self.table, first, stop, sizes, self.at[slice(*self.span(first, stop))])

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        return int(self.bounds.nbytes) + (0 if self.at is None else int(self.at.nbytes))


def whole_table(placement: Placement) -> KeySet:
    """Return the key set of all rows of a table of ranges or cells."""
    assert placement.spec.keys != "hash", placement.spec
    return KeySet(placement.spec.name, placement.bounds(), None)


def row_numbers(placement: Placement, keyset: KeySet) -> NDArray[np.int64]:
    """Return the rows of a table of ranges or cells that a key set names, in its order."""
    slots = [placement.slot_keys(s) for s in range(placement.n_slots)]
    if keyset.at is not None:
        b, at = keyset.bounds, keyset.at
        slots = [keys[at[b[s] : b[s + 1]]] for s, keys in enumerate(slots)]
    return np.concatenate(slots)


def localise(
    placement: Placement, indices: NDArray[Any], *, exact: bool = False
) -> tuple[KeySet, NDArray[np.uint32]]:
    """Return the key set of `indices` and their positions in it.

    Parameters
    ----------
    placement
        Of the table that the indices name rows of.
    indices
        Keys with repetitions, shape (nnz,), uint32 or uint64.
    exact
        Whether no row may be asked for that is not among them.

    Returns
    -------
    keyset
        The distinct keys, or all rows where most of them are touched and `exact` is not given.
    local
        Position in the key set of each index, shape (nnz,), uint32.
    """
    name, n_rows = placement.spec.name, placement.spec.n_rows
    assert len(indices) < 2**32, "positions are uint32"
    indices = _localise.read_only(indices)
    if placement.spec.keys == "hash":
        bounds, keys, local = _localise.by_hashing(indices, *placement.division)
        return KeySet(name, bounds, keys, hashed=True), local
    if len(indices) >= MAP_SHARE * n_rows:
        bounds, keys, local = _localise.by_map(indices, n_rows, *placement.division)
    else:
        bounds, keys, local = _localise.by_hashing(indices, *placement.division)
    if len(keys) >= DENSE_SHARE * n_rows and not exact:
        whole = whole_table(placement)
        _localise.all_rows(indices, whole.bounds, placement.block, placement.n_slots, local)
        return whole, local
    return KeySet(name, bounds, placement.positions(keys)), local
