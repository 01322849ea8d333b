"""One pass of SGD over ratings: factors and biases of users and items, a rate for each row.

Arithmetic only; `daskps.kernels.mf` is the way in. With e = r - b_u - b_i - <p_u, q_i> a rating
moves ::

    p_u += s_u (e q_i - l p_u),    s_u = eta / sqrt(g_u),    g_u += |e q_i - l p_u|^2 / k

and q_i, b_u, b_i alike; all gradients of a rating are taken at the same point. A row has one rate
for its factors and one for its bias (Chin et al. 2015, sections 3 and 4). In the first pass the
first `LANES` factors learn only: the errors of that pass would slow the others down.

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

BIAS, SUM, BIAS_SUM = range(3)
"""What stands beside the factors of a row: sums are those of squared gradients."""
N_SIDE = 4
"""Numbers beside a row; the last one is room, so that all roots are taken at once."""

LANES = 16
"""Factors are padded with zeros, which stay zero, to a multiple of this."""

_AHEAD = 12
"""Ratings between asking for their item's row and visiting it."""


@functools.cache
def sgd(width: int, learnt: int, biases: bool, responses: bool) -> Any:
    """Return the loop for rows of `width` numbers, a multiple of `LANES`.

    Parameters
    ----------
    width
        Numbers of a row.
    learnt
        Those that are changed, the first ones, a multiple as well.
    biases
        Whether biases are learnt.
    responses
        Whether the response of each item's row is summed up, for merging on arrival.
    """
    K, L = np.uint64(width), np.uint64(learnt)

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
        per_factor: Scalar,
        eta: Scalar,
        l2: Scalar,
        bias_l2: Scalar,
    ) -> float:
        total = 0.0
        n = np.uint64(users.size)
        steps = np.empty(2 * N_SIDE, np.float32)
        for t in range(n):
            prefetch(Q, items[min(t + np.uint64(_AHEAD), n - np.uint64(1))])
            p, q = P[users[t]], Q[items[t]]
            u, i = side_P[users[t]], side_Q[items[t]]
            e = ratings[t] - u[BIAS] - i[BIAS]
            for f in range(K):
                e -= p[f] * q[f]
            total += e * e
            for f in range(np.uint64(N_SIDE)):  # all roots at once, which takes the time of one
                steps[f] = eta / np.sqrt(u[f])
                steps[f + np.uint64(N_SIDE)] = eta / np.sqrt(i[f])
            step_p, step_q = steps[SUM], steps[N_SIDE + SUM]
            if responses:
                length = np.float32(0)
                for f in range(K):
                    length += p[f] * p[f]
                response[items[t], 0] += step_q * length
                response[items[t], 1] += steps[N_SIDE + BIAS_SUM]
            sum_p, sum_q = np.float32(0), np.float32(0)
            for f in range(L):
                x, y = p[f], q[f]
                g, h = e * y - l2 * x, e * x - l2 * y
                sum_p += g * g
                sum_q += h * h
                p[f] = x + step_p * g
                q[f] = y + step_q * h
            u[SUM] += sum_p * per_factor
            i[SUM] += sum_q * per_factor
            if biases:
                g, h = e - bias_l2 * u[BIAS], e - bias_l2 * i[BIAS]
                u[BIAS] += steps[BIAS_SUM] * g
                i[BIAS] += steps[N_SIDE + BIAS_SUM] * h
                u[BIAS_SUM] += g * g
                i[BIAS_SUM] += h * h
        return total

    return loop
