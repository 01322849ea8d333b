"""Which rows go to which partition: a pure function of sizes and seed.

Owns the default number of partitions and the deal of rows. Knows no data.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from daskps.errors import DataError

NNZ_PER_PARTITION = 4_000_000
MIN_PARTITIONS = 8
MIN_NNZ = 100_000
"""A step over fewer takes less time than all around it."""


def choose_partitions(n_rows: int, nnz: int, requested: int | None) -> int:
    """Return the number of partitions, never more than rows.

    The default depends on the data only: one partition per 4 M non-zeros (40 to 50 MB in
    memory), but 8, 4 or 2 of smaller data, so that workers can share it evenly, as long as each
    has 100,000.

    Parameters
    ----------
    n_rows
        Rows of the whole data.
    nnz
        Non-zeros of the whole data.
    requested
        What the user asked for, None for the default.
    """
    if n_rows == 0:
        raise DataError("the data has 0 rows, expected at least 1; check the input.")
    if requested is None:
        by_size = -(-nnz // NNZ_PER_PARTITION)
        even = 2 ** int(math.log2(max(1, min(MIN_PARTITIONS, nnz // MIN_NNZ))))
        requested = max(by_size, even)
    elif requested < 1:
        raise DataError(f"n_partitions is {requested!r}, expected at least 1.")
    return min(requested, n_rows)


def deal(piece_rows: list[int], n_partitions: int) -> NDArray[np.int64]:
    """Deal the shuffled rows of every piece to partitions like cards, going on at the next piece.

    Every partition gets its share of every piece, and partitions differ by at most one row.

    Parameters
    ----------
    piece_rows
        Rows per piece.
    n_partitions
        Number of partitions P.

    Returns
    -------
    NDArray[np.int64]
        Shape (n_pieces, P + 1): partition k gets rows [k]..[k + 1] of the shuffled piece.
    """
    rows = np.array(piece_rows, np.int64)[:, None]
    first = (np.cumsum(rows, axis=0) - rows) % n_partitions
    seat = (np.arange(n_partitions) - first) % n_partitions
    counts = np.maximum(0, -((seat - rows) // n_partitions))
    return np.concatenate([np.zeros_like(rows), np.cumsum(counts, axis=1)], axis=1)


def cut(piece_lengths: list[NDArray[np.int64]], n_partitions: int) -> NDArray[np.int64]:
    """Cut rows in their order into partitions of nearly equal non-zeros, each with a row or more.

    Parameters
    ----------
    piece_lengths
        Non-zeros of every row, per piece.
    n_partitions
        Number of partitions P, at most the number of rows.

    Returns
    -------
    NDArray[np.int64]
        As of `deal`.
    """
    lengths = np.concatenate(piece_lengths)
    n_rows = len(lengths)
    # A row weighs its non-zeros plus one: rows without any must not pile up in one partition.
    edges = np.concatenate(([0], np.cumsum(lengths + 1)))
    targets = edges[-1] * np.arange(1, n_partitions) / n_partitions
    inner = np.searchsorted(edges, targets)
    k = np.arange(1, n_partitions)
    # Ascending by at least one, and leaving a row for each partition that follows.
    inner = np.maximum.accumulate(np.maximum(inner, k) - k) + k
    inner = np.minimum(inner, n_rows - n_partitions + k)
    bounds = np.concatenate(([0], inner, [n_rows]))
    ends = np.cumsum([len(piece) for piece in piece_lengths])
    starts = np.concatenate(([0], ends[:-1]))
    return np.stack([np.clip(bounds, a, b) - a for a, b in zip(starts, ends, strict=True)]).astype(
        np.int64
    )
