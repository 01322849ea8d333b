"""Compiled loops of L-BFGS over the coordinates of one slot.

Every coordinate is scaled by the root of its curvature c, so that rare and frequent features are
of one size: x' = x / c, g' = c g. Vectors whose names end in s are in these units. Arrays: x0 (the
iterate), x (the trial point), g (sum of loss gradients at x), h (sum of curvatures), all (m,
width); memory (m, width, 2 + 2 n_pairs) holds the gradient at x0, the direction and the pairs.
Sums are taken in float64, coordinate by coordinate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Scalar = Any

GRADIENT, DIRECTION, PAIRS = 0, 1, 2
FLOOR = 1e-20  # mean curvature of coordinates that no row touches; their gradient is zero
N_SUMS = 9
"""Numbers that `measure` gives before those of the pairs: penalty, slope from the iterate, slope at
the trial point, s.y, y.y, p.p, s.p, y.p (scaled), p.p (plain)."""


@njit(inline="always")
def scale_of(h: Scalar, n: Scalar, l2: Scalar) -> Scalar:
    """Return c: one over the root of the mean curvature."""
    return 1.0 / np.sqrt(max(np.float64(h) / n + l2, FLOOR))


@njit(inline="always")
def pseudo(g: Scalar, x: Scalar, l1: Scalar) -> Scalar:
    """Steepest slope of the objective with its L1 term (Andrew and Gao 2007, eq. 4)."""
    if x > 0.0:
        return g + l1
    if x < 0.0:
        return g - l1
    return np.copysign(max(abs(g) - l1, 0.0), g)


@njit(nogil=True, cache=True)
def measure(
    x0: F32,
    x: F32,
    g: F32,
    h: F32,
    memory: F32,
    n: float,
    l2: float,
    l1: float,
    out: NDArray[np.float64],
) -> None:
    """Add to `out` the products that one step of the search and one of the recursion need.

    After `N_SUMS` numbers come, for each pair: s.y, y.y, s.p, y.p with the new y and p.
    """
    n_pairs = (memory.shape[2] - PAIRS) // 2
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            c = scale_of(h[i, k], n, l2)
            at, start = np.float64(x[i, k]), np.float64(x0[i, k])
            before = np.float64(memory[i, k, GRADIENT])
            now = g[i, k] / n + l2 * at
            p = pseudo(now, at, l1)
            s = at - start
            y = now - before
            ys, ps = c * y, c * p
            out[0] += 0.5 * l2 * at * at + l1 * abs(at)
            out[1] += pseudo(before, start, l1) * s
            out[2] += p * s
            out[3] += s * y
            out[4] += ys * ys
            out[5] += ps * ps
            out[6] += s * p
            out[7] += ys * ps
            out[8] += p * p
            for j in range(n_pairs):
                old_s = np.float64(memory[i, k, PAIRS + j])
                old_y = np.float64(memory[i, k, PAIRS + n_pairs + j])
                out[N_SUMS + j] += old_s * ys
                out[N_SUMS + n_pairs + j] += old_y * ys
                out[N_SUMS + 2 * n_pairs + j] += old_s * ps
                out[N_SUMS + 3 * n_pairs + j] += old_y * ps


@njit(nogil=True, cache=True)
def advance(
    x0: F32,
    x: F32,
    g: F32,
    h: F32,
    memory: F32,
    n: float,
    l2: float,
    l1: float,
    pair: int,
) -> None:
    """Make the trial point the iterate; keep the change as pair number `pair` unless negative."""
    n_pairs = (memory.shape[2] - PAIRS) // 2
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            at, start = np.float64(x[i, k]), np.float64(x0[i, k])
            now = g[i, k] / n + l2 * at
            if pair >= 0:
                c = scale_of(h[i, k], n, l2)
                memory[i, k, PAIRS + pair] = (at - start) / c
                memory[i, k, PAIRS + n_pairs + pair] = c * (now - memory[i, k, GRADIENT])
            memory[i, k, GRADIENT] = now
            x0[i, k] = x[i, k]


@njit(nogil=True, cache=True)
def turn(
    x0: F32,
    h: F32,
    memory: F32,
    n: float,
    l2: float,
    l1: float,
    coefficients: NDArray[np.float64],
) -> None:
    """Set the direction: minus a combination of the pseudo-gradient and of all s and y.

    With L1, coordinates that would not go down are left out (Andrew and Gao 2007, section 3.2).
    """
    for i in range(x0.shape[0]):
        for k in range(x0.shape[1]):
            c = scale_of(h[i, k], n, l2)
            start = np.float64(x0[i, k])
            p = c * pseudo(np.float64(memory[i, k, GRADIENT]), start, l1)
            d = coefficients[0] * p
            for j in range(1, coefficients.size):
                d += coefficients[j] * memory[i, k, PAIRS + j - 1]
            memory[i, k, DIRECTION] = 0.0 if l1 > 0.0 and d * p <= 0.0 else -d


@njit(nogil=True, cache=True)
def step(
    x0: F32,
    x: F32,
    h: F32,
    memory: F32,
    n: float,
    l2: float,
    l1: float,
    length: float,
) -> None:
    """Set the trial point at `length` along the direction, inside the orthant of the iterate.

    The orthant of a zero is where the pseudo-gradient leads (Andrew and Gao 2007, section 3.2).
    """
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            start = np.float64(x0[i, k])
            c = scale_of(h[i, k], n, l2)
            to = start + length * c * memory[i, k, DIRECTION]
            if l1 > 0.0:
                side = start
                if start == 0.0:
                    side = -pseudo(np.float64(memory[i, k, GRADIENT]), start, l1)
                if to * side <= 0.0:
                    to = 0.0
            x[i, k] = to
