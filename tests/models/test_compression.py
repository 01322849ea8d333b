"""Compressed pushes: fewer bytes, the same quality, the same bits wherever they are applied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from small import Data, fitted, make

import daskps
from daskps.models.compressed import CompressedModel, largest, together
from daskps.server.short import shorten, widen

DATA = make(2, n_rows=4000, n_features=200, seed=3)
SHORT = {"compression": "bfloat16"}
FEW = {"compression": 0.1}


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_the_nearest_of_fewer_digits_is_taken(numbers: list[float]) -> None:
    x = np.array(numbers, np.float32)
    x = x[abs(x) < 3e38]  # beyond, the nearest is infinity
    found = widen(shorten(x)).astype(np.float64)
    smallest = 2.0**-133  # of numbers that have lost their leading digits
    bound = np.maximum(abs(x.astype(np.float64)) * 2.0**-8, smallest / 2)
    assert (abs(found - x) <= bound).all()
    np.testing.assert_array_equal(widen(shorten(found.astype(np.float32))), found)


def test_what_is_not_finite_stays_so() -> None:
    bad = np.array([np.inf, -np.inf, np.nan, -np.nan], np.float32)
    bits = np.array([0x7FFFFFFF, 0x7F800001], np.uint32).view(np.float32)  # other NaN
    np.testing.assert_array_equal(widen(shorten(bad)), bad)
    assert np.isnan(widen(shorten(bits))).all()


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
@pytest.mark.parametrize("n_partitions", [1, 4])
def test_quality_is_that_of_whole_numbers(solver: Any, n_partitions: int) -> None:
    data = daskps.from_arrays(DATA.X, DATA.y, n_partitions=n_partitions)
    options = {"solver": solver, "max_iter": 10, "alpha": 1e-4}
    whole, short = fitted(data, **options), fitted(data, **SHORT, **options)
    assert np.any(whole.coef_ != short.coef_)
    assert short.log_loss(data) == pytest.approx(whole.log_loss(data), rel=0.002)
    np.testing.assert_allclose(short.coef_, whole.coef_, atol=0.02 * abs(whole.coef_).max())


class Server:
    """Takes the pushes of one partition, and keeps what it is given."""

    clock, kept, told = 0, None, None

    def state(self) -> Any:
        return self.kept

    def keep(self, arrays: Any) -> Any:
        self.kept = arrays
        return arrays

    def push(self, keysets: Any, deltas: Any, *, samples: float) -> None:
        assert deltas[0].dtype == np.uint16
        sent = widen(deltas[0]).astype(np.float64)
        self.told = sent if self.told is None else self.told + sent


def test_what_is_cut_off_goes_with_the_next_push() -> None:
    delta = np.array([[[1 + 2**-9], [300.7], [0.3]]], np.float32)  # the first is rounded down

    class Learner:
        width = 1

        def learn(self, data: Any, server: Any) -> Any:
            return data, [delta.copy()], {}

    model: Any = CompressedModel(Learner(), clocks_per_pass=2)
    data, server = type("Data", (), {"keysets": (), "n_rows": 1}), Server()
    for clock in range(0, 200, 2):  # always the same slice
        server.clock = clock
        model.step(data, server)
    assert server.told is not None
    error = abs(server.told - 100 * delta)[0, :, 0]
    assert (error[:2] <= 2.0**-8 * delta[0, :2, 0] * (1 + 2.0**-8)).all()  # of one push, not 100
    assert 100 * abs(widen(shorten(delta)) - delta)[0, 0, 0] > 10 * error[0]


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.5]), min_size=1), st.integers(1, 30))
def test_the_largest_are_chosen_and_of_equal_ones_the_first(sizes: list[float], k: int) -> None:
    chosen = largest(np.array(sizes), k)
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))[:k]
    assert np.flatnonzero(chosen).tolist() == sorted(i for i in order if sizes[i] > 0)


def test_two_runs_of_steps_make_one_push() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 2, (2, 5, 3, 2)).astype(np.float32)
    both = together(a, b)
    moved = [x[:, 0] / (1 + x[:, 2]) for x in (a, b, both)]
    np.testing.assert_allclose(moved[2], moved[0] + moved[1], rtol=1e-6)
    np.testing.assert_allclose(both[:, 1:], a[:, 1:] + b[:, 1:], rtol=1e-6)


@pytest.mark.parametrize("keys", ["range", "hash"])
@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_what_waits_is_not_learnt_twice(solver: Any, keys: Any) -> None:
    """Of one partition, what it has told and what waits are together what it would have learnt."""
    X = DATA.X * (np.random.default_rng(0).random(DATA.X.shape) < 0.02)  # slices differ
    data = daskps.from_arrays(X.astype(np.float32), DATA.y, n_partitions=1)
    options = {"solver": solver, "alpha": 0.0, "max_iter": 3, "rows_per_clock": 250, "keys": keys}
    whole, few = fitted(data, **options), fitted(data, **FEW, **options)
    # each sample's loss before it was learnt from: where steps begin
    np.testing.assert_allclose(few.history_.loss, whole.history_.loss, rtol=1e-4)
    assert few.coef_.shape != whole.coef_.shape or np.any(
        few.coef_ != whole.coef_
    )  # it still waits


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
@pytest.mark.parametrize("n_partitions", [1, 16])
def test_few_rows_lead_as_far(solver: Any, n_partitions: int) -> None:
    half = len(DATA.y) // 2
    data = daskps.from_arrays(DATA.X[:half], DATA.y[:half], n_partitions=n_partitions)
    options = {"solver": solver, "max_iter": 10, "alpha": 1e-3, "rows_per_clock": 500}
    whole, few = fitted(data, **options), fitted(data, **FEW, **options)
    reached = [clf.log_loss(DATA.X[half:], DATA.y[half:]) for clf in (whole, few)]
    assert reached[1] < 1.03 * reached[0]


def test_few_rows_of_many_classes() -> None:
    data = make(3, n_rows=2000, n_features=50)
    whole, few = fitted(*data, max_iter=8), fitted(*data, max_iter=8, compression=0.3)
    assert few.log_loss(*data) < 1.03 * whole.log_loss(*data)


@pytest.mark.parametrize(("keys", "how"), [("range", SHORT), ("hash", SHORT), ("hash", FEW)])
def test_shards_and_a_new_beginning_change_no_bit(keys: Any, how: Any, tmp_path: Path) -> None:
    data = daskps.from_arrays(DATA.X, DATA.y, n_partitions=3)
    options = {**how, "max_iter": 4, "rows_per_clock": 400, "keys": keys}
    calm, spread = fitted(data, **options), fitted(data, n_shards=3, **options)

    class Stop(Exception):
        pass

    def stop(clock: int, loss: float) -> None:
        if clock == 9:
            raise Stop

    stored = {"checkpoint": tmp_path / "c.zarr", "checkpoint_every": 2}
    resumed = daskps.LogisticRegression(**{"tol": None, **options, **stored})
    with pytest.raises(Stop):
        resumed.fit(data, callback=stop)
    resumed.fit(data, resume=True)
    for clf in (spread, resumed):
        np.testing.assert_array_equal(clf.coef_, calm.coef_)


@pytest.mark.cluster
def test_fewer_bytes_travel(tmp_path: Path) -> None:
    data = daskps.from_arrays(DATA.X, DATA.y, tmp_path / "d.zarr", n_partitions=2)
    here = [fitted(data, **how) for how in (SHORT, FEW)]
    with daskps.local_cluster(2, processes=False) as cluster, Client(cluster):
        there = [fitted(data, **how) for how in ({}, SHORT, FEW)]
    pushed = [clf.history_.pushed_bytes.values.sum() for clf in there]
    assert 0 < pushed[1] < 0.52 * pushed[0]  # the intercept is whole
    assert 0 < pushed[2] < 0.12 * pushed[0]
    for clf, expected in zip(there[1:], here, strict=True):
        np.testing.assert_array_equal(clf.coef_, expected.coef_)


@pytest.mark.parametrize(
    ("parameter", "value"), [("consistency", "ssp"), ("admission", 0.5), ("solver", "lbfgs")]
)
def test_what_cannot_be_compressed_is_refused(binary: Data, parameter: str, value: Any) -> None:
    keys = "hash" if parameter == "admission" else "range"
    with pytest.raises(ValueError, match="compression="):
        fitted(*binary, keys=keys, **SHORT, **{parameter: value})
