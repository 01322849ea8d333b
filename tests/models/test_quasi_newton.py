"""The scalar half of L-BFGS: the textbook's recursion, and searches that end at the minimum."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskps.models import quasi_newton as qn

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


class Vectors:
    """What the shards hold, in float64 and unscaled; asserts that moves make sense."""

    def __init__(self, f: Objective, x: np.ndarray) -> None:
        self.f = f
        self.x0, self.x = x.copy(), x.copy()
        self.g0 = np.zeros_like(x)
        self.S, self.Y = np.zeros((2, len(x), qn.N_PAIRS))

    def measure(self) -> tuple[float, qn.Products]:
        value, p = self.f(self.x)
        value = float(value)
        s, y = self.x - self.x0, p - self.g0
        old = np.array([self.S.T @ y, self.Y.T @ y, self.S.T @ p, self.Y.T @ p])
        products = (self.g0 @ s, p @ s, s @ y, y @ y, p @ p, s @ p, y @ p, p @ p)
        return value, qn.Products(old, 0.0, *map(float, products))

    def move(self, move: qn.Move) -> None:
        if move.accept:
            _, p = self.f(self.x)
            if move.pair >= 0:
                self.S[:, move.pair], self.Y[:, move.pair] = self.x - self.x0, p - self.g0
            self.x0, self.g0 = self.x, p
        if move.coefficients is not None:
            self.d = -(np.column_stack([self.g0, self.S, self.Y]) @ move.coefficients)
            assert self.d @ self.g0 < 0 or not self.g0.any()
        self.x = self.x0 + move.length * self.d


def minimise(f: Objective, x: np.ndarray, clocks: int, tol: float | None = None) -> Any:
    vectors, search, trace = Vectors(f, x), None, []
    for _ in range(clocks):
        value, m = vectors.measure()
        if search is None:
            search, move = qn.begin(value, m)
        else:
            state = json.loads(json.dumps(qn.to_state(search)))  # as through a checkpoint
            search, move = qn.go_on(qn.from_state(state), value, m, tol, 3)
        vectors.move(move)
        trace.append(search.objective)
        if search.converged:
            break
    return vectors, search, trace


def quadratic(seed: int, n: int = 12, spread: float = 1e3) -> tuple[Objective, np.ndarray]:
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    A = Q @ np.diag(np.geomspace(1, spread, n)) @ Q.T
    best = rng.normal(size=n)
    return lambda x: (1 + (x - best) @ A @ (x - best) / 2, A @ (x - best)), best


def two_loops(p: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return H p (Nocedal and Wright, algorithm 7.4)."""
    q, alphas = p.copy(), []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q -= alphas[-1] * y
    s, y = pairs[-1]
    r = s @ y / (y @ y) * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r += s * (alpha - y @ r / (s @ y))
    return r


def test_directions_are_those_of_the_two_loop_recursion() -> None:
    f, _ = quadratic(0, n=30, spread=1e4)
    vectors, kept = Vectors(f, np.ones(30)), []
    search, move = qn.begin(*vectors.measure())
    vectors.move(move)
    turns = 0
    for _ in range(40):
        value, m = vectors.measure()
        search, move = qn.go_on(search, value, m, None, 3)
        if move.pair >= 0:
            kept = [*kept, (vectors.x - vectors.x0, f(vectors.x)[1] - vectors.g0)][-qn.N_PAIRS :]
        vectors.move(move)
        if move.coefficients is not None:
            expected = -two_loops(vectors.g0, kept)
            np.testing.assert_allclose(vectors.d, expected, rtol=1e-6, atol=1e-9)
            turns += 1
    assert turns > 2 * qn.N_PAIRS  # pairs were replaced


@settings(max_examples=50)
@given(seed=st.integers(0, 1000), spread=st.sampled_from([1.0, 30.0, 1e4]))
def test_quadratics_are_minimised_and_iterates_never_rise(seed: int, spread: float) -> None:
    f, best = quadratic(seed, spread=spread)
    vectors, search, trace = minimise(f, np.zeros(12), 400)
    assert search.converged
    assert search.objective == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(vectors.x0, best, atol=2e-3 if spread == 1.0 else 0.02)
    assert np.all(np.diff(trace) <= qn.PRECISION * np.abs(trace[:-1]))


def test_a_step_that_is_far_too_long_or_short_is_mended() -> None:
    for scale in (1e-6, 1e6):
        # the first step along the gradient is 0.1, the right one 1 / scale
        f: Objective = lambda x, c=scale: (1 + c * float(x @ x) / 2, c * x)  # noqa: E731  # a def has no annotation of its type
        _, search, trace = minimise(f, np.ones(3), 60)
        assert search.objective == pytest.approx(1.0, abs=1e-6), scale
        assert len(trace) < 30


def test_training_is_over_when_the_last_iterates_gained_little() -> None:
    f, _ = quadratic(3)
    _, search, trace = minimise(f, np.zeros(12), 400, tol=0.1)
    assert search.converged
    accepted = [x for i, x in enumerate(trace) if i == 0 or x != trace[i - 1]]
    assert accepted[-4] - accepted[-1] < 0.1 < accepted[-5] - accepted[-2]


def test_a_minimum_at_the_start_is_seen_at_once() -> None:
    f, best = quadratic(1)
    _, search, trace = minimise(f, best, 10)
    assert search.converged
    assert len(trace) == 1


def test_a_search_that_finds_nothing_drops_its_pairs_and_then_gives_up() -> None:
    f, _ = quadratic(2)
    vectors, search, _ = minimise(f, np.zeros(12), 8)
    assert search.order
    moves = []
    for _ in range(2 * qn.MAX_TRIALS + 2):
        _, m = vectors.measure()
        search, move = qn.go_on(search, np.inf, replace(m, at_trial=np.nan), None, 3)
        moves.append(move)
        if search.converged:
            break
    assert search.converged
    assert not any(move.accept for move in moves)
    assert sum(move.coefficients is not None for move in moves) == 2
