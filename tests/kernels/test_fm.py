"""Factorisation machines against sums over all pairs in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from daskps.kernels import _fm, fm, linear
from daskps.kernels.linear import STATE_FIELDS, Loss, Rows, Rule

N_ROWS, N_KEYS, K = 60, 12, 3
RULE, FACTOR_RULE = Rule(False, 0.2, 1.0), Rule(False, 0.1, 0.5)
LOSSES = [Loss("log_loss"), Loss("squared")]


def make_rows(loss: Loss, *, values: bool = True, weight: bool = True, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    keys = [rng.choice(N_KEYS, n, replace=False) for n in rng.integers(0, 6, N_ROWS)]
    indptr = np.concatenate([[0], np.cumsum([len(k) for k in keys])])
    y = rng.integers(0, 2, N_ROWS) if loss.name == "log_loss" else rng.normal(size=N_ROWS)
    return Rows(
        indptr,
        np.concatenate(keys).astype(np.uint32),
        rng.normal(size=indptr[-1]).astype(np.float32) if values else None,
        y.astype(np.float32),
        rng.uniform(0.5, 2, N_ROWS).astype(np.float32) if weight else None,
    )


def make_states(seed: int = 9) -> list[np.ndarray]:
    """Return weights, factors and intercept that have seen some rows."""
    rng = np.random.default_rng(seed)
    states = []
    for m, width in ((N_KEYS, 1), (N_KEYS, K), (1, 1)):
        state = np.zeros((m, STATE_FIELDS, width), np.float32)
        state[:, 1] = rng.random((m, width))
        state[:, 2] = rng.normal(size=(m, width), scale=0.5)
        states.append(state)
    return states


def dense(rows: Rows) -> np.ndarray:
    x = np.zeros((N_ROWS, N_KEYS))
    each = np.repeat(np.arange(N_ROWS), np.diff(rows.indptr))
    x[each, rows.indices] = 1 if rows.values is None else rows.values
    return x


def margin(x: np.ndarray, w: np.ndarray, V: np.ndarray, b: float) -> float:
    """Return the margin of a row by the definition: a term for every pair."""
    pairs = itertools.combinations(range(len(x)), 2)
    return float(b + w @ x + sum(V[j] @ V[l] * x[j] * x[l] for j, l in pairs))


def loss_of(loss: Loss, s: float, y: float) -> float:
    if loss.name == "squared":
        return (s - y) ** 2 / 2
    return float(np.logaddexp(0, s) - y * s)


def slope(f: object, at: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Return the gradient of `f` by central differences."""
    out = np.empty_like(at)
    for i in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[i] = h
        out[i] = (f(at + step) - f(at - step)) / (2 * h)
    return out


@pytest.mark.parametrize("values", [True, False])
def test_margins_are_sums_over_all_pairs(values: bool) -> None:
    rows = make_rows(LOSSES[0], values=values)
    w, V, b = (s[:, 2].astype(float) for s in make_states())
    expected = [margin(x, w[:, 0], V, b[0, 0]) for x in dense(rows)]
    found = fm.decision(*rows[:3], w[:, 0].astype("f4"), V.astype("f4"), b[0, 0])
    assert found.shape == (N_ROWS, 1)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize("values", [True, False])
