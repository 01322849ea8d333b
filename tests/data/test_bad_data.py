"""Input that cannot be used is refused before any training, with the place and the remedy."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import scipy.sparse
import zarr

from daskps.data import as_dataset, from_arrays, open_dataset, read_svmlight, svmlight
from daskps.data import format as disk
from daskps.errors import CorruptChunk, DataError, DatasetFormatError

X = np.arange(12.0).reshape(6, 2) + 1
Y = np.arange(6.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "1 1:1\n1 1:nan\n", r"line 2: value nan in '1 1:nan', expected a finite", id="nan"
        ),
        pytest.param("1 1:1\n\n#c\n1 1:-inf\n", "line 4: value -inf", id="infinite"),
        pytest.param("1 1:1e99\n", "line 1: value inf in '1 1:1e99'.*float32", id="above-float32"),
        pytest.param("nan 1:1\n", "line 1: label nan", id="nan-label"),
        pytest.param("1 2:1 -3:1\n", "line 1: Invalid index -3", id="negative-index"),
        pytest.param(
            "1 1:1 18446744073709551616:1\n",
            "line 1: index 18446744073709551616 is above",
            id="huge-index",
        ),
        pytest.param("1 99999999999999999999999:1\n", "line 1: index 9+ is above", id="overflow"),
        pytest.param("1 5000000000:1\n2 7:1 6:1\n", "line 2: .*sorted and unique", id="unsorted"),
        pytest.param(
            "1 5000000000:1 -7:1\n", "line 1: .*sorted and unique", id="negative-after-huge"
        ),
        pytest.param(
            "1 -7:1 5000000000:1\n", "line 1: .*nvalid index -7", id="negative-before-huge"
        ),
        pytest.param("1 3:1 3:2\n", "line 1: .*sorted and unique", id="duplicate-index"),
        pytest.param("1 1:1\n1 2\n", "line 2: a feature without ':' in '1 2'", id="no-colon"),
        pytest.param("1 1:1\n2 1:1\nx 1:1\n3 1:1\n", "line 3: could not convert", id="label-text"),
        pytest.param("1 1:\n", "line 1: could not convert", id="no-value"),
        pytest.param("1,2 1:1\n", "line 1: could not convert", id="multilabel"),
        pytest.param("\x00\x7f\n", "line 1: could not convert", id="binary"),
        pytest.param("", "hold no rows", id="empty"),
        pytest.param("\n# only comments\n", "hold no rows", id="comments-only"),
    ],
)
@pytest.mark.parametrize("block", [3, 2**20])
def test_bad_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str, block: int
) -> None:
    monkeypatch.setattr(svmlight, "BLOCK_BYTES", block)
    (tmp_path / "bad.svm").write_text(text)
    with pytest.raises(DataError, match=expected) as caught:
        read_svmlight(tmp_path / "bad.svm", tmp_path / "d.zarr")
    assert "bad.svm" in str(caught.value)
    assert re.search("correct or remove|check", str(caught.value))
    assert not (tmp_path / "d.zarr" / "zarr.json").exists()
    assert not (tmp_path / "d.zarr" / "_staging").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"n_features": 5}, "line 3: index 6 .*expected 0 to 5"),
        ({"n_features": 5, "zero_based": False}, "line 3: index 6 .*expected 1 to 5"),
        ({"n_features": 6, "zero_based": True}, "line 3: index 6 .*expected 0 to 5"),
        ({"n_features": 0}, "n_features is 0"),
        ({"zero_based": "maybe"}, "zero_based is 'maybe'"),
        ({"n_partitions": 0}, "n_partitions is 0"),
        ({"random_state": -1}, "random_state is -1"),
    ],
)
def test_columns_and_options_out_of_range(
    tmp_path: Path, options: dict[str, Any], expected: str
) -> None:
    (tmp_path / "a").write_text("1 1:1\n2 3:1\n3 6:1\n")
    with pytest.raises(DataError, match=expected):
        read_svmlight(tmp_path / "a", **options)


def test_zero_in_a_one_based_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1 1:1\n2 0:1\n")
    with pytest.raises(DataError, match=r"line 2: index 0 .*expected 1 to"):
        read_svmlight(tmp_path / "a", zero_based=False)


def test_zero_based_file_too_wide_for_auto_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1 0:1\n2 4:1\n3 5:1\n")
    with pytest.raises(DataError, match=r"line 3: index 5 .*expected 0 to 4"):
        read_svmlight(tmp_path / "a", n_features=5)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no-gzip"])
def test_damaged_gzip_is_named(tmp_path: Path, damage: str) -> None:
    rng = np.random.default_rng(0)
    text = "".join(f"1 1:{v}\n" for v in rng.random(2000)).encode()
    data = bytearray(gzip.compress(text))
    if damage == "flipped":
        data[len(data) // 2] ^= 255
    (tmp_path / "a.gz").write_bytes({"truncated": data[:-100], "no-gzip": text}.get(damage, data))
    with pytest.raises(DataError, match=r"a\.gz' is truncated or damaged after \d+ bytes"):
        read_svmlight(tmp_path / "a.gz")


def test_bad_line_in_gzip_is_counted_over_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svmlight, "BLOCK_BYTES", 50)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"1 1:1\n" * 100 + b"bad\n" + b"1 1:1\n" * 9))
    with pytest.raises(DataError, match="line 101"):
        read_svmlight(tmp_path / "a.gz")


def test_first_bad_line_is_blamed_whichever_task_ends_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svmlight, "BLOCK_BYTES", 50)
    (tmp_path / "a").write_text("1 1:1\n" * 50 + "bad\n" + "1 1:1\n" * 50 + "worse\n")
    for _ in range(5):
        with pytest.raises(DataError, match="line 51"), dask.config.set(num_workers=4):
            read_svmlight(tmp_path / "a")


def test_paths_that_match_nothing(tmp_path: Path) -> None:
    for paths in (tmp_path / "none", str(tmp_path / "*.svm"), [tmp_path / "none"]):
        with pytest.raises(FileNotFoundError, match="no file matches"):
            read_svmlight(paths)
    with pytest.raises(DataError, match="empty list"):
        read_svmlight([])
    with pytest.raises(IsADirectoryError, match="name its files"):
        read_svmlight(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all files")
def test_file_without_permission(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1 1:1\n")
    (tmp_path / "a").chmod(0)
    with pytest.raises(PermissionError, match="permissions"):
        read_svmlight(tmp_path / "a")


def broken_csr(index: int) -> scipy.sparse.csr_array:
    matrix = scipy.sparse.csr_array(np.eye(3))
    matrix.indices[1] = index
    return matrix


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        pytest.param(np.where(X == 5, np.nan, X), "row 2, column 0 holds nan", id="nan"),
        pytest.param(
            scipy.sparse.coo_array(np.where(X == 6, np.inf, X)),
            "row 2, column 1 holds inf",
            id="infinite",
        ),
        pytest.param(X * 1e300, "row 0, column 0 holds 1e[+]300", id="above-float32"),
        pytest.param(np.empty((0, 2)), "0 rows", id="no-rows"),
        pytest.param(np.empty((2, 0)), r"0 feature\(s\)", id="no-columns"),
        pytest.param(
            broken_csr(-4), "row 1 has column id -4, expected 0 to 2", id="negative-index"
        ),
        pytest.param(broken_csr(3), "row 1 has column id 3, expected 0 to 2", id="index-too-large"),
        pytest.param(np.ones(3), r"expected .rows, columns.*reshape", id="one-dimension"),
        pytest.param(np.array([["a", "b"]]), "expected numbers", id="strings"),
        pytest.param(np.array([[1, "b"]], object), "objects that are no numbers", id="objects"),
        pytest.param(np.ones((1, 2)) * 1j, "dtype 'complex128'", id="complex"),
    ],
)
def test_bad_matrix(matrix: Any, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        as_dataset(matrix)


def test_unknown_type_is_named() -> None:
    with pytest.raises(TypeError, match=r"got 'builtins\.dict'"):
        as_dataset({"a": 1})


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        pytest.param(Y[:-1], "5 labels but X has 6 rows", id="length"),
        pytest.param(np.stack([Y, Y], 1), "ravel", id="two-dimensions"),
        pytest.param(np.where(Y == 4, np.nan, Y), "label nan of row 4", id="nan"),
        pytest.param(np.where(Y == 4, np.inf, Y), "label inf of row 4", id="infinite"),
        pytest.param(["a", "b", None, "a", "b", "c"], "label None of row 2 is missing", id="none"),
        pytest.param(
            ["a", "b", float("nan"), "a", "b", "c"], "label nan of row 2", id="nan-string"
        ),
        pytest.param(np.array(["a", 1, 2, 3, 4, 5], object), r"types \['int', 'str'\]", id="mixed"),
        pytest.param(np.array(list("abcdef"), "S1"), "types", id="bytes"),
        pytest.param(
            Y.astype(np.int64) + 2**53, r"label 900719925474099\d is too large", id="huge"
        ),
    ],
)
def test_bad_labels(y: Any, expected: str) -> None:
    y = np.array(y, object) if isinstance(y, list) else y
    with pytest.raises(DataError, match=expected):
        from_arrays(X, y)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        pytest.param(Y[:-1], r"shape \(5,\), but X has 6 rows", id="length"),
        pytest.param(-Y, "row 1 is -1.0, expected a finite number >= 0", id="negative"),
        pytest.param(np.where(Y == 3, np.nan, Y), "row 3 is nan", id="nan"),
    ],
)
def test_bad_weights(weight: Any, expected: str) -> None:
    with pytest.raises(DataError, match=f"sample_weight.*{expected}"):
        from_arrays(X, Y, sample_weight=weight)


def test_too_many_string_classes_are_refused() -> None:
    with pytest.raises(DataError, match="10001 distinct strings"):
        from_arrays(np.ones((10_001, 1)), np.arange(10_001).astype(str))


# ------------------------------------------------------------------------------- stored datasets


@pytest.fixture
def store(tmp_path: Path) -> Path:
    from_arrays(X, Y, tmp_path / "d.zarr", sample_weight=Y + 1, n_partitions=3)
    return tmp_path / "d.zarr"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [flip, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", ["indptr", "indices", "values", "label", "weight"])
def test_corrupt_chunk_names_array_and_partition(
    store: Path, name: str, harm: Callable[[Path], Any]
) -> None:
    harm(store / name / "c" / "1" / "0")
    dataset = open_dataset(store)
    assert dataset.partition(0).n_rows == 2
    with pytest.raises(CorruptChunk, match=f"'{name}', partition 1 of dataset .*ingest the data"):
        dataset.partition(1)


@pytest.mark.parametrize("harm", [flip, Path.unlink])
@pytest.mark.parametrize("name", ["n_rows", "nnz"])
def test_corrupt_sizes_show_on_open(store: Path, name: str, harm: Callable[[Path], Any]) -> None:
    harm(store / name / "c" / "0")
    with pytest.raises(CorruptChunk, match=f"'{name}'"):
        open_dataset(store)


def edit_manifest(store: Path, **changes: Any) -> None:
    metadata = json.loads((store / "zarr.json").read_text())
    metadata["attributes"]["daskps"] |= changes
    (store / "zarr.json").write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": 2}, "version 2, this daskps reads version 1; install a newer"),
        ({"complete": False}, "incomplete.*overwrite=True"),
        ({"format": "model"}, "not a daskps dataset .attribute daskps: 'model'"),
        ({"n_rows": "six"}, "manifest .*damaged"),
    ],
)
def test_manifest_that_is_not_understood(
    store: Path, changes: dict[str, Any], expected: str
) -> None:
    edit_manifest(store, **changes)
    with pytest.raises(DatasetFormatError, match=expected):
        as_dataset(store)


def test_things_that_are_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no dataset at"):
        open_dataset(tmp_path / "none.zarr")
    (tmp_path / "plain").mkdir()
    with pytest.raises(DatasetFormatError, match="holds no Zarr group"):
        open_dataset(tmp_path / "plain")
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    with pytest.raises(DatasetFormatError, match="not a daskps dataset"):
        open_dataset(tmp_path / "other.zarr")


@pytest.mark.parametrize("stop_at", ["write_partition", "finish"])
def test_ingest_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: str
) -> None:
    def fail(*args: Any) -> None:
        raise OSError("disk full")

    (tmp_path / "a").write_text("1 1:1\n2 2:1\n")
    with monkeypatch.context() as patch:
        patch.setattr(disk, stop_at, fail)
        with pytest.raises(OSError, match="disk full"):
            read_svmlight(tmp_path / "a", tmp_path / "d.zarr")
    assert read_svmlight(tmp_path / "a", tmp_path / "d.zarr").n_rows == 2


def test_bad_input_does_not_cost_the_dataset_it_would_replace(store: Path) -> None:
    (store.parent / "a").write_text("1 1:1\nbad\n")
    with pytest.raises(DataError, match="line 2"):
        read_svmlight(store.parent / "a", store, overwrite=True)
    assert open_dataset(store).partition(2).n_rows == 2
    assert not (store / "_staging").exists()


def test_replacing_leaves_no_array_of_the_old_dataset(store: Path) -> None:
    (store.parent / "a").write_text("1 1:1\n2 2:1\n")
    assert open_dataset(store).has_weight
    read_svmlight(store.parent / "a", store, overwrite=True)
    assert not (store / "weight").exists()
    assert not open_dataset(store).has_weight


KILLED = """
import os, sys
import numpy as np
from daskps.data import format, from_arrays
format.finish = lambda *args: os._exit(9)
from_arrays(np.ones((6, 2)), np.ones(6), sys.argv[1])
"""


def test_ingest_that_is_killed_leaves_nothing_that_opens(tmp_path: Path) -> None:
    store = tmp_path / "d.zarr"
    done = subprocess.run([sys.executable, "-c", KILLED, str(store)], check=False, timeout=60)
    assert done.returncode == 9
    assert (store / "indices").exists()
    with pytest.raises(DatasetFormatError, match="incomplete"):
        open_dataset(store)
    assert from_arrays(X, Y, store, overwrite=True).n_rows == 6
