"""Where the partitions of a dataset come from: memory or a store.

Owns the same small set of reads for both. Views, splits and what users see are in `dataset`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from . import format as disk
from .format import Manifest
from .partition import Partition
from .stores import describe, open_group


class PartitionSource(Protocol):
    """Whole partitions, as they were ingested."""

    @property
    def name(self) -> str | None:
        """Path, URL or name of the store; None in memory."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows per partition."""

    @property
    def nnz(self) -> NDArray[np.int64]:
        """Stored values per partition."""

    @property
    def feature_names(self) -> NDArray[Any] | None:
        """Names of the columns."""

    def has(self, name: str) -> bool:
        """Return whether values, label or weight exist."""

    def partition(self, i: int) -> Partition:
        """Return partition `i`."""

    def indptr(self, i: int) -> NDArray[np.int64]:
        """Return the row edges of partition `i`."""

    def label(self, i: int) -> NDArray[np.float64]:
        """Return the labels of partition `i`."""

    def target(self, manifest: Manifest) -> Any:
        """Return a store that holds the on-disk form."""


class MemorySource:
    """Partitions that this process holds."""

    name = None

    def __init__(self, parts: list[Partition], feature_names: NDArray[Any] | None) -> None:
        self.parts = parts
        self.feature_names = feature_names
        self.rows = np.array([part.n_rows for part in parts], np.int64)
        self.nnz = np.array([part.nnz for part in parts], np.int64)

    def has(self, name: str) -> bool:
        """Return whether values, label or weight exist."""
        return any(getattr(part, name) is not None for part in self.parts)

    def partition(self, i: int) -> Partition:
        """Return partition `i`."""
        return self.parts[i]

    def indptr(self, i: int) -> NDArray[np.int64]:
        """Return the row edges of partition `i`."""
        return self.parts[i].indptr

    def label(self, i: int) -> NDArray[np.float64]:
        """Return the labels of partition `i`."""
        label = self.parts[i].label
        assert label is not None
        return label

    def target(self, manifest: Manifest) -> Any:
        """Return a store in memory that holds a copy in the on-disk form."""
        store = zarr.storage.MemoryStore()
        group = zarr.open_group(store, mode="w")
        names = frozenset(name for name in ("values", "label", "weight") if self.has(name))
        disk.create(group, manifest, int(self.rows.max()), int(self.nnz.max()), names)
        for i, part in enumerate(self.parts):
            disk.write_partition(group, i, part)
        disk.finish(group, manifest, self.rows, self.nnz, self.feature_names)
        return store


class StoreSource:
    """Partitions on disk, read and verified at every call; pickles as the store alone."""

    def __init__(self, store: Any, manifest: Manifest) -> None:
        self._store = store
        self._manifest = manifest

    @property
    def name(self) -> str:
        """Path, URL or name of the store."""
        return describe(self._store)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Rows per partition."""
        return self._read("n_rows", None, self._manifest.n_partitions)

    @cached_property
    def nnz(self) -> NDArray[np.int64]:
        """Stored values per partition."""
        return self._read("nnz", None, self._manifest.n_partitions)

    @cached_property
    def feature_names(self) -> NDArray[Any] | None:
        """Names of the columns."""
        if not self.has("feature_name"):
            return None
        names = self._read("feature_name", None, self._manifest.n_features)
        # From numpy's variable-length strings, which have no direct cast to fixed-width ones.
        return np.array(names.tolist(), dtype=str)

    def has(self, name: str) -> bool:
        """Return whether values, label or weight exist."""
        return name in self._group

    def partition(self, i: int) -> Partition:
        """Return partition `i`."""
        rows, nnz, width = int(self.rows[i]), int(self.nnz[i]), self._manifest.n_features
        return disk.read_partition(self._group, i, rows, nnz, width, self.name)

    def indptr(self, i: int) -> NDArray[np.int64]:
        """Return the row edges of partition `i`."""
        return self._read("indptr", i, int(self.rows[i]) + 1)

    def label(self, i: int) -> NDArray[np.float64]:
        """Return the labels of partition `i`."""
        return self._read("label", i, int(self.rows[i]))

    def target(self, manifest: Manifest) -> Any:
        """Return the store."""
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        # Caches and the open group stay here: workers open the store by themselves.
        return {"_store": self._store, "_manifest": self._manifest}

    @cached_property
    def _group(self) -> zarr.Group:
        return open_group(self._store)

    def _read(self, name: str, i: int | None, length: int) -> NDArray[Any]:
        return disk.read_row(self._group, name, i, length, self.name)


class MappedSource:
    """The partitions of another source, changed when they are read.

    Parameters
    ----------
    source
        Partitions.
    change
        Returns a partition of the same rows with other columns, no more of them in a row.
    """

    def __init__(self, source: PartitionSource, change: Callable[[Partition], Partition]) -> None:
        self._source = source
        self._change = change
        self.name = source.name
        self.feature_names = None
        self.rows = source.rows
        self.nnz = source.nnz
        """At most: what is summed or left out is only known when it is read."""

    def has(self, name: str) -> bool:
        """Return whether values, label or weight exist."""
        return name == "values" or self._source.has(name)

    def partition(self, i: int) -> Partition:
        """Return partition `i`."""
        return self._change(self._source.partition(i))

    def indptr(self, i: int) -> NDArray[np.int64]:
        """Return the row edges of partition `i`."""
        return self.partition(i).indptr

    def label(self, i: int) -> NDArray[np.float64]:
        """Return the labels of partition `i`."""
        return self._source.label(i)

    def target(self, manifest: Manifest) -> Any:
        """Return a store in memory that holds the on-disk form."""
        parts = [self.partition(i) for i in range(len(self.rows))]
        return MemorySource(parts, None).target(manifest)
