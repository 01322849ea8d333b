"""Working state of a slice: from the pulled payload to local rows, and back to what is pushed.

Owns the layout of the state, ``(m, 4, width)`` float32, one row per distinct key of the slice:

============  ======================================================================
``[:, 0]``    z, the dual of FTRL-proximal; AdaGrad leaves it at zero
``[:, 1]``    n, sum of squared gradients
``[:, 2]``    w, the weight that enters the margin
``[:, 3]``    lam, the response that the slice collects (docs/explanation/merging.md)
============  ======================================================================

For width 1 a key takes 16 bytes, so a visit touches one cache line. Does not know the server:
whether there is room for it in `out` decides if a push carries what was pulled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Scalar = Any  # float32 in compiled code

N_FIELDS = 4


@njit(inline="always")
def soft_threshold(u: Scalar, t: Scalar) -> Scalar:
    """Shrink `u` towards zero by `t`; no branch, because the sign of `u` is a coin toss."""
    return np.copysign(np.maximum(abs(u) - t, np.float32(0)), u)


@njit(nogil=True, cache=True, error_model="numpy")
def begin(
    pulled: F32,
    is_ftrl: bool,
    eta: Scalar,
    beta: Scalar,
    l2: Scalar,
    l1: Scalar,
    out: F32,
) -> None:
    """Fill the state `out` (m, 4, width) from `pulled` (m, n_pull, width)."""
    m, _, width = pulled.shape
    if width == 1 and not is_ftrl:
        _begin_plain(pulled.reshape((m, pulled.shape[1])), out.reshape((m, N_FIELDS)))
        return
    for i in range(m):
        for c in range(width):
            value, n = pulled[i, 0, c], pulled[i, 1, c]
            out[i, 1, c] = n
            out[i, 3, c] = np.float32(0)
            if is_ftrl:
                D = (beta + np.sqrt(n)) / eta + l2
                out[i, 0, c] = value
                out[i, 2, c] = soft_threshold(-value / D, l1 / D)
            else:
                out[i, 0, c] = np.float32(0)
                out[i, 2, c] = value


@njit(nogil=True, cache=True, error_model="numpy")
def end(
    pulled: F32,
    state: F32,
    is_ftrl: bool,
    eta: Scalar,
    beta: Scalar,
    l2: Scalar,
    out: F32,
) -> None:
    """Fill the push `out` (m, 3 or 5, width): force, dn, lam and, if there is room, u, Lam.

    The force is the change of the value times 1 + lam; the forces of a clock add up.
    """
    m, fields, width = out.shape
    if width == 1 and not is_ftrl:
        before, after = pulled.reshape((m, pulled.shape[1])), state.reshape((m, N_FIELDS))
        _end_plain(before, after, out.reshape((m, fields)))
        return
    for i in range(m):
        for c in range(width):
            n0, n1 = pulled[i, 1, c], state[i, 1, c]
            if is_ftrl:
                u0 = -pulled[i, 0, c] / ((beta + np.sqrt(n0)) / eta + l2)
                u1 = -state[i, 0, c] / ((beta + np.sqrt(n1)) / eta + l2)
            else:
                u0, u1 = pulled[i, 0, c], state[i, 2, c]
            lam = state[i, 3, c]
            out[i, 0, c] = (u1 - u0) * (np.float32(1) + lam)
            out[i, 1, c] = n1 - n0
            out[i, 2, c] = lam
            if fields == 5:
                out[i, 3, c] = u0
                out[i, 4, c] = pulled[i, 2, c]


# The same for one weight a key that is its own value. With nothing to decide inside, many rows are
# done at a time, which takes a third to a sixth of the time.


@njit(nogil=True, cache=True, error_model="numpy")
def _begin_plain(pulled: F32, out: F32) -> None:
    zero = np.float32(0)
    for i in range(out.shape[0]):
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = zero, pulled[i, 1], pulled[i, 0], zero


@njit(nogil=True, cache=True, error_model="numpy")
def _end_plain(pulled: F32, state: F32, out: F32) -> None:
    for i in range(out.shape[0]):
        lam = state[i, 3]
        out[i, 0] = (state[i, 2] - pulled[i, 0]) * (np.float32(1) + lam)
        out[i, 1], out[i, 2] = state[i, 1] - pulled[i, 1], lam
    if out.shape[1] == 5:
        for i in range(out.shape[0]):
            out[i, 3], out[i, 4] = pulled[i, 0], pulled[i, 2]
