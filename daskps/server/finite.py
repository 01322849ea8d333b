"""Pushes that are NaN or infinite are refused before any of their numbers is applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.errors import NonFinitePush
from daskps.server.messages import Push, Want
from daskps.server.short import widened
from daskps.server.tables import Placement

Rows = NDArray[Any]


def checked(msg: Push, placements: Mapping[str, Placement]) -> Push:
    """Return a push with whole numbers for shortened ones; refuse one with NaN or infinity.

    Raises
    ------
    NonFinitePush
        Naming the table, and the row or key.
    """
    msg = widened(msg)
    for want, deltas in zip(msg.wants, msg.deltas, strict=True):
        if all_finite(deltas):
            continue
        row = int(np.flatnonzero(~np.isfinite(deltas).all(axis=(1, 2)))[0])
        where = _describe(want, row, placements[want.table])
        raise NonFinitePush(
            f"push of partition {msg.partition} at clock {msg.clock} has a NaN or infinite "
            f"delta in table {want.table!r}, {where}; it was refused. Use shorter "
            "steps or a larger penalty, scale the features, or look for extreme values in this "
            "partition."
        )
    return msg


def _describe(want: Want, row: int, place: Placement) -> str:
    # without a look-up, which would create the rows of unknown keys
    if place.spec.keys != "range":
        assert want.at is not None, want
        return f"key {int(want.at[row])}"
    sizes = want.sizes or [place.slot_rows(s) for s in range(want.first, want.stop)]
    ends = np.cumsum(sizes)
    i = int(np.searchsorted(ends, row, side="right"))
    at = row - int(ends[i] - sizes[i]) if want.at is None else int(want.at[row])
    return f"row {int(place.slot_keys(want.first + i)[at])}"


def all_finite(x: Rows) -> bool:
    """Return whether no number of `x` is NaN or infinite (integers always are finite)."""
    if x.dtype == np.float32 and x.flags.c_contiguous:
        return not bool(_special(x.reshape(-1).view(np.uint32)))
    return x.dtype.kind in "iub" or bool(np.isfinite(x).all())


@njit(nogil=True, cache=True)
def _special(bits: Any) -> Any:
    # all exponent bits set marks NaN and infinity; without a branch this runs at memory speed
    found = np.uint32(0)
    mask = np.uint32(0x7F800000)
    for i in range(bits.size):
        found |= np.uint32((bits[i] & mask) == mask)
    return found
