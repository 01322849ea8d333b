"""Ratings from every input: `read_ratings` and `as_ratings`.

Owns the course of the ingest: blocks are read by one task each, users and items are numbered, each
partition is built by one task. Runs on the current Dask client, or in threads.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from typing import Any

import dask
import numpy as np
import pandas as pd
import scipy.sparse
import xarray as xr
import zarr.abc.store

from daskps.errors import DataError

from . import format as disk
from . import tabular, triples, vocabulary
from .arrays import from_arrays
from .dataset import Dataset
from .format import Manifest
from .ingest import _raise_first, writing
from .ratings import Ratings, numbered, open_ratings, write_ids
from .sources import MemorySource
from .stores import is_shared, resolve
from .triples import Deal, Duplicates, Names


def read_ratings(
    source: Any,
    store: Any = None,
    *,
    user: Any = "user",
    item: Any = "item",
    rating: Any = "rating",
    time: Any = None,
    sep: str | None = None,
    skip_lines: int = 0,
    duplicates: Duplicates = "error",
    n_partitions: int | None = None,
    overwrite: bool = False,
) -> Ratings:
    """Make ratings of a table with a row for each.

    Parameters
    ----------
    source
        A pandas or dask DataFrame, or files: a path, a glob pattern, or a list of those, of
        Parquet or of text (gzip too) with or without a header.
    store
        Where to write them: a path, URL or Zarr store that all workers can write. None keeps them
        in memory.
    user, item, rating
        Names of the columns. Text without a header has users, items and ratings in its first
        three columns, and times in the fourth.
    time
        Name of a column of times, numbers or dates, also as text; None leaves it out.
    sep
        What stands between the fields of text, ``"::"`` for example; None looks at the first line.
    skip_lines
        Lines of each text file before the header or the first rating.
    duplicates
        What to do when a user rated an item more than once: ``"error"``, ``"last"`` (by time, else
        by the order of the input) or ``"mean"``.
    n_partitions
        Number of partitions, never more than users. The default depends on the data only.
    overwrite
        Whether a Zarr group at `store` may be replaced.

    Raises
    ------
    DataError
        If a column, an id or a rating is missing or cannot be used, or there is a duplicate.
    FileNotFoundError
        If a path or pattern matches no file.
    """
    if duplicates not in ("error", "last", "mean"):
        raise DataError(f"duplicates={duplicates!r}; expected 'error', 'last' or 'mean'.")
    names = Names(user, item, rating, time)
    blocks, names = _blocks(source, names, sep, skip_lines)
    ready = _checked(blocks, names)
    counted = _run(triples.counted, [(block,) for block in ready])
    if _mixed([users for users, _, _ in counted]) or _mixed([items for _, _, items in counted]):
        ready = _checked(tabular.as_text(blocks, names), names)
        counted = _run(triples.counted, [(block,) for block in ready])
    if not sum(int(c[1].sum()) for c in counted):
        raise DataError("there are no ratings in the input; expected at least one row.")
    return _dealt(ready, triples.deal(counted, n_partitions), duplicates, store, overwrite)


def _blocks(source: Any, names: Names, sep: str | None, skip: int) -> tuple[list[Any], Names]:
    if _are_paths(source):
        return tabular.file_blocks(source, names, sep, skip)
    if isinstance(source, np.ndarray) and source.dtype.names:
        source = pd.DataFrame({name: source[name] for name in source.dtype.names})
    if isinstance(source, pd.DataFrame):
        return [source], names
    if hasattr(source, "to_dask_array") and hasattr(source, "columns"):
        return source.to_delayed(), names
    raise TypeError(
        f"ratings cannot be read from a {type(source).__name__}; expected a DataFrame with columns "
        "of users, items and ratings, or paths of files."
    )


def _are_paths(source: Any) -> bool:
    several = source if isinstance(source, (list, tuple)) else [source]
    return all(isinstance(path, (str, os.PathLike)) for path in several)


def _checked(blocks: Sequence[Any], names: Names) -> list[Any]:
    """Return checked triples: of a table in memory as they are, else as futures of Dask."""
    if len(blocks) == 1 and isinstance(blocks[0], pd.DataFrame):
        return [triples.check(blocks[0], names, "")]
    task = dask.delayed(_check, pure=False)
    found = dask.persist(*[task(block, names, i) for i, block in enumerate(blocks)])
    return list(found)


def _check(block: Any, names: Names, number: int) -> Any:
    try:
        path = getattr(getattr(block, "source", None), "path", getattr(block, "path", None))
        where = f" of block {number}" if path is None else f" of block {number}, file {path!r}"
        return triples.check(block() if callable(block) else block, names, where)
    except Exception as error:
        return error


def _run(function: Any, arguments: Sequence[tuple[Any, ...]], local: bool = False) -> list[Any]:
    """Return what tasks return, the first error among them raised when all are done."""
    if len(arguments) == 1 and isinstance(arguments[0][0], triples.Triples):
        return [function(*arguments[0])]
    task = dask.delayed(_guarded, pure=False)
    found = dask.compute(
        *[task(function, *args) for args in arguments], scheduler="threads" if local else None
    )
    _raise_first(found)
    return list(found)


def _guarded(function: Any, *args: Any) -> Any:
    try:
        for arg in args:
            _raise_first(arg if isinstance(arg, list) else [arg])
        return function(*args)
    except Exception as error:
        return error


def _mixed(parts: Sequence[Any]) -> bool:
    """Return whether ids look like numbers in some blocks and like something else in others."""
    return len({part.dtype.kind in "iufb" for part in parts if len(part)}) > 1


def _dealt(
    ready: Sequence[Any], how: Deal, duplicates: Duplicates, store: Any, overwrite: bool
) -> Ratings:
    n = len(how.bounds) - 1
    if isinstance(ready[0], triples.Triples):
        dealt = [triples.shares(block, how) for block in ready]
        parts = [[own[p] for own in dealt] for p in range(n)]
    else:
        deal = dask.delayed(_guarded, pure=False)
        shared = dask.delayed(how, traverse=False)
        pieces = [deal(triples.shares, block, shared) for block in ready]
        pick = dask.delayed(_pick, pure=False)
        parts = [[pick(own, p) for own in pieces] for p in range(n)]
    if store is None:
        args = [(own, how, p, duplicates) for p, own in enumerate(parts)]
        return _in_memory(_run(triples.build, args), how)
    with writing(resolve(store), overwrite) as target:
        return _on_disk(parts, how, duplicates, target)


def _pick(own: Any, p: int) -> Any:
    return own if isinstance(own, Exception) else own[p]


def _manifest(how: Deal, n_partitions: int, nnz: int) -> Manifest:
    return Manifest(
        n_partitions=n_partitions, n_rows=len(how.users), nnz=nnz, n_features=len(how.items)
    )


def _in_memory(built: Sequence[Any], how: Deal) -> Ratings:
    parts = [part for part, _ in built]
    manifest = _manifest(how, len(parts), sum(part.nnz for part in parts))
    times = None if built[0][1] is None else [stamps for _, stamps in built]
    return Ratings(Dataset(manifest, MemorySource(parts, None)), how.users, how.items, times)


def _on_disk(parts: Sequence[Any], how: Deal, duplicates: Duplicates, target: Any) -> Ratings:
    group = target.begin()
    n = len(parts)
    sizes = _run(_longest, [(own,) for own in parts])
    timed = any(has for _, has in sizes)
    rows, longest = int(np.diff(how.bounds).max()), max(size for size, _ in sizes)
    disk.create(group, _manifest(how, n, 0), rows, longest, frozenset({"values"}))
    if timed:
        disk._array(group, "time", (n, longest), np.float64, ("partition", "nonzero"))
    args = [(own, how, p, duplicates, group) for p, own in enumerate(parts)]
    nnz = _run(_write, args, local=not is_shared(target.store))
    write_ids(group, how.users, how.items, timed)
    disk.finish(
        group, _manifest(how, n, sum(nnz)), np.diff(how.bounds), np.array(nnz, np.int64), None
    )
    return open_ratings(target.store)


def _longest(own: Sequence[Any]) -> tuple[int, bool]:
    return sum(len(share.rows) for share in own), own[0].times is not None


def _write(own: Sequence[Any], how: Deal, p: int, duplicates: Duplicates, group: Any) -> int:
    part, times = triples.build(own, how, p, duplicates)
    disk.write_partition(group, p, part)
    if times is not None:
        row = np.full(group["time"].shape[1], np.nan)
        row[: len(times)] = times
        group["time"][p] = row
    return part.nnz


def as_ratings(
    X: Any, *, duplicates: Duplicates = "error", n_partitions: int | None = None
) -> Ratings:
    """Return ratings for anything that `MatrixFactorization.fit` accepts.

    Parameters
    ----------
    X
        Ratings; a Dataset, or the path, URL or Zarr store of one or of ratings; a DataFrame with
        the columns user, item and rating, or files of such; or a matrix, shape (n_users, n_items):
        scipy.sparse, pydata/sparse, numpy or dask arrays (their zeros are no ratings), xarray,
        whose coordinates are the ids.
    duplicates
        As in `read_ratings`; also for sparse matrices that hold an entry twice.
    n_partitions
        As in `read_ratings`.
    """
    if isinstance(X, Ratings):
        return X
    if isinstance(X, Dataset):
        return numbered(X)
    if isinstance(X, zarr.abc.store.Store) or (
        isinstance(X, (str, os.PathLike)) and _is_group(os.fspath(X))
    ):
        return open_ratings(X)
    table = _are_paths(X) or isinstance(X, pd.DataFrame) or hasattr(X, "to_dask_array")
    if table or (isinstance(X, np.ndarray) and X.dtype.names):
        return read_ratings(X, duplicates=duplicates, n_partitions=n_partitions)
    if scipy.sparse.issparse(X) and not _canonical(X):
        block, how = triples.of_matrix(X, n_partitions)
        return _dealt([block], how, duplicates, None, False)
    if n_partitions is None and isinstance(X, np.ndarray):
        n_partitions = triples.n_partitions_for(X.shape[0], int(np.count_nonzero(X)), None)
    elif n_partitions is None and isinstance(getattr(X, "nnz", None), (int, np.integer)):
        n_partitions = triples.n_partitions_for(X.shape[0], int(X.nnz), None)
    found = numbered(from_arrays(X, shuffle=False, n_partitions=n_partitions))
    if not isinstance(X, xr.DataArray):
        return found
    users, items = (
        vocabulary.of(X.coords[dim].values) if dim in X.coords else vocabulary.numbers(n)
        for dim, n in zip(X.dims, (len(found.users), len(found.items)), strict=True)
    )
    return Ratings(found.dataset, users, items)


def _is_group(path: str) -> bool:
    if "://" in path or os.path.isdir(path):
        return True
    return not os.path.exists(os.path.expanduser(path)) and not glob.has_magic(path)


def _canonical(X: Any) -> bool:
    """Return whether no entry is there twice."""
    if X.format == "coo":
        rows, columns = X.coords
        return len(np.unique(np.asarray(rows, np.int64) * X.shape[1] + columns)) == len(rows)
    return bool(getattr(X, "has_canonical_format", True))
