"""Unbounded features: hashed columns are remembered; hashed keys give the same model as ranges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import xarray as xr
import zarr
from sklearn.datasets import dump_svmlight_file
from small import Data, fitted

import daskps
from daskps import LogisticRegression
from daskps.data import Hashing
from daskps.errors import DataError
from daskps.run import launch
from daskps.run.events import FreezeCut, Recover
from daskps.run.inprocess import InProcessEngine

N, D = 600, 3000
RNG = np.random.default_rng(0)
X = scipy.sparse.random_array((N, D), density=0.005, rng=0, format="csr", dtype=np.float32)
Y = np.where(X @ RNG.normal(size=D) + RNG.normal(size=N) * 0.3 > 0, 1, 0)
PARTS = {"n_partitions": 3}


def same_weights(hashed: LogisticRegression, plain: LogisticRegression) -> None:
    keys = hashed.coef_keys_.astype(np.int64)
    assert (np.diff(keys) > 0).all()
    np.testing.assert_array_equal(hashed.coef_, plain.coef_[:, keys])
    assert np.count_nonzero(hashed.coef_) == np.count_nonzero(plain.coef_)
    np.testing.assert_array_equal(hashed.intercept_, plain.intercept_)


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
@pytest.mark.parametrize("n_shards", [1, 3])
def test_hashed_keys_give_the_bits_of_a_range(solver: Any, n_shards: int) -> None:
    data = daskps.from_arrays(X, Y, **PARTS)
    options = {"solver": solver, "l1_ratio": 0.5, "alpha": 1e-3}
    plain = fitted(data, **options)
    hashed = fitted(data, keys="hash", n_shards=n_shards, **options)
    same_weights(hashed, plain)
    np.testing.assert_array_equal(hashed.history_.loss, plain.history_.loss)
    # weights of zero are left out, so that compiled sums associate in another way
    np.testing.assert_allclose(hashed.predict_proba(X), plain.predict_proba(X), rtol=1e-5)
    assert hashed.score(data) == plain.score(data)


def test_several_classes_have_hashed_keys_too(multinomial: Data) -> None:
    y = multinomial.y
    plain, hashed = fitted(multinomial.X, y), fitted(multinomial.X, y, keys="hash")
    same_weights(hashed, plain)
    np.testing.assert_array_equal(hashed.predict(multinomial.X), plain.predict(multinomial.X))


@pytest.mark.parametrize("kind", [daskps.LinearSVC, daskps.LinearRegression])
def test_every_linear_estimator_takes_hashed_keys(kind: Any, tmp_path: Path) -> None:
    options = {"max_iter": 3, "tol": None}
    plain, hashed = kind(**options).fit(X, Y), kind(keys="hash", **options).fit(X, Y)
    keys = hashed.coef_keys_.astype(np.int64)
    np.testing.assert_array_equal(hashed.coef_, plain.coef_[..., keys])
    np.testing.assert_allclose(hashed.predict(X), plain.predict(X), rtol=1e-4, atol=1e-5)
    hashed.save(tmp_path / "m.zarr")
    np.testing.assert_array_equal(daskps.load(tmp_path / "m.zarr").predict(X), hashed.predict(X))
    with pytest.raises(ValueError, match="keys='range'"):
        hashed.to_sklearn()


@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_a_factorisation_machine_has_the_bits_of_a_range(loss: Any, tmp_path: Path) -> None:
    data = daskps.from_arrays(X, Y, **PARTS)
    options = {"n_factors": 3, "loss": loss, "max_iter": 3, "tol": None, "warm_start": True}
    plain, hashed = (
        daskps.FactorizationMachine(keys=keys, n_shards=n, **options).fit(data, eval_set=(X, Y))
        for keys, n in (("range", 1), ("hash", 2))
    )
    for _ in range(2):
        keys = hashed.coef_keys_.astype(np.int64)
        np.testing.assert_array_equal(hashed.coef_, plain.coef_[keys])
        np.testing.assert_array_equal(hashed.factors_, plain.factors_[keys])
        np.testing.assert_allclose(hashed.predict(X), plain.predict(X), rtol=1e-4, atol=1e-5)
        for model in (plain, hashed):
            model.partial_fit(data)
    np.testing.assert_allclose(hashed.history_.loss, plain.history_.loss, rtol=1e-5)
    hashed.save(tmp_path / "m.zarr")
    read = daskps.load(tmp_path / "m.zarr")
    np.testing.assert_array_equal(read.predict(X), hashed.predict(X))
    before = hashed.history_.loss.values[-1]
    assert read.fit(data).history_.loss.values[-1] < before  # from weights and factors alone


def test_a_factorisation_machine_takes_no_notice_of_features_it_never_met() -> None:
    half, y = first_half(), np.where(Y > 0, "yes", "no")
    model = daskps.FactorizationMachine(keys="hash", max_iter=2, tol=None, init_scale=1.0)
    model.fit(half, y, eval_set=(X, y))
    assert model.coef_keys_.max() < D // 2
    last = model.history_.eval_loss.values[-1]
    assert last == pytest.approx(model.log_loss(X, y), rel=1e-5)
    assert last == pytest.approx(model.log_loss(half, y), rel=1e-5)


def test_solvers_that_need_all_rows_refuse_hashed_keys() -> None:
    with pytest.raises(ValueError, match=r"solver='lbfgs', keys='hash'\).*keys='range'"):
        LogisticRegression(solver="lbfgs", keys="hash").fit(X, Y)


def wide_file(where: Path, rows: slice, factor: int = 3**32) -> Path:
    """Write rows whose column ids are spread over 64 bits."""
    with where.open("w") as file:
        for i in range(*rows.indices(N)):
            row, ids = X[[i]].tocoo(), X[[i]].indices.astype(np.int64) * factor
            pairs = sorted(zip(ids.tolist(), row.data.tolist(), strict=True))
            print(Y[i], *(f"{k}:{v:.9g}" for k, v in pairs), file=file)
    return where


def test_ids_of_64_bits_train_and_predict_without_memory_for_what_lies_between(
    tmp_path: Path,
) -> None:
    data = daskps.read_svmlight(wide_file(tmp_path / "a", slice(0, 400)), **PARTS)
    assert data.n_features > 2**62
    clf = fitted(data, keys="hash", max_iter=5)
    assert len(clf.coef_keys_) <= data.nnz
    assert clf.n_features_in_ == data.n_features
    other = daskps.read_svmlight(wide_file(tmp_path / "b", slice(400, N)))
    narrow = dict(zip(clf.coef_keys_.tolist(), clf.coef_[0].tolist(), strict=True))
    part = other.partition(0)
    expected = [
        sum(
            narrow.get(int(k), 0.0) * float(v)
            for k, v in zip(part.indices[a:b], part.values[a:b], strict=True)
        )
        + clf.intercept_[0]
        for a, b in zip(part.indptr[:-1], part.indptr[1:], strict=True)
    ]
    np.testing.assert_allclose(clf.decision_function(other), expected, atol=1e-5)
    assert clf.score(data) > 0.9


def first_half() -> Any:
    """Return the rows without the features of the second half."""
    half = X.copy()
    half.data[half.indices >= D // 2] = 0
    half.eliminate_zeros()
    return half


def test_features_that_only_held_out_data_have_are_not_learnt() -> None:
    clf = LogisticRegression(keys="hash", max_iter=2, tol=None)
    clf.fit(first_half(), Y, eval_set=(X, Y))
    assert clf.coef_keys_.max() < D // 2
    assert clf.history_.eval_loss.notnull().any()


@pytest.mark.parametrize("staleness", ["bsp", "ssp"])
def test_training_goes_on_with_hashed_keys(staleness: Any) -> None:
    data = daskps.from_arrays(X, Y, n_partitions=1)
    options = {"consistency": staleness}
    plain = fitted(data, max_iter=2, warm_start=True, **options)
    hashed = fitted(data, max_iter=2, warm_start=True, keys="hash", **options)
    for clf in (plain, hashed):
        clf.fit(data).partial_fit(data)
    same_weights(hashed, plain)
    again = fitted(data, max_iter=1, keys="hash", warm_start=True)
    before = again.log_loss(data)
    again._state = None  # as after loading: from the weights alone
    assert again.fit(data).log_loss(data) < before


class LosesShards(InProcessEngine):
    """Loses a shard at a cut and counts the recoveries."""

    cuts = recoveries = 0

    def execute(self, action: Any, ledger: Any) -> None:
        LosesShards.recoveries += isinstance(action, Recover)
        super().execute(action, ledger)
        if isinstance(action, FreezeCut):
            LosesShards.cuts += 1
            if LosesShards.cuts == 2:
                self.lose(1)


def test_a_lost_shard_and_a_resumed_run_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = daskps.from_arrays(X, Y, **PARTS)
    options = {"keys": "hash", "n_shards": 3, "rows_per_clock": 100, "max_iter": 4}
    calm = fitted(data, **options)
    fitted(data, **{**options, "max_iter": 2, "checkpoint": tmp_path / "c.zarr"})
    resumed = LogisticRegression(tol=None, checkpoint=tmp_path / "c.zarr", **options)
    resumed.fit(data, resume=True)
    monkeypatch.setattr(launch, "InProcessEngine", LosesShards)
    hurt = fitted(data, checkpoint=tmp_path / "d.zarr", checkpoint_every=1, **options)
    assert LosesShards.recoveries
    for clf in (resumed, hurt):
        np.testing.assert_array_equal(clf.coef_keys_, calm.coef_keys_)
        np.testing.assert_array_equal(clf.coef_, calm.coef_)


# -- hashed columns ------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", ["range", "hash"])
@pytest.mark.parametrize("kind", [LogisticRegression, daskps.FactorizationMachine])
def test_a_model_of_hashed_columns_hashes_what_it_is_given(
    kind: Any, keys: Any, tmp_path: Path
) -> None:
    options = {"hash_features": 512, "alternate_sign": True, "hash_seed": 3}
    data = daskps.from_arrays(X, Y, **options, **PARTS)
    clf = kind(keys=keys, max_iter=3, tol=None).fit(data)
    assert clf.hashing_ == Hashing(512, True, 3)
    assert clf.n_features_in_ == 512
    dump_svmlight_file(X, Y, str(tmp_path / "x.svm"), zero_based=False)
    plain = daskps.read_svmlight(tmp_path / "x.svm")
    expected = clf.log_loss(data)
    assert expected < 0.65
    clf.save(tmp_path / "m.zarr")
    for model in (clf, daskps.load(tmp_path / "m.zarr")):
        assert model.log_loss(X, Y) == pytest.approx(expected, rel=1e-6)
        assert model.log_loss(plain) == pytest.approx(expected, rel=1e-6)
        assert model.hashing_ == clf.hashing_
    with_eval = LogisticRegression(max_iter=1).fit(data, eval_set=(X, Y))
    assert with_eval.history_.eval_loss[-1] == pytest.approx(with_eval.log_loss(data), rel=1e-5)
    loss = clf.partial_fit(X, Y).log_loss(data)
    assert loss < expected


def test_data_that_is_hashed_in_another_way_is_refused() -> None:
    data = daskps.from_arrays(X, Y, hash_features=512)
    other = daskps.from_arrays(X, Y, hash_features=512, hash_seed=1)
    clf = fitted(data, max_iter=1)
    with pytest.raises(DataError, match=r"hashed by .*seed=1.*trained on .*seed=0.*unhashed"):
        clf.predict(other)
    with pytest.raises(DataError, match="trained on plain column ids"):
        fitted(X, Y, max_iter=1).predict(data)
    with pytest.raises(DataError, match="hashed by"):
        LogisticRegression().fit(data, eval_set=other)


# -- saved models --------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", ["range", "hash"])
@pytest.mark.parametrize("alpha", [1e-5, 0.001, 0.5])
def test_weights_of_zero_take_no_room_in_a_saved_model(
    keys: Any, alpha: float, tmp_path: Path
) -> None:
    clf = fitted(X, Y, alpha=alpha, l1_ratio=1.0, solver="ftrl", keys=keys)
    clf.save(tmp_path / "m.zarr")
    opened = xr.open_zarr(tmp_path / "m.zarr")
    some = int(clf.coef_.any(axis=0).sum())
    assert opened.sizes["feature"] == (D if some > D / 2 and keys == "range" else some)
    assert (some == 0) == (alpha == 0.5)
    assert (some > D / 2) == (alpha == 1e-5)
    if alpha == 0.001:
        first = int(opened.feature[0])
        column = first if keys == "range" else 0
        assert float(opened.coef.sel(feature=first)[0]) == clf.coef_[0, column]
    read = daskps.load(tmp_path / "m.zarr")
    for name in ("coef_", "intercept_", "classes_", *(["coef_keys_"] * (keys == "hash"))):
        np.testing.assert_array_equal(getattr(read, name), getattr(clf, name))
        assert getattr(read, name).dtype == getattr(clf, name).dtype
    assert (read.keys, read.n_features_in_) == (keys, D)
    np.testing.assert_array_equal(read.predict_proba(X), clf.predict_proba(X))


def test_a_model_of_version_1_is_read(tmp_path: Path) -> None:
    clf = fitted(X, Y, max_iter=1)
    clf.save(tmp_path / "m.zarr")
    group = zarr.open_group(tmp_path / "m.zarr")
    raw = dict(group.attrs["daskps"])
    assert raw.pop("n_features") == D
    del raw["hashing"], raw["parameters"]["keys"]
    group.attrs["daskps"] = {**raw, "version": 1}
    read = daskps.load(tmp_path / "m.zarr")
    assert (read.n_features_in_, read.keys, read.hashing_) == (D, "range", None)
    np.testing.assert_array_equal(read.coef_, clf.coef_)


def test_no_table_of_all_ids_is_made_anywhere() -> None:
    """Nothing between ingest and prediction may be as long as the ids are large."""
    ids = RNG.integers(0, 2**40, size=200)
    wide = scipy.sparse.csr_array((np.ones(200), ids, np.arange(201)), shape=(200, 2**40))
    y = np.arange(200) % 2
    clf = fitted(wide, y, keys="hash", max_iter=20, alpha=0.0)
    assert clf.coef_.shape == (1, 200)
    assert clf.score(wide, y) == 1.0
    assert math.isfinite(clf.log_loss(wide, y))
