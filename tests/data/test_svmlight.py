"""svmlight files become the same rows as scikit-learn reads, whatever reads them."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

from daskps.data import Dataset, open_dataset, read_svmlight, svmlight
from daskps.data.lines import block_size

X = scipy.sparse.random_array((500, 30), density=0.15, rng=0, format="csr", dtype=np.float32)
Y = np.arange(500.0)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut files every 2000 bytes, so that a small file has many pieces."""
    monkeypatch.setattr(svmlight, "BLOCK_BYTES", 2000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    dump_svmlight_file(X, Y, str(tmp_path / "a.svm"), zero_based=False)
    return tmp_path / "a.svm"


def ordered(dataset: Dataset) -> np.ndarray[Any, Any]:
    parts = [dataset.partition(i) for i in range(dataset.n_partitions)]
    label = np.concatenate([p.label for p in parts if p.label is not None])
    return np.concatenate([p.to_scipy().toarray() for p in parts])[np.argsort(label)]


def bits(dataset: Dataset) -> list[bytes]:
    parts = [dataset.partition(i) for i in range(dataset.n_partitions)]
    arrays = [(p.indptr, p.indices, p.values, p.label) for p in parts]
    return [b"".join(a.tobytes() for a in four if a is not None) for four in arrays]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("suffix", ["", ".gz"], ids=["plain", "gz"])
def test_all_rows_arrive_once(path: Path, tmp_path: Path, on_disk: bool, suffix: str) -> None:
    source = Path(str(path) + suffix)
    if suffix:
        source.write_bytes(gzip.compress(path.read_bytes()))
    store = tmp_path / "d.zarr" if on_disk else None
    made = read_svmlight(source, store, n_partitions=7)
    dataset = made if store is None else open_dataset(store)
    np.testing.assert_allclose(ordered(dataset), X.toarray(), rtol=1e-6)
    assert dataset.n_partitions == 7
    assert np.ptp(dataset.partition_rows) <= 1
    if store is not None:
        assert {p.name for p in store.iterdir()} == {
            "indices", "indptr", "label", "values", "n_rows", "nnz", "zarr.json"
        }  # fmt: skip


@pytest.mark.usefixtures("small_blocks")
def test_bits_do_not_depend_on_workers_or_store(path: Path, tmp_path: Path) -> None:
    memory = bits(read_svmlight(path, n_partitions=5))
    with dask.config.set(scheduler="synchronous"):
        alone = bits(read_svmlight(path, tmp_path / "1.zarr", n_partitions=5))
    with dask.config.set(scheduler="threads", num_workers=4):
        many = bits(read_svmlight(path, tmp_path / "4.zarr", n_partitions=5))
    assert memory == alone == many
    assert memory != bits(read_svmlight(path, n_partitions=5, random_state=1))


@pytest.mark.usefixtures("small_blocks")
def test_shuffle_spreads_every_piece_over_all_partitions(path: Path) -> None:
    dataset = read_svmlight(path, n_partitions=4)
    for i in range(4):
        label = dataset.partition(i).label
        assert label is not None
        # A fair draw of 125 of 0..499 has mean 249.5 with standard deviation 11.
        assert abs(label.mean() - 249.5) < 55
        assert 0.3 < np.mean(np.diff(label) > 0) < 0.7


def test_lists_and_globs_are_one_dataset(path: Path) -> None:
    other = path.with_name("b.svm")
    other.write_text("900 31:1.5 # a comment\n\n# another\n901 qid:3 1:2\r\n902")
    for paths in ([path, str(other)], str(path.with_name("*.svm"))):
        dataset = read_svmlight(paths)
        assert (dataset.n_rows, dataset.n_features) == (503, 31)
    assert ordered(dataset)[500:, [0, 30]].tolist() == [[0, 1.5], [2, 0], [0, 0]]


@pytest.mark.parametrize(
    ("zero_based", "n_features", "column"),
    [("auto", None, 1), (False, None, 1), (True, None, 2), ("auto", 9, 1), (True, 9, 2)],
)
def test_column_ids_start_where_told(
    tmp_path: Path, zero_based: Any, n_features: int | None, column: int
) -> None:
    (tmp_path / "a").write_text("1 2:5\n0 1:1\n")
    dataset = read_svmlight(tmp_path / "a", zero_based=zero_based, n_features=n_features)
    assert ordered(dataset)[1].nonzero()[0].tolist() == [column]
    assert dataset.n_features == (n_features or column + 1)


def test_auto_means_zero_based_when_any_file_holds_zero(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1 2:5\n")
    (tmp_path / "b").write_text("0 0:1\n")
    assert read_svmlight([tmp_path / "a", tmp_path / "b"]).n_features == 3


def test_hashed_ids_beyond_32_bits_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1 7:2 6000000000:0.5\n2 qid:1 4:1 # c\n")
    dataset = read_svmlight(tmp_path / "a", tmp_path / "d.zarr", zero_based=True, n_partitions=1)
    assert dataset.index_dtype == np.uint64
    part = open_dataset(tmp_path / "d.zarr").partition(0)
    assert sorted(part.indices.tolist()) == [4, 7, 6_000_000_000]
    assert part.to_scipy().shape == (2, 6_000_000_001)


def test_last_line_needs_no_newline_at_any_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"{i} 1:{i + 1}\n" for i in range(12))[:-1]
    (tmp_path / "a").write_text(text)
    for size in range(1, len(text) + 2):
        monkeypatch.setattr(svmlight, "BLOCK_BYTES", size)
        dataset = read_svmlight(tmp_path / "a", n_partitions=2)
        assert ordered(dataset)[:, 0].tolist() == list(range(1, 13))


@pytest.mark.parametrize(
    ("name", "rows", "nnz", "positive"),
    [("a9a", 32_561, 451_592, 7_841), ("a9a.t", 16_281, 225_732, 3_846)],
)
def test_a9a_has_its_published_counts(
    shared_data: Callable[[str], Path], name: str, rows: int, nnz: int, positive: int
) -> None:
    source = shared_data(f"a9a/{name}")
    dataset = read_svmlight(source, n_features=123)
    assert (dataset.n_rows, dataset.n_features, dataset.nnz) == (rows, 123, nnz)
    counted = dataset.label_counts()
    assert counted is not None
    assert counted[1].tolist() == [rows - positive, positive]
    sums = sum(dataset.partition(i).to_scipy().sum(axis=0) for i in range(dataset.n_partitions))
    expected = load_svmlight_file(str(source), n_features=123)[0].sum(axis=0)
    np.testing.assert_array_equal(sums, np.asarray(expected).ravel())


def test_census_has_its_published_counts(shared_data: Callable[[str], Path]) -> None:
    dataset = read_svmlight(shared_data("census/census_148d_train.libsvm"), n_features=148)
    assert (dataset.n_rows, dataset.n_features) == (22_792, 148)


def test_census_dummy_format_is_refused_with_its_line(shared_data: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match=r"dummy', line 1: a feature without ':'"):
        read_svmlight(shared_data("census/census_148d_test.dummy"))


def test_blocks_grow_with_the_data_up_to_four_times(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100_000))
    assert [block_size([str(tmp_path / "a")] * n, 200) for n in (1, 3, 20)] == [200, 292, 800]


