"""The intercept that is solved for at the head of a slice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from daskps.kernels import _bias, linear
from daskps.kernels.linear import STATE_FIELDS, Rows, Rule

N_KEYS = 5


def make(width: int, n: int, shift: float, seed: int = 0) -> tuple[Rows, np.ndarray]:
    """Rows whose labels follow given weights and an intercept of `shift`."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(N_KEYS, width)).astype("f4")
    indices = rng.integers(0, N_KEYS, n).astype(np.uint32)
    s = w[indices] + shift * np.arange(1, width + 1)
    if width == 1:
        y = (rng.random(n) < 1 / (1 + np.exp(-s[:, 0]))).astype("f4")
    else:
        y = (s + rng.gumbel(size=s.shape)).argmax(1).astype(np.int32)
    return Rows(np.arange(n + 1), indices, None, y, None), w


def settle(rows: Rows, w: np.ndarray, *, ftrl: bool = False) -> np.ndarray:
    width = w.shape[1]
    state = np.zeros((N_KEYS, STATE_FIELDS, width), "f4")
    state[:, 2] = w
    bias = np.zeros((1, STATE_FIELDS, width), "f4")
    solve = _bias.settle_binary if width == 1 else _bias.settle_multi
    n = len(rows.indptr) - 1
    rates = (np.float32(0.1), np.float32(1))
    code = linear._code(linear.LOG_LOSS)
    solve(*linear._frozen_rows(rows), 0, n, state, bias, *code, ftrl, *rates)
    return bias[0]


def optimum(rows: Rows, w: np.ndarray) -> np.ndarray:
    margins, width = w[rows.indices].astype(float), w.shape[1]
    if width == 1:
        margins = np.hstack([np.zeros_like(margins), margins])
    y = rows.y.astype(int)

    def objective(b: np.ndarray) -> float:
        shift = np.concatenate([[0.0], b]) if width == 1 else b
        return -log_softmax(margins + shift, axis=1)[np.arange(len(y)), y].sum() + b @ b / 2

    return minimize(objective, np.zeros(width)).x


@pytest.mark.parametrize("width", [1, 3])
def test_a_shift_of_all_rows_goes_to_the_intercept(width: int) -> None:
    rows, w = make(width, 2000, shift=-1.5)
    bias = settle(rows, w)
    # What chance explains is left out, which shortens a step this clear by little.
    np.testing.assert_allclose(bias[2], optimum(rows, w), atol=0.08)
    assert (bias[3] > 50).all()


def test_ftrl_keeps_dual_and_weight_in_step() -> None:
    bias = settle(*make(1, 500, shift=1.0), ftrl=True)
    assert bias[0].item() == pytest.approx(-bias[2].item() * 10, rel=1e-5)


def test_slices_at_the_optimum_or_of_a_few_rows_move_nothing() -> None:
    moved = [settle(*make(1, 500, shift=0.0, seed=seed))[2].item() for seed in range(40)]
    assert np.median(np.abs(moved)) == 0
    assert not settle(*make(1, 63, shift=3.0)).any()


@pytest.mark.parametrize("rule", [Rule(False, 0.1, 1.0), Rule(True, 0.1, 1.0)])
def test_one_class_alone_stays_finite(rule: Rule) -> None:
    rows, _ = make(1, 300, shift=0.0)
    rows.y[:] = 1
    state, bias = np.zeros((N_KEYS, STATE_FIELDS, 1), "f4"), np.zeros((1, STATE_FIELDS, 1), "f4")
    loss = linear.train(rule, rows, 0, 300, state, bias, 300.0)
    assert np.isfinite(loss)
    assert 2 < bias[0, 2, 0] < 20
