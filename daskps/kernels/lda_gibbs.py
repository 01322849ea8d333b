"""Gibbs sweeps over the tokens of a slice: `sweeps`, which picks the loop by the number of topics.

Owns the way into `_lda_sweep` (lists of the topics that are there) and `_lda_dense` (numbers for
all topics), and what goes from one sweep to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from daskps.kernels import _lda_dense, _lda_sweep, lda
from daskps.kernels._lanes import LANES

FEW = 256
"""Up to this many topics all of them are looked at for each token."""
CELLS = 2**27
"""Numbers that are held for all words and topics, or documents and topics, at most."""

# numba's dispatchers have no types
_spread: Any = _lda_dense.spread
_gathered: Any = _lda_dense.gathered
_spread_rows: Any = _lda_dense.spread_rows
_sweep_dense: Any = _lda_dense.sweep
_sweep: Any = _lda_sweep.sweep


def sweeps(
    tokens: lda.Tokens,
    before: lda.Topics,
    documents: lda.Documents,
    lengths: lda.I64,
    rows: lda.Rows,
    n_k: lda.I64,
    prior: lda.Prior,
    seeds: Sequence[int],
) -> tuple[lda.Topics, lda.Documents, float]:
    """Draw the topics of all tokens anew, one after the other, once for each seed.

    Parameters
    ----------
    tokens
        In any order of words; a word may stand there more than once.
    before
        Their topics, counted in `documents`, `rows` and `n_k`.
    documents, lengths
        Topic counts of the partition's documents, and the tokens that they have.
    rows
        Topic counts of each word, by all partitions.
    n_k
        Tokens of each topic, by all partitions, shape (K,); updated.
    prior
        See `Prior`.
    seeds
        The outcome depends on them and the other arguments alone.

    Returns
    -------
    topics
        Of each token.
    documents
        Their topic counts.
    likelihood
        In the last sweep, the sum of ``log sum_k (n_dk + alpha_k) phi_wk``, all counts without the
        token itself: with ``log(N_d - 1 + sum_k alpha_k)`` taken off each token's, of the
        probability of its word by all other tokens.

    References
    ----------
    Griffiths and Steyvers (2004), "Finding Scientific Topics", equation 5.
    Newman et al. (2009), "Distributed Algorithms for Topic Models", AD-LDA: other partitions'
    counts are delayed.
    Yu et al. (2015), "A Scalable Asynchronous Distributed Algorithm for Topic Modeling", section
    3: word by word.
    Li et al. (2014), "Reducing the Sampling Complexity of Topic Models": the sparse document part
    and the delayed smooth part.
    """
    K = len(n_k)
    larger = max(len(lengths), len(rows.ptr))
    dense = K <= FEW and larger * K <= CELLS and lda.cell_bits(lengths, K) == 16
    return (_dense if dense else _sparse)(
        tokens, before, documents, lengths, rows, n_k, prior, seeds
    )


def _dense(
    tokens: lda.Tokens,
    before: lda.Topics,
    documents: lda.Documents,
    lengths: lda.I64,
    rows: lda.Rows,
    n_k: lda.I64,
    prior: lda.Prior,
    seeds: Sequence[int],
) -> tuple[lda.Topics, lda.Documents, float]:
    K, bits = len(n_k), np.uint64(16)
    width = -(-K // LANES) * LANES
    alpha = np.zeros(width, np.float32)
    alpha[:K] = prior.alpha
    short = int(lengths.max(initial=0)) < 2**8
    counts = np.zeros(len(lengths) * width, np.uint8 if short else np.uint16)
    _spread(*lda.frozen(*documents), bits, width, counts)
    words = np.zeros((len(rows.ptr) - 1) * width, np.int32)
    _spread_rows(*lda.frozen(*rows), width, words)
    topics, likelihood = before, 0.0
    for seed in seeds:
        after = np.empty_like(before)
        arrays = *lda.frozen(*tokens, topics), after, counts
        beta = prior.beta, prior.beta * prior.n_words
        likelihood = _sweep_dense(
            *arrays, width, words, n_k, *lda.frozen(alpha), *beta, np.uint64(seed)
        )
        topics = after
    # one more: the loop writes where the next one would stand
    cells = np.empty(int(np.minimum(lengths, K).sum()) + 1, np.uint32)
    ptr = np.empty(len(lengths) + 1, np.int64)
    n = _gathered(counts, K, width, bits, ptr, cells)
    return topics, lda.Documents(ptr, cells[:n].copy()), float(likelihood)


def _sparse(
    tokens: lda.Tokens,
    before: lda.Topics,
    documents: lda.Documents,
    lengths: lda.I64,
    rows: lda.Rows,
    n_k: lda.I64,
    prior: lda.Prior,
    seeds: Sequence[int],
) -> tuple[lda.Topics, lda.Documents, float]:
    room = lda.Room(lengths, len(n_k), documents)
    topics, last, likelihood = before, before, 0.0
    for i, seed in enumerate(seeds):
        if i:
            rows = lda.added(rows, lda.changes(tokens, last, topics, len(n_k))[0])
        after = np.empty_like(before)
        likelihood = _sweep(
            *lda.frozen(*tokens, topics),
            after,
            *room.parts,
            *lda.frozen(*rows),
            n_k,
            *lda.frozen(prior.alpha),
            prior.beta,
            prior.beta * prior.n_words,
            np.uint64(seed),
        )
        last, topics = topics, after
    return topics, room.packed(), float(likelihood)
