"""Which rows have changed is known while they are few, and a slot is as it was by these alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import INTEGERS, alone, floats, make_spec, push_of

from daskps.server.changed import LEAST, MANY, Changed
from daskps.server.frozen import cut_of
from daskps.server.messages import Want
from daskps.server.slot import TableSlot
from daskps.server.sums import Tally, Total
from daskps.server.tables import Init, Placement, TableSpec
from daskps.server.updaters import FTRL, SGD, AdaGrad, AnyUpdater

N = LEAST + 100
SOME = st.sets(st.integers(0, N - 1) | st.sampled_from([0, 63, 64, N - 1]), max_size=40)
RULES: list[AnyUpdater] = [
    *(rule(discount=discount) for rule in (SGD, AdaGrad, FTRL) for discount in (False, True)),
    AdaGrad(alpha=1e-3, l1_ratio=0.5),
    FTRL(alpha=1e-3, l1_ratio=0.5),
    INTEGERS,
    Total(),
    Tally(),
]


def index(some: set[int]) -> Any:
    return np.array(sorted(some), np.uint32)


@given(st.lists(SOME, max_size=6))
def test_what_was_noted_is_found_once_and_in_order(groups: list[set[int]]) -> None:
    changed = Changed(N)
    for some in groups:
        changed.note(index(some))
        assert changed.few
    found = changed.positions()
    assert found.dtype == np.uint32
    assert found.tolist() == sorted({i for some in groups for i in some})


@pytest.mark.parametrize(("more", "few"), [(0, True), (1, False)])
def test_many_are_all_and_take_no_memory(more: int, few: bool) -> None:
    changed = Changed(N)
    changed.note(np.arange(0, 100, dtype=np.uint32))
    changed.note(np.arange(0, N // MANY + more, dtype=np.uint32))
    assert changed.few == few
    assert changed.nbytes == (8 * -(-N // 64) if few else 0)
    changed.note(None)
    changed.note(np.arange(3, dtype=np.uint32))
    assert not changed.few


def test_few_rows_are_not_told_apart() -> None:
    assert Changed(LEAST).few
    assert not Changed(LEAST - 1).few


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_what_differs_in_any_bit_is_found(dtype: type) -> None:
    rows = np.full((N, 2, 3), 2, dtype)
    start = rows[:1].copy()
    rows[5, 0, 0], rows[N - 1, 1, 2] = 3, 1
    changed = Changed(N)
    changed.compare(rows, start)
    assert changed.positions().tolist() == [5, N - 1]


def test_zeros_of_another_sign_differ_and_nans_of_the_same_bits_do_not() -> None:
    rows = np.zeros((N, 1, 1), np.float32)
    rows[7], rows[9] = -0.0, np.nan
    for start, expected in ((0.0, [7, 9]), (np.nan, None)):
        changed = Changed(N)
        changed.compare(rows, np.full((1, 1, 1), start, np.float32))
        assert (changed.positions().tolist() if changed.few else None) == expected


def table(updater: AnyUpdater, kind: Any = "constant", scale: float = 0.0) -> Placement:
    init = Init(kind, scale, seed=1)
    return Placement(TableSpec("w", N, 2, updater, init=init), 1)


def pushed(updater: AnyUpdater, n: int, seed: int) -> Any:
    if np.issubdtype(updater.push_dtype, np.integer):
        return np.random.default_rng(seed).integers(0, 5, (n, 1, 2)).astype(updater.push_dtype)
    return floats(updater, (n, updater.n_push, 2), seed)


def train(slot: TableSlot, groups: list[set[int]], seed: int = 0) -> None:
    """Push to each group of rows, together at a barrier where the rule has one."""
    updater, T = slot.spec.updater, 1.0
    for number, some in enumerate(groups):
        push = pushed(updater, len(some), seed + number)
        if getattr(updater, "discount", False):
            slot.apply(index(some), push, T, 1.0)
        else:
            slot.fold(index(some), push)
            slot.commit(T, 1.0)
        T += 1.0


def cut(slot: TableSlot) -> Any:
    return cut_of({0: slot})[0]


def bits(slot: TableSlot) -> bytes:
    return slot.rows.tobytes()


@pytest.mark.parametrize("updater", RULES, ids=str)
@settings(max_examples=8)
@given(
    before=st.lists(SOME, max_size=3),
    after=st.lists(SOME, max_size=3),
    scale=st.sampled_from([0.0, -0.0, 1.0]),
)
def test_a_slot_is_what_it_was_to_the_bit_and_goes_on_so(
    updater: AnyUpdater, before: list[set[int]], after: list[set[int]], scale: float
) -> None:
    place = table(updater, scale=scale)
    slot, again = TableSlot(place, 0), TableSlot(place, 0)
    train(slot, before)
    train(again, after, seed=9)  # what it held is gone
    keys, rows = cut(slot)
    again.load(keys, rows)
    assert bits(again) == bits(slot)
    whole = TableSlot(place, 0)
    whole.load(*slot.freeze())
    for held in (again, whole):  # what was loaded is known as it was
        third = TableSlot(place, 0)
        third.load(*cut(held))
        assert bits(third) == bits(slot)
    for held in (slot, again, whole):
        train(held, after, seed=5)
    assert bits(slot) == bits(again) == bits(whole)


def test_a_cut_holds_what_was_pushed_to_and_nothing_copies_it() -> None:
    slot = TableSlot(table(AdaGrad(alpha=0.1)), 0)
    train(slot, [{3, 4000}, {4000, 70}])
    keys, rows = cut(slot)
    assert keys is not None
    assert keys.tolist() == [3, 70, 4000]
    np.testing.assert_array_equal(rows, slot.rows[keys])
    before, address = rows.copy(), slot.rows.ctypes.data
    train(slot, [{3, 5}])
    np.testing.assert_array_equal(rows, before)
    assert slot.rows.ctypes.data == address
    assert not np.array_equal(slot.rows[3], rows[0])


def test_a_slot_of_which_much_has_changed_is_cut_as_a_whole() -> None:
    slot = TableSlot(table(AdaGrad()), 0)
    train(slot, [set(range(N // MANY + 1))])
    keys, rows = cut(slot)
    assert keys is None
    assert rows is slot.rows


@pytest.mark.parametrize("updater", [AdaGrad(alpha=0.1), Total()], ids=str)
def test_rows_that_change_without_a_push_are_in_the_cut(updater: AnyUpdater) -> None:
    """A penalty, or a new clock, changes what does not begin with zero."""
    slot = TableSlot(table(updater, scale=1.0), 0)
    train(slot, [{3}])
    assert cut(slot)[0] is None
    assert not np.array_equal(slot.rows[5], TableSlot(table(updater, scale=1.0), 0).rows[5])


def test_rows_that_begin_by_a_formula_are_cut_as_a_whole() -> None:
    place = table(AdaGrad(), "normal", 1.0)
    slot = TableSlot(place, 0)
    train(slot, [{3}])
    assert cut(slot)[0] is None
    with pytest.raises(ValueError, match=r"table .w.*another table"):
        slot.load(index({3}), slot.rows[3:4])


def test_what_a_function_sets_is_in_the_cut() -> None:
    shard = alone(make_spec(TableSpec("w", 8 * N, 1, INTEGERS), partitions=1))
    assert sum(shard.freeze("cut")["w"].values()) == 0
    assert sum(shard.freeze("cut", whole=True)["w"].values()) == 8 * N
    assert shard.stats().frozen_nbytes == 0
    want = Want("w", 0, 8, [1] + [0] * 7, np.array([7], np.uint32))
    shard.push(push_of(shard, [want], [np.ones((1, 1, 1), np.int64)]))
    assert sum(shard.freeze("cut")["w"].values()) == 1
    assert shard.stats().frozen_nbytes == 8
    shard.apply("fill", {"table": "w", "value": 3})
    assert sum(shard.freeze("cut")["w"].values()) == 8 * N


def test_rows_at_places_of_another_table_are_not_loaded() -> None:
    slot = TableSlot(table(AdaGrad()), 0)
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2\).*another table"):
        slot.load(index({3}), np.zeros((2, 2, 2), np.float32))
