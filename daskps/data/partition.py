"""A partition: the CSR rows that one task works on.

Owns the in-memory form and its views. Does not own files, shuffling or checks of user input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import sparse
from numpy.typing import NDArray

from daskps.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Rows in compressed sparse row form; column ids are sorted and unique in a row."""

    indptr: NDArray[np.int64]
    """Where each row starts in `indices`, shape (n_rows + 1,), first value 0."""
    indices: NDArray[Any]
    """Column ids, shape (nnz,), uint32 (uint64 from 2**32 columns on)."""
    values: NDArray[np.float32] | None
    """Values, shape (nnz,); None when all of them are 1."""
    label: NDArray[np.float64] | None
    """Label per row, shape (n_rows,): the number, or the code into `Dataset.classes`."""
    weight: NDArray[np.float32] | None
    """Sample weight per row, shape (n_rows,); None when all of them are 1."""
    n_features: int
    """Number of columns."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        """Number of stored values."""
        return len(self.indices)

    def rows(self, start: int, stop: int) -> Partition:
        """Return rows `start` to `stop` (exclusive); only `indptr` is copied, the rest are views.

        Parameters
        ----------
        start
            First row, 0 <= start <= stop.
        stop
            End of the range, <= n_rows.
        """
        if not 0 <= start <= stop <= self.n_rows:
            raise IndexError(
                f"rows({start!r}, {stop!r}) is not a range of this partition; "
                f"use 0 <= start <= stop <= {self.n_rows}."
            )
        lo, hi = int(self.indptr[start]), int(self.indptr[stop])
        return Partition(
            self.indptr[start : stop + 1] - lo,
            self.indices[lo:hi],
            _sliced(self.values, lo, hi),
            _sliced(self.label, start, stop),
            _sliced(self.weight, start, stop),
            self.n_features,
        )

    def take(self, order: NDArray[np.int64]) -> Partition:
        """Return a copy that holds the rows `order`, in that order.

        Parameters
        ----------
        order
            Row numbers, shape (k,), each in 0..n_rows-1.
        """
        lengths = np.diff(self.indptr)[order]
        indptr = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        source = np.repeat(self.indptr[:-1][order] - indptr[:-1], lengths)
        source += np.arange(indptr[-1])
        return Partition(
            indptr,
            self.indices[source],
            None if self.values is None else self.values[source],
            None if self.label is None else self.label[order],
            None if self.weight is None else self.weight[order],
            self.n_features,
        )

    def to_scipy(self) -> scipy.sparse.csr_array:
        """Return a `scipy.sparse.csr_array`; copies `indices` only where scipy must widen them.

        Raises
        ------
        DataError
            If there are more columns than scipy can count.
        """
        if self.n_features >= 2**63:
            raise DataError(
                f"a partition of {self.n_features} columns does not fit scipy's int64 indices; use "
                "its arrays, or ingest with hash_features."
            )
        values = np.ones(self.nnz, np.float32) if self.values is None else self.values
        narrow = self.n_features <= 2**31 and self.nnz < 2**31
        dtype = np.int32 if narrow else np.int64
        same_width = self.indices.dtype.itemsize == np.dtype(dtype).itemsize
        indices = self.indices.view(dtype) if same_width else self.indices.astype(dtype)
        shape = (self.n_rows, self.n_features)
        return scipy.sparse.csr_array((values, indices, self.indptr.astype(dtype)), shape=shape)

    def to_gcxs(self) -> sparse.GCXS:
        """Return a `sparse.GCXS` that is compressed along the rows."""
        csr = self.to_scipy()
        arrays = (csr.data, csr.indices, csr.indptr)
        return sparse.GCXS(arrays, shape=csr.shape, compressed_axes=(0,))

    def __sizeof__(self) -> int:
        arrays = (self.indptr, self.indices, self.values, self.label, self.weight)
        return object.__sizeof__(self) + sum(a.nbytes for a in arrays if a is not None)


def concatenate(parts: list[Partition]) -> Partition:
    """Stack the rows of `parts`; missing values and weights become ones where others have them."""
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([0, *(p.nnz for p in parts)])
    indptr = np.concatenate(
        [[0], *(p.indptr[1:] + end for p, end in zip(parts, ends, strict=False))]
    ).astype(np.int64)
    label = [p.label for p in parts if p.label is not None]
    return Partition(
        indptr,
        np.concatenate([p.indices for p in parts]),
        _stack([p.values for p in parts], [p.nnz for p in parts]),
        np.concatenate(label) if len(label) == len(parts) else None,
        _stack([p.weight for p in parts], [p.n_rows for p in parts]),
        parts[0].n_features,
    )


def _stack(
    arrays: list[NDArray[np.float32] | None], lengths: list[int]
) -> NDArray[np.float32] | None:
    if all(a is None for a in arrays):
        return None
    filled = [
        np.ones(n, np.float32) if a is None else a for a, n in zip(arrays, lengths, strict=True)
    ]
    return np.concatenate(filled)


def _sliced(a: NDArray[Any] | None, start: int, stop: int) -> NDArray[Any] | None:
    return None if a is None else a[start:stop]
