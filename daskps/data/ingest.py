"""Ingest: read inputs into pieces, deal their rows to partitions, gather and write.

Owns the order of events, the tasks, and what happens on failure. Each partition is one task that
gathers its share of all pieces, so memory is a small multiple of a partition per running task,
and the result depends on the pieces and the seed only, never on workers. Does not own parsing and
checks (see `convert`, `parse`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask
import msgspec
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import StorePath

from daskps.errors import DataError

from . import format as disk
from .dataset import Dataset
from .format import Hashing, Manifest
from .hashing import hashed
from .labels import Classes, Labels, merge
from .partition import Partition
from .pieces import Piece, gather, load, shuffle_order, stage
from .plan import choose_partitions, cut, deal
from .sources import MemorySource, StoreSource
from .stores import Target, is_shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How pieces become partitions."""

    n_features: int
    """Columns of the source."""
    n_partitions: int | None = None
    seed: int | None = 0
    """Seed of the shuffle; None keeps the order of the rows."""
    shift: int = 0
    """Subtracted from all column ids."""
    feature_names: NDArray[Any] | None = None
    hashing: Hashing | None = None
    """How column ids become columns, after the shift; None keeps them."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What every task that builds a partition must know."""

    pieces: Sequence[Piece]
    bounds: NDArray[np.int64]
    maps: list[NDArray[np.float64] | None]
    recipe: Recipe


def entropy(random_state: int | None) -> int:
    """Return the seed for `random_state`; for None one that nobody had before."""
    if random_state is not None and (not isinstance(random_state, (int, np.integer))):
        raise TypeError(f"random_state is {random_state!r}, expected an integer or None.")
    if random_state is not None and random_state < 0:
        raise DataError(f"random_state is {random_state!r}, expected an integer >= 0 or None.")
    seed = np.random.SeedSequence(random_state).entropy
    assert isinstance(seed, (int, np.integer))
    return int(seed)


@contextmanager
def writing(store: Any, overwrite: bool) -> Iterator[Target]:
    """Open `store` as the target of an ingest; delete what was written if the body fails.

    Parameters
    ----------
    store
        Resolved store.
    overwrite
        Whether a group that is there may be replaced.
    """
    target = Target(store, overwrite)
    try:
        yield target
    except BaseException:
        target.give_up()
        raise


def prepare(
    read: Callable[..., Iterable[tuple[Partition, Classes]]],
    inputs: Sequence[tuple[Any, ...]],
    seed: int | None,
    target: Target | None,
) -> list[list[Piece]]:
    """Read all inputs in parallel; return the pieces of each, in order.

    Parameters
    ----------
    read
        Called as `read(*inputs[i])`; yields checked rows and the classes of their label codes.
    inputs
        One task each. They may hold Dask's lazy objects.
    seed
        Seed of the shuffle; None keeps the order of rows.
    target
        Where pieces are staged; None keeps them in memory.

    Raises
    ------
    DataError
        The error of the first input, in order, that cannot be used.
    """
    path = None if target is None else target.path
    # Whichever worker is first, the first input in order is blamed.
    task = dask.delayed(_prepare, pure=False)
    tasks = [task(read, i, seed, path, *args) for i, args in enumerate(inputs)]
    local = target is not None and not is_shared(target.store)
    results = dask.compute(*tasks, scheduler="threads" if local else None)
    _raise_first(results)
    return list(results)


def flat(pieces: Sequence[Sequence[Piece]]) -> list[Piece]:
    """Return the pieces of all inputs in one list."""
    return [piece for blocks in pieces for piece in blocks]


def _prepare(
    read: Callable[..., Iterable[tuple[Partition, Classes]]],
    number: int,
    seed: int | None,
    target: StorePath | None,
    *args: Any,
) -> list[Piece] | Exception:
    pieces: list[Piece] = []
    try:
        for block, (rows, classes) in enumerate(read(*args)):
            unique = (number << 32) + block
            piece = load(rows, classes, seed, unique)
            pieces.append(piece if target is None else stage(piece, target, unique))
    except Exception as error:
        return error
    return pieces


def assemble(pieces: Sequence[Piece], recipe: Recipe) -> Dataset:
    """Build a dataset in memory."""
    plan, manifest = _plan(pieces, recipe)
    parts = [_build(plan, k) for k in range(manifest.n_partitions)]
    manifest = msgspec.structs.replace(manifest, nnz=sum(part.nnz for part in parts))
    return Dataset(manifest, MemorySource(parts, recipe.feature_names))


