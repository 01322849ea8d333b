"""Every accepted kind of matrix becomes the same dataset; labels of every kind are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sparse
import xarray as xr
import zarr

from daskps.data import Dataset, as_dataset, from_arrays, open_dataset
from daskps.data.partition import Partition
from daskps.errors import DataError

CSR = scipy.sparse.random_array((60, 8), density=0.3, rng=0, format="csr", dtype=np.float32)
DENSE = CSR.toarray()
Y = np.arange(60.0)


def ordered(dataset: Dataset) -> np.ndarray[Any, Any]:
    parts = [dataset.partition(i) for i in range(dataset.n_partitions)]
    label = np.concatenate([p.label for p in parts if p.label is not None])
    return np.concatenate([p.to_scipy().toarray() for p in parts])[np.argsort(label)]


def blocks(of: Callable[[Any], Any]) -> Any:
    """Return a dask array of three row blocks of the kind that `of` makes."""
    lazy = da.from_array(DENSE, chunks=(25, 8))
    return lazy.map_blocks(of, dtype=DENSE.dtype, meta=DENSE[:0])


def unknown(X: Any) -> Any:
    """Return `X` without the sizes of its row blocks."""
    X = X.copy()
    X._chunks = ((float("nan"),) * X.numblocks[0], *X.chunks[1:])
    return X


MATRICES = {
    "numpy": DENSE,
    "float64": DENSE.astype(np.float64),
    "fortran": np.asfortranarray(DENSE),
    "list": DENSE.tolist(),
    "objects": DENSE.astype(object),
    **{f"scipy-{f}": CSR.asformat(f) for f in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia")},
    "scipy-matrix": scipy.sparse.csr_matrix(CSR),
    "sparse-coo": sparse.COO.from_scipy_sparse(CSR),
    "sparse-gcxs": sparse.GCXS.from_scipy_sparse(CSR),
    "sparse-gcxs-columns": sparse.GCXS(sparse.COO(DENSE), compressed_axes=(1,)),
    "sparse-dok": sparse.DOK.from_coo(sparse.COO(DENSE)),
    "pandas": pd.DataFrame(DENSE),
    "xarray": xr.DataArray(DENSE),
    "xarray-sparse": xr.DataArray(sparse.COO(DENSE)),
    "xarray-dask": xr.DataArray(da.from_array(DENSE, chunks=(25, 8))),
    "dask-numpy": da.from_array(DENSE, chunks=(25, 8)),
    "dask-columns": da.from_array(DENSE, chunks=(25, 3)),
    "dask-unknown": unknown(da.from_array(DENSE, chunks=(25, 8))),
    "dask-scipy": blocks(scipy.sparse.csr_matrix),
    "dask-scipy-array": blocks(scipy.sparse.csc_array),
    "dask-sparse": blocks(sparse.COO),
    "dask-gcxs": blocks(sparse.GCXS),
    "dask-gcxs-unknown": unknown(blocks(sparse.GCXS)),
}


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("kind", MATRICES)
def test_every_matrix_is_the_same_dataset(kind: str, on_disk: bool, tmp_path: Path) -> None:
    store = tmp_path / "d.zarr" if on_disk else None
    dataset = from_arrays(MATRICES[kind], Y, store, sample_weight=Y + 1, n_partitions=4)
    np.testing.assert_array_equal(ordered(dataset), DENSE)
    assert dataset.partition_rows.tolist() == [15] * 4
    part = dataset.partition(0)
    assert isinstance(part, Partition)
    assert part.label is not None
    np.testing.assert_array_equal(part.weight, part.label + 1)


LAZY = da.from_array(Y, chunks=25)


@pytest.mark.parametrize("X", ["numpy", "scipy-csr", "dask-numpy", "dask-unknown", "dask-scipy"])
@pytest.mark.parametrize(
    "y",
    [
        pytest.param(Y, id="numpy"),
        pytest.param(pd.Series(Y, index=Y[::-1]), id="pandas"),
        pytest.param(xr.DataArray(Y), id="xarray"),
        pytest.param(LAZY, id="dask"),
        pytest.param(xr.DataArray(LAZY), id="xarray-dask"),
        pytest.param(unknown(LAZY), id="dask-unknown"),
    ],
)
def test_labels_of_every_kind_stay_with_their_rows(X: str, y: Any) -> None:
    np.testing.assert_array_equal(ordered(from_arrays(MATRICES[X], y, sample_weight=y)), DENSE)


def test_other_blocks_of_labels_are_rechunked() -> None:
    lazy = da.from_array(Y, chunks=7)
    np.testing.assert_array_equal(ordered(from_arrays(MATRICES["dask-numpy"], lazy)), DENSE)


@pytest.mark.parametrize(
    ("X", "y", "expected"),
    [
        ("dask-numpy", Y[:-1], "y has 59 entries but X has 60 rows"),
        ("dask-unknown", Y[:-1], "y has 59 entries but X has 60 rows"),
        ("dask-numpy", LAZY[:-1], "y has 59 entries but X has 60 rows"),
        ("dask-unknown", LAZY.rechunk(30), "2 blocks and X has 3.*compute_chunk_sizes"),
        ("dask-unknown", LAZY.rechunk((20, 20, 20)), "20 labels but X has 25 rows of block 0"),
    ],
)
def test_labels_that_do_not_fit_blocks(X: str, y: Any, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        from_arrays(MATRICES[X], y)


def test_bad_value_names_the_block() -> None:
    X = DENSE.copy()
    X[26, 3] = np.nan
    with pytest.raises(DataError, match="row 1 of block 1, column 3 holds nan"):
        from_arrays(da.from_array(X, chunks=(25, 8)), Y)
    with pytest.raises(DataError, match=r"fill value 1\.0"):
        from_arrays(sparse.COO(DENSE, fill_value=np.float32(1)))


def test_string_labels_of_blocks_become_codes_of_all_classes() -> None:
    y = np.array(["c"] * 25 + ["a", "b"] * 12 + ["d"] * 11)
    dataset = from_arrays(MATRICES["dask-numpy"], da.from_array(y, chunks=25), n_partitions=3)
    assert dataset.classes is not None
    assert dataset.classes.tolist() == ["a", "b", "c", "d"]
    counted = dataset.label_counts()
    assert counted is not None
    assert counted[1].tolist() == [12, 12, 25, 11]
    for i in range(3):
        part = dataset.partition(i)
        assert part.label is not None
        for row, name in zip(part.to_scipy().toarray(), dataset.classes[part.label.astype(int)],
                             strict=True):  # fmt: skip
            assert name in y[(row == DENSE).all(axis=1)]


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        pytest.param(np.array(["no", "yes"] * 30), ["no", "yes"], id="str"),
        pytest.param(np.array(["no", "yes"] * 30, object), ["no", "yes"], id="object"),
        pytest.param(np.array([False, True] * 30), [False, True], id="bool"),
        pytest.param(pd.Series(["no", "yes"] * 30), ["no", "yes"], id="pandas"),
        pytest.param(pd.Series(["no", "yes"] * 30, dtype="category"), ["no", "yes"], id="category"),
        pytest.param(np.array([1, 2] * 30), None, id="int"),
        pytest.param(np.array([1, 2] * 30, object), None, id="int-object"),
    ],
)
def test_kinds_of_labels(y: Any, classes: list[Any] | None, tmp_path: Path) -> None:
    from_arrays(DENSE, y, tmp_path / "d.zarr")
    dataset = open_dataset(tmp_path / "d.zarr")
    assert (None if dataset.classes is None else dataset.classes.tolist()) == classes
    counted = dataset.label_counts()
    assert counted is not None
    assert counted[0].tolist() == ([0, 1] if classes else [1, 2])


def test_data_without_labels_has_none(tmp_path: Path) -> None:
    for dataset in (from_arrays(DENSE), from_arrays(DENSE, None, tmp_path / "d.zarr")):
        assert not dataset.has_label
        assert not dataset.has_weight
        assert dataset.partition(0).label is None
        assert dataset.label_counts() is None
        assert "labels=none" in repr(dataset)


@pytest.mark.parametrize("kind", ["numpy", "dask-numpy"])
def test_without_shuffle_rows_keep_their_order(kind: str, tmp_path: Path) -> None:
    for store in (None, tmp_path / "d.zarr"):
        dataset = from_arrays(MATRICES[kind], Y, store, shuffle=False, n_partitions=4)
        labels = [dataset.partition(i).label for i in range(4)]
        np.testing.assert_array_equal(np.concatenate(labels), Y)
        assert dataset.partition_nnz.max() < 1.4 * dataset.partition_nnz.min()


def test_duplicates_are_summed_and_the_input_is_left_alone() -> None:
    matrix = scipy.sparse.csr_array(
        (np.ones(3, np.float32), np.array([2, 0, 2]), np.array([0, 3])), shape=(1, 3)
    )
    assert ordered(from_arrays(matrix, [0.0])).tolist() == [[1, 0, 2]]
    assert matrix.indices.tolist() == [2, 0, 2]


def test_wide_matrix_has_64_bit_columns(tmp_path: Path) -> None:
    width = 2**32 + 5
    matrix = scipy.sparse.coo_array(([1.0, 2.0], ([0, 1], [width - 1, 3])), shape=(2, width))
    from_arrays(matrix, [0.0, 1.0], tmp_path / "d.zarr", n_partitions=1, shuffle=False)
    part = open_dataset(tmp_path / "d.zarr").partition(0)
    assert part.indices.dtype == np.uint64
    assert part.indices.tolist() == [width - 1, 3]
    assert from_arrays(scipy.sparse.coo_array((1, 2**32 - 1))).index_dtype == np.uint32
    assert from_arrays(scipy.sparse.coo_array((1, 2**32))).index_dtype == np.uint64


def test_rows_without_values_are_kept(tmp_path: Path) -> None:
    for store in (None, tmp_path / "d.zarr"):
        dataset = from_arrays(scipy.sparse.csr_array((5, 3)), np.ones(5), store, n_partitions=2)
        assert (dataset.n_rows, dataset.nnz) == (5, 0)
        assert dataset.partition(1).to_scipy().shape[1] == 3


def test_columns_of_a_dataframe_are_feature_names() -> None:
    frame = pd.DataFrame(DENSE, columns=list("abcdefgh"))
    dataset = from_arrays(frame)
    assert dataset.feature_names is not None
    assert "".join(dataset.feature_names) == "abcdefgh"


@pytest.mark.parametrize("lazy", [True, False])
def test_to_xarray_comes_back_as_the_same_rows(tmp_path: Path, lazy: bool) -> None:
    y = np.array([f"label {i:02}" for i in range(60)])
    names = [f"f{i}" for i in range(8)]
    made = from_arrays(CSR, y, tmp_path / "d.zarr", sample_weight=Y + 1, feature_names=names)
    opened = xr.open_zarr(tmp_path / "d.zarr")
    again = as_dataset(opened if lazy else opened.load())
    np.testing.assert_array_equal(ordered(again), DENSE)
    assert again.classes is not None
    assert again.classes.tolist() == y.tolist()
    assert again.feature_names is not None
    assert again.feature_names.tolist() == names
    assert again.nnz == made.nnz
    with pytest.raises(DataError, match=r"lacks \['indices'\]"):
        as_dataset(opened.drop_vars("indices"))


def test_stores_of_every_kind(tmp_path: Path) -> None:
    memory = zarr.storage.MemoryStore()
    local = zarr.storage.LocalStore(tmp_path / "a.zarr")
    for store in (memory, local, f"file://{tmp_path}/b c.zarr", "memory://daskps-test/d.zarr"):
        from_arrays(MATRICES["dask-numpy"], Y, store, n_partitions=3)
        np.testing.assert_array_equal(ordered(open_dataset(store)), DENSE)
        with pytest.raises(DataError, match="overwrite=True"):
            from_arrays(DENSE, Y, store)
    assert as_dataset(memory).n_partitions == 3


def test_random_state_none_is_new_every_time() -> None:
    first, second = (from_arrays(CSR, Y, random_state=None).partition(0).label for _ in range(2))
    assert not np.array_equal(first, second)
    with pytest.raises(TypeError, match="expected an integer or None"):
        from_arrays(CSR, Y, random_state="seed")


def test_bits_do_not_depend_on_the_scheduler(tmp_path: Path) -> None:
    found = []
    for i, scheduler in enumerate(["synchronous", "threads"]):
        with dask.config.set(scheduler=scheduler):
            made = from_arrays(MATRICES["dask-scipy"], Y, tmp_path / f"{i}.zarr", n_partitions=3)
        found.append([made.partition(k).values.tobytes() for k in range(3)])
    assert found[0] == found[1]
