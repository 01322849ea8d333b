"""`Dataset`: partitions on disk or in memory, and views of them.

Owns random access to partitions, splits, and pickling. Does not make datasets (see `ingest`,
`arrays` and `svmlight`).
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import msgspec
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from daskps import html
from daskps.errors import CorruptChunk, DataError

from . import format as disk
from .format import Hashing, Manifest
from .hashing import hashed
from .partition import Partition
from .sources import MappedSource, PartitionSource, StoreSource
from .stores import describe, open_group, resolve

Ranges = NDArray[np.int64]
"""A view: (source partition, first row, end row) per partition, shape (n_partitions, 3)."""


class Dataset:
    """CSR partitions with labels and weights, on disk or in memory.

    Made by `read_svmlight`, `from_arrays` and `open_dataset`, not directly. A dataset on disk
    pickles as its store and its row ranges, so that any worker can open it by itself.
    """

    def __init__(
        self, manifest: Manifest, source: PartitionSource, ranges: Ranges | None = None
    ) -> None:
        self._manifest = manifest
        self._source = source
        self._ranges = ranges

    @property
    def in_memory(self) -> bool:
        """Whether the partitions are held by this object."""
        return self._source.name is None

    @property
    def store(self) -> str | None:
        """Path, URL or name of the store; None in memory."""
        return self._source.name

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self._manifest.n_features

    @property
    def index_dtype(self) -> np.dtype[Any]:
        """Data type of column ids, uint32 or uint64."""
        return disk.index_dtype(self.n_features)

    @property
    def hashing(self) -> Hashing | None:
        """How column ids were hashed, None where they are as in the source."""
        return self._manifest.hashing

    def hashed(self, how: Hashing) -> Dataset:
        """Return a view of this dataset through a hash of its column ids."""
        assert self.hashing is None, self
        changes = {"n_features": how.n_columns, "hashing": how}
        manifest = msgspec.structs.replace(self._manifest, **changes)
        source = MappedSource(self._source, partial(hashed, how=how))
        return Dataset(manifest, source, self._ranges)

    @property
    def has_label(self) -> bool:
        """Whether rows have labels."""
        return self._source.has("label")

    @property
    def has_weight(self) -> bool:
        """Whether rows have sample weights."""
        return self._source.has("weight")

    @property
    def classes(self) -> NDArray[Any] | None:
        """What label codes stand for, ascending; None when labels are numbers or absent."""
        classes = self._manifest.classes
        return None if classes is None else np.array(classes)

    @property
    def feature_names(self) -> NDArray[Any] | None:
        """Names of the columns, shape (n_features,); None when none were given."""
        return self._source.feature_names

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
        return self._source.rows

    @cached_property
    def partition_nnz(self) -> NDArray[np.int64]:
        """Stored values per partition, shape (n_partitions,); of a split it reads all `indptr`."""
        if self._ranges is None:
            return self._source.nnz
        edges = np.array([self._source.indptr(p)[[start, stop]] for p, start, stop in self._ranges])
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
            return self._source.partition(i)
        source, start, stop = (int(n) for n in self._ranges[i])
        return self._source.partition(source).rows(start, stop)

    def row_lengths(self, i: int) -> NDArray[np.int64]:
        """Return how many stored values each row of partition `i` has; on disk no others are read.

        Parameters
        ----------
        i
            0 <= i < n_partitions.
        """
        if self._ranges is None:
            return np.diff(self._source.indptr(i))
        source, start, stop = (int(n) for n in self._ranges[i])
        return np.diff(self._source.indptr(source)[start : stop + 1])

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
            codes = np.searchsorted(values, self._source.label(int(source))[start:stop])
            found += np.bincount(codes, minlength=len(values))
        return values[found > 0], found[found > 0]

    def to_xarray(self) -> xr.Dataset:
        """Return the arrays of the on-disk format as an `xarray.Dataset`, lazily from disk.

        Pads hold NaN, -1 or the largest unsigned integer. A split has no such form.
        """
        if self._ranges is not None:
            raise DataError("to_xarray() of a split is not possible; call it before split().")
        opened: xr.Dataset = xr.open_zarr(self._source.target(self._manifest))
        return opened

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        facts = " ".join(f"{name}={value}" for name, value in self._facts().items())
        return f"<daskps.Dataset {facts}>"

    def _repr_html_(self) -> str:
        return html.facts("daskps.Dataset", self._facts())

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

    def _whole_ranges(self) -> Ranges:
        if self._ranges is not None:
            return self._ranges
        rows = self._source.rows
        return np.stack([np.arange(len(rows)), np.zeros_like(rows), rows], axis=1)

    def _view(self, ranges: Ranges) -> Dataset:
        ranges = ranges[ranges[:, 2] > ranges[:, 1]]
        return Dataset(self._manifest, self._source, ranges)


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
    dataset = Dataset(manifest, StoreSource(resolved, manifest))
    # Read now: damaged sizes must show here, not in a worker.
    found = dataset.n_rows, dataset.nnz
    if found != (manifest.n_rows, manifest.nnz):
        raise CorruptChunk(
            f"arrays 'n_rows' and 'nnz' of dataset {dataset.store!r} add up to {found!r}, expected "
            f"{(manifest.n_rows, manifest.nnz)!r}; restore them, or ingest the data again."
        )
    return dataset
