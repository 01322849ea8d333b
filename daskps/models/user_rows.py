"""Factors of users that stay in a store: read a chunk at a time, where and when they are needed.

A factorisation of ten million users has more factors of users than a process should hold. They are
written as they come from the partitions, and looked up by number.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from daskps.data.stores import resolve

F32 = NDArray[np.float32]

CHUNK = 16_384
"""Users of a chunk."""
HELD = 8
"""Chunks in memory, the last ones that were read."""
NAME = "user_factors"


class StoredRows:
    """Rows of an array in a Zarr store, looked up like those of an array in memory.

    Parameters
    ----------
    array
        Shape (n, k), float32.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array = array
        self._chunks: OrderedDict[int, F32] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return StoredRows, (self.array,)  # what was read stays where it was

    @property
    def shape(self) -> tuple[int, int]:
        """Users, and numbers of a user."""
        n, k = self.array.shape
        return n, k

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def __getitem__(self, numbers: NDArray[np.int64]) -> F32:
        """Return the rows of `numbers`; negative ones count from the end."""
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        out = np.empty((len(numbers), self.shape[1]), np.float32)
        step = self.array.chunks[0]
        owner = numbers // step
        for chunk in np.unique(owner):
            mine = np.flatnonzero(owner == chunk)
            out[mine] = self._chunk(int(chunk))[numbers[mine] - chunk * step]
        return out

    def blocks(self) -> Iterator[tuple[int, F32]]:
        """Yield the first number of each chunk, and its rows."""
        step = self.array.chunks[0]
        for chunk in range(-(-len(self) // step)):
            yield chunk * step, self._chunk(chunk)

    def lazy(self) -> Any:
        """Return the rows as a dask array."""
        import dask.array as da

        return da.from_zarr(self.array)

    def _chunk(self, number: int) -> F32:
        with self._lock:
            if number in self._chunks:
                self._chunks.move_to_end(number)
                return self._chunks[number]
        step = self.array.chunks[0]
        rows = np.asarray(self.array[number * step : (number + 1) * step])
        with self._lock:
            self._chunks[number] = rows
            while len(self._chunks) > HELD:
                self._chunks.popitem(last=False)
        return rows


Rows = F32 | StoredRows


def blocks(rows: Rows) -> Iterator[tuple[int, F32]]:
    """Yield all rows in pieces, each with the number of its first."""
    if isinstance(rows, StoredRows):
        yield from rows.blocks()
    else:
        yield 0, rows


def create(group: zarr.Group, name: str, n: int, k: int) -> zarr.Array[Any]:
    """Return an array for the rows of users in a group; what is not written is zero."""
    return group.create_array(
        name,
        shape=(n, k),
        chunks=(min(max(n, 1), CHUNK), k),
        dtype=np.float32,
        dimension_names=["user", "factor"],
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
    )


def write(group: zarr.Group, name: str, rows: Rows) -> None:
    """Write all rows of users, a piece at a time."""
    array = create(group, name, *rows.shape)
    for first, piece in blocks(rows):
        array[first : first + len(piece)] = piece


class UserStore:
    """Where a fit leaves the factors of users; each fit an array of its own.

    A fit that goes on from the one before reads that one's until it ends.

    Parameters
    ----------
    store
        A path or URL.

    Raises
    ------
    FileExistsError
        If there is something else.
    """

    def __init__(self, store: str | os.PathLike[str], n: int, k: int) -> None:
        where = resolve(store)
        group = _opened(where)
        self._group = group
        self._name = f"{NAME}-{uuid.uuid4().hex[:8]}"
        self.array = create(group, self._name, n, k)

    def finish(self) -> StoredRows:
        """Delete what earlier fits left, and return the rows of this one."""
        for name in [n for n, _ in self._group.arrays() if n != self._name]:
            del self._group[name]
        return StoredRows(zarr.open_array(self.array.store_path, mode="r"))


def _opened(where: Any) -> zarr.Group:
    try:
        group = zarr.open_group(where, mode="r+")
    except FileNotFoundError:
        if isinstance(where, str) and os.path.exists(where) and os.listdir(where):
            raise _occupied(where) from None
        group = zarr.open_group(where, mode="w", zarr_format=3)
        group.attrs["daskps"] = {"format": "user store"}
        return group
    if dict(group.attrs).get("daskps") != {"format": "user store"}:
        raise _occupied(where)
    return group


def _occupied(where: Any) -> FileExistsError:
    return FileExistsError(
        f"user_store={where!r} holds something else than factors of users, which is never "
        "overwritten; name another place."
    )
