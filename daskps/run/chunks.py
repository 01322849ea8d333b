"""Chunks of a cut on their way to the store: encoded with one copy, where zarr makes four.

What is written is what zarr would write with the codecs ``bytes`` and ``crc32c``; it reads it back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from daskps.server.buffers import LINE

BATCH = 24 * 2**20
"""Bytes that are moved to or from the store in one call; above 32 MB malloc would give each a fresh
mapping, whose pages cost more than the copy."""
CHECKSUM = 4
"""Bytes of it."""


class ChunkWriter:
    """Writes chunks of an array, each of which holds one entry of its first dimension."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array = array
        self._size = math.prod(array.shape[1:]) * array.dtype.itemsize
        # a file has its bytes when it is written; other stores may keep what they are given
        self._again = isinstance(array.store_path.store, LocalStore)
        self._room: NDArray[np.uint8] = np.empty(0, np.uint8)

    def put(self, slots: Mapping[int, NDArray[Any]]) -> None:
        """Write the chunks of `slots`, whose rows are given; what is too short ends in zeros."""
        array, buffer = self._array, default_buffer_prototype().buffer
        rest = (0,) * (len(array.shape) - 1)

        async def write() -> None:
            places = [array.store_path / array.metadata.encode_chunk_key((s, *rest)) for s in slots]
            room = self._take(len(slots))
            chunks = [self._encode(*pair) for pair in zip(room, slots.values(), strict=True)]
            pairs = zip(places, chunks, strict=True)
            await asyncio.gather(*(p.set(buffer.from_array_like(chunk)) for p, chunk in pairs))

        sync(write())

    def _take(self, n: int) -> Iterator[NDArray[np.uint8]]:
        """Yield memory for `n` chunks, that of the last call if there is nobody who needs it."""
        size = self._size + CHECKSUM
        stride = size + -size % LINE
        if not self._again or len(self._room) < n * stride:
            self._room = np.empty(n * stride, np.uint8)
        for i in range(n):
            yield self._room[i * stride : i * stride + size]

    def _encode(self, chunk: NDArray[np.uint8], rows: NDArray[Any]) -> NDArray[np.uint8]:
        dtype = self._array.dtype.newbyteorder("<")
        n, values = rows.size * dtype.itemsize, chunk[: self._size]
        values[:n].view(dtype).reshape(rows.shape)[...] = rows
        values[n:] = 0
        checksum = np.array([google_crc32c.value(values)], "<u4")
        chunk[self._size :] = checksum.view(np.uint8)
        return chunk


def batches(slots: Sequence[int], array: zarr.Array[Any]) -> Iterable[list[int]]:
    """Cut `slots` into runs whose chunks are moved at once, in bounded memory.

    Runs, because zarr takes ten times as long for a list of positions as for a slice.
    """
    chunk = max(1, int(np.prod(array.shape[1:])) * array.dtype.itemsize)
    n, run = max(1, BATCH // chunk), list[int]()
    for slot in slots:
        if run and (slot != run[-1] + 1 or len(run) == n):
            yield run
            run = []
        run.append(slot)
    if run:
        yield run
