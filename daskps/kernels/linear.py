"""Linear models over a slice of CSR rows: pulled rows in, loss and push out.

Owns the way into the compiled loops: checks nothing, converts hyper-parameters, and gives numba
one type for each array so that it compiles few variants. Labels, ids and validation are the
estimator's; merging of pushes is the server's.

The objective of the whole project is stated here once, with scikit-learn's `SGDClassifier`'s
names: minimise over w and the unpenalised intercept b ::

    (1 / N) sum_i s_i loss_i(w, b) + alpha ((1 - l1_ratio) / 2 ||w||^2 + l1_ratio ||w||_1)

The losses are those of `daskps.kernels._losses`. T is the number of samples (weights not counted)
that the whole run has seen; a penalty of ``alpha T`` beside T losses is the same objective, which
is the form the updates use.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskps.kernels import _bias, _binary, _gradient, _losses, _multi, _scale, _select, _state

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

STATE_FIELDS = _state.N_FIELDS
_EMPTY = np.empty(0, np.float32)
# Smaller slices say too little about the intercept, and dense rows about their response.
_MIN_SLICE = 512
# Measured together: docs/decisions/0036.
_KAPPA, _REACH_CURVED, _BETA_CURVED = 0.6, 4.2, 10.7
_REACH = {"log_loss": 0.6, "hinge": 0.3, "squared_hinge": 0.2, "squared": 0.45, "huber": 0.45}


class Rule(NamedTuple):
    """How a gradient becomes a step; the same numbers as the table's updater.

    With n the sum of squared gradients of a coordinate, a step is
    ``1 / ((beta + sqrt(n)) / eta + kappa n)``.
    """

    ftrl: bool
    """True for FTRL-proximal, False for AdaGrad."""
    eta: float
    beta: float
    alpha2: float = 0.0
    """alpha x (1 - l1_ratio)."""
    alpha1: float = 0.0
    """alpha x l1_ratio."""
    kappa: float = 0.0
    """AdaGrad only: how far steps follow the curvature, of which n is an estimate; see
    `curvature_of`."""

    def unpenalised(self) -> Rule:
        """Return the rule of the intercept's table.

        Its value is 1 in every row, whatever the scale of the others, of which `beta` tells.
        """
        return self._replace(eta=self.eta * self.beta, beta=1.0, alpha2=0.0, alpha1=0.0)


class Loss(NamedTuple):
    """What is minimised; the formulas are in `daskps.kernels._losses`."""

    name: str
    """``log_loss``, ``hinge``, ``squared_hinge``, ``squared`` or ``huber``."""
    epsilon: float = 0.0
    """Where the Huber loss turns from a parabola into a line; no other loss has it."""


LOG_LOSS = Loss("log_loss")


class Rows(NamedTuple):
    """CSR rows with labels; `indices` are positions in the pulled rows, not feature ids."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.uint32]
    values: F32 | None
    """None: all ones."""
    y: F32 | NDArray[np.int32]
    """For one weight a key 0 or 1 or a quantity, as float32; for one a class its code, int32."""
    weight: F32 | None
    """One factor a row (sample weight x class weight); None: all ones."""


def begin(rule: Rule, pulled: F32, T_end: float, out: F32) -> None:
    """Turn pulled rows into working state.

    Parameters
    ----------
    rule
        ``rule.unpenalised()`` for the intercept's table.
    pulled
        Payload of a pull, shape (m, n_pull, width).
    T_end
        Samples that the run will have seen at the end of this clock; the same in `train`, `end`.
    out
        Working state, shape (m, `STATE_FIELDS`, width), overwritten.
    """
    eta, beta, l2, l1 = _numbers(rule, T_end)
    _state.begin(_frozen(pulled), rule.ftrl, eta, beta, l2, l1, out)