def test_pass_takes_adagrad_steps_along_the_numerical_gradient(loss: Loss, values: bool) -> None:
    rows, states = make_rows(loss, values=values), make_states()
    sums, at = [[s[:, i].astype(float) for s in states] for i in (1, 2)]
    total = 0.0
    for x, y, weight in zip(dense(rows), rows.y.tolist(), rows.weight.tolist(), strict=True):

        def f(w: np.ndarray, V: np.ndarray, b: np.ndarray, x=x, y=y, weight=weight) -> float:
            return float(weight * loss_of(loss, margin(x, w[:, 0], V, b[0, 0]), y))

        w, V, b = at
        total += f(w, V, b)
        gradients = (
            slope(lambda u, f=f, V=V, b=b: f(u, V, b), w),
            slope(lambda u, f=f, w=w, b=b: f(w, u, b), V),
            slope(lambda u, f=f, w=w, V=V: f(w, V, u), b),
        )
        for i, (rule, g) in enumerate(zip((RULE, FACTOR_RULE, RULE), gradients, strict=True)):
            sums[i] += g**2
            at[i] = at[i] - rule.eta * g / (rule.beta + np.sqrt(sums[i]))
    found = fm.train(RULE, FACTOR_RULE, rows, 0, N_ROWS, *states, loss=loss, settle_intercept=False)
    assert found == pytest.approx(total, rel=1e-5)
    for state, value, n in zip(states, at, sums, strict=True):
        np.testing.assert_allclose(state[:, 2], value, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(state[:, 1], n, rtol=1e-3)


def test_cutting_a_pass_into_slices_changes_no_bit() -> None:
    rows, whole, cut = make_rows(LOSSES[0]), make_states(), make_states()
    fm.train(RULE, FACTOR_RULE, rows, 0, N_ROWS, *whole)
    for a, b in itertools.pairwise([0, 7, 8, 41, N_ROWS]):
        fm.train(RULE, FACTOR_RULE, rows, a, b, *cut)
    assert [s.tobytes() for s in whole] == [s.tobytes() for s in cut]


def test_without_factors_it_is_the_linear_model() -> None:
    rows, (state, _, bias) = make_rows(LOSSES[0]), make_states()
    none = np.zeros((N_KEYS, STATE_FIELDS, 1), np.float32)
    linear_state, linear_bias = state.copy(), bias.copy()
    expected = linear.train(RULE, rows, 0, N_ROWS, linear_state, linear_bias, 1.0)
    found = fm.train(RULE, FACTOR_RULE, rows, 0, N_ROWS, state, none, bias)
    assert found == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(state, linear_state, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(bias, linear_bias, rtol=1e-5)
    assert not none.any()  # where all factors are zero, so is their gradient


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_intercept_is_solved_for_at_the_head_of_a_slice(loss: Loss) -> None:
    rng, n = np.random.default_rng(0), 500
    y = (rng.random(n) < 0.9) if loss.name == "log_loss" else rng.normal(3, 1, n)
    indices = rng.integers(0, N_KEYS, 2 * n).astype("u4")
    rows = Rows(np.arange(0, 2 * n + 1, 2), indices, None, y.astype("f4"), None)
    state, factors, bias = make_states()
    state[:, 2] = factors[:, 2] = bias[:] = 0
    tiny = RULE._replace(eta=1e-6)
    fm.train(tiny, tiny, rows, 0, n, state, factors, bias, loss=loss)
    share = y.mean()
    expected = np.log(share / (1 - share)) if loss.name == "log_loss" else share
    assert bias[0, 2, 0] == pytest.approx(expected, rel=0.05)
    assert bias[0, 3, 0] > 10  # so large a response is averaged where partitions merge


def test_response_of_a_factor_is_the_curvature_of_its_own_update() -> None:
    rows = Rows(np.array([0, 2]), np.array([0, 1], "u4"), np.array([1, 2], "f4"), np.ones(1, "f4"),
                None)  # fmt: skip
    state, bias = np.zeros((2, STATE_FIELDS, 1), "f4"), np.zeros((1, STATE_FIELDS, 1), "f4")
    factors = np.zeros((2, STATE_FIELDS, 1), "f4")
    factors[:, 2, 0] = [0.5, -0.25]
    fm.train(RULE, FACTOR_RULE, rows, 0, 1, state, factors, bias)
    s = 0.5 * -0.25 * 2
    p = 1 / (1 + np.exp(-s))
    slopes = np.array([1, 2, 2 * -0.25, 2 * 0.5, 1])  # by w, by v, by the intercept
    g = abs(p - 1) * abs(slopes)
    eta, beta = np.array([0.2, 0.2, 0.1, 0.1, 0.2]), np.array([1, 1, 0.5, 0.5, 1])
    own = slopes**2 * eta / (beta + g)
    lam = 0.5 * p * (1 - p) * np.sqrt(own * own.sum())
    np.testing.assert_allclose(state[:, 3, 0], lam[:2], rtol=1e-5)
    np.testing.assert_allclose(factors[:, 3, 0], 4 * lam[2:4], rtol=1e-5)
    np.testing.assert_allclose(bias[0, 3, 0], lam[4], rtol=1e-5)


def test_no_intercept_and_no_weight_change_nothing() -> None:
    rows = make_rows(LOSSES[0])
    state, factors, bias = make_states()
    before = bias.copy()
    fm.train(RULE, FACTOR_RULE, rows, 0, N_ROWS, state, factors, bias, fit_intercept=False)
    np.testing.assert_array_equal(bias, before)
    states, before_all = make_states(), make_states()
    weightless = rows._replace(weight=np.zeros(N_ROWS, "f4"))
    assert fm.train(RULE, FACTOR_RULE, weightless, 0, N_ROWS, *states) == 0
    for found, expected in zip(states, before_all, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_read_only_and_writeable_arrays_share_one_compilation() -> None:
    rows = make_rows(LOSSES[0])
    fm.train(RULE, FACTOR_RULE, rows, 0, N_ROWS, *make_states())
    before = len(_fm.train.signatures)
    rows.indptr.flags.writeable = rows.indices.flags.writeable = False
    fm.train(RULE, FACTOR_RULE, rows, 0, N_ROWS, *make_states())
    assert len(_fm.train.signatures) == before
