"""Matrix factorisation learns what ratings say, and answers in the ids that it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import xarray as xr
from sklearn.base import clone

import daskps
from daskps import MatrixFactorization, read_ratings
from daskps.errors import DataError, Diverged
from daskps.models.mf_sgd import ITEMS as ITEM_FACTORS
from daskps.models.mf_sgd import SGDFactors
from daskps.server.keys import KeySet
from daskps.server.spec import ServerSpec
from daskps.server.tables import Placement

SHARED = Path(__file__).parents[3] / "shared" / "data" / "ml-latest-small"
USERS, ITEMS, K = 300, 80, 3


@pytest.fixture(scope="module")
def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ratings of rank 3 with biases and a deviation of 1.6, noise 0.3; and held-out ones."""
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=(USERS, K)), rng.normal(size=(ITEMS, K)) * 0.8
    bu, bi = rng.normal(size=USERS) * 0.5, rng.normal(size=ITEMS) * 0.5
    keys = rng.choice(USERS * ITEMS, 9000, replace=False)
    u, i = np.divmod(keys, ITEMS)
    r = 3 + bu[u] + bi[i] + (P[u] * Q[i]).sum(1) + rng.normal(size=len(u)) * 0.3
    frame = pd.DataFrame({"user": [f"u{x:03}" for x in u], "item": i * 2 + 1, "rating": r})
    return frame[:7500], frame[7500:].reset_index(drop=True)


@pytest.fixture(scope="module")
def fitted(frames: tuple[pd.DataFrame, pd.DataFrame]) -> MatrixFactorization:
    return model().fit(read_ratings(frames[0], n_partitions=3))


def model(**options: Any) -> MatrixFactorization:
    options = {"n_factors": K, "max_iter": 40, "reg": 0.02, "learning_rate": 0.2, **options}
    return MatrixFactorization(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"consistency": "ssp"},
        {"consistency": "asp"},
        {"solver": "als", "max_iter": 15},
        {"n_factors": 12, "reg": 0.05},
    ],
    ids=lambda o: " ".join(map(str, o.values())) or "bsp",
)
def test_held_out_ratings_are_predicted(
    frames: tuple[pd.DataFrame, pd.DataFrame], options: dict[str, Any]
) -> None:
    train, test = frames
    found = model(**options).fit(read_ratings(train, n_partitions=3))
    # of the mean rating 1.6; of the truth 0.3
    assert found.rmse(test) < 0.6
    assert found.n_iter_ == options.get("max_iter", 40)
    losses = found.history_.loss.dropna("clock")
    assert float(losses[-1]) < 0.1 * float(losses[0])


