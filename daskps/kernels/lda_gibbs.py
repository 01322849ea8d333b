"""Gibbs sweeps over the tokens of a slice: `sweeps`, which picks the loop by the number of topics.

Owns the way into `_lda_sweep` (lists of the topics that are there) and `_lda_dense` (numbers for
all topics), and what goes from one sweep to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from daskps.kernels import _lda_dense, _lda_sweep, lda
from daskps.kernels._lanes import LANES, MOST

FEW = LANES * MOST
"""Up to this many topics all of them are looked at for each token."""
CELLS = 2**27
"""Numbers that are held for all words and topics, or documents and topics, at most."""

# numba's dispatchers have no types
_spread: Any = _lda_dense.spread
_gathered: Any = _lda_dense.gathered
_spread_rows: Any = _lda_dense.spread_rows
_moved: Any = _lda_dense.moved
_sweep_dense: Any = _lda_dense.sweep
_sweep: Any = _lda_sweep.sweep


class Swept(NamedTuple):
    """What sweeps leave."""

    topics: lda.Topics
    """Of each token."""
    documents: lda.Documents
    """Topic counts of the partition's documents."""
    moved: lda.Rows
    """By how much the words' counts changed."""
    likelihood: float
    """In the last sweep, the sum of ``log sum_k (n_dk + alpha_k) phi_wk``, all counts without the
    token itself: with ``log(N_d - 1 + sum_k alpha_k)`` taken off each token's, of the probability
    of its word by all other tokens."""


def sweeps(
    tokens: lda.Tokens,
    before: lda.Topics,
    documents: lda.Documents,
    lengths: lda.I64,
    rows: lda.Rows,
    n_k: lda.I64,
    prior: lda.Prior,
    seeds: Sequence[int],
    scratch: lda.Scratch = lda.fresh,
) -> Swept:
    """Draw the topics of all tokens anew, one after the other, once for each seed.

    Parameters
    ----------
    tokens
        In any order of words.
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
    scratch
        Where memory is from that is not needed afterwards, and that of what moved: fresh memory
        takes longer to get than to fill. By default it is new.

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
    loop = _dense if dense else _sparse
    return loop(tokens, before, documents, lengths, rows, n_k, prior, seeds, scratch)


def _dense(
    tokens: lda.Tokens,
    topics: lda.Topics,
    documents: lda.Documents,
    lengths: lda.I64,
    rows: lda.Rows,
    n_k: lda.I64,
    prior: lda.Prior,
    seeds: Sequence[int],
    scratch: lda.Scratch,
) -> Swept:
    K, bits, likelihood = len(n_k), np.uint64(16), 0.0
    width = -(-K // LANES) * LANES
    alpha = np.zeros(width, np.float32)
    alpha[:K] = prior.alpha
    short = int(lengths.max(initial=0)) < 2**8
    counts = scratch("counts", (len(lengths) * width,), np.uint8 if short else np.uint16)
    counts.fill(0)
    _spread(*lda.frozen(*documents), bits, width, counts)
    words = scratch("words", ((len(rows.ptr) - 1) * width,), np.int32)
    words.fill(0)
    _spread_rows(*lda.frozen(*rows), width, words)
    beta = prior.beta, prior.beta * prior.n_words
    for i, seed in enumerate(seeds):
        before, topics = topics, _next(topics, i, len(seeds), scratch)
        arrays = *lda.frozen(*tokens, before), topics, counts, width, words, n_k
        likelihood = _sweep_dense(*arrays, *lda.frozen(alpha), *beta, np.uint64(seed))
    # one more: the loops write where the next one would stand
    cells = scratch("cells", (int(np.minimum(lengths, K).sum()) + 1,), np.uint32)
    ptr = np.empty(len(lengths) + 1, np.int64)
    n = _gathered(counts, K, width, bits, ptr, cells)
    # each token changes two counts at most, whether or not `rows` had counted it already
    most = min(words.size, len(rows.topics) + 2 * len(topics)) + 1
    moved = _rows(len(rows.ptr), most, "moved", scratch)
    m = _moved(*lda.frozen(*rows), words, K, width, *moved)
    moved = lda.Rows(moved.ptr, moved.topics[:m], moved.counts[:m])
    return Swept(topics, lda.Documents(ptr, cells[:n].copy()), moved, float(likelihood))


def _sparse(
    tokens: lda.Tokens,
    topics: lda.Topics,
    documents: lda.Documents,
    lengths: lda.I64,
    rows: lda.Rows,
    n_k: lda.I64,
    prior: lda.Prior,
    seeds: Sequence[int],
    scratch: lda.Scratch,
) -> Swept:
    room, now, likelihood = lda.Room(lengths, len(n_k), documents, scratch), rows, 0.0
    alpha, beta = lda.frozen(prior.alpha), (prior.beta, prior.beta * prior.n_words)
    for i, seed in enumerate(seeds):
        most = len(now.topics) + 2 * len(topics) + 1
        new = _rows(len(rows.ptr), most, f"rows {i % 2}", scratch)
        before, topics = topics, _next(topics, i, len(seeds), scratch)
        arrays = *lda.frozen(*tokens, before), topics, *room.parts, *lda.frozen(*now), *new, n_k
        likelihood = _sweep(*arrays, *alpha, *beta, np.uint64(seed))
        n = int(new.ptr[-1])
        now = lda.Rows(new.ptr, new.topics[:n], new.counts[:n])
    moved = lda.difference(rows, now, len(n_k))
    return Swept(topics, room.packed(), moved, float(likelihood))


def _next(topics: lda.Topics, number: int, of: int, scratch: lda.Scratch) -> lda.Topics:
    """Return where a sweep's topics go: those of the last one stay, the others are read once."""
    if number == of - 1:
        return np.empty_like(topics)
    return scratch(f"topics {number % 2}", topics.shape, topics.dtype)


def _rows(n: int, most: int, purpose: str, scratch: lda.Scratch) -> lda.Rows:
    """Return rows with room for `most` entries."""
    topics = scratch(f"{purpose} topics", (most,), np.uint32)
    return lda.Rows(np.empty(n, np.int64), topics, scratch(f"{purpose} counts", (most,), np.int32))
