"""What a message means for each slot: its part of the positions, and of the rows that come or go.

Knows one table at a time, as a shard holds it: slots by number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from daskps.server.gather import Index, Rows
from daskps.server.messages import Want


def parts(table: Mapping[int, Any], want: Want) -> Iterator[tuple[Any, Index, slice]]:
    """Yield each slot with its part of the positions, and which part that is."""
    start = 0
    for i, number in enumerate(range(want.first, want.stop)):
        slot = table[number]
        n = len(slot.rows) if want.sizes is None else want.sizes[i]
        where = slice(start, start + n)
        yield slot, None if want.at is None else want.at[where], where
        start += n


def of_rows(table: Mapping[int, Any], want: Want, rows: Rows) -> Iterator[tuple[Any, Index, Rows]]:
    """Yield each slot with its part of the positions and of the rows.

    Raises
    ------
    ValueError
        At the end, if that are not all rows.
    """
    end = 0
    for slot, at, where in parts(table, want):
        yield slot, at, rows[where]
        end = where.stop
    _check(want, rows, end)


def pull(table: Mapping[int, Any], want: Want, T: float, out: Rows) -> None:
    """Copy what a worker needs of the rows of a want into `out`, shape (k, n_pull, width).

    Raises
    ------
    ValueError
        If that is not the shape of `out`.
    """
    updater = table[want.first].spec.updater
    if want.at is None and updater.n_pull == updater.n_fields:
        # all numbers of all rows: one copy, which takes less time than looking at every slot
        whole = [table[s].rows for s in range(want.first, want.stop)]
        _check(want, out, sum(map(len, whole)))
        np.concatenate(whole, out=out)
        return
    for slot, at, part in of_rows(table, want, out):
        slot.pull(slot.locate(at, create=False), T, part, at)


def _check(want: Want, rows: Rows, expected: int) -> None:
    if len(rows) != expected:
        raise ValueError(
            f"{len(rows)} rows came for slots {want.first} to {want.stop} of table "
            f"{want.table!r}, expected {expected}; the key set was built for another table."
        )
