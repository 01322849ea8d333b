"""Tables of cells: wide rows of counts that are mostly zero, against a dense array."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import Group, alone, make_spec

from daskps.server.cells import CellSlot
from daskps.server.keys import KeySet, localise, row_numbers, whole_table
from daskps.server.tables import Placement, TableSpec
from daskps.server.updaters import Add

V, K, PARTITIONS = 60, 30, 3
TABLE = TableSpec("cell", V, 1, Add("int32"), keys="cells", columns=K)


def pushed(place: Placement, rows: np.ndarray, columns: np.ndarray) -> KeySet:
    """Return the key set of some cells, in the order that a push has."""
    keys = rows.astype(np.uint64) * np.uint64(K) + columns.astype(np.uint64)
    slots = place.slots(rows)
    order = np.lexsort((keys, slots))
    bounds = np.searchsorted(slots[order], np.arange(place.n_slots + 1))
    return KeySet("cell", bounds, keys[order], hashed=True)


def push(group: Group, changes: np.ndarray, partition: int, clock: int) -> None:
    rows, columns = np.nonzero(changes)
    place = group.spec.placements()["cell"]
    keyset = pushed(place, rows, columns)
    assert keyset.at is not None
    deltas = changes.reshape(-1)[keyset.at.astype(np.intp)].astype(np.int32)[:, None, None]
    group.client().push([keyset], [deltas], partition=partition, clock=clock, samples=1)


def rows_of(group: Group, wanted: np.ndarray | None, clock: int) -> dict[int, np.ndarray]:
    """Return dense rows by their numbers, as a client reads them."""
    place = group.spec.placements()["cell"]
    keyset = whole_table(place) if wanted is None else localise(place, wanted)[0]
    names = row_numbers(place, keyset)
    found = group.client().rows(keyset, partition=0, clock=clock)
    ends = np.cumsum(found["lengths"], dtype=np.int64)
    dense = {}
    for name, end, n in zip(names, ends, found["lengths"], strict=True):
        row = np.zeros(K, np.int64)
        columns = found["columns"][end - n : end]
        assert (np.diff(columns.astype(int)) > 0).all()
        row[columns] = found["counts"][end - n : end]
        dense[int(name)] = row
    return dense


@st.composite
def changes(draw: st.DrawFn) -> list[list[np.ndarray]]:
    """Draw changes by clock and partition that never make a sum negative."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    clocks, total = [], np.zeros((V, K), np.int64)
    for _ in range(draw(st.integers(1, 4))):
        parts = []
        for _ in range(PARTITIONS):
            more = rng.poisson(draw(st.sampled_from([0.0, 0.01, 1.0])), (V, K))
            less = np.where(rng.random((V, K)) < 0.5, total, 0)
            parts.append(more - less)
            total += parts[-1]
        clocks.append(parts)
    return clocks


@pytest.mark.parametrize("staleness", [0.0, 1.0])
@given(changes(), st.sampled_from([(1, (0,)), (1, ()), (3, (0, 2)), (3, ())]))
@settings(max_examples=25, deadline=None)
def test_cells_hold_the_sums_of_what_was_pushed(
    staleness: float, clocks: list[list[np.ndarray]], where: tuple[int, tuple[int, ...]]
) -> None:
    group = Group(make_spec(TABLE, partitions=PARTITIONS, staleness=staleness), *where)
    total = np.zeros((V, K), np.int64)
    for clock, parts in enumerate(clocks):
        order = range(PARTITIONS) if staleness else reversed(range(PARTITIONS))
        for p in order:
            push(group, parts[p], p, clock)
        total += sum(parts)
        for wanted in (None, np.array([3, 7, 59])):
            for row, found in rows_of(group, wanted, clock + 1).items():
                np.testing.assert_array_equal(found, total[row])
    keys, values = group.values("cell")
    assert keys is not None
    np.testing.assert_array_equal(keys, np.flatnonzero(total))
    np.testing.assert_array_equal(values[:, 0], total.reshape(-1)[keys.astype(np.intp)])


def test_memory_is_that_of_the_cells_that_are_not_zero() -> None:
    place = Placement(TableSpec("cell", 8, 1, Add("int32"), keys="cells", columns=10**9), 1)
    slot = CellSlot(place, 0)
    some = np.array([5, 10**9 + 7], np.uint64)
    slot.fold(some, np.array([[[3]], [[4]]], np.int32))
    slot.commit(0, 1)
    assert slot.nbytes < 1000
    slot.apply(some, np.array([[[-3]], [[0]]], np.int32), 1, 1)
    assert slot.keys.tolist() == [10**9 + 7]
    assert slot.values(0).tolist() == [[4]]


def test_a_frozen_slot_stays_and_loads_as_it_was() -> None:
    spec = make_spec(TABLE, partitions=1)
    group = Group(spec, 1)
    first = np.random.default_rng(0).poisson(0.3, (V, K))
    push(group, first, 0, 0)
    shard = group.shards[0]
    shard.freeze("cut")
    frozen = shard.frozen("cut")
    push(group, first, 0, 1)
    other = alone(spec)
    other.restore(1, {0: 1}, 1.0, frozen)
    found = np.concatenate([keys for keys, _ in other.values("cell").values() if keys is not None])
    np.testing.assert_array_equal(np.sort(found), np.flatnonzero(first))
    total = sum(int(v.sum()) for _, v in other.values("cell").values())
    assert total == first.sum()


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"columns": 0}, id="no columns"),
        pytest.param({"width": 2}, id="wide"),
        pytest.param({"n_rows": 2**40, "columns": 2**40}, id="too many cells"),
        pytest.param({"keys": "range"}, id="columns of a range table"),
    ],
)
def test_tables_of_cells_have_columns_and_no_width(wrong: dict[str, object]) -> None:
    right = {"name": "cell", "n_rows": V, "width": 1, "updater": Add("int32")}
    right |= {"keys": "cells", "columns": K}
    with pytest.raises(ValueError, match="table 'cell'"):
        TableSpec(**{**right, **wrong})
