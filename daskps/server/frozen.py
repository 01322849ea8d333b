"""What a shard holds still of its tables for as long as somebody needs it; whose memory that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.server.gather import Rows

Frozen = dict[str, dict[int, tuple[NDArray[Any] | None, Rows]]]
"""Of each slot of each table: keys, or positions where only few rows have changed, or None; rows.

Rows that are not there are as they begin.
"""


def cut_of(slots: Mapping[int, Any]) -> dict[int, tuple[NDArray[Any] | None, Rows]]:
    """Return what a cut needs of the slots of a table.

    Where few rows have changed it is copies of these, so that no update has to make one of all.
    """
    few = {s: at for s, slot in slots.items() if (at := slot.changed()) is not None}
    found, end = {}, 0
    # one piece of memory, which comes in large pages: small ones would take as long as the copies
    like = next((slots[s].rows for s in few), np.empty((0, 0)))
    room = np.empty((sum(map(len, few.values())), *like.shape[1:]), like.dtype)
    for s, slot in slots.items():
        if s not in few:
            found[s] = slot.freeze()
            continue
        start, end = end, end + len(few[s])
        slot.copy(few[s], room[start:end])
        found[s] = few[s], room[start:end]
    return found


def nbytes_beside(cuts: Iterable[Frozen], slots: Iterable[Any]) -> int:
    """Return the bytes of the rows of `cuts`, without those which they share with `slots`."""
    # by address: rows of a hash table that were appended to are another view of the same
    live = {slot.rows.ctypes.data for slot in slots if slot.rows.nbytes}
    rows = (rows for cut in cuts for table in cut.values() for _, rows in table.values())
    held = {r.ctypes.data: int(r.nbytes) for r in rows if r.nbytes}
    return sum(n for address, n in held.items() if address not in live)
