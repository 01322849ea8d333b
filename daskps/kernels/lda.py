"""Latent Dirichlet allocation: tokens of a slice and their counts, and new documents.

Owns the way into the compiled loops of `_lda_counts`, `_lda_fold` and `_lda_online`; sweeps are in
`lda_gibbs`. Tokens stand by word; topics of tokens are uint16, or uint32 from 65,537 topics on.
What a document's tokens add up to is kept in cells, packed (`Documents`); `Room` is the same spread
out to be changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from daskps.kernels import _lda_counts, _lda_fold, _lda_online
from daskps.kernels._lanes import LANES

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Topics = NDArray[Any]
Scratch = Callable[[str, tuple[int, ...], DTypeLike], NDArray[Any]]
"""Returns memory with arbitrary content for a purpose, which may be that of an earlier call."""


# numba's dispatchers have no types
_unpack: Any = _lda_counts.unpack
_pack: Any = _lda_counts.pack
_scatter: Any = _lda_counts.scatter
_group: Any = _lda_counts.group
_changes: Any = _lda_counts.changes
_difference: Any = _lda_counts.difference
_totals: Any = _lda_counts.totals
_keys: Any = _lda_counts.keys
_document_likelihood: Any = _lda_counts.document_likelihood
_fold_in: Any = _lda_fold.fold_in
_log_likelihood: Any = _lda_fold.log_likelihood
_expected: Any = _lda_online.expected
_e_step: Any = _lda_online.e_step


class Tokens(NamedTuple):
    """The tokens of some words in the documents of a partition."""

    word_ptr: I64
    """Where the tokens of each word start, shape (words + 1,)."""
    docs: NDArray[np.uint32]
    """Document of each token, shape (n,)."""


class Rows(NamedTuple):
    """Counts, or changes of counts, of some words by topic; topics ascend within a word."""

    ptr: I64
    topics: NDArray[np.uint32]
    counts: NDArray[np.int32]


class Documents(NamedTuple):
    """Topic counts of documents, packed."""

    ptr: I64
    cells: NDArray[Any]
    """``(topic << bits) | count``, uint32 with 16 bits or uint64 with 32."""


class Prior(NamedTuple):
    """Dirichlet priors."""

    alpha: F64
    """Of a document's topics, shape (K,)."""
    beta: float
    """Of a topic's words."""
    n_words: int
    """V: words that a topic may have."""


