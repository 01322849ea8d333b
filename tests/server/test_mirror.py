"""A shard and its replica: the same bits, whoever pushes, and nothing acknowledged by halves."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskps.errors import ShardLost, StaleLayout
from daskps.server import mirror
from daskps.server.keys import whole_table
from daskps.server.messages import Ask, Pull, Push
from daskps.server.mirror import Mirror
from daskps.server.shard import Shard
from daskps.server.spec import ServerSpec
from daskps.server.tables import TableSpec
from daskps.server.updaters import AdaGrad

N_SLOTS, ROWS, PARTITIONS = 2, 16, 6


def pair(staleness: float, wrap: Any = None) -> tuple[Shard, Shard]:
    """Return a shard and its replica; `wrap` stands between them."""
    tables = (TableSpec("w", ROWS, 1, AdaGrad(discount=staleness > 0)),)
    spec = ServerSpec(tables, N_SLOTS, PARTITIONS, staleness)
    first, second = (Shard(spec, range(N_SLOTS), 1) for _ in range(2))

    def send(msg: Any) -> Any:
        return second.push(msg) if isinstance(msg, Push) else second.ask(msg)

    first.mirror = Mirror(send if wrap is None else lambda msg: wrap(send, msg), 5.0)
    return first, second


def push(shard: Shard, partition: int, clock: int) -> Push:
    keyset = whole_table(shard.spec.placements()["w"])
    fields = shard.spec.tables[0].updater.n_push
    rng = np.random.default_rng([partition, clock])
    deltas = [rng.normal(size=(ROWS, fields, 1)).astype(np.float32) ** 2]
    return Push(shard.generation, partition, clock, 1.0, (keyset.want(0, N_SLOTS),), deltas)


def rows(shard: Shard) -> bytes:
    return b"".join(slot.rows.tobytes() for slot in shard._tables["w"].values())


@settings(max_examples=20)
@given(order=st.permutations(range(PARTITIONS)), staleness=st.sampled_from([0, 3.0]))
def test_a_replica_holds_the_same_bits_whatever_the_order(
    order: list[int], staleness: float
) -> None:
    first, second = pair(staleness)
    for clock in range(2):
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda p, c=clock: first.push(push(first, p, c)), order))
    assert first.clocks == second.clocks == dict.fromkeys(range(PARTITIONS), 2)
    assert first.values("w").keys() == second.values("w").keys()
    assert rows(first) == rows(second)
    assert first.samples == second.samples == 2 * PARTITIONS


def test_pushes_that_overtake_each_other_on_their_way_wait_for_their_turn() -> None:
    release = threading.Event()

    def slow_first(send: Any, msg: Push) -> Any:
        if msg.order == 1:
            assert release.wait(5)
        return send(msg)

    first, second = pair(3.0, slow_first)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first.push, push(first, 0, 0))
        while 0 not in {p for p, c in first.clocks.items() if c}:
            pass
        two = pool.submit(first.push, push(first, 1, 0))
        while first.clocks[1] == 0:
            pass
        release.set()
        assert one.result(5).applied
        assert two.result(5).applied
    assert rows(first) == rows(second)


def test_a_repeated_push_is_acknowledged_only_when_the_replica_has_it() -> None:
    on_its_way, release = threading.Event(), threading.Event()

    def slow(send: Any, msg: Push) -> Any:
        on_its_way.set()
        assert release.wait(5)
        return send(msg)

    first, second = pair(3.0, slow)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first.push, push(first, 0, 0))
        assert on_its_way.wait(5)
        again = pool.submit(first.push, push(first, 0, 0))
        with pytest.raises(TimeoutError):
            again.result(0.05)
        release.set()
        assert (one.result(5).applied, again.result(5).applied) == (True, False)
    assert second.clocks[0] == 1


def test_when_a_replica_does_not_follow_nothing_more_is_counted() -> None:
    def fail(send: Any, msg: Push) -> Any:
        raise ConnectionError("cut off")

    first, second = pair(3.0, fail)
    with pytest.raises(ShardLost, match="did not follow it: cut off"):
        first.push(push(first, 0, 0))
    for again in ((0, 0), (1, 0)):
        with pytest.raises(ShardLost, match="does not follow"):
            first.push(push(first, *again))
    assert (first.clocks[1], second.clocks[0]) == (0, 0)
    assert not first.advance(2, first.clocks, mirrored=True)
    first.advance(3, first.clocks)  # without it, it counts again
    assert first.push(push(first, 1, 0)).applied


def test_a_push_whose_predecessor_never_came_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "BEHIND", 0.05)
    _, second = pair(3.0)
    with pytest.raises(ShardLost, match="push 2 came to a replica, push 1 did not"):
        second.push(replace(push(second, 0, 0), order=2))
    assert second.clocks[0] == 0


def test_a_push_that_waits_is_refused_once_the_replica_has_taken_the_place() -> None:
    _, second = pair(3.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second.push, replace(push(second, 0, 0), order=2))
        with pytest.raises(TimeoutError):
            waiting.result(0.05)
        second.advance(2, second.clocks)
        with pytest.raises(StaleLayout):
            waiting.result(5)
    assert second.push(push(second, 0, 0)).applied


def test_what_a_partition_keeps_is_kept_twice() -> None:
    first, second = pair(3.0)
    for clock in range(5):
        made = {"box": np.full(3, clock)}
        first.ask(Ask(1, 0, clock, "keep", made))
        first.ask(Ask(1, 0, clock, "keep", {"box": np.zeros(3)}))  # a second attempt
    assert first.kept(0)["box"].tolist() == second.kept(0)["box"].tolist() == [4, 4, 4]
    assert second.stats().states_nbytes <= 2 * made["box"].nbytes  # what is older is forgotten


@pytest.mark.parametrize("reached", [0, 1])
def test_a_task_that_is_done_again_finds_what_it_found(reached: int) -> None:
    """Its push made the clock complete at one of two shards before it failed."""
    shards = pair(0)
    for shard in shards:
        shard.mirror = None
    for shard in shards:
        for p in range(PARTITIONS - 1):
            shard.push(push(shard, p, 0))
    before = pulled(shards[reached], 0)
    shards[reached].push(push(shards[reached], PARTITIONS - 1, 0))
    assert pulled(shards[reached], 0) == before
    for shard in shards:
        shard.push(push(shard, PARTITIONS - 1, 0))
    assert pulled(shards[0], 1) == pulled(shards[1], 1) != before


def pulled(shard: Shard, clock: int) -> bytes:
    keyset = whole_table(shard.spec.placements()["w"])
    u = shard.spec.tables[0].updater
    out = np.empty((ROWS, u.n_pull, 1), u.dtype)
    shard.pull(Pull(1, PARTITIONS - 1, clock, (keyset.want(0, N_SLOTS),)), [out])
    return out.tobytes()
