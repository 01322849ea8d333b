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

from daskps.kernels import _vectors
from daskps.kernels._state import F32, Scalar
from daskps.prefetch import prefetch

_AHEAD = 8
"""Ratings between asking for a row and visiting it."""

_R, _P, _Q = np.uint64(0), np.uint64(1), np.uint64(2)
"""Rows of residual, direction, and its product with the matrix."""


@functools.cache
def users(width: int, implicit: bool) -> Any:
    """Return the loop that solves for users of `width` numbers; see `daskps.kernels.mf`."""
    dot, add, project = _vectors.dot(width), _vectors.add(width), _vectors.project(width)
    K, zero, one = np.uint64(width), np.float32(0), np.float32(1)

    @njit(nogil=True, cache=True, error_model="numpy")
    def loop(
        indptr: NDArray[np.int64],
        items: NDArray[np.uint32],
        weights: F32,
        targets: F32,
        Y: F32,
        gram: F32,
        l2: Scalar,
        steps: int,
        rows: F32,
        W: F32,
        X: F32,
    ) -> float:
        total = 0.0
        for u in range(np.uint64(X.shape[0])):
            first, last = np.uint64(indptr[u]), np.uint64(indptr[u + np.uint64(1)])
            n = last - first
            if n == np.uint64(0):
                X[u] = zero
                continue
            own = l2 if implicit else l2 * np.float32(n)
            W[_R] = zero
            add(W, _R, -own, X, u)
            if implicit:
                for f in range(K):
                    add(W, _R, -X[u, f], gram, f)
            for t in range(n):
                prefetch(Y, items[min(first + t + np.uint64(_AHEAD), last - np.uint64(1))])
                i = items[first + t]
                rows[t] = Y[i]
                c = weights[first + t] if implicit else one
                project(Y, i, X, u, W, _R, targets[first + t], c)
            W[_P] = W[_R]
            square = dot(W, _R, W, _R)
            solved = max(np.float32(1e-20), np.float32(1e-13) * square)
            for _ in range(steps):
                if not square > solved:
                    break
                W[_Q] = zero
                add(W, _Q, own, W, _P)
                if implicit:
                    for f in range(K):
                        add(W, _Q, W[_P, f], gram, f)
                for t in range(n):
                    c = weights[first + t] if implicit else one
                    project(rows, t, W, _P, W, _Q, zero, -c)
                along = dot(W, _P, W, _Q)
                if not along > zero:  # fewer ratings than factors, and no penalty
                    break
                a = square / along
                add(X, u, a, W, _P)
                add(W, _R, -a, W, _Q)
                before, square = square, dot(W, _R, W, _R)
                for f in range(K):
                    W[_P, f] = W[_R, f] + square / before * W[_P, f]
            for t in range(n):
                s, r = dot(rows, t, X, u), targets[first + t]
                if not implicit:
                    total += np.float64(r - s) ** 2 / 2
                elif r > zero:  # what happened has a target of 1 and the weight r
                    total += np.float64(r) * np.float64(one - s) ** 2 - np.float64(s) ** 2
        return total

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
    project = _vectors.project(width)
    zero, one = np.float32(0), np.float32(1)

    @njit(nogil=True, cache=True, error_model="numpy")
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
            i = columns[t]
            c = weights[t] if implicit else one
            if residual:
                project(X, rows[t], V, i, out, i, targets[t], c)
            else:
                project(X, rows[t], V, i, out, i, zero, -c)

    return loop
