"""One Gibbs sweep of latent Dirichlet allocation over the tokens of a slice, word by word.

Arithmetic only; `daskps.kernels.lda_gibbs` is the way in. With
``phi_k = (n_wk + beta) / (n_k + V beta)`` a token of word w in document d takes topic k with
probability proportional to ::

    n_dk phi_k + alpha_k phi_k

all counts without the token itself. The first part has as many terms as the document has topics;
the second is drawn from cumulative sums over the topics that the word has, made once a visit, and
over the part that all words share, made once a sweep. So the cost of a token does not grow with
the number of topics. Tokens are visited by word: ``phi`` is one vector in cache, and of a document
its few topics are read, which stand together, 16 at a time (`_cell_lanes`).

What is delayed: the second part sees the word's counts as at the beginning of its visit, n_k is
brought up to date between words, and other partitions' tokens count as they were when the rows
were pulled. The first part sees everything that this sweep has changed, but for the few tokens that
are drawn together, step by step: of those of one document each sees the others as they were.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._cell_lanes import cumulate, lane_of, weigh
from daskps.kernels._lanes import BITS, LANES
from daskps.prefetch import prefetch

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Cells = NDArray[Any]
"""(topic << bits) | count, uint32 or uint64."""
Scalar = Any

AHEAD = 8
"""Tokens between asking for a document's topics and visiting them."""
CHUNK = 8
"""Tokens that are drawn together."""
TOGETHER = 8
"""Probabilities that are multiplied before their power of two is put aside."""


@njit(inline="always")
def mixed(x: Scalar) -> Scalar:
    """Return the splitmix64 output of a state (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(inline="always")
def unit(bits: Scalar) -> Scalar:
    """Return a number in [0, 1) of 64 random bits."""
    return np.float64(bits >> np.uint64(11)) * 2.0**-53


@njit(inline="always")
def first_above(cumulative: Any, n: Scalar, u: Scalar) -> Scalar:
    """Return the first of `n` positions whose cumulative sum is above `u`, or the last."""
    low, high = np.uint64(0), np.uint64(n - np.uint64(1))
    while low < high:
        middle = (low + high) >> np.uint64(1)
        if cumulative[middle] <= u:
            low = middle + np.uint64(1)
        else:
            high = middle
    return low


@njit(inline="always")
def add(room: Cells, start: Scalar, n: Scalar, topic: Scalar, bits: Scalar) -> Scalar:
    """Count a token of `topic` in the list of `n` cells at `start`; return the list's length."""
    at = start
    while at < start + n and np.uint64(room[at]) >> bits != topic:
        at += np.uint64(1)
    if at == start + n:
        room[at] = (topic << bits) | np.uint64(1)
        return n + np.uint64(1)
    room[at] += 1
    return n


@njit(inline="always")
def move(
    room: Cells,
    start: Scalar,
    n: Scalar,
    old: Scalar,
    at: Scalar,
    new: Scalar,
    place: Scalar,
    bits: Scalar,
) -> Scalar:
    """Count a token of the list at `start` for `new` instead of `old`; return the list's length.

    They stood at places `at` and `place`, or nowhere (`n`), when that was looked for; since then
    another token of the document may have been moved. Behind its end a list is zero.
    """
    at = _found(room, start, n, at, old, bits)
    place = _found(room, start, n, place, new, bits)
    if place == n:
        room[start + n] = new << bits
        n += np.uint64(1)
    room[start + place] += 1
    x = np.uint64(room[start + at]) - np.uint64(1)
    room[start + at] = x
    if x & ((np.uint64(1) << bits) - np.uint64(1)) == np.uint64(0):
        n -= np.uint64(1)
        room[start + at] = room[start + n]
        room[start + n] = 0
    return n


@njit(inline="always")
def _found(
    room: Cells, start: Scalar, n: Scalar, place: Scalar, topic: Scalar, bits: Scalar
) -> Scalar:
    """Return the place of a topic in a list of `n` cells, perhaps `place`; `n` if there is none."""
    if place < n and np.uint64(room[start + place]) >> bits == topic:
        return place
    place = np.uint64(0)
    while place < n and np.uint64(room[start + place]) >> bits != topic:
        place += np.uint64(1)
    return place


