"""Row loops of models with one margin (width 1): training pass, scores, sum of losses.

Arithmetic only; `daskps.kernels.linear` is the way in. Positions are unsigned (numba then leaves
out the wrap-around of negative ones, which is 2 x here) and arrays are float32.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._losses import margin_loss
from daskps.kernels._state import F32, Scalar, soft_threshold
from daskps.prefetch import prefetch

# The order of additions inside one row may change: it depends on that row alone, so results do
# not depend on how rows are cut into slices. NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "nsz", "arcp"}
# How much of the pace of a whole row a coordinate answers to; measured, see merging.md.
HALF = np.float32(0.5)
AHEAD = 2
"""Samples between asking for their rows and visiting them."""


@njit(inline="always")
def longest_row(indptr: NDArray[np.int64], start: int, stop: int) -> int:
    """Return the largest number of non-zeros of a row in [start, stop)."""
    longest = 0
    for i in range(start, stop):
        longest = max(longest, indptr[i + 1] - indptr[i])
    return longest


@njit(inline="always")
def step_size(n: Scalar, per_eta: Scalar, beta: Scalar, kappa: Scalar, l2: Scalar) -> Scalar:
    """Step of a coordinate whose sum of squared gradients is `n`."""
    return np.float32(1) / ((beta + np.sqrt(n)) * per_eta + kappa * n + l2)


# A row is read, worked on in small arrays of its own, and written back: roots and divisions, which
# are most of the time, are then done many at a time. Python's check of divisors would prevent it.
# No loop both adds up and stores: whether it is done many at a time, and with that the order of
# additions, would depend on where the arrays happen to lie in memory.
@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def train(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    y: F32,
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
    one = np.float32(1)
    Z, N, W, LAM = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3)
    weighted = weight.size > 0
    per_eta, bias_per_eta = one / eta, one / bias_eta
    longest = longest_row(indptr, start, stop)
    was, steps = np.empty(longest, np.float32), np.empty(longest, np.float32)
    pull, root = np.empty(longest, np.float32), np.empty(longest, np.float32)
    S = state[:, :, 0]
    b = bias[0, :, 0].copy()
    total: Scalar = 0.0
    for i in range(start, stop):
        first, m = np.uint64(indptr[i]), np.uint64(indptr[i + 1] - indptr[i])
        coming = min(i + AHEAD, stop - 1)
        for j in range(np.uint64(indptr[coming]), np.uint64(indptr[coming + 1])):
            prefetch(S, indices[j])
        s = b[2]
        for t in range(m):
            k = indices[first + t]
            s += S[k, W] if values is None else S[k, W] * values[first + t]
        for t in range(m):
            was[t] = S[indices[first + t], N]
        loss, slope, response = margin_loss(kind, epsilon, s, y[i])
        sw = weight[i] if weighted else one
        total += sw * loss
        g0 = sw * slope
        pace = np.float32(0)
        for t in range(m):
            x = one if values is None else values[first + t]
            step = step_size(was[t] + g0 * x * (g0 * x), per_eta, beta, kappa, l2)
            steps[t] = step
            root[t] = abs(x) * np.sqrt(step)
        for t in range(m):
            pace += root[t] * root[t]
        if is_ftrl:
            for t in range(m):
                g = g0 if values is None else g0 * values[first + t]
                pull[t] = (np.sqrt(was[t] + g * g) - np.sqrt(was[t])) * per_eta
        share = HALF * sw * response
        if learn_bias:
            n1 = b[1] + g0 * g0
            step = step_size(n1, bias_per_eta, one, kappa, np.float32(0))
            if is_ftrl:
                b[0] += g0 - (np.sqrt(n1) - np.sqrt(b[1])) * bias_per_eta * b[2]
                b[2] = -b[0] * step
            else:
                b[2] -= g0 * step
            b[1] = n1
            pace += step
            b[3] += share * np.sqrt(pace * step)
        share *= np.sqrt(pace)
        for t in range(m):
            k = indices[first + t]
            g = g0 if values is None else g0 * values[first + t]
            n0, step = S[k, N], steps[t]
            n1 = n0 + g * g
            if n0 != was[t]:  # this row has the key twice: take one step after the other
                step = step_size(n1, per_eta, beta, kappa, l2)
                pull[t] = (np.sqrt(n1) - np.sqrt(n0)) * per_eta
            S[k, N] = n1
            if is_ftrl:
                z = S[k, Z] + g - pull[t] * S[k, W]
                S[k, Z] = z
                S[k, W] = soft_threshold(-z * step, l1 * step)
            else:
                S[k, W] -= g * step
            S[k, LAM] += share * root[t]
    bias[0, :, 0] = b
    return total


@njit(nogil=True, cache=True, fastmath=FAST)
def scores(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    w: F32,
    intercept: F32,
    out: F32,
) -> None:
    """Margins of all rows: `out` (n_rows, width) = rows x `w` (m, width) + `intercept`."""
    width = w.shape[1]
    for i in range(out.shape[0]):
        first, last = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        if width == 1:
            s = intercept[0]
            for j in range(first, last):
                s += w[indices[j], np.uint64(0)] * (np.float32(1) if values is None else values[j])
            out[i, 0] = s
        else:
            for c in range(width):
                out[i, c] = intercept[c]
            for j in range(first, last):
                x = np.float32(1) if values is None else values[j]
                for c in range(width):
                    out[i, c] += w[indices[j], c] * x


@njit(nogil=True, cache=True)
def total_loss(score: F32, y: F32, weight: F32, kind: int, epsilon: Scalar) -> Scalar:
    """Sum of weighted losses of margins (n_rows, 1)."""
    total: Scalar = 0.0
    for i in range(score.shape[0]):
        loss, _, _ = margin_loss(kind, epsilon, score[i, 0], y[i])
        total += loss * (weight[i] if weight.size > 0 else np.float32(1))
    return total
