"""Factorisation machines over a slice of CSR rows: working state in, loss out; scores of rows.

Owns the way into the compiled loops of `_fm`. Pulled rows become working state, and that a push,
by `begin` and `end` of `daskps.kernels.linear`, for weights, factors and intercept alike.

The objective is that of `daskps.kernels.linear`, with the margin of Rendle (2010), equation 1::

    s(x) = b + sum_j w_j x_j + sum_{j<l} <v_j, v_l> x_j x_l

and beside the penalty of the weights that of the factors, ``factor_alpha / 2 ||V||^2``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.kernels import _fm
from daskps.kernels.linear import (
    LOG_LOSS,
    Loss,
    Rows,
    Rule,
    _code,
    _frozen,
    _frozen_rows,
)

F32 = NDArray[np.float32]


def train(
    rule: Rule,
    factor_rule: Rule,
    rows: Rows,
    start: int,
    stop: int,
    state: F32,
    factors: F32,
    bias: F32,
    *,
    loss: Loss = LOG_LOSS,
    fit_intercept: bool = True,
    settle_intercept: bool = True,
) -> float:
    """Take one local pass over rows [start, stop), after solving for the intercept on their head.

    Call it once for a slice.

    Parameters
    ----------
    rule, factor_rule
        How weights and intercept step, and how factors; AdaGrad's both.
    state, factors, bias
        Working states, of `daskps.kernels.linear.STATE_FIELDS` fields, of weights (m, fields, 1),
        factors (m, fields, k) and intercept (1, fields, 1), updated in place.
    settle_intercept
        False leaves the intercept to its own steps; other partitions must then not be at work.

    Returns
    -------
    float
        Sum over the rows of weight x loss, each row's before its own update.

    References
    ----------
    Rendle (2010), "Factorization Machines", lemma 3.1 and equation 4.
    Duchi, Hazan and Singer (2011), "Adaptive Subgradient Methods".
    """
    steps = [np.float32(x) for r in (rule, factor_rule) for x in (r.eta, r.beta)]
    common = (*_frozen_rows(rows), start, stop, state, factors, bias, *_code(loss))
    settle: Any = _fm.settle
    loop: Any = _fm.train
    if fit_intercept and settle_intercept:
        settle(*common, *steps[:2])
    return float(loop(*common, fit_intercept, *steps))


def decision(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    w: F32,
    V: F32,
    intercept: float,
) -> F32:
    """Return margins, shape (n_rows, 1), for weights (m,) and factors (m, k)."""
    out = np.empty((len(indptr) - 1, 1), np.float32)
    vals = None if values is None else _frozen(values)
    loop: Any = _fm.scores
    at = (_frozen(w)[:, None, None], _frozen(V)[:, None], 0, np.float32(intercept))
    loop(_frozen(indptr), _frozen(indices), vals, 0, len(out), *at, out)
    return out
