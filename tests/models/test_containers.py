"""Predictions come lazily in the container of the rows, and are those of numpy."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import sparse
import xarray as xr
from scipy import sparse as sp
from small import Data, fitted

import daskps
from daskps import LogisticRegression
from daskps.errors import DataError
from daskps.models import answers

METHODS = ("decision_function", "predict_proba", "predict")
BLOCKS: dict[str, Callable[[Any], Any]] = {
    "numpy": np.asarray,
    "scipy": sp.csr_array,
    "pydata": sparse.COO.from_numpy,
}


@pytest.fixture(scope="module")
def models(binary: Data, multinomial: Data) -> list[tuple[LogisticRegression, Data]]:
    names = np.array(["low", "middle", "top"])
    return [
        (fitted(binary.X, binary.y), binary),
        (fitted(multinomial.X, names[multinomial.y]), multinomial),
    ]


def blocks(X: Any, kind: str, *, unknown: bool) -> da.Array:
    """Return chunks of 150 rows and two of columns where dask can join them."""
    lazy = da.from_array(np.asarray(X), chunks=(150, 5 if kind == "numpy" else -1))
    lazy = lazy.map_blocks(BLOCKS[kind])
    if unknown:
        nans = (np.nan,) * lazy.numblocks[0]
        lazy = da.Array(lazy.dask, lazy.name, (nans, lazy.chunks[1]), meta=lazy._meta)
    return lazy


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("method", METHODS)
def test_dask_array_gives_a_dask_array_with_the_same_rows_in_chunks(
    models: list[Any], method: str, kind: str, unknown: bool
) -> None:
    for clf, data in models:
        X = blocks(data.X, kind, unknown=unknown)
        found, expected = getattr(clf, method)(X), getattr(clf, method)(data.X)
        assert isinstance(found, da.Array)
        assert repr(found.chunks[0]) == repr(X.chunks[0])
        assert found.dtype == expected.dtype
        assert found.ndim == expected.ndim
        np.testing.assert_array_equal(found.compute(), expected)


def test_nothing_is_read_before_it_is_asked_for(models: list[Any]) -> None:
    def fail(block: Any) -> Any:
        raise AssertionError("this block was read")

    clf, data = models[0]
    X = blocks(data.X, "numpy", unknown=False)
    broken = da.concatenate([X, X.map_blocks(fail, meta=X._meta)])
    found = clf.predict_proba(broken)
    np.testing.assert_array_equal(found[: len(data.X)].compute(), clf.predict_proba(data.X))


def test_empty_blocks_are_answered(models: list[Any]) -> None:
    clf, data = models[1]
    X = blocks(data.X, "numpy", unknown=False)
    found = clf.predict(X[X[:, 0] > np.inf])
    assert found.compute().shape == (0,)
    assert clf.predict_proba(X[X[:, 0] > np.inf]).compute().shape == (0, 3)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_data_array_gives_a_data_array_with_its_coordinates(
    models: list[Any], method: str, lazy: bool
) -> None:
    for clf, data in models:
        n, d = data.X.shape
        coords = {
            "user": np.arange(n) * 10,
            "region": ("user", np.arange(n) % 3),
            "word": [f"w{i}" for i in range(d)],
            "run": 7,
        }
        X = xr.DataArray(data.X, coords, ("user", "word"), name="counts")
        found = getattr(clf, method)(X.chunk(user=150) if lazy else X)
        expected = getattr(clf, method)(data.X)
        assert isinstance(found, xr.DataArray)
        assert found.dims == ("user", "class")[: expected.ndim]
        assert set(found.coords) - {"class"} == {"user", "region", "run"}
        xr.testing.assert_identical(
            found["region"].drop_vars("class", errors="ignore"), X["region"]
        )
        if expected.ndim == 2:
            np.testing.assert_array_equal(found["class"], clf.classes_)
        assert isinstance(found.data, da.Array) == lazy
        np.testing.assert_array_equal(found, expected)


def test_pandas_gives_numpy_as_scikit_learn_does(models: list[Any]) -> None:
    clf, data = models[1]
    for method in METHODS:
        found = getattr(clf, method)(pd.DataFrame(data.X))
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, getattr(clf, method)(data.X))


@pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="dask.dataframe needs pyarrow"
)
@pytest.mark.parametrize("method", METHODS)
def test_dask_frame_keeps_its_index(models: list[Any], method: str) -> None:
    import dask.dataframe as dd

    for clf, data in models:
        frame = pd.DataFrame(data.X, index=np.arange(len(data.X)) * 2)
        lazy = getattr(clf, method)(dd.from_pandas(frame, npartitions=3))
        expected = getattr(clf, method)(data.X)
        found = lazy.compute()
        assert lazy.divisions == dd.from_pandas(frame, npartitions=3).divisions
        np.testing.assert_array_equal(found.index, frame.index)
        np.testing.assert_array_equal(found.to_numpy(), expected)
        if expected.ndim == 2:
            assert list(found.columns) == list(lazy.columns) == clf.classes_.tolist()


@pytest.mark.parametrize("kind", ["path", "dataset", "split"])
def test_stored_dataset_is_read_partition_by_partition(
    models: list[Any], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clf, data = models[1]
    dataset = daskps.from_arrays(data.X, None, tmp_path / "d.zarr", n_partitions=4)
    if kind == "split":
        dataset = dataset.split(0.5)[0]
    X: Any = tmp_path / "d.zarr" if kind == "path" else dataset
    read, reads = daskps.Dataset.partition, []
    monkeypatch.setattr(
        daskps.Dataset, "partition", lambda self, i: (reads.append(i), read(self, i))[1]
    )
    found = clf.predict_proba(X)
    assert isinstance(found, da.Array)
    assert found.chunks == (tuple(dataset.partition_rows), (3,))
    assert reads == []
    second = found.blocks[1].compute()
    assert reads == [1]
    rows = dataset.partition(1).to_scipy()
    np.testing.assert_array_equal(second, clf.predict_proba(rows))
    assert found.compute().shape == (dataset.n_rows, 3)


def test_weights_stand_once_in_the_graph(models: list[Any]) -> None:
    clf, data = models[0]
    X = da.from_array(data.X, chunks=(10, -1))
    graph = dict(clf.predict(X).dask)
    holders = [key for key, task in graph.items() if "LinearScore" in repr(task)]
    assert len(holders) == 1


def test_bad_rows_are_refused(models: list[Any]) -> None:
    clf, data = models[0]
    with pytest.raises(DataError, match="9 features, but LogisticRegression is expecting 8"):
        clf.predict(da.zeros((10, 9), chunks=5))
    with pytest.raises(DataError, match=r"expected \(rows, columns\)"):
        clf.predict(da.zeros(10, chunks=5))
    X = data.X.copy()
    X[160, 3] = np.nan
    with dask.config.set(scheduler="sync"), pytest.raises(DataError, match="row 10 of block 1"):
        clf.predict(blocks(X, "numpy", unknown=False)).compute()
    wide = blocks(np.hstack([data.X, data.X]), "numpy", unknown=False)
    wide = wide.rechunk({1: -1})
    wide = da.Array(wide.dask, wide.name, (wide.chunks[0], (np.nan,)), meta=wide._meta)
    with dask.config.set(scheduler="sync"), pytest.raises(DataError, match="16 features"):
        clf.predict(wide).compute()


@pytest.mark.cluster
def test_workers_answer_where_there_is_a_client(
    models: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    clf, data = models[1]
    dataset = daskps.from_arrays(data.X, None, tmp_path / "d.zarr", n_partitions=4)
    lazily = clf.predict(dataset)
    expected = lazily.compute()
    with daskps.local_cluster(1, processes=False) as cluster, Client(cluster):
        np.testing.assert_array_equal(lazily.compute(), expected)
        monkeypatch.setattr(answers, "LARGE", 0)  # the model travels by itself
        np.testing.assert_array_equal(clf.predict(tmp_path / "d.zarr").compute(), expected)
