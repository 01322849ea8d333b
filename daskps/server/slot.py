"""The rows of one table in one slot: lookup, copy-on-write, gathering of a clock's pushes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.server.tables import Placement

Rows = NDArray[Any]
Index = NDArray[Any] | None


class TableSlot:
    """Rows of one table whose keys fall into one slot.

    Not thread-safe; the shard that holds it has the lock. Rows of a ``range`` table stand in order
    of position; rows of a ``hash`` table stand in order of their keys and are created on first
    touch, so that what exists depends on what was asked for, not on the order of asking.
    """

    def __init__(self, placement: Placement, slot: int) -> None:
        self.spec = placement.spec
        hashed = self.spec.keys == "hash"
        start = np.empty(0, np.uint64) if hashed else placement.slot_keys(slot)
        self.keys: NDArray[np.uint64] | None = start if hashed else None  # type: ignore[assignment]
        self.rows = self._fresh(start)
        self._acc: Rows | None = None
        self._shared = False

    def _fresh(self, keys: NDArray[Any]) -> Rows:
        u, width = self.spec.updater, self.spec.width
        rows = np.zeros((len(keys), u.n_fields, width), u.dtype)
        u.init(rows, self.spec.init.values(keys, width))
        return rows

    @property
    def nbytes(self) -> int:
        """Bytes of rows and keys, without what is gathered for the barrier."""
        return int(self.rows.nbytes) + (0 if self.keys is None else int(self.keys.nbytes))

    @property
    def pending_nbytes(self) -> int:
        """Bytes gathered for the barrier of the current clock."""
        return 0 if self._acc is None else int(self._acc.nbytes)

    def locate(self, at: Index) -> Index:
        """Return the row numbers of positions or keys `at`; None stands for all rows.

        Raises
        ------
        IndexError
            If a position is beyond the slot's rows.
        """
        if self.keys is not None:
            assert at is not None, "a hash table has no 'all rows'"
            return self._locate_keys(at)
        if at is not None and len(at) and int(at.max()) >= len(self.rows):
            raise IndexError(
                f"position {int(at.max())} asked of a slot of table {self.spec.name!r} with "
                f"{len(self.rows)} rows; the key set was built for another table."
            )
        return at

    def _locate_keys(self, at: NDArray[Any]) -> NDArray[np.int64]:
        keys = self.keys
        assert keys is not None
        found = np.searchsorted(keys, at)
        inside = found < len(keys)
        known = inside.copy()
        known[inside] = keys[found[inside]] == at[inside]
        if not known.all():
            self._create(np.unique(at[~known]).astype(np.uint64))
            assert self.keys is not None
            found = np.searchsorted(self.keys, at)
        return found

    def _create(self, new: NDArray[np.uint64]) -> None:
        assert self.keys is not None
        where = np.searchsorted(self.keys, new)
        self.rows = np.insert(self.rows, where, self._fresh(new), axis=0)
        if self._acc is not None:
            self._acc = np.insert(self._acc, where, 0, axis=0)
        self.keys = np.insert(self.keys, where, new)
        self._shared = False

    def pull(self, idx: Index, T: float, out: Rows) -> None:
        """Copy what a worker needs of rows `idx` into `out`, shape (k, n_pull, width)."""
        self.spec.updater.pull(self.rows, T, out, idx)

    def fold(self, idx: Index, push: Rows) -> None:
        """Add one partition's push to what the barrier will commit."""
        self.spec.updater.fold(self._gathered(), idx, push)

    def commit(self, T: float, R: float) -> None:
        """Apply all that was folded since the last commit; T samples before, R in this clock."""
        self.spec.updater.commit(self._writable(), self._gathered(), T, R)
        self._acc = None

    def apply(self, idx: Index, push: Rows, T: float, R: float) -> None:
        """Apply one push at once."""
        self.spec.updater.apply(self._writable(), idx, push, T, R)

    def values(self, T: float) -> Rows:
        """Return the parameters themselves, shape (rows, width)."""
        out: Rows = self.spec.updater.values(self.rows, T)
        return out

    def freeze(self) -> tuple[NDArray[np.uint64] | None, Rows]:
        """Return keys and rows as they are now; later updates go to a copy."""
        self._shared = True
        return self.keys, self.rows

    def load(self, keys: NDArray[np.uint64] | None, rows: Rows) -> None:
        """Replace the content, dropping what was gathered."""
        if keys is None and rows.shape != self.rows.shape:
            raise ValueError(
                f"rows of shape {rows.shape} loaded into a slot of table {self.spec.name!r} "
                f"with shape {self.rows.shape}; the checkpoint is of another table."
            )
        self.keys, self.rows, self._acc, self._shared = keys, rows, None, False

    def _gathered(self) -> Rows:
        if self._acc is None:
            u = self.spec.updater
            self._acc = np.zeros((len(self.rows), u.n_acc, self.spec.width), u.dtype)
        return self._acc

    def _writable(self) -> Rows:
        if self._shared:
            self.rows, self._shared = self.rows.copy(), False
        return self.rows


def all_finite(x: Rows) -> bool:
    """Return whether no number of `x` is NaN or infinite (integers always are finite)."""
    if x.dtype == np.float32 and x.flags.c_contiguous:
        return not bool(_special(x.reshape(-1).view(np.uint32)))
    return x.dtype.kind in "iub" or bool(np.isfinite(x).all())


@njit(nogil=True, cache=True)
def _special(bits: Any) -> Any:
    # all exponent bits set marks NaN and infinity; without a branch this runs at memory speed
    found = np.uint32(0)
    mask = np.uint32(0x7F800000)
    for i in range(bits.size):
        found |= np.uint32((bits[i] & mask) == mask)
    return found
