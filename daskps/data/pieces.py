"""Pieces: parts of the input whose rows are checked and shuffled, waiting to be dealt.

Owns the two kinds of piece, in memory and staged inside the target store as plain bytes, so that
every worker that can write the dataset can read them. Knows nothing of where rows came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import StorePath

from .format import index_dtype
from .labels import Classes, Labels, count
from .partition import Partition, concatenate
from .stores import STAGING

_PER_ROW = ("label", "weight")


class Piece(Protocol):
    """Rows in the order in which they are dealt."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""

    @property
    def nnz(self) -> int:
        """Number of stored values."""

    @property
    def n_features(self) -> int:
        """Number of columns, as far as this piece knows."""

    @property
    def labels(self) -> Labels | None:
        """Counts of the labels; None without labels."""

    @property
    def present(self) -> frozenset[str]:
        """Which of values, label and weight exist."""

    @property
    def column_range(self) -> tuple[int, int] | None:
        """Smallest and largest column id; None when there is none."""

    def row_lengths(self) -> NDArray[np.int64]:
        """Return the number of stored values of each row."""

    def share(self, start: int, stop: int) -> Partition:
        """Return rows `start` to `stop`."""

    def without_labels(self) -> Piece:
        """Return this piece without the counts of its labels."""


@dataclass(frozen=True, slots=True)
class LoadedPiece:
    """Rows in memory; they are copied into their order share by share."""

    rows: Partition
    order: NDArray[np.int64] | None
    labels: Labels | None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.rows.n_rows

    @property
    def nnz(self) -> int:
        """Number of stored values."""
        return self.rows.nnz

    @property
    def n_features(self) -> int:
        """Number of columns, as far as this piece knows."""
        return self.rows.n_features

    @property
    def present(self) -> frozenset[str]:
        """Which of values, label and weight exist."""
        return _present(self.rows)

    @property
    def column_range(self) -> tuple[int, int] | None:
        """Smallest and largest column id; None when there is none."""
        indices = self.rows.indices
        return (int(indices.min()), int(indices.max())) if len(indices) else None

    def row_lengths(self) -> NDArray[np.int64]:
        """Return the number of stored values of each row."""
        lengths = np.diff(self.rows.indptr)
        return lengths if self.order is None else lengths[self.order]

    def share(self, start: int, stop: int) -> Partition:
        """Return rows `start` to `stop`."""
        if self.order is None:
            return self.rows.rows(start, stop)
        return self.rows.take(self.order[start:stop])

    def without_labels(self) -> LoadedPiece:
        """Return this piece without the counts of its labels."""
        return replace(self, labels=None)


@dataclass(frozen=True, slots=True)
class StagedPiece:
    """Rows whose arrays are objects in the target store, already in their order."""

    path: StorePath
    n_rows: int
    nnz: int
    n_features: int
    index_dtype: str
    labels: Labels | None
    present: frozenset[str]
    column_range: tuple[int, int] | None

    def row_lengths(self) -> NDArray[np.int64]:
        """Return the number of stored values of each row."""
        return np.diff(self._read("indptr", np.int64, 0, self.n_rows + 1))

    def share(self, start: int, stop: int) -> Partition:
        """Return rows `start` to `stop`."""
        indptr = self._read("indptr", np.int64, start, stop + 1)
        lo, hi = int(indptr[0]), int(indptr[-1])
        has = self.present
        return Partition(
            indptr - lo,
            self._read("indices", self.index_dtype, lo, hi),
            self._read("values", np.float32, lo, hi) if "values" in has else None,
            self._read("label", np.float64, start, stop) if "label" in has else None,
            self._read("weight", np.float32, start, stop) if "weight" in has else None,
            self.n_features,
        )

    def without_labels(self) -> StagedPiece:
        """Return this piece without the counts of its labels."""
        return replace(self, labels=None)

    def _read(self, name: str, dtype: Any, start: int, stop: int) -> NDArray[Any]:
        if start == stop:
            return np.empty(0, dtype)
        size = np.dtype(dtype).itemsize
        wanted = RangeByteRequest(start * size, stop * size)
        found = sync((self.path / name).get(default_buffer_prototype(), wanted))
        if found is None:
            raise FileNotFoundError(f"staged piece {self.path / name} has gone; ingest again.")
        return np.frombuffer(found.as_numpy_array(), dtype)


def shuffle_order(seed: int, stage: int, number: int, n_rows: int) -> NDArray[np.int64]:
    """Return the permutation of the rows of piece (stage 0) or partition (stage 1) `number`."""
    return np.random.default_rng([seed, stage, number]).permutation(n_rows)


def load(rows: Partition, classes: Classes, seed: int | None, number: int) -> LoadedPiece:
    """Return a piece in memory; seed None keeps the order of the rows.

    Parameters
    ----------
    rows
        Checked rows.
    classes
        What label codes stand for.
    seed
        Seed of the whole ingest.
    number
        Position of the piece among all pieces.
    """
    order = None if seed is None else shuffle_order(seed, 0, number, rows.n_rows)
    labels = None if rows.label is None else count(rows.label, classes)
    return LoadedPiece(rows, order, labels)


def stage(piece: LoadedPiece, target: StorePath, number: int) -> StagedPiece:
    """Write the arrays of `piece`, shuffled, to the staging area of `target`."""
    rows = piece.share(0, piece.n_rows)
    path = target / STAGING / f"piece-{number}"
    for name in ("indptr", "indices", "values", "label", "weight"):
        data = getattr(rows, name)
        if data is not None:
            raw = default_buffer_prototype().buffer.from_bytes(data.tobytes())
            sync((path / name).set(raw))
    return StagedPiece(
        path=path,
        n_rows=rows.n_rows,
        nnz=rows.nnz,
        n_features=rows.n_features,
        index_dtype=rows.indices.dtype.str,
        labels=piece.labels,
        present=piece.present,
        column_range=piece.column_range,
    )


def gather(
    shares: Sequence[Partition],
    maps: Sequence[NDArray[np.float64] | None],
    n_features: int,
    shift: int,
) -> Partition:
    """Join the shares of one partition; labels get their final codes, columns are shifted.

    Parameters
    ----------
    shares
        Rows of this partition from every piece.
    maps
        Per piece, the final code of each label code; None where labels stay as they are.
    n_features
        Number of columns of the dataset.
    shift
        What is subtracted from every column id: 1 for one-based files.
    """
    dtype = index_dtype(n_features)
    final = []
    for share, codes in zip(shares, maps, strict=True):
        indices = (share.indices - share.indices.dtype.type(shift)) if shift else share.indices
        label = share.label
        if codes is not None and label is not None:
            label = codes[label.astype(np.int64)]
        indices = indices.astype(dtype, copy=False)
        final.append(replace(share, indices=indices, label=label, n_features=n_features))
    return concatenate([part for part in final if part.n_rows])


def _present(rows: Partition) -> frozenset[str]:
    names = ("values", *_PER_ROW)
    return frozenset(name for name in names if getattr(rows, name) is not None)
