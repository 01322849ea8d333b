"""Workers in other processes read and write datasets by themselves.

Not marked `cluster`: one cluster serves all tests here, and the pools that zarr and Dask's threaded
scheduler start on first use would count as leaked threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from sklearn.datasets import dump_svmlight_file

from daskps.data import Dataset, as_dataset, from_arrays, read_svmlight, svmlight
from daskps.errors import DataError

RNG = np.random.default_rng(0)
X = (RNG.random((400, 20)) < 0.3).astype(np.float32) * RNG.random((400, 20), np.float32)
Y = np.arange(400.0)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**options, host="127.0.0.1") as cluster, Client(cluster) as client:
        yield client


def bits(dataset: Dataset) -> list[bytes]:
    parts = [dataset.partition(i) for i in range(dataset.n_partitions)]
    arrays = [(p.indptr, p.indices, p.values, p.label) for p in parts]
    return [b"".join(a.tobytes() for a in four if a is not None) for four in arrays]


def test_cluster_and_threads_write_the_same_bits(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svmlight, "BLOCK_BYTES", 5000)
    dump_svmlight_file(X, Y, str(tmp_path / "a.svm"))
    spread = read_svmlight(tmp_path / "a.svm", tmp_path / "1.zarr", n_partitions=5)
    memory = read_svmlight(tmp_path / "a.svm", n_partitions=5)
    with dask.config.set(scheduler="threads"):
        alone = read_svmlight(tmp_path / "a.svm", tmp_path / "2.zarr", n_partitions=5)
    assert bits(spread) == bits(memory) == bits(alone)


def test_workers_open_a_split_by_themselves(client: Client, tmp_path: Path) -> None:
    left, _ = from_arrays(da.from_array(X, chunks=(150, 20)), Y, tmp_path / "d.zarr").split(0.7)

    def labels(dataset: Dataset, i: int) -> list[float]:
        part = dataset.partition(i)
        assert part.label is not None
        return part.label.tolist()

    futures = [client.submit(labels, left, i) for i in range(left.n_partitions)]
    found = [label for part in client.gather(futures) for label in part]
    assert len(set(found)) == len(found) == 280


def test_what_workers_cannot_do_is_told_or_done_here(client: Client, tmp_path: Path) -> None:
    store = zarr.storage.MemoryStore()
    from_arrays(da.from_array(X, chunks=(150, 20)), Y, store, n_partitions=3)
    assert as_dataset(store).n_rows == 400
    (tmp_path / "a").write_text("1 1:1\nbad\n")
    with pytest.raises(DataError, match="line 2"):
        read_svmlight(tmp_path / "a", tmp_path / "d.zarr")
    assert not list((tmp_path / "d.zarr").glob("*"))
