"""Rows that wait under their numbers: some of them taken out, and others put in.

Numbers ascend; rows are two-dimensional. Arithmetic only: what waits, and why, is the caller's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Ids = NDArray[np.uint64]


def take(ids: Ids, rows: F32, wanted: Ids) -> tuple[F32, NDArray[np.bool_]]:
    """Return the rows of the `wanted` numbers, zero for those that are not there.

    Parameters
    ----------
    ids
        Ascending, shape (n,).
    rows
        Shape (n, width).
    wanted
        Ascending, shape (m,).

    Returns
    -------
    found
        Shape (m, width).
    taken
        Which of `ids` were wanted, shape (n,).
    """
    found, taken = np.zeros((len(wanted), rows.shape[1]), np.float32), np.zeros(len(ids), np.bool_)
    _take(_frozen(ids), _frozen(rows), _frozen(wanted), found, taken)
    return found, taken


def put(
    ids: Ids,
    rows: F32,
    taken: NDArray[np.bool_],
    more: Ids,
    more_rows: F32,
    waits: NDArray[np.bool_],
) -> tuple[Ids, F32]:
    """Return the rows that were not `taken` and those of `more` that wait, in order of numbers."""
    n = len(ids) - np.count_nonzero(taken) + np.count_nonzero(waits)
    out_ids, out = np.empty(n, np.uint64), np.empty((n, rows.shape[1]), np.float32)
    _put(_frozen(ids), _frozen(rows), taken, _frozen(more), _frozen(more_rows), waits, out_ids, out)
    return out_ids, out


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view: numba compiles for it once, whether or not the owner may write."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


@njit(nogil=True, cache=True)
def _take(ids: Any, rows: Any, wanted: Any, found: Any, taken: Any) -> None:
    j = 0
    for i in range(wanted.size):
        while j < ids.size and ids[j] < wanted[i]:
            j += 1
        if j < ids.size and ids[j] == wanted[i]:
            taken[j] = True
            for f in range(rows.shape[1]):
                found[i, f] = rows[j, f]


@njit(nogil=True, cache=True)
def _put(
    ids: Any, rows: Any, taken: Any, more: Any, more_rows: Any, waits: Any, out_ids: Any, out: Any
) -> None:
    i = j = 0
    for n in range(out_ids.size):
        while j < ids.size and taken[j]:
            j += 1
        while i < more.size and not waits[i]:
            i += 1
        if i == more.size or (j < ids.size and ids[j] < more[i]):
            out_ids[n] = ids[j]
            for f in range(out.shape[1]):
                out[n, f] = rows[j, f]
            j += 1
        else:
            out_ids[n] = more[i]
            for f in range(out.shape[1]):
                out[n, f] = more_rows[i, f]
            i += 1
