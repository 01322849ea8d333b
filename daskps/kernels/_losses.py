"""Losses of linear models, of a margin and a label; numba puts them into the loops of the others.

Owns the formulas; each exists once. With s the margin, y the label, and m = s or -s, positive on
the right side of a two-class problem (y = 1 or 0):

==================  =================================  =====================  ==================
kind                loss                               derivative by s        response
==================  =================================  =====================  ==================
``log_loss``        log(1 + exp(-m))                   p - y                  p (1 - p)
``hinge``           max(0, 1 - m)                      -1, 1 or 0             see `hinge_response`
``squared_hinge``   max(0, 1 - m)^2                    2 max(0, 1 - m) (-+1)  2 where m < 1
``squared``         (s - y)^2 / 2                      s - y                  1
``huber``           r^2 / 2, beyond epsilon            r, at most epsilon     min(1, epsilon / |r|)
                    epsilon (|r| - epsilon / 2)
==================  =================================  =====================  ==================

The response stands for the second derivative where concurrent work is merged
(docs/explanation/merging.md): what the loss curves while a slice is learnt from, not at one point.
Over several classes, ``log_loss`` is that of softmax and lives in `_multi`; the others tell each
class from the rest.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from daskps.kernels._state import Scalar

LOG_LOSS, HINGE, SQUARED_HINGE, SQUARED, HUBER = range(5)
CODES = {
    "log_loss": LOG_LOSS,
    "hinge": HINGE,
    "squared_hinge": SQUARED_HINGE,
    "squared": SQUARED,
    "huber": HUBER,
}
# Nearer to the kink, the curvature would be that of a needle.
_NEAR = np.float32(0.25)


@njit(inline="always")
def loss_and_probability(s: Scalar, y: Scalar) -> tuple[Scalar, Scalar]:
    """Log-loss and P(y = 1) at margin `s`, without overflow."""
    e = np.exp(-abs(s))
    p = np.float32(1) / (np.float32(1) + e)
    if s < np.float32(0):
        p = np.float32(1) - p
    return max(s, np.float32(0)) - y * s + np.log1p(e), p


@njit(inline="always")
def hinge_response(u: Scalar) -> Scalar:
    """Response of the hinge at distance `u` from its kink, which has no second derivative.

    Half the curvature of the parabola that touches the hinge at `u` and lies above it; measured,
    see merging.md.
    """
    return np.float32(0.25) / max(abs(u), _NEAR)


@njit(inline="always")
def margin_loss(kind: int, epsilon: Scalar, s: Scalar, y: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """Return loss, derivative by the margin, and response."""
    one, zero, half = np.float32(1), np.float32(0), np.float32(0.5)
    if kind == LOG_LOSS:
        loss, p = loss_and_probability(s, y)
        slope, response = p - y, p * (one - p)
    elif kind in (SQUARED, HUBER):
        r = s - y
        size = abs(r)
        near = size if kind == SQUARED else min(size, epsilon)
        loss = near * (size - half * near)
        slope = np.copysign(near, r)
        response = one if size <= near else near / size
    else:
        sign = y + y - one
        u = one - sign * s
        v = max(u, zero)
        if kind == HINGE:
            loss, response = v, hinge_response(u)
            slope = -sign if u > zero else zero
        else:
            loss, slope = v * v, np.float32(-2) * sign * v
            response = np.float32(2) if u > zero else zero
    return loss, slope, response