def train(
    rule: Rule,
    rows: Rows,
    start: int,
    stop: int,
    state: F32,
    bias: F32,
    T_end: float,
    *,
    loss: Loss = LOG_LOSS,
    fit_intercept: bool = True,
    settle_intercept: bool = True,
) -> float:
    """Take one local pass over rows [start, stop), after solving for the intercept on their head.

    Call it once for a slice.

    Parameters
    ----------
    state
        Working state of the keys, shape (m, `STATE_FIELDS`, width), updated in place. Width 1
        is one margin a row, more is one for each class: softmax with the log-loss, else each
        class against the rest.
    bias
        Working state of the intercept, shape (1, `STATE_FIELDS`, width), updated in place.
    T_end
        As in `begin`.
    settle_intercept
        False leaves the intercept to its own steps; other partitions must then not be at work.

    Returns
    -------
    float
        Sum over the rows of weight x loss, each row's before its own update.

    References
    ----------
    McMahan et al. (2013), "Ad Click Prediction: a View from the Trenches", algorithm 1.
    Duchi, Hazan and Singer (2011), "Adaptive Subgradient Methods".
    """
    eta, beta, l2, l1 = _numbers(rule, T_end)
    bias_eta = np.float32(rule.unpenalised().eta)
    binary = state.shape[2] == 1
    loop: Any = _binary.train if binary else _multi.train
    common = (*_frozen_rows(rows), start, stop, state, bias, *_code(loss))
    if fit_intercept and settle_intercept:
        settle: Any = _bias.settle_binary if binary else _bias.settle_multi
        settle(*common, rule.ftrl, bias_eta, np.float32(1))
    assert not (rule.ftrl and rule.kappa), rule
    pace = (eta, beta, bias_eta, np.float32(rule.kappa))
    return float(loop(*common, fit_intercept, rule.ftrl, *pace, l2, l1))


def end(rule: Rule, pulled: F32, state: F32, T_end: float, out: F32) -> None:
    """Turn working state into the payload of a push.

    Parameters
    ----------
    pulled
        What `begin` was given.
    out
        Push, shape (m, n_push, width), overwritten. Fields: change of the value (before the
        L1 threshold), change of n, response; with n_push = 5 also value and Lam as pulled.
    """
    eta, beta, l2, _ = _numbers(rule, T_end)
    _state.end(_frozen(pulled), _frozen(state), rule.ftrl, eta, beta, l2, out)


def decision(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: F32 | None,
    w: F32,
    intercept: F32,
) -> F32:
    """Return margins, shape (n_rows, width), for weights (m, width) and intercept (width,)."""
    out = np.empty((len(indptr) - 1, w.shape[1]), np.float32)
    vals = None if values is None else _frozen(values)
    _binary.scores(_frozen(indptr), _frozen(indices), vals, _frozen(w), _frozen(intercept), out)
    return out


def total_loss(
    loss: Loss, scores: F32, y: F32 | NDArray[np.int32], weight: F32 | None = None
) -> float:
    """Return the sum of weight x loss of `scores` (n_rows, width) against labels."""
    loop = _binary.total_loss if scores.shape[1] == 1 else _multi.total_loss
    factors = _frozen(_EMPTY if weight is None else weight)
    return float(loop(_frozen(scores), _frozen(y), factors, *_code(loss)))


def gradient(loss: Loss, rows: Rows, w: F32 | F64, intercept: F32 | F64) -> tuple[float, F64, F64]:
    """Return the sum of losses over all rows and its gradient, without any penalty.

    Parameters
    ----------
    w
        Weights of the keys, shape (m, width), float32 or float64; width as in `train`.
    intercept
        Shape (width,), of the same type.

    Returns
    -------
    loss
        Sum over the rows of weight x loss.
    gradient
        By `w`, shape (m, width).
    gradient_of_intercept
        By `intercept`, shape (width,).
    """
    out, out_intercept = np.zeros(w.shape), np.zeros(w.shape[1])
    loop: Any = _gradient.binary if w.shape[1] == 1 else _gradient.multi
    at = (_frozen(w), _frozen(intercept))
    total = loop(*_frozen_rows(rows), *at, *_code(loss), out, out_intercept)
    return float(total), out, out_intercept


def sums_of_squares(rows: Rows, n_keys: int) -> tuple[F64, F64]:
    """Return the sums of weight x value^2 over all rows, by key (n_keys,) and of the intercept."""
    out = np.zeros(n_keys)
    indptr, indices, values, _, weight = _frozen_rows(rows)
    total = _scale.sums_of_squares(indptr, indices, values, weight, out)
    return out, np.full(1, total)


def without_unknown(rows: Rows, known: NDArray[np.bool_]) -> Rows:
    """Return the rows without the keys that are not `known`, shape (m,); the others close up."""
    indptr, indices = np.empty_like(rows.indptr), np.empty_like(rows.indices)
    values = _EMPTY if rows.values is None else np.empty_like(rows.values)
    number = np.cumsum(known, dtype=np.uint32) - np.uint32(1)
    select: Any = _select.select
    n = select(*_frozen_rows(rows)[:3], _frozen(known), _frozen(number), indptr, indices, values)
    left = None if rows.values is None else values[:n]
    return rows._replace(indptr=indptr, indices=indices[:n], values=left)


