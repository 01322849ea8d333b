"""Which rows of a slot have been written to since they began: a bit each, until they are many.

A cut needs no other rows, as long as all of a table begin alike. Knows no updater and no cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from daskps.server._rows import frozen
from daskps.server.gather import Index, Rows, flat

LEAST = 4096
"""Rows from which on it is worth while to tell them apart; one more file for fewer is not."""

MANY = 3
"""Rows that have changed count as all once they are one in so many: positions take room, too."""


class Changed:
    """The rows that have changed; not thread-safe.

    Parameters
    ----------
    n_rows
        Rows of the slot; 0 if they are not to be told apart.
    """

    def __init__(self, n_rows: int) -> None:
        self._bits: NDArray[np.uint64] | None = None
        if n_rows >= LEAST:
            self._bits = np.zeros(-(-n_rows // 64), np.uint64)
        self._n, self._few = 0, n_rows // MANY
        self._found: NDArray[np.uint32] = np.empty(0, np.uint32)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return 0 if self._bits is None else int(self._bits.nbytes + self._found.nbytes)

    @property
    def few(self) -> bool:
        """Whether `positions` tells which rows have changed; else it may be any."""
        return self._bits is not None

    def note(self, idx: Index) -> None:
        """Take note that rows `idx` are about to change; None for all."""
        if self._bits is not None and idx is not None:
            self._add(int(_mark(self._bits, frozen(idx))))
        else:
            self._forget()

    def compare(self, rows: Rows, start: Rows) -> None:
        """Take note of those of `rows` that are not, to the bit, as the only one in `start`."""
        if self._bits is not None:
            bits = f"u{rows.dtype.itemsize}"  # floats hold that 0 is -0, and that nan is no nan
            now, then = flat(rows).view(bits), flat(start).view(bits)[0]
            self._add(int(_mark_others(frozen(now), frozen(then), self._bits)))

    def _add(self, n: int) -> None:
        self._n += n
        if self._n > self._few:
            self._forget()

    def _forget(self) -> None:
        self._bits, self._found = None, self._found[:0].copy()

    def positions(self) -> NDArray[np.uint32]:
        """Return the rows that have changed, ascending, if they are `few`: not to be written."""
        assert self._bits is not None
        if len(self._found) < self._n:  # from the second pass on few or none are new
            self._found = np.empty(self._n, np.uint32)
            _find(self._bits, self._found)
        return self._found


def _lowest(typing_context: Any, word: Any) -> Any:
    """Return the number of the lowest bit that is set in `word`, which is not 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.uint64(types.uint64), codegen


_lowest_bit: Any = intrinsic(_lowest)


@njit(nogil=True, cache=True)
def _mark(bits: Any, idx: Any) -> Any:
    """Set the bits of rows `idx`; return how many were not."""
    before = np.uint64(0)
    for k in range(idx.size):
        i = np.uint64(idx[k])
        word, bit = i >> np.uint64(6), i & np.uint64(63)
        before += (bits[word] >> bit) & np.uint64(1)
        bits[word] |= np.uint64(1) << bit
    return idx.size - np.int64(before)


@njit(nogil=True, cache=True)
def _mark_others(rows: Any, start: Any, bits: Any) -> int:
    """Set the bits of `rows` (m, n) that are not `start` (n,), of none before; return how many."""
    found = 0
    for i in range(rows.shape[0]):
        other = False
        for f in range(rows.shape[1]):
            other |= rows[i, f] != start[f]
        if other:
            bits[np.uint64(i) >> np.uint64(6)] |= np.uint64(1) << (np.uint64(i) & np.uint64(63))
            found += 1
    return found


@njit(nogil=True, cache=True)
def _find(bits: Any, out: Any) -> None:
    """Fill `out` with the numbers of the bits that are set."""
    n = 0
    for w in range(bits.size):
        word, first = bits[w], np.uint32(64 * w)
        while word:
            out[n] = first + np.uint32(_lowest_bit(word))
            word &= word - np.uint64(1)
            n += 1
