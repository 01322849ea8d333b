"""The intercept is solved for at the head of a slice, before the pass over its rows.

A shift that all rows share is learnt by every coordinate at once within the first few rows of a
pass. Partitions that do so concurrently all learn it, and their merged change overshoots it, most
of all through rare features, whose own response is small. Giving the shift to the intercept
first, whose response is large and known, removes it from the other coordinates.

The step is proximal: minimise over b ::

    sum_i s_i loss_i(b) + D / 2 (b - b_0)^2

with a small D, `_PRIOR`, and then shortened by the share that chance explains, so that it does not
follow the noise of small slices. Its response is H / D, which makes the merge average it.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._state import F32, Scalar

_ROUNDS = 12
_MIN_ROWS = 64
_MAX_ROWS = 2048
_MAX_SCORES = 16384
_PRIOR = np.float32(1)
_CHANCE = np.float32(2)
_TINY = np.float32(1e-30)


@njit(inline="always")
def _store(
    bias: F32, c: int, b: Scalar, H: Scalar, is_ftrl: bool, eta: Scalar, beta: Scalar
) -> None:
    bias[0, 2, c] = b
    bias[0, 3, c] += H / _PRIOR
    if is_ftrl:
        bias[0, 0, c] = -b * (beta + np.sqrt(bias[0, 1, c])) / eta


@njit(inline="always")
def _beyond_chance(gradient: Scalar, noise: Scalar) -> Scalar:
    """Share of a step that is not noise, after James and Stein; 0 near the optimum."""
    return np.float32(1) - min(np.float32(1), _CHANCE * noise / max(gradient * gradient, _TINY))


@njit(nogil=True, cache=True)
def _margins(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    start: int,
    stop: int,
    state: F32,
) -> F32:
    """Scores of rows [start, stop) without the intercept, (rows, width)."""
    width = state.shape[2]
    out = np.zeros((stop - start, width), np.float32)
    for i in range(start, stop):
        for j in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            x = np.float32(1) if values is None else values[j]
            w = state[indices[j], np.uint64(2)]
            for c in range(width):
                out[i - start, c] += w[c] * x
    return out


@njit(nogil=True, cache=True)
def settle_binary(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    y: F32,
    weight: F32,
    start: int,
    stop: int,
    state: F32,
    bias: F32,
    is_ftrl: bool,
    eta: Scalar,
    beta: Scalar,
) -> None:
    """Solve for the intercept of binary logistic regression on the head of the slice."""
    if stop - start < _MIN_ROWS:
        return
    stop = min(stop, start + _MAX_ROWS)
    margin = _margins(indptr, indices, values, start, stop, state)
    b0 = bias[0, 2, 0]
    b, H, keep = b0, np.float32(0), np.float32(0)
    for round_ in range(_ROUNDS):
        noise = np.float32(0)
        gradient, bound, H = _PRIOR * (b - b0), _PRIOR, np.float32(0)
        for i in range(stop - start):
            s = margin[i, 0] + b
            p = np.float32(1) / (np.float32(1) + np.exp(-s))
            sw = weight[start + i] if weight.size > 0 else np.float32(1)
            g = sw * (p - y[start + i])
            gradient += g
            noise += g * g
            H += sw * p * (np.float32(1) - p)
            # Jaakkola and Jordan's bound on the curvature: the objective falls in every round.
            near = abs(s) < np.float32(1e-2)
            bound += sw * (np.float32(0.25) if near else (p - np.float32(0.5)) / s)
        if round_ == 0:
            keep = _beyond_chance(gradient, noise)
        b -= gradient / bound
    _store(bias, 0, b0 + keep * (b - b0), H, is_ftrl, eta, beta)


@njit(nogil=True, cache=True)
def settle_softmax(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    y: NDArray[np.int32],
    weight: F32,
    start: int,
    stop: int,
    state: F32,
    bias: F32,
    is_ftrl: bool,
    eta: Scalar,
    beta: Scalar,
) -> None:
    """Solve for the intercepts of softmax regression on the head of the slice."""
    if stop - start < _MIN_ROWS:
        return
    width = state.shape[2]
    stop = min(stop, start + max(256, min(_MAX_ROWS, _MAX_SCORES // width)))
    margin = _margins(indptr, indices, values, start, stop, state)
    b0 = bias[0, 2].copy()
    b, p = b0.copy(), np.empty(width, np.float32)
    H, gradient = np.zeros(width, np.float32), np.empty(width, np.float32)
    noise, keep = np.empty(width, np.float32), np.empty(width, np.float32)
    for round_ in range(_ROUNDS):
        noise[:] = 0
        gradient[:] = _PRIOR * (b - b0)
        H[:] = 0
        for i in range(stop - start):
            p[:] = margin[i] + b
            p[:] = np.exp(p - p.max())
            p /= p.sum()
            sw = weight[start + i] if weight.size > 0 else np.float32(1)
            for c in range(width):
                g = sw * (p[c] - np.float32(c == y[start + i]))
                gradient[c] += g
                noise[c] += g * g
                H[c] += sw * p[c] * (np.float32(1) - p[c])
        for c in range(width):
            if round_ == 0:
                keep[c] = _beyond_chance(gradient[c], noise[c])
            # The Hessian is at most twice its diagonal, hence the half; far away, small steps.
            step = np.float32(0.5) * gradient[c] / (H[c] + _PRIOR)
            b[c] -= min(max(step, np.float32(-1)), np.float32(1))
    # Adding one number to all classes changes no probability: leave their mean where it was.
    b -= (b - b0).mean()
    for c in range(width):
        _store(bias, c, b0[c] + keep[c] * (b[c] - b0[c]), H[c], is_ftrl, eta, beta)
