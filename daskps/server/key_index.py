"""Row numbers of 64-bit keys: an open-addressing hash table in compiled code.

Owns the keys of one slot of a hash table, in the order in which they came. No Python object a key.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.server._hashing import FREE, capacity_for, mix64

REMEMBERED = 2
"""Bytes of numbers that are remembered, as a multiple of the bytes of the keys."""


class KeyIndex:
    """Numbers keys from 0 as they come; a key keeps its number.

    The same keys are asked for in every pass, so the numbers of whole requests are remembered as
    long as there is room: keys need no look-up then, only a digest.

    Parameters
    ----------
    keys
        Keys to begin with, distinct, in the order of their numbers.
    """

    def __init__(self, keys: NDArray[np.uint64] | None = None) -> None:
        given = np.empty(0, np.uint64) if keys is None else keys
        self._n = 0
        self._keys = np.empty(0, np.uint64)
        self._table = np.full(capacity_for(0), FREE, np.uint32)
        self._requests: dict[bytes, NDArray[np.uint32]] = {}
        self._remembered = 0
        self._make_room(len(given))
        self._number(_frozen(given), np.full(len(given), FREE, np.uint32))

    def __len__(self) -> int:
        """Return the number of keys."""
        return self._n

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self._keys.nbytes) + int(self._table.nbytes) + self._remembered

    @property
    def keys(self) -> NDArray[np.uint64]:
        """All keys by their numbers; what this returns never changes."""
        return self._keys[: self._n]

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Return the number of each key, `FREE` for those that are not there."""
        return self._known(_digest(keys), keys)[0]

    def find_or_add(self, keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Return the number of each key, after giving new ones to those that were not there."""
        digest = _digest(keys)
        numbers, missing = self._known(digest, keys)
        if missing:
            self._make_room(self._n + missing)
            self._number(_frozen(keys), numbers)
            self._remember(digest, numbers)
        return numbers

    def _known(self, digest: bytes, keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], int]:
        if (remembered := self._requests.get(digest)) is not None:
            return remembered, 0
        numbers = np.empty(len(keys), np.uint32)
        missing = int(_find(self._table, self._keys, _frozen(keys), numbers))
        if not missing:
            self._remember(digest, numbers)
        return numbers, missing

    def _remember(self, digest: bytes, numbers: NDArray[np.uint32]) -> None:
        # the oldest stay: requests come in cycles, which would push out each just before its turn
        if self._remembered + numbers.nbytes <= REMEMBERED * self.keys.nbytes:
            self._requests[digest] = numbers
            self._remembered += int(numbers.nbytes)

    def _make_room(self, n: int) -> None:
        if n > len(self._keys):
            assert n < FREE, n
            grown = np.empty(roomy(n, len(self._keys)), np.uint64)
            grown[: self._n] = self.keys
            self._keys = grown
        if 3 * n > 2 * len(self._table):
            self._table = np.full(capacity_for(n), FREE, np.uint32)
            _enter(self._table, self._keys, self._n)

    def _number(self, keys: NDArray[np.uint64], numbers: NDArray[np.uint32]) -> None:
        self._n = int(_add(self._table, self._keys, self._n, keys, numbers))


def roomy(n: int, before: int) -> int:
    """Return for how many entries to make room, so that growing by ones costs little a time."""
    return n if before == 0 else max(n, before + before // 2)


def _digest(keys: NDArray[np.uint64]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(keys).data, digest_size=16).digest()


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view: numba compiles for it once, whether or not the owner may write."""
    view = array.view()
    view.flags.writeable = False
    return view


@njit(nogil=True, cache=True, inline="always")
def _place(table: Any, held: Any, key: Any) -> Any:
    """Return where `key` stands in the table, or the free place where it would."""
    mask = np.uint64(table.size - 1)
    # the low bits of the mixed key have chosen the slot: all keys here share what they say
    h = (mix64(key) >> np.uint64(20)) & mask
    while table[h] != FREE and held[table[h]] != key:
        h = (h + np.uint64(1)) & mask
    return h


@njit(nogil=True, cache=True)
def _find(table: Any, held: Any, keys: Any, numbers: Any) -> int:
    missing = 0
    for i in range(keys.size):
        numbers[i] = table[_place(table, held, keys[i])]
        missing += numbers[i] == FREE
    return missing


@njit(nogil=True, cache=True)
def _add(table: Any, held: Any, n: int, keys: Any, numbers: Any) -> int:
    for i in range(keys.size):
        if numbers[i] == FREE:
            h = _place(table, held, keys[i])
            if table[h] == FREE:  # else the same key came twice
                table[h] = n
                held[n] = keys[i]
                n += 1
            numbers[i] = table[h]
    return n


@njit(nogil=True, cache=True)
def _enter(table: Any, held: Any, n: int) -> None:
    for row in range(n):
        table[_place(table, held, held[row])] = row
