"""Online topics: steps are those of the paper and of scikit-learn, in streams and whole fits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import K, V, corpus, data
from scipy.special import psi
from sklearn import decomposition

import daskps
from daskps import LatentDirichletAllocation
from daskps.errors import DataError
from daskps.models.topic_priors import alpha_of_logs, logs_of
from daskps.models.topic_stream import first_weights

ALPHA, ETA = 0.2, 0.05


def online(**parameters: Any) -> LatentDirichletAllocation:
    given = {"doc_topic_prior": ALPHA, "topic_word_prior": ETA, "max_iter": 30, "batch_size": 48}
    return LatentDirichletAllocation(K, solver="online", **given | parameters)


def reference(X: np.ndarray, lam: np.ndarray, rho: float, D: float, alpha: Any) -> np.ndarray:
    """Take a step of Hoffman, Blei and Bach (2010), algorithm 2, in float64."""
    beta = np.exp(psi(lam) - psi(lam.sum(axis=1, keepdims=True)))
    gamma = np.where(X.any(axis=1, keepdims=True), 1.0, np.full(len(lam), alpha))
    for _ in range(500):
        theta = np.exp(psi(gamma) - psi(gamma.sum(axis=1, keepdims=True)))
        gamma = alpha + theta * ((X / (theta @ beta)) @ beta.T)
    theta = np.exp(psi(gamma) - psi(gamma.sum(axis=1, keepdims=True)))
    n = beta * (theta.T @ (X / (theta @ beta)))
    return (1 - rho) * lam + rho * (ETA + D / len(X) * n)


def test_steps_are_those_of_the_paper() -> None:
    X = corpus()[0].toarray()[:60]
    lam = first_weights(V, K, ETA, 0).T + ETA
    for t, batch in enumerate((X[:30], X[30:]), 1):
        lam = reference(batch, lam, (10 + t) ** -0.7, 60, ALPHA)
    exact = {"mean_change_tol": 1e-7, "max_doc_update_iter": 500, "max_iter": 1, "batch_size": 30}
    m = online(**exact).fit(daskps.from_arrays(X, n_partitions=1, shuffle=False))
    np.testing.assert_allclose(m.components_, lam, rtol=1e-3)
    assert m.n_batch_iter_ == 3


def test_scikit_learn_goes_on_as_we_do() -> None:
    X = corpus()[0].toarray()
    ours = online(total_samples=1000).partial_fit(X[:120])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ours.to_sklearn().set_params(
            batch_size=48, total_samples=1000, learning_method="online", mean_change_tol=1e-6
        )
        theirs.partial_fit(X[120:216])  # 2 steps of 48
    ours.set_params(mean_change_tol=1e-6).partial_fit(X[120:216])
    # documents whose topics are not certain may end at another of them: theirs begin at random
    expected = np.asarray(theirs.components_)
    assert np.linalg.norm(ours.components_ - expected) < 0.02 * np.linalg.norm(expected)
    assert ours.n_batch_iter_ == theirs.n_batch_iter_


def test_fits_are_as_good_as_those_of_scikit_learn() -> None:
    X = corpus()[0]
    given = {"doc_topic_prior": ALPHA, "topic_word_prior": ETA, "max_iter": 15, "batch_size": 48}

    def theirs(seed: int) -> Any:
        model = decomposition.LatentDirichletAllocation(
            K, learning_method="online", random_state=seed, **given
        )
        return model.fit(X)

    # each beginning ends at an optimum of its own
    ours = [online(max_iter=15, random_state=s).fit(data()).to_sklearn() for s in range(4)]
    best, other = (min(m.perplexity(X) for m in ms) for ms in (ours, map(theirs, range(4))))
    assert best < 1.05 * other


@pytest.mark.parametrize("consistency", ["bsp", "ssp", "asp"])
def test_documents_are_learnt_in_every_consistency(consistency: str) -> None:
    m = online(consistency=consistency).fit(data())
    assert m.perplexity(corpus()[0]) < V / 3
    # what is forgotten and what is learnt are of one size, whatever the order of pushes
    np.testing.assert_allclose(m.topic_counts_.sum(), corpus()[0].sum(), rtol=0.02)
    losses = m.history_.loss.to_numpy()
    assert losses[-5:].mean() < losses[:5].mean()


@pytest.mark.parametrize("n_shards", [2, 5])
def test_bsp_gives_the_same_on_any_number_of_shards(n_shards: int) -> None:
    one, many = (online(max_iter=3, n_shards=n).fit(data()) for n in (1, n_shards))
    np.testing.assert_array_equal(one.word_counts_, many.word_counts_)


def test_a_stream_is_learnt_document_by_document() -> None:
    X = corpus()[0].toarray()
    m = online(total_samples=240, batch_size=24)
    for _ in range(12):
        for first in range(0, 240, 40):
            m.partial_fit(X[first : first + 40])
    assert m.n_batch_iter_ == 12 * 6 * 2 + 1
    assert m.perplexity(X) < V / 3


def test_a_stream_goes_on_after_it_was_saved(tmp_path: Path) -> None:
    X = corpus()[0].toarray()
    m = online().partial_fit(X[:100], vocabulary=[f"w{i}" for i in range(V)])
    m.save(tmp_path / "m.zarr")
    again = daskps.load(tmp_path / "m.zarr").partial_fit(X[100:])
    np.testing.assert_array_equal(again.word_counts_, m.partial_fit(X[100:]).word_counts_)
    assert again.top_words(1).to_numpy().ravel()[0].startswith("w")


def test_a_resumed_fit_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    where = str(tmp_path / "cuts")

    def stop(clock: int, loss: float) -> None:
        if clock == 7:
            raise InterruptedError

    m = online(max_iter=4, checkpoint=where, checkpoint_every=2)
    with pytest.raises(InterruptedError):
        m.fit(data(), callback=stop)
    m.fit(data(), resume=True)
    calm = online(max_iter=4).fit(data())
    np.testing.assert_array_equal(m.word_counts_, calm.word_counts_)


def test_alpha_is_learnt_from_the_documents() -> None:
    m = online(doc_topic_prior="auto", max_iter=60).fit(data())
    assert 0.1 < m.doc_topic_prior_.mean() < 0.4
    assert len(set(m.doc_topic_prior_.tolist())) == K


def test_a_prior_is_that_of_its_expected_logarithms() -> None:
    alpha = np.array([0.05, 0.3, 2.0])
    found = alpha_of_logs(logs_of(alpha), np.full(3, 0.5))
    np.testing.assert_allclose(found, alpha, rtol=0.01)


def test_what_users_ask_of_topics_is_answered() -> None:
    X = corpus()[0]
    m = online().fit(data())
    np.testing.assert_allclose(m.components_, m.topic_word_counts_.toarray() + ETA, rtol=1e-6)
    np.testing.assert_allclose(m.fit_transform(X).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(m.describe().tokens.sum(), X.sum(), rtol=0.1)
    assert m.coherence(X, 5).npmi.mean() > 0
    assert m.merge_similar(0.3).n_topics_ < K
    assert m.perplexity(X) < V / 2
    with pytest.raises(AttributeError, match="transform"):
        _ = m.doc_topic_counts_
    shown = m.to_pyldavis(X)
    np.testing.assert_array_equal(shown["doc_lengths"], X.sum(axis=1))
    assert shown["doc_topic_dists"].shape == (X.shape[0], K)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"solver": "online", "slices": 2}, "slices=2.*solver='gibbs'"),
        ({"batch_size": 64}, "batch_size=64.*solver='online'"),
        ({"solver": "online", "topic_word_prior": "auto"}, "solver='gibbs' learns it"),
        ({"solver": "online", "learning_decay": 1.5}, "learning_decay=1.5"),
        ({"solver": "online", "batch_size": 1, "learning_offset": 0.0}, "forgets too fast"),
        ({"solver": "batch"}, "'gibbs' or 'online'"),
    ],
)
def test_what_a_solver_does_not_look_at_is_refused(parameters: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LatentDirichletAllocation(2, **parameters).fit([[3, 4], [1, 2]])


def test_only_online_goes_on() -> None:
    with pytest.raises(ValueError, match="use solver='online'"):
        LatentDirichletAllocation(2).partial_fit([[3, 4]])
    m = LatentDirichletAllocation(2, solver="online").partial_fit([[3, 4]])
    with pytest.raises(DataError, match="features"):
        m.partial_fit([[3, 4, 5]])
