"""The rows of one table in one slot: lookup, copy-on-write, gathering of a clock's pushes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.server._hashing import FREE
from daskps.server._rows import gather
from daskps.server.cells import CellSlot
from daskps.server.changed import Changed
from daskps.server.gather import DENSE_SHARE, Gathered, Index, Rows, united
from daskps.server.key_index import KeyIndex, roomy
from daskps.server.tables import Placement


class TableSlot:
    """Rows of one table whose keys fall into one slot.

    Not thread-safe; the shard that holds it has the lock. Rows of a ``range`` table stand in order
    of position. Rows of a ``hash`` table are created by the first push to their key and stand in
    the order in which they came; all that leaves a slot as a whole is in order of keys, so that it
    depends on what was pushed, not on the order of arrival.
    """

    def __init__(self, placement: Placement, slot: int) -> None:
        self.spec = placement.spec
        self._index = KeyIndex() if self.spec.keys == "hash" else None
        self.rows = self._initial(placement, slot)
        self._room = self.rows
        self._gathered = Gathered()
        self._live = self._touched()
        self._shared = False
        self._changed = Changed(len(self.rows) if self._alike else 0)

    def _initial(self, placement: Placement, slot: int) -> Rows:
        if self._index is not None:
            return self._fresh(np.empty(0, np.uint64))
        if self._alike:
            return self._begun(placement.slot_rows(slot))
        return self._fresh(placement.slot_keys(slot))

    @property
    def _alike(self) -> bool:
        """Whether all rows begin alike."""
        # a formula with logarithms need not give the same bits on another machine
        return self._index is None and self.spec.init.kind == "constant"

    def _begun(self, n: int) -> Rows:
        """Return `n` rows that begin alike: a constant does not look at keys, none need be made."""
        return self._fresh(np.broadcast_to(np.uint64(0), n))

    def _fresh(self, keys: NDArray[Any]) -> Rows:
        u, width = self.spec.updater, self.spec.width
        rows = np.zeros((len(keys), u.n_fields, width), u.dtype)
        u.init(rows, self.spec.init.values(keys, width))
        return rows

    @property
    def keys(self) -> NDArray[np.uint64] | None:
        """Keys of the rows of a hash table, in the order of the rows."""
        return None if self._index is None else self._index.keys

    @property
    def nbytes(self) -> int:
        """Bytes of rows and keys, without what is gathered for the barrier."""
        keys = 0 if self._index is None else self._index.nbytes
        return int(self._room.nbytes) + keys + self._changed.nbytes

    @property
    def pending_nbytes(self) -> int:
        """Bytes gathered for the barrier of the current clock."""
        return self._gathered.nbytes

    def locate(self, at: Index, *, create: bool) -> Index:
        """Return the row numbers of positions or keys `at`; None stands for all rows.

        Parameters
        ----------
        at
            Positions of a range table, or keys of a hash table.
        create
            Whether keys that are not there get rows; else they get the number `FREE`.

        Raises
        ------
        IndexError
            If a position is beyond the slot's rows.
        """
        if self._index is not None:
            assert at is not None, "a hash table has no 'all rows'"
            if not create:
                return self._index.find(at)
            found = self._index.find_or_add(at)
            self._append(self._index.keys[len(self.rows) :])
            return found
        if at is not None and len(at) and int(at.max()) >= len(self.rows):
            raise IndexError(
                f"position {int(at.max())} asked of a slot of table {self.spec.name!r} with "
                f"{len(self.rows)} rows; the key set was built for another table."
            )
        return at

    def _append(self, keys: NDArray[np.uint64]) -> None:
        before, n = len(self.rows), len(self.rows) + len(keys)
        if n == before:
            return
        if n > len(self._room):
            self._room = _resized(self.rows, roomy(n, before))
            self._shared = False
        self._room[before:n] = self._fresh(keys)
        self.rows = self._room[:n]

    def pull(self, idx: Index, T: float, out: Rows, at: Index = None) -> None:
        """Copy what a worker needs of rows `idx` into `out`, shape (k, n_pull, width).

        Keys in `at` that have no row get what their row would begin with.
        """
        updater = self.spec.updater
        if self._index is None or idx is None or not (missing := idx == FREE).any():
            updater.pull(self.rows, T, out, idx)
            return
        assert at is not None
        for which, rows, numbers in (
            (~missing, self.rows, idx[~missing]),
            (missing, self._fresh(at[missing]), None),
        ):
            part = np.empty((int(which.sum()), *out.shape[1:]), out.dtype)
            updater.pull(rows, T, part, numbers)
            out[which] = part

    def fold(self, idx: Index, push: Rows) -> None:
        """Add one partition's push to what the barrier will commit."""
        self._gathered.add(idx, push, len(self.rows), ascending=self._index is None)

    def commit(self, T: float, R: float) -> None:
        """Apply all that was folded since the last commit; T samples before, R in this clock."""
        updater, idx, total = self.spec.updater, self._gathered.idx, self._gathered.total
        self._gathered = Gathered()
        if total is not None:
            updater.commit(self.writable(idx), idx, total, T, R)
        elif not updater.shrinks:
            return
        if not updater.shrinks:
            return
        if total is not None and idx is None:
            self._live = None
            return
        idx = np.empty(0, np.uint32) if idx is None else idx
        if self._live is not None and np.array_equal(self._live, idx):
            return  # as in every pass after the first, when a clock is a pass
        updater.shrink(self.writable(self._live), self._live, idx, T, R)
        self._live = self._sparse(None if self._live is None else united(self._live, idx))

    def _touched(self) -> Index:
        """Return the rows that a penalty may change: those that are not zero."""
        if not self.spec.updater.shrinks or self._index is not None:
            return None
        return self._sparse(np.flatnonzero(self.rows[:, 0].any(axis=1)).astype(np.uint32))

    def _sparse(self, idx: Index) -> Index:
        return None if idx is None or len(idx) >= DENSE_SHARE * len(self.rows) else idx

    def apply(self, idx: Index, push: Rows, T: float, R: float) -> None:
        """Apply one push at once."""
        self.spec.updater.apply(self.writable(idx), idx, push, T, R)

    def values(self, T: float) -> Rows:
        """Return the parameters themselves, shape (rows, width), in order of positions or keys."""
        return self.keys_and_values(T)[1]

    def keys_and_values(self, T: float) -> tuple[NDArray[np.uint64] | None, Rows]:
        """Return the keys of a hash table, ascending, and the parameters in the same order."""
        return in_key_order(self.keys, self.spec.updater.values(self.rows, T))

    def freeze(self) -> tuple[NDArray[np.uint64] | None, Rows]:
        """Return keys and rows as they are now; later updates go to a copy."""
        self._shared = True
        return self.keys, self.rows

    def changed(self) -> NDArray[np.uint32] | None:
        """Return the positions of the rows that have changed, if they are few and others alike."""
        return self._changed.positions() if self._changed.few else None

    def copy(self, at: NDArray[np.uint32], out: Rows) -> None:
        """Copy rows `at` to `out`, which no later update changes."""
        gather(self.rows, at, out)

    def thaw(self, rows: Rows) -> None:
        """Take note that nobody needs the frozen `rows` as they are."""
        self._shared &= self.rows is not rows

    def recall(self, at: Index, pulled: Rows, T: float) -> int:
        """Set rows `at` to what was pulled of them, (k, n_pull, width), after `T` samples.

        Keys that have no row get one, unless what was pulled is what it would begin with. Returns
        how many rows were set.
        """
        idx, updater = self.locate(at, create=False), self.spec.updater
        if self._index is not None and idx is not None and at is not None:
            start = np.empty_like(pulled)
            updater.pull(self._fresh(at), T, start)
            learnt = (idx != FREE) | (pulled != start).any(axis=(1, 2))
            idx, pulled = self.locate(at[learnt], create=True), pulled[learnt]
        updater.recall(self.writable(idx), idx, pulled, T)
        return len(pulled)

    def load(self, keys: NDArray[Any] | None, rows: Rows) -> None:
        """Replace the content, dropping what was gathered.

        Parameters
        ----------
        keys
            Of a hash table. Of a range table the positions of `rows`, if the others are as they
            begin; None if `rows` are all.
        rows
            As `freeze` or `daskps.server.frozen.cut_of` returns them.

        Raises
        ------
        ValueError
            If rows of this table are not like that.
        """
        n = len(self.rows) if keys is None else len(keys)
        few = self._index is None and keys is not None
        if rows.shape != (n, *self.rows.shape[1:]) or (few and not self._alike):
            raise ValueError(
                f"rows of shape {rows.shape} loaded into a slot of table {self.spec.name!r} "
                f"with shape {self.rows.shape}; the checkpoint is of another table."
            )
        self._changed = Changed(len(self.rows) if self._alike else 0)
        if few:
            whole = self._begun(len(self.rows))
            whole[keys] = rows
            self._changed.note(keys)
            rows = whole
        elif self._changed.few:
            self._changed.compare(rows, self._begun(1))
        if self._index is not None:
            self._index = KeyIndex(keys)
        self.rows = self._room = rows
        self._gathered, self._live, self._shared = Gathered(), self._touched(), False

    def writable(self, idx: Index = None) -> Rows:
        """Return the rows, of which `idx` (None: any) are to be changed in place.

        It is a copy of them if a cut keeps them.
        """
        self._changed.note(idx)
        if self._shared:
            self.rows, self._shared = self.rows.copy(), False
            self._room = self.rows
        return self.rows


def slot_of(placement: Placement, slot: int) -> Any:
    """Return the rows of a table in one slot, as they begin."""
    return (CellSlot if placement.spec.keys == "cells" else TableSlot)(placement, slot)


def in_key_order(
    keys: NDArray[np.uint64] | None, rows: Rows
) -> tuple[NDArray[np.uint64] | None, Rows]:
    """Return keys, ascending, and their rows; those of a range table are in order."""
    if keys is None or bool((keys[1:] > keys[:-1]).all()):
        return keys, rows
    order = np.argsort(keys)
    return keys[order], rows[order]


def _resized(rows: Rows, n: int) -> Rows:
    grown = np.zeros((n, *rows.shape[1:]), rows.dtype)
    grown[: len(rows)] = rows
    return grown
