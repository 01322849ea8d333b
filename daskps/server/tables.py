"""What a table is, and which slot and position each of its keys has.

Owns the pure arithmetic of placement inside a table; which shard holds a slot is `layout`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from daskps.server._hashing import mix
from daskps.server.updaters import Add, AnyUpdater

BLOCK_MIN, BLOCK_MAX = 8, 4096
"""Shortest and longest run of neighbouring rows in one slot (rows); long runs copy fast."""


class Init(msgspec.Struct, frozen=True, tag=True):
    """Initial value of every number of a row.

    A row's value is a function of (`seed`, key) alone, so it does not depend on when, where or in
    which company the row is first touched; tables that shall differ need seeds that do.
    """

    kind: Literal["constant", "normal", "uniform"] = "constant"
    """``normal``: mean 0, standard deviation `scale`; ``uniform``: in [-scale, scale)."""
    scale: float = 0.0
    """The constant itself, the standard deviation, or the half width."""
    seed: int = 0

    def values(self, keys: NDArray[Any], width: int) -> NDArray[np.float64]:
        """Return the initial values of `keys`, shape (len(keys), width)."""
        if self.kind == "constant":
            return np.full((len(keys), width), self.scale, np.float64)
        first = keys.astype(np.uint64)[:, None] * np.uint64(width)
        cell = first + np.arange(width, dtype=np.uint64)
        # streams count from 1: 0 is what the mixer maps to itself
        u = _unit(mix(cell + self._stream(1)))
        if self.kind == "uniform":
            return self.scale * (2.0 * u - 1.0)
        v = _unit(mix(cell + self._stream(2)))
        # Box and Muller (1958), eq. 1
        return self.scale * np.sqrt(-2.0 * np.log1p(-u)) * np.cos(2.0 * np.pi * v)

    def _stream(self, number: int) -> NDArray[np.uint64]:
        mixed: NDArray[np.uint64] = mix(np.array([2 * self.seed + number], np.uint64))
        return mixed


class TableSpec(msgspec.Struct, frozen=True, tag=True):
    """A named parameter array.

    Parameters
    ----------
    name
        Unique among the tables of a run.
    n_rows
        Rows of a ``range`` table, keys 0 .. n_rows - 1, or of one of ``cells``; 0 for ``hash``
        tables, which grow.
    width
        Numbers a key.
    updater
        The rule that a shard applies to a push; it also fixes the dtype.
    keys
        ``range``, or ``hash``: any 64-bit key, created on first touch; or ``cells``: rows of
        `columns` numbers of which only those are kept that are not zero, under the key
        ``row x columns + column``. All cells of a row share a slot.
    init
        Initial values.
    columns
        Of a table of cells; 0 for others.
    """

    name: str
    n_rows: int
    width: int
    updater: AnyUpdater
    keys: Literal["range", "hash", "cells"] = "range"
    init: Init = Init()
    columns: int = 0

    def __post_init__(self) -> None:
        """Refuse shapes that no shard could hold."""
        cells = self.keys == "cells"
        if cells and (self.width, self.init, type(self.updater)) != (1, Init(), Add):
            raise ValueError(
                f"table {self.name!r} of cells has width={self.width}, {self.init} and "
                f"{self.updater}; expected width=1, no init and the updater Add."
            )
        if cells != (self.columns > 0) or self.n_rows * self.columns >= 2**63:
            raise ValueError(
                f"table {self.name!r} has keys={self.keys!r} and {self.n_rows} rows of "
                f"columns={self.columns}; tables of cells need columns, at most 2**63 cells, and "
                "others have none."
            )
        if self.width < 1 or self.n_rows < 0 or (self.keys == "hash") != (self.n_rows == 0):
            raise ValueError(
                f"table {self.name!r} has n_rows={self.n_rows}, width={self.width}, "
                f"keys={self.keys!r}; width must be at least 1, a hash table needs n_rows=0 and "
                "others n_rows >= 1."
            )


def _unit(x: NDArray[np.uint64]) -> NDArray[np.float64]:
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Placement:
    """Slots and positions of a table's keys.

    A ``range`` table is block-cyclic: neighbouring rows share a slot in runs of `block` rows, and
    runs go round the slots, so that a hot head does not fall on one shard.
    """

    def __init__(self, spec: TableSpec, n_slots: int) -> None:
        self.spec = spec
        self.n_slots = n_slots
        # a power of two, about four runs a slot where there are rows enough
        run = max(1, spec.n_rows // (4 * n_slots))
        self.block = min(max(1 << (run.bit_length() - 1), BLOCK_MIN), BLOCK_MAX)
        hashed = spec.keys == "hash"
        self.n_used = n_slots if hashed else min(n_slots, -(-spec.n_rows // self.block))
        """Slots from this one on hold no row of this table."""

    @property
    def division(self) -> tuple[bool, int, int]:
        """What the slot of a key follows from: whether keys are hashed, block and slots."""
        return self.spec.keys == "hash", self.block, self.n_slots

    def used(self, slots: Sequence[int]) -> list[int]:
        """Return those of `slots` that can hold rows of this table."""
        return [s for s in slots if s < self.n_used]

    def slots(self, keys: NDArray[Any]) -> NDArray[np.int64]:
        """Return the slot of each key, shape (k,)."""
        if self.spec.keys == "hash":
            mixed: NDArray[np.uint64] = mix(keys.astype(np.uint64))
            return (mixed % np.uint64(self.n_slots)).astype(np.int64)
        return (keys.astype(np.int64) // self.block) % self.n_slots

    def positions(self, keys: NDArray[Any]) -> NDArray[np.uint32]:
        """Return the position inside its slot of each key of a range table, shape (k,)."""
        turns = keys // keys.dtype.type(self.block * self.n_slots)
        at: NDArray[np.uint32] = turns.astype(np.uint32) * np.uint32(self.block)
        at += (keys % keys.dtype.type(self.block)).astype(np.uint32)
        return at

    def slot_rows(self, slot: int) -> int:
        """Return how many rows of a range table `slot` holds."""
        turn = self.block * self.n_slots
        full, rest = divmod(self.spec.n_rows, turn)
        return full * self.block + min(max(rest - slot * self.block, 0), self.block)

    def slot_keys(self, slot: int) -> NDArray[np.int64]:
        """Return the keys of a range table that `slot` holds, in order of position."""
        pos = np.arange(self.slot_rows(slot), dtype=np.int64)
        turns, offset = np.divmod(pos, self.block)
        return turns * (self.block * self.n_slots) + slot * self.block + offset

    def scatter(self, slot: int, rows: NDArray[Any], table: NDArray[Any]) -> None:
        """Copy the rows of `slot` to where they stand in a range table, shape (n_rows, ...)."""
        for whole, part in self._runs(slot, table, rows):
            whole[:] = part

    def gather(self, slot: int, table: NDArray[Any]) -> NDArray[Any]:
        """Return the rows of a range table that `slot` holds, in order of position."""
        rows = np.empty((self.slot_rows(slot), *table.shape[1:]), table.dtype)
        for whole, part in self._runs(slot, table, rows):
            part[:] = whole
        return rows

    def _runs(
        self, slot: int, table: NDArray[Any], rows: NDArray[Any]
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield views of the same rows in the table and in the slot; no keys are made."""
        turn = self.block * self.n_slots
        full = self.spec.n_rows // turn
        n, more = full * self.block, table.shape[1:]
        turns = table[: full * turn].reshape(full, self.n_slots, self.block, *more)
        yield turns[:, slot], rows[:n].reshape(full, self.block, *more)
        start = full * turn + slot * self.block
        yield table[start : start + len(rows) - n], rows[n:]

    def bounds(self) -> NDArray[np.int64]:
        """Return where each slot starts when all rows stand in slot order, shape (n_slots + 1,)."""
        sizes = [self.slot_rows(s) for s in range(self.n_slots)]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
