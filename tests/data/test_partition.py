"""A partition's views hold the same rows as scipy's."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import scipy.sparse
from dask.sizeof import sizeof
from hypothesis import given
from hypothesis import strategies as st

from daskps.data import Partition, from_arrays


def random_partition(seed: int = 0, n_rows: int = 30, ones: bool = False) -> Partition:
    X = scipy.sparse.random_array((n_rows, 12), density=0.2, rng=seed, format="csr")
    if ones:
        X.data[:] = 1
    y = np.arange(n_rows, dtype=float)
    return from_arrays(X, y, sample_weight=y + 1, n_partitions=1, shuffle=False).partition(0)


@given(seed=st.integers(0, 99), cut=st.lists(st.integers(0, 30), min_size=2, max_size=2))
def test_rows_are_the_rows_of_the_dense_matrix(seed: int, cut: list[int]) -> None:
    part, (start, stop) = random_partition(seed), sorted(cut)
    view = part.rows(start, stop)
    dense = part.to_scipy().toarray()
    np.testing.assert_array_equal(view.to_scipy().toarray(), dense[start:stop])
    np.testing.assert_array_equal(view.to_gcxs().todense(), dense[start:stop])
    np.testing.assert_array_equal(view.label, np.arange(start, stop))
    np.testing.assert_array_equal(view.weight, np.arange(start, stop) + 1)
    assert view.indptr[0] == 0
    assert view.n_rows == stop - start
    assert np.shares_memory(view.indices, part.indices) or view.nnz == 0


@given(seed=st.integers(0, 99))
def test_take_permutes_rows(seed: int) -> None:
    part = random_partition(seed)
    order = np.random.default_rng(seed).permutation(part.n_rows)
    taken = part.take(order)
    np.testing.assert_array_equal(taken.to_scipy().toarray(), part.to_scipy().toarray()[order])
    np.testing.assert_array_equal(taken.label, order)


def test_values_are_absent_when_all_are_one() -> None:
    part = random_partition(ones=True)
    assert part.values is None
    assert part.to_scipy().sum() == part.nnz


def test_to_scipy_does_not_copy_column_ids() -> None:
    part = random_partition()
    assert np.shares_memory(part.to_scipy().indices, part.indices)


def test_rows_outside_are_refused() -> None:
    with pytest.raises(IndexError, match="31"):
        random_partition().rows(0, 31)


def test_size_counts_the_arrays() -> None:
    part = random_partition()
    arrays = (part.indptr, part.indices, part.values, part.label, part.weight)
    expected = sum(a.nbytes for a in arrays if a is not None)
    assert expected <= sys.getsizeof(part) <= expected + 200
    assert sizeof(part) >= expected
