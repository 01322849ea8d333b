"""Losses against their formulas in float64, their derivatives, and the gradient of whole rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from scipy.optimize import check_grad
from sklearn.metrics import hinge_loss
from test_linear import N_KEYS, N_ROWS, WIDTHS, make_rows

from daskps.kernels import _losses, linear
from daskps.kernels.linear import Loss

EPSILON = 1.35
LOSSES = [Loss(name, EPSILON if name == "huber" else 0.0) for name in _losses.CODES]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=[loss.name for loss in LOSSES])


@njit
def one(kind: int, epsilon: Any, s: Any, y: Any) -> Any:
    return _losses.margin_loss(kind, epsilon, s, y)


def formula(name: str, s: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the loss as textbooks write it, in float64."""
    m, r = (2 * y - 1) * s, s - y
    return {
        "log_loss": np.logaddexp(0, -m),
        "hinge": np.maximum(0, 1 - m),
        "squared_hinge": np.maximum(0, 1 - m) ** 2,
        "squared": r**2 / 2,
        "huber": np.where(abs(r) <= EPSILON, r**2 / 2, EPSILON * (abs(r) - EPSILON / 2)),
    }[name]


@every_loss
@given(s=st.floats(-20, 20), y=st.sampled_from([0.0, 1.0]))
def test_loss_and_derivative_are_those_of_the_formula(loss: Loss, s: float, y: float) -> None:
    code = linear._code(loss)
    value, slope, response = one(*code, s, y)
    assert value == pytest.approx(formula(loss.name, np.float64(s), np.float64(y)), abs=1e-6)
    h = 1e-4
    left, right = (float(formula(loss.name, np.float64(s + d), np.float64(y))) for d in (-h, h))
    kink = loss.name == "hinge" and abs(1 - (2 * y - 1) * s) <= h
    if not kink:
        assert slope == pytest.approx((right - left) / (2 * h), abs=1e-3)
    assert 0 <= response <= 2


@every_loss
def test_where_there_is_a_slope_there_is_a_response(loss: Loss) -> None:
    """With none, the work of concurrent partitions would add up unchecked."""
    for s in (-30.0, -3.0, 0.0):
        _, slope, response = one(*linear._code(loss), s, 1.0)
        assert slope < 0
        assert response > 0


@every_loss
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("values", [True, False])
def test_gradient_is_that_of_the_sum_of_losses(loss: Loss, width: int, values: bool) -> None:
    rows = make_rows(width, values=values)
    shape = (N_KEYS + 1, width)
    x = np.ones((N_ROWS, N_KEYS + 1))
    x[:, :-1] = dense(rows)

    def total(flat: np.ndarray) -> float:
        s = x @ flat.reshape(shape)
        if width > 1 and loss.name == "log_loss":
            each = np.log(np.exp(s).sum(1)) - s[np.arange(N_ROWS), rows.y]
        else:
            y = rows.y[:, None] if width == 1 else np.eye(width)[rows.y]
            each = formula(loss.name, s, y).sum(1)
        return float(rows.weight @ each)

    def parts(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(shape)
        value, grad, grad_b = linear.gradient(loss, rows, w[:-1].copy(), w[-1].copy())
        return value, np.vstack([grad, grad_b]).ravel()

    at = np.random.default_rng(3).normal(size=shape).ravel()
    value, grad = parts(at)
    assert value == pytest.approx(total(at), rel=1e-7)
    assert check_grad(total, lambda w: parts(w)[1], at) < 1e-4 * np.linalg.norm(grad)
    w = at.reshape(shape).astype(np.float32)
    scores = linear.decision(*rows[:3], w[:-1], w[-1])
    assert linear.total_loss(loss, scores, rows.y, rows.weight) == pytest.approx(value, rel=1e-4)


def dense(rows: linear.Rows) -> np.ndarray:
    x = np.zeros((N_ROWS, N_KEYS))
    each = np.repeat(np.arange(N_ROWS), np.diff(rows.indptr))
    np.add.at(x, (each, rows.indices), 1 if rows.values is None else rows.values)
    return x


def test_hinge_is_that_of_scikit_learn() -> None:
    rows = make_rows(1, weight=False)
    w = np.random.default_rng(2).normal(size=(N_KEYS, 1)).astype("f4")
    scores = linear.decision(*rows[:3], w, np.zeros(1, "f4"))
    expected = hinge_loss(rows.y, scores[:, 0]) * N_ROWS
    assert linear.total_loss(Loss("hinge"), scores, rows.y) == pytest.approx(expected, rel=1e-5)
