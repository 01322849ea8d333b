"""Rows are dealt evenly, completely, and by the data alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskps.data.plan import choose_partitions, cut, deal
from daskps.errors import DataError

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(sum)


@given(rows=sizes, n=st.integers(1, 20))
def test_deal_shares_out_all_rows_evenly(rows: list[int], n: int) -> None:
    bounds = deal(rows, n)
    shares = np.diff(bounds, axis=1)
    np.testing.assert_array_equal(bounds[:, -1], rows)
    assert np.ptp(shares.sum(axis=0)) <= 1
    assert (np.ptp(shares, axis=1) <= 1).all()


@given(pieces=st.lists(st.lists(st.integers(0, 9), max_size=9), min_size=1).filter(any),
       n=st.integers(1, 20))  # fmt: skip
def test_cut_keeps_order_and_leaves_no_partition_empty(pieces: list[list[int]], n: int) -> None:
    lengths = [np.array(piece, np.int64) for piece in pieces]
    total = sum(map(len, pieces))
    bounds = cut(lengths, min(n, total))
    shares = np.diff(bounds, axis=1)
    assert (shares >= 0).all()
    np.testing.assert_array_equal(bounds[:, -1], [len(piece) for piece in pieces])
    assert (shares.sum(axis=0) >= 1).all()
    # In order: a later piece only begins where all earlier ones have ended.
    owner = np.concatenate([np.repeat(np.arange(shares.shape[1]), row) for row in shares])
    assert (np.diff(owner) >= 0).all()


def test_cut_balances_non_zeros() -> None:
    lengths = np.array([1000] * 10 + [1] * 10_000)
    edges = cut([lengths], 4)[0]
    nnz = np.add.reduceat(lengths + 1, edges[:-1])
    # Each of the two edges may be off by a row of 1000.
    assert np.ptp(nnz) <= 2 * 1001


@pytest.mark.parametrize(
    ("rows", "nnz", "requested", "expected"),
    [
        (10, 100, None, 1),
        (10**6, 39 * 10**6, None, 10),
        (32_561, 451_592, None, 4),
        (5_000, 299_999, None, 2),
        (5_000, 35_000, None, 1),
        (10**6, 31 * 10**6, None, 8),
        (100, 0, None, 1),
        (5, 10**9, None, 5),
        (100, 10, 7, 7),
        (3, 10, 7, 3),
    ],
)
def test_number_of_partitions(rows: int, nnz: int, requested: int | None, expected: int) -> None:
    assert choose_partitions(rows, nnz, requested) == expected


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="0 rows"):
        choose_partitions(0, 0, None)
