"""Rare features enter a growing model by chance or by count, and the same wherever it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse as sp

import daskps
from daskps import FactorizationMachine, LinearRegression, LinearSVC, LogisticRegression

N, D, P = 3000, 6000, 0.2
HOW = {"keys": "hash", "admission": P, "max_iter": 3, "tol": None}


def rows() -> tuple[sp.csr_array, np.ndarray]:
    """Draw rows of which half of the features occur a few times."""
    rng = np.random.default_rng(0)
    share = np.arange(1, D + 1) ** -0.7
    ids = rng.choice(D, (N, 10), p=share / share.sum())
    X = sp.csr_array((np.ones(ids.size, "f4"), (np.repeat(np.arange(N), 10), ids.ravel())), (N, D))
    X.data[:] = 1
    w = rng.normal(size=D)
    return X, (X @ w + rng.normal(size=N) > 0).astype(int)


X, Y = rows()
COUNTS = np.asarray(X.sum(axis=0)).astype(int)


def within(keys: np.ndarray) -> sp.csr_array:
    """Return the rows without the features that are not among `keys`."""
    return (X @ sp.diags_array(np.isin(np.arange(D), keys).astype("f4"))).tocsr()


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_what_is_not_admitted_is_as_if_it_were_not_there(solver: Any) -> None:
    # rates follow the scale of the data, of which there is less
    how = {**HOW, "solver": solver, "eta0": 0.1}
    clf = LogisticRegression(**how).fit(daskps.from_arrays(X, Y, n_partitions=1))
    assert 0.3 < len(clf.coef_keys_) / np.count_nonzero(COUNTS) < 0.7
    plain = LogisticRegression(**{**how, "admission": 1.0})
    plain.fit(daskps.from_arrays(within(clf.coef_keys_), Y, n_partitions=1))
    np.testing.assert_array_equal(plain.coef_keys_, clf.coef_keys_)
    np.testing.assert_array_equal(plain.coef_, clf.coef_)
    np.testing.assert_array_equal(plain.intercept_, clf.intercept_)
    np.testing.assert_allclose(plain.history_.loss, clf.history_.loss, rtol=1e-6)


@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("n_partitions", [1, 3])
def test_chances_follow_the_number_of_rows_and_no_pass_draws_again(
    slices: int, n_partitions: int
) -> None:
    data = daskps.from_arrays(X, Y, n_partitions=n_partitions)
    clf = LogisticRegression(rows_per_clock=-(-N // (n_partitions * slices)), **HOW)
    first = clf.set_params(max_iter=1).fit(data).coef_keys_
    np.testing.assert_array_equal(clf.set_params(max_iter=4).fit(data).coef_keys_, first)
    admitted = np.isin(np.arange(D), first)
    for k in (1, 2, 4, 8):
        among = admitted[k == COUNTS]
        chance = 1 - (1 - P) ** k
        spread = np.sqrt(chance * (1 - chance) / len(among))
        assert len(among) > 50
        assert abs(among.mean() - chance) < 4 * spread
    assert admitted[COUNTS > 60].all()  # one in a million stays out
    other = LogisticRegression(**{**HOW, "random_state": 1}).fit(data)
    assert 0.2 < np.isin(other.coef_keys_, first).mean() < 0.95


@pytest.mark.parametrize("admission", [P, 4])
def test_shards_and_a_new_beginning_change_no_bit(tmp_path: Path, admission: Any) -> None:
    data = daskps.from_arrays(X, Y, n_partitions=4)
    options = {**HOW, "rows_per_clock": 250, "admission": admission}
    calm = LogisticRegression(**options).fit(data)
    spread = LogisticRegression(n_shards=3, **options).fit(data)
    stored = {**options, "checkpoint": tmp_path / "c.zarr", "checkpoint_every": 2}

    class Stop(Exception):
        pass

    def stop(clock: int, loss: float) -> None:
        if clock == (2 if admission == 4 else 5):  # in the pass that counts
            raise Stop

    resumed = LogisticRegression(**stored)
    with pytest.raises(Stop):
        resumed.fit(data, callback=stop)
    resumed.fit(data, resume=True)
    for clf in (spread, resumed):
        np.testing.assert_array_equal(clf.coef_keys_, calm.coef_keys_)
        np.testing.assert_array_equal(clf.coef_, calm.coef_)


@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("n_partitions", [1, 3])
def test_by_count_all_frequent_features_enter_and_hardly_any_other(
    slices: int, n_partitions: int
) -> None:
    data = daskps.from_arrays(X, Y, n_partitions=n_partitions)
    slice_of = -(-N // (n_partitions * slices))
    clf = LogisticRegression(**{**HOW, "admission": 4}, rows_per_clock=slice_of).fit(data)
    admitted = np.isin(np.arange(D), clf.coef_keys_)
    assert admitted[COUNTS >= 4].all()
    assert admitted[(COUNTS > 0) & (COUNTS < 4)].mean() < 0.02
    more = clf.set_params(max_iter=6).fit(data)  # passes count nothing again
    np.testing.assert_array_equal(more.coef_keys_, np.flatnonzero(admitted))


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_what_is_too_rare_is_as_if_it_were_not_there(solver: Any) -> None:
    # in a first clock rows are counted where they are: none comes in by cells that it shares
    how = {**HOW, "solver": solver, "eta0": 0.1, "admission": 3, "max_iter": 1}
    clf = LogisticRegression(**how).fit(daskps.from_arrays(X, Y, n_partitions=1))
    plain = LogisticRegression(**{**how, "admission": 1.0})
    plain.fit(daskps.from_arrays(within(clf.coef_keys_), Y, n_partitions=1))
    np.testing.assert_array_equal(clf.coef_keys_, np.flatnonzero(COUNTS >= 3))
    np.testing.assert_array_equal(plain.coef_keys_, clf.coef_keys_)
    np.testing.assert_array_equal(plain.coef_, clf.coef_)


def test_counts_go_on_with_the_next_rows() -> None:
    half = N // 2
    parts = [(X[:half], Y[:half]), (X[half:], Y[half:])]
    clf = LogisticRegression(**{**HOW, "admission": 6})
    for x, y in parts:
        clf.partial_fit(x, y, classes=[0, 1])
    counts = [np.asarray(x.sum(axis=0)).astype(int) for x, _ in parts]
    admitted = np.isin(np.arange(D), clf.coef_keys_)
    only_together = (
        (counts[0] < 6) & (counts[1] < 6) & (counts[0] + counts[1] >= 6) & (counts[1] > 0)
    )
    assert only_together.sum() > 20
    assert admitted[only_together].all()
    assert admitted[(COUNTS > 0) & (COUNTS < 6)].mean() < 0.02


@pytest.mark.parametrize("admission", [P, 4])
@pytest.mark.parametrize("kind", [LinearSVC, LinearRegression, FactorizationMachine])
def test_every_linear_estimator_admits(kind: Any, admission: Any) -> None:
    model = kind(**{**HOW, "admission": admission}).fit(X, Y)
    everything = kind(**{**HOW, "admission": 1.0}).fit(X, Y)
    assert 0.3 < len(model.coef_keys_) / len(everything.coef_keys_) < 0.7
    assert model.score(X, Y) > (0.05 if kind is LinearRegression else 0.6)


def test_training_goes_on_with_what_is_in_the_model(tmp_path: Path) -> None:
    clf = LogisticRegression(**HOW).fit(X, Y)
    clf.save(tmp_path / "m.zarr")
    read = daskps.load(tmp_path / "m.zarr")
    assert read.admission == P
    for model in (clf, read):
        before, loss = model.coef_keys_, model.log_loss(X, Y)
        model.partial_fit(X[:1500], Y[:1500])  # other rows than before: new draws
        assert np.isin(before, model.coef_keys_).all()
        assert len(model.coef_keys_) > len(before)
        assert model.log_loss(X[:1500], Y[:1500]) < loss


@pytest.mark.parametrize("kind", [LogisticRegression, LinearSVC, FactorizationMachine])
def test_a_range_admits_everything(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"admission=0.5, keys='range'\); expected keys='hash'"):
        kind(admission=0.5).fit(X, Y)
