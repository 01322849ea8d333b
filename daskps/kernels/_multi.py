"""Row loops of models with a margin for each class: softmax, or each class against the rest.

Arithmetic only; `daskps.kernels.linear` is the way in. The loop over classes is the inner one,
so a key's fields, (4, width) float32, are read as one run of memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._binary import FAST, HALF, longest_row, step_size
from daskps.kernels._losses import LOG_LOSS, margin_loss
from daskps.kernels._state import F32, Scalar, soft_threshold


@njit(inline="always")
def softmax_loss(s: NDArray[Any], y: int) -> Scalar:
    """Log-loss of class `y` at scores `s` (width,), which become the probabilities."""
    top = s[0]
    for c in range(1, s.size):
        top = max(top, s[c])
    norm = np.float32(0)
    target = s[y] - top
    for c in range(s.size):
        s[c] = np.exp(s[c] - top)
        norm += s[c]
    for c in range(s.size):
        s[c] /= norm
    return np.log(norm) - target


@njit(inline="always")
def row_loss(kind: int, epsilon: Scalar, s: NDArray[Any], y: int, response: NDArray[Any]) -> Scalar:
    """Loss of class `y` at margins `s` (width,), which become derivatives; sets `response`."""
    one = np.float32(1)
    loss: Scalar = np.float32(0)
    if kind == LOG_LOSS:
        loss = softmax_loss(s, y)
        for c in range(s.size):
            response[c] = s[c] * (one - s[c])
        s[y] -= one
    else:
        for c in range(s.size):
            part, s[c], response[c] = margin_loss(kind, epsilon, s[c], np.float32(c == y))
            loss += part
    return loss


@njit(inline="always")
def _step(
    row: F32,
    c: int,
    g: Scalar,
    is_ftrl: bool,
    per_eta: Scalar,
    beta: Scalar,
    kappa: Scalar,
    l2: Scalar,
    l1: Scalar,
) -> Scalar:
    """Take gradient `g` into class `c` of a key's fields (4, width); return the step size."""
    n0 = row[1, c]
    n1 = n0 + g * g
    step = step_size(n1, per_eta, beta, kappa, l2)
    row[1, c] = n1
    if is_ftrl:
        z = row[0, c] + g - (np.sqrt(n1) - np.sqrt(n0)) * per_eta * row[2, c]
        row[0, c] = z
        row[2, c] = soft_threshold(-z * step, l1 * step)
    else:
        row[2, c] -= g * step
    return step


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def train(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    y: NDArray[np.int32],
    weight: F32,
    start: int,
    stop: int,
    state: F32,
    bias: F32,
    kind: int,
    epsilon: Scalar,
    learn_bias: bool,
    is_ftrl: bool,
    eta: Scalar,
    beta: Scalar,
    bias_eta: Scalar,
    kappa: Scalar,
    l2: Scalar,
    l1: Scalar,
) -> Scalar:
    """One pass over rows [start, stop); updates `state` and `bias`, returns the sum of losses."""
    one, zero = np.float32(1), np.float32(0)
    width = state.shape[2]
    per_eta, bias_per_eta = one / eta, one / bias_eta
    s = np.empty(width, np.float32)
    curvature = np.empty(width, np.float32)
    pace = np.empty(width, np.float32)
    root = np.empty((longest_row(indptr, start, stop), width), np.float32)
    total: Scalar = 0.0
    for i in range(start, stop):
        first, last = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        s[:] = bias[0, 2]
        for j in range(first, last):
            x = one if values is None else values[j]
            w = state[indices[j], np.uint64(2)]
            for c in range(width):
                s[c] += w[c] * x
        sw = weight[i] if weight.size > 0 else one
        total += sw * row_loss(kind, epsilon, s, y[i], curvature)
        for c in range(width):
            curvature[c] *= HALF * sw
            pace[c] = zero
        for j in range(first, last):
            x = one if values is None else values[j]
            row = state[indices[j]]
            for c in range(width):
                step = _step(row, c, sw * s[c] * x, is_ftrl, per_eta, beta, kappa, l2, l1)
                own = x * x * step
                pace[c] += own
                root[j - first, c] = np.sqrt(own)
        if learn_bias:
            for c in range(width):
                g = sw * s[c]
                own = _step(bias[0], c, g, is_ftrl, bias_per_eta, one, kappa, zero, zero)
                pace[c] += own
                bias[0, 3, c] += curvature[c] * np.sqrt(pace[c] * own)
        for c in range(width):
            curvature[c] *= np.sqrt(pace[c])
        for j in range(first, last):
            row = state[indices[j]]
            for c in range(width):
                row[3, c] += curvature[c] * root[j - first, c]
    return total


@njit(nogil=True, cache=True)
def total_loss(score: F32, y: NDArray[np.int32], weight: F32, kind: int, epsilon: Scalar) -> Scalar:
    """Sum of weighted losses of margins (n_rows, width) against class codes."""
    total: Scalar = 0.0
    unused = np.empty(score.shape[1], np.float32)
    for i in range(score.shape[0]):
        loss = row_loss(kind, epsilon, score[i].copy(), y[i], unused)
        total += loss * (weight[i] if weight.size > 0 else np.float32(1))
    return total
