"""Which features may enter a model whose keys grow: rare ones by chance, or from a count on.

Most features of unbounded data occur once or twice and only cost memory. Two ways to leave them
out. By Poisson inclusion (`Drawn`) each row that has a feature brings it into the model with a
probability p: one that occurs k times gets a weight with probability ``1 - (1 - p)^k``. Nothing is
counted anywhere: the draws follow from the seed, the key and the rows alone, so every pass, every
attempt of a task and any number of workers draw the same.

By count (`Counted`) a feature enters with its n-th row. Counts stand in a counting Bloom filter, a
table like any other: it lies on the shards, moves with their slots, goes back with a cut, and takes
each push once. A feature has `PROBES` cells in it and occurred at most as often as the least of
them says, so none enters late, and a few per cent of the rarer ones early. A run counts a row in
its first pass only.

Either way a feature is learnt from the step on whose rows, with what is known when it begins, bring
it in; by all partitions. Before, rows are learnt from as if they had it not.

References
----------
McMahan et al. (2013), "Ad Click Prediction: a View from the Trenches", section 4.1. Fan, Cao,
Almeida and Broder (2000), "Summary Cache", section V.C (counting Bloom filters).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.data import Dataset
from daskps.kernels import linear as kernel
from daskps.server._hashing import mix
from daskps.server.keys import KeySet, localise
from daskps.server.tables import Placement, TableSpec
from daskps.server.updaters import Tally

COUNTS = "_counts"
"""Table of the cells."""
PROBES = 2
"""Cells of a feature, each in a part of the table of its own."""
LEAST, MOST = 2, 255
"""Counts from which features may enter: a cell is a byte."""
CELLS = 2**12, 2**26
"""Fewest and most cells of a part."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Features that rows bring into the model by chance.

    Parameters
    ----------
    chosen
        Which keys of their key set, shape (m,).
    """

    chosen: NDArray[np.bool_]
    keysets: tuple[KeySet, ...] = ()
    """What is to be pulled beside the weights."""

    def enter(self, pulled: Sequence[NDArray[Any]], passes: int) -> NDArray[np.bool_]:
        """Return which keys may enter by now, shape (m,)."""
        return self.chosen

    def told(self, passes: int) -> list[NDArray[Any]]:
        """Return what is pushed to `keysets` in a pass, if anything."""
        return []

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        return int(self.chosen.nbytes)


@dataclass(frozen=True, slots=True)
class Counted:
    """Features that enter the model when they have occurred often enough.

    Parameters
    ----------
    least
        Rows with which a feature enters.
    times
        Rows of this slice that have each key, up to `least`, shape (m,).
    cells
        Positions in `keysets` of each key's cells, shape (`PROBES`, m).
    keysets
        The cells that are looked at.
    """

    least: int
    times: NDArray[np.uint8]
    cells: NDArray[np.uint32]
    keysets: tuple[KeySet, ...]

    def enter(self, pulled: Sequence[NDArray[Any]], passes: int) -> NDArray[np.bool_]:
        """Return which keys may enter by now, shape (m,)."""
        before = pulled[0].reshape(-1)[self.cells].min(axis=0).astype(np.int64)
        return np.asarray(before + (self.times if passes == 0 else 0) >= self.least)

    def told(self, passes: int) -> list[NDArray[Any]]:
        """Return what is pushed to `keysets` in a pass, if anything."""
        if passes:
            return []
        each = np.broadcast_to(self.times, self.cells.shape).ravel()
        sums = np.bincount(self.cells.ravel(), each, minlength=len(self.keysets[0]))
        return [np.minimum(sums, self.least).astype(np.uint32)[:, None, None]]

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        held = int(self.times.nbytes + self.cells.nbytes)
        return held + sum(k.__sizeof__() for k in self.keysets)


def admission_of(estimator: Any, dataset: Dataset, *, start: bool) -> dict[str, Any]:
    """Return the settings of a linear model that say which features rows bring into it.

    Parameters
    ----------
    estimator
        With an `admission` that is good by itself.
    dataset
        Training data: how many features it can have says how many cells there are.
    start
        Whether training goes on from the model that is there, with the counts of its state.
    """
    if estimator.admission == 1:
        return {}
    seed = int(np.random.SeedSequence(estimator.random_state).generate_state(1)[0])
    if estimator.admission < 1:
        return {"admission": float(estimator.admission), "seed": seed}
    held = estimator._state[1] if start and estimator._state is not None else ()
    cells = next((t.n_rows for t in held if t.name == COUNTS), 0)
    return {"admission": int(estimator.admission), "seed": seed, "cells": cells or _cells(dataset)}


def _cells(dataset: Dataset) -> int:
    most = min(dataset.n_features, dataset.nnz)  # distinct features
    # 4 to 8 cells of a part for each: of the features that should stay out 1 to 5 % come in
    part = 1 << max(4 * most - 1, 0).bit_length()
    return PROBES * min(max(part, CELLS[0]), CELLS[1])


def counts_table(cells: int, least: int) -> TableSpec:
    """Return the table of counts."""
    return TableSpec(COUNTS, cells, 1, Tally(most=least))


def counted(place: Placement, keyset: KeySet, rows: kernel.Rows, least: int, seed: int) -> Counted:
    """Look up the cells of the features of some rows.

    Parameters
    ----------
    place
        Of the table of counts.
    keyset
        Of a table with hashed keys.
    rows
        Their indices are positions in `keyset`.
    least
        Rows with which a feature enters.
    seed
        Any integer >= 0: other seeds, other features that share cells.
    """
    assert keyset.hashed, keyset.table
    assert keyset.at is not None, keyset.table
    times = np.minimum(np.bincount(rows.indices, minlength=len(keyset)), least)
    part = np.uint64(place.spec.n_rows // PROBES)
    streams = mix(np.arange(1, PROBES + 1, dtype=np.uint64) + np.uint64(PROBES * seed))
    # two rounds, as in `drawn`; the first is the same for all probes
    mixed = mix(keyset.at.astype(np.uint64))
    cells = [mix(mixed + s) % part + np.uint64(i) * part for i, s in enumerate(streams)]
    found, local = localise(place, np.concatenate(cells).astype(np.uint32))
    return Counted(least, times.astype(np.uint8), local.reshape(PROBES, -1), (found,))


def in_model(pulled: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pulled rows, (m, n_pull, width), are more than what a fresh one would be."""
    return np.asarray(pulled[:, :2].any(axis=(1, 2)))


def drawn(keyset: KeySet, rows: kernel.Rows, probability: float, seed: int) -> Drawn:
    """Draw which keys some rows bring into the model.

    Parameters
    ----------
    keyset
        Of a table with hashed keys.
    rows
        Their indices are positions in `keyset`.
    probability
        Of each row by itself, > 0 and < 1.
    seed
        Any integer >= 0.
    """
    assert keyset.hashed, keyset.table
    assert keyset.at is not None, keyset.table
    content = hashlib.blake2b(rows.indptr.data, digest_size=8, key=seed.to_bytes(8, "little"))
    for array in (keyset.at, rows.indices, rows.y):
        content.update(np.ascontiguousarray(array).data)
    stream = np.frombuffer(content.digest(), np.uint64)
    times = np.bincount(rows.indices, minlength=len(keyset))
    # two rounds: one would map keys and streams that differ by as much to the same draw
    draw = mix(mix(keyset.at.astype(np.uint64)) + stream)
    uniform = (draw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return Drawn(uniform < -np.expm1(times * np.log1p(-probability)))
