"""The loops that find the distinct keys of a partition, in slot order, and number its indices.

Two ways to the same result. `by_map` marks rows in a map of the whole table: fast while it fits
into the processor's caches. `by_hashing` deals the indices to slots and finds the distinct ones of
each slot in a small hash table: memory and time do not depend on the table. Owns no placement.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.server._hashing import FREE, capacity_for, mix64

Found = tuple[NDArray[np.int64], NDArray[Any], NDArray[np.uint32]]
"""Bounds of the slots, distinct keys ascending in each slot, position of each index."""


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view: numba compiles for it once, whether or not the owner may write."""
    view = array.view()
    view.flags.writeable = False
    return view


@njit(nogil=True, cache=True, inline="always")
def _slot_of(key: Any, hashed: bool, block: int, n_slots: int) -> Any:
    k = np.uint64(key)
    if hashed:
        return mix64(k) % np.uint64(n_slots)
    return (k // np.uint64(block)) % np.uint64(n_slots)


@njit(nogil=True, cache=True)
def by_hashing(indices: Any, hashed: bool, block: int, n_slots: int) -> Any:
    """Return what `Found` says, in memory that is a multiple of `indices`."""
    n = indices.size
    slots = np.empty(n, np.uint16)
    starts = np.zeros(n_slots + 1, np.int64)
    for i in range(n):
        s = _slot_of(indices[i], hashed, block, n_slots)
        slots[i] = s
        starts[s + np.uint64(1)] += 1
    for s in range(n_slots):
        starts[s + 1] += starts[s]
    order = np.empty(n, np.uint32)  # the indices of each slot, dealt like cards
    fill = starts.copy()
    for i in range(n):
        s = np.int64(slots[i])
        order[fill[s]] = i
        fill[s] += 1
    local = np.empty(n, np.uint32)
    bounds = np.zeros(n_slots + 1, np.int64)
    parts = []
    for s in range(n_slots):
        part = _distinct(indices, order[starts[s] : starts[s + 1]], bounds[s], local)
        bounds[s + 1] = bounds[s] + part.size
        parts.append(part)
    keys = np.empty(bounds[n_slots], indices.dtype)
    for s in range(n_slots):
        keys[bounds[s] : bounds[s + 1]] = parts[s]
    return bounds, keys, local


@njit(nogil=True, cache=True)
def _distinct(indices: Any, which: Any, first: int, local: Any) -> Any:
    """Return the distinct keys among indices[which], ascending; number them from `first`."""
    table = np.full(capacity_for(which.size), FREE, np.uint32)
    mask = np.uint64(table.size - 1)
    found = np.empty(which.size, indices.dtype)
    m = 0
    for j in range(which.size):
        key = indices[which[j]]
        # the low bits chose the slot: the high ones are still even
        h = (mix64(np.uint64(key)) >> np.uint64(20)) & mask
        while table[h] != FREE and found[table[h]] != key:
            h = (h + np.uint64(1)) & mask
        if table[h] == FREE:
            table[h] = m
            found[m] = key
            m += 1
        local[which[j]] = table[h]
    by_key = np.argsort(found[:m])
    rank = np.empty(m, np.uint32)
    for r in range(m):
        rank[by_key[r]] = first + r
    for j in range(which.size):
        local[which[j]] = rank[local[which[j]]]
    return found[by_key]


@njit(nogil=True, cache=True)
def by_map(indices: Any, n_rows: int, hashed: bool, block: int, n_slots: int) -> Any:
    """Return what `Found` says, through a map of all rows of a range table."""
    place = np.zeros(n_rows, np.uint32)
    for i in range(indices.size):
        place[indices[i]] = 1
    bounds = np.zeros(n_slots + 1, np.int64)
    for start in range(0, n_rows, block):  # a block at a time: its rows share a slot
        s = (start // block) % n_slots
        count = 0
        for r in range(start, min(start + block, n_rows)):
            count += place[r]
        bounds[s + 1] += count
    for s in range(n_slots):
        bounds[s + 1] += bounds[s]
    keys = np.empty(bounds[n_slots], indices.dtype)
    fill = bounds[:-1].copy()
    for start in range(0, n_rows, block):
        s = (start // block) % n_slots
        at = fill[s]
        for r in range(start, min(start + block, n_rows)):
            if place[r]:
                place[r] = at
                keys[at] = r
                at += 1
        fill[s] = at
    local = np.empty(indices.size, np.uint32)
    for i in range(indices.size):
        local[i] = place[indices[i]]
    return bounds, keys, local


@njit(nogil=True, cache=True)
def all_rows(indices: Any, bounds: Any, block: int, n_slots: int, local: Any) -> None:
    """Give each index its place when all rows of a range table stand in slot order."""
    width = np.uint64(block)
    slots = np.uint64(n_slots)
    for i in range(indices.size):
        turn, offset = divmod(np.uint64(indices[i]), width)
        round_, slot = divmod(turn, slots)
        local[i] = np.uint64(bounds[slot]) + round_ * width + offset
