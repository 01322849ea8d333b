"""`Dataset`: partitions on disk or in memory, and views of them.

Owns random access to partitions, splits, and pickling. Does not make datasets (see `ingest`,
`arrays` and `svmlight`).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from daskps.errors import CorruptChunk, DataError

from . import format as disk
from .format import Manifest
from .partition import Partition
from .stores import describe, open_group, resolve

Ranges = NDArray[np.int64]
"""A view: (source partition, first row, end row) per partition, shape (n_partitions, 3)."""


class Dataset:
    """CSR partitions with labels and weights, on disk or in memory.

    Made by `read_svmlight`, `from_arrays` and `open_dataset`, not directly. A dataset on disk
    pickles as its store and its row ranges, so that any worker can open it by itself.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        store: Any = None,
        parts: list[Partition] | None = None,
        ranges: Ranges | None = None,
        feature_names: NDArray[Any] | None = None,
    ) -> None:
        self._manifest = manifest
        self._store = store
        self._parts = parts
        self._ranges = ranges
        self._memory_names = feature_names

    @property
    def in_memory(self) -> bool:
        """Whether the partitions are held by this object."""
        return self._parts is not None

    @property
    def store(self) -> str | None:
        """Path, URL or name of the store; None in memory."""
        return None if self.in_memory else describe(self._store)

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self._manifest.n_features

    @property
    def index_dtype(self) -> np.dtype[Any]:
        """Data type of column ids, uint32 or uint64."""
        return disk.index_dtype(self.n_features)

    @property
    def has_label(self) -> bool:
        """Whether rows have labels."""
        return self._has("label")

    @property
    def has_weight(self) -> bool:
        """Whether rows have sample weights."""
        return self._has("weight")

    @property
    def classes(self) -> NDArray[Any] | None:
        """What label codes stand for, ascending; None when labels are numbers or absent."""
        classes = self._manifest.classes
        return None if classes is None else np.array(classes)

    @cached_property
    def feature_names(self) -> NDArray[Any] | None:
        """Names of the columns, shape (n_features,); None when none were given."""
        if self.in_memory:
            return self._memory_names
        if "feature_name" not in self._group:
            return None
        names = disk.read_row(self._group, "feature_name", None, self.n_features, self._where)
        # From numpy's variable-length strings, which have no direct cast to fixed-width ones.
        return np.array(names.tolist(), dtype=str)

    @property
    def n_partitions(self) -> int:
        """Number of partitions."""
        return len(self.partition_rows)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.partition_rows.sum())

    @property
    def nnz(self) -> int:
        """Number of stored values."""
        return int(self.partition_nnz.sum())

    @cached_property
    def partition_rows(self) -> NDArray[np.int64]:
        """Rows per partition, shape (n_partitions,)."""
        if self._ranges is not None:
            return np.subtract(self._ranges[:, 2], self._ranges[:, 1], dtype=np.int64)
        return self._source_rows

    @cached_property
    def partition_nnz(self) -> NDArray[np.int64]:
        """Stored values per partition, shape (n_partitions,); of a split it reads all `indptr`."""
        if self._ranges is None:
            return self._source_nnz
        edges = np.array([self._indptr(p)[[start, stop]] for p, start, stop in self._ranges])
        sizes: NDArray[np.int64] = edges[:, 1] - edges[:, 0]
        return sizes

    def partition(self, i: int) -> Partition:
        """Return partition `i`; from disk it is read and verified at every call.

        Parameters
        ----------
        i
            0 <= i < n_partitions.

        Raises
        ------
        CorruptChunk
            If a chunk is missing or fails its checksum.
        """
        if not 0 <= i < self.n_partitions:
            raise IndexError(f"partition {i!r} does not exist; use 0 to {self.n_partitions - 1}.")
        if self._ranges is None:
            return self._source(i)
        source, start, stop = (int(n) for n in self._ranges[i])
        return self._source(source).rows(start, stop)

    def split(self, fraction: float) -> tuple[Dataset, Dataset]:
        """Return two datasets that share this one's data: the first `fraction` of rows, the rest.

        Every partition is cut by rows, which were shuffled at ingest; nothing is copied.

        Parameters
        ----------
        fraction
            Share of the rows in the first dataset, between 0 and 1, both excluded.

        Raises
        ------
        DataError
            If one of the two would be empty.
        """
        first = round(self.n_rows * fraction) if 0 < fraction < 1 else 0
        if not 0 < first < self.n_rows:
            raise DataError(
                f"split({fraction!r}) of {self.n_rows} rows leaves one side empty; "
                "use a fraction between 0 and 1 that gives each side a row."
            )
        edges = np.concatenate(([0], np.cumsum(self.partition_rows)))
        # Differences of rounded cumulative shares: exact in total, within a row per partition.
        cuts = np.diff(np.rint(edges * (first / self.n_rows)).astype(np.int64))
        whole = self._whole_ranges()
        left, right = whole.copy(), whole.copy()
        left[:, 2] = right[:, 1] = whole[:, 1] + cuts
        return self._view(left), self._view(right)

    def label_counts(self) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
        """Return distinct labels, ascending, and their rows; None without labels or above 10,000.

        The labels are as in `Partition.label`: codes when `classes` is not None. Of a whole
        dataset the answer was stored at ingest; of a split all labels are read once.
        """
        labels, counts = self._manifest.labels, self._manifest.label_counts
        if labels is None or counts is None:
            return None
        values = np.array(labels, np.float64)
        if self._ranges is None:
            return values, np.array(counts, np.int64)
        found = np.zeros(len(values), np.int64)
        for source, start, stop in self._ranges:
            codes = np.searchsorted(values, self._label(int(source))[start:stop])
            found += np.bincount(codes, minlength=len(values))
        return values[found > 0], found[found > 0]

    def to_xarray(self) -> xr.Dataset:
        """Return the arrays of the on-disk format as an `xarray.Dataset`, lazily from disk.

        Pads hold NaN, -1 or the largest unsigned integer. A split has no such form.
        """
        if self._ranges is not None:
            raise DataError("to_xarray() of a split is not possible; call it before split().")
        store = self._store if self._parts is None else _written(self, self._parts)
        opened: xr.Dataset = xr.open_zarr(store)
        return opened

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        facts = " ".join(f"{name}={value}" for name, value in self._facts().items())
        return f"<daskps.Dataset {facts}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{value}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<b>daskps.Dataset</b><table>{rows}</table>"

    def _facts(self) -> dict[str, str]:
        counted = self.label_counts() if self._ranges is None else None
        facts = {
            "rows": f"{self.n_rows:,}",
            "features": f"{self.n_features:,}",
            "partitions": f"{self.n_partitions:,}",
            "labels": "none" if not self.has_label else "yes",
            "store": "memory" if self.store is None else self.store,
        }
        if self._ranges is None:
            facts["nnz"] = f"{self.nnz:,}"
        if counted is not None:
            facts["labels"] = f"{len(counted[0]):,} distinct"
        return facts

    def __getstate__(self) -> dict[str, Any]:
        # Caches and the open group stay here: workers open the store by themselves.
        names = ("_manifest", "_store", "_parts", "_ranges", "_memory_names")
        return {name: self.__dict__[name] for name in names}

    @cached_property
    def _group(self) -> zarr.Group:
        return open_group(self._store)

    @property
    def _where(self) -> str:
        return describe(self._store)

    @cached_property
    def _source_rows(self) -> NDArray[np.int64]:
        if self._parts is not None:
            return np.array([p.n_rows for p in self._parts], np.int64)
        return disk.read_row(self._group, "n_rows", None, self._manifest.n_partitions, self._where)

    @cached_property
    def _source_nnz(self) -> NDArray[np.int64]:
        if self._parts is not None:
            return np.array([p.nnz for p in self._parts], np.int64)
        return disk.read_row(self._group, "nnz", None, self._manifest.n_partitions, self._where)

    def _has(self, name: str) -> bool:
        if self._parts is not None:
            return any(getattr(part, name) is not None for part in self._parts)
        return name in self._group

    def _source(self, i: int) -> Partition:
        if self._parts is not None:
            return self._parts[i]
        rows, nnz = int(self._source_rows[i]), int(self._source_nnz[i])
        return disk.read_partition(self._group, i, rows, nnz, self.n_features, self._where)

    def _indptr(self, i: int) -> NDArray[np.int64]:
        if self._parts is not None:
            return self._parts[i].indptr
        return disk.read_row(self._group, "indptr", i, int(self._source_rows[i]) + 1, self._where)

    def _label(self, i: int) -> NDArray[np.float64]:
        if self._parts is not None:
            label = self._parts[i].label
            assert label is not None
            return label
        return disk.read_row(self._group, "label", i, int(self._source_rows[i]), self._where)

    def _whole_ranges(self) -> Ranges:
        if self._ranges is not None:
            return self._ranges
        rows = self._source_rows
        return np.stack([np.arange(len(rows)), np.zeros_like(rows), rows], axis=1)

    def _view(self, ranges: Ranges) -> Dataset:
        ranges = ranges[ranges[:, 2] > ranges[:, 1]]
        return Dataset(
            self._manifest,
            store=self._store,
            parts=self._parts,
            ranges=ranges,
            feature_names=self._memory_names,
        )


