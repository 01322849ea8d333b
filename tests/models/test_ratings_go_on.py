"""Factorisation that is watched, goes on from a fit before, or leaves its users in a store."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import daskps
from daskps import MatrixFactorization, Ratings, from_arrays, open_dataset, read_ratings
from daskps.data.align import aligned
from daskps.errors import DataError
from daskps.models import mf_users, user_rows

SGD: dict[str, Any] = {"max_iter": 4}
ALS: dict[str, Any] = {"max_iter": 3, "solver": "als"}


def frame(n_users: int = 300, n_items: int = 60, n: int = 5000, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    P, Q = rng.normal(size=(n_users, 4)), rng.normal(size=(n_items, 4))
    u, i = np.divmod(rng.choice(n_users * n_items, n, replace=False), n_items)
    values = 3 + (P[u] * Q[i]).sum(axis=1) / 2 + rng.normal(size=n) * 0.3
    return pd.DataFrame({"user": u, "item": i, "rating": values})


@pytest.fixture(scope="module")
def both() -> tuple[Ratings, Ratings]:
    return read_ratings(frame(), n_partitions=3).split(0.9)


def mf(**options: Any) -> MatrixFactorization:
    return MatrixFactorization(4, progress=False, **options)


@pytest.mark.parametrize(
    "options",
    [SGD, ALS, {**ALS, "biases": False}, {**SGD, "consistency": "ssp"}],
    ids=["sgd", "als", "plain", "ssp"],
)
def test_held_out_ratings_are_measured_after_each_pass(
    both: tuple[Ratings, Ratings], options: dict[str, Any]
) -> None:
    model = mf(**options).fit(both[0], eval_set=both[1])
    told = model.history_.eval_loss.dropna("clock").values
    assert len(told) == options["max_iter"]
    assert told[-1] < told[0]
    assert told[-1] == pytest.approx(model.rmse(both[1]) ** 2 / 2, rel=1e-5)


def test_held_out_ratings_decide_when_to_stop(both: tuple[Ratings, Ratings]) -> None:
    options = {"max_iter": 60, "tol": 3e-3, "n_iter_no_change": 2}
    for solver in ("sgd", "als"):
        model = mf(solver=solver, **options).fit(both[0], eval_set=both[1])
        told = model.history_.eval_loss.dropna("clock").values
        assert model.stop_reason_ == "tol"
        assert len(told) == model.n_iter_ < 60
        assert (told[-2:] > told[:-2].min() - 3e-3).all()


def test_held_out_ratings_of_any_form_go_where_their_users_are(
    both: tuple[Ratings, Ratings],
) -> None:
    train, test = both
    rows = [test.dataset.partition(p).to_scipy().tocoo() for p in range(3)]
    first = np.cumsum([0] + [r.shape[0] for r in rows])
    table = pd.DataFrame(
        {
            "user": np.concatenate([first[p] + r.coords[0] for p, r in enumerate(rows)]),
            "item": np.concatenate([r.coords[1] for r in rows]),
            "rating": np.concatenate([r.data for r in rows]),
        }
    )
    table["user"], table["item"] = train.users[table.user], train.items[table["item"]]
    strangers = pd.DataFrame({"user": [999, 0], "item": [0, 999], "rating": [1.0, 2.0]})
    mixed = pd.concat([table, strangers]).sample(frac=1, random_state=0)
    found = aligned(read_ratings(mixed), train)
    for p, row in enumerate(rows):
        np.testing.assert_array_equal(found.partition(p).to_scipy().toarray(), row.toarray())
    assert aligned(test, train) is test.dataset
    told = [mf(max_iter=1).fit(train, eval_set=s).history_.eval_loss.values for s in (test, mixed)]
    np.testing.assert_allclose(*told, rtol=1e-6)


def test_held_out_ratings_that_cannot_be_measured_are_refused(
    both: tuple[Ratings, Ratings],
) -> None:
    strangers = pd.DataFrame({"user": [999], "item": [0], "rating": [1.0]})
    with pytest.raises(DataError, match="eval_set has no rating of a user and an item"):
        mf().fit(both[0], eval_set=strangers)
    with pytest.raises(ValueError, match="eval_set with loss='implicit'"):
        mf(loss="implicit").fit(abs(both[0].dataset.partition(0).to_scipy()), eval_set=both[1])


@pytest.mark.parametrize("options", [SGD, ALS, {**SGD, "consistency": "asp"}])
def test_a_warm_fit_goes_on(both: tuple[Ratings, Ratings], options: dict[str, Any]) -> None:
    train, test = both
    options = {**options, "max_iter": 12, "learning_rate": 0.3}
    model = mf(warm_start=True, **options).fit(train, eval_set=test)
    cold = model.history_.eval_loss.dropna("clock").values
    model.fit(train, eval_set=test)
    warm = model.history_.eval_loss.dropna("clock").values
    assert warm[0] < cold[0] * 0.8
    if "consistency" not in options:  # with a barrier the same data give the same bits
        anew = mf(**options).fit(train).fit(train, eval_set=test)
        np.testing.assert_array_equal(anew.history_.eval_loss.dropna("clock").values, cold)


@pytest.mark.parametrize("options", [SGD, ALS])
def test_a_warm_fit_knows_users_and_items_by_their_ids(options: dict[str, Any]) -> None:
    old, new = frame(200, 50, 3000), frame(260, 60, 5000)
    model = mf(warm_start=True, **options).fit(read_ratings(old, n_partitions=2))
    before = model.item_factors_.sel(item=7).values, model.user_factors_.sel(user=11).values
    # one rating more changes next to nothing of those who have no part in it
    more = pd.DataFrame({"user": [900], "item": [800], "rating": [3.0]})
    model.set_params(max_iter=1, learning_rate=1e-6, cg_steps=1)
    model.fit(read_ratings(pd.concat([more, old]), n_partitions=3))
    if "solver" not in options:
        after = model.item_factors_.sel(item=7).values, model.user_factors_.sel(user=11).values
        np.testing.assert_allclose(after, before, atol=2e-2)
        assert model.user_factors_.sel(user=900).values.any()
    model.set_params(**options).fit(new)
    assert len(model.user_factors_.user) == 260


def test_a_warm_fit_with_other_factors_is_refused(both: tuple[Ratings, Ratings]) -> None:
    model = mf(warm_start=True, max_iter=1).fit(both[0])
    with pytest.raises(ValueError, match="n_factors=5 after a fit with 4"):
        model.set_params(n_factors=5).fit(both[0])


def answers(model: MatrixFactorization, test: Ratings) -> list[Any]:
    users = [5, 250, 17, 3, 299]
    return [
        model.rmse(test),
        model.predict(users, [1, 2, 3, 4, 5]).tolist(),
        model.recommend(users, k=4).to_dict("list"),
        model.similar_users(users, k=3).similar.tolist(),
        model.similar_items([3, 4], k=3).similar.tolist(),
    ]


def test_users_in_a_store_answer_as_those_in_memory_do(
    both: tuple[Ratings, Ratings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_rows, "CHUNK", 40)
    train, test = both
    held = mf(**SGD).fit(train)
    model = mf(**SGD, user_store=tmp_path / "users.zarr").fit(train)
    assert isinstance(model._factored.P, user_rows.StoredRows)
    assert isinstance(model.user_factors_.data, da.Array)
    np.testing.assert_array_equal(model.user_factors_.values, held.user_factors_.values)
    assert answers(model, test) == answers(held, test)
    model.save(tmp_path / "m.zarr")
    monkeypatch.setattr("daskps.models.mf_saved.LARGE", 0)
    loaded = daskps.load(tmp_path / "m.zarr")
    assert isinstance(loaded._factored.P, user_rows.StoredRows)
    assert answers(loaded, test) == answers(held, test)


def test_a_store_of_users_holds_those_of_the_last_fit(
    both: tuple[Ratings, Ratings], tmp_path: Path
) -> None:
    store = tmp_path / "users.zarr"
    model = mf(**SGD, user_store=store, warm_start=True).fit(both[0])
    first = model.user_factors_.values
    model.fit(both[0])
    assert not np.array_equal(model.user_factors_.values, first)
    assert len([p for p in store.iterdir() if p.is_dir()]) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    for place in (tmp_path / "other", tmp_path / "m.zarr"):
        if place.suffix:
            model.save(place)
        with pytest.raises(FileExistsError, match="something else than factors of users"):
            mf(**SGD, user_store=place).fit(both[0])


def test_few_users_are_in_memory_on_their_way_to_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_rows, "CHUNK", 1000)
    monkeypatch.setattr(mf_users, "PIECE", 2000)
    each, k, n_partitions = 20_000, 32, 3
    n = each * n_partitions
    columns = np.tile(np.arange(20), n)
    X = sp.csr_array((np.ones(20 * n, np.float32), columns, np.arange(0, 20 * n + 1, 20)))
    from_arrays(X, store=tmp_path / "d.zarr", n_partitions=n_partitions, shuffle=False)
    rows = np.random.default_rng(0).random((n, k), np.float32)
    users = mf_users.UserRows(
        open_dataset(tmp_path / "d.zarr"),
        k,
        lambda state: (2 * state["rows"], state["rows"][:, 0].copy()),
        tmp_path / "users.zarr",
    )
    tracemalloc.start()
    for p in range(n_partitions):
        users.take(p, {"rows": rows[each * p : each * (p + 1)]})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * k * each  # a partition's factors once more; its ratings would be as much
    np.testing.assert_array_equal(users.finish()[np.arange(n)], 2 * rows)
    np.testing.assert_array_equal(users.bias, rows[:, 0])


def test_parquet_and_dask_frames_are_trained_on_and_answered_lazily(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="dask.dataframe and Parquet need pyarrow")
    import dask
    import dask.dataframe as dd

    table = frame()
    table.to_parquet(tmp_path / "r.parquet")
    plain = mf(**SGD, user_store=tmp_path / "u.zarr").fit(table)
    for given in (dd.from_pandas(table, npartitions=3), tmp_path / "r.parquet"):
        np.testing.assert_array_equal(mf(**SGD).fit(given).item_factors_, plain.item_factors_)
    users = dd.from_pandas(pd.Series(np.arange(200)), npartitions=4)
    with dask.config.set(scheduler="sync"):
        lists = plain.recommend(users, k=3).compute().reset_index(drop=True)
    pd.testing.assert_frame_equal(lists, plain.recommend(range(200), k=3))