MEASURE = """
import resource, sys
import dask
from daskps.data import plan, read_svmlight, svmlight
svmlight.BLOCK_BYTES = 2**20
plan.NNZ_PER_PARTITION = 200_000
read_svmlight(sys.argv[1], n_partitions=1)  # Imports and first calls are not the ingest.
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with dask.config.set(scheduler="threads", num_workers=2):
    dataset = read_svmlight(sys.argv[2], sys.argv[3])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(dataset.nnz, dataset.n_partitions, (after - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_memory_is_bounded_by_partitions_not_by_the_file(tmp_path: Path) -> None:
    line = b"1 " + b" ".join(b"%d:1.5" % (7 * i) for i in range(1, 41)) + b"\n"
    (tmp_path / "one.svm").write_bytes(line)
    with open(tmp_path / "big.svm", "wb") as file:
        for _ in range(120):
            file.write(line * 1000)
    arguments = [str(tmp_path / name) for name in ("one.svm", "big.svm", "d.zarr")]
    command = [sys.executable, "-c", MEASURE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    nnz, n_partitions, grown = (int(n) for n in done.stdout.split())
    assert (nnz, n_partitions) == (4_800_000, 24)
    # Less than the bare entries of the file. Measured: 21 MB, and 24 MB for a file four times as
    # large, of two tasks that each hold text, its parsed 64-bit ids and copies.
    assert grown < 8 * nnz
