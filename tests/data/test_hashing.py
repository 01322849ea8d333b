"""Hashed columns: the same for every input and store, summed where they collide, remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import dump_svmlight_file

from daskps.data import Dataset, from_arrays, open_dataset, read_svmlight
from daskps.data.format import Hashing
from daskps.data.hashing import hashed
from daskps.data.partition import Partition
from daskps.errors import DataError

X = scipy.sparse.random_array((300, 5000), density=0.01, rng=0, format="csr", dtype=np.float32)
Y = np.arange(300.0)
LAST = 2**64 - 1


def part_of(rows: list[dict[int, float]]) -> Partition:
    ids = [sorted(row) for row in rows]
    indptr = np.concatenate(([0], np.cumsum([len(row) for row in ids]))).astype(np.int64)
    indices = np.array([i for row in ids for i in row], np.uint64)
    values = [row[i] for row, order in zip(rows, ids, strict=True) for i in order]
    return Partition(indptr, indices, np.array(values, np.float32), None, None, 2**64)


def ordered(dataset: Dataset) -> Any:
    parts = [dataset.partition(i) for i in range(dataset.n_partitions)]
    label = np.concatenate([np.asarray(p.label) for p in parts])
    return np.concatenate([p.to_scipy().toarray() for p in parts])[np.argsort(label)]


def column_of(feature: int, how: Hashing) -> tuple[int, float]:
    """Return the column and the sign of one id."""
    part = hashed(part_of([{feature: 1.0}]), how)
    return int(part.indices[0]), 1.0 if part.values is None else float(part.values[0])


ROWS = st.lists(
    st.dictionaries(st.integers(0, LAST), st.integers(-9, 9).map(float), max_size=12), max_size=5
)


@settings(max_examples=40)
@given(ROWS, st.integers(1, 6), st.booleans(), st.integers(0, 3))
def test_every_value_arrives_at_the_column_of_its_id(
    rows: list[dict[int, float]], bits: int, sign: bool, seed: int
) -> None:
    how = Hashing(2**bits, sign, seed)
    part = hashed(part_of(rows), how)
    assert part.n_features == 2**bits
    expected = np.zeros((len(rows), 2**bits))
    for i, row in enumerate(rows):
        for feature, value in row.items():
            column, s = column_of(feature, how)
            expected[i, column] += s * value
    np.testing.assert_array_equal(part.to_scipy().toarray(), expected)
    for start, stop in zip(part.indptr[:-1], part.indptr[1:], strict=True):
        assert (np.diff(part.indices[start:stop].astype(np.int64)) > 0).all()


def test_ids_spread_over_columns_and_signs_as_chance_would() -> None:
    ids = np.arange(200_000, dtype=np.uint64)
    part = Partition(np.arange(200_001), ids, None, None, None, 200_000)
    counts = np.bincount(hashed(part, Hashing(1024)).indices, minlength=1024)
    assert 900 < counts.var() / counts.mean() * 1024 < 1150  # Poisson: 1024 +- 45
    values = hashed(part, Hashing(2**20, alternate_sign=True)).values
    assert values is not None
    assert abs(values.sum()) < 5 * np.sqrt(200_000)
    other = np.bincount(hashed(part, Hashing(1024, seed=1)).indices, minlength=1024)
    assert abs(np.corrcoef(counts, other)[0, 1]) < 0.15


def test_ones_stay_without_values_when_nothing_collides() -> None:
    part = Partition(np.arange(11), np.arange(10, dtype=np.uint32), None, None, None, 10)
    assert hashed(part, Hashing(16)).values is None
    assert hashed(part, Hashing(16, alternate_sign=True)).values is not None


def test_every_input_and_store_is_hashed_alike(tmp_path: Path) -> None:
    dump_svmlight_file(X, Y, str(tmp_path / "one.svm"), zero_based=False)
    plain = from_arrays(X, Y, n_partitions=3)
    kept = {"hash_features": 256, "alternate_sign": True, "hash_seed": 5, "n_partitions": 3}
    made = [
        from_arrays(X, Y, **kept),
        from_arrays(X, Y, tmp_path / "a.zarr", **kept),
        read_svmlight(tmp_path / "one.svm", **kept),
        read_svmlight(tmp_path / "one.svm", tmp_path / "b.zarr", **kept),
        open_dataset(tmp_path / "b.zarr"),
        plain.hashed(Hashing(256, True, 5)),
    ]
    expected = ordered(made[0])
    assert np.count_nonzero(expected) < X.nnz  # something collided
    for dataset in made:
        assert dataset.hashing == Hashing(256, True, 5)
        assert dataset.n_features == 256
        np.testing.assert_array_equal(ordered(dataset), expected)
    for dataset in made[:5]:
        assert dataset.nnz == sum(dataset.partition(i).nnz for i in range(3))
    first, rest = made[5].split(0.5)
    assert len(first) + len(rest) == 300
    assert made[5].to_xarray().sizes["partition"] == 3


@pytest.mark.parametrize("on_disk", [False, True])
def test_ids_of_64_bits_are_read_from_text_and_hashed(tmp_path: Path, on_disk: bool) -> None:
    (tmp_path / "a").write_text(f"1 0:2 7:1 {LAST}:0.5\n0 5000000000:1\n")
    store = tmp_path / "d.zarr" if on_disk else None
    dataset = read_svmlight(tmp_path / "a", store, hash_features=2**62, n_partitions=1)
    found = {}
    part = dataset.partition(0)
    assert part.values is not None
    for feature in (0, 7, LAST, 5_000_000_000):
        at = np.flatnonzero(part.indices == column_of(feature, Hashing(2**62))[0])
        found[feature] = part.values[at].tolist()
    assert found == {0: [2.0], 7: [1.0], LAST: [0.5], 5_000_000_000: [1.0]}


def test_without_hashing_the_last_id_is_refused_and_the_one_before_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(f"1 0:2 {LAST}:0.5\n")
    with pytest.raises(DataError, match=rf"line 1: index {LAST} .*expected 0 to {LAST - 1}"):
        read_svmlight(tmp_path / "a")
    (tmp_path / "a").write_text(f"1 0:2 {LAST - 1}:0.5\n")
    read_svmlight(tmp_path / "a", tmp_path / "d.zarr")
    dataset = open_dataset(tmp_path / "d.zarr")
    assert dataset.n_features == LAST
    assert dataset.partition(0).indices.tolist() == [0, LAST - 1]
    with pytest.raises(DataError, match="does not fit scipy"):
        dataset.partition(0).to_scipy()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"hash_features": 1000}, "hash_features is 1000, expected a power of two"),
        ({"hash_features": 1}, "hash_features is 1, expected"),
        ({"hash_features": True}, "hash_features is True, expected"),
        ({"hash_features": 2**64}, "expected a power of two from 2 to"),
        ({"hash_features": 8, "hash_seed": -1}, "hash_seed is -1, expected"),
        ({"alternate_sign": True}, "mean nothing without hash_features"),
        ({"hash_features": 8, "feature_names": ["a"] * 5000}, "feature_names cannot be kept"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        from_arrays(X, Y, **arguments)
