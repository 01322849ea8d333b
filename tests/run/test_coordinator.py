"""Coordinator: whatever happens, the bound holds, everything is done once, and the run ends."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import TURN, World, calm, policy

from daskps.errors import NonFinitePush, RunTimeout
from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.ledger import Ledger
from daskps.run.policy import Policy

POLICIES = st.builds(
    Policy,
    n_partitions=st.integers(1, 3),
    n_shards=st.integers(1, 3),
    n_clocks=st.integers(1, 6),
    clocks_per_pass=st.integers(1, 3),
    staleness=st.sampled_from([0, 1, 2, math.inf]),
    checkpoint_clocks=st.sampled_from([None, 1, 2]),
    checkpoint_seconds=st.sampled_from([None, 20.0]),
    evaluate=st.booleans(),
    tol=st.sampled_from([None, 0.01]),
)
QUORUM = st.builds(
    Policy,
    n_partitions=st.integers(2, 4),
    n_shards=st.integers(1, 3),
    n_clocks=st.integers(1, 6),
    staleness=st.sampled_from([1, 2]),
    quorum=st.sampled_from([0.25, 0.5, 0.75]),
    checkpoint_clocks=st.sampled_from([None, 2]),
)
TURNING = st.builds(
    Policy,
    n_partitions=st.integers(1, 3),
    n_shards=st.integers(1, 3),
    n_clocks=st.integers(1, 7),
    takes_turns=st.just(True),
    looks_on=st.booleans(),
    checkpoint_clocks=st.sampled_from([None, 1, 2]),
    evaluate=st.booleans(),
)


@settings(max_examples=300)
@given(
    st.one_of(POLICIES, QUORUM, TURNING),
    st.lists(st.integers(0, 16 * 24 - 1), min_size=60, max_size=240),
)
def test_any_run_ends_with_everything_done_once(policy: Policy, choices: list[int]) -> None:
    world = World(policy)
    for choice in choices:
        world.step(choice)
    world.drain()
    coordinator = world.coordinator
    assert coordinator.ended in ("max_iter", "tol", "interrupted"), world.failed
    if coordinator.ended == "max_iter":
        assert coordinator.min_clock == policy.n_clocks
    if policy.takes_turns and coordinator.ended == "tol":
        # where the turns of `World` converge
        assert 5 <= coordinator.min_clock <= 5 + policy.looks_on
    for shard in world.shards:
        if shard.alive and not shard.partial:
            assert shard.counted == {p: set(range(c)) for p, c in coordinator.clocks.items()}
    assert not (policy.staleness == 0 and any(s.partial for s in world.shards))


def launched(actions: list[ev.Action]) -> list[tuple[int, int]]:
    return [(a.partition, a.clock) for a in actions if isinstance(a, ev.Launch)]


def finish(coordinator: Coordinator, partition: int, loss: float = 1.0) -> list[ev.Action]:
    token = next(t for t, r in coordinator.running.items() if r.partition == partition)
    return coordinator.handle(ev.TaskDone(token, {"loss": loss, "samples": 1.0}))


@pytest.mark.parametrize(
    ("staleness", "reached"),
    [
        pytest.param(0, 1, id="bsp"),
        pytest.param(2, 3, id="ssp"),
        pytest.param(math.inf, 5, id="asp"),  # half of what the others have left
    ],
)
def test_a_fast_partition_runs_ahead_as_far_as_allowed(staleness: float, reached: int) -> None:
    coordinator = Coordinator.start(policy(staleness=staleness, n_clocks=9))
    assert launched(coordinator.handle(ev.Tick(1.0))) == [(0, 0), (1, 0), (2, 0)]
    while any(r.partition == 0 for r in coordinator.running.values()):
        finish(coordinator, 0)
    assert coordinator.clocks == {0: reached, 1: 0, 2: 0}


def test_a_quorum_goes_on_without_the_slowest() -> None:
    coordinator = Coordinator.start(
        policy(n_partitions=4, staleness=1, quorum=0.75, n_clocks=9), dict.fromkeys(range(4), 0)
    )
    coordinator.handle(ev.Tick(1.0))
    for _ in range(6):
        for partition in (0, 1, 2):
            finish(coordinator, partition)
    assert coordinator.clocks == {0: 6, 1: 6, 2: 6, 3: 0}
    finish(coordinator, 0)
    finish(coordinator, 0)  # the bound holds among those who make the quorum
    assert {r.partition for r in coordinator.running.values()} == {1, 2, 3}
    finish(coordinator, 3)
    assert {(r.partition, r.clock) for r in coordinator.running.values()} >= {(3, 1)}


def test_laggards_start_first() -> None:
    coordinator = Coordinator.start(policy(staleness=2), {0: 2, 1: 0, 2: 1})
    assert launched(coordinator.handle(ev.Tick(1.0))) == [(1, 0), (2, 1), (0, 2)]


@pytest.mark.parametrize("settings", [{}, {"staleness": 2}, {"checkpoint_clocks": 3}])
def test_cuts_come_in_time_and_at_the_end(settings: dict[str, Any]) -> None:
    world = calm(n_clocks=7, **settings)
    cuts = [a.clocks for a in world.actions if isinstance(a, ev.FreezeCut)]
    clocks = [3, 6, 7] if "checkpoint_clocks" in settings else []
    assert [min(c.values()) for c in cuts] == clocks
    assert isinstance(world.actions[-1], ev.Finish)


def test_cuts_by_seconds() -> None:
    world = World(policy(n_partitions=1, checkpoint_seconds=10.0, n_clocks=30))
    while world.coordinator.ended is None:
        world.tell(ev.Tick(world.later(1.0)))
        world.deliver()
        world.advance(0)
        world.write(ok=True)
    cuts = [a for a in world.actions if isinstance(a, ev.FreezeCut)]
    assert len(cuts) == pytest.approx(world.now / 10.0, abs=2)


def copies(actions: list[ev.Action]) -> list[ev.Launch]:
    return [a for a in actions if isinstance(a, ev.Launch)]


def test_a_silent_task_gets_one_copy_and_the_first_to_finish_wins() -> None:
    coordinator = Coordinator.start(policy(n_partitions=2, lease=30.0))
    coordinator.handle(ev.Tick(1.0))
    finish(coordinator, 0)
    assert copies(coordinator.handle(ev.Tick(30.0))) == []
    (copy,) = copies(coordinator.handle(ev.Tick(31.0)))
    assert (copy.partition, copy.clock, copy.copy_of) == (1, 0, 2)
    assert coordinator.handle(ev.Tick(32.0)) == []
    actions = coordinator.handle(ev.TaskDone(copy.token, {"loss": 1.0, "samples": 1.0}))
    assert actions[0] == ev.Abandon(2)
    assert coordinator.handle(ev.TaskDone(2, {"loss": 9.0, "samples": 9.0})) == []
    assert coordinator.ledger.parts[0][1]["loss"] == 1.0


def test_a_copy_that_fails_is_followed_by_another() -> None:
    coordinator = Coordinator.start(policy(n_partitions=1, lease=30.0))
    coordinator.handle(ev.Tick(1.0))
    (copy,) = copies(coordinator.handle(ev.Tick(31.0)))
    assert coordinator.handle(ev.TaskFailed(copy.token, "lost")) == []
    (again,) = copies(coordinator.handle(ev.Tick(32.0)))
    assert again.copy_of == 1


def test_workers_are_asked_whether_they_are_alive_while_nothing_ends() -> None:
    coordinator = Coordinator.start(policy(n_partitions=2, probe=3.0))
    coordinator.handle(ev.Tick(1.0))
    asked = [now for now in range(2, 12) if ev.Probe() in coordinator.handle(ev.Tick(float(now)))]
    assert asked == [4, 7, 10]
    finish(coordinator, 0)
    assert coordinator.handle(ev.Tick(12.0)) == []


LATE = {"n_partitions": 8, "n_clocks": 9, "slowest": 0.5, "staleness": 1}


@pytest.mark.parametrize(
    ("settings", "seconds", "left", "copied"),
    [
        pytest.param({}, 1.6, 2, [6, 7], id="late"),
        pytest.param({}, 1.4, 2, [], id="not long enough"),
        pytest.param({}, 1.6, 3, [], id="too many to be late"),
        pytest.param({"slowest": 2.0}, 1.6, 2, [], id="short tasks"),
        pytest.param({"staleness": 0, "takes_turns": True}, 1.6, 2, [6, 7], id="between turns"),
        pytest.param({"speculate": False}, 1.6, 2, [], id="not wanted"),
    ],
)
def test_late_tasks_get_copies_once_most_of_the_clock_is_done(
    settings: dict[str, Any], seconds: float, left: int, copied: list[int]
) -> None:
    coordinator = Coordinator.start(policy(**{**LATE, **settings}))
    coordinator.handle(ev.Tick(1.0))
    coordinator.handle(ev.Tick(2.0))
    for p in range(8 - left):
        finish(coordinator, p)  # in 1 s each
    actions = coordinator.handle(ev.Tick(1.0 + seconds))
    assert sorted(a.partition for a in copies(actions)) == copied
    assert all(a.clock == 0 for a in copies(actions))
    assert copies(coordinator.handle(ev.Tick(2.0 + seconds))) == [] or not copied


def test_lasting_silence_ends_the_run_and_says_what_was_waited_for() -> None:
    coordinator = Coordinator.start(policy(n_partitions=2, lease=30.0, patience=100.0))
    for now in (1.0, 31.0, 61.0, 99.0):
        assert not any(isinstance(a, ev.Fail) for a in coordinator.handle(ev.Tick(now)))
    (fail,) = coordinator.handle(ev.Tick(101.0))
    assert isinstance(fail, ev.Fail)
    assert isinstance(fail.error, RunTimeout)
    assert "for 100 s" in str(fail.error)
    assert "[(0, 0), (1, 0)]" in str(fail.error)


def test_a_request_to_stop_ends_at_a_common_clock() -> None:
    world = World(policy(staleness=3, n_clocks=50, checkpoint_clocks=10))
    for choice in [0, 5, 5, 5, 5, 5, 0, 5, 5, 5, 5, 5, 0]:  # partition 0 runs ahead
        world.step(choice)
    ahead = max(r.clock + 1 for r in world.coordinator.running.values())
    world.tell(ev.StopRequested("interrupted"))
    world.tell(ev.StopRequested("again"))
    world.drain()
    assert world.coordinator.ended == "interrupted"
    assert world.coordinator.min_clock == ahead < 50
    assert max(world.published) == f"cut-{ahead:08d}"


def test_the_user_stops_a_run_that_also_stalls_and_rolls_back() -> None:
    coordinator = Coordinator.start(
        policy(n_partitions=1, n_clocks=9, tol=0.1, n_shards=1, checkpoint_clocks=50)
    )
    coordinator.handle(ev.Tick(1.0))
    for _ in range(3):
        finish(coordinator, 0)  # two passes without gain
    coordinator.handle(ev.StopRequested("interrupted"))
    recover = coordinator.handle(ev.WorkerLost("w", (0,)))[-1]
    assert isinstance(recover, ev.Recover)
    coordinator.handle(ev.Recovered(recover.number, {0: 0}, None))
    for _ in range(3):
        (cut,) = finish(coordinator, 0)[-1:]
    assert isinstance(cut, ev.FreezeCut)
    coordinator.handle(ev.CutFailed(cut.cut, OSError()))
    assert (coordinator.ended, coordinator.min_clock) == ("interrupted", 3)


def test_a_turn_comes_before_all_else_and_training_waits_for_it() -> None:
    settings = {"n_partitions": 2, "takes_turns": True, "evaluate": True, "checkpoint_clocks": 1}
    coordinator = Coordinator.start(policy(**settings))
    coordinator.handle(ev.Tick(1.0))
    finish(coordinator, 0)
    assert finish(coordinator, 1) == [ev.TakeTurn(1, 1)]
    assert coordinator.handle(ev.Tick(99.0)) == []
    assert coordinator.handle(ev.TurnTaken(9, TURN)) == []  # of a time that was taken back
    assert coordinator.handle(ev.TurnTaken(1, TURN)) == [ev.Evaluate(1)]
    assert coordinator.ledger.turns == {1: TURN}
    (cut,) = coordinator.handle(ev.Evaluated(1, {"loss": 1.0}))
    assert isinstance(cut, ev.FreezeCut)
    assert launched(coordinator.handle(ev.CutFrozen(cut.cut))) == [(0, 1), (1, 1)]


def test_the_next_clock_runs_while_a_model_only_looks_at_the_last_one() -> None:
    settings = {"n_partitions": 2, "takes_turns": True, "looks_on": True, "checkpoint_clocks": 3}
    coordinator = Coordinator.start(policy(**settings))
    coordinator.handle(ev.Tick(1.0))
    finish(coordinator, 0)
    actions = finish(coordinator, 1)
    assert (launched(actions), actions[2:]) == ([(0, 1), (1, 1)], [ev.TakeTurn(1, 1)])
    assert (finish(coordinator, 0), finish(coordinator, 1)) == ([], [])  # not two clocks ahead
    actions = coordinator.handle(ev.TurnTaken(1, TURN))
    assert (launched(actions), actions[2:]) == ([(0, 2), (1, 2)], [ev.TakeTurn(2, 2)])
    assert coordinator.handle(ev.TurnFailed(2, OSError())) == [ev.TakeTurn(3, 2)]
    coordinator.handle(ev.TurnTaken(3, TURN))
    finish(coordinator, 0)
    # a cut holds what the model has looked at: nothing else runs then
    assert finish(coordinator, 1) == [ev.TakeTurn(4, 3)]
    (cut,) = coordinator.handle(ev.TurnTaken(4, TURN))
    assert isinstance(cut, ev.FreezeCut)
    assert coordinator.ledger.turns == dict.fromkeys((1, 2, 3), TURN)


def test_a_turn_that_fails_is_taken_again_and_at_last_its_error_ends_the_run() -> None:
    coordinator = Coordinator.start(policy(n_partitions=1, takes_turns=True, max_attempts=3))
    coordinator.handle(ev.Tick(1.0))
    error = TimeoutError("slow")
    assert finish(coordinator, 0) == [ev.TakeTurn(1, 1)]
    assert coordinator.handle(ev.TurnFailed(1, error)) == [ev.TakeTurn(2, 1)]
    assert coordinator.handle(ev.TurnFailed(1, error)) == []  # told twice
    assert coordinator.handle(ev.TurnFailed(2, error)) == [ev.TakeTurn(3, 1)]
    assert coordinator.handle(ev.TurnFailed(3, error)) == [ev.Fail(error)]


def test_a_run_that_had_converged_is_over_when_it_is_resumed() -> None:
    ledger = Ledger(1)
    for p in range(3):
        ledger.add(0, p, 0, {"loss": 1.0, "samples": 1.0}, 0.0)
    ledger.turned(1, ev.Turn({}, {}, converged=True))
    coordinator = Coordinator.start(policy(takes_turns=True), dict.fromkeys(range(3), 1), ledger)
    assert coordinator.handle(ev.Tick(1.0)) == [ev.Finish("tol")]


@pytest.mark.parametrize("evaluate", [False, True])
@pytest.mark.parametrize(
    ("losses", "passes"),
    [
        pytest.param([5, 4, 3, 2, 1], 5, id="always better"),
        pytest.param([5, 4, 4, 4, 1], 4, id="two passes without gain"),
        pytest.param([5, 4, 4, 3, 1], 5, id="better again"),
        pytest.param([5, 5.05, 4.95, 1, 1], 3, id="gains below tol"),
    ],
)
def test_training_stops_when_the_loss_stalls(
    losses: list[float], passes: int, evaluate: bool
) -> None:
    coordinator = Coordinator.start(
        policy(n_partitions=1, n_clocks=10, clocks_per_pass=2, tol=0.1, evaluate=evaluate)
    )
    actions = coordinator.handle(ev.Tick(1.0))
    for loss in losses:
        for _ in range(2):
            if coordinator.ended is None:
                actions = finish(coordinator, 0, loss)
        if actions and isinstance(actions[-1], ev.Evaluate):
            assert coordinator.running == {}
            actions = coordinator.handle(ev.Evaluated(actions[-1].clock, {"loss": loss}))
    assert coordinator.ended == ("tol" if passes < 5 else "max_iter")
    assert coordinator.min_clock == 2 * passes


def test_a_task_may_fail_so_often_and_then_its_error_ends_the_run() -> None:
    coordinator = Coordinator.start(policy(n_partitions=1, max_attempts=3))
    coordinator.handle(ev.Tick(1.0))
    error = ZeroDivisionError("mine")
    for token in (1, 2):
        (again,) = coordinator.handle(ev.TaskFailed(token, "error", error))
        assert again == ev.Launch(token + 1, 0, 0)
    for token in (3, 4, 5):  # not its own fault: does not count
        assert len(coordinator.handle(ev.TaskFailed(token, "stale"))) == 1
    assert coordinator.handle(ev.TaskFailed(6, "error", error)) == [ev.Fail(error)]
    assert coordinator.handle(ev.Tick(2.0)) == []


def test_a_non_finite_push_ends_the_run_at_once() -> None:
    coordinator = Coordinator.start(policy())
    coordinator.handle(ev.Tick(1.0))
    error = NonFinitePush("w")
    assert coordinator.handle(ev.TaskFailed(1, "error", error)) == [ev.Fail(error)]


def test_a_resumed_run_goes_on_where_the_cut_was() -> None:
    world = World(policy(n_clocks=4, checkpoint_clocks=2), start=dict.fromkeys(range(3), 3))
    world.drain()
    clocks = [a.clock for a in world.actions if isinstance(a, ev.Launch)]
    assert clocks == [3, 3, 3]
    finished = World(policy(n_clocks=4), start=dict.fromkeys(range(3), 4))
    assert finished.actions == [ev.Finish("max_iter")]
