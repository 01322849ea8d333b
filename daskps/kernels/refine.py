"""Passes that bring a model from near its optimum to it: slopes at an anchor, then steps from it.

Owns the way into the compiled loops of `_refine`, and the sizes of steps. A step of stochastic
gradients ends near an optimum, as far away as its noise. Here a row's gradient is corrected by what
it was at an anchor, where the gradient of all rows is known (Johnson and Zhang 2013, figure 1)::

    w_j -= a_j [ (s_i(w) - s_i(anchor)) x_ij + G_j / n_j ],    then the proximal step of the penalty

with s_i the derivative by the margin of row i, G the sum of all rows' gradients at the anchor and
n_j the rows of all partitions that have feature j: as only they visit it, each visit takes its
share of the dense part, and of the penalty N alpha too (as in Leblond et al. 2017, section 3.1). At
the optimum every such step is zero.

References
----------
Johnson and Zhang (2013), "Accelerating Stochastic Gradient Descent using Predictive Variance
Reduction". Leblond, Pedregosa and Lacoste-Julien (2017), "ASAGA: Asynchronous Parallel SAGA".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskps.kernels import _refine
from daskps.kernels.linear import Loss, Rows, _code, _frozen, _frozen_rows, sums_of_squares

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


class Anchor(NamedTuple):
    """What is known of all rows at the anchor, for the keys of a slice."""

    gradient: F64
    """Sum of loss gradients, shape (m, width)."""
    rows: F64
    """How many rows of all partitions have the key, shape (m,)."""
    of_intercept: F64
    """Gradient by the intercepts, shape (width,); zeros where there are none."""
    n_rows: float


def slopes(loss: Loss, rows: Rows, w: F64, intercept: F64) -> tuple[float, F32]:
    """Return the sum of losses, and weight x derivative by each margin, shape (n_rows, width)."""
    out = np.empty((len(rows.y), len(intercept)), np.float32)
    at = (_frozen(w), _frozen(intercept))
    loop: Any = _refine.slopes
    return float(loop(*_frozen_rows(rows), *at, *_code(loss), out)), out


def add_up(rows: Rows, factors: F64, n_keys: int) -> F64:
    """Return the sums over rows of `factors` (n_rows, width) x values, shape (n_keys, width)."""
    out = np.zeros((n_keys, factors.shape[1]))
    loop: Any = _refine.add_up
    loop(*_frozen_rows(rows)[:3], _frozen(factors), out)
    return out


def visits(rows: Rows, n_keys: int) -> F64:
    """Return how many rows have each key, shape (n_keys,)."""
    return np.bincount(rows.indices, minlength=n_keys).astype(np.float64)


def train(
    loss: Loss,
    rows: Rows,
    w: F64,
    intercept: F64,
    kept: F32,
    anchor: Anchor,
    penalty: tuple[float, float],
    pace: float,
    stiffest: float,
    *,
    fit_intercept: bool,
) -> float:
    """Take one pass over all rows.

    Parameters
    ----------
    w, intercept
        Weights (m, width) and intercepts (width,), updated in place.
    kept
        What `slopes` gave at the anchor.
    penalty
        L2 and L1 of all rows together: N alpha2, N alpha1.
    pace
        How far, of the way to its own minimum, a row may move its margin.
    stiffest
        Largest second derivative of the loss.

    Returns
    -------
    float
        Sum over the rows of weight x loss, each row's before its own step.
    """
    m = len(w)
    squares, _ = sums_of_squares(rows._replace(weight=None), m)
    mean = squares / np.maximum(visits(rows, m), 1)
    heaviest = 1.0 if rows.weight is None else max(float(rows.weight.max(initial=0)), 1e-30)
    # a row's own share is 1 / (entries + intercept) of what it may move its margin by
    longest = len(rows.indices) / max(len(rows.y), 1) + 1
    unit = pace / (stiffest * heaviest * longest)
    step = np.divide(unit, mean, out=np.zeros(m), where=mean > 0)
    share = 1 / np.maximum(anchor.rows, 1)
    loop: Any = _refine.train
    return float(
        loop(
            *_frozen_rows(rows),
            *(w, intercept, *_code(loss), _frozen(kept)),
            *(_frozen(anchor.gradient * share[:, None]), _frozen(step)),
            *(_frozen(penalty[0] * share), _frozen(penalty[1] * share)),
            *(_frozen(anchor.of_intercept / anchor.n_rows), unit if fit_intercept else 0.0),
        )
    )
