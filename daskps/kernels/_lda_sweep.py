"""One Gibbs sweep of latent Dirichlet allocation over the tokens of a slice, word by word.

Arithmetic only; `daskps.kernels.lda_gibbs` is the way in. With
``phi_k = (n_wk + beta) / (n_k + V beta)`` a token of word w in document d takes topic k with
probability proportional to ::

    n_dk phi_k + alpha_k phi_k

all counts without the token itself. The first part has as many terms as the document has topics;
the second is drawn from cumulative sums over the topics that the word has, made once a visit, and
over the part that all words share, made once a sweep. So the cost of a token does not grow with
the number of topics. Tokens are visited by word: ``phi`` is one vector in cache, and of a document
its few topics are read, which stand together.

What is delayed: the second part sees the word's counts as at the beginning of its visit, n_k is
brought up to date between words, and other partitions' tokens count as they were when the rows
were pulled. The first part sees everything that this sweep has changed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.prefetch import prefetch

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Cells = NDArray[Any]
"""(topic << bits) | count, uint32 or uint64."""
Scalar = Any

AHEAD = 12
"""Tokens between asking for a document's topics and visiting them."""
TOGETHER = 8
"""Probabilities that are multiplied before their logarithm is taken."""


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
def remove(room: Cells, start: Scalar, n: Scalar, at: Scalar, bits: Scalar) -> Scalar:
    """Take a token from the cell `at` of the list at `start`; return the list's length."""
    x = np.uint64(room[start + at])
    if x & ((np.uint64(1) << bits) - np.uint64(1)) == np.uint64(1):
        room[start + at] = room[start + n - np.uint64(1)]
        return n - np.uint64(1)
    room[start + at] = x - np.uint64(1)
    return n


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
    n_words = np.uint64(word_ptr.size - 1)
    widest = np.int64(1)
    for w in range(n_words):
        widest = max(widest, row_ptr[w + 1] - row_ptr[w])
    smooth = np.empty(widest, np.float64)
    longest = np.int64(1)
    for d in range(np.uint64(sizes.size)):
        longest = max(longest, starts[d + 1] - starts[d])
    sums = np.empty(longest, np.float32)
    n_w, n_cells = np.zeros(K, np.int32), np.uint64(0)
    new_ptr[0] = 0
    n_tokens = np.uint64(docs.size)
    state = np.uint64(seed)
    total, product, factors = 0.0, 1.0, 0
    for w in range(n_words):
        first, last = np.uint64(word_ptr[w]), np.uint64(word_ptr[w + 1])
        r0, n_row = np.uint64(row_ptr[w]), np.uint64(row_ptr[w + 1] - row_ptr[w])
        own = 0.0  # mass of the smooth part by the word's counts
        for j in range(n_row):
            t = np.uint64(row_topics[r0 + j])
            n_w[t] = row_counts[r0 + j]
            v = np.float32(n_w[t]) * inv[t]
            phi[t] = v + b * inv[t]
            own += np.float64(weight[t] * v)
            smooth[j] = own
        for i in range(first, last):
            if i + np.uint64(AHEAD) < n_tokens:
                next_list = np.uint64(starts[docs[i + np.uint64(AHEAD)]])
                prefetch(room, next_list)
                prefetch(room, next_list + np.uint64(16))
            d, old = docs[i], np.uint64(before[i])
            start, n = np.uint64(starts[d]), np.uint64(sizes[d])
            whole, step = phi[old], inv[old]
            without = (whole - step) / (one - step)
            phi[old] = without
            s: Scalar = np.float32(0)
            at: Scalar = np.uint64(0)
            for j in range(n):
                x = np.uint64(room[start + j])
                t, c = x >> bits, x & mask
                mine = np.uint64(t == old)
                at += mine * np.uint64(j)
                s += np.float32(c - mine) * phi[t]
                sums[j] = s
            mass = np.float64(s) + own + common
            while True:
                state += np.uint64(0x9E3779B97F4A7C15)
                u = unit(mixed(state)) * mass
                place = n  # of the new topic in the list, if it was drawn from there
                if u < s:
                    # all are looked at: where a search ends no processor foresees
                    f = np.float32(u)
                    below: Scalar = np.uint64(0)
                    for j in range(n):
                        below += np.uint64(sums[j] <= f)
                    place = min(below, n - np.uint64(1))
                    new = np.uint64(room[start + place]) >> bits
                    break
                u -= np.float64(s)
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
            product *= mass - np.float64(weight[old] * (whole - without))
            factors += 1
            if factors == TOGETHER:
                total += np.log(product)
                product, factors = 1.0, 0
            after[i] = new
            if new == old:
                phi[old] = whole
                continue
            phi[old] = whole - step
            phi[new] += inv[new]
            n_k[old] -= 1
            n_k[new] += 1
            left = remove(room, start, n, at, bits)
            if place == n:
                sizes[d] = add(room, start, left, new, bits)
                continue
            if place == left:  # the last cell is now where the lost one was
                place = at
            room[start + place] += 1
            sizes[d] = left
        # topics that the row lacks stand behind it; what nobody has any more is left out
        end = n_cells
        for j in range(n_row):
            new_topics[end] = row_topics[r0 + j]
            end += np.uint64(1)
        for i in range(first, last):
            new, old = np.uint64(after[i]), np.uint64(before[i])
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
    return total + np.log(product)