@njit(inline="always")
def _in_lane(weights: F32, first: Scalar, n: Scalar, lane: Scalar, rest: Scalar) -> Scalar:
    """Return the place in a list of `n` cells at which a lane's sum is above `rest`."""
    # by rounding a draw may end beyond the last weight, of a lane or of all
    lane = min(lane, n - np.uint64(1))
    at = first + lane
    # two at once, for how many there are no processor foresees: what is behind the list's end is
    # no number below zero, and does not count
    s = weights[at]
    number = np.uint64(s <= rest)
    s += weights[at + np.uint64(LANES)]
    number += np.uint64(s <= rest)
    for j in range(np.uint64(2), (n + np.uint64(LANES - 1)) >> np.uint64(BITS)):
        s += weights[at + (j << np.uint64(BITS))]
        number += np.uint64(s <= rest)
    most = (n - np.uint64(1) - lane) >> np.uint64(BITS)
    return (min(number, most) << np.uint64(BITS)) + lane


@njit(inline="always")
def _largest(ptr: I64) -> Scalar:
    """Return the length of the longest piece, at least 1."""
    n = np.int64(1)
    for i in range(np.uint64(ptr.size - 1)):
        n = max(n, ptr[i + np.uint64(1)] - ptr[i])
    return np.uint64(n)


