"""Shard: every push counts once, BSP ignores the order of arrival, what is wrong is refused."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import (
    INTEGERS,
    N_SLOTS,
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
from msgspec import structs

from daskps.errors import NonFinitePush, StaleLayout
from daskps.server.messages import Pull, Push, Want
from daskps.server.shard import Shard
from daskps.server.tables import TableSpec
from daskps.server.updaters import FTRL, SGD, AdaGrad, AnyUpdater

P, CLOCKS, ROWS = 3, 4, 20
STALENESS = [pytest.param(0, id="bsp"), pytest.param(2, id="ssp"), pytest.param(math.inf, id="asp")]


def delta(partition: int, clock: int) -> np.ndarray:
    rng = np.random.default_rng([partition, clock])
    return rng.integers(-1000, 1000, (ROWS, 1, 1))


def total(partitions: int, clocks: int) -> np.ndarray:
    pushes = [delta(p, c) for p in range(partitions) for c in range(clocks)]
    return np.asarray(np.sum(pushes, axis=0)[:, 0])


def table(shard: Shard) -> np.ndarray:
    """Return the table of a shard that holds all of it, in slot order."""
    return np.concatenate([v for _, v in shard.values(shard.spec.tables[0].name).values()])


@pytest.mark.parametrize("staleness", STALENESS)
@settings(max_examples=60)
@given(choices=st.lists(st.integers(0, 30), max_size=40))
def test_each_push_counts_once_under_resends_and_reordering(
    staleness: float, choices: list[int]
) -> None:
    shard = alone(counters(P, staleness, ROWS))
    clocks = [0] * P
    sent: list[Push] = []

    def send(msg: Push, *, again: bool) -> None:
        # the caller reuses its buffers at once; a message that is sent again was kept elsewhere
        buffer = msg.deltas[0].copy()
        assert shard.push(replace(msg, deltas=[buffer])).applied is not again
        buffer[:] = 10**9

    # small choices let a partition go on where staleness allows it, large ones send again
    for choice in [*choices, *(list(range(P)) * P * CLOCKS)]:
        if choice >= P and sent:
            send(sent[choice % len(sent)], again=True)
        elif (c := clocks[choice % P]) < CLOCKS and c - min(clocks) <= staleness:
            p = choice % P
            sent.append(push_all(shard, delta(p, c), partition=p, clock=c))
            clocks[p] += 1
            send(sent[-1], again=False)
    assert clocks == [CLOCKS] * P
    np.testing.assert_array_equal(table(shard), total(P, CLOCKS))
    stats = shard.stats()
    assert stats.pushes == len(sent) == P * CLOCKS
    assert stats.clocks == dict.fromkeys(range(P), CLOCKS)
    assert shard.samples == P * CLOCKS
    assert stats.pending_nbytes == 0


def test_each_push_counts_once_from_many_threads() -> None:
    shard = alone(counters(4, math.inf, ROWS))

    def partition(p: int) -> None:
        for clock in range(50):
            for _ in range(2):
                pull_all(shard, partition=p, clock=clock)
                shard.push(push_all(shard, delta(p, clock), partition=p, clock=clock))

    threads = [threading.Thread(target=partition, args=(p,)) for p in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(table(shard), total(4, 50))


@pytest.mark.parametrize(
    "updater",
    [
        pytest.param(SGD(), id="sgd"),
        pytest.param(AdaGrad(alpha=1e-3, l1_ratio=0.5), id="adagrad"),
        pytest.param(FTRL(alpha=1e-3, l1_ratio=0.5), id="ftrl"),
    ],
)
@settings(max_examples=20)
@given(orders=st.lists(st.permutations(range(5)), min_size=CLOCKS, max_size=CLOCKS))
def test_bsp_is_bit_equal_in_any_order_of_arrival(
    updater: AnyUpdater, orders: list[list[int]]
) -> None:
    bits = []
    for arrivals in (orders, [list(range(5))] * CLOCKS):
        shard = alone(make_spec(TableSpec("w", 40, 2, updater), partitions=5))
        for clock, order in enumerate(arrivals):
            for p in order:
                push = floats(updater, (40, updater.n_push, 2), seed=10 * clock + p)
                shard.push(push_all(shard, push, partition=p, clock=clock, samples=1 + p))
        bits.append((table(shard).tobytes(), pull_all(shard, clock=CLOCKS).rows[0].tobytes()))
    assert bits[0] == bits[1]


@pytest.mark.parametrize("staleness", STALENESS)
def test_what_was_pulled_never_changes(staleness: float) -> None:
    shard = alone(counters(1, staleness, ROWS))
    pulled = pull_all(shard)
    shard.push(push_all(shard, delta(0, 0), partition=0, clock=0))
    assert not pulled.rows[0].any()
    np.testing.assert_array_equal(pull_all(shard, clock=1).rows[0], delta(0, 0))


def test_bsp_answers_with_the_rows_of_the_last_barrier() -> None:
    shard = alone(counters(2, 0, ROWS))
    shard.push(push_all(shard, delta(0, 0), partition=0, clock=0))
    assert not pull_all(shard, partition=1).rows[0].any()
    assert shard.samples == 0
    shard.push(push_all(shard, delta(1, 0), partition=1, clock=0))
    expected = delta(0, 0) + delta(1, 0)
    np.testing.assert_array_equal(pull_all(shard, clock=1).rows[0], expected)


def test_a_function_for_a_clock_does_not_see_what_is_pushed_of_the_next() -> None:
    shard = alone(counters(partitions=2))
    ones = np.ones((20, 1, 1), np.int64)
    for clock in (0, 1):  # the second clock is complete, too: nobody has asked for it yet
        for p in (0, 1):
            shard.push(push_all(shard, ones, partition=p, clock=clock))
        found = [shard.apply("norm1", {"table": "count"}, clock=c) for c in (clock, clock + 1)]
        assert [sum(parts.values()) for parts in found] == [40 * clock, 40 * (clock + 1)]


@pytest.mark.parametrize("generation", [1, 3])
def test_another_generation_is_refused_and_changes_nothing(generation: int) -> None:
    shard = Shard(counters(1, 1, ROWS), range(N_SLOTS), 2)
    push = replace(push_all(shard, delta(0, 0), partition=0, clock=0), generation=generation)
    with pytest.raises(StaleLayout, match=f"generation {generation} reached .* generation 2"):
        shard.push(push)
    with pytest.raises(StaleLayout):
        pull(shard, Pull(generation, 0, 0, push.wants))
    assert not table(shard).any()
    assert shard.clocks == {0: 0}


@pytest.mark.parametrize("staleness", [0, 2])
def test_a_pull_beyond_the_staleness_bound_trips_the_assertion(staleness: int) -> None:
    shard = alone(counters(2, staleness, ROWS))
    pull_all(shard, clock=staleness)
    with pytest.raises(AssertionError):
        pull_all(shard, clock=staleness + 1)


def test_with_a_quorum_the_bound_looks_at_so_many_partitions() -> None:
    shard, one = alone(structs.replace(counters(4, 1, ROWS), quorum=0.75)), np.ones((ROWS, 1, 1))
    for partition, clock in ((0, 0), (1, 0), (2, 0), (0, 1)):
        shard.push(push_all(shard, one.astype(np.int64), partition=partition, clock=clock))
    pull_all(shard, clock=2)
    with pytest.raises(AssertionError):
        pull_all(shard, clock=3)
    late = push_all(shard, one.astype(np.int64), partition=3, clock=0)
    assert shard.push(late).applied
    assert not shard.push(late).applied
    assert (table(shard) == 5).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("spec", "want", "where"),
    [
        pytest.param(TableSpec("w", 40, 2, AdaGrad()), None, "row 12", id="all rows"),
        pytest.param(TableSpec("w", 40, 2, AdaGrad()), [5, 12], "row 12", id="some rows"),
        pytest.param(
            TableSpec("w", 0, 2, AdaGrad(), keys="hash"), [5, 12], "key 12", id="hashed keys"
        ),
    ],
)
def test_a_non_finite_push_names_its_place_and_changes_nothing(
    spec: TableSpec, want: list[int] | None, where: str, value: float
) -> None:
    shard = alone(make_spec(spec, partitions=2))
    place = shard.spec.placements()["w"]
    if want is None:
        message, order = everything(shard), np.concatenate([place.slot_keys(s) for s in range(5)])
    else:
        keys = np.array(sorted(want, key=lambda k: int(place.slots(np.array([k]))[0])))
        slots = place.slots(keys)
        sizes = np.bincount(slots, minlength=place.n_used).tolist()
        at = keys.astype(np.uint64) if spec.keys == "hash" else place.positions(keys)
        message, order = Want("w", 0, place.n_used, sizes, at), keys
    push = floats(AdaGrad(), (len(order), 3, 2), seed=0)
    push[np.flatnonzero(order == 12)[0], 1, 1] = value
    before = shard.stats()
    with pytest.raises(NonFinitePush, match=f"partition 1 at clock 0 .* table 'w', {where};"):
        shard.push(push_of(shard, [message], [push], partition=1))
    assert not table(shard).any()
    assert shard.stats() == before
    assert shard.push(push_of(shard, [message], [np.zeros_like(push)], partition=1)).applied


def test_integers_are_always_finite() -> None:
    shard = alone(make_spec(TableSpec("n", 3, 1, INTEGERS), partitions=1))
    big = np.full((3, 1, 1), np.iinfo(np.int64).max)
    assert shard.push(push_all(shard, big, partition=0, clock=0)).applied


def test_a_key_set_of_another_table_is_refused() -> None:
    shard = alone(counters(1, 0, ROWS))
    want = Want("count", 0, 3, [1, 0, 0], np.array([ROWS], np.uint32))
    with pytest.raises(IndexError, match=f"position {ROWS} asked of .* table 'count'"):
        pull(shard, Pull(1, 0, 0, (want,)))


def test_restore_and_advance_enter_a_generation() -> None:
    shard = alone(counters(2, 1, ROWS))
    shard.push(push_all(shard, delta(0, 0), partition=0, clock=0))
    shard.freeze("cut")
    cut = {n: {s: (k, r.copy()) for s, (k, r) in t.items()} for n, t in shard.frozen("cut").items()}
    shard.push(push_all(shard, delta(1, 0), partition=1, clock=0))
    shard.advance(2, {0: 0, 1: 1})
    assert (shard.generation, shard.clocks) == (2, {0: 1, 1: 1})
    np.testing.assert_array_equal(table(shard), (delta(0, 0) + delta(1, 0))[:, 0])
    shard.restore(3, {0: 1, 1: 0}, 1.0, cut)
    assert (shard.generation, shard.clocks, shard.samples) == (3, {0: 1, 1: 0}, 1.0)
    np.testing.assert_array_equal(table(shard), delta(0, 0)[:, 0])
    shard.restore(4, {0: 0, 1: 0}, 0.0, None)
    assert not table(shard).any()
    assert shard.stats().frozen_nbytes == 0


def test_a_restored_shard_forgets_what_it_gathered() -> None:
    shard = alone(counters(2, 0, ROWS))
    shard.push(push_all(shard, delta(1, 0), partition=1, clock=0))  # waits for partition 0
    shard.restore(1, {0: 0, 1: 0}, 0.0, None)
    assert shard.stats().pending_nbytes == 0
    for p in range(2):
        assert shard.push(push_all(shard, delta(p, 0), partition=p, clock=0)).applied
    np.testing.assert_array_equal(table(shard), (delta(0, 0) + delta(1, 0))[:, 0])
