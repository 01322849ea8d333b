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
        self.idx, of_before, of_push = _united(before, idx)
        self.total = np.zeros((len(self.idx), *push.shape[1:]), push.dtype)
        _add_at(self.total, of_before, total)
        _add_at(self.total, of_push, push)

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


def flat(rows: Rows) -> NDArray[Any]:
    """Return a view with all numbers of a row side by side, shape (rows, fields x width)."""
    return rows.reshape(len(rows), rows.shape[1] * rows.shape[2])


def united(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return what stands in either of two ascending arrays without repetition."""
    return _united(a, b)[0]


def _united(
    a: NDArray[Any], b: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.uint32], NDArray[np.uint32]]:
    """Return the union of two ascending arrays, and the place in it of each entry of both."""
    out = np.empty(len(a) + len(b), a.dtype)
    # one more: the loop writes a place for the entry that it looks at, also beyond the end
    of_a, of_b = np.empty(len(a) + 1, np.uint32), np.empty(len(b) + 1, np.uint32)
    n = _unite(a, b, out, of_a, of_b)
    return out[:n].copy(), of_a[:-1], of_b[:-1]


@njit(nogil=True, cache=True)
def _unite(a: Any, b: Any, out: Any, of_a: Any, of_b: Any) -> int:
    i = j = n = 0
    while i < a.size and j < b.size:
        x, y = a[i], b[j]
        out[n] = min(x, y)
        of_a[i] = of_b[j] = n  # stays if it is the smaller one; written again later if not
        i += x <= y  # no branch: which is smaller cannot be predicted
        j += y <= x
        n += 1
    for k in range(i, a.size):
        out[n], of_a[k] = a[k], n
        n += 1
    for k in range(j, b.size):
        out[n], of_b[k] = b[k], n
        n += 1
    return n


def _add_at(total: Rows, idx: NDArray[Any], push: Rows) -> None:
    # two loops instead of three, which take twice as long where a row is three numbers
    _add_rows(flat(total), idx, flat(push))


@njit(nogil=True, cache=True)
def _add_rows(total: Any, idx: Any, push: Any) -> None:
    for k in range(idx.size):
        i = idx[k]
        for f in range(push.shape[1]):
            total[i, f] += push[k, f]
