"""The rows of a table of cells in one slot: wide rows of counts that are mostly zero.

Memory is that of the cells that are not zero, and a change is a cell's key and a number, so what
a push carries does not depend on the width of rows. Sums of integers are the same in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.server import _cells
from daskps.server.messages import Arrays
from daskps.server.tables import Placement

Keys = NDArray[np.uint64]
Rows = NDArray[Any]


class CellSlot:
    """Cells of one table whose rows fall into one slot.

    It answers what `daskps.server.slot.TableSlot` does, except that rows are read by `gather`. Not
    thread-safe; the shard that holds it has the lock. A commit makes new arrays, so what was frozen
    stays as it was.
    """

    def __init__(self, placement: Placement, slot: int) -> None:
        self.spec = placement.spec
        self.keys: Keys = np.empty(0, np.uint64)
        """row x columns + column of each cell, ascending."""
        self.rows: Rows = np.empty((0, 1, 1), self.spec.updater.dtype)
        """Counts, shape (cells, 1, 1), none of them zero."""
        self._numbers = placement.slot_keys(slot)
        self._runs: list[tuple[Keys, Rows]] = []
        self._edges = np.zeros(len(self._numbers) + 1, np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of cells, without what is gathered for the barrier."""
        return int(self.keys.nbytes + self.rows.nbytes + self._edges.nbytes + self._numbers.nbytes)

    @property
    def pending_nbytes(self) -> int:
        """Bytes gathered for the barrier of the current clock."""
        return sum(int(k.nbytes + c.nbytes) for k, c in self._runs)

    def locate(self, at: Any, *, create: bool) -> Any:
        """Return the keys themselves: cells have no numbers that last."""
        assert create, "rows of cells are read by gather"
        if len(at) and not (at[1:] > at[:-1]).all():
            raise ValueError(f"keys of cells of table {self.spec.name!r} do not ascend.")
        return at

    def fold(self, keys: Keys, push: Rows) -> None:
        """Add one partition's push to what the barrier will commit."""
        run = keys.copy(), push.copy()
        # runs of about the same length are merged, so that a cell is copied log(partitions) times
        while self._runs and len(self._runs[-1][0]) <= 2 * len(run[0]):
            run = _merged(*self._runs.pop(), *run)
        self._runs.append(run)

    def commit(self, T: float, R: float) -> None:
        """Apply all that was folded since the last commit."""
        run = None
        while self._runs:
            last = self._runs.pop()
            run = last if run is None else _merged(*last, *run)
        if run is not None:
            self.apply(*run, T, R)

    def apply(self, keys: Keys, push: Rows, T: float, R: float) -> None:
        """Apply one push at once."""
        self._hold(*_merged(self.keys, self.rows, keys, push))

    def _hold(self, keys: Keys, rows: Rows) -> None:
        self.keys, self.rows = keys, rows
        _cells.row_edges(keys, self._numbers, self.spec.columns, self._edges)

    def gather(self, at: NDArray[np.uint32] | None) -> Arrays:
        """Return the rows at positions `at` (None: all), in its order.

        Returns
        -------
        arrays
            ``lengths``, cells of each row; ``columns`` and ``counts`` of one row after the other.
        """
        if at is None:
            at = np.arange(len(self._numbers), dtype=np.uint32)
        if len(at) and int(at.max()) >= len(self._numbers):
            raise IndexError(
                f"position {int(at.max())} asked of a slot of table {self.spec.name!r} with "
                f"{len(self._numbers)} rows; the key set was built for another table."
            )
        at = np.ascontiguousarray(at)
        lengths = np.empty(len(at), np.uint32)
        n = _cells.lengths(self._edges, at, lengths)
        columns = np.empty(n, np.uint16 if self.spec.columns <= 2**16 else np.uint32)
        counts = np.empty(n, self.rows.dtype)
        args = (self._edges, self.keys, self.rows[:, 0, 0], self._numbers, at, self.spec.columns)
        _cells.gather(*args, columns, counts)
        return {"lengths": lengths, "columns": columns, "counts": counts}

    def keys_and_values(self, T: float) -> tuple[Keys, Rows]:
        """Return keys, ascending, and counts, shape (cells, 1)."""
        return self.keys, self.rows[:, 0]

    def values(self, T: float) -> Rows:
        """Return the counts, shape (cells, 1), in order of keys."""
        return self.rows[:, 0]

    def freeze(self) -> tuple[Keys, Rows]:
        """Return keys and rows as they are now, which do not change."""
        return self.keys, self.rows

    def changed(self) -> None:
        """Say that all cells are of interest: none is as it began."""

    def thaw(self, rows: Rows) -> None:
        """Do nothing: what was frozen is never changed."""

    def load(self, keys: Keys | None, rows: Rows) -> None:
        """Replace the content, dropping what was gathered."""
        if keys is None or rows.shape != (len(keys), 1, 1):
            raise ValueError(
                f"rows of shape {rows.shape} loaded into a slot of table {self.spec.name!r}, which "
                "has cells; the checkpoint is of another table."
            )
        self._runs = []
        self._hold(keys, rows)


def stacked(found: Sequence[Arrays]) -> Arrays:
    """Return the rows that several slots gathered, one slot after the other."""
    names = found[0] if found else ()
    return {name: np.concatenate([f[name] for f in found]) for name in names}


def histogram(slots: Sequence[CellSlot]) -> Arrays:
    """Return the different ``counts`` in slots, ascending, and how many ``cells`` have each."""
    counts = [slot.rows[:, 0, 0] for slot in slots]
    found, cells = np.unique(np.concatenate(counts or [np.empty(0, np.int32)]), return_counts=True)
    return {"counts": found.astype(np.int64), "cells": cells.astype(np.int64)}


def added_histograms(parts: Sequence[Any]) -> Arrays:
    """Return what the histograms of several shards add up to."""
    counts = np.concatenate([p["counts"] for p in parts])
    found, where = np.unique(counts, return_inverse=True)
    cells = np.bincount(where, np.concatenate([p["cells"] for p in parts]), len(found))
    return {"counts": found, "cells": cells.astype(np.int64)}


def in_slot_order(found: Iterable[tuple[int, Arrays | None]]) -> Arrays:
    """Put what was gathered from several runs of slots together.

    Parameters
    ----------
    found
        First slot of each run, and what was gathered from it.
    """
    answers = [answer for _, answer in sorted(found, key=lambda pair: pair[0]) if answer]
    if len(answers) == 1:
        return answers[0]
    return {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}


def _merged(keys: Keys, rows: Rows, more: Keys, changes: Rows) -> tuple[Keys, Rows]:
    """Return what two runs add up to; cells that become zero are left out."""
    n = len(keys) + len(more)
    out, sums = np.empty(n, np.uint64), np.empty(n, rows.dtype)
    n = _cells.merge(keys, rows[:, 0, 0], more, changes[:, 0, 0], out, sums)
    # copies: a view would keep what is left out alive
    return out[:n].copy(), sums[:n, None, None].copy()
