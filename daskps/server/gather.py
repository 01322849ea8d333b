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

ROOMY_SHARE = 0.75
"""From this share on, a union keeps the room that it was made in; below, it moves to its own."""


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
                self.idx, total = _unite(self.idx, flat(self.total), idx, flat(push))
                self.total = total.reshape(-1, *push.shape[1:])
                return
        total = self._all_rows(push, n_rows)
        if idx is None:
            total += push
        else:
            _add_at(total, idx, push)

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
    return _unite(a, np.empty((len(a), 0)), b, np.empty((len(b), 0)))[0]


def _unite(
    a: NDArray[Any], x: NDArray[Any], b: NDArray[Any], y: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the union of ascending `a` and `b`, and for each entry the sum of its rows."""
    most = len(a) + len(b)
    idx, total = np.empty(most, a.dtype), np.empty((most, x.shape[1]), x.dtype)
    n = _merge(a, x, b, y, idx, total)
    if n > ROOMY_SHARE * most:
        return idx[:n], total[:n]
    return idx[:n].copy(), total[:n].copy()


@njit(nogil=True, cache=True)
def _merge(a: Any, x: Any, b: Any, y: Any, idx: Any, total: Any) -> int:
    # without branches: which of the two is smaller cannot be predicted
    zero = total.dtype.type(0)
    i = j = n = 0
    while i < a.size and j < b.size:
        p, q = a[i], b[j]
        idx[n] = min(p, q)
        for f in range(total.shape[1]):
            of_a, of_b = x[i, f], y[j, f]
            total[n, f] = (of_a if p <= q else zero) + (of_b if q <= p else zero)
        i += p <= q
        j += q <= p
        n += 1
    for k in range(i, a.size):
        idx[n] = a[k]
        total[n] = x[k]
        n += 1
    for k in range(j, b.size):
        idx[n] = b[k]
        total[n] = y[k]
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
