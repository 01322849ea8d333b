"""Tables: every key has one slot and position; initial values depend on seed and key alone."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import INTEGERS

from daskps.server.tables import BLOCK_MAX, Init, Placement, TableSpec

SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 70))


def placement(n_rows: int, n_slots: int) -> Placement:
    return Placement(TableSpec("t", n_rows, 1, INTEGERS), n_slots)


@given(SIZES)
def test_every_row_has_exactly_one_slot_and_position(sizes: tuple[int, int]) -> None:
    n_rows, n_slots = sizes
    place = placement(n_rows, n_slots)
    keys = [place.slot_keys(s) for s in range(n_slots)]
    np.testing.assert_array_equal(np.sort(np.concatenate(keys)), np.arange(n_rows))
    for slot, held in enumerate(keys):
        assert place.slot_rows(slot) == len(held)
        assert (place.slots(held) == slot).all()
        np.testing.assert_array_equal(place.positions(held), np.arange(len(held)))


@given(SIZES, st.integers(1, 3))
def test_slots_and_tables_are_copied_to_and_fro(sizes: tuple[int, int], width: int) -> None:
    place = placement(*sizes)
    table = np.arange(sizes[0] * width).reshape(sizes[0], width)
    again = np.zeros_like(table)
    for slot in range(sizes[1]):
        rows = place.gather(slot, table)
        np.testing.assert_array_equal(rows, table[place.slot_keys(slot)])
        place.scatter(slot, rows, again)
    np.testing.assert_array_equal(again, table)


@given(SIZES)
def test_bounds_are_where_slots_start(sizes: tuple[int, int]) -> None:
    place = placement(*sizes)
    assert place.bounds()[0] == 0
    assert place.bounds()[-1] == sizes[0]
    assert np.diff(place.bounds()).tolist() == [place.slot_rows(s) for s in range(sizes[1])]


@pytest.mark.parametrize("n_rows", [1_000, 100_000, 10_000_000])
def test_a_hot_head_is_spread_and_slots_are_nearly_equal(n_rows: int) -> None:
    place = placement(n_rows, 64)
    sizes = np.diff(place.bounds())
    assert sizes.max() - sizes.min() <= place.block <= BLOCK_MAX
    assert len(np.unique(place.slots(np.arange(64 * place.block)))) == 64


def test_hashed_keys_spread_over_all_slots() -> None:
    place = Placement(TableSpec("t", 0, 1, INTEGERS, keys="hash"), 64)
    counts = np.bincount(place.slots(np.arange(64_000, dtype=np.uint64)), minlength=64)
    assert counts.min() > 800
    assert counts.max() < 1200
    assert place.slots(np.array([2**64 - 1], np.uint64))[0] in range(64)


@pytest.mark.parametrize("kind", ["constant", "normal", "uniform"])
@given(st.permutations(range(40)), st.integers(1, 40))
def test_initial_values_depend_on_seed_and_key_alone(kind: Any, order: list[int], cut: int) -> None:
    init = Init(kind, 0.5, seed=3)
    whole = init.values(np.arange(40, dtype=np.uint64), 3)
    some = np.array(order[:cut])
    np.testing.assert_array_equal(init.values(some, 3), whole[some])


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_initial_values_have_the_named_distribution(seed: int) -> None:
    keys = np.arange(20_000)
    normal = Init("normal", 2.0, seed).values(keys, 2)
    uniform = Init("uniform", 2.0, seed).values(keys, 2)
    assert abs(normal.mean()) < 0.05  # 5 standard errors
    assert abs(normal.std() - 2.0) < 0.05
    assert abs(np.corrcoef(normal[:, 0], normal[:, 1])[0, 1]) < 0.04
    assert uniform.min() >= -2.0
    assert uniform.max() < 2.0
    assert abs(uniform.std() - 2.0 / np.sqrt(3.0)) < 0.03
    assert (Init("constant", 2.0, seed).values(keys, 2) == 2.0).all()
    for drawn in (normal, uniform):
        assert len(np.unique(drawn)) == drawn.size
        assert drawn[0, 0] not in (0.0, -2.0)  # the first cell is as random as the others


def test_other_seeds_give_other_values() -> None:
    first, second = (Init("normal", 1.0, seed).values(np.arange(1000), 1)[:, 0] for seed in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"width": 0}, id="no values"),
        pytest.param({"n_rows": -1}, id="negative rows"),
        pytest.param({"n_rows": 0}, id="empty range table"),
        pytest.param({"keys": "hash"}, id="hash table with rows"),
    ],
)
def test_impossible_tables_are_refused(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"name": "weights", "n_rows": 3, "width": 1, "updater": INTEGERS}
    with pytest.raises(ValueError, match=r"'weights'.*width must be at least 1"):
        TableSpec(**(right | wrong))


def test_a_table_survives_json() -> None:
    spec = TableSpec("t", 0, 2, INTEGERS, keys="hash", init=Init("normal", 0.1, 7))
    assert msgspec.json.decode(msgspec.json.encode(spec), type=TableSpec) == spec
