"""The on-disk form of a dataset: a Zarr v3 group with one chunk row per partition.

Owns the manifest, the array layout, and reading and writing of one partition. Does not own
shuffling, checks of user input, or views (see `ingest` and `dataset`).

=================  ====================  ==========================
array              shape                 dims
=================  ====================  ==========================
``indptr``         (P, max_rows + 1)     partition, row_edge
``indices``        (P, max_nnz)          partition, nonzero
``values``         (P, max_nnz)          partition, nonzero
``label, weight``  (P, max_rows)         partition, row
``n_rows``         (P,)                  partition
``nnz``            (P,)                  partition
``feature_name``   (n_features,)         feature
=================  ====================  ==========================

``values``, ``label``, ``weight`` and ``feature_name`` are optional. The manifest is the attribute
``daskps`` of the group and is completed last. Pads hold the fill value of their array, which no
valid entry can have: a chunk that is missing therefore shows itself on read.
"""

from __future__ import annotations

import warnings
from typing import Any

import msgspec
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from daskps.errors import CorruptChunk, DatasetFormatError
from daskps.structs import known

from .partition import Partition

VERSION = 1
MAX_UINT32 = 2**32 - 1
_FILL = {"f": np.nan, "i": -1}


class Hashing(msgspec.Struct, frozen=True):
    """How column ids became columns, see `hashing`."""

    n_columns: int
    """A power of two."""
    alternate_sign: bool = False
    """Whether half of the ids count negatively, so that collisions cancel in expectation."""
    seed: int = 0


@known
class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known about a dataset before any chunk is read."""

    format: str = "dataset"
    version: int = VERSION
    complete: bool = False
    n_partitions: int
    n_rows: int
    nnz: int
    n_features: int
    classes: list[str | bool] | None = None
    """What the label codes 0, 1, ... stand for; None when labels are numbers."""
    labels: list[float] | None = None
    """Distinct labels, ascending; None without labels or with more than 10,000 of them."""
    label_counts: list[int] | None = None
    """Rows per entry of `labels`."""
    hashing: Hashing | None = None
    """How column ids became columns; None where they are as in the source."""


def index_dtype(n_features: int) -> np.dtype[Any]:
    """Return the dtype of column ids: uint32 while the fill value 2**32 - 1 stays free."""
    return np.dtype(np.uint32 if n_features <= MAX_UINT32 else np.uint64)


def create(
    group: zarr.Group, manifest: Manifest, rows: int, nnz: int, optional: frozenset[str]
) -> None:
    """Create the arrays of an empty, incomplete dataset in `group`.

    Parameters
    ----------
    group
        Empty, open for writing.
    manifest
        What will stand in the group when it is complete.
    rows
        Rows of the largest partition.
    nnz
        Non-zeros of the largest partition.
    optional
        Which of ``values``, ``label`` and ``weight`` exist.
    """
    n = manifest.n_partitions
    _array(group, "indptr", (n, rows + 1), np.int64, ("partition", "row_edge"))
    _array(group, "indices", (n, nnz), index_dtype(manifest.n_features), ("partition", "nonzero"))
    for name, dtype in (("values", np.float32), ("label", np.float64), ("weight", np.float32)):
        if name in optional:
            wide = name == "values"
            dims = ("partition", "nonzero" if wide else "row")
            _array(group, name, (n, nnz if wide else rows), dtype, dims)


def _array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    dims: tuple[str, ...],
    chunks: tuple[int, ...] | None = None,
) -> zarr.Array[Any]:
    kind = np.dtype(dtype)
    fill = np.iinfo(kind).max if kind.kind == "u" else _FILL[kind.kind]
    # An array of width 0 still needs a chunk length of 1.
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks or (1, *(max(1, n) for n in shape[1:])),
        dtype=kind,
        dimension_names=dims,
        fill_value=fill,
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
    )


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Return an array of a group, of which it is known that it is one."""
    array = group[name]
    assert isinstance(array, zarr.Array), name
    return array


def write_partition(group: zarr.Group, i: int, part: Partition) -> None:
    """Write `part` as chunk row `i` of every array."""
    arrays = {"indptr": part.indptr, "indices": part.indices, "label": part.label}
    arrays |= {"values": part.values, "weight": part.weight}
    for name, data in arrays.items():
        if name not in group:
            continue
        target = array_of(group, name)
        row = np.full(target.shape[1], target.fill_value, target.dtype)
        # Values and weights are absent where all are 1, but other partitions may have them.
        length = part.nnz if name == "values" else part.n_rows
        row[: length if data is None else len(data)] = 1 if data is None else data
        target[i] = row


