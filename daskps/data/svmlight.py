"""Datasets from svmlight files: `read_svmlight`.

Owns the rules for column ids over all files and the course of the ingest. Text is cut in `lines`
and parsed in `parse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from daskps.errors import DataError

from .dataset import Dataset
from .hashing import hashing
from .ingest import Recipe, assemble, assemble_on_disk, entropy, flat, prepare, writing
from .lines import BLOCK_BYTES, Paths, Source, block_size, cut_files, find_files
from .parse import MAX_INDEX, Limits, read_source
from .pieces import Piece
from .stores import Target, resolve

ZeroBased = bool | Literal["auto"]


def read_svmlight(
    paths: Paths,
    store: Any = None,
    *,
    n_features: int | None = None,
    zero_based: ZeroBased = "auto",
    n_partitions: int | None = None,
    random_state: int | None = 0,
    overwrite: bool = False,
    hash_features: int | None = None,
    alternate_sign: bool = False,
    hash_seed: int = 0,
) -> Dataset:
    """Make a dataset of svmlight (libsvm) files, in parallel and in bounded memory.

    Files are read by byte range, gzip files (``.gz``) as streams, rows are shuffled. Tasks run on
    the current Dask client, or in threads. The result depends on files and arguments only, not
    on workers. Column ids must ascend in a row and be below 2**64 - 1, or 2**64 if they are hashed;
    from 2**31 on they are read by a slower parser. Comments and query ids are skipped.

    Parameters
    ----------
    paths
        A path, a glob pattern, or a list of those.
    store
        Where to write the dataset: a path, URL or Zarr store that all workers can write. None
        keeps it in memory.
    n_features
        Number of columns; None for the largest column id that occurs. Of hashed data a bound for
        ids, if given.
    zero_based
        Whether column ids start at 0. "auto" says no if no file holds the id 0.
    n_partitions
        As in `from_arrays`.
    random_state
        Seed of the shuffle; None for a new one.
    overwrite
        Whether a Zarr group at `store` may be replaced.
    hash_features, alternate_sign, hash_seed
        As in `from_arrays`; what is hashed is the id that a column has without hashing.

    Raises
    ------
    DataError
        If a line, a value or a gzip file cannot be used; the message names file and line.
    FileNotFoundError
        If a path or pattern matches no file.
    """
    most = MAX_INDEX + 1 if hash_features is not None else MAX_INDEX
    if n_features is not None and not 1 <= n_features <= most:
        raise DataError(f"n_features is {n_features!r}, expected 1 to {most} or None.")
    how = hashing(hash_features, alternate_sign, hash_seed)
    seed = entropy(random_state)
    files = find_files(paths)
    block_bytes = block_size(files, BLOCK_BYTES)
    sources = cut_files(files, block_bytes)
    limits = _limits(n_features, zero_based)

    def recipe(pieces: Sequence[Sequence[Piece]]) -> Recipe:
        if not any(piece.n_rows for piece in flat(pieces)):
            raise DataError(
                f"the files hold no rows ({files!r}), expected 'label index:value ...' lines; "
                "check that they are complete."
            )
        shift, width = _columns(sources, pieces, n_features or most, zero_based)
        return Recipe(
            n_features=n_features or width,
            n_partitions=n_partitions,
            seed=seed,
            shift=shift,
            hashing=how,
        )

    if store is None:
        loaded = _read(sources, limits, block_bytes, seed, None)
        return assemble(flat(loaded), recipe(loaded))
    with writing(resolve(store), overwrite) as target:
        staged = _read(sources, limits, block_bytes, seed, target)
        return assemble_on_disk(flat(staged), recipe(staged), target, spread=True)


def _read(
    sources: Sequence[Source], limits: Limits, block_bytes: int, seed: int, target: Target | None
) -> list[list[Piece]]:
    inputs = [(source, limits, block_bytes) for source in sources]
    return prepare(read_source, inputs, seed, target)


def _limits(n_features: int | None, zero_based: ZeroBased) -> Limits:
    if zero_based not in (True, False, "auto"):
        raise DataError(f"zero_based is {zero_based!r}, expected True, False or 'auto'.")
    if n_features is None:
        return Limits(int(zero_based is False))
    # With "auto" the largest id is only known to be wrong when all files have been read.
    return Limits(int(zero_based is False), n_features - (zero_based is True))


def _columns(
    sources: Sequence[Source],
    pieces: Sequence[Sequence[Piece]],
    most: int,
    zero_based: ZeroBased,
) -> tuple[int, int]:
    """Return what to subtract from column ids, and the number of columns, `most` at most."""
    ranges = [piece.column_range for piece in flat(pieces)]
    found = [extent for extent in ranges if extent is not None]
    if not found:
        return 0, 1
    lowest, highest = min(low for low, _ in found), max(high for _, high in found)
    shift = int(zero_based is False or (zero_based == "auto" and lowest > 0))
    if highest - shift >= most:
        _blame_index(sources, pieces, highest, Limits(lowest, most - 1 + shift))
    return shift, highest - shift + 1


def _blame_index(
    sources: Sequence[Source], pieces: Sequence[Sequence[Piece]], highest: int, limits: Limits
) -> None:
    """Read the input with the largest column id again to raise the error that names its line."""
    for source, blocks in zip(sources, pieces, strict=True):
        if any(piece.column_range and piece.column_range[1] == highest for piece in blocks):
            for _ in read_source(source, limits, BLOCK_BYTES):
                pass
