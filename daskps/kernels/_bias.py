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

from daskps.kernels._losses import HINGE, LOG_LOSS, SQUARED_HINGE, margin_loss
from daskps.kernels._state import F32, Scalar

_ROUNDS = 12
MIN_ROWS = 64
MAX_ROWS = 2048
_MAX_SCORES = 16384
_PRIOR = np.float32(1)
_CHANCE = np.float32(2)
_TINY = np.float32(1e-30)


@njit(inline="always")
def store(
    bias: F32, c: int, b: Scalar, H: Scalar, is_ftrl: bool, eta: Scalar, beta: Scalar
) -> None:
    """Set an intercept that was solved for, and its response."""
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


@njit(inline="always")
def _bound(kind: int, s: Scalar, y: Scalar, slope: Scalar, response: Scalar) -> Scalar:
    """Curvature of a parabola that touches the loss at `s` and lies above it everywhere."""
    if kind == LOG_LOSS:  # Jaakkola and Jordan's
        near = abs(s) < np.float32(1e-2)
        bound = np.float32(0.25) if near else (slope + y - np.float32(0.5)) / s
    elif kind == SQUARED_HINGE:
        bound = np.float32(2)
    elif kind == HINGE:
        bound = response + response
    else:
        bound = response
    return bound


@njit(nogil=True, cache=True)
def solve(
    margin: F32, y: F32, weight: F32, b0: Scalar, kind: int, epsilon: Scalar
) -> tuple[Scalar, Scalar]:
    """Return the intercept of one margin for each of some rows, and what they curve it by."""
    b, H, keep = b0, np.float32(0), np.float32(0)
    for round_ in range(_ROUNDS):
        noise = np.float32(0)
        gradient, bound, H = _PRIOR * (b - b0), _PRIOR, np.float32(0)
        for i in range(margin.size):
            s = margin[i] + b
            _, slope, response = margin_loss(kind, epsilon, s, y[i])
            sw = weight[i] if weight.size > 0 else np.float32(1)
            g = sw * slope
            gradient += g
            noise += g * g
            H += sw * response
            bound += sw * _bound(kind, s, y[i], slope, response)
        if round_ == 0:
            keep = _beyond_chance(gradient, noise)
        b -= gradient / bound  # the objective falls in every round
    return b0 + keep * (b - b0), H


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
    kind: int,
    epsilon: Scalar,
    is_ftrl: bool,
    eta: Scalar,
    beta: Scalar,
) -> None:
    """Solve for the intercept of a model with one margin on the head of the slice."""
    if stop - start < MIN_ROWS:
        return
    stop = min(stop, start + MAX_ROWS)
    margin = _margins(indptr, indices, values, start, stop, state)[:, 0]
    b, H = solve(margin, y[start:stop], weight[start:stop], bias[0, 2, 0], kind, epsilon)
    store(bias, 0, b, H, is_ftrl, eta, beta)


@njit(nogil=True, cache=True)
def settle_multi(
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
    is_ftrl: bool,
    eta: Scalar,
    beta: Scalar,
) -> None:
    """Solve for the intercepts of a model with a margin for each class on the slice's head."""
    if stop - start < MIN_ROWS:
        return
    width = state.shape[2]
    stop = min(stop, start + max(256, min(MAX_ROWS, _MAX_SCORES // width)))
    margin = _margins(indptr, indices, values, start, stop, state)
    labels, factors = y[start:stop], weight[start:stop]
    b0 = bias[0, 2].copy()
    if kind == LOG_LOSS:
        b, H = _solve_softmax(margin, labels, factors, b0)
    else:
        b, H = b0.copy(), np.zeros(width, np.float32)
        for c in range(width):
            mine = (labels == c).astype(np.float32)
            b[c], H[c] = solve(margin[:, c], mine, factors, b0[c], kind, epsilon)
    for c in range(width):
        store(bias, c, b[c], H[c], is_ftrl, eta, beta)


@njit(nogil=True, cache=True)
def _solve_softmax(margin: F32, y: NDArray[np.int32], weight: F32, b0: F32) -> tuple[F32, F32]:
    """Return the intercepts of softmax for some rows, and what they curve them by."""
    width = b0.size
    b, p = b0.copy(), np.empty(width, np.float32)
    H, gradient = np.zeros(width, np.float32), np.empty(width, np.float32)
    noise, keep = np.empty(width, np.float32), np.empty(width, np.float32)
    for round_ in range(_ROUNDS):
        noise[:] = 0
        gradient[:] = _PRIOR * (b - b0)
        H[:] = 0
        for i in range(y.size):
            p[:] = margin[i] + b
            p[:] = np.exp(p - p.max())
            p /= p.sum()
            sw = weight[i] if weight.size > 0 else np.float32(1)
            for c in range(width):
                g = sw * (p[c] - np.float32(c == y[i]))
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
    return b0 + keep * (b - b0), H