def assemble_on_disk(
    pieces: Sequence[Piece], recipe: Recipe, target: Target, *, spread: bool
) -> Dataset:
    """Build a dataset in `target`.

    Parameters
    ----------
    pieces
        Rows; staged if `spread`.
    recipe
        How to divide them.
    target
        Where to; what was there is deleted.
    spread
        Whether tasks may run on other workers: the pieces are not in this process.
    """
    plan, manifest = _plan(pieces, recipe)
    sizes = _sizes(plan)
    group = target.begin()
    present = frozenset[str]().union(*(piece.present for piece in pieces))
    if recipe.hashing is not None:
        present |= {"values"}  # ones that collide are no ones any more
    disk.create(group, manifest, int(sizes[0].max()), int(sizes[1].max()), present)
    write = dask.delayed(_write, pure=False)
    scheduler = None if spread and is_shared(target.store) else "threads"
    shared = dask.delayed(plan, traverse=False)
    tasks = [write(shared, k, group) for k in range(manifest.n_partitions)]
    nnz = dask.compute(*tasks, scheduler=scheduler, traverse=False)
    _raise_first(nnz)
    target.remove_staging()
    manifest = msgspec.structs.replace(manifest, nnz=sum(nnz))
    disk.finish(group, manifest, sizes[0], np.array(nnz, np.int64), recipe.feature_names)
    return Dataset(manifest, StoreSource(target.store, manifest))


def _write(plan: _Plan, k: int, group: zarr.Group) -> Exception | int:
    """Write partition `k` and return its stored values, fewer than dealt where some collided."""
    try:
        part = _build(plan, k)
        disk.write_partition(group, k, part)
    except Exception as error:
        return error
    return part.nnz


def _raise_first(results: Iterable[Any]) -> None:
    """Raise the first error among `results`.

    Tasks return their errors: one that is raised would leave the others running, and they would
    write to the store while it is cleaned up.
    """
    for result in results:
        if isinstance(result, Exception):
            raise result


def _build(plan: _Plan, k: int) -> Partition:
    edges = zip(plan.pieces, plan.bounds[:, k], plan.bounds[:, k + 1], strict=True)
    shares = [piece.share(int(start), int(stop)) for piece, start, stop in edges]
    recipe = plan.recipe
    part = gather(shares, plan.maps, recipe.n_features, recipe.shift)
    if recipe.hashing is not None:
        part = hashed(part, recipe.hashing)
    # A single piece is in random order already; shares of several must be mixed.
    if recipe.seed is None or len(plan.pieces) == 1:
        return part
    return part.take(shuffle_order(recipe.seed, 1, k, part.n_rows))


def _plan(pieces: Sequence[Piece], recipe: Recipe) -> tuple[_Plan, Manifest]:
    pieces = [piece for piece in pieces if piece.n_rows]
    n_rows, nnz = sum(p.n_rows for p in pieces), sum(p.nnz for p in pieces)
    n = choose_partitions(n_rows, nnz, recipe.n_partitions)
    counted = [piece.labels for piece in pieces if piece.labels is not None]
    labels, maps = merge(counted) if counted else (None, None)
    if recipe.seed is None:
        bounds = cut([piece.row_lengths() for piece in pieces], n)
    else:
        bounds = deal([piece.n_rows for piece in pieces], n)
    manifest = _manifest(n, n_rows, nnz, recipe, labels)
    # Counts are up to 160 kB a piece and have served: they must not travel with every plan.
    lean = [piece.without_labels() for piece in pieces]
    return _Plan(lean, bounds, maps or [None] * len(pieces), recipe), manifest


def _manifest(n: int, n_rows: int, nnz: int, recipe: Recipe, labels: Labels | None) -> Manifest:
    manifest = Manifest(
        n_partitions=n,
        n_rows=n_rows,
        nnz=nnz,
        n_features=recipe.n_features if recipe.hashing is None else recipe.hashing.n_columns,
        hashing=recipe.hashing,
        classes=None if labels is None else labels.classes,
    )
    if labels is None or labels.values is None or labels.counts is None:
        return manifest
    return msgspec.structs.replace(
        manifest, labels=labels.values.tolist(), label_counts=labels.counts.tolist()
    )


def _sizes(plan: _Plan) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and non-zeros per partition."""
    nnz = np.zeros(plan.bounds.shape[1] - 1, np.int64)
    for piece, edges in zip(plan.pieces, plan.bounds, strict=True):
        ends = np.concatenate(([0], np.cumsum(piece.row_lengths())))
        nnz += np.diff(ends[edges])
    return np.diff(plan.bounds, axis=1).sum(axis=0), nnz
