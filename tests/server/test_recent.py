"""Rows that a loss took come back from what tasks had pulled of them last."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from in_process import Group, alone, floats, make_spec, pull_all, push_all

from daskps.errors import ShardLost
from daskps.server.client import ParameterClient
from daskps.server.messages import Arrays, Pull, Seen
from daskps.server.recent import TWICE, Recent
from daskps.server.shard import Shard
from daskps.server.spec import ServerSpec
from daskps.server.tables import TableSpec
from daskps.server.updaters import FTRL, SGD, AdaGrad, Add, AnyUpdater

ROWS = 20
RULES: Sequence[AnyUpdater] = (
    SGD(discount=True),
    AdaGrad(discount=True, alpha=0.01),
    FTRL(discount=True, alpha=0.01),
)


def spec_of(updater: AnyUpdater, keys: str = "range") -> ServerSpec:
    n_rows = ROWS if keys == "range" else 0
    return make_spec(TableSpec("w", n_rows, 2, updater, keys), staleness=2)


def trained(spec: ServerSpec, clocks: int) -> Shard:
    """Return a shard that holds everything, after some pushes of three partitions."""
    shard = alone(spec)
    updater = spec.tables[0].updater
    for clock in range(clocks):
        for p in range(3):
            deltas = floats(updater, (ROWS, updater.n_push, 2), seed=10 * clock + p)
            shard.push(push_all(shard, deltas, partition=p, clock=clock, samples=5.0))
    return shard


def recent_of(shard: Shard, recent: Recent | None = None) -> list[Arrays]:
    """Return what a process knows that has pulled everything of `shard`."""
    group = Group(shard.spec, 1)
    samples, rows = pull_all(shard, clock=0)
    recent = recent or Recent()
    counted = np.array([shard.clocks[p] for p in range(shard.spec.n_partitions)], np.int64)
    seen = dict.fromkeys(range(shard.spec.n_slots), Seen(samples, counted.tobytes()))
    recent.note("run", 0, [group.keyset("w")], list(rows), seen)
    return recent.of("run", ["w"], range(shard.spec.n_slots))


@pytest.mark.parametrize("updater", RULES, ids=lambda u: type(u).__name__)
def test_a_shard_that_recalls_a_pull_answers_as_the_lost_one_did(updater: AnyUpdater) -> None:
    spec = spec_of(updater)
    lost, stands = trained(spec, 4), trained(spec, 1)
    assert stands.recall(recent_of(lost)) == ROWS
    assert stands.samples == lost.samples
    np.testing.assert_array_equal(pull_all(stands).rows[0], pull_all(lost).rows[0])


@pytest.mark.parametrize("updater", RULES, ids=lambda u: type(u).__name__)
def test_a_push_that_a_recalled_pull_had_seen_is_not_counted_again(updater: AnyUpdater) -> None:
    spec = spec_of(updater)
    group = Group(spec, 1)
    group.shards[0] = trained(spec, 4)
    keys = group.keyset("w")
    ParameterClient(spec, group.layout, group, run="run").pull([keys], partition=0, clock=4)
    stands = trained(spec, 1)
    stands.recall(group.buffers.recent.of("run", ["w"], range(spec.n_slots)))
    before = pull_all(stands).rows[0].copy()
    deltas = floats(updater, (ROWS, updater.n_push, 2), seed=32)
    assert not stands.push(push_all(stands, deltas, partition=2, clock=3, samples=5.0)).applied
    np.testing.assert_array_equal(pull_all(stands).rows[0], before)
    assert stands.push(push_all(stands, deltas, partition=2, clock=4, samples=5.0)).applied


def test_of_several_pulls_the_newest_counts_and_none_older_than_the_cut() -> None:
    spec = spec_of(AdaGrad(discount=True))
    old, lost, stands = (trained(spec, clocks) for clocks in (1, 4, 2))
    before = pull_all(stands).rows[0]
    assert stands.recall(recent_of(old)) == 0
    np.testing.assert_array_equal(pull_all(stands).rows[0], before)
    stands.recall(recent_of(lost) + recent_of(trained(spec, 3)))
    np.testing.assert_array_equal(pull_all(stands).rows[0], pull_all(lost).rows[0])


def test_keys_that_came_after_the_cut_come_back_and_keys_that_nobody_learnt_do_not() -> None:
    spec = spec_of(AdaGrad(discount=True), keys="hash")
    group = Group(spec, 2)
    client = ParameterClient(spec, group.layout, group, run="run")
    all_keys = group.keyset("w", np.arange(30, dtype=np.uint64))
    learnt = group.keyset("w", np.arange(0, 30, 2, dtype=np.uint64))
    deltas = floats(spec.tables[0].updater, (15, 5, 2), seed=1)
    client.push([learnt], [deltas], partition=0, clock=0, samples=3.0)
    client.pull([all_keys], partition=1, clock=0)
    lost = group.values("w")
    for number in group.shards:
        slots = group.layout.slots_of(number)
        group.shards[number] = Shard(spec, slots, 1)
        group.shards[number].recall(group.buffers.recent.of("run", ["w"], slots))
    keys, values = group.values("w")
    np.testing.assert_array_equal(keys, np.arange(0, 30, 2))
    np.testing.assert_array_equal(values, lost[1])


def test_a_pull_that_is_being_written_over_is_passed_over() -> None:
    shard = trained(spec_of(SGD(discount=True)), 2)

    class Overtaken(np.ndarray):
        """Rows that another pull begins to fill while they are copied."""

        def copy(self, order: str = "C") -> np.ndarray:
            recent.clear()
            return super().copy()

    recent = Recent()
    (found,) = recent_of(shard, recent)
    assert "row/w/0" in found
    (pulled,) = recent._held.values()
    rows = [r.view(Overtaken) for r in pulled.rows]
    recent.note("run", 0, pulled.keysets, rows, pulled.seen)
    assert recent.of("run", ["w"], range(shard.spec.n_slots)) == []


def test_threads_runs_and_tables_are_kept_apart() -> None:
    shard, recent = trained(spec_of(SGD(discount=True)), 1), Recent()
    other = threading.Thread(target=recent_of, args=(shard, recent))
    other.start()
    other.join(10)
    assert len(recent_of(shard, recent)) == 2
    assert recent.of("another", ["w"], [0]) == []
    assert all(set(x) == {"slots", "samples", "clocks/0"} for x in recent.of("run", ["v"], [0]))
    assert recent.begin(1) == 1
    assert len(recent.of("run", ["w"], [0])) == 2
    assert recent.begin(TWICE + 1) == 0
    assert len(recent.of("run", ["w"], [0])) == 1
    recent.clear()
    assert recent.of("run", ["w"], [0]) == []


def test_a_pull_that_fails_leaves_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group(spec_of(SGD(discount=True)), 2)
    client, keys = ParameterClient(group.spec, group.layout, group, run="run"), group.keyset("w")
    recent, slots = group.buffers.recent, range(group.spec.n_slots)

    def gone(self: Shard, msg: Pull, out: Sequence[np.ndarray]) -> float:
        for rows in out:
            rows[:] = np.nan
        raise ShardLost("gone")

    for _ in range(3):
        client.pull([keys], partition=0, clock=0)
    (before,) = recent.of("run", ["w"], slots)
    monkeypatch.setattr(Shard, "pull", gone)
    for _ in range(3):
        with pytest.raises(ShardLost):
            client.pull([keys], partition=0, clock=0)
    (after,) = recent.of("run", ["w"], slots)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_sums_are_not_recalled() -> None:
    assert not Add().recalls
    assert not AdaGrad().recalls
    assert all(rule.recalls for rule in RULES)
