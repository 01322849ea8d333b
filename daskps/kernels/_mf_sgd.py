"""One pass of SGD over ratings: factors and biases of users and items, a rate for each row.

Arithmetic only; `daskps.kernels.mf` is the way in. With e = r - b_u - b_i - <p_u, q_i> a rating
moves ::

    p_u += s_u (e q_i - l p_u),    s_u = eta / sqrt(g_u),    g_u += |e q_i - l p_u|^2 / k

and q_i, b_u, b_i alike; all gradients of a rating are taken at the same point. A row has one rate
for its factors and one for its bias (Chin et al. 2015, sections 3 and 4). In the first pass the
first `LANES` factors learn only: the errors of that pass would slow the others down.

What one rating does is in `_mf_visit`, compiled for one number of factors.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._binary import FAST
from daskps.kernels._mf_visit import BIAS_SUM, SUM, visit
from daskps.kernels._state import F32, Scalar
from daskps.prefetch import prefetch

_AHEAD = 12
"""Ratings between asking for their rows and visiting them."""


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
    rating = visit(width, learnt, biases)
    K, one = np.uint64(width), np.uint64(1)

    # what is merged on arrival depends on when that is: its sums need no fixed order
    @njit(nogil=True, cache=True, fastmath=FAST if responses else False, error_model="numpy")
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
        for t in range(n):
            soon = min(t + np.uint64(_AHEAD), n - one)
            prefetch(P, users[soon])
            prefetch(Q, items[soon])
            u, i = users[t], items[t]
            if responses:
                length = np.float32(0)
                for f in range(K):
                    length += P[u, f] * P[u, f]
                response[i, 0] += eta / np.sqrt(side_Q[i, SUM]) * length
                response[i, 1] += eta / np.sqrt(side_Q[i, BIAS_SUM])
            e = rating(P, Q, side_P, side_Q, u, i, ratings[t], eta, l2, bias_l2, per_factor)
            total += e * e
        return total

    return loop