def finish(
    group: zarr.Group,
    manifest: Manifest,
    n_rows: NDArray[np.int64],
    nnz: NDArray[np.int64],
    feature_names: NDArray[Any] | None,
) -> None:
    """Write sizes and names, then the complete manifest, which makes the dataset exist."""
    for name, sizes in (("n_rows", n_rows), ("nnz", nnz)):
        # One chunk each: opening a dataset must not cost a read per partition.
        _array(group, name, sizes.shape, np.int64, ("partition",), sizes.shape)[:] = sizes
    if feature_names is not None:
        width = len(feature_names)
        names = group.create_array(
            "feature_name",
            shape=(width,),
            chunks=(width,),
            dtype="str",
            dimension_names=("feature",),
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
        )
        names[:] = feature_names
    with warnings.catch_warnings():
        # Consolidated metadata is not in the v3 specification yet; xarray warns without it.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        group = zarr.consolidate_metadata(group.store, path=group.path, zarr_format=3)
    complete = msgspec.structs.replace(manifest, complete=True)
    group.attrs["daskps"] = msgspec.to_builtins(complete)


def read_manifest(group: zarr.Group, name: str) -> Manifest:
    """Return the manifest of `group` after checking that it is a complete dataset.

    Raises
    ------
    DatasetFormatError
        If the group is something else, incomplete, or of a version that is not understood.
    """
    raw = group.attrs.get("daskps")
    if not isinstance(raw, dict) or raw.get("format") != "dataset":
        found = raw.get("format") if isinstance(raw, dict) else raw
        raise DatasetFormatError(
            f"{name!r} is a Zarr group but not a daskps dataset (attribute daskps: {found!r}); "
            "make one with daskps.from_arrays or daskps.read_svmlight."
        )
    if raw.get("version") != VERSION:
        raise DatasetFormatError(
            f"dataset {name!r} has format version {raw.get('version')!r}, this daskps reads "
            f"version {VERSION}; install a newer daskps, or ingest the data again with this one."
        )
    if raw.get("complete") is not True:
        raise DatasetFormatError(
            f"dataset {name!r} is incomplete: its ingest was interrupted or is still running; "
            "wait for it, or ingest again with overwrite=True."
        )
    try:
        return msgspec.convert(raw, Manifest)
    except msgspec.ValidationError as error:
        raise DatasetFormatError(
            f"the manifest of dataset {name!r} is damaged ({error}); ingest the data again."
        ) from error


def read_row(group: zarr.Group, name: str, i: int | None, length: int, where: str) -> NDArray[Any]:
    """Read the first `length` entries of chunk row `i` (None: of a 1-d array) of array `name`.

    Raises
    ------
    CorruptChunk
        If the chunk is missing, fails its checksum, or cannot be decoded.
    """
    place = f"array {name!r}" + ("" if i is None else f", partition {i}")
    remedy = "restore the file from a copy, or ingest the data again."
    try:
        array = array_of(group, name)
        data = np.asarray(array[:length] if i is None else array[i, :length])
    except Exception as error:
        # Codecs raise ValueError, RuntimeError or OSError, by codec: all mean the same here.
        raise CorruptChunk(
            f"{place} of dataset {where!r} cannot be read ({error}); {remedy}"
        ) from error
    # equal_nan: the fill value of float arrays is NaN.
    numeric = data.dtype.kind in "iuf"
    if numeric and length and np.array_equal(data[:1], [array.fill_value], equal_nan=True):
        raise CorruptChunk(f"the chunk of {place} of dataset {where!r} is missing; {remedy}")
    return data


def read_partition(
    group: zarr.Group, i: int, n_rows: int, nnz: int, n_features: int, where: str
) -> Partition:
    """Read and verify chunk row `i`; `where` names the dataset in errors."""
    lengths = {"indptr": n_rows + 1, "indices": nnz, "values": nnz, "label": n_rows}
    lengths["weight"] = n_rows
    data = {
        name: read_row(group, name, i, length, where)
        for name, length in lengths.items()
        if name in group
    }
    indptr = data["indptr"]
    if indptr[0] != 0 or indptr[-1] != nnz:
        raise CorruptChunk(
            f"array 'indptr', partition {i} of dataset {where!r} ends at {int(indptr[-1])!r}, "
            f"but {nnz} non-zeros are recorded; ingest the data again."
        )
    values, label, weight = (data.get(name) for name in ("values", "label", "weight"))
    return Partition(indptr, data["indices"], values, label, weight, n_features)
