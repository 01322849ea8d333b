"""Workers come and leave in one process: slots and states move, and nothing else changes."""

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

from daskps.errors import RunTimeout, ShardLost
from daskps.run import events as ev


@functools.cache
def calm() -> tuple[bytes, list[bytes]]:
    return bits(run(model())[0]), run(Movers())[1].bits


STEPS = st.dictionaries(
    st.integers(0, 24),
    st.tuples(st.sampled_from(["join", "leave", "lose"]), st.integers(0, 3)),
    min_size=1,
    max_size=5,
)


def changing(steps: dict[int, tuple[str, int]]) -> Any:
    def trouble(engine: Town, number: int, action: ev.Action) -> None:
        what, which = steps.get(number, ("", 0))
        name = f"w{which}"
        if what == "join" and name not in engine.there:
            engine.join(name)
        elif what == "leave" and name in engine.there:
            engine.leave(name)
        elif what == "lose" and which in engine.layout.refs:
            engine.lose(which)

    return trouble


@settings(max_examples=15)
@given(steps=STEPS)
@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_workers_may_come_go_and_die_at_any_moment(
    tmp_path_factory: Any, consistency: str, checkpointed: bool, steps: dict[int, tuple[str, int]]
) -> None:
    def options() -> dict[str, Any]:
        chosen: dict[str, Any] = {"consistency": consistency}
        if checkpointed:
            store = tmp_path_factory.mktemp("ckpt") / "c.zarr"
            chosen |= {"checkpoint": str(store), "checkpoint_every": 2}
        return chosen

    outcome, kept, _ = run(Movers(), changing(steps), **options())
    np.testing.assert_array_equal(kept.counts, outcome.values["count"][1][:, 0])
    if consistency == "bsp":
        assert kept.bits == calm()[1]
        outcome, _, _ = run(model(), changing(steps), **options())
        assert bits(outcome) == calm()[0]


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_a_shard_whose_slots_hold_no_rows_has_seen_the_samples_all_the_same(solver: str) -> None:
    # of 64 slots few hold any of the 40 rows: some shard gets none that does, and its samples are
    # part of what tasks pull; the penalty of FTRL goes by them
    trained = model(solver=solver, alpha=0.01)
    moved, _, engine = run(trained, changing({2: ("join", 1), 6: ("join", 2)}))
    assert len(engine.layout.refs) == 3
    assert bits(moved) == bits(run(trained)[0])


def test_slots_go_where_workers_are_and_no_clock_is_done_twice() -> None:
    steps = {2: ("join", 1), 6: ("join", 2), 10: ("leave", 0)}
    seen: list[Any] = []
    outcome, kept, engine = run(
        Movers(), changing(steps), listeners=(lambda told, _: seen.append(told),), max_iter=6
    )
    assert not [x for x in seen if isinstance(x, ev.Recover)]
    assert sum(isinstance(x, ev.TaskDone) for x in seen) == 12 * data().n_partitions
    moved = [x for x in seen if isinstance(x, ev.Moved)]
    assert [m.n_shards for m in moved] == [2, 3, 2]
    # shards begin on a worker without a name, so all 64 move; then a third; then those of w0
    assert [m.moved for m in moved] == [64, 21, 22]
    assert {ref.address for ref in engine.layout.refs.values()} == {"w1", "w2"}
    assert set(engine.layout.homes) == set(engine.layout.refs)
    np.testing.assert_array_equal(kept.counts, outcome.values["count"][1][:, 0])


def test_a_move_that_fails_leaves_everything_as_it_was() -> None:
    def trouble(engine: Town, number: int, action: ev.Action) -> None:
        if number == 2:
            engine._move_in = fail
            engine.join("w1")

    def fail(*args: Any) -> None:
        raise ShardLost("it went while it handed over")

    seen: list[Any] = []
    outcome, _, engine = run(model(), trouble, listeners=(lambda told, _: seen.append(told),))
    assert bits(outcome) == calm()[0]
    assert sum(isinstance(x, ev.MoveFailed) for x in seen) == 3  # tried again, not for ever
    assert engine.layout.generation == 1


def test_the_last_worker_keeps_its_shards() -> None:
    outcome, _, engine = run(model(), changing({2: ("leave", 0)}))
    assert bits(outcome) == calm()[0]
    assert {ref.address for ref in engine.layout.refs.values()} == {"inproc"}


def test_without_rebalance_a_worker_that_joins_gets_no_slots() -> None:
    _, _, engine = run(model(), changing({2: ("join", 1)}), rebalance=False)
    assert engine.moves == []


def test_no_number_of_a_shard_comes_twice_though_none_can_be_made() -> None:
    asked: list[int] = []

    def refuse(numbers: dict[int, int], *_: Any) -> Any:
        asked.append(numbers[0])
        raise RunTimeout("no worker runs tasks")

    def trouble(engine: Town, number: int, action: ev.Action) -> None:
        if number == 3:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(engine, "_make", refuse)
                for _ in range(2):
                    with pytest.raises(RunTimeout):
                        engine.make_at({0: "w0"}, {0: [0]}, engine.layout.generation + 1)

    assert bits(run(model(), trouble)[0]) == calm()[0]
    assert len(set(asked)) == 2
