"""Slots: rows of hash tables appear on touch, cuts are copy-on-write, memory is accounted for."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import (
    INTEGERS,
    alone,
    counters,
    everything,
    floats,
    make_spec,
    pull,
    pull_all,
    push_all,
    push_of,
)

from daskps.server.finite import all_finite
from daskps.server.messages import Pull, Want
from daskps.server.shard import Shard
from daskps.server.slot import TableSlot
from daskps.server.tables import Init, Placement, TableSpec
from daskps.server.updaters import FTRL, AdaGrad

HASHED = TableSpec("h", 0, 1, INTEGERS, keys="hash", init=Init("constant", 7.0))
KEYS = st.lists(st.integers(0, 2**64 - 1), max_size=12, unique=True)


def hash_slot() -> TableSlot:
    return TableSlot(Placement(HASHED, 1), 0)


def touch(slot: TableSlot, keys: list[int]) -> Any:
    return slot.locate(np.array(keys, np.uint64), create=True)


def as_dict(slot: TableSlot) -> dict[int, int]:
    keys, values = slot.keys_and_values(0.0)
    assert keys is not None
    assert (np.diff(keys.astype(object)) > 0).all()
    return dict(zip(keys.tolist(), values[:, 0].tolist(), strict=True))


@settings(max_examples=60)
@given(st.lists(KEYS, max_size=6), st.randoms())
def test_rows_exist_by_what_was_touched_not_by_the_order(
    groups: list[list[int]], dice: Any
) -> None:
    slots = [hash_slot(), hash_slot()]
    shuffled = dice.sample(groups, len(groups))
    for slot, order in zip(slots, (groups, shuffled), strict=True):
        for keys in order:
            at = touch(slot, keys)
            assert slot.keys is not None
            np.testing.assert_array_equal(slot.keys[at], np.array(keys, np.uint64))
        assert as_dict(slot) == dict.fromkeys({k for keys in groups for k in keys}, 7)
        assert slot.rows.shape == (len(as_dict(slot)), 1, 1)


@settings(max_examples=60)
@given(st.lists(KEYS, min_size=1, max_size=6), st.booleans())
def test_growth_during_a_clock_keeps_what_was_gathered(
    groups: list[list[int]], frozen: bool
) -> None:
    slot = hash_slot()
    expected: dict[int, int] = {}
    cuts = []
    for number, keys in enumerate(groups):
        if frozen:
            held, rows = slot.freeze()
            assert held is not None
            cuts.append((held, held.copy(), rows, rows.copy()))
        slot.fold(touch(slot, keys), np.full((len(keys), 1, 1), 10**number))
        for k in keys:
            expected[k] = expected.get(k, 7) + 10**number
    slot.commit(0.0, 1.0)
    assert as_dict(slot) == expected
    for held, held_then, rows, rows_then in cuts:
        np.testing.assert_array_equal(held, held_then)
        np.testing.assert_array_equal(rows, rows_then)


def test_many_keys_are_found_again_after_loading_and_growing() -> None:
    keys = np.random.default_rng(0).permutation(np.arange(30_000, dtype=np.uint64) << np.uint64(33))
    slot = hash_slot()
    for some in np.split(keys, 10):
        slot.apply(slot.locate(some, create=True), np.full((len(some), 1, 1), 5), 0.0, 1.0)
    again = hash_slot()
    again.load(*slot.freeze())
    more = np.arange(5_000, dtype=np.uint64)
    again.locate(more, create=True)
    out = np.empty((30_000, 1, 1), np.int64)
    again.pull(again.locate(keys, create=False), 0.0, out, keys)
    assert (out == 12).all()
    assert as_dict(slot) == dict.fromkeys(keys.tolist(), 12)
    assert as_dict(again) == dict.fromkeys(more.tolist(), 7) | as_dict(slot)


def cut_copy(shard: Shard, cut: str) -> Any:
    return {
        (name, s): (None if keys is None else keys.copy(), rows.copy())
        for name, slots in shard.frozen(cut).items()
        for s, (keys, rows) in slots.items()
    }


@pytest.mark.parametrize("staleness", [0, math.inf])
def test_a_cut_does_not_change_under_later_updates(staleness: float) -> None:
    spec = make_spec(TableSpec("n", 40, 1, INTEGERS), HASHED, partitions=1, staleness=staleness)
    shard = alone(spec)
    keys = np.arange(3, dtype=np.uint64)

    def push(clock: int, keys: np.ndarray) -> None:
        slots = spec.placements()["h"].slots(keys)
        order = np.argsort(slots, kind="stable")
        want = Want("h", 0, 8, np.bincount(slots, minlength=8).tolist(), keys[order])
        deltas = np.full((40, 1, 1), 1), np.full((len(keys), 1, 1), 1)
        shard.push(push_of(shard, (everything(shard, "n"), want), deltas, clock=clock))

    push(0, keys)
    sizes = shard.freeze("cut")
    assert sum(sizes["n"].values()) == 40
    assert sum(sizes["h"].values()) == 3
    before = cut_copy(shard, "cut")
    push(1, keys)
    push(2, keys + np.uint64(2))
    shard.apply("axpy", {"a": 2.0, "table": "n", "into": "n"})
    for place, (held, rows) in before.items():
        now = shard.frozen("cut")[place[0]][place[1]]
        np.testing.assert_array_equal(now[1], rows)
        np.testing.assert_array_equal(now[0], held)
    assert np.concatenate([v for _, v in shard.values("n").values()]).tolist() == [[9]] * 40


def test_a_cut_shares_memory_until_rows_change_and_costs_nothing_when_forgotten() -> None:
    shard = alone(counters(1, math.inf, 4000))
    rows = shard.stats().rows_nbytes
    shard.freeze("cut")
    assert shard.stats().frozen_nbytes == 0
    want = Want("count", 0, 8, [1] + [0] * 7, np.array([0], np.uint32))
    shard.push(push_of(shard, [want], [np.ones((1, 1, 1), np.int64)]))
    assert 0 < shard.stats().frozen_nbytes < rows / 4  # one slot of eight
    shard.push(push_all(shard, np.ones((4000, 1, 1), np.int64), partition=0, clock=1))
    assert shard.stats().frozen_nbytes == rows
    shard.thaw("cut")
    assert shard.stats().frozen_nbytes == 0


def test_what_is_written_is_not_copied_when_it_changes() -> None:
    shard = alone(counters(1, math.inf, 4000))
    rows = shard.stats().rows_nbytes
    shard.freeze("cut")
    shard.written("cut", "count", [0, 1, 2, 3, 4, 5, 6])
    shard.push(push_all(shard, np.ones((4000, 1, 1), np.int64), partition=0, clock=0))
    assert 0 < shard.stats().frozen_nbytes < rows / 4  # slot 7
    assert list(shard.frozen("cut")["count"]) == [7]
    np.testing.assert_array_equal(shard.frozen("cut")["count"][7][1], 0)
    shard.written("gone", "count", [7])
    assert list(shard.frozen("cut")["count"]) == [7]


def test_a_cut_that_nobody_writes_does_not_stay() -> None:
    shard = alone(counters(1, 0, 400))
    for clock in range(3):
        shard.freeze(f"cut-{clock}")
        shard.push(push_all(shard, np.ones((400, 1, 1), np.int64), partition=0, clock=clock))
        assert shard.stats().frozen_nbytes <= shard.stats().rows_nbytes
    shard.advance(2, {0: 3})
    assert shard.stats().frozen_nbytes == 0


def test_cuts_wait_for_the_barrier() -> None:
    shard = alone(counters(2, 0))
    shard.push(push_all(shard, np.ones((20, 1, 1), np.int64), partition=1, clock=0))
    with pytest.raises(AssertionError, match="quiet"):
        shard.freeze("cut")


def busy_shard(updater: Any, n: int) -> Shard:
    """Return a shard of `n` rows that has been pushed to, frozen and pulled from."""
    spec = make_spec(TableSpec("w", n, 1, updater), partitions=2, staleness=math.inf, slots=64)
    push = floats(updater, (n, updater.n_push, 1), seed=0)
    shard = alone(spec)
    for clock in range(3):
        for p in range(2):
            shard.push(push_all(shard, push, partition=p, clock=clock))
    shard.freeze("cut")
    shard.thaw("cut")
    pull_all(shard, clock=3)
    return shard


@pytest.mark.parametrize("updater", [AdaGrad(discount=True), FTRL(discount=True)], ids=type)
def test_memory_of_a_shard_with_staleness_is_that_of_its_rows(updater: Any) -> None:
    """Rows with updater state are 1; at most 1.3 are allowed outside a checkpoint."""
    n = 200_000
    busy_shard(updater, 1000)  # compiled code takes memory of its own
    tracemalloc.start()
    try:
        shard = busy_shard(updater, n)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    bytes_of_rows = n * updater.n_fields * 4
    assert shard.stats().rows_nbytes == bytes_of_rows
    assert held <= 1.3 * bytes_of_rows


@pytest.mark.parametrize("updater", [AdaGrad(), FTRL()], ids=type)
def test_memory_of_a_barrier_is_one_accumulator_and_the_pushes_that_came_early(
    updater: Any,
) -> None:
    """In BSP 1.5 x the rows are gathered during a clock; nothing stays after the barrier."""
    n = 1000
    shard = alone(make_spec(TableSpec("w", n, 1, updater), partitions=3))
    rows, push = shard.stats().rows_nbytes, floats(updater, (n, 3, 1), seed=0)
    pending = []
    for p in (0, 2, 1):
        shard.push(push_all(shard, push, partition=p, clock=0))
        pending.append(shard.stats().pending_nbytes / rows)
    pull_all(shard, clock=1)  # the next clock: what was gathered goes to the rows
    pending.append(shard.stats().pending_nbytes / rows)
    assert pending == [1.5, 3.0, 1.5, 0.0]
    assert shard.stats().rows_nbytes == rows == n * 2 * 4


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("step", [1, 2])
def test_special_numbers_are_found_wherever_they_are(
    special: float, dtype: type, step: int
) -> None:
    x: np.ndarray = np.random.default_rng(0).normal(size=(60, 2, 1)).astype(dtype)
    x[0, 0, 0] = np.finfo(dtype).max
    assert all_finite(x[::step])
    for place in (0, 58):
        bad = x.copy()
        bad[place, 1, 0] = special
        assert not all_finite(bad[::step])


def test_rows_of_another_table_are_not_loaded() -> None:
    slot = TableSlot(Placement(TableSpec("w", 10, 1, AdaGrad()), 1), 0)
    with pytest.raises(ValueError, match=r"shape \(10, 3, 1\).*table 'w'.*\(10, 2, 1\)"):
        slot.load(None, np.zeros((10, 3, 1), np.float32))


@pytest.mark.parametrize("kind", ["constant", "normal"])
def test_a_pull_reads_what_a_push_would_find_and_creates_nothing(kind: Any) -> None:
    table = TableSpec("h", 0, 2, AdaGrad(), keys="hash", init=Init(kind, 0.5, seed=1))
    spec = make_spec(table, partitions=1)
    shard = alone(spec)
    keys = np.arange(40, dtype=np.uint64)
    keys = keys[np.argsort(spec.placements()["h"].slots(keys), kind="stable")]
    slots = spec.placements()["h"].slots(keys)
    want = Want("h", 0, 8, np.bincount(slots, minlength=8).tolist(), keys)
    (before,) = pull(shard, Pull(1, 0, 0, (want,))).rows
    assert sum(len(v) for _, v in shard.values("h").values()) == 0
    few = Want("h", 0, 8, np.bincount(slots[:3], minlength=8).tolist(), keys[:3])
    shard.push(push_of(shard, [few], [np.zeros((3, 3, 2), np.float32)]))
    assert sum(len(v) for _, v in shard.values("h").values()) == 3
    (after,) = pull(shard, Pull(1, 0, 1, (want,))).rows
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(before[:, 0], table.init.values(keys, 2).astype(np.float32))
