"""Bookkeeping around a sweep: documents' topics, the word rows' changes, likelihoods.

Arithmetic only; `daskps.kernels.lda` is the way in. The topics of a document are cells,
``(topic << bits) | count``: packed one document after the other between sweeps, and in a sweep in
a room where every document has as many places as it can need.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.kernels._lda_sweep import F64, I64, Cells, Scalar, add, mixed

FEW = 32
"""Up to this many numbers are sorted by insertion."""
MAX_TABLE = 4096
"""Counts from this one on get their log-gamma by itself, smaller ones from a table."""


@njit(nogil=True, cache=True)
def unpack(ptr: I64, cells: Cells, starts: I64, sizes: I64, room: Cells) -> None:
    """Spread packed cells over the room."""
    for d in range(sizes.size):
        n = ptr[d + 1] - ptr[d]
        sizes[d] = n
        room[starts[d] : starts[d] + n] = cells[ptr[d] : ptr[d + 1]]


@njit(nogil=True, cache=True)
def pack(starts: I64, sizes: I64, room: Cells, ptr: I64, cells: Cells) -> None:
    """Put the cells in use one after the other; `ptr` gives where."""
    for d in range(sizes.size):
        cells[ptr[d] : ptr[d + 1]] = room[starts[d] : starts[d] + sizes[d]]


@njit(nogil=True, cache=True)
def scatter(
    docs: NDArray[np.uint32],
    topics: NDArray[Any],
    K: Scalar,
    seed: Scalar,
    starts: I64,
    sizes: I64,
    room: Cells,
    bits: Scalar,
) -> None:
    """Give every token a uniformly drawn topic, and count it in its document."""
    state = np.uint64(seed)
    for i in range(np.uint64(docs.size)):
        state += np.uint64(0x9E3779B97F4A7C15)
        topic = ((mixed(state) >> np.uint64(32)) * np.uint64(K)) >> np.uint64(32)
        topics[i] = topic
        d = docs[i]
        sizes[d] = add(room, np.uint64(starts[d]), np.uint64(sizes[d]), topic, bits)


@njit(nogil=True, cache=True)
def group(
    docs: NDArray[np.uint32],
    words: NDArray[np.uint32],
    counts: NDArray[np.int32],
    word_ptr: I64,
    out: NDArray[np.uint32],
) -> None:
    """Put the documents of counted words in order of words, one for each token.

    Of a word come all documents that have it, then those that have it twice, and so on: a sweep
    does not like to meet the same document again at once. `word_ptr` (words + 1) holds zeros, `out`
    has room for the sum of counts.
    """
    starts = np.zeros(word_ptr.size, np.int64)
    for i in range(np.uint64(words.size)):
        word_ptr[words[i] + np.uint64(1)] += counts[i]
        starts[words[i] + np.uint64(1)] += 1
    for w in range(word_ptr.size - 1):
        word_ptr[w + 1] += word_ptr[w]
        starts[w + 1] += starts[w]
    fill = starts.copy()
    some, left = np.empty(words.size, np.uint32), np.empty(words.size, np.int32)
    for i in range(np.uint64(words.size)):
        at = fill[words[i]]
        some[at], left[at] = docs[i], counts[i]
        fill[words[i]] = at + 1
    for w in range(word_ptr.size - 1):
        at, first, stop = word_ptr[w], starts[w], starts[w + 1]
        while stop > first:
            kept = first
            for j in range(first, stop):
                d, more = some[j], left[j] - 1
                out[at] = d
                at += 1
                some[kept], left[kept] = d, more
                kept += more > 0
            stop = kept


@njit(inline="always")
def _sort(x: I64, n: Scalar) -> None:
    if n > FEW:
        x[:n].sort()
        return
    for i in range(1, n):
        value, j = x[i], i
        while j > 0 and x[j - 1] > value:
            x[j] = x[j - 1]
            j -= 1
        x[j] = value


@njit(nogil=True, cache=True)
def changes(
    word_ptr: I64,
    before: NDArray[Any],
    after: NDArray[Any],
    fresh: bool,
    K: Scalar,
    ptr: I64,
    topics: NDArray[np.uint32],
    deltas: NDArray[np.int32],
    total: I64,
) -> Scalar:
    """Fill in by how much the counts of each word changed; return the number of entries.

    `ptr` (words + 1), `topics` and `deltas` (room for all) are rows, topics ascending; `total` (K,)
    is added to. With `fresh` nothing was counted before.
    """
    count, touched = np.zeros(K, np.int32), np.empty(K, np.int64)
    n = 0
    ptr[0] = 0
    for w in range(word_ptr.size - 1):
        m = 0
        for i in range(np.uint64(word_ptr[w]), np.uint64(word_ptr[w + 1])):
            new = np.int64(after[i])
            if not fresh:
                old = np.int64(before[i])
                if old == new:
                    continue
                # a topic whose changes cancel may come twice: the second time nothing is left
                if count[old] == 0 and m < K:
                    touched[m] = old
                    m += 1
                count[old] -= 1
            if count[new] == 0 and m < K:
                touched[m] = new
                m += 1
            count[new] += 1
        if m == K:  # or more: look at all
            for k in range(K):
                touched[k] = k
        else:
            _sort(touched, m)
        for j in range(m):
            k = touched[j]
            if count[k] != 0:
                topics[n], deltas[n] = k, count[k]
                total[k] += count[k]
                count[k] = 0
                n += 1
        ptr[w + 1] = n
    return n


@njit(nogil=True, cache=True)
def difference(
    ptr: I64,
    topics: NDArray[np.uint32],
    counts: NDArray[np.int32],
    new_ptr: I64,
    new_topics: NDArray[np.uint32],
    new_counts: NDArray[np.int32],
    K: Scalar,
    out_ptr: I64,
    out_topics: NDArray[np.uint32],
    out: NDArray[np.int32],
) -> Scalar:
    """Fill in new rows minus old ones, topics ascending; return the number of entries.

    No row has a topic twice, or a count of zero.
    """
    count, touched = np.zeros(K, np.int32), np.empty(K, np.int64)
    n = 0
    out_ptr[0] = 0
    for w in range(np.uint64(ptr.size - 1)):
        m = 0
        for i in range(np.uint64(ptr[w]), np.uint64(ptr[w + np.uint64(1)])):
            touched[m] = topics[i]
            count[topics[i]] = -counts[i]
            m += 1
        for i in range(np.uint64(new_ptr[w]), np.uint64(new_ptr[w + np.uint64(1)])):
            if count[new_topics[i]] == 0:
                touched[m] = new_topics[i]
                m += 1
            count[new_topics[i]] += new_counts[i]
        moved = 0
        for j in range(m):
            k = touched[j]
            touched[moved] = k
            moved += count[k] != 0
        _sort(touched, moved)
        for j in range(moved):
            k = touched[j]
            out_topics[n], out[n] = k, count[k]
            count[k] = 0
            n += 1
        out_ptr[w + np.uint64(1)] = n
    return n


@njit(nogil=True, cache=True)
def totals(topics: NDArray[np.uint32], counts: NDArray[np.int32], out: I64) -> None:
    """Add the counts of each topic to `out` (K,)."""
    for i in range(np.uint64(topics.size)):
        out[topics[i]] += counts[i]


@njit(nogil=True, cache=True)
def keys(
    words: NDArray[np.uint64],
    ptr: I64,
    topics: NDArray[np.uint32],
    K: Scalar,
    out: NDArray[np.uint64],
) -> None:
    """Fill `out` with ``word x K + topic`` of the entries of rows."""
    for w in range(np.uint64(words.size)):
        first = words[w] * np.uint64(K)
        for i in range(np.uint64(ptr[w]), np.uint64(ptr[w + np.uint64(1)])):
            out[i] = first + np.uint64(topics[i])


@njit(nogil=True, cache=True)
def document_likelihood(ptr: I64, cells: Cells, bits: Scalar, alpha: F64) -> Scalar:
    """Return log p(z | alpha) of packed documents (Griffiths and Steyvers 2004, equation 3)."""
    mask = (np.uint64(1) << bits) - np.uint64(1)
    K, whole = alpha.size, alpha.sum()
    base = np.empty(K)
    for j in range(K):
        base[j] = math.lgamma(alpha[j])
    table = np.empty(MAX_TABLE)
    even = alpha.min() == alpha.max()
    for n in range(MAX_TABLE if even else 0):
        table[n] = math.lgamma(n + alpha[0])
    total = 0.0
    for d in range(ptr.size - 1):
        length: Scalar = 0
        for i in range(ptr[d], ptr[d + 1]):
            x = np.uint64(cells[i])
            k, c = np.int64(x >> bits), np.int64(x & mask)
            length += c
            total += table[c] if even and c < MAX_TABLE else math.lgamma(c + alpha[k])
            total -= base[k]
        total += math.lgamma(whole) - math.lgamma(length + whole)
    return total
