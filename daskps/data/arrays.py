"""Datasets from arrays: `from_arrays` and `as_dataset`.

Owns the choice of path for every accepted input. Conversion of one block is in `convert`, dask
collections are taken apart in `blocks`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import dask
import numpy as np
import xarray as xr
import zarr.abc.store
from numpy.typing import NDArray

from daskps.errors import DataError

from .blocks import Inputs, dask_blocks, is_blocked, padded_blocks, read_block
from .convert import to_partition
from .dataset import Dataset, open_dataset
from .hashing import hashing
from .ingest import Recipe, assemble, assemble_on_disk, entropy, flat, prepare, writing
from .pieces import Piece, load
from .stores import resolve


def from_arrays(
    X: Any,
    y: Any = None,
    store: Any = None,
    *,
    sample_weight: Any = None,
    n_partitions: int | None = None,
    random_state: int | None = 0,
    shuffle: bool = True,
    overwrite: bool = False,
    feature_names: Sequence[str] | None = None,
    hash_features: int | None = None,
    alternate_sign: bool = False,
    hash_seed: int = 0,
) -> Dataset:
    """Make a dataset of a matrix, on disk or in memory.

    Values become float32; duplicate entries of a row are summed. Numeric labels are kept as
    float64, strings and booleans become codes into `Dataset.classes`.

    Parameters
    ----------
    X
        Matrix of shape (n_rows, n_features): numpy, scipy.sparse, pydata/sparse, pandas, a 2-d
        xarray.DataArray, a dask array or DataFrame with blocks of those (of unknown sizes too),
        or an xarray.Dataset as of `Dataset.to_xarray`.
    y
        Labels, shape (n_rows,): numbers, strings or booleans. None for data without labels.
    store
        Where to write the dataset: a path, URL or Zarr store. None keeps it in memory.
    sample_weight
        Weights, shape (n_rows,), finite and >= 0. None stands for ones.
    n_partitions
        Number of partitions, never more than rows. The default depends on the data only: one per
        4 M non-zeros, and of smaller data 8, 4 or 2 as long as each has 100,000.
    random_state
        Seed of the shuffle; None for a new one.
    shuffle
        Whether rows are shuffled over and inside partitions; otherwise they keep their order.
    overwrite
        Whether a Zarr group at `store` may be replaced.
    feature_names
        Names of the columns, shape (n_features,), kept beside the data. The default is a
        DataFrame's own, if they are strings. Hashed columns have none.
    hash_features
        Number of columns that column ids are hashed into, a power of two; what collides in a row
        is summed. None keeps them. A model that was trained on hashed data hashes what it is
        given later in the same way.
    alternate_sign
        Whether the hash also gives half of the ids the sign -1, so that collisions cancel in
        expectation. Worth it with few columns; without it data of ones stay ones, which take half
        the memory.
    hash_seed
        Seed of the hash.

    Raises
    ------
    DataError
        If shapes do not fit or a value cannot be used.
    TypeError
        If `X` is of a type that is not known.
    """
    seed = entropy(random_state) if shuffle else None
    if feature_names is not None and hash_features is not None:
        raise DataError("feature_names cannot be kept when columns are hashed; leave one out.")
    how = hashing(hash_features, alternate_sign, hash_seed)
    inputs = _inputs(X, y, sample_weight)
    if feature_names is None and how is None:
        feature_names = _own_names(X)

    def recipe(pieces: Sequence[Piece]) -> Recipe:
        width = _width(pieces)
        names = _names(feature_names, width)
        return Recipe(
            n_features=width,
            n_partitions=n_partitions,
            seed=seed,
            feature_names=names,
            hashing=how,
        )

    if inputs is None:
        rows, classes = to_partition(X, *dask.compute(y, sample_weight))
        pieces: Sequence[Piece] = [load(rows, classes, seed, 0)]
    elif store is None:
        pieces = flat(prepare(read_block, inputs, seed, None))
    if store is None:
        return assemble(pieces, recipe(pieces))
    with writing(resolve(store), overwrite) as target:
        if inputs is not None:
            pieces = flat(prepare(read_block, inputs, seed, target))
        return assemble_on_disk(pieces, recipe(pieces), target, spread=inputs is not None)


def _inputs(X: Any, y: Any, sample_weight: Any) -> Inputs | None:
    """Return the blocks of `X`; None for a matrix in memory."""
    if isinstance(X, xr.Dataset):
        if y is not None or sample_weight is not None:
            raise DataError("y and sample_weight cannot be given with an xarray.Dataset.")
        return padded_blocks(X)
    return dask_blocks(X, y, sample_weight) if is_blocked(X) else None


def _width(pieces: Sequence[Piece]) -> int:
    widths = sorted({piece.n_features for piece in pieces})
    if len(widths) > 1:
        raise DataError(f"blocks of X have {widths!r} columns, expected the same number in all.")
    return widths[0]


def _own_names(X: Any) -> Sequence[str] | None:
    if isinstance(X, xr.Dataset) and "feature_name" in X:
        return [str(name) for name in X["feature_name"].values]
    columns = getattr(X, "columns", None)
    names = None if columns is None else list(columns)
    return names if names and all(isinstance(name, str) for name in names) else None


def as_dataset(
    X: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    n_partitions: int | None = None,
    random_state: int | None = 0,
) -> Dataset:
    """Return a dataset for anything that `fit` accepts.

    Parameters
    ----------
    X
        A Dataset, the path, URL or Zarr store of one, or a matrix as in `from_arrays`.
    y
        Labels as in `from_arrays`; None for a dataset, which holds its own.
    sample_weight
        Weights as in `from_arrays`; None for a dataset.
    n_partitions
        As in `from_arrays`; a dataset keeps its partitions.
    random_state
        Seed of the shuffle of a matrix.

    Raises
    ------
    DataError
        If a dataset comes with `y`, `sample_weight` or `n_partitions`, or as in `from_arrays`.
    """
    is_store = isinstance(X, (str, os.PathLike, zarr.abc.store.Store))
    if not is_store and not isinstance(X, Dataset):
        return from_arrays(
            X, y, sample_weight=sample_weight, n_partitions=n_partitions, random_state=random_state
        )
    given = {"y": y, "sample_weight": sample_weight, "n_partitions": n_partitions}
    extra = [name for name, value in given.items() if value is not None]
    if extra:
        raise DataError(
            f"{', '.join(extra)} cannot be given with a dataset, which has its own; "
            "leave it out, or make a new dataset with from_arrays."
        )
    return X if isinstance(X, Dataset) else open_dataset(X)


def _names(names: Sequence[str] | None, n_features: int) -> NDArray[Any] | None:
    if names is None:
        return None
    if len(names) != n_features or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"feature_names holds {len(names)!r} entries, expected {n_features} strings, "
            "one per column."
        )
    return np.array(names, dtype=str)
