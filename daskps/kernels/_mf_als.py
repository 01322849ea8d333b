"""Alternating least squares by conjugate gradients: users solved whole, items by their products.

Arithmetic only; `daskps.kernels.mf` is the way in. With weights c and targets t a row x solves ::

    (sum_i c_i y_i y_i' + G + l I) x = sum_i t_i y_i

where G is the Gram matrix of all y with implicit feedback and zero with ratings. A user's ratings
are all in one partition; an item's are in many, so that partitions only add up what one step of
its solution needs: products with vectors, or its residual.

Loops are compiled for one number of factors, which lets the compiler unroll them.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._binary import FAST
from daskps.kernels._prefetch import prefetch
from daskps.kernels._state import F32, Scalar

_AHEAD = 8
"""Ratings between asking for a row and visiting it."""


@functools.cache
def _tools(width: int) -> tuple[Any, Any]:
    """Return ``dot(a, b)`` and ``a += s b`` of vectors of `width` numbers."""
    K = np.uint64(width)

    @njit(inline="always")
    def dot(a: F32, b: F32) -> Scalar:
        s = np.float32(0)
        for f in range(K):
            s += a[f] * b[f]
        return s

    @njit(inline="always")
    def add(a: F32, s: Scalar, b: F32) -> None:
        for f in range(K):
            a[f] += s * b[f]

    return dot, add


@functools.cache
def users(width: int, implicit: bool) -> Any:
    """Return the loop that solves for users of `width` numbers; see `daskps.kernels.mf`."""
    dot, add = _tools(width)
    K = np.uint64(width)
    zero = np.float32(0)

    @njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
    def loop(
        indptr: NDArray[np.int64],
        items: NDArray[np.uint32],
        weights: F32,
        targets: F32,
        Y: F32,
        gram: F32,
        l2: Scalar,
        steps: int,
        longest: int,
        X: F32,
    ) -> None:
        rows = np.empty((longest, K), np.float32)
        r, p, q = np.empty(K, np.float32), np.empty(K, np.float32), np.empty(K, np.float32)
        for u in range(np.uint64(X.shape[0])):
            first, last = np.uint64(indptr[u]), np.uint64(indptr[u + np.uint64(1)])
            n = last - first
            x = X[u]
            if n == np.uint64(0):
                x[:] = zero
                continue
            for t in range(n):
                prefetch(Y, items[min(first + t + np.uint64(_AHEAD), last - np.uint64(1))])
                rows[t] = Y[items[first + t]]
            own = l2 if implicit else l2 * np.float32(n)
            for f in range(K):
                r[f] = -own * x[f]
            if implicit:
                for f in range(K):
                    add(r, -x[f], gram[f])
            for t in range(n):
                c = weights[first + t] if implicit else np.float32(1)
                add(r, targets[first + t] - c * dot(rows[t], x), rows[t])
            p[:] = r
            square = dot(r, r)
            for _ in range(steps):
                if not square > np.float32(1e-20):
                    break
                for f in range(K):
                    q[f] = own * p[f]
                if implicit:
                    for f in range(K):
                        add(q, p[f], gram[f])
                for t in range(n):
                    c = weights[first + t] if implicit else np.float32(1)
                    add(q, c * dot(rows[t], p), rows[t])
                a = square / dot(p, q)
                add(x, a, p)
                add(r, -a, q)
                before, square = square, dot(r, r)
                for f in range(K):
                    p[f] = r[f] + square / before * p[f]

    return loop


@functools.cache
def items(width: int, implicit: bool, residual: bool) -> Any:
    """Return the loop that adds up what items need of `width` numbers.

    Parameters
    ----------
    width
        Numbers of a row.
    implicit
        Whether products are weighted.
    residual
        Whether targets minus products are wanted, else products alone.
    """
    dot, add = _tools(width)

    @njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
    def loop(
        rows: NDArray[np.uint32],
        columns: NDArray[np.uint32],
        weights: F32,
        targets: F32,
        X: F32,
        V: F32,
        out: F32,
    ) -> None:
        n = np.uint64(rows.size)
        for t in range(n):
            prefetch(X, rows[min(t + np.uint64(_AHEAD), n - np.uint64(1))])
            x, i = X[rows[t]], columns[t]
            s = dot(x, V[i])
            if implicit:
                s *= weights[t]
            if residual:
                s = targets[t] - s
            add(out[i], s, x)

    return loop
