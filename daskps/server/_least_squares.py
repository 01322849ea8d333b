"""Compiled loops of conjugate gradients over the rows of one slot, each row a system of its own.

Row i solves ``(A_i + M + n_i l I) y = b_i``. Workers add up products with A_i and residuals
without the rest, which is the same for all rows, and known here: M = the Gram matrix and n_i = 1,
or M = 0 and n_i = the row's ratings. Arrays are (m, width), all but `pushed`, which has the
numbers n_i behind them where these are not 1. Sums of a row are in float64, in a fixed order.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@njit(nogil=True, cache=True)
def gram(rows: F32) -> F64:
    """Return the sum of outer products of rows."""
    m, k = rows.shape
    out = np.zeros((k, k))
    for i in range(m):
        for a in range(k):
            x = np.float64(rows[i, a])
            for b in range(k):
                out[a, b] += x * rows[i, b]
    return out


@njit(nogil=True, cache=True)
def _rest(v: F32, common: F64, l2: float, n: float, out: F64) -> None:
    """Set `out` to ``(M + n l I) v``; a matrix M of no rows is zero."""
    for a in range(v.size):
        out[a] = l2 * n * v[a]
    for b in range(common.shape[0]):  # M is symmetric: columns in turn, which vectors can add
        for a in range(v.size):
            out[a] += common[b, a] * v[b]


@njit(nogil=True, cache=True)
def begin(y: F32, pushed: F32, common: F64, l2: float, r: F32, p: F32) -> None:
    """Set residuals and first directions; `pushed` is ``b - A y``."""
    m, k = y.shape
    rest = np.empty(k)
    for i in range(m):
        n = np.float64(pushed[i, k]) if pushed.shape[1] > k else 1.0
        _rest(y[i], common, l2, n, rest)
        for a in range(k):
            r[i, a] = pushed[i, a] - rest[a]
            p[i, a] = r[i, a]


@njit(nogil=True, cache=True)
def move(y: F32, pushed: F32, common: F64, l2: float, r: F32, p: F32) -> None:
    """Take a step along the directions, `pushed` being ``A p``, and turn."""
    m, k = y.shape
    q = np.empty(k)
    for i in range(m):
        n = np.float64(pushed[i, k]) if pushed.shape[1] > k else 1.0
        _rest(p[i], common, l2, n, q)
        square, along = 0.0, 0.0
        for a in range(k):
            q[a] += pushed[i, a]
            square += np.float64(r[i, a]) * r[i, a]
            along += p[i, a] * q[a]
        if not (square > 1e-20 and along > 0.0):
            continue
        length, left = square / along, 0.0
        for a in range(k):
            y[i, a] += np.float32(length * p[i, a])
            r[i, a] -= np.float32(length * q[a])
            left += np.float64(r[i, a]) * r[i, a]
        for a in range(k):
            p[i, a] = np.float32(r[i, a] + left / square * p[i, a])