def _written(dataset: Dataset, parts: list[Partition]) -> MemoryStore:
    """Write partitions in the on-disk format to memory."""
    store, rows, nnz = MemoryStore(), dataset.partition_rows, dataset.partition_nnz
    group = zarr.open_group(store, mode="w")
    names = frozenset(n for n in ("values", "label", "weight") if dataset._has(n))
    disk.create(group, dataset._manifest, int(rows.max()), int(nnz.max()), names)
    for i, part in enumerate(parts):
        disk.write_partition(group, i, part)
    disk.finish(group, dataset._manifest, rows, nnz, dataset.feature_names)
    return store


def open_dataset(store: Any) -> Dataset:
    """Open a dataset that `read_svmlight` or `from_arrays` made.

    Parameters
    ----------
    store
        Path, URL, or anything else that `zarr.open_group` takes.

    Raises
    ------
    FileNotFoundError
        If nothing is there.
    DatasetFormatError
        If it is not a complete dataset of a version that is understood.
    CorruptChunk
        If the recorded partition sizes cannot be read.
    """
    resolved = resolve(store)
    group = open_group(resolved)
    manifest = disk.read_manifest(group, describe(resolved))
    dataset = Dataset(manifest, store=resolved)
    # Read now: damaged sizes must show here, not in a worker.
    found = dataset.n_rows, dataset.nnz
    if found != (manifest.n_rows, manifest.nnz):
        raise CorruptChunk(
            f"arrays 'n_rows' and 'nnz' of dataset {dataset.store!r} add up to {found!r}, expected "
            f"{(manifest.n_rows, manifest.nnz)!r}; restore them, or ingest the data again."
        )
    return dataset
