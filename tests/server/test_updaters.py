"""Updaters: the algebra of merging, penalties, and independence of how rows are grouped."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskps.server.updaters import FTRL, SGD, AdaGrad, Add, AnyUpdater, Consensus, Tally, Updater

M, WIDTH = 9, 2
LOCAL = [SGD(), AdaGrad(alpha=1e-3, l1_ratio=0.3, kappa=0.2), FTRL(alpha=1e-3, l1_ratio=0.3)]
EVERY = [pytest.param(u, id=type(u).__name__) for u in [Add(), *LOCAL]]
ARRIVING = [
    pytest.param(msgspec.structs.replace(u, discount=True), id=type(u).__name__) for u in LOCAL
]
PENALISED = [pytest.param(cls, id=cls.__name__) for cls in (AdaGrad, FTRL)]


def fresh(updater: Updater, seed: int = 0, m: int = M) -> np.ndarray:
    junk = np.nan if updater.dtype.kind == "f" else 77
    rows = np.full((m, updater.n_fields, WIDTH), junk, updater.dtype)
    values = np.random.default_rng(seed).normal(size=(m, WIDTH)).astype(updater.dtype)
    updater.init(rows, values)
    return rows


def make_push(updater: Updater, seed: int, k: int = M, lam: float | None = None) -> np.ndarray:
    """Make a push from a worker that pulled the fresh rows of seed 0."""
    rng = np.random.default_rng(seed)
    push = rng.uniform(0.1, 1, size=(k, updater.n_push, WIDTH)).astype(updater.dtype)
    push[:, 0] = rng.normal(size=(k, WIDTH))
    if isinstance(updater, Add):
        return push
    at = 1 if isinstance(updater, SGD) else 2
    if lam is not None:
        push[:, at] = lam
    push[:, 0] *= 1 + push[:, at]
    if updater.discount:
        push[:, at + 1] = updater.values(fresh(updater), 0.0)[:k]
        push[:, at + 2] = 0
    return push


def moved(push: np.ndarray) -> np.ndarray:
    """Return by how much the values of a push changed; its lam is the last of its numbers."""
    return push[:, 0] / (1 + push[:, -1])


def commit(updater: Updater, rows: np.ndarray, pushes: list[np.ndarray], T: float = 0.0) -> None:
    acc = np.zeros((len(rows), updater.n_push, WIDTH), updater.dtype)
    for push in pushes:
        acc += push
    updater.commit(rows, None, acc, T, 10.0)


@pytest.mark.parametrize("updater", [*EVERY, *ARRIVING])
def test_fresh_rows_hold_the_given_values(updater: Updater) -> None:
    rows = fresh(updater, seed=4)
    expected = np.random.default_rng(4).normal(size=(M, WIDTH))
    np.testing.assert_allclose(updater.values(rows, 0.0), expected, rtol=1e-6)


@pytest.mark.parametrize("sync", [True, False])
def test_a_tally_stops_where_it_matters_no_more(sync: bool) -> None:
    updater = Tally(most=200)
    rows, pushes = np.zeros((3, 1, 1), np.uint8), np.array([0, 3, 150], np.uint32)[:, None, None]
    for _ in range(3):  # of a clock: their sum is more than a byte
        if not sync:
            updater.apply(rows, np.arange(3), pushes, 0.0, 1.0)
    if sync:
        updater.commit(rows, None, 3 * pushes, 0.0, 1.0)
    assert rows[:, 0, 0].tolist() == [0, 9, 200]


@pytest.mark.parametrize("updater", [*EVERY, Tally(), *ARRIVING])
def test_an_updater_survives_json(updater: Updater) -> None:
    assert msgspec.json.decode(msgspec.json.encode(updater), type=AnyUpdater) == updater


@pytest.mark.parametrize("updater", EVERY)
def test_grouping_of_rows_changes_no_bit(updater: Updater) -> None:
    whole, parts = fresh(updater), fresh(updater)
    pushes = [make_push(updater, s) for s in (1, 2, 3)]
    commit(updater, whole, pushes, T=5.0)
    for at in (slice(0, 4), slice(4, 5), slice(5, M)):
        commit(updater, parts[at], [p[at] for p in pushes], T=5.0)
    assert whole.tobytes() == parts.tobytes()


@pytest.mark.parametrize("updater", ARRIVING)
def test_a_push_to_some_rows_leaves_the_others(updater: Updater) -> None:
    rows, before = fresh(updater), fresh(updater)
    idx = np.array([1, 4, 8])
    push = make_push(updater, 1)[idx]
    updater.apply(rows, idx, push, 0.0, 10.0)
    one_by_one = fresh(updater)
    for i, p in zip(idx, push, strict=True):
        updater.apply(one_by_one[i : i + 1], None, p[None], 0.0, 10.0)
    assert rows.tobytes() == one_by_one.tobytes()
    others = np.setdiff1d(np.arange(M), idx)
    assert rows[others].tobytes() == before[others].tobytes()


@pytest.mark.parametrize("updater", ARRIVING)
def test_pull_returns_a_copy_of_the_rows_asked_for(updater: Updater) -> None:
    rows, idx = fresh(updater), np.array([0, 3], np.uint32)
    everything = np.empty((M, updater.n_pull, WIDTH), np.float32)
    some = np.empty((2, updater.n_pull, WIDTH), np.float32)
    updater.pull(rows, 7.0, everything)
    updater.pull(rows, 7.0, some, idx)
    assert some.tobytes() == everything[idx].tobytes()
    assert not np.shares_memory(some, rows)


@pytest.mark.parametrize("cls", [SGD, AdaGrad, FTRL])
def test_rows_that_one_partition_touched_take_its_whole_step(cls: type[Updater]) -> None:
    updater = cls()
    rows, push = fresh(updater), make_push(updater, 1)
    commit(updater, rows, [push, np.zeros_like(push)])
    expected = updater.values(fresh(updater), 0.0) + moved(push)
    np.testing.assert_allclose(updater.values(rows, 10.0), expected, rtol=1e-5)


@pytest.mark.parametrize("cls", [SGD, AdaGrad, FTRL])
def test_saturated_partitions_are_averaged_and_idle_ones_summed(cls: type[Updater]) -> None:
    updater, start = cls(), cls().values(fresh(cls()), 0.0)
    for lam, factor in ((1e6, 1 / 4), (0.0, 1.0)):
        rows, pushes = fresh(updater), [make_push(updater, s, lam=lam) for s in range(1, 5)]
        commit(updater, rows, pushes)
        expected = start + factor * sum(map(moved, pushes))
        np.testing.assert_allclose(updater.values(rows, 10.0), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", [SGD, AdaGrad, FTRL])
def test_arrivals_from_one_pull_equal_the_barrier(cls: type[Updater]) -> None:
    barrier, arriving = cls(), cls(discount=True)
    together, apart = fresh(barrier), fresh(arriving)
    pushes = [make_push(arriving, s) for s in (1, 2, 3)]
    commit(barrier, together, [p[:, : barrier.n_push] for p in pushes])
    for k, push in enumerate(pushes):
        arriving.apply(apart, None, push, 10.0 * k, 10.0)
    np.testing.assert_allclose(
        arriving.values(apart, 30.0), barrier.values(together, 30.0), rtol=1e-4, atol=1e-5
    )


@settings(max_examples=30, deadline=None)
@given(
    lams=st.lists(st.floats(0, 1e8, width=32), min_size=1, max_size=40),
    optimum=st.floats(-100, 100, width=32),
)
def test_agreeing_partitions_never_overshoot(lams: list[float], optimum: float) -> None:
    """Each partition moves as its response says towards one optimum: so does the merge."""
    barrier, arriving = SGD(), SGD(discount=True)
    rows, late = np.zeros((1, 1, 1), "f4"), np.zeros((1, 2, 1), "f4")
    acc = np.zeros((1, 2, 1), "f4")
    for lam in lams:
        push = np.array([[optimum * lam, lam, 0, 0]], "f4")[:, :, None]
        acc += push[:, :2]
        arriving.apply(late, None, push, 0.0, 1.0)
    barrier.commit(rows, None, acc, 0.0, 1.0)
    exact = optimum * sum(lams) / (1 + sum(lams))
    assert rows.item() == pytest.approx(exact, rel=1e-4, abs=1e-6)
    assert late[0, 0].item() == pytest.approx(exact, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("cls", PENALISED)
@pytest.mark.parametrize("l1_ratio", [0.0, 1.0])
def test_untouched_rows_shrink_without_changing_sign(cls: type, l1_ratio: float) -> None:
    for discount in (False, True):
        updater = cls(alpha=1e-3, l1_ratio=l1_ratio, discount=discount)
        rows = fresh(updater)
        start = updater.values(rows, 0.0)
        if not discount:
            commit(updater, rows, [])
        after = updater.values(rows, 10.0)
        assert (abs(after) <= abs(start)).all()
        assert (abs(after) < abs(start)).any()
        assert (after * start >= 0).all()


@pytest.mark.parametrize("kappa", [0.0, 0.3])
@pytest.mark.parametrize("discount", [False, True])
def test_penalty_of_adagrad_is_proximal_in_the_metric_of_its_steps(
    kappa: float, discount: bool
) -> None:
    updater = AdaGrad(eta=0.2, beta=1.5, alpha=0.01, kappa=kappa, discount=discount)
    rows = fresh(updater)
    n = np.random.default_rng(2).uniform(0, 50, (M, WIDTH)).astype("f4")
    rows[:, 1] = n
    start = updater.values(rows, 0.0)
    if not discount:
        commit(updater, rows, [])
    step = 1 / ((1.5 + np.sqrt(n)) / 0.2 + kappa * n)
    expected = start / (1 + 0.01 * 10 * step)
    np.testing.assert_allclose(updater.values(rows, 10.0), expected, rtol=1e-5)


@pytest.mark.parametrize("cls", PENALISED)
def test_a_strong_l1_penalty_gives_exact_zeros(cls: type) -> None:
    updater = cls(alpha=100.0, l1_ratio=1.0)
    rows = fresh(updater)
    commit(updater, rows, [])
    assert not updater.values(rows, 10.0).any()


def test_counts_add_exactly_in_any_order() -> None:
    updater = Add(dtype_name="int64")
    rows, idx = fresh(updater, m=M), np.array([2, 5])
    before = rows.copy()
    push = np.full((2, 1, WIDTH), 2**53 + 1)
    updater.apply(rows, idx, push, 0.0, 1.0)
    updater.apply(rows, idx, -push, 0.0, 1.0)
    assert (rows == before).all()


@pytest.mark.parametrize(("alpha", "l1_ratio"), [(0.0, 0.0), (0.3, 0.0), (0.3, 1.0), (0.3, 0.5)])
@pytest.mark.parametrize("some", [True, False])
def test_consensus_minimises_parabolas_and_penalty(
    alpha: float, l1_ratio: float, some: bool
) -> None:
    rng = np.random.default_rng(0)
    rule, m = Consensus(alpha=alpha, l1_ratio=l1_ratio), 40
    rows = np.full((m, 1, 1), 7.0, np.float32)
    idx = np.arange(0, m, 2, dtype=np.uint32) if some else None
    k = m // 2 if some else m
    rho, v = rng.uniform(0.1, 1, (3, k)), rng.normal(size=(3, k))
    rho[:, 0] = 0  # nobody says anything of this row
    acc = np.stack([(rho * v).sum(0), rho.sum(0)], axis=1)[:, :, None].astype(np.float32)
    rule.commit(rows, idx, acc, 0.0, 1.0)
    found = rows[slice(None) if idx is None else idx, 0, 0].astype(np.float64)
    assert found[0] == 7.0
    assert (rows[1::2] == 7.0).all() == some

    def objective(z: np.ndarray) -> np.ndarray:
        penalty = alpha * ((1 - l1_ratio) / 2 * z**2 + l1_ratio * abs(z))
        return (rho / 2 * (z - v) ** 2).sum(0) + penalty

    for step in (-1e-2, 1e-2):
        assert (objective(found) <= objective(found + step) + 1e-7)[1:].all()
    assert (found[1:] == 0).any() == (l1_ratio > 0)


@pytest.mark.parametrize("rule", [AdaGrad, FTRL])
@pytest.mark.parametrize("some", [True, False])
def test_refined_commits_add_mean_changes_and_nothing_else(
    rule: type[AdaGrad | FTRL], some: bool
) -> None:
    rng, m = np.random.default_rng(0), 30
    updater = rule(alpha=0.01, l1_ratio=0.5, refined_after=100.0)
    rows = np.zeros((m, updater.n_fields, 2), np.float32)
    updater.init(rows, rng.normal(size=(m, 2)))
    rows[:, 1] = rng.uniform(0, 9, (m, 2))
    idx = np.arange(0, m, 3, dtype=np.uint32) if some else None
    k = len(range(0, m, 3)) if some else m
    count, change = rng.integers(1, 9, (4, k, 1)), rng.normal(size=(4, k, 2))
    count[:, 0] = 0  # nobody has this key's feature
    before, n = updater.values(rows, 100.0), rows[:, 1].copy()
    at = slice(None) if idx is None else idx
    change[:, 1] = -before[at][1]  # to zero
    acc = np.zeros((k, 3, 2), np.float32)
    acc[:, 0], acc[:, 2] = (count * change).sum(0), count.sum(0)
    updater.commit(rows, idx, acc, 100.0, 40.0)
    if updater.shrinks:
        updater.shrink(rows, None, np.empty(0, np.uint32), 100.0, 40.0)
    expected = before.copy()
    expected[at] += acc[:, 0] / np.maximum(acc[:, 2], 1)
    for T in (100.0, 140.0, 1e6):  # the penalty has stopped growing
        np.testing.assert_allclose(updater.values(rows, T), expected, atol=2e-6)
    assert (updater.values(rows, 140.0)[at][1] == 0).all() or rule is AdaGrad
    np.testing.assert_array_equal(rows[:, 1], n)
