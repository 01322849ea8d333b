"""Sum of losses and its gradient at given weights, in float64: what batch solvers step by.

Arithmetic only; `daskps.kernels.linear` is the way in.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._binary import FAST
from daskps.kernels._losses import margin_loss
from daskps.kernels._multi import row_loss
from daskps.kernels._state import F32, Scalar

F64 = NDArray[np.float64]


@njit(nogil=True, cache=True, fastmath=FAST)
def binary(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    y: F32,
    weight: F32,
    w: F64,
    intercept: F64,
    kind: int,
    epsilon: Scalar,
    out: F64,
    out_intercept: F64,
) -> Scalar:
    """Add the gradient of one margin to `out` (m, 1) and `out_intercept` (1,); return the sum."""
    total: Scalar = 0.0
    for i in range(y.size):
        first, last = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        s = np.float64(intercept[0])
        for j in range(first, last):
            x = np.float32(1) if values is None else values[j]
            s += np.float64(w[indices[j], np.uint64(0)]) * x
        loss, slope, _ = margin_loss(kind, epsilon, s, np.float64(y[i]))
        sw = np.float64(weight[i]) if weight.size > 0 else 1.0
        total += sw * loss
        g = sw * slope
        for j in range(first, last):
            x = np.float32(1) if values is None else values[j]
            out[indices[j], np.uint64(0)] += g * x
        out_intercept[0] += g
    return total


@njit(nogil=True, cache=True, fastmath=FAST)
def multi(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    y: NDArray[np.int32],
    weight: F32,
    w: F64,
    intercept: F64,
    kind: int,
    epsilon: Scalar,
    out: F64,
    out_intercept: F64,
) -> Scalar:
    """Add the gradient to `out` (m, width) and `out_intercept` (width,); return the sum."""
    width = intercept.size
    s, unused = np.empty(width, np.float64), np.empty(width, np.float64)
    total: Scalar = 0.0
    for i in range(y.size):
        first, last = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        s[:] = intercept
        for j in range(first, last):
            x = np.float32(1) if values is None else values[j]
            row = w[indices[j]]
            for c in range(width):
                s[c] += np.float64(row[c]) * x
        sw = np.float64(weight[i]) if weight.size > 0 else 1.0
        total += sw * row_loss(kind, epsilon, s, y[i], unused)
        for j in range(first, last):
            x = np.float64(1) if values is None else np.float64(values[j])
            row_out = out[indices[j]]
            for c in range(width):
                row_out[c] += sw * s[c] * x
        for c in range(width):
            out_intercept[c] += sw * s[c]
    return total
