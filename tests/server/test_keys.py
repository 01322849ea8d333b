"""Key sets: the rows that come back stand in the local order of the partition's indices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import INTEGERS, Group, make_spec

from daskps.server import _localise
from daskps.server.keys import DENSE_SHARE, localise, whole_table
from daskps.server.tables import Placement, TableSpec

N_ROWS = 300
SHARES = {"dense": 0.9, "half": DENSE_SHARE, "sparse": 0.1, "one": 0.0}


def draw(share: float, dtype: type, seed: int = 0) -> np.ndarray:
    """Return indices with repetitions, of about `share` of the rows."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(N_ROWS, size=max(1, int(share * N_ROWS)), replace=False)
    return rng.choice(rows, size=2000).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("share", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize("n_shards", [1, 3])
def test_pulled_rows_are_those_of_the_indices(share: float, dtype: type, n_shards: int) -> None:
    group = Group(make_spec(TableSpec("t", N_ROWS, 1, INTEGERS), partitions=1), n_shards)
    whole = group.keyset("t")
    ids = np.empty((N_ROWS, 1, 1), np.int64)
    order = np.concatenate([group.spec.placements()["t"].slot_keys(s) for s in range(8)])
    ids[:, 0, 0] = order
    client = group.client()
    client.push([whole], [ids], partition=0, clock=0, samples=1)
    indices = draw(share, dtype)
    keyset, local = localise(group.spec.placements()["t"], indices)
    (rows,), _ = client.pull([keyset], partition=0, clock=1)
    assert local.dtype == np.uint32
    np.testing.assert_array_equal(rows[local, 0, 0], indices)


@pytest.mark.parametrize("share", SHARES.values(), ids=SHARES)
def test_a_key_set_is_in_slot_order(share: float) -> None:
    place = Placement(TableSpec("t", N_ROWS, 1, INTEGERS), 8)
    indices = draw(share, np.uint32)
    keyset, _ = localise(place, indices)
    if keyset.at is None:
        assert len(keyset) == N_ROWS
        return
    assert len(keyset) == len(keyset.at) == len(np.unique(indices))
    assert keyset.at.dtype == np.uint32
    for slot in range(8):
        at = keyset.at[keyset.bounds[slot] : keyset.bounds[slot + 1]]
        expected = np.intersect1d(place.slot_keys(slot), indices)
        np.testing.assert_array_equal(place.slot_keys(slot)[at], expected)


@pytest.mark.parametrize("share", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize("n_shards", [1, 3])
def test_some_rows_of_a_key_set_have_the_same_names(share: float, n_shards: int) -> None:
    group = Group(make_spec(TableSpec("t", N_ROWS, 1, INTEGERS), partitions=1), n_shards)
    keyset, _ = localise(group.spec.placements()["t"], draw(share, np.uint32))
    some = np.random.default_rng(1).random(len(keyset)) < 0.3
    part, client = keyset.only(some), group.client()
    np.testing.assert_array_equal(part.ids(), keyset.ids()[some])
    assert len(set(keyset.ids().tolist())) == len(keyset)
    new = np.arange(len(part), dtype=np.int64)[:, None, None] + 1
    client.push([part], [new], partition=0, clock=0, samples=1)
    (rows,), _ = client.pull([keyset], partition=0, clock=1)
    expected = np.zeros(len(keyset), np.int64)
    expected[some] = new[:, 0, 0]
    np.testing.assert_array_equal(rows[:, 0, 0], expected)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=60), st.integers(1, 9))
def test_hashed_keys_are_found_by_local_position(keys: list[int], n_slots: int) -> None:
    place = Placement(TableSpec("t", 0, 1, INTEGERS, keys="hash"), n_slots)
    indices = np.array(keys, np.uint64)
    keyset, local = localise(place, indices)
    assert keyset.hashed
    assert keyset.at is not None
    np.testing.assert_array_equal(keyset.at[local], indices)
    slots = np.repeat(np.arange(n_slots), np.diff(keyset.bounds))
    np.testing.assert_array_equal(place.slots(keyset.at), slots)
    assert len(keyset) == len(set(keys))


@settings(max_examples=50)
@given(st.lists(st.integers(0, N_ROWS - 1), max_size=60), st.integers(1, 9))
def test_a_map_and_hashing_find_the_same(rows: list[int], n_slots: int) -> None:
    place = Placement(TableSpec("t", N_ROWS, 1, INTEGERS), n_slots)
    indices = _localise.read_only(np.array(rows, np.uint32))
    by_map = _localise.by_map(indices, N_ROWS, *place.division)
    by_hashing = _localise.by_hashing(indices, *place.division)
    for a, b in zip(by_map, by_hashing, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_nothing_as_large_as_the_table_is_made_for_a_few_indices() -> None:
    place = Placement(TableSpec("t", 2**37, 1, INTEGERS), 64)
    keys = np.array([2**37 - 1, 5, 2**36, 5], np.uint64)
    keyset, local = localise(place, keys)
    assert keyset.__sizeof__() == 65 * 8 + 3 * 4
    slots = np.repeat(np.arange(64), np.diff(keyset.bounds))
    np.testing.assert_array_equal(slots[local], place.slots(keys))
    assert keyset.at is not None
    np.testing.assert_array_equal(keyset.at[local], place.positions(keys))


def test_an_empty_partition_has_an_empty_key_set() -> None:
    place = Placement(TableSpec("t", N_ROWS, 1, INTEGERS), 8)
    keyset, local = localise(place, np.empty(0, np.uint32))
    assert (len(keyset), len(local)) == (0, 0)


def test_dask_is_told_the_bytes_of_a_key_set() -> None:
    place = Placement(TableSpec("t", N_ROWS, 1, INTEGERS), 8)
    sparse, _ = localise(place, draw(0.1, np.uint32))
    assert sparse.at is not None
    assert sparse.__sizeof__() == sparse.bounds.nbytes + sparse.at.nbytes
    assert whole_table(place).__sizeof__() == 9 * 8


@given(st.lists(st.integers(0, 2**64 - 2), min_size=1, unique=True), st.integers(1, 9), st.data())
def test_a_subset_of_a_key_set_is_the_key_set_of_the_subset(
    keys: list[int], n_slots: int, data: st.DataObject
) -> None:
    place = Placement(TableSpec("t", 0, 1, INTEGERS, keys="hash"), n_slots)
    keyset, _ = localise(place, np.array(keys, np.uint64))
    wanted = data.draw(st.lists(st.sampled_from(keys), min_size=1))
    found = keyset.only(np.isin(keyset.at, np.array(wanted, np.uint64)))
    expected, _ = localise(place, np.array(wanted, np.uint64))
    np.testing.assert_array_equal(found.bounds, expected.bounds)
    np.testing.assert_array_equal(found.at, expected.at)
    assert found.hashed
