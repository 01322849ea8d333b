"""One pass of SGD over ratings: factors and biases of users and items, a rate for each row.

Arithmetic only; `daskps.kernels.mf` is the way in. With e = r - b_u - b_i - <p_u, q_i> a rating
moves ::

    p_u += s_u (e q_i - l p_u),    s_u = eta / sqrt(g_u),    g_u += |e q_i - l p_u|^2 / k

and q_i, b_u, b_i alike; all gradients of a rating are taken at the same point. A row has one rate
for its first `LANES` factors and one for the others, which learn from the second pass on, when
the errors that would slow them down are gone (Chin et al. 2015, sections 3 and 4); its bias has
its own.

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

BIAS, FIRST_SUM, REST_SUM, BIAS_SUM = range(4)
"""What stands beside the factors of a row: sums are those of squared gradients."""
N_SIDE = 4

LANES = 8
"""Factors are padded with zeros, which stay zero, to a multiple of this."""

_AHEAD = 6
"""Ratings between asking for their item's row and visiting it."""


@njit(inline="always")
def _move(
    p: F32,
    q: F32,
    start: Scalar,
    stop: Scalar,
    e: Scalar,
    step_p: Scalar,
    step_q: Scalar,
    l2: Scalar,
) -> tuple[Scalar, Scalar]:
    """Step factors [start, stop) of a user and an item; return the squares of their gradients."""
    sum_p, sum_q = np.float32(0), np.float32(0)
    for f in range(start, stop):
        x, y = p[f], q[f]
        g, h = e * y - l2 * x, e * x - l2 * y
        sum_p += g * g
        sum_q += h * h
        p[f] = x + step_p * g
        q[f] = y + step_q * h
    return sum_p, sum_q


@functools.cache
def sgd(width: int, biases: bool, responses: bool) -> Any:
    """Return the loop for rows of `width` numbers, a multiple of `LANES`.

    Parameters
    ----------
    width
        Numbers of a row.
    biases
        Whether biases are learnt.
    responses
        Whether the response of each item's row is summed up, for merging on arrival.
    """
    K, first = np.uint64(width), np.uint64(LANES)

    @njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
    def loop(
        users: NDArray[np.uint32],
        items: NDArray[np.uint32],
        ratings: F32,
        P: F32,
        Q: F32,
        side_P: F32,
        side_Q: F32,
        response: F32,
        n_factors: int,
        all_factors: bool,
        eta: Scalar,
        l2: Scalar,
        bias_l2: Scalar,
    ) -> float:
        total = 0.0
        of_first = np.float32(1.0 / min(n_factors, LANES))
        of_rest = np.float32(1.0 / max(n_factors - LANES, 1))
        n = np.uint64(users.size)
        for t in range(n):
            prefetch(Q, items[min(t + np.uint64(_AHEAD), n - np.uint64(1))])
            p, q = P[users[t]], Q[items[t]]
            u, i = side_P[users[t]], side_Q[items[t]]
            e = ratings[t] - u[BIAS] - i[BIAS]
            for f in range(K):
                e -= p[f] * q[f]
            total += e * e
            step_p, step_q = eta / np.sqrt(u[FIRST_SUM]), eta / np.sqrt(i[FIRST_SUM])
            if responses:
                length = np.float32(0)
                for f in range(K):
                    length += p[f] * p[f]
                response[items[t], 0] += step_q * length
                response[items[t], 1] += eta / np.sqrt(i[BIAS_SUM])
            g, h = _move(p, q, np.uint64(0), first, e, step_p, step_q, l2)
            u[FIRST_SUM] += g * of_first
            i[FIRST_SUM] += h * of_first
            if all_factors and first < K:
                step_p, step_q = eta / np.sqrt(u[REST_SUM]), eta / np.sqrt(i[REST_SUM])
                g, h = _move(p, q, first, K, e, step_p, step_q, l2)
                u[REST_SUM] += g * of_rest
                i[REST_SUM] += h * of_rest
            if biases:
                g, h = e - bias_l2 * u[BIAS], e - bias_l2 * i[BIAS]
                u[BIAS] += eta / np.sqrt(u[BIAS_SUM]) * g
                i[BIAS] += eta / np.sqrt(i[BIAS_SUM]) * h
                u[BIAS_SUM] += g * g
                i[BIAS_SUM] += h * h
        return total

    return loop
