"""The pushes of one clock to the rows of one slot, added up until the barrier.

Rows that nobody touches take no room, so that a clock costs what it touches and not what the table
holds. Knows no updater: pushes are made so that their sum is what an updater needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Rows = NDArray[Any]
Index = NDArray[Any] | None

DENSE_SHARE = 0.5
"""From this share of a slot's rows on, all of them get room: positions need no memory then."""


class Gathered:
    """A sum of pushes.

    `total` stands for the rows `idx`, ascending, or for all rows of the slot if that is None.
    """

    def __init__(self) -> None:
        self.idx: Index = None
        self.total: Rows | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(a.nbytes for a in (self.idx, self.total) if a is not None)

    def add(self, idx: Index, push: Rows, n_rows: int, *, ascending: bool) -> None:
        """Add a push; its arrays may be used again afterwards.

        Parameters
        ----------
        idx
            Row of each entry, without repetition; None for all rows in order.
        push
            Shape (len(idx), n_push, width).
        n_rows
            Rows that the slot has by now.
        ascending
            Whether `idx` is; else all rows get room.
        """
        few = idx is not None and ascending and len(idx) < DENSE_SHARE * n_rows
        if self.total is None and (few or idx is None):
            self.idx, self.total = None if idx is None else idx.copy(), push.copy()
            return
        if self.total is not None and self.idx is not None and few and idx is not None:
            if np.array_equal(idx, self.idx):
                self.total += push
                return
            if len(idx) + len(self.idx) < DENSE_SHARE * n_rows:
                self._unite(self.idx, self.total, idx, push)
                return
        total = self._all_rows(push, n_rows)
        if idx is None:
            total += push
        else:
            _add_at(total, idx, push)

    def _unite(self, before: NDArray[Any], total: Rows, idx: NDArray[Any], push: Rows) -> None:
        self.idx = united(before, idx)
        self.total = np.zeros((len(self.idx), *push.shape[1:]), push.dtype)
        _add_at(self.total, np.searchsorted(self.idx, before), total)
        _add_at(self.total, np.searchsorted(self.idx, idx), push)

    def _all_rows(self, like: Rows, n_rows: int) -> Rows:
        """Return room for all rows, with what was added."""
        before, idx = self.total, self.idx
        if before is None or idx is not None or len(before) < n_rows:
            self.total = np.zeros((n_rows, *like.shape[1:]), like.dtype)
            self.idx = None
            if before is not None:
                self.total[slice(len(before)) if idx is None else idx] = before
        assert self.total is not None
        return self.total


def united(a: Any, b: Any) -> NDArray[Any]:
    """Return what stands in either of two ascending arrays without repetition."""
    out = np.empty(len(a) + len(b), a.dtype)
    return out[: _unite(a, b, out)].copy()


@njit(nogil=True, cache=True)
def _unite(a: Any, b: Any, out: Any) -> int:
    i = j = n = 0
    while i < a.size or j < b.size:
        if j == b.size or (i < a.size and a[i] <= b[j]):
            if j < b.size and a[i] == b[j]:
                j += 1
            out[n] = a[i]
            i += 1
        else:
            out[n] = b[j]
            j += 1
        n += 1
    return n


@njit(nogil=True, cache=True)
def _add_at(total: Any, idx: Any, push: Any) -> None:
    for k in range(idx.size):
        i = idx[k]
        for f in range(push.shape[1]):
            for c in range(push.shape[2]):
                total[i, f, c] += push[k, f, c]
