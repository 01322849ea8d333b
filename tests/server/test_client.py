"""Client: several shards look like one table; messages that are lost or repeated count once."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from in_process import INTEGERS, Group, counters, make_spec

from daskps.errors import ShardLost, StaleLayout
from daskps.server.buffers import Buffers
from daskps.server.layout import ShardRef
from daskps.server.messages import Blocks, Pull, Push
from daskps.server.tables import Init, TableSpec
from daskps.server.updaters import Add

ROWS = 500
INIT = Init("uniform", 1000.0, seed=1)
TABLES = (
    TableSpec("range", ROWS, 2, Add("float64"), init=INIT),
    TableSpec("tiny", 1, 1, Add("float64"), init=INIT),  # most shards hold none of it
    TableSpec("hash", 0, 2, Add("float64"), keys="hash", init=INIT),
)
MANY, FEW = np.arange(ROWS), np.array([3, 17, 255, 499])
KEYS = {
    "all rows": ("range", None),
    "dense": ("range", MANY[5:]),
    "sparse": ("range", FEW),
    "other rows": ("range", FEW + 1 - 400 * (FEW == 499)),
    "tiny": ("tiny", None),
    "hash": ("hash", FEW.astype(np.uint64) * np.uint64(2**55)),
}
NEAR = {"far": (), "near": (0, 1, 2, 3), "both": (1, 2)}


def keys_in_order(group: Group, table: str, keys: np.ndarray | None) -> np.ndarray:
    """Return the keys of a key set in its order."""
    place, keyset = group.spec.placements()[table], group.keyset(table, keys)
    if keyset.hashed:
        assert keyset.at is not None
        return keyset.at
    slots = [place.slot_keys(s) for s in range(group.spec.n_slots)]
    if keyset.at is None:
        return np.concatenate(slots)
    b = keyset.bounds
    return np.concatenate([slot[keyset.at[b[s] : b[s + 1]]] for s, slot in enumerate(slots)])


@pytest.mark.parametrize("n_shards", [1, 4])
@pytest.mark.parametrize("near", NEAR.values(), ids=NEAR)
def test_pulls_and_pushes_reach_the_rows_of_the_key_sets(
    n_shards: int, near: tuple[int, ...]
) -> None:
    group = Group(make_spec(*TABLES, partitions=1), n_shards, near)
    client = group.client()
    chosen = list(KEYS.values())  # several key sets of one table at once
    keysets = [group.keyset(table, keys) for table, keys in chosen]
    ordered = [keys_in_order(group, table, keys) for table, keys in chosen]
    width = {t.name: t.width for t in TABLES}
    start = [INIT.values(k, width[table]) for k, (table, _) in zip(ordered, chosen, strict=True)]
    rows, samples = client.pull(keysets, partition=0, clock=0)
    assert samples == 0
    for pulled, expected in zip(rows, start, strict=True):
        np.testing.assert_array_equal(pulled[:, 0], expected)
    deltas = [np.arange(r.size, dtype=np.float64).reshape(r.shape) for r in rows]
    assert client.push(keysets[3:], deltas[3:], partition=0, clock=0, samples=7)
    assert not client.push(keysets[3:], deltas[3:], partition=0, clock=0, samples=7)
    rows, samples = client.pull(keysets[3:], partition=0, clock=1)
    assert samples == 7
    for pulled, before, delta in zip(rows, start[3:], deltas[3:], strict=True):
        np.testing.assert_array_equal(pulled[:, 0], before + delta[:, 0])
    hashed, values = group.values("hash")
    assert hashed is not None
    order = np.argsort(ordered[-1])
    np.testing.assert_array_equal(hashed, ordered[-1][order])
    np.testing.assert_array_equal(values, rows[-1][order, 0])
    assert bool(client.traffic.pulled) is bool(set(range(n_shards)) - set(near))


class Lossy(Group):
    """Every message may be lost, answered too late, or carried twice."""

    dice = random.Random(0)

    def deliver(self, ref: ShardRef, message: Pull | Push, out: Blocks) -> Any:
        fate = self.dice.random()
        if fate < 0.1:
            raise ShardLost("lost on the way there")
        answer = super().deliver(ref, message, out)
        if fate < 0.2:
            super().deliver(ref, message, out)  # distributed sends again after an OSError
        if fate < 0.3:
            raise ShardLost("lost on the way back")
        return answer


@pytest.mark.parametrize("staleness", [0, math.inf])
def test_pushes_that_are_retried_until_they_succeed_count_once(staleness: float) -> None:
    group = Lossy(counters(3, staleness, ROWS), 4)
    keysets = [group.keyset("count", np.array([p, 100 + p, 200])) for p in range(3)]
    expected = np.zeros(ROWS, np.int64)
    for clock in range(20):
        for p in random.Random(clock).sample(range(3), 3):
            expected[keys_in_order(group, "count", np.array([p, 100 + p, 200]))] += 10**p + clock
            delta = np.full((3, 1, 1), 10**p + clock)
            for attempt in range(300):
                try:
                    group.client().pull(keysets[p : p + 1], partition=p, clock=clock)
                    group.client().push(
                        keysets[p : p + 1], [delta], partition=p, clock=clock, samples=1
                    )
                except ShardLost:
                    assert attempt < 299
                else:
                    break
    np.testing.assert_array_equal(group.values("count")[1][:, 0], expected)


def test_an_old_layout_is_refused() -> None:
    group = Group(counters(1, 0, ROWS), 2)
    client = group.client()
    for shard in group.shards.values():
        shard.advance(2, {0: 0})
    with pytest.raises(StaleLayout):
        client.pull([group.keyset("count")], partition=0, clock=0)


def test_all_messages_leave_before_an_answer_is_waited_for() -> None:
    sent: list[int] = []

    class Counting(Group):
        def send(self, calls: Any) -> Any:
            sent.append(len(calls))
            return super().send(calls)

    group = Counting(counters(1, 0, ROWS), 4, near=(0,))
    group.client().pull([group.keyset("count")], partition=0, clock=0)
    assert sent == [3]


def test_shards_without_slots_are_left_alone() -> None:
    class Watched(Group):
        def deliver(self, *call: Any) -> Any:
            assert self.layout.slots_of(call[0].shard)
            return super().deliver(*call)

    group = Watched(make_spec(TableSpec("n", 1, 1, INTEGERS), partitions=1, slots=1), 4)
    (rows,), _ = group.client().pull([group.keyset("n")], partition=0, clock=0)
    assert rows.shape == (1, 1, 1)


def test_scratch_memory_is_reused_but_not_for_two_purposes() -> None:
    buffers = Buffers()
    first = buffers.take("a", (4, 3), np.float32)
    assert np.shares_memory(first, buffers.take("a", (3, 4), np.float32))
    assert not np.shares_memory(first, buffers.take("b", (4, 3), np.float32))
    assert buffers.take("c", (0, 2), np.int64).shape == (0, 2)
    large = buffers.take("a", (10**6,), np.uint8)
    assert buffers.take("a", (10,), np.uint8).base is not large.base  # does not keep it
