"""Datasets hold the rows they were given, on disk as in memory, whole and split."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from daskps.data import Dataset, as_dataset, from_arrays, open_dataset
from daskps.errors import DataError

RNG = np.random.default_rng(0)
X = scipy.sparse.random_array((203, 17), density=0.2, rng=1, format="csr", dtype=np.float32)
Y = np.arange(203.0)


def rows_by_label(dataset: Dataset) -> np.ndarray[Any, Any]:
    """Return the dense rows in the order of their (unique) labels."""
    parts = [dataset.partition(i) for i in range(dataset.n_partitions)]
    dense = np.concatenate([p.to_scipy().toarray() for p in parts])
    labels = np.concatenate([p.label for p in parts if p.label is not None])
    return dense[np.argsort(labels)]


@pytest.fixture(params=["memory", "disk"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    store = None if request.param == "memory" else tmp_path / "d.zarr"
    made = from_arrays(X, Y, store, sample_weight=Y + 1, n_partitions=4)
    return made if store is None else open_dataset(store)


def test_every_row_is_kept_once_with_its_label_and_weight(dataset: Dataset) -> None:
    np.testing.assert_array_equal(rows_by_label(dataset), X.toarray())
    for i in range(dataset.n_partitions):
        part = dataset.partition(i)
        assert part.label is not None
        assert part.weight is not None
        np.testing.assert_array_equal(part.label + 1, part.weight)


def test_sizes_are_known_without_reading(dataset: Dataset) -> None:
    assert (dataset.n_rows, dataset.nnz, dataset.n_features) == (203, X.nnz, 17)
    parts = [dataset.partition(i) for i in range(4)]
    np.testing.assert_array_equal(dataset.partition_rows, [p.n_rows for p in parts])
    np.testing.assert_array_equal(dataset.partition_nnz, [p.nnz for p in parts])
    for view in (dataset, *dataset.split(0.7)):
        for i in range(view.n_partitions):
            lengths = np.diff(view.partition(i).indptr)
            np.testing.assert_array_equal(view.row_lengths(i), lengths)
    assert np.ptp(dataset.partition_rows) <= 1
    assert dataset.index_dtype == parts[0].indices.dtype == np.uint32
    assert dataset.has_label
    assert dataset.has_weight
    assert len(dataset) == 203


def test_rows_are_shuffled_by_the_seed(dataset: Dataset) -> None:
    label = dataset.partition(0).label
    assert label is not None
    assert not np.array_equal(label, np.sort(label))
    again = from_arrays(X, Y, sample_weight=Y + 1, n_partitions=4).partition(0).label
    np.testing.assert_array_equal(label, again)
    other = from_arrays(X, Y, n_partitions=4, random_state=1).partition(0).label
    assert not np.array_equal(label, other)


def test_to_xarray_names_the_dimensions(dataset: Dataset) -> None:
    opened = dataset.to_xarray()
    assert opened["indices"].dims == ("partition", "nonzero")
    assert opened["label"].dims == ("partition", "row")
    assert opened["indptr"].dims == ("partition", "row_edge")
    np.testing.assert_array_equal(opened["n_rows"], dataset.partition_rows)
    assert float(opened["values"].sum()) == pytest.approx(X.sum(), rel=1e-5)


def test_open_zarr_needs_no_options(tmp_path: Path) -> None:
    from_arrays(X, Y, tmp_path / "d.zarr")
    assert set(xr.open_zarr(tmp_path / "d.zarr").sizes) == {
        "partition", "nonzero", "row", "row_edge"
    }  # fmt: skip


@given(fraction=st.floats(0.01, 0.99), n=st.integers(1, 9))
def test_split_shares_out_every_row_once(fraction: float, n: int) -> None:
    whole = from_arrays(X, Y, n_partitions=n)
    left, right = whole.split(fraction)
    assert left.n_rows == round(203 * fraction)
    assert left.n_rows + right.n_rows == 203
    assert left.nnz + right.nnz == whole.nnz
    labels = [p.partition(i).label for p in (left, right) for i in range(p.n_partitions)]
    np.testing.assert_array_equal(np.sort(np.concatenate(labels)), Y)


def test_split_of_a_split_on_disk_reads_the_same_rows_as_in_memory(tmp_path: Path) -> None:
    y = np.repeat(["a", "b", "c"], [3, 100, 100])
    on_disk = from_arrays(X, y, tmp_path / "d.zarr", n_partitions=3).split(0.7)[1].split(0.5)[0]
    memory = from_arrays(X, y, n_partitions=3).split(0.7)[1].split(0.5)[0]
    np.testing.assert_array_equal(on_disk.partition_nnz, memory.partition_nnz)
    for i in range(3):
        np.testing.assert_array_equal(on_disk.partition(i).indices, memory.partition(i).indices)
    counted, expected = on_disk.label_counts(), memory.label_counts()
    assert counted is not None
    assert expected is not None
    np.testing.assert_array_equal(counted[1], expected[1])
    assert counted[1].sum() == on_disk.n_rows


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 0.0001, float("nan")])
def test_split_that_leaves_a_side_empty_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match="one side empty"):
        from_arrays(X, Y).split(fraction)


def test_on_disk_dataset_pickles_small(tmp_path: Path) -> None:
    dataset = from_arrays(X, Y, tmp_path / "d.zarr", n_partitions=4).split(0.5)[0]
    dataset.partition(0)
    message = pickle.dumps(dataset)
    assert len(message) < 20_000
    np.testing.assert_array_equal(pickle.loads(message).partition(1).label,
                                  dataset.partition(1).label)  # fmt: skip


def test_relative_path_is_found_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = from_arrays(X, Y, "d.zarr")
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(dataset)).partition(0).n_rows > 0


def test_label_counts_are_recorded_at_ingest(tmp_path: Path) -> None:
    y = np.repeat(["b", "a"], [3, 200])
    dataset = from_arrays(X, y, tmp_path / "d.zarr")
    opened = open_dataset(tmp_path / "d.zarr")
    for each in (dataset, opened):
        counted = each.label_counts()
        assert counted is not None
        assert counted[1].tolist() == [200, 3]
        assert each.classes is not None
        assert each.classes.tolist() == ["a", "b"]
    assert "2 distinct" in repr(opened)
    assert "203" in opened._repr_html_()


def test_too_many_labels_are_not_counted() -> None:
    wide = scipy.sparse.eye_array(10_001, format="csr")
    dataset = from_arrays(wide, np.arange(10_001.0))
    assert dataset.label_counts() is None
    assert dataset.classes is None


def test_as_dataset_takes_datasets_and_paths(tmp_path: Path) -> None:
    dataset = from_arrays(X, Y, tmp_path / "d.zarr")
    assert as_dataset(dataset) is dataset
    assert as_dataset(str(tmp_path / "d.zarr")).n_rows == 203
    assert as_dataset(X, Y, n_partitions=2).n_partitions == 2
    with pytest.raises(DataError, match="y, sample_weight cannot be given with a dataset"):
        as_dataset(dataset, Y, Y)


def test_feature_names_are_kept_beside_the_data(tmp_path: Path) -> None:
    names = [f"wörd {i}" for i in range(17)]
    from_arrays(X, Y, tmp_path / "d.zarr", feature_names=names)
    for each in (open_dataset(tmp_path / "d.zarr"), from_arrays(X, feature_names=names)):
        assert each.feature_names is not None
        assert each.feature_names.tolist() == names
    assert from_arrays(X).feature_names is None
    assert "feature_name" in xr.open_zarr(tmp_path / "d.zarr")
    with pytest.raises(DataError, match="expected 17 strings"):
        from_arrays(X, feature_names=names[:3])


def test_partition_that_does_not_exist_is_refused() -> None:
    with pytest.raises(IndexError, match="use 0 to 0"):
        from_arrays(X, n_partitions=1).partition(1)


def test_existing_store_is_only_replaced_when_told(tmp_path: Path) -> None:
    from_arrays(X, Y, tmp_path / "d.zarr")
    with pytest.raises(DataError, match="overwrite=True"):
        from_arrays(X, Y, tmp_path / "d.zarr")
    assert from_arrays(X[:9], Y[:9], tmp_path / "d.zarr", overwrite=True).n_rows == 9
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="never overwritten"):
        from_arrays(X, Y, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_pads_take_no_space_on_disk(tmp_path: Path) -> None:
    columns = np.append(np.arange(10**6), 3)
    rows = np.append(np.zeros(10**6, int), 1)
    wide = scipy.sparse.coo_array((columns + 1.0, (rows, columns)), shape=(2, 10**6))
    from_arrays(wide, [0.0, 1.0], tmp_path / "d.zarr", n_partitions=2, shuffle=False)
    for name in ("indices", "values"):
        long, short = ((tmp_path / "d.zarr" / name / "c" / i / "0").stat().st_size for i in "01")
        assert short < 1000 < long
