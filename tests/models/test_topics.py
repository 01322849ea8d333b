"""Topics: planted ones come back, counts agree wherever and however it runs, and what users ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import xarray as xr
from corpus import K, V, bits, calm, check_agreement, corpus, data, topics
from hypothesis import given
from hypothesis import strategies as st

import daskps
from daskps import LatentDirichletAllocation
from daskps.errors import DataError, RunFailed
from daskps.models import topic_plan
from daskps.models.documents import halves
from daskps.models.topic_course import Course
from daskps.models.topic_fit import fit_topics
from daskps.models.topic_merge import groups_of
from daskps.models.topic_model import ConductedTopicModel, check_counts
from daskps.models.topic_priors import alpha_of, beta_of
from daskps.run.launch import RunOptions
from daskps.server.client import ParameterClient


def fitted(**parameters: Any) -> LatentDirichletAllocation:
    return topics(**parameters).fit(data())


def model() -> LatentDirichletAllocation:
    return calm()


def test_planted_topics_come_back() -> None:
    phi = corpus()[1]
    found = model().topic_word_.to_numpy()
    cosines = phi @ found.T / np.outer(*(np.linalg.norm(x, axis=1) for x in (phi, found)))
    matched = scipy.optimize.linear_sum_assignment(-cosines)
    assert cosines[matched].mean() >= 0.9


def test_counts_agree_with_the_documents() -> None:
    check_agreement(model())


def test_the_likelihood_rises() -> None:
    history = model().history_
    joint = history.log_likelihood.to_numpy()
    assert joint[-1] > joint[5] > joint[0]
    assert history.loss[-1] < history.loss[1]


@pytest.mark.parametrize("n_shards", [2, 5])
def test_bsp_gives_the_same_counts_on_any_number_of_shards(n_shards: int) -> None:
    assert bits(fitted(n_shards=n_shards)) == bits(model())


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"consistency": "ssp"}, id="ssp"),
        pytest.param({"consistency": "asp", "slices": 3}, id="asp in slices"),
        pytest.param({"slices": 4}, id="slices"),
        pytest.param({"sweeps_per_clock": 1, "max_iter": 9}, id="one sweep a clock"),
        pytest.param({"n_components": 300, "max_iter": 8}, id="more topics than a byte has"),
    ],
)
def test_counts_agree_in_every_course(parameters: dict[str, Any]) -> None:
    model = fitted(**parameters)
    check_agreement(model)
    assert model.n_iter_ >= parameters.get("max_iter", 60)


@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_partitions_of_a_process_read_the_words_once_a_clock_where_that_is_the_same(
    consistency: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    rows = ParameterClient.rows

    def counted(self: Any, keyset: Any, *, partition: int, clock: int) -> Any:
        asked.append(clock)
        return rows(self, keyset, partition=partition, clock=clock)

    monkeypatch.setattr(ParameterClient, "rows", counted)
    model = fitted(consistency=consistency, max_iter=12)
    clocks = range(1, model.history_.sizes["clock"])  # in the first nothing is there to be read
    each = 1 if consistency == "bsp" else data().n_partitions
    assert sorted(asked) == [clock for clock in clocks for _ in range(each)]


@given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 150))
def test_clocks_grow_with_what_was_done_and_end_with_what_was_asked(
    first: int, more: int, asked: int
) -> None:
    course = Course(1, first, max(first, more))
    sweeps = [course.sweeps(n) for n in range(1, course.passes(asked))]
    assert course.sweeps(0) == 0  # the pass that draws at random
    assert sum(sweeps) == course.done(len(sweeps) + 1) >= asked
    assert sweeps == sorted(sweeps)
    done = 0
    for n in sweeps:
        assert first <= n <= max(first, min(more, done // 4))
        done += n
    assert done - asked < max([1, *sweeps])


def test_small_data_have_short_clocks_at_first_and_long_ones_later() -> None:
    assert [clock.item() for clock in model().history_.clock[[0, -1]]] == [0, 11]
    assert model().n_iter_ == 60  # 5 clocks of 4, 4 of 5 and 2 of 10
    assert fitted(consistency="ssp").history_.sizes["clock"] == 16


@pytest.mark.parametrize(
    ("tokens", "partitions", "expected"),
    [
        (400_000, 2, Course(1, 4, 40)),
        (10_000_000, 8, Course(1, 4, 6)),
        (10_000_000, 2, Course(1, 1, 1)),
        (100_000_000, 20, Course(3, 3, 4)),  # a clock is a third of the words then
    ],
)
def test_a_clock_is_as_many_sweeps_as_what_is_around_them_is_worth(
    tokens: int, partitions: int, expected: Course
) -> None:
    assert topic_plan.course_of(topics(), tokens, partitions) == expected


def test_slices_find_the_planted_topics_too() -> None:
    # one in six beginnings takes two topics for one, with slices or without
    found, phi = fitted(slices=3, random_state=1).topic_word_.to_numpy(), corpus()[1]
    cosines = phi @ found.T / np.outer(*(np.linalg.norm(x, axis=1) for x in (phi, found)))
    assert cosines[scipy.optimize.linear_sum_assignment(-cosines)].mean() >= 0.9


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    where = str(tmp_path / "cuts")
    fitted(max_iter=24, sweeps_per_clock=4, checkpoint=where)
    parameters: dict[str, Any] = {"n_components": K, "doc_topic_prior": 0.2}
    again = LatentDirichletAllocation(
        **parameters, topic_word_prior=0.05, max_iter=60, sweeps_per_clock=4, checkpoint=where
    ).fit(data(), resume=True)
    assert bits(again) == bits(fitted(sweeps_per_clock=4))


def test_shares_of_new_documents_sum_to_one_and_are_lazy_on_dask() -> None:
    X = corpus()[0][:50].toarray()
    theta = model().transform(X)
    np.testing.assert_allclose(theta.sum(axis=1), 1, atol=1e-5)
    empty = X.sum(axis=1) == 0
    assert empty.any()
    np.testing.assert_allclose(theta[empty], 1 / K, atol=1e-6)
    lazy = model().transform(da.from_array(X, chunks=(20, V)))
    assert isinstance(lazy, da.Array)
    np.testing.assert_array_equal(lazy.compute(), theta)
    named = model().transform(xr.DataArray(X, dims=("text", "word")))
    assert named.dims == ("text", "topic")
    trained = model().doc_topic_.to_numpy()[:50]
    assert np.mean(theta.argmax(axis=1) == trained.argmax(axis=1)) > 0.9


def test_perplexity_is_that_of_the_formula() -> None:
    held_out = corpus()[0][:40]
    part = daskps.from_arrays(held_out, shuffle=False, n_partitions=1).partition(0)
    known, asked = halves(part, np.random.default_rng(3))
    np.testing.assert_array_equal(
        (known.to_scipy() + asked.to_scipy()).toarray(), held_out.toarray()
    )
    sizes = np.diff(known.to_scipy().sum(axis=1) - asked.to_scipy().sum(axis=1))
    assert np.abs(sizes).max() <= 1
    m = model()
    counts = m.topic_word_counts_.toarray()
    phi = (counts + 0.05) / (counts.sum(axis=1, keepdims=True) + V * 0.05)
    a, b = known.to_scipy().toarray(), asked.to_scipy().toarray()
    theta = np.full((40, K), 1 / K)
    for _ in range(100):
        theta = 0.2 + theta * ((a / (theta @ phi)) @ phi.T)
        theta /= theta.sum(axis=1, keepdims=True)
    expected = np.exp(-(b * np.log(theta @ phi)).sum() / b.sum())
    np.testing.assert_allclose(m.perplexity(held_out, random_state=3), expected, rtol=1e-4)
    assert expected < 0.7 * V


def test_a_saved_model_says_the_same(tmp_path: Path) -> None:
    words = [f"word {i}" for i in range(V)]
    before = LatentDirichletAllocation(
        3, doc_topic_prior=np.array([0.1, 0.2, 0.3]), max_iter=5
    ).fit(data(), vocabulary=words)
    before.save(tmp_path / "model")
    after = daskps.load(tmp_path / "model")
    assert bits(after) == bits(before)
    xr.testing.assert_identical(after.topic_word_, before.topic_word_)
    assert after.top_words(3).equals(before.top_words(3))
    X = corpus()[0][:5]
    np.testing.assert_array_equal(after.transform(X), before.transform(X))


def test_words_have_their_names() -> None:
    words = [f"word {i}" for i in range(V)]
    m = LatentDirichletAllocation(3, max_iter=5).fit(data(), vocabulary=words)
    k, w = np.unravel_index(m.topic_word_counts_.toarray().argmax(), (3, V))
    assert m.top_words(4).loc[k, 0] == f"word {w}"
    assert m.top_words(4).shape == (3, 4)
    assert m.components_.sel(topic=k, word=f"word {w}") == m.topic_word_counts_.max() + 1 / 3
    assert m.describe().tokens.sum() == corpus()[0].sum()


def test_scikit_learn_says_the_same_of_new_documents() -> None:
    X = corpus()[0][:30].toarray()
    theirs = model().to_sklearn().transform(X)
    assert np.mean(theirs.argmax(axis=1) == model().transform(X).argmax(axis=1)) > 0.9


def test_pyldavis_gets_what_it_asks_for() -> None:
    given = model().to_pyldavis()
    np.testing.assert_allclose(given["topic_term_dists"].sum(axis=1), 1)
    np.testing.assert_allclose(given["doc_topic_dists"].sum(axis=1), 1)
    np.testing.assert_array_equal(given["term_frequency"], corpus()[0].sum(axis=0))
    np.testing.assert_array_equal(given["doc_lengths"], corpus()[0].sum(axis=1))
    assert len(given["vocab"]) == V


def test_topics_that_are_the_same_become_one() -> None:
    many = fitted(n_components=3 * K)
    before = bits(many)
    few = many.merge_similar(0.7)
    assert 1 < few.n_topics_ < 3 * K
    check_agreement(few)
    np.testing.assert_allclose(few.doc_topic_prior_.sum(), many.doc_topic_prior_.sum())
    assert bits(many) == before
    assert many.merge_similar(1.0).n_topics_ == 3 * K


def test_topics_are_one_through_others_too() -> None:
    counts = np.array([[9, 1, 0], [0, 0, 5], [8, 4, 0], [6, 6, 0]])
    assert groups_of(scipy.sparse.csr_array(counts), 0.9).tolist() == [0, 1, 0, 0]
    assert groups_of(scipy.sparse.csr_array(counts), 0.99).tolist() == [0, 1, 2, 3]


def test_words_of_one_topic_go_together() -> None:
    X, _ = corpus()
    found = model().coherence(X, 5)
    present = X.toarray() > 0
    top = model()._top(5)[0][0]
    pairs = [(v, w) for i, w in enumerate(top) for v in top[i + 1 :]]
    n = present.any(axis=1).sum()
    both = np.array([(present[:, v] & present[:, w]).sum() for v, w in pairs])
    one = np.array([[present[:, x].sum() for x in pair] for pair in pairs])
    np.testing.assert_allclose(found.u_mass[0], np.mean(np.log((both + 1) / one[:, 1])))
    npmi = np.log(both * n / one.prod(axis=1)) / -np.log(both / n)
    np.testing.assert_allclose(found.npmi[0], np.mean(npmi))
    assert (found.npmi > 0).mean() > 0.8


@pytest.mark.parametrize(
    ("X", "said"),
    [
        pytest.param([[0.5, 1.0]], "count 0.5 of word 0", id="fraction"),
        pytest.param([[1.0, 2.0], [0.0, -1.0]], "document 1 has the count -1.0", id="negative"),
        pytest.param([[0, 0], [0, 0]], "none of the 2 documents has a word", id="empty"),
        pytest.param([[1, 0]], "1 tokens cannot have 2 topics", id="few tokens"),
    ],
)
def test_what_are_no_documents_is_refused(X: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        LatentDirichletAllocation(2).fit(X)


@pytest.mark.parametrize(
    ("vocabulary", "said"), [(["a"], "1 words, the data 2"), (["a", "a"], "word twice")]
)
def test_a_vocabulary_that_does_not_fit_is_refused(vocabulary: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        LatentDirichletAllocation(2).fit([[3, 4]], vocabulary=vocabulary)


@pytest.mark.parametrize("course", [{}, {"consistency": "ssp"}, {"slices": 2}], ids=str)
def test_priors_are_learnt_in_every_course(course: dict[str, Any]) -> None:
    given = {"doc_topic_prior": "auto", "topic_word_prior": "auto", "sweeps_per_clock": 1}
    m = fitted(**given, **course)
    check_agreement(m)
    # what the documents were made with; a few hundred of them tell it roughly
    assert 0.1 < m.doc_topic_prior_.mean() < 0.4
    assert 0.025 < m.topic_word_prior_ < 0.1
    assert len(set(m.doc_topic_prior_.tolist())) == K


def test_learnt_priors_are_those_that_make_the_counts_most_likely() -> None:
    rng = np.random.default_rng(0)
    truth, lengths = np.array([0.3, 0.05, 1.0]), rng.integers(20, 200, 3000)
    n_dk = np.array([rng.multinomial(n, rng.dirichlet(truth)) for n in lengths])
    rows: dict[str, list[Any]] = {"lengths": [], "columns": [], "counts": []}
    for column in (*n_dk.T, lengths):
        n, docs = np.unique(column[column > 0], return_counts=True)
        for name, x in (("lengths", [len(n)]), ("columns", n), ("counts", docs)):
            rows[name].extend(x)
    pulled = {name: np.array(x) for name, x in rows.items()}
    found = alpha_of(pulled, np.arange(4), np.full(3, 0.5))
    np.testing.assert_allclose(found, truth, rtol=0.1)
    n_kw = np.array([rng.multinomial(5000, rng.dirichlet(np.full(400, 0.07))) for _ in range(20)])
    counts, cells = np.unique(n_kw[n_kw > 0], return_counts=True)
    histogram = {"counts": counts, "cells": cells}
    np.testing.assert_allclose(beta_of(histogram, n_kw.sum(axis=1), 400, 0.5), 0.07, rtol=0.1)


@pytest.mark.parametrize("prior", [0, -1, [0.1], [0.1, 0.0], "auto?", np.nan])
def test_a_prior_that_is_none_is_refused(prior: Any) -> None:
    with pytest.raises(ValueError, match="doc_topic_prior"):
        LatentDirichletAllocation(2, doc_topic_prior=prior).fit([[3, 4]])


def test_documents_of_other_words_are_refused() -> None:
    with pytest.raises(DataError, match="features"):
        model().transform(np.ones((2, V + 1)))


def test_counts_that_disagree_are_noticed() -> None:
    good = np.array([10.0, 10, 55, 55, 0, 3, -1.0])
    check_counts(good, 10)
    for i, x in ((0, 9), (1, 11), (2, 54), (4, 1)):
        wrong = good.copy()
        wrong[i] = x
        with pytest.raises(RunFailed, match="do not agree"):
            check_counts(wrong, 10)


def test_a_result_that_disagrees_with_the_documents_is_refused() -> None:
    model = ConductedTopicModel(V, (0.1,) * K, 0.01, Course(1, 1, 1), 0)
    with pytest.raises(RunFailed, match="expected 5"):
        fit_topics(model, data(), RunOptions(max_iter=2), 5, None)
