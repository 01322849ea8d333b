"""Workers die in one process: replicas take their places, and nothing goes back."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from movers import Movers
from town import Town, bits, run
from training import data, model

from daskps.run import events as ev
from daskps.run.replicas import where_to
from daskps.server.layout import Layout, ShardRef

OPTIONS = {"replicas": 1, "max_iter": 4}


@functools.cache
def calm() -> tuple[bytes, list[bytes]]:
    return bits(run(model(), max_iter=4)[0]), run(Movers(), max_iter=4)[1].bits


def settled(steps: dict[int, tuple[str, int]], n_workers: int = 3) -> Any:
    """Return trouble by the number of the action, on a town of some workers."""

    def trouble(engine: Town, number: int, action: ev.Action) -> None:
        if number == 0:
            engine.there = [f"w{i}" for i in range(n_workers)]
        what, which = steps.get(number, ("", 0))
        name = f"w{which}"
        if what == "die" and name in engine.there and len(engine.there) > 1:
            engine.die(name)
        elif what == "join" and name not in engine.there:
            engine.join(name)
        elif what == "leave" and name in engine.there:
            engine.leave(name)

    return trouble


def seen_by(seen: list[Any]) -> Any:
    return (lambda told, _: seen.append(told),)


@pytest.mark.parametrize("consistency", ["bsp", "ssp", "asp"])
def test_a_worker_dies_and_nothing_is_lost_or_done_twice(consistency: str) -> None:
    seen: list[Any] = []
    options = {**OPTIONS, "consistency": consistency, "listeners": seen_by(seen)}
    outcome, kept, engine = run(Movers(), settled({9: ("die", 1)}), **options)
    np.testing.assert_array_equal(kept.counts, outcome.values["count"][1][:, 0])
    (recovered,) = [x for x in seen if isinstance(x, ev.Recovered)]
    assert recovered.by_replicas
    clocks = [c for c, entry in outcome.ledger.parts.items() for _ in entry]
    done = sum(isinstance(x, ev.TaskDone) for x in seen)
    assert len(clocks) == 8 * data().n_partitions
    assert done <= len(clocks) + data().n_partitions  # those that ran, at the most, ran twice
    if consistency == "bsp":
        assert kept.bits == calm()[1]
    # by the end there is a replica of everything again
    refs = engine.layout.refs
    assert set(engine.replicas) == set(refs)
    assert all(engine.replicas[s].address != refs[s].address for s in refs)


STEPS = st.dictionaries(
    st.integers(1, 40),
    st.tuples(st.sampled_from(["die", "die", "join", "leave"]), st.integers(0, 4)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=20)
@given(steps=STEPS)
@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_workers_may_die_come_and_leave_at_any_moment(
    consistency: str, steps: dict[int, tuple[str, int]]
) -> None:
    options = {**OPTIONS, "consistency": consistency}
    outcome, kept, _ = run(Movers(), settled(steps), **options)
    np.testing.assert_array_equal(kept.counts, outcome.values["count"][1][:, 0])
    if consistency == "bsp":
        assert kept.bits == calm()[1]
        outcome, _, _ = run(model(), settled(steps), **options)
        assert bits(outcome) == calm()[0]


def test_two_that_die_at_once_take_everybody_back() -> None:
    seen: list[Any] = []

    def trouble(engine: Town, number: int, action: ev.Action) -> None:
        settled({})(engine, number, action)
        if number == 9:
            for ref in (engine.layout.refs[0], engine.replicas[0]):
                engine.die(ref.address)

    outcome, _, _ = run(model(), trouble, **OPTIONS, listeners=seen_by(seen))
    assert bits(outcome) == calm()[0]
    assert not all(x.by_replicas for x in seen if isinstance(x, ev.Recovered))


def test_a_replica_that_does_not_follow_is_made_again() -> None:
    seen: list[Any] = []

    def trouble(engine: Town, number: int, action: ev.Action) -> None:
        settled({})(engine, number, action)
        if number == 9:
            shard = next(iter(engine.replicas))
            mirror = engine._hosts[shard].shard.mirror
            assert mirror is not None
            mirror.broken = True
            engine._inbox.put(engine.silent)  # as after a task that failed

    outcome, _, engine = run(model(), trouble, **OPTIONS, listeners=seen_by(seen))
    assert bits(outcome) == calm()[0]
    (lost,) = [x for x in seen if isinstance(x, ev.WorkerLost)]
    assert (lost.worker, lost.shards, len(lost.replicas)) == ("", (), 1)
    assert set(engine.replicas) == set(engine.layout.refs)


def test_with_one_worker_there_are_none_until_another_joins() -> None:
    outcome, _, engine = run(model(), settled({}, 1), **OPTIONS)
    assert engine.replicas == {}
    assert bits(outcome) == calm()[0]
    outcome, _, engine = run(model(), settled({6: ("join", 1)}, 1), **OPTIONS, rebalance=False)
    assert set(engine.replicas) == set(engine.layout.refs)
    assert bits(outcome) == calm()[0]


def test_replicas_are_spread_and_never_beside_their_shard() -> None:
    refs = {s: ShardRef(s, 0, f"w{s % 3}", f"k{s}") for s in range(6)}
    layout = Layout.place(64, refs)
    kept = {0: ShardRef(9, 0, "w1", "k9")}
    found = where_to(layout, kept, ["w0", "w1", "w2"])
    assert set(found) == {1, 2, 3, 4, 5}
    assert all(refs[s].address != w for s, w in found.items())
    assert sorted([*found.values(), "w1"]) == ["w0", "w0", "w1", "w1", "w2", "w2"]
    assert where_to(layout, {}, ["w1"]) == {s: "w1" for s in refs if s % 3 != 1}
