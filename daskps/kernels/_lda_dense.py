"""One Gibbs sweep over the tokens of a slice where topics are few: all of them are looked at.

Arithmetic only; `daskps.kernels.lda_gibbs` is the way in. A token of word w in document d takes
topic k with probability proportional to ``(n_dk + alpha_k) phi_k`` as in `_lda_sweep`, but
documents and words have a number for every topic, so that a draw is a few dozen vector instructions
without any branch (`_lanes`). Up to some hundred topics that takes less time than lists of those
that are there.

What is delayed: counts are brought up to date after every few tokens, for a processor cannot read
a vector of which it has just written a number; and the tokens of a word are in such an order that
two of one document do not follow each other. Tokens that do not see each other are drawn together,
step by step: a processor looks ahead some hundred instructions, which is about one token.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._lanes import BITS, LANES, LINE, ask, draw, number_below, weigh
from daskps.kernels._lda_sweep import F32, I64, TOGETHER, Cells, Scalar, mixed

AHEAD = 8
"""Tokens between asking for a document's counts and visiting them."""
CHUNK = 8
"""Tokens between two updates of counts."""
MANY = 6
"""From so many tokens of a word on, totals are brought up to date for all topics at once."""


@njit(nogil=True, cache=True)
def spread(ptr: I64, cells: Cells, bits: Scalar, width: Scalar, out: NDArray[Any]) -> None:
    """Write documents' cells to rows of `width` counts, which are zero."""
    mask = (np.uint64(1) << bits) - np.uint64(1)
    for d in range(np.uint64(ptr.size - 1)):
        row = d * np.uint64(width)
        for i in range(np.uint64(ptr[d]), np.uint64(ptr[d + np.uint64(1)])):
            x = np.uint64(cells[i])
            out[row + (x >> bits)] = x & mask


@njit(nogil=True, cache=True)
def gathered(
    counts: NDArray[Any], K: Scalar, width: Scalar, bits: Scalar, ptr: I64, cells: Cells
) -> Scalar:
    """Write the counts of documents that are not zero as cells; return how many."""
    n = np.uint64(0)
    ptr[0] = 0
    for d in range(np.uint64(ptr.size - 1)):
        row = d * np.uint64(width)
        for k in range(np.uint64(K)):
            c = np.uint64(counts[row + k])
            cells[n] = (k << bits) | c
            n += np.uint64(c != np.uint64(0))
        ptr[d + np.uint64(1)] = n
    return n


@njit(nogil=True, cache=True)
def spread_rows(
    ptr: I64,
    topics: NDArray[np.uint32],
    counts: NDArray[np.int32],
    width: Scalar,
    out: NDArray[np.int32],
) -> None:
    """Write words' rows to rows of `width` counts, which are zero."""
    for w in range(np.uint64(ptr.size - 1)):
        row = w * np.uint64(width)
        for i in range(np.uint64(ptr[w]), np.uint64(ptr[w + np.uint64(1)])):
            out[row + np.uint64(topics[i])] = counts[i]


@njit(nogil=True, cache=True)
def moved(
    ptr: I64,
    topics: NDArray[np.uint32],
    counts: NDArray[np.int32],
    words: NDArray[np.int32],
    K: Scalar,
    width: Scalar,
    out_ptr: I64,
    out_topics: NDArray[np.uint32],
    out: NDArray[np.int32],
) -> Scalar:
    """Write by how much words' counts differ from rows of before; return the number of entries.

    `words` are used up.
    """
    n = np.uint64(0)
    out_ptr[0] = 0
    for w in range(np.uint64(ptr.size - 1)):
        row = w * np.uint64(width)
        for i in range(np.uint64(ptr[w]), np.uint64(ptr[w + np.uint64(1)])):
            words[row + np.uint64(topics[i])] -= counts[i]
        for k in range(np.uint64(K)):
            c = words[row + k]
            out_topics[n], out[n] = k, c
            n += np.uint64(c != 0)
        out_ptr[w + np.uint64(1)] = n
    return n


@njit(inline="always")
def _in_lane(
    weights: F32, at: Scalar, K: Scalar, blocks: Scalar, lane: Scalar, rest: Scalar
) -> Scalar:
    """Return the topic of a lane at which the sum of its weights is above `rest`."""
    # by rounding a draw may end beyond the last weight, of a lane or of all
    lane = min(lane, K - np.uint64(1))
    number = number_below(weights, at + lane, blocks, rest)
    most = (K - np.uint64(1) - lane) >> np.uint64(BITS)
    return (min(number, most) << np.uint64(BITS)) + lane


