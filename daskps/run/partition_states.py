"""What partitions keep, in a checkpoint: an array ``state/<partition>/<name>`` for each.

Written by the worker of the partition's home shard, before the driver publishes the cut. The
manifest lists them, so that one that is missing is noticed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from daskps.data.format import array_of
from daskps.errors import CheckpointError
from daskps.server.messages import Arrays

CHUNK = 64 * 2**20
"""Bytes of a chunk."""


def sizes(states: Mapping[int, Arrays]) -> dict[str, int]:
    """Return the bytes of each array, by ``partition/name``."""
    return {f"{p}/{name}": int(a.nbytes) for p, s in states.items() for name, a in s.items()}


def write(store: str, cut: str, states: Mapping[int, Arrays]) -> None:
    """Write the states of some partitions into a cut that is there."""
    if not states:
        return
    group = zarr.open_group(store, path=cut, mode="r+")
    for partition, state in states.items():
        for name, array in state.items():
            _write(group, f"state/{partition}/{name}", np.asarray(array))


def _write(group: zarr.Group, path: str, array: Any) -> None:
    row = max(1, array.itemsize * int(np.prod(array.shape[1:])))
    chunks = tuple(max(1, n) for n in array.shape)
    if array.ndim:
        chunks = (min(chunks[0], max(1, CHUNK // row)), *chunks[1:])
    there = group.create_array(
        path,
        shape=array.shape,
        chunks=chunks,
        dtype=array.dtype,
        compressors=[Crc32cCodec()],
        config={"write_empty_chunks": True},  # a missing chunk is an error
        overwrite=True,
    )
    if array.size:
        there[...] = array


def read(
    store: str,
    cut: str,
    listed: Mapping[str, int],
    partitions: Collection[int],
    *,
    whole: bool = True,
) -> dict[int, Arrays]:
    """Return what `partitions` kept at a cut.

    Parameters
    ----------
    listed
        Of the manifest.
    whole
        Whether all of it is needed; else a partition of which an array cannot be read is left out.

    Raises
    ------
    CheckpointError
        If an array is missing, damaged or of another size, and the whole is needed.
    """
    group = zarr.open_group(store, path=cut, mode="r")
    states: dict[int, dict[str, Any]] = {}
    lost = set()
    for key, nbytes in listed.items():
        partition, name = key.split("/")
        if int(partition) not in partitions:
            continue
        try:
            states.setdefault(int(partition), {})[name] = _read(group, key, nbytes, store, cut)
        except CheckpointError:
            if whole:
                raise
            lost.add(int(partition))
    return {p: state for p, state in states.items() if p not in lost}


def _read(group: zarr.Group, key: str, nbytes: int, store: str, cut: str) -> Any:
    try:
        array = array_of(group, f"state/{key}")
        whole = not array.size or array.nchunks_initialized == array.nchunks
        found = np.asarray(array[...])
    except Exception as error:  # codecs raise many kinds for damaged bytes
        raise _unreadable(key, store, cut, str(error)) from error
    if not whole or found.nbytes != nbytes:
        raise _unreadable(key, store, cut, f"{found.nbytes} bytes are there of {nbytes}")
    return found


def _unreadable(key: str, store: str, cut: str, why: str) -> CheckpointError:
    partition, name = key.split("/")
    return CheckpointError(
        f"{name!r}, which partition {partition} keeps, cannot be read from cut {cut!r} of "
        f"checkpoint {store!r}: {why}. The cut before is used where there is one."
    )
