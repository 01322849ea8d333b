"""Coordinator: what goes back after a loss, what is done again, and when it is too much."""

from __future__ import annotations

import math

import pytest
from world import World, policy

from daskps.errors import RunFailed
from daskps.run import events as ev
from daskps.run.clocks import Clocks
from daskps.run.coordinator import Coordinator
from daskps.run.losses import SPARED


@pytest.mark.parametrize("staleness", [0, 1, math.inf])
@pytest.mark.parametrize("losing", ["before", "freezing", "writing", "published"])
def test_the_last_state_is_checkpointed_in_spite_of_a_loss(staleness: float, losing: str) -> None:
    """A loss while the final cut is taken must not leave the run without it."""
    world = World(policy(staleness=staleness, checkpoint_clocks=2, n_clocks=4))
    lost = False
    for _ in range(500):
        if world.coordinator.ended:
            break
        cut = isinstance(world.actions[-1], ev.FreezeCut) and world.actions[-1].cut[-1] == "4"
        now = {
            "before": world.coordinator.min_clock == 3,
            "freezing": cut and world.coordinator._busy == "freezing",
            "writing": world.writing is not None and cut,
            "published": "cut-00000004" in world.published,
        }[losing]
        if now and not lost:
            world.lose((0,))
            lost = True
        world.deliver()
        if not world.events:
            world.advance(0)
            if losing != "writing" or lost or not cut:
                world.write(ok=True)
    assert lost
    assert world.coordinator.ended == "max_iter"
    assert world.published["cut-00000004"].clocks == dict.fromkeys(range(3), 4)


def test_losses_in_a_row_are_bounded_and_a_finished_clock_forgives_them() -> None:
    world = World(policy(max_recoveries=2, n_clocks=3))
    for _ in range(2):
        for _ in range(2):
            world.lose((0,))
            world.deliver()
            world.deliver()
        before = world.coordinator.min_clock
        while world.coordinator.min_clock == before:
            world.deliver()
            world.advance(0)
    for _ in range(3):
        world.lose((0,))
        world.deliver()
        world.deliver()
    assert isinstance(world.failed, RunFailed)
    assert "3 losses of shards" in str(world.failed)


@pytest.mark.parametrize("staleness", [0, 1, math.inf])
@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("shards", [(0,), (0, 1)])
def test_what_goes_back_after_a_loss(
    staleness: float, published: bool, shards: tuple[int, ...]
) -> None:
    start = dict.fromkeys(range(3), 0) if published else None
    coordinator = Coordinator.start(policy(staleness=staleness), start)
    coordinator.handle(ev.Tick(1.0))
    (*abandoned, recover) = coordinator.handle(ev.WorkerLost("w", shards))
    assert isinstance(recover, ev.Recover)
    assert recover.shards == shards
    # BSP, nothing to load from, nobody left: all go back; else only the lost ones
    everybody = staleness == 0 or not published or len(shards) == 2
    assert recover.how == ("rollback" if everybody else "partial")
    assert abandoned == [ev.Abandon(t) for t in (1, 2, 3)]
    assert coordinator.running == {}


def how_after(clocks: list[int], **settings: object) -> str:
    """Return how one of two shards stands again when a cut is two clocks of all old."""
    now = dict(enumerate(clocks))
    start = dict.fromkeys(now, min(clocks) - 2)
    coordinator = Coordinator.start(policy(clocks_per_pass=2, **settings), start)
    coordinator.clocks = Clocks(now)
    coordinator.handle(ev.Tick(1.0))
    (*_, recover) = coordinator.handle(ev.WorkerLost("w", (0,)))
    assert isinstance(recover, ev.Recover)
    return recover.how


@pytest.mark.parametrize(
    ("left", "how"), [pytest.param(4, "partial", id="early"), pytest.param(3, "replay", id="late")]
)
def test_near_the_end_what_was_lost_is_done_again(left: int, how: str) -> None:
    # two clocks since the cut, two a pass: what is lost heals in four clocks
    assert how_after([40 - left] * 3, staleness=1, n_clocks=40) == how


@pytest.mark.parametrize(
    ("clocks", "how"),
    [
        pytest.param([20, 20, 20], "partial", id="together"),
        pytest.param([36, 20, 20], "replay", id="nothing-left"),
    ],
)
def test_a_partition_that_is_ahead_has_less_time_to_heal(clocks: list[int], how: str) -> None:
    # two and eighteen clocks since the cut: the first has four left, however far the others are
    assert how_after(clocks, staleness=math.inf, n_clocks=400 if how == "partial" else 40) == how


@pytest.mark.parametrize("staleness", [1, math.inf])
def test_losses_that_follow_each_other_take_no_more_than_a_share_of_the_work(
    staleness: float,
) -> None:
    world = World(policy(staleness=staleness, n_clocks=60, checkpoint_clocks=3))
    hit = -1
    for step in range(100_000):
        if world.coordinator.ended:
            break
        low = world.coordinator.min_clock
        if low % 4 == 0 and low > hit:  # again and again, a clock after a cut was due
            hit = low
            world.lose((low // 4 % 2,))
        world.deliver()
        if not world.events:
            world.advance(step)
            world.write(ok=True)
    assert world.coordinator.ended == "max_iter"
    hows = [a.how for a in world.actions if isinstance(a, ev.Recover)]
    assert {"partial", "replay"} <= set(hows)
    counted = sum(len(c) for shard in world.shards for c in shard.counted.values())
    assert counted >= (1 - SPARED) * 60 * 3 * 2


def test_no_cut_falls_into_a_replay() -> None:
    settings = {"staleness": 1, "clocks_per_pass": 2, "n_clocks": 3, "checkpoint_clocks": 1}
    coordinator = Coordinator.start(policy(**settings), dict.fromkeys(range(3), 0))
    coordinator.clocks = Clocks(dict.fromkeys(range(3), 2))
    coordinator.handle(ev.Tick(1.0))
    (*_, recover) = coordinator.handle(ev.WorkerLost("w", (0,)))
    assert isinstance(recover, ev.Recover)
    actions = coordinator.handle(
        ev.Recovered(recover.number, dict.fromkeys(range(3), 0), "cut-00000000")
    )
    while coordinator.min_clock < 3:
        # the other shard has counted two clocks of everybody, and a third was on its way
        assert not any(isinstance(a, ev.FreezeCut) for a in actions)
        launched = [a for a in actions if isinstance(a, ev.Launch)]
        figures = {"loss": 1.0, "samples": 1.0}
        actions = [a for x in launched for a in coordinator.handle(ev.TaskDone(x.token, figures))]
    assert any(isinstance(a, ev.FreezeCut) for a in actions)


def test_a_worker_without_shards_changes_nothing() -> None:
    coordinator = Coordinator.start(policy())
    coordinator.handle(ev.Tick(1.0))
    assert coordinator.handle(ev.WorkerLost("w")) == []
    assert coordinator.handle(ev.WorkerJoined("v")) == []


def test_a_recovery_that_fails_ends_the_run() -> None:
    coordinator = Coordinator.start(policy())
    coordinator.handle(ev.WorkerLost("w", (0,)))
    error = RunFailed("no worker")
    assert coordinator.handle(ev.RecoveryFailed(error)) == [ev.Fail(error)]
