"""Row loops of the passes that end a training by local steps: slopes, and steps without noise.

Arithmetic only; `daskps.kernels.refine` is the way in. In float64, because what is left to gain is
less than float32 tells apart; one loop for any number of margins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._losses import margin_loss
from daskps.kernels._multi import row_loss
from daskps.kernels._state import F32, Scalar

F64 = NDArray[np.float64]


@njit(inline="always")
def _derive(kind: int, epsilon: Scalar, s: F64, y: Scalar, unused: F64) -> Scalar:
    """Return the loss at margins `s` (width,), which become derivatives."""
    if s.size == 1:
        loss, s[0], unused[0] = margin_loss(kind, epsilon, s[0], np.float64(y))
    else:
        loss = row_loss(kind, epsilon, s, int(y), unused)
    return loss


@njit(nogil=True, cache=True)
def slopes(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    y: NDArray[Any],
    weight: F32,
    w: F64,
    intercept: F64,
    kind: int,
    epsilon: Scalar,
    out: F32,
) -> Scalar:
    """Fill `out` (n_rows, width) with derivatives by margins; return the sum of losses."""
    width = intercept.size
    s, unused = np.empty(width), np.empty(width)
    total: Scalar = 0.0
    for i in range(y.size):
        s[:] = intercept
        for j in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            x = np.float32(1) if values is None else values[j]
            for c in range(width):
                s[c] += w[indices[j], c] * x
        sw = np.float64(weight[i]) if weight.size > 0 else 1.0
        total += sw * _derive(kind, epsilon, s, y[i], unused)
        for c in range(width):
            out[i, c] = sw * s[c]
    return total


@njit(nogil=True, cache=True)
def add_up(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    factors: F64,
    out: F64,
) -> None:
    """Add the rows, times their `factors` (n_rows, width), to `out` (m, width)."""
    for i in range(indptr.size - 1):
        for j in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            x = np.float32(1) if values is None else values[j]
            for c in range(out.shape[1]):
                out[indices[j], c] += factors[i, c] * x


@njit(nogil=True, cache=True)
def train(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    y: NDArray[Any],
    weight: F32,
    w: F64,
    intercept: F64,
    kind: int,
    epsilon: Scalar,
    kept: F32,
    anchor: F64,
    step: F64,
    l2: F64,
    l1: F64,
    b_anchor: F64,
    b_step: float,
) -> Scalar:
    """One pass of proximal steps whose noise vanishes at the optimum; returns the sum of losses.

    `kept` (n_rows, width) are slopes at the anchor, `anchor` (m, width) the gradient there by
    visit of the key, `step`, `l2` and `l1` (m,) a key's step and its penalties by visit.
    """
    width = intercept.size
    s, unused = np.empty(width), np.empty(width)
    total: Scalar = 0.0
    for i in range(y.size):
        first, last = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        s[:] = intercept
        for j in range(first, last):
            x = np.float32(1) if values is None else values[j]
            for c in range(width):
                s[c] += w[indices[j], c] * x
        sw = np.float64(weight[i]) if weight.size > 0 else 1.0
        total += sw * _derive(kind, epsilon, s, y[i], unused)
        for c in range(width):
            s[c] = sw * s[c] - kept[i, c]
            intercept[c] -= b_step * (s[c] + b_anchor[c])
        for j in range(first, last):
            k = indices[j]
            x = np.float32(1) if values is None else values[j]
            a = step[k]
            for c in range(width):
                u = w[k, c] - a * (s[c] * x + anchor[k, c])
                w[k, c] = np.copysign(max(abs(u) - a * l1[k], 0.0), u) / (1.0 + a * l2[k])
    return total
