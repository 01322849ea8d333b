"""Memory that tasks of one thread use again and again.

Fresh arrays of several MB cost a page fault for every 4 KiB, which here takes longer than filling
them; the pulls, working states and pushes of one task are as large as those of the next.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from daskps.server.recent import Recent
from daskps.server.together import Together

LINE = 64
"""Bytes of a line of the processor's cache; arrays begin where one does."""


class Buffers:
    """Scratch memory of a process, by thread and purpose."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, str], NDArray[np.uint8]] = {}
        self.recent = Recent()
        """Which of it holds what tasks pulled last."""
        self.together = Together()
        """What tasks of one clock read once for all."""

    def take(self, purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array with arbitrary content.

        It is valid until the same thread takes another for the same purpose.
        """
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        key = (threading.get_ident(), purpose)
        held = self._held.get(key)
        # much smaller needs get memory of their own, so that one large task does not keep it
        if held is None or not size <= held.nbytes <= 4 * size + 4096:
            spare = np.empty(size + LINE, np.uint8)
            first = -spare.ctypes.data % LINE
            held = self._held[key] = spare[first : first + size]
        return held[:size].view(dtype).reshape(shape)

    def forget(self) -> None:
        """Let go of the calling thread's memory, because it ends."""
        thread = threading.get_ident()
        for key in [k for k in self._held if k[0] == thread]:
            self._held.pop(key, None)

    def clear(self) -> None:
        """Let go of all memory; arrays that are in use stay valid."""
        self.recent.clear()
        self.together.clear()
        self._held.clear()
