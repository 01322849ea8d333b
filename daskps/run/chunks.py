"""Chunks of a cut on their way to the store: without a copy to a folder, else with one of four.

What is written is what zarr would write with the codecs ``bytes`` and ``crc32c``; it reads it back.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

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
        store = array.store_path.store
        self._folder = store.root / array.path if isinstance(store, LocalStore) else None

    def put(self, slots: Mapping[int, NDArray[Any]]) -> None:
        """Write the chunks of `slots`, whose rows are given; what is too short ends in zeros."""
        if self._folder is not None:
            for slot, rows in slots.items():
                self._write(self._folder / self._name(slot), rows)
            return
        array, buffer = self._array, default_buffer_prototype().buffer

        async def write() -> None:
            places = [array.store_path / self._name(slot) for slot in slots]
            chunks = [self._encode(rows) for rows in slots.values()]
            pairs = zip(places, chunks, strict=True)
            await asyncio.gather(*(p.set(buffer.from_array_like(chunk)) for p, chunk in pairs))

        sync(write())

    def _name(self, slot: int) -> str:
        rest = (0,) * (len(self._array.shape) - 1)
        return self._array.metadata.encode_chunk_key((slot, *rest))

    def _bytes(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        dtype = self._array.dtype.newbyteorder("<")
        return np.ascontiguousarray(rows, dtype).reshape(-1).view(np.uint8)

    def _write(self, path: Path, rows: NDArray[Any]) -> None:
        """Write a file, which has its name once it is whole, from where the rows are.

        Not by the store: threads, and memory that it takes to have all in one piece, cost as much
        as the writing.
        """
        values = self._bytes(rows)
        rest = bytes(self._size - len(values))
        checksum = google_crc32c.extend(google_crc32c.value(values), rest)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                for part in (values.data, rest, checksum.to_bytes(CHECKSUM, "little")):
                    file.write(part)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _encode(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        # a piece of memory each: stores may keep what they are given
        chunk, values = np.empty(self._size + CHECKSUM, np.uint8), self._bytes(rows)
        chunk[: len(values)] = values
        chunk[len(values) : self._size] = 0
        checksum = np.array([google_crc32c.value(chunk[: self._size])], "<u4")
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