def test_sgd_and_als_lower_the_same_objective(
    frames: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    train, _ = frames
    sgd, als = (model(solver=s, reg=0.1, max_iter=60).fit(train) for s in ("sgd", "als"))

    def objective(m: MatrixFactorization) -> float:
        u, i = (
            train.user.map(m._factored.users.get_loc),
            train["item"].map(m._factored.items.get_loc),
        )
        e = train.rating - m.predict(train.user, train["item"])
        rows = (m.user_factors_.values[u], m.item_factors_.values[i])
        biases = (m.user_bias_.values[u], m.item_bias_.values[i])
        return float(
            (e**2 + 0.1 * sum((x.reshape(len(e), -1) ** 2).sum(1) for x in rows + biases)).mean()
        )

    # SGD stops short of what least squares reach
    assert objective(als) <= objective(sgd) < 1.05 * objective(als)


def test_bits_depend_on_neither_threads_nor_shards(
    frames: tuple[pd.DataFrame, pd.DataFrame], fitted: MatrixFactorization
) -> None:
    again = model(n_shards=3).fit(read_ratings(frames[0], n_partitions=3))
    for name in ("user_factors_", "item_factors_", "user_bias_", "item_bias_"):
        assert getattr(again, name).identical(getattr(fitted, name))
    other = model(random_state=1).fit(read_ratings(frames[0], n_partitions=3))
    assert not other.item_factors_.equals(fitted.item_factors_)


@pytest.mark.parametrize("n", [2, 5])
def test_no_two_tasks_of_a_clock_hold_an_item_and_a_block_is_a_fair_share(
    frames: tuple[pd.DataFrame, pd.DataFrame], n: int
) -> None:
    dataset = read_ratings(frames[0], n_partitions=n).dataset
    rotated = SGDFactors(
        n_items=ITEMS,
        n_factors=K,
        biases=True,
        eta=0.1,
        reg=0.1,
        seed=0,
        center=3.0,
        unit=1.0,
        n_passes=1,
        n_blocks=n,
        init_scale=0.1,
        discount=False,
    )
    places = ServerSpec(rotated.tables(), 16, n, 0).placements()
    cuts = [rotated.cut(dataset.partition(p), p, n, places) for p in range(n)]
    for clock in range(n):
        held = [set(held_items(blocks[clock].keysets[0], places[ITEM_FACTORS])) for blocks in cuts]
        assert sum(map(len, held)) == len(set().union(*held)) > ITEMS / 2
        assert max(map(len, held)) <= 1.5 * ITEMS / n
    for blocks in cuts:  # every partition meets every item that its users rated
        assert sum(len(b.ratings.ratings) for b in blocks) in dataset.partition_nnz


def held_items(keyset: KeySet, place: Placement) -> list[int]:
    slots = np.repeat(np.arange(16), np.diff(keyset.bounds))
    if keyset.at is None:
        return [int(k) for s in range(16) for k in place.slot_keys(s)]
    return [int(place.slot_keys(s)[at]) for s, at in zip(slots, keyset.at, strict=True)]


def test_implicit_feedback_is_that_of_its_equations() -> None:
    rng = np.random.default_rng(1)
    X = sp.csr_array(rng.poisson(0.25, (60, 25)).astype(np.float32))
    m = MatrixFactorization(
        4, loss="implicit", reg=2.0, confidence=3.0, max_iter=60, cg_steps=8, init_scale=0.1
    ).fit(X)
    P, Q = m.user_factors_.values.astype(float), m.item_factors_.values.astype(float)
    C, D = 1 + 3 * X.toarray(), (X.toarray() > 0).astype(float)

    def objective(A: np.ndarray, B: np.ndarray) -> float:
        return float((C * (D - A @ B.T) ** 2).sum() + 2 * ((A**2).sum() + (B**2).sum()))

    assert float(m.history_.objective[-1]) * X.nnz == pytest.approx(objective(P, Q), rel=1e-4)

    def solved(F: np.ndarray, weights: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        systems = zip(weights, wanted, strict=True)
        return np.stack(
            [np.linalg.solve((F.T * c) @ F + 2 * np.eye(4), F.T @ (c * d)) for c, d in systems]
        )

    for _ in range(200):  # exact alternating least squares from there
        P = solved(Q, C, D)
        Q = solved(P, C.T, D.T)
    assert float(m.history_.objective[-1]) * X.nnz < 1.01 * objective(P, Q)


def test_lists_hold_the_best_of_what_is_new(
    frames: tuple[pd.DataFrame, pd.DataFrame], fitted: MatrixFactorization
) -> None:
    train, _ = frames
    scores = fitted.mean_ + fitted.user_bias_ + fitted.item_bias_
    scores = (scores + fitted.user_factors_ @ fitted.item_factors_).to_pandas()
    own = train[train.user == "u007"]["item"]
    want = scores.loc["u007"].drop(own).nlargest(5)
    found = fitted.recommend("u007", k=5)
    assert list(found.columns) == ["user", "item", "score", "rank"]
    assert found["item"].tolist() == want.index.tolist()
    np.testing.assert_allclose(found.score, want, rtol=1e-5)
    assert found["rank"].tolist() == [1, 2, 3, 4, 5]
    every = fitted.recommend(["u007", "u001"], k=5, exclude_seen=False)
    assert every.user.tolist() == ["u007"] * 5 + ["u001"] * 5
    assert every["item"][:5].tolist() == scores.loc["u007"].nlargest(5).index.tolist()
    some = [*sorted(own.tolist())[:3], int(want.index[3])]
    few = fitted.recommend("u007", k=5, candidates=some)
    assert few["item"].tolist() == [want.index[3]]  # the others were rated: the list is short
    assert fitted.recommend("u007", candidates=[]).empty
    assert len(fitted.recommend(k=2)) == 2 * train.user.nunique()


def test_unknown_ids_go_by_a_rule(
    frames: tuple[pd.DataFrame, pd.DataFrame], fitted: MatrixFactorization
) -> None:
    with pytest.raises(DataError, match="1 user ids are unknown, 'nobody'"):
        fitted.recommend(["u001", "nobody"])
    with pytest.raises(DataError, match="item ids are unknown, -5"):
        fitted.predict("u001", -5)
    dropped = fitted.recommend(["nobody", "u001"], k=2, unknown="drop")
    assert dropped.user.tolist() == ["u001", "u001"]
    popular = fitted.recommend(["nobody", "u001"], k=2, unknown="popular")
    counts = frames[0]["item"].value_counts()
    assert counts[popular["item"].tolist()[:2]].tolist() == counts.iloc[:2].tolist()
    assert np.isnan(fitted.predict(["nobody"], 1, unknown="drop")).all()
    mean = fitted.mean_ + fitted.item_bias_.sel(item=1).item()
    assert fitted.predict("nobody", 1, unknown="popular")[0] == pytest.approx(mean)
    with pytest.raises(ValueError, match="unknown='guess'"):
        fitted.predict("nobody", 1, unknown="guess")


def test_neighbours_point_the_same_way(fitted: MatrixFactorization) -> None:
    F = fitted.item_factors_.to_pandas()
    unit = F.div(np.linalg.norm(F, axis=1), axis=0)
    want = (unit @ unit.loc[5]).drop(5).nlargest(4)
    found = fitted.similar_items(5, k=4)
    assert found.similar.tolist() == want.index.tolist()
    np.testing.assert_allclose(found.score, want, rtol=1e-4)
    assert fitted.similar_users(["u001", "u002"], k=3).user.tolist() == ["u001"] * 3 + ["u002"] * 3


def test_new_users_are_folded_in(
    frames: tuple[pd.DataFrame, pd.DataFrame], fitted: MatrixFactorization
) -> None:
    train, test = frames
    old = train[train.user < "u050"]
    new = old.assign(user="new " + old.user)
    folded = fitted.fold_in(new)
    held_out = test[test.user < "u050"]
    assert folded.rmse(held_out.assign(user="new " + held_out.user)) < 0.6
    assert set(folded.recommend(k=3).user) == set(new.user)
    first = folded.recommend("new u001", k=60)["item"]
    assert not set(first) & set(new[new.user == "new u001"]["item"])
    strange = old.iloc[:1].assign(item=999, rating=5.0)
    with pytest.raises(DataError, match="item ids are unknown, 999"):
        fitted.fold_in(pd.concat([old, strange]))
    with pytest.raises(ValueError, match="unknown='popular'"):
        fitted.fold_in(old, unknown="popular")
    dropped = fitted.fold_in(pd.concat([old, strange]), unknown="drop")
    pd.testing.assert_frame_equal(dropped.recommend(k=3), fitted.fold_in(old).recommend(k=3))


def test_folding_in_solves_what_implicit_training_solves() -> None:
    X = sp.csr_array(np.random.default_rng(2).poisson(0.4, (40, 15)).astype(np.float32))
    m = MatrixFactorization(3, loss="implicit", reg=1.0, max_iter=30, cg_steps=10).fit(X)
    np.testing.assert_allclose(m.fold_in(X).user_factors_, m.user_factors_, atol=1e-3)


def test_quality_of_lists_is_measured(
    frames: tuple[pd.DataFrame, pd.DataFrame], fitted: MatrixFactorization
) -> None:
    _, test = frames
    found = fitted.ranking(test, k=5)
    assert found.attrs["users"] == test.user.nunique()
    lists = fitted.recommend(test.user.unique(), k=5).groupby("user")["item"].apply(set)
    truth = test.groupby("user")["item"].apply(set)
    hits = pd.Series({u: len(lists[u] & truth[u]) for u in truth.index})
    assert float(found.precision) == pytest.approx((hits / 5).mean())
    assert float(found.recall) == pytest.approx((hits / truth.map(len)).mean())
    assert 0 < float(found.ndcg) <= 1
    good = fitted.ranking(test, k=5, relevant=4.0)
    assert good.attrs["users"] == test[test.rating >= 4].user.nunique()


def test_a_saved_model_answers_the_same(fitted: MatrixFactorization, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.zarr")
    other = daskps.load(tmp_path / "m.zarr")
    pd.testing.assert_frame_equal(other.recommend(k=3), fitted.recommend(k=3))
    assert other.predict("u001", [1, 3]).tolist() == fitted.predict("u001", [1, 3]).tolist()
    assert other.get_params() == fitted.get_params()
    opened = xr.open_zarr(tmp_path / "m.zarr")
    assert (
        opened.item_factors.sel(item=5).values.tolist()
        == fitted.item_factors_.sel(item=5).values.tolist()
    )
    assert opened.user_factors.sel(user="u001").shape == (K,)
    fitted.save(tmp_path / "bare.zarr", seen=False)
    bare = daskps.load(tmp_path / "bare.zarr")
    with pytest.raises(DataError, match="exclude_seen=False"):
        bare.recommend("u001")
    with pytest.raises(FileExistsError):
        fitted.save(tmp_path / "m.zarr")


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    frames: tuple[pd.DataFrame, pd.DataFrame], fitted: MatrixFactorization, tmp_path: Path
) -> None:
    ratings = read_ratings(frames[0], n_partitions=3)
    m = model(checkpoint=tmp_path / "c.zarr", checkpoint_every=2)

    def stop(clock: int, loss: float) -> None:
        if clock == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        m.fit(ratings, callback=stop)
    m.fit(ratings, resume=True)
    assert m.item_factors_.identical(fitted.item_factors_)
    assert m.user_factors_.identical(fitted.user_factors_)


def test_a_fit_that_diverges_says_so() -> None:
    X = sp.random_array((50, 20), density=0.5, rng=np.random.default_rng(0), format="csr")
    with pytest.raises(Diverged, match=r"diverged.*smaller learning_rate than 1000\.0"):
        model(learning_rate=1000.0).fit(X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_factors": 0}, "n_factors=0"),
        ({"loss": "hinge"}, "loss='hinge'"),
        ({"solver": "ftrl"}, "expected 'sgd', 'als' or None"),
        ({"reg": -1.0}, "reg=-1.0"),
        ({"learning_rate": 0}, "learning_rate=0"),
        ({"loss": "implicit", "solver": "sgd"}, "expected solver='als'"),
        ({"loss": "implicit", "biases": True}, "expected biases=False"),
        ({"solver": "als", "consistency": "asp"}, "expected consistency='bsp'"),
    ],
)
def test_bad_parameters_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MatrixFactorization(**options).fit(sp.eye_array(3, format="csr"))


def test_bad_ratings_are_named() -> None:
    with pytest.raises(DataError, match="no ratings"):
        model().fit(sp.csr_array((4, 3)))
    with pytest.raises(DataError, match="expected counts >= 0"):
        MatrixFactorization(loss="implicit").fit(sp.csr_array([[1.0, -2.0]]))
    with pytest.raises(DataError, match=r"nan|NaN"):
        model().fit(np.array([[1.0, np.nan]]))
    far = np.ones((30, 30))
    far[0, :15], far[3, 3] = 2, 1e6
    with pytest.warns(UserWarning, match="a rating is 1e\\+06, 30 standard deviations"):
        model(max_iter=1).fit(far)


def test_rows_and_columns_without_ratings_are_average() -> None:
    X = np.zeros((12, 9))
    X[2:10, 1:6] = np.random.default_rng(0).integers(1, 6, (8, 5))
    for options in ({}, {"solver": "als"}, {"consistency": "asp"}):
        m = model(max_iter=3, **options).fit(X)
        assert not m.user_factors_[[0, 1, 10, 11]].any()
        assert not m.item_factors_[[0, 6, 7, 8]].any()
        assert m.predict(0, 0)[0] == pytest.approx(m.mean_)


def test_one_user_and_equal_ratings_are_enough() -> None:
    for X in (np.array([[1.0, 5.0, 3.0]]), np.full((4, 3), 2.0)):
        for solver in ("sgd", "als"):
            m = model(solver=solver, max_iter=3).fit(X)
            assert np.isfinite(m.predict(0, [0, 1, 2])).all()


def test_parameters_are_those_of_scikit_learn() -> None:
    m = model(reg=0.7)
    assert clone(m).get_params() == m.get_params()
    assert m.set_params(n_factors=5).n_factors == 5


@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared/data beside the project")
def test_real_ratings_are_predicted_as_well_as_published() -> None:
    d = pd.read_csv(SHARED / "ratings.csv").rename(columns={"userId": "user", "movieId": "item"})
    order = np.random.default_rng(0).permutation(len(d))
    train, test = (d.iloc[o] for o in np.split(order, [int(0.8 * len(d))]))
    found = MatrixFactorization(32, reg=0.1).fit(train)
    # 0.8710 by scikit-surprise in 60 epochs; the mean rating 1.05
    assert found.rmse(test, unknown="popular") <= 0.872
