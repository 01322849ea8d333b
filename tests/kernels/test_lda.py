"""Gibbs sweeps: draws follow the collapsed posterior, and all counts agree afterwards."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike
from scipy.special import gammaln

from daskps.kernels import lda, lda_gibbs

# doubts below this would come once in 10,000 seeds; the seeds are fixed
DOUBT = 1e-4


def rows_of(dense: np.ndarray) -> lda.Rows:
    words, topics = np.nonzero(dense)
    ptr = np.searchsorted(words, np.arange(len(dense) + 1)).astype(np.int64)
    return lda.Rows(ptr, topics.astype(np.uint32), dense[words, topics].astype(np.int32))


def dense_of(rows: lda.Rows, K: int) -> np.ndarray:
    dense = np.zeros((len(rows.ptr) - 1, K), np.int64)
    np.add.at(
        dense, (np.repeat(np.arange(len(dense)), np.diff(rows.ptr)), rows.topics), rows.counts
    )
    return dense


def added(rows: lda.Rows, more: lda.Rows, K: int) -> lda.Rows:
    return rows_of(dense_of(rows, K) + dense_of(more, K))


def filled(tokens: lda.Tokens, topics: np.ndarray, lengths: np.ndarray, K: int) -> lda.Room:
    """Return the documents' counts of these topics."""
    dense = np.zeros((len(lengths), K), np.int64)
    np.add.at(dense, (tokens.docs, topics), 1)
    docs, ks = np.nonzero(dense)
    dtype = np.uint32 if lda.cell_bits(lengths, K) == 16 else np.uint64
    bits = lda.cell_bits(lengths, K)
    cells = (ks.astype(dtype) << dtype(bits)) | dense[docs, ks].astype(dtype)
    ptr = np.searchsorted(docs, np.arange(len(lengths) + 1)).astype(np.int64)
    return lda.Room(lengths, K, lda.Documents(ptr, cells))


def docs_of(documents: lda.Documents, n: int, K: int) -> np.ndarray:
    bits = lda.bits_of(documents.cells)
    cells = documents.cells.astype(np.int64)
    dense = np.zeros((n, K), np.int64)
    at = np.repeat(np.arange(n), np.diff(documents.ptr)), cells >> bits
    np.add.at(dense, at, cells & ((1 << bits) - 1))
    return dense


