"""Every kind of data that `fit` takes gives one model, every kind of labels its classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import sparse
import xarray as xr
from scipy import sparse as sp
from sklearn.datasets import dump_svmlight_file
from small import Data, fitted

import daskps


def unknown(X: da.Array) -> da.Array:
    """Return the same blocks with sizes that dask does not know."""
    return da.Array(X.dask, X.name, ((np.nan,) * len(X.chunks[0]), X.chunks[1]), meta=X._meta)


def blocks(X: Any) -> da.Array:
    return da.from_array(np.asarray(X), chunks=(150, -1))


IN_MEMORY: dict[str, Callable[[Any], Any]] = {
    "list": lambda X: X.tolist(),
    "float64": lambda X: X.astype(np.float64),
    "fortran": np.asfortranarray,
    "csr_matrix": sp.csr_matrix,
    "csr_array": sp.csr_array,
    "csc_matrix": sp.csc_matrix,
    "csc_array": sp.csc_array,
    "coo_matrix": sp.coo_matrix,
    "coo_array": sp.coo_array,
    "pydata COO": sparse.COO.from_numpy,
    "pydata GCXS": sparse.GCXS.from_numpy,
    "pandas": pd.DataFrame,
    "xarray": lambda X: xr.DataArray(X, dims=("row", "feature")),
    "xarray of pydata": lambda X: xr.DataArray(sparse.COO.from_numpy(X), dims=("a", "b")),
}
BLOCKED: dict[str, Callable[[Any], Any]] = {
    "numpy": blocks,
    "numpy, unknown sizes": lambda X: unknown(blocks(X)),
    "scipy": lambda X: blocks(X).map_blocks(sp.csr_array),
    "scipy, unknown sizes": lambda X: unknown(blocks(X).map_blocks(sp.csr_matrix)),
    "pydata": lambda X: blocks(X).map_blocks(sparse.COO.from_numpy),
    "xarray of dask": lambda X: xr.DataArray(blocks(X), dims=("row", "feature")),
}


@pytest.mark.parametrize("kind", IN_MEMORY)
def test_matrix_in_memory_gives_the_model_of_numpy(binary: Data, kind: str) -> None:
    clf = fitted(IN_MEMORY[kind](binary.X), binary.y)
    np.testing.assert_array_equal(clf.coef_, fitted(binary.X, binary.y).coef_)
    assert clf.score(IN_MEMORY[kind](binary.X), binary.y) == clf.score(binary.X, binary.y)


@pytest.mark.parametrize("kind", BLOCKED)
def test_dask_blocks_give_one_model_whatever_is_in_them(binary: Data, kind: str) -> None:
    X, y = BLOCKED[kind](binary.X), da.from_array(binary.y, chunks=150)
    clf = fitted(X, y)
    np.testing.assert_array_equal(clf.coef_, fitted(blocks(binary.X), y).coef_)
    np.testing.assert_array_equal(clf.predict(X), clf.predict(binary.X))
    assert clf.classes_.dtype == binary.y.dtype


def test_dask_dataframe_is_taken(binary: Data) -> None:
    pytest.importorskip("pyarrow", reason="dask.dataframe needs pyarrow")
    import dask.dataframe as dd

    frame = dd.from_pandas(pd.DataFrame(binary.X), npartitions=3)
    clf = fitted(frame, dd.from_pandas(pd.Series(binary.y), npartitions=3))
    assert clf.score(frame, binary.y) > 0.7


def test_dataset_path_and_xarray_dataset_give_the_same_model(binary: Data, tmp_path: Path) -> None:
    dataset = daskps.from_arrays(binary.X, binary.y, tmp_path / "d.zarr")
    expected = fitted(binary.X, binary.y)
    for source in (dataset, tmp_path / "d.zarr", str(tmp_path / "d.zarr")):
        clf = fitted(source)
        np.testing.assert_array_equal(clf.coef_, expected.coef_)
        assert clf.score(source) == clf.score(dataset)
    assert fitted(dataset.to_xarray()).score(dataset) > 0.7


def test_svmlight_labels_are_numbers(binary: Data, tmp_path: Path) -> None:
    dump_svmlight_file(binary.X, binary.y * 2 - 1, str(tmp_path / "rows"))
    clf = fitted(daskps.read_svmlight(tmp_path / "rows"))
    np.testing.assert_array_equal(clf.classes_, [-1.0, 1.0])


NAMES = {
    "int64": np.array([3, -1, 7]),
    "uint8": np.array([0, 1, 2], np.uint8),
    "float": np.array([0.0, 1.0, 2.0]),
    "strings": np.array(["zebra", "ant", "bee"]),
    "objects": np.array(["zebra", "ant", "bee"], object),
}


@pytest.mark.parametrize("kind", NAMES)
def test_labels_come_back_as_they_were(multinomial: Data, kind: str) -> None:
    y = NAMES[kind][multinomial.y]
    clf = fitted(multinomial.X, y)
    assert clf.classes_.tolist() == sorted(NAMES[kind].tolist())
    if NAMES[kind].dtype != object:
        assert clf.classes_.dtype == y.dtype
    assert clf.predict(multinomial.X).dtype == clf.classes_.dtype
    accuracy = np.mean(clf.predict(multinomial.X) == y)
    assert clf.score(multinomial.X, y) == pytest.approx(accuracy)
    assert accuracy > 0.6


@pytest.mark.parametrize(
    "y",
    [
        pytest.param(lambda y: y == 1, id="bool"),
        pytest.param(lambda y: (y == 1).tolist(), id="list of bool"),
    ],
)
def test_booleans_stay_booleans(binary: Data, y: Callable[[Any], Any]) -> None:
    clf = fitted(binary.X, y(binary.y))
    assert clf.classes_.dtype == bool
    assert clf.score(binary.X, y(binary.y)) > 0.7


@pytest.mark.parametrize("kind", ["list", "Int64", "Series"])
def test_integers_stay_integers_in_other_containers(binary: Data, kind: str) -> None:
    y = {"list": list, "Int64": lambda y: pd.array(y, "Int64"), "Series": pd.Series}[kind]
    clf = fitted(binary.X, y(binary.y.tolist()))
    assert clf.classes_.dtype.kind == "i"


def test_predictions_stand_in_the_order_of_the_rows(multinomial: Data) -> None:
    clf = fitted(multinomial.X, multinomial.y)
    margins = multinomial.X @ clf.coef_.T + clf.intercept_
    np.testing.assert_allclose(clf.decision_function(multinomial.X), margins, atol=1e-4)
    for kind in (*IN_MEMORY, *BLOCKED):
        X = {**IN_MEMORY, **BLOCKED}[kind](multinomial.X)
        np.testing.assert_array_equal(clf.predict(X), clf.classes_[margins.argmax(1)], kind)


@pytest.mark.parametrize("k", [2, 3])
def test_shapes_of_what_is_learnt_and_predicted(k: int, binary: Data, multinomial: Data) -> None:
    data, width = (binary, 1) if k == 2 else (multinomial, 3)
    clf, n = fitted(data.X, data.y), len(data.X)
    assert clf.coef_.shape == (width, data.X.shape[1])
    assert clf.intercept_.shape == (width,)
    assert clf.coef_.dtype == clf.intercept_.dtype == np.float32
    assert clf.decision_function(data.X).shape == ((n,) if k == 2 else (n, 3))
    proba = clf.predict_proba(data.X)
    assert proba.shape == (n, k)
    np.testing.assert_allclose(proba.sum(1), 1)
    np.testing.assert_array_equal(clf.classes_[proba.argmax(1)], clf.predict(data.X))
    assert clf.n_features_in_ == data.X.shape[1]


def test_dataset_with_fewer_columns_is_predicted_on(binary: Data) -> None:
    clf = fitted(binary.X, binary.y)
    narrow = daskps.from_arrays(binary.X[:, :5], shuffle=False)
    padded = np.hstack([binary.X[:, :5], np.zeros_like(binary.X[:, 5:])])
    np.testing.assert_array_equal(clf.predict(narrow), clf.predict(padded))


def test_scoring_a_dataset_reads_one_partition_at_a_time(
    binary: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = daskps.from_arrays(binary.X, binary.y, tmp_path / "d.zarr", n_partitions=4)
    clf, reads = fitted(dataset), []
    read = daskps.Dataset.partition
    monkeypatch.setattr(
        daskps.Dataset, "partition", lambda self, i: (reads.append(i), read(self, i))[1]
    )
    clf.score(dataset)
    assert reads == [0, 1, 2, 3]
