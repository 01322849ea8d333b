"""What a shard holds still of its tables for as long as somebody needs it; whose memory that is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from daskps.server.gather import Rows

Frozen = dict[str, dict[int, tuple[NDArray[Any] | None, Rows]]]
"""Of each slot of each table: keys, or positions where only few rows have changed, or None; rows.

Rows that are not there are as they begin.
"""


def nbytes_beside(cuts: Iterable[Frozen], slots: Iterable[Any]) -> int:
    """Return the bytes that `cuts` take, without those which they share with `slots`."""
    # by address: rows of a hash table that were appended to are another view of the same
    live = {a.ctypes.data for slot in slots for a in (slot.keys, slot.rows) if a is not None}
    arrays = (a for cut in cuts for table in cut.values() for pair in table.values() for a in pair)
    held = {a.ctypes.data: int(a.nbytes) for a in arrays if a is not None}
    return sum(n for address, n in held.items() if address not in live)