@pytest.fixture(params=["all topics", "lists"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take one of the loops, however many topics there are."""
    if request.param == "lists":
        monkeypatch.setattr(lda_gibbs, "FEW", 0)


@pytest.mark.usefixtures("loop")
def test_sweeps_leave_the_collapsed_posterior_as_it_is() -> None:
    # words once each; so many tokens elsewhere that a topic's total hardly moves within a sweep
    K, beta, alpha = 2, 0.5, np.array([0.4, 0.9])
    lengths = np.array([3, 2])
    tokens = lda.Tokens(np.arange(6), np.array([0, 1, 0, 1, 0], np.uint32))
    elsewhere = np.array([[3, 0], [1, 1], [0, 2], [2, 5], [0, 0]])
    totals = np.array([4000, 3000])
    states = np.array(list(itertools.product(range(K), repeat=5)))
    logs = []
    for z in states:
        n_wk = elsewhere.copy()
        n_wk[np.arange(5), z] += 1
        n_dk = np.zeros((2, K))
        np.add.at(n_dk, (tokens.docs, z), 1)
        n_k = totals + np.bincount(z, minlength=K)
        logs.append(
            gammaln(n_dk + alpha).sum() + gammaln(n_wk + beta).sum() - gammaln(n_k + 5 * beta).sum()
        )
    expected = np.exp(logs - np.max(logs))
    z = np.zeros(5, np.uint16)
    prior, seen, n, apart = lda.Prior(alpha, beta, 5), np.zeros(len(states)), 4000, 4
    for i in range(n * apart):
        dense = elsewhere.copy()
        dense[np.arange(5), z] += 1
        n_k = totals + np.bincount(z, minlength=K)
        documents = filled(tokens, z, lengths, K).packed()
        z = lda_gibbs.sweeps(tokens, z, documents, lengths, rows_of(dense), n_k, prior, [i]).topics
        if i % apart == 0:
            seen[np.dot(z, 2 ** np.arange(4, -1, -1))] += 1
    found = scipy.stats.chisquare(seen, n * expected / expected.sum())
    assert found.pvalue > DOUBT, (seen, n * expected / expected.sum())


@pytest.mark.usefixtures("loop")
def test_a_token_is_drawn_by_all_counts_without_itself() -> None:
    # a token of each of many equal documents, words that no other document has
    K, V, beta, n = 5, 4000, 0.1, 4000
    alpha = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    lengths = np.full(n, 4)
    other = np.array([1, 1, 3])  # topics of the documents' other three tokens
    row = np.array([4, 0, 2, 0, 1])  # with the token itself, whose topic is 2
    n_k = np.array([50_000, 60_000, 40_000, 70_000, 30_000])
    tokens = lda.Tokens(np.arange(n + 1), np.arange(n, dtype=np.uint32))
    everything = lda.Tokens(np.zeros(1, np.int64), np.repeat(np.arange(n, dtype=np.uint32), 4))
    room = filled(everything, np.tile(np.append(other, 2), n), lengths, K)
    before = np.full(n, 2, np.uint16)
    rows = rows_of(np.tile(row, (n, 1)))
    prior = lda.Prior(alpha, beta, V)
    after, _, _, likelihood = lda_gibbs.sweeps(
        tokens, before, room.packed(), lengths, rows, n_k.copy(), prior, [7]
    )
    own = np.arange(K) == 2
    phi = (row - own + beta) / (n_k - own + V * beta)
    p = (np.bincount(other, minlength=K) + alpha) * phi
    found = scipy.stats.chisquare(np.bincount(after, minlength=K), n * p / p.sum())
    assert found.pvalue > DOUBT
    assert abs(likelihood / n - np.log(p.sum())) < 0.02  # totals move by up to 4,000


@st.composite
def corpora(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """Draw counts of words in documents, a number of topics, and a seed."""
    seed = draw(st.integers(0, 2**32))
    shape = draw(st.integers(1, 8)), draw(st.integers(1, 12))
    rng = np.random.default_rng(seed)
    counts = rng.poisson(draw(st.sampled_from([0.2, 1.0, 6.0])), shape)
    return counts, draw(st.sampled_from([1, 2, 7, 40, 300, 70_000])), seed


@given(corpora())
@settings(max_examples=60, deadline=None)
def test_after_a_sweep_all_counts_agree(corpus: tuple[np.ndarray, int, int]) -> None:
    counts, K, seed = corpus
    docs, words = np.nonzero(counts)
    n_docs, V = counts.shape
    lengths = counts.sum(axis=1)
    tokens = lda.tokens_of(
        docs.astype(np.uint32), words.astype(np.uint32), counts[docs, words].astype(np.int32), V
    )
    np.testing.assert_array_equal(np.diff(tokens.word_ptr), counts.sum(axis=0))
    word_of = np.repeat(np.arange(V), np.diff(tokens.word_ptr))
    room = lda.Room(lengths, K)
    before = lda.scatter(tokens, K, room, seed)
    rows, n_k = lda.changes(tokens, None, before, K)
    documents = room.packed()
    for seeds in ([seed], [seed + 1, seed + 2, seed + 3], [seed + 4]):
        n_new = n_k.copy()
        prior = lda.Prior(np.full(K, 0.1), 0.01, V)
        after, documents, found, likelihood = lda_gibbs.sweeps(
            tokens, before, documents, lengths, rows, n_new, prior, seeds
        )
        assert np.isfinite(likelihood)
        moved, total = lda.changes(tokens, before, after, K)
        assert total.sum() == 0
        np.testing.assert_array_equal(n_k + total, n_new)
        for one, other in zip(found, moved, strict=True):
            np.testing.assert_array_equal(one, other)
        rows, n_k, before = added(rows, moved, K), n_new, after
        assert (rows.counts > 0).all()
        np.testing.assert_array_equal(n_k, np.bincount(after, minlength=K))
    if K > 1000:
        assert lda.bits_of(documents.cells) == 32
        return
    n_wk, n_dk = np.zeros((V, K), np.int64), np.zeros((n_docs, K), np.int64)
    np.add.at(n_wk, (word_of, before), 1)
    np.add.at(n_dk, (tokens.docs, before), 1)
    np.testing.assert_array_equal(dense_of(rows, K), n_wk)
    np.testing.assert_array_equal(docs_of(documents, n_docs, K), n_dk)


def test_the_documents_likelihood_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    n_dk = rng.poisson(0.7, (20, 6)) * rng.integers(1, 3000, (20, 6))
    docs, topics = np.nonzero(n_dk)
    everything = lda.Tokens(np.zeros(1, np.int64), np.repeat(docs, n_dk[docs, topics]))
    z = np.repeat(topics, n_dk[docs, topics])
    documents = filled(everything, z, n_dk.sum(axis=1), 6).packed()
    for alpha in (np.full(6, 0.1), np.linspace(0.1, 2, 6)):
        one = gammaln(alpha.sum()) - gammaln(alpha).sum()
        expected = 20 * one + gammaln(n_dk + alpha).sum() - gammaln(n_dk.sum(1) + alpha.sum()).sum()
        found = lda.document_likelihood(documents, 16, alpha)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_shares_of_documents_maximise_and_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    phi = rng.dirichlet(np.full(30, 0.2), 4).T.astype(np.float32)
    indptr = np.array([0, 5, 5, 9])
    indices = rng.integers(0, 30, 9).astype(np.uint32)
    counts, alpha = rng.integers(1, 4, 9).astype(np.float32), np.full(4, 0.3, np.float32)
    theta = lda.fold_in(indptr, indices, counts, phi, alpha)
    expected = np.full((3, 4), 0.25)
    for _ in range(100):
        for d in range(3):
            some = slice(indptr[d], indptr[d + 1])
            p = expected[d] * phi[indices[some]]
            p *= (counts[some] / p.sum(axis=1))[:, None]
            expected[d] = (alpha + p.sum(axis=0)) / (alpha.sum() + counts[some].sum())
    np.testing.assert_allclose(theta, expected, atol=1e-5)
    np.testing.assert_allclose(theta.sum(axis=1), 1, atol=1e-6)
    docs = np.repeat(np.arange(3), np.diff(indptr))
    p = (theta.astype(np.float64)[docs] * phi[indices]).sum(axis=1)
    found = lda.log_likelihood(indptr, indices, counts, phi, theta)
    np.testing.assert_allclose(found, counts @ np.log(p), rtol=1e-5)


@pytest.mark.usefixtures("loop")
def test_rows_that_miss_tokens_leave_room_for_all_changes() -> None:
    # after a loss the rows may be older than the topics: then all that moves is new to them
    K, V, n = 200, 40, 400
    rng = np.random.default_rng(0)
    tokens = lda.tokens_of(
        np.arange(n, dtype=np.uint32),
        rng.integers(0, V, n).astype(np.uint32),
        np.ones(n, np.int32),
        V,
    )
    lengths = np.ones(n, np.int64)
    room = lda.Room(lengths, K)
    before = lda.scatter(tokens, K, room, 1)
    nothing = lda.Rows(np.zeros(V + 1, np.int64), np.empty(0, np.uint32), np.empty(0, np.int32))
    n_k = np.bincount(before, minlength=K)
    prior = lda.Prior(np.full(K, 0.1), 10.0, V)
    swept = lda_gibbs.sweeps(
        tokens, before, room.packed(), lengths, nothing, n_k.copy(), prior, [1]
    )
    moved, total = lda.changes(tokens, before, swept.topics, K)
    np.testing.assert_array_equal(dense_of(swept.moved, K), dense_of(moved, K))
    np.testing.assert_array_equal(np.bincount(swept.topics, minlength=K), n_k + total)


@pytest.mark.usefixtures("loop")
def test_memory_that_held_something_else_gives_the_same_bits() -> None:
    K, V, n_docs, n = 40, 30, 12, 600
    rng = np.random.default_rng(0)
    docs, words = (np.sort(rng.integers(0, m, n)).astype(np.uint32) for m in (n_docs, V))
    tokens = lda.tokens_of(docs, rng.permutation(words), np.ones(n, np.int32), V)
    lengths = np.bincount(docs, minlength=n_docs)
    room = lda.Room(lengths, K)
    before = lda.scatter(tokens, K, room, 1)
    rows, n_k = lda.changes(tokens, None, before, K)
    given = tokens, before, room.packed(), lengths, rows
    prior, seeds = lda.Prior(np.full(K, 0.1), 0.01, V), [1, 2, 3, 4]
    held: dict[str, np.ndarray] = {}

    def used(purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        held[purpose] = held.get(purpose, np.empty(0, np.uint8))
        if held[purpose].size < size:
            held[purpose] = np.full(size, 0xA5, np.uint8)
        return held[purpose][:size].view(dtype).reshape(shape)

    expected = lda_gibbs.sweeps(*given, n_k.copy(), prior, seeds)
    for _ in range(2):
        found = lda_gibbs.sweeps(*given, n_k.copy(), prior, seeds, used)
        assert held
        pairs = [(found.topics, expected.topics)]
        pairs += zip(
            (*found.documents, *found.moved), (*expected.documents, *expected.moved), strict=True
        )
        for one, other in pairs:
            np.testing.assert_array_equal(one, other)
        assert found.likelihood == expected.likelihood
