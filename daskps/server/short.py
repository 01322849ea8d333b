"""Pushes of half the bytes: the upper halves of float32 numbers, bfloat16.

The range is that of float32, so that neither the sums of squares of frequent features nor the
steps of rare ones leave it, as those of float16 would; 8 bits of a number's digits are kept. Who
shortens keeps what was cut off and sends it with the next push.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskps.server.messages import Push


def shorten(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the nearest bfloat16 of each number, ties to even; NaN and infinity stay."""
    out = np.empty(x.shape, np.uint16)
    _shorten(np.ascontiguousarray(x).reshape(-1).view(np.uint32), out.reshape(-1))
    return out


def widen(x: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the numbers that shortened ones stand for."""
    return (x.astype(np.uint32) << np.uint32(16)).view(np.float32)


def widened(msg: Push) -> Push:
    """Return a push with float32 numbers for shortened ones, which no other rule's pushes are."""
    if all(d.dtype != np.uint16 for d in msg.deltas):
        return msg
    return replace(msg, deltas=[widen(d) if d.dtype == np.uint16 else d for d in msg.deltas])


@njit(nogil=True, cache=True)
def _shorten(bits: Any, out: Any) -> None:
    special, half = np.uint32(0x7F800000), np.uint32(0x7FFF)
    for i in range(bits.size):
        b = bits[i]
        if b & special == special:
            quiet = np.uint32(0x40) if b & np.uint32(0x7FFFFF) else np.uint32(0)
            out[i] = (b >> np.uint32(16)) | quiet
        else:
            out[i] = (b + half + ((b >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