# Python's check of divisors would keep nothing here from being wrong: no divisor can be zero.
@njit(nogil=True, cache=True, error_model="numpy")
def sweep(
    word_ptr: I64,
    docs: NDArray[np.uint32],
    before: NDArray[Any],
    after: NDArray[Any],
    counts: NDArray[Any],
    width: Scalar,
    words: NDArray[np.int32],
    n_k: I64,
    alpha: F32,
    beta: float,
    v_beta: float,
    seed: Scalar,
) -> Scalar:
    """Draw all topics of a slice anew; return the sum of the tokens' log-probabilities.

    `after`, `counts` (documents times `width`), `words` (words times `width`) and `n_k` are changed
    in place; `alpha` is zero beyond its topics. See `daskps.kernels.lda_gibbs.sweeps`.
    """
    one, K, width = np.float32(1), np.uint64(n_k.size), np.uint64(width)
    blocks = (K + np.uint64(LANES - 1)) >> np.uint64(BITS)
    size = blocks << np.uint64(BITS)
    b, unit = np.float32(beta), np.float32(2.0**-24)
    inv, phi = np.zeros(size, np.float32), np.zeros(size, np.float32)
    row = np.zeros(size, np.int32)  # of a word, before its visit
    weights, sums = np.empty(size * CHUNK, np.float32), np.empty(LANES * CHUNK, np.float32)
    less, rests = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32)
    lanes, masses = np.empty(CHUNK, np.uint64), np.empty(CHUNK, np.float64)
    for k in range(K):
        inv[k] = one / np.float32(n_k[k] + v_beta)
    lines = (K * np.uint64(counts.itemsize) + np.uint64(LINE - 1)) // np.uint64(LINE)
    n_tokens, state = np.uint64(docs.size), np.uint64(seed)
    powers, product, factors = np.int64(0), 1.0, 0  # of two; the product of masses without them
    for w in range(np.uint64(word_ptr.size - 1)):
        first, last = np.uint64(word_ptr[w]), np.uint64(word_ptr[w + np.uint64(1)])
        if first == last:
            continue
        word = w * width
        for k in range(K):
            row[k] = words[word + k]
            phi[k] = (np.float32(words[word + k]) + b) * inv[k]
        begin = first
        while begin < last:
            end = min(begin + np.uint64(CHUNK), last)
            for i in range(begin, end):
                if i + np.uint64(AHEAD) < n_tokens:
                    ask(counts, np.uint64(docs[i + np.uint64(AHEAD)]) * width, lines)
                start, old, t = np.uint64(docs[i]) * width, np.uint64(before[i]), i - begin
                n_old = np.float32(counts[start + old])
                whole, step, a = phi[old], inv[old], alpha[old]
                without = (n_old - one + a) * ((whole - step) / (one - step))
                less[t] = (n_old + a) * whole - without
                weigh(counts, start, alpha, phi, weights, t * size, blocks, sums, t)
                weights[t * size + old] = without
            for i in range(begin, end):
                t = i - begin
                state += np.uint64(0x9E3779B97F4A7C15)
                u = np.float32(mixed(state) >> np.uint64(40)) * unit
                lanes[t], rests[t], masses[t] = draw(sums, t, np.uint64(before[i]), less[t], u)
            for i in range(begin, end):
                t = i - begin
                after[i] = _in_lane(weights, t * size, K, blocks, lanes[t], rests[t])
                product *= masses[t]
                factors += 1
                if factors == TOGETHER:
                    product, power = math.frexp(product)
                    powers += power
                    factors = 0
            for i in range(begin, end):
                new, old = np.uint64(after[i]), np.uint64(before[i])
                start = np.uint64(docs[i]) * width
                counts[start + old] -= 1
                counts[start + new] += 1
                words[word + old] -= 1
                words[word + new] += 1
                phi[old] -= inv[old]
                phi[new] += inv[new]
            begin = end
        if last - first >= np.uint64(MANY):
            for k in range(K):
                n_k[k] += words[word + k] - row[k]
                inv[k] = one / np.float32(n_k[k] + v_beta)
            continue
        for i in range(first, last):
            n_k[before[i]] -= 1
            n_k[after[i]] += 1
        for i in range(first, last):
            new, old = np.uint64(after[i]), np.uint64(before[i])
            inv[new] = one / np.float32(n_k[new] + v_beta)
            inv[old] = one / np.float32(n_k[old] + v_beta)
    return powers * math.log(2.0) + math.log(product)
