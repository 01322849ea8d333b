"""How the priors of a topic model are learnt in every consistency: by a table of histograms.

A table of cells says how many documents have a topic so many times. Each partition keeps what it
has last pushed of that, and pushes the difference; so the table holds what all partitions pushed
last, and the priors are a function of tables alone. Owns what of it partitions keep and push.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daskps.kernels import lda
from daskps.models.topic_priors import alpha_of, histogram_changes
from daskps.server.keys import KeySet, row_numbers, whole_table
from daskps.server.messages import Arrays
from daskps.server.tables import Placement, TableSpec
from daskps.server.updaters import Add

COLUMNS = 2**32
KEPT = ("alpha", "beta", "seen_keys", "seen_counts")
NOTHING: Arrays = {"seen_keys": np.empty(0, np.uint64), "seen_counts": np.empty(0, np.int32)}


def table(name: str, K: int) -> TableSpec:
    """Return the table: row k < K for topic k, row K for the lengths of documents."""
    return TableSpec(name, K + 1, 1, Add("int32"), keys="cells", columns=COLUMNS)


def seen_of(documents: lda.Documents, lengths: NDArray[np.int64], K: int) -> Arrays:
    """Return the histogram of a partition's documents, as partitions keep it."""
    cells = documents.cells.astype(np.uint64)
    bits = np.uint64(lda.bits_of(documents.cells))
    count = cells & ((np.uint64(1) << bits) - np.uint64(1))
    tokens = lengths[lengths > 0].astype(np.uint64)
    keys = np.concatenate(
        [(cells >> bits) * np.uint64(COLUMNS) + count, np.uint64(K * COLUMNS) + tokens]
    )
    found, n = np.unique(keys, return_counts=True)
    return {"seen_keys": found, "seen_counts": n.astype(np.int32)}


def kept(alpha: NDArray[np.float64], beta: float, seen: Arrays) -> dict[str, NDArray[np.generic]]:
    """Return what a partition keeps for learning."""
    names = ("seen_keys", "seen_counts")
    return {"alpha": alpha, "beta": np.array([beta]), **{name: seen[name] for name in names}}


@dataclass(frozen=True, slots=True)
class Histogram:
    """The table of histograms as a partition reads and changes it."""

    table: str
    rows: KeySet
    """All rows."""
    numbers: NDArray[np.int64]
    """Row at each place of the key set."""

    @classmethod
    def of(cls, placement: Placement) -> Histogram:
        """Return that of a table."""
        rows = whole_table(placement)
        return cls(placement.spec.name, rows, row_numbers(placement, rows))

    def alpha(self, rows: Arrays, start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the prior by what was pulled; see `alpha_of`."""
        return alpha_of(rows, self.numbers, start)

    def changes(self, before: Arrays, after: Arrays) -> tuple[KeySet, NDArray[np.int32]]:
        """Return the key set and the deltas that turn what was seen before into what is kept."""
        old, new = ({"keys": x["seen_keys"], "counts": x["seen_counts"]} for x in (before, after))
        keys, change = histogram_changes(old, new)
        place = np.empty(len(self.numbers), np.int64)
        place[self.numbers] = np.arange(len(self.numbers))
        at = place[(keys // np.uint64(COLUMNS)).astype(np.int64)]
        order = np.argsort(at, kind="stable")
        bounds = np.searchsorted(at[order], self.rows.bounds)
        return KeySet(self.table, bounds, keys[order], hashed=True), change[order][:, None, None]