def rows_per_clock(partition_rows: int, n_concurrent: int) -> int:
    """Return the largest slice of a partition that the merge tolerates.

    Depends on the shape of the run alone, so that results do. A pass is a clock for every 2
    concurrent partitions, and from 8 to 16 on for every 4: measured, see merging.md.

    Parameters
    ----------
    partition_rows
        Rows of the largest partition, >= 1.
    n_concurrent
        Partitions that work at a time on what they pulled, >= 1; in BSP all of them.
    """
    clocks = max(-(-n_concurrent // 4), min(-(-n_concurrent // 2), 4))
    return max(min(partition_rows, _MIN_SLICE), -(-partition_rows // clocks))


def curvature_of(loss: Loss, *, ftrl: bool) -> float:
    """Return the `kappa` of a rule.

    Of the log-loss the squared slope of a row is on average its second derivative (both are the
    Fisher information), so n tells what the loss curves a coordinate by. Where n is large a step
    of its inverse is of the size that ends at the minimum instead of going round it. The other
    losses, and the duals of FTRL, have no such n.
    """
    return _KAPPA if loss.name == "log_loss" and not ftrl else 0.0


def default_rates(
    n_rows: int,
    nnz: int,
    sum_of_squares: float,
    loss: Loss = LOG_LOSS,
    *,
    kappa: float = 0.0,
) -> tuple[float, float]:
    """Return eta and beta that suit data of this scale.

    ``eta = reach / rms norm of a row`` and ``beta = slow x rms of a non-zero``, so that scaling all
    values by a factor scales the weights by its inverse and changes no prediction. The reach of a
    loss, how far margins have to come, was measured, and so was `slow`, which is 1 without kappa.

    Parameters
    ----------
    sum_of_squares
        Of all values; `nnz` when they are all ones.
    loss
        Of margins; quantities are to have a deviation near 1.
    kappa
        Of the rule. Where it shortens steps by the curvature, the root of n need not: steps begin
        shorter and stay as they are for longer.
    """
    if nnz == 0 or sum_of_squares <= 0:
        return 0.1, 1.0
    reach, slow = (_REACH[loss.name], 1.0) if kappa == 0 else (_REACH_CURVED, _BETA_CURVED)
    return reach * (n_rows / sum_of_squares) ** 0.5, slow * (sum_of_squares / nnz) ** 0.5


def warm_up(width: int, *, has_values: bool) -> None:
    """Compile, or load from numba's cache, everything that a fit of this kind calls."""
    rule = Rule(ftrl=True, eta=0.1, beta=1.0)
    pulled = np.zeros((1, 2, width), np.float32)
    state, bias = np.zeros((2, 1, STATE_FIELDS, width), np.float32)
    y: NDArray[Any] = np.zeros(1, np.float32 if width == 1 else np.int32)
    x = np.ones(1, np.float32) if has_values else None
    rows = Rows(np.array([0, 1], np.int64), np.zeros(1, np.uint32), x, y, None)
    begin(rule, pulled, 0.0, state)
    train(rule, rows, 0, 1, state, bias, 0.0)
    end(rule, pulled, state, 0.0, np.empty((1, 3, width), np.float32))
    total_loss(LOG_LOSS, decision(*rows[:3], state[:, 2], bias[0, 2]), y)


def _numbers(rule: Rule, T: float) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Return eta, beta and the two penalties of T samples, as the loops take them.

    AdaGrad's penalty is applied by the shard, once a clock, so its loops see none.
    """
    f = np.float32
    if not rule.ftrl:
        return f(rule.eta), f(rule.beta), f(0), f(0)
    return f(rule.eta), f(rule.beta), f(rule.alpha2 * T), f(rule.alpha1 * T)


def _code(loss: Loss) -> tuple[int, np.float32]:
    return _losses.CODES[loss.name], np.float32(loss.epsilon)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view: numba compiles for it once, whether or not the owner may write."""
    view = array.view()
    view.flags.writeable = False
    return view


def _frozen_rows(rows: Rows) -> tuple[Any, ...]:
    values = None if rows.values is None else _frozen(rows.values)
    weight = _frozen(_EMPTY if rows.weight is None else rows.weight)
    return _frozen(rows.indptr), _frozen(rows.indices), values, _frozen(rows.y), weight