# Python's check of divisors would keep nothing here from being wrong: no divisor can be zero.
@njit(nogil=True, cache=True, error_model="numpy")
def sweep(
    word_ptr: I64,
    docs: NDArray[np.uint32],
    before: NDArray[Any],
    after: NDArray[Any],
    starts: I64,
    sizes: I64,
    room: Cells,
    bits: Scalar,
    row_ptr: I64,
    row_topics: NDArray[np.uint32],
    row_counts: NDArray[np.int32],
    new_ptr: I64,
    new_topics: NDArray[np.uint32],
    new_counts: NDArray[np.int32],
    n_k: I64,
    alpha: F64,
    beta: float,
    v_beta: float,
    seed: Scalar,
) -> Scalar:
    """Draw all topics of a slice anew; return the sum of the tokens' log-probabilities.

    `after`, `sizes`, `room` and `n_k` are changed in place; the new rows, with room for the old
    ones and twice the tokens, are written, topics in any order. See
    `daskps.kernels.lda_gibbs.sweeps`.
    """
    one, K = np.float32(1), np.uint64(n_k.size)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    b = np.float32(beta)
    inv, phi, shared = np.empty(K, np.float32), np.empty(K, np.float32), np.empty(K, np.float64)
    weight = np.empty(K, np.float32)
    common = 0.0  # mass of the smooth part that all words share
    for k in range(K):
        inv[k] = one / np.float32(n_k[k] + v_beta)
        phi[k] = b * inv[k]
        weight[k] = np.float32(alpha[k])
        common += alpha[k] * np.float64(phi[k])
        shared[k] = common
    n_words, width = np.uint64(word_ptr.size - 1), _largest(word_ptr)
    smooth = np.empty(_largest(row_ptr), np.float64)
    olds, news = np.empty(width, np.uint32), np.empty(width, np.uint32)  # of a word's moved tokens
    size = _largest(starts)  # of a list; places for 16 more, see `_in_lane`
    weights, sums = np.zeros(size * CHUNK + LANES, np.float32), np.empty(LANES * CHUNK, np.float32)
    ats, places = np.empty(CHUNK, np.uint64), np.empty(CHUNK, np.uint64)
    less, withouts = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32)
    listed = np.empty(CHUNK, np.float64)  # masses of the first part
    n_w, n_cells = np.zeros(K, np.int32), np.uint64(0)
    new_ptr[0] = 0
    n_tokens = np.uint64(docs.size)
    state = np.uint64(seed)
    powers, product, factors = np.int64(0), 1.0, 0  # of two; the product of masses without them
    for w in range(n_words):
        first, last = np.uint64(word_ptr[w]), np.uint64(word_ptr[w + np.uint64(1)])
        r0, n_row = np.uint64(row_ptr[w]), np.uint64(row_ptr[w + np.uint64(1)] - row_ptr[w])
        own = 0.0  # mass of the smooth part by the word's counts
        for j in range(n_row):
            t = np.uint64(row_topics[r0 + j])
            n_w[t] = row_counts[r0 + j]
            v = np.float32(n_w[t]) * inv[t]
            phi[t] = v + b * inv[t]
            own += np.float64(weight[t] * v)
            smooth[j] = own
        begin, n_moved = first, np.uint64(0)
        while begin < last:
            end = min(begin + np.uint64(CHUNK), last)
            for i in range(begin, end):
                if i + np.uint64(AHEAD) < n_tokens:
                    next_list = np.uint64(starts[docs[i + np.uint64(AHEAD)]])
                    prefetch(room, next_list)
                    prefetch(room, next_list + np.uint64(LANES))
                d, old, t = docs[i], np.uint64(before[i]), i - begin
                start = np.uint64(starts[d])
                blocks = (np.uint64(sizes[d]) + np.uint64(LANES - 1)) >> np.uint64(BITS)
                at = weigh(room, start, old, phi, weights, t * size, blocks, sums, t)
                n_old = np.float32(np.uint64(room[start + at]) & mask)
                whole, step = phi[old], inv[old]
                without = (whole - step) / (one - step)
                less[t] = n_old * whole - (n_old - one) * without
                weights[t * size + at] = (n_old - one) * without
                ats[t], withouts[t] = at, without
            for i in range(begin, end):
                t = i - begin
                listed[t] = np.float64(cumulate(sums, t, ats[t], less[t]))
            for i in range(begin, end):
                d, old, t = docs[i], np.uint64(before[i]), i - begin
                n, whole, without = np.uint64(sizes[d]), phi[old], withouts[t]
                mass = listed[t] + own + common
                while True:
                    state += np.uint64(0x9E3779B97F4A7C15)
                    u = unit(mixed(state)) * mass
                    place = n  # of the new topic in the list, if it was drawn from there
                    if u < listed[t]:
                        lane, rest = lane_of(sums, t, np.float32(u))
                        place = _in_lane(weights, t * size, n, lane, rest)
                        new = np.uint64(room[np.uint64(starts[d]) + place]) >> bits
                        break
                    u -= listed[t]
                    if u < own:
                        new = np.uint64(row_topics[r0 + first_above(smooth, n_row, u)])
                    else:
                        new = first_above(shared, K, u - own)
                    if new != old:
                        break
                    # the sums hold the token itself: what is too much is rejected
                    state += np.uint64(0x9E3779B97F4A7C15)
                    if unit(mixed(state)) * whole < without:
                        break
                after[i], places[t] = new, place
                product *= mass - np.float64(weight[old] * (whole - without))
                factors += 1
                if factors == TOGETHER:
                    product, power = math.frexp(product)
                    powers += power
                    factors = 0
            for i in range(begin, end):
                new, old, t = np.uint64(after[i]), np.uint64(before[i]), i - begin
                if new == old:
                    continue
                olds[n_moved], news[n_moved] = old, new
                n_moved += np.uint64(1)
                phi[old] -= inv[old]
                phi[new] += inv[new]
                n_k[old] -= 1
                n_k[new] += 1
                d = docs[i]
                start, n = np.uint64(starts[d]), np.uint64(sizes[d])
                sizes[d] = move(room, start, n, old, ats[t], new, places[t], bits)
            begin = end
        # topics that the row lacks stand behind it; what nobody has any more is left out
        end = n_cells
        for j in range(n_row):
            new_topics[end] = row_topics[r0 + j]
            end += np.uint64(1)
        for i in range(n_moved):
            new, old = np.uint64(news[i]), np.uint64(olds[i])
            inv[new] = one / np.float32(n_k[new] + v_beta)
            inv[old] = one / np.float32(n_k[old] + v_beta)
            phi[new], phi[old] = b * inv[new], b * inv[old]
            new_topics[end] = old
            end += np.uint64(n_w[old] == 0)
            n_w[old] -= 1
            new_topics[end] = new
            end += np.uint64(n_w[new] == 0)
            n_w[new] += 1
        for j in range(n_cells, end):
            t = np.uint64(new_topics[j])
            phi[t] = b * inv[t]
            new_topics[n_cells], new_counts[n_cells] = t, n_w[t]
            n_cells += np.uint64(n_w[t] != 0)
            n_w[t] = 0  # a topic that was lost and found again comes twice
        new_ptr[w + np.uint64(1)] = n_cells
    return powers * math.log(2.0) + math.log(product)