class Room:
    """Topic counts of documents with room for changes.

    Parameters
    ----------
    lengths
        Tokens of each document.
    K
        Number of topics.
    documents
        What is there; None for nothing.
    scratch
        Where the memory is from; new by default.
    """

    def __init__(
        self,
        lengths: I64,
        K: int,
        documents: Documents | None = None,
        scratch: Scratch | None = None,
    ) -> None:
        n = len(lengths)
        self.bits = cell_bits(lengths, K)
        self.starts = np.zeros(n + 1, np.int64)
        # while a token is moved there is one more; lists are read 16 cells at a time
        places = np.minimum(lengths, K) + 1
        np.cumsum(-(-places // LANES) * LANES, out=self.starts[1:])
        self.sizes = np.zeros(n, np.int64)
        dtype = np.uint32 if self.bits == 16 else np.uint64
        # a prefetch looks a line ahead, never beyond the array
        self.cells = (scratch or fresh)("room", (int(self.starts[-1]) + LANES,), dtype)
        self.cells.fill(0)
        if documents is not None:
            _unpack(*frozen(*documents), self.starts, self.sizes, self.cells)

    @property
    def parts(self) -> tuple[Any, ...]:
        """What loops over the counts take."""
        return _frozen(self.starts), self.sizes, self.cells, np.uint64(self.bits)

    def packed(self) -> Documents:
        """Return the counts in arrays of their own."""
        ptr = np.zeros(len(self.starts), np.int64)
        np.cumsum(self.sizes, out=ptr[1:])
        cells = np.empty(int(ptr[-1]), self.cells.dtype)
        _pack(_frozen(self.starts), self.sizes, self.cells, ptr, cells)
        return Documents(ptr, cells)


def tokens_of(
    docs: NDArray[np.uint32], words: NDArray[np.uint32], counts: NDArray[np.int32], n_words: int
) -> Tokens:
    """Return the tokens of counted words.

    Parameters
    ----------
    docs, words, counts
        Document, word and number of tokens of each entry; words are below `n_words`.
    """
    word_ptr = np.zeros(n_words + 1, np.int64)
    out = np.empty(int(counts.sum()), np.uint32)
    _group(*frozen(docs, words, counts), word_ptr, out)
    return Tokens(word_ptr, out)


def cell_bits(lengths: I64, K: int) -> int:
    """Return the bits of a count: 16 where topics and counts of documents fit, else 32."""
    longest = int(lengths.max(initial=0))
    return 16 if K <= 2**16 and longest < 2**16 else 32


def bits_of(cells: NDArray[Any]) -> int:
    """Return the bits of a count in `cells`."""
    return 16 if cells.dtype == np.uint32 else 32


def topic_dtype(K: int) -> np.dtype[Any]:
    """Return the dtype of the topics of tokens."""
    return np.dtype(np.uint16 if K <= 2**16 else np.uint32)


def scatter(tokens: Tokens, K: int, room: Room, seed: int) -> Topics:
    """Return a topic for each token, uniformly drawn, and count them in `room`."""
    topics = np.empty(len(tokens.docs), topic_dtype(K))
    _scatter(_frozen(tokens.docs), topics, K, np.uint64(seed), *room.parts)
    return topics


def changes(tokens: Tokens, before: Topics | None, after: Topics, K: int) -> tuple[Rows, I64]:
    """Return by how much the words' counts and the topics' totals differ.

    Parameters
    ----------
    before
        None where the tokens were not counted before.
    """
    n = len(after) if before is None else 2 * int(np.count_nonzero(before != after))
    ptr, total = np.empty(len(tokens.word_ptr), np.int64), np.zeros(K, np.int64)
    topics, deltas = np.empty(n, np.uint32), np.empty(n, np.int32)
    old = _frozen(after if before is None else before)
    args = (_frozen(tokens.word_ptr), old, _frozen(after), before is None, K)
    n = _changes(*args, ptr, topics, deltas, total)
    return Rows(ptr, topics[:n], deltas[:n]), total


def difference(rows: Rows, after: Rows, K: int) -> Rows:
    """Return rows `after`, topics in any order, minus others of the same words."""
    n = len(rows.topics) + len(after.topics)
    out = Rows(np.empty_like(rows.ptr), np.empty(n, np.uint32), np.empty(n, np.int32))
    n = _difference(*frozen(*rows, *after), K, *out)
    return Rows(out.ptr, out.topics[:n], out.counts[:n])


def totals(rows: Rows, K: int) -> I64:
    """Return the sum of each topic's counts, shape (K,)."""
    out = np.zeros(K, np.int64)
    _totals(*frozen(rows.topics, rows.counts), out)
    return out


def keys(
    words: NDArray[np.uint64], rows: Rows, K: int, scratch: Scratch | None = None
) -> NDArray[np.uint64]:
    """Return ``word x K + topic`` of each entry of the words' rows."""
    out = (scratch or fresh)("keys", (len(rows.topics),), np.uint64)
    _keys(*frozen(words, rows.ptr, rows.topics), K, out)
    return out


def document_likelihood(documents: Documents, bits: int, alpha: F64) -> float:
    """Return log p(z | alpha) of the documents' topics, `bits` as of `cell_bits`."""
    return float(_document_likelihood(*frozen(*documents), np.uint64(bits), _frozen(alpha)))


def fold_in(
    indptr: I64,
    indices: NDArray[np.uint32],
    counts: F32,
    phi: F32,
    alpha: F32,
    *,
    n_iter: int = 100,
    tol: float = 0.0,
) -> F32:
    """Return topic shares of documents under fixed topics, shape (n, K); rows sum to 1.

    Repeats ``theta_k = alpha_k + sum_w c_w theta_k phi_wk / sum_j theta_j phi_wj``, normalised,
    from equal shares.

    Parameters
    ----------
    indptr, indices, counts
        Documents, as CSR; `indices` are rows of `phi`.
    phi
        Probability of each word in each topic, shape (words, K).
    alpha
        Prior, shape (K,).
    n_iter, tol
        Ends after so many steps, or when the shares change by less in sum.
    """
    theta = np.empty((len(indptr) - 1, len(alpha)), np.float32)
    args = (*frozen(indptr, indices, counts, phi, alpha), n_iter, tol)
    _fold_in(*args, theta)
    return theta


def log_likelihood(
    indptr: I64, indices: NDArray[np.uint32], counts: F32, phi: F32, theta: F32
) -> float:
    """Return the log-probability of documents with topic shares `theta`; see `fold_in`."""
    return float(_log_likelihood(*frozen(indptr, indices, counts, phi, theta)))


def expected_words(weights: F64, totals: F64) -> F32:
    """Return exp E[log phi_wk] of words' rows of topics that are Dirichlet, shape (words, K).

    Parameters
    ----------
    weights
        Parameters of the distributions, lambda, shape (words, K).
    totals
        Their sums over all words, shape (K,).
    """
    out = np.empty(weights.shape, np.float32)
    _expected(*frozen(weights, totals), out)
    return out


def e_step(
    indptr: I64,
    indices: NDArray[np.uint32],
    counts: F32,
    beta: F32,
    alpha: F64,
    *,
    n_iter: int = 100,
    tol: float = 1e-3,
) -> tuple[F32, F64, float]:
    """Find the topics of documents by variational Bayes, from equal shares.

    Repeats ``gamma_k = alpha_k + sum_w c_w phi_wk`` with ``phi_wk`` proportional to ``exp(E[log
    theta_k] + E[log beta_wk])``.

    Parameters
    ----------
    indptr, indices, counts
        Documents, as CSR; `indices` are rows of `beta`.
    beta
        exp E[log beta], see `expected_words`, shape (words, K).
    alpha
        Prior, shape (K,).
    n_iter, tol
        Ends after so many steps, or when gamma changes by less on average.

    Returns
    -------
    stats
        Expected count of each topic for each word, shape (words, K).
    logs
        Sum over documents of E[log theta], shape (K,).
    bound
        Sum over documents of the bound of their log-probability, given `beta`.

    References
    ----------
    Hoffman, Blei and Bach (2010), "Online Learning for Latent Dirichlet Allocation", algorithm 2,
    and equation 4 without the topics' part.
    """
    stats, logs = np.zeros(beta.shape, np.float32), np.zeros(len(alpha))
    arrays = frozen(indptr, indices, counts, beta, alpha)
    bound = _e_step(*arrays, n_iter, tol, stats, logs)
    return stats, logs, float(bound)


def fresh(purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return new memory; a `Scratch`."""
    return np.empty(shape, dtype)


def frozen(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
    """Return read-only views: numba compiles for them once, whoever may write."""
    return [_frozen(a) for a in arrays]


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view: numba compiles for it once, whether or not the owner may write."""
    view = array.view()
    view.flags.writeable = False
    return view
