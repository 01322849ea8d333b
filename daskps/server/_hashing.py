"""Mixing of 64-bit keys, and hash tables of row numbers over an array of keys.

The tables are open-addressing ones with linear probing (Knuth, volume 3, section 6.4): a power of
two of uint32 row numbers, whose keys stand in the array beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

FREE = np.uint32(0xFFFFFFFF)
"""No row: an empty place of a hash table, or a key that it has not."""


def mix(x: Any) -> Any:
    """Scramble an array of uint64 (splitmix64 finaliser, Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


mix64 = njit(nogil=True, inline="always")(mix)
"""The same for one number, in compiled code."""


@njit(nogil=True, cache=True)
def capacity_for(n: int) -> int:
    """Return the places of a table for `n` keys: a power of two, at most two thirds full."""
    capacity = 16
    while 2 * capacity < 3 * n:
        capacity *= 2
    return capacity
