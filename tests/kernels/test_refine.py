"""Refined passes: slopes are derivatives, steps are those of the equation, none at the optimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_linear import N_KEYS, N_ROWS, WIDTHS, make_rows

from daskps.kernels import linear, refine
from daskps.kernels.linear import LOG_LOSS, Loss, Rows

RNG = np.random.default_rng(3)
PENALTY = (2.0, 0.5)


def at(width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.normal(size=(N_KEYS, width)), rng.normal(size=width)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["log_loss", "squared_hinge"])
@pytest.mark.parametrize("values", [True, False])
def test_slopes_add_up_to_the_gradient(width: int, name: str, values: bool) -> None:
    rows, (w, b), loss = make_rows(width, values=values), at(width), Loss(name)
    total, slopes = refine.slopes(loss, rows, w, b)
    expected, gradient, of_intercept = linear.gradient(loss, rows, w, b)
    assert total == pytest.approx(expected, rel=1e-5)
    found = refine.add_up(rows, slopes.astype(np.float64), N_KEYS)
    np.testing.assert_allclose(found, gradient, atol=1e-4)
    np.testing.assert_allclose(slopes.sum(axis=0), of_intercept, atol=1e-4)


def plainly(
    rows: Rows, w: Any, b: Any, kept: Any, anchor: refine.Anchor, unit: float
) -> tuple[Any, Any]:
    """Return where a pass leads by the equation of `refine`, for the log-loss and one margin."""
    x = np.ones(len(rows.indices)) if rows.values is None else rows.values.astype(float)
    squares, counts = np.zeros(N_KEYS), np.zeros(N_KEYS)
    np.add.at(squares, rows.indices, x**2)
    np.add.at(counts, rows.indices, 1)
    a = np.divide(unit, squares / np.maximum(counts, 1), where=squares > 0, out=np.zeros(N_KEYS))
    w, b = w.copy(), b.copy()
    for i in range(N_ROWS):
        here = slice(rows.indptr[i], rows.indptr[i + 1])
        keys, share = rows.indices[here], 1 / np.maximum(anchor.rows, 1)
        s = b[0] + sum(w[k, 0] * v for k, v in zip(keys, x[here], strict=True))
        weight = 1.0 if rows.weight is None else rows.weight[i]
        change = weight * (1 / (1 + np.exp(-s)) - rows.y[i]) - kept[i, 0]
        b[0] -= unit * (change + anchor.of_intercept[0] / anchor.n_rows)
        for k, v in zip(keys, x[here], strict=True):
            u = w[k, 0] - a[k] * (change * v + share[k] * anchor.gradient[k, 0])
            u = np.sign(u) * max(abs(u) - a[k] * share[k] * PENALTY[1], 0)
            w[k, 0] = u / (1 + a[k] * share[k] * PENALTY[0])
    return w, b


@pytest.mark.parametrize("values", [True, False])
@pytest.mark.parametrize("weight", [True, False])
def test_steps_are_those_of_the_equation(values: bool, weight: bool) -> None:
    rows, (w, b) = make_rows(1, values=values, weight=weight), at(1)
    kept = RNG.normal(size=(N_ROWS, 1)).astype(np.float32)
    gradient, counts = RNG.normal(size=(N_KEYS, 1)), RNG.integers(20, 60, N_KEYS).astype(float)
    anchor = refine.Anchor(gradient, counts, RNG.normal(size=1), 3.0 * N_ROWS)
    longest = len(rows.indices) / N_ROWS + 1
    unit = 0.5 / (0.25 * longest * (rows.weight.max() if rows.weight is not None else 1))
    expected = plainly(rows, w, b, kept, anchor, unit)
    refine.train(LOG_LOSS, rows, w, b, kept, anchor, PENALTY, 0.5, 0.25, fit_intercept=True)
    np.testing.assert_allclose(w, expected[0], atol=1e-5)
    np.testing.assert_allclose(b, expected[1], atol=1e-5)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_moves_where_data_and_penalty_balance(width: int) -> None:
    rows, (w, b) = make_rows(width), at(width)
    w[0] = 0
    _, slopes = refine.slopes(LOG_LOSS, rows, w, b)
    # an anchor gradient that the penalty answers: any rows of other partitions may make it so
    balanced = -(PENALTY[0] * w + PENALTY[1] * np.sign(w))
    balanced[0] = 0.9 * PENALTY[1]
    counts = np.full(N_KEYS, 200.0)
    anchor = refine.Anchor(balanced, counts, np.zeros(width), 4.0 * N_ROWS)
    before = w.copy(), b.copy()
    refine.train(LOG_LOSS, rows, w, b, slopes, anchor, PENALTY, 1.0, 0.25, fit_intercept=True)
    np.testing.assert_allclose(w, before[0], atol=1e-5)
    np.testing.assert_allclose(b, before[1], atol=1e-5)
    np.testing.assert_array_equal(w[0], 0)


def test_intercept_stays_when_none_is_wanted() -> None:
    rows, (w, _) = make_rows(1), at(1)
    b, kept = np.zeros(1), np.zeros((N_ROWS, 1), np.float32)
    anchor = refine.Anchor(np.ones((N_KEYS, 1)), np.full(N_KEYS, 9.0), np.ones(1), 99.0)
    refine.train(LOG_LOSS, rows, w, b, kept, anchor, PENALTY, 1.0, 0.25, fit_intercept=False)
    assert b.tolist() == [0.0]
