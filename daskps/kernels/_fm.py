"""Row loops of second-order factorisation machines: training pass, intercept, scores.

Arithmetic only; `daskps.kernels.fm` is the way in. The margin of a row is ::

    b + sum_j w_j x_j + 1/2 sum_f [(sum_j v_jf x_j)^2 - sum_j v_jf^2 x_j^2]

which costs O(k nnz) instead of a term for every pair (Rendle 2010, lemma 3.1). Factors are the
inner loop: a key's fields, (4, k) float32, are read as one run of memory.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels import _bias
from daskps.kernels._binary import FAST, HALF, longest_row
from daskps.kernels._losses import margin_loss
from daskps.kernels._state import F32, Scalar

# A factor's response counts this many times: the margin is of second degree in the factors, so a
# merge that moves both of a pair moves it twice. 1 diverges, 2 oscillates; see merging.md.
_PAIRED = np.float32(4)
_W = 2  # field of the working state that holds the value


@njit(inline="always")
def _interaction(
    indices: NDArray[np.uint32],
    values: F32 | None,
    first: Scalar,
    last: Scalar,
    factors: F32,
    field: int,
    sums: F32,
) -> Scalar:
    """Return a row's second-order term and leave sum_j v_jf x_j in `sums` (k,)."""
    W, k = np.uint64(field), np.uint64(sums.size)
    squares = np.float32(0)
    sums[:] = np.float32(0)
    for j in range(first, last):
        x = np.float32(1) if values is None else values[j]
        v = factors[indices[j], W]
        for f in range(k):
            t = v[f] * x
            sums[f] += t
            squares += t * t
    total = np.float32(0)
    for f in range(k):
        total += sums[f] * sums[f]
    return np.float32(0.5) * (total - squares)


# Python's check of divisors, and a sum in the loop over factors, would keep it from being
# vectorised: with both gone, 32 factors take a third of the time.
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
    factors: F32,
    bias: F32,
    kind: int,
    epsilon: Scalar,
    learn_bias: bool,
    eta: Scalar,
    beta: Scalar,
    factor_eta: Scalar,
    factor_beta: Scalar,
) -> Scalar:
    """One pass over rows [start, stop) by AdaGrad; updates the states, returns the sum of losses.

    All of a row's gradients are taken at the same point, before any of its updates.
    """
    one = np.float32(1)
    N, W, LAM = np.uint64(1), np.uint64(2), np.uint64(3)
    width = np.uint64(factors.shape[2])
    longest = longest_row(indptr, start, stop)
    root, roots = np.empty(longest, np.float32), np.empty((longest, width), np.float32)
    sums, paces = np.empty(width, np.float32), np.empty(width, np.float32)
    S = state[:, :, 0]
    b = bias[0, :, 0].copy()
    total: Scalar = 0.0
    for i in range(start, stop):
        first, last = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        s = b[2]
        for j in range(first, last):
            s += S[indices[j], W] if values is None else S[indices[j], W] * values[j]
        s += _interaction(indices, values, first, last, factors, _W, sums)
        loss, slope, response = margin_loss(kind, epsilon, s, y[i])
        sw = weight[i] if weight.size > 0 else one
        total += sw * loss
        g0, h = sw * slope, HALF * sw * response
        pace = np.float32(0)
        paces[:] = np.float32(0)
        for j in range(first, last):
            x = one if values is None else values[j]
            key = indices[j]
            g = g0 * x
            n1 = S[key, N] + g * g
            step = eta / (beta + np.sqrt(n1))
            S[key, N] = n1
            S[key, W] -= g * step
            own = step * x * x
            pace += own
            root[j - first] = np.sqrt(own)
            n, v, r = factors[key, N], factors[key, W], roots[j - first]
            for f in range(width):
                # the slope of the margin in v_jf, in which alone the margin is linear: so all of
                # the curvature is that of the loss times q^2
                q = x * (sums[f] - v[f] * x)
                g = g0 * q
                n1 = n[f] + g * g
                step = factor_eta / (factor_beta + np.sqrt(n1))
                n[f] = n1
                v[f] -= g * step
                own = step * q * q
                paces[f] += own
                r[f] = np.sqrt(own)
        for f in range(width):
            pace += paces[f]
        if learn_bias:
            n1 = b[1] + g0 * g0
            step = eta / (beta + np.sqrt(n1))
            b[2] -= g0 * step
            b[1] = n1
            pace += step
            b[3] += h * np.sqrt(pace * step)
        c = h * np.sqrt(pace)
        for j in range(first, last):
            S[indices[j], LAM] += c * root[j - first]
            lam, r = factors[indices[j], LAM], roots[j - first]
            for f in range(width):
                lam[f] += _PAIRED * c * r[f]
    bias[0, :, 0] = b
    return total


@njit(nogil=True, cache=True, fastmath=FAST)
def scores(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    start: int,
    stop: int,
    state: F32,
    factors: F32,
    field: int,
    intercept: Scalar,
    out: F32,
) -> None:
    """Fill `out` (stop - start, 1) with the margins of rows [start, stop).

    Weights are ``state[:, field, 0]`` and factors ``factors[:, field]``, so that working states
    and plain arrays of one field both serve.
    """
    W = np.uint64(field)
    sums = np.empty(factors.shape[2], np.float32)
    for i in range(start, stop):
        first, last = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        s = intercept
        for j in range(first, last):
            x = np.float32(1) if values is None else values[j]
            s += state[indices[j], W, np.uint64(0)] * x
        s += _interaction(indices, values, first, last, factors, field, sums)
        out[i - start, 0] = s


@njit(nogil=True, cache=True)
def settle(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    y: F32,
    weight: F32,
    start: int,
    stop: int,
    state: F32,
    factors: F32,
    bias: F32,
    kind: int,
    epsilon: Scalar,
    eta: Scalar,
    beta: Scalar,
) -> None:
    """Solve for the intercept on the head of the slice, as `_bias` does for linear models."""
    if stop - start < _bias.MIN_ROWS:
        return
    stop = min(stop, start + _bias.MAX_ROWS)
    margin = np.empty((stop - start, 1), np.float32)
    none = np.float32(0)
    scores(indptr, indices, values, start, stop, state, factors, _W, none, margin)
    b, H = _bias.solve(
        margin[:, 0], y[start:stop], weight[start:stop], bias[0, 2, 0], kind, epsilon
    )
    _bias.store(bias, 0, b, H, False, eta, beta)
