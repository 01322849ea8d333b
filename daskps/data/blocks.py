"""Dask collections and padded xarray Datasets as blocks of rows, one task each.

Owns the alignment of labels and weights with blocks, for unknown chunk sizes too. Conversion of
a block is in `convert`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import scipy.sparse
import xarray as xr

from daskps.errors import DataError

from .convert import to_partition
from .labels import Classes
from .partition import Partition

Inputs = list[tuple[Any, ...]]
"""Arguments of `read_block` for every block: number, matrix, labels, weights."""


def is_blocked(X: Any) -> bool:
    """Return whether `X` is made of lazy blocks: a dask array or DataFrame, alone or in xarray."""
    return isinstance(_bare(X), da.Array) or hasattr(X, "to_dask_array")


def read_block(number: int, X: Any, y: Any, weight: Any) -> Iterator[tuple[Partition, Classes]]:
    """Yield the checked rows of a block."""
    yield to_partition(X, y, weight, f" of block {number}")


def dask_blocks(X: Any, y: Any, weight: Any) -> Inputs:
    """Return the row blocks of a dask array or DataFrame with their labels and weights.

    Parameters
    ----------
    X
        Shape (n_rows, n_features), blocks numpy, scipy.sparse or pydata/sparse; several blocks
        of columns are joined.
    y
        Labels, lazy or not, or None.
    weight
        Weights, lazy or not, or None.

    Raises
    ------
    DataError
        If shapes or blocks do not fit.
    """
    X = _array(X)
    if X.ndim != 2:
        raise DataError(f"X has shape {X.shape!r}, expected (rows, columns).")
    if X.numblocks[1] > 1:
        if np.isnan(X.shape[1]):
            raise DataError(
                f"X has {X.numblocks[1]} blocks of columns of unknown size, expected one; "
                "call X.compute_chunk_sizes() first."
            )
        X = X.rechunk({1: -1})
    blocks = X.to_delayed().ravel().tolist()
    labels, weights = _aligned("y", y, X, blocks), _aligned("sample_weight", weight, X, blocks)
    return list(zip(range(len(blocks)), blocks, labels, weights, strict=True))


def _aligned(name: str, column: Any, X: Any, blocks: list[Any]) -> list[Any]:
    """Return the part of `column` that belongs to each block of `X`."""
    if column is None:
        return [None] * len(blocks)
    if not is_blocked(column):
        return _cut(name, column, X, blocks)
    column = _array(column)
    unknown = np.isnan(X.shape[0]) or np.isnan(column.shape[0])
    if unknown and column.numblocks[0] != len(blocks):
        raise DataError(
            f"{name} has {column.numblocks[0]} blocks and X has {len(blocks)}, of unknown sizes: "
            "they cannot be matched; call compute_chunk_sizes() on both."
        )
    if not unknown and column.shape[0] != X.shape[0]:
        raise DataError(
            f"{name} has {column.shape[0]!r} entries but X has {X.shape[0]!r} rows; "
            "give one entry a row."
        )
    if not unknown and column.chunks[0] != X.chunks[0]:
        column = column.rechunk((X.chunks[0],))
    parts: list[Any] = column.to_delayed().ravel().tolist()
    return parts


def _cut(name: str, column: Any, X: Any, blocks: list[Any]) -> list[Any]:
    rows = X.chunks[0]
    if np.isnan(X.shape[0]):
        rows = dask.compute(*[dask.delayed(_n_rows)(block) for block in blocks])
    values = column.to_numpy() if hasattr(column, "to_numpy") else np.asarray(column)
    if len(values) != sum(rows):
        raise DataError(
            f"{name} has {len(values)!r} entries but X has {sum(rows)!r} rows; "
            "give one entry a row."
        )
    return np.split(values, np.cumsum(rows)[:-1])


def _n_rows(block: Any) -> int:
    return int(block.shape[0])


def _bare(X: Any) -> Any:
    return X.data if isinstance(X, xr.DataArray) else X


def _array(X: Any) -> Any:
    return X.to_dask_array() if hasattr(X, "to_dask_array") else _bare(X)


def padded_blocks(data: xr.Dataset) -> Inputs:
    """Return the partitions of an `xarray.Dataset` in the form of `Dataset.to_xarray`.

    Raises
    ------
    DataError
        If an array is missing.
    """
    missing = {"indptr", "indices", "n_rows", "nnz"} - set(data.variables)
    manifest = data.attrs.get("daskps")
    if missing or not isinstance(manifest, dict):
        raise DataError(
            f"the xarray.Dataset lacks {sorted(map(str, missing)) or ['attribute daskps']!r}, "
            "expected the arrays of Dataset.to_xarray(); pass a 2-d DataArray for a matrix."
        )
    sizes = zip(data["n_rows"].values.tolist(), data["nnz"].values.tolist(), strict=True)
    inputs: Inputs = []
    for i, (n_rows, nnz) in enumerate(sizes):
        lengths = {"indptr": n_rows + 1, "indices": nnz, "values": nnz}
        lengths |= {"label": n_rows, "weight": n_rows}
        row = {name: data[name].data[i, :n] for name, n in lengths.items() if name in data}
        shape = (n_rows, int(manifest["n_features"]))
        X = dask.delayed(_matrix)(row["indptr"], row["indices"], row.get("values"), shape)
        y = row.get("label")
        if y is not None and manifest.get("classes"):
            y = dask.delayed(_decoded)(y, manifest["classes"])
        inputs.append((i, X, y, row.get("weight")))
    return inputs


def _matrix(indptr: Any, indices: Any, values: Any, shape: tuple[int, int]) -> Any:
    ids = np.asarray(indices).astype(np.int64)
    data = np.ones(len(ids), np.float32) if values is None else values
    return scipy.sparse.csr_array((data, ids, np.asarray(indptr)), shape=shape)


def _decoded(codes: Any, classes: list[Any]) -> Any:
    return np.array(classes)[np.asarray(codes).astype(np.int64)]
