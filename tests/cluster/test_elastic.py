"""Workers join and leave a run on a real cluster, in every way that Dask has; nothing is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_tools import (
    Farm,
    Once,
    Recorder,
    assert_clean,
    at_clock,
    bits,
    calm,
    calm_movers,
    train,
    wait_until,
)
from distributed import Client, LocalCluster
from movers import Kept, Movers

from daskps.run import events as ev
from daskps.run.dask_hub import DaskpsScheduler
from daskps.run.launch import Outcome

pytestmark = pytest.mark.cluster


def in_background(work: Callable[[], Any]) -> Callable[[], None]:
    """Return what starts `work` in a thread: the driver must not wait for what waits for it."""

    def start() -> None:
        threading.Thread(target=work, name="test-background", daemon=True).start()

    return start


def assert_nothing_lost(outcome: Outcome, seen: Recorder) -> None:
    assert bits(outcome) == bits(calm(max_iter=8))
    assert not seen.of(ev.Recover)


@pytest.mark.timeout(180)
def test_a_shard_holder_is_retired_and_its_slots_move_first(tmp_path: Path) -> None:
    seen, retired = Recorder(), []
    with Farm(2, tmp_path) as farm:
        (first, *_) = farm.workers()

        def retire() -> None:
            retired.append(farm.client.retire_workers([first], close_workers=True, remove=True))

        outcome = train(farm.client, "bsp", seen, at_clock(6, in_background(retire)), max_iter=8)
        wait_until(lambda: retired)
        assert_clean(farm.scheduler)
    assert list(retired[0]) == [first]
    assert_nothing_lost(outcome, seen)
    assert [m.n_shards for m in seen.of(ev.Moved)][:1] == [1]


@pytest.mark.slow
@pytest.mark.timeout(180)  # a process starts
def test_a_worker_that_joins_gets_slots_and_tasks(tmp_path: Path) -> None:
    seen = Recorder()
    with Farm(1, tmp_path) as farm:
        (first,) = farm.workers()
        join = at_clock(4, in_background(lambda: farm.add(1)))

        def joined(told: Any, coordinator: Any) -> bool:
            works = isinstance(told, ev.TaskDone) and told.worker != first
            return works and bool(seen.of(ev.Moved))

        stop = Once(joined, lambda: signal.raise_signal(signal.SIGINT))
        run = {"clocks_per_pass": 1, "max_iter": 100_000}
        outcome = train(farm.client, "bsp", seen, join, stop, **run)
        assert_clean(farm.scheduler)
    assert not seen.of(ev.Recover)
    (moved,) = seen.of(ev.Moved)
    assert (moved.n_shards, moved.moved) == (2, 32)
    assert outcome.reason == "interrupted"
    assert bits(outcome) == bits(calm(clocks_per_pass=1, max_iter=outcome.clock))


@pytest.mark.timeout(180)
def test_what_partitions_keep_moves_with_the_slots(tmp_path: Path) -> None:
    seen, kept = Recorder(), Kept()
    with Farm(2, tmp_path) as farm:
        (first, *_) = farm.workers()
        retire = in_background(lambda: farm.client.retire_workers([first]))
        run = {"model": Movers(), "collect": kept, "max_iter": 5}
        outcome = train(farm.client, "bsp", seen, at_clock(6, retire), **run)
        assert_clean(farm.scheduler)
    assert not seen.of(ev.Recover)
    assert kept.bits == calm_movers().bits
    np.testing.assert_array_equal(kept.counts, outcome.values["count"][1][:, 0])


@pytest.mark.timeout(180)  # three times a process starts and compiles, or loads what is compiled
@pytest.mark.parametrize("how", ["scale", pytest.param("adapt", marks=pytest.mark.slow)])
def test_a_cluster_is_scaled_up_and_down_during_a_run(how: str) -> None:
    seen = Recorder()
    options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "threads_per_worker": 1}
    with (
        LocalCluster(n_workers=1, host="127.0.0.1", **options) as cluster,
        Client(cluster) as client,
    ):

        def scale(n: int) -> Callable[[], None]:
            def work() -> None:
                if how == "scale":
                    cluster.scale(n)
                else:
                    cluster.adapt(minimum=n, maximum=n, interval="50ms", wait_count=1)

            return in_background(work)

        def stop() -> None:
            signal.raise_signal(signal.SIGINT)  # ends training at the next clock

        told = [at_clock(4, scale(3)), Scaled(3, scale(1)), Scaled(1, stop, after=3)]
        run = {"clocks_per_pass": 1, "max_iter": 100_000}
        outcome = train(client, "bsp", seen, *told, **run)
        wait_until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 1)
    assert not seen.of(ev.Recover)
    assert outcome.reason == "interrupted"
    assert bits(outcome) == bits(calm(clocks_per_pass=1, max_iter=outcome.clock))


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["sigterm", "lifetime"])
def test_a_worker_that_is_told_to_go_gives_its_slots_away_first(tmp_path: Path, how: str) -> None:
    seen = Recorder()
    with Farm(1, tmp_path) as farm:
        (name,) = farm.start(1, ["--lifetime", "6s"] if how == "lifetime" else [])
        wait_until(lambda: len(farm.workers()) == 2)
        told: list[Any] = [Scaled(1, lambda: signal.raise_signal(signal.SIGINT))]
        if how == "sigterm":
            told.append(at_clock(4, lambda: farm.terminate(name)))
        outcome = train(farm.client, "bsp", seen, *told, clocks_per_pass=1, max_iter=100_000)
        wait_until(lambda: len(farm.workers()) == 1)
        assert_clean(farm.scheduler)
    assert not seen.of(ev.Recover)
    assert bits(outcome) == bits(calm(clocks_per_pass=1, max_iter=outcome.clock))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_worker_that_dask_does_not_retire_gets_slots_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Recorder()
    with Farm(2, tmp_path) as farm:
        (first, *_) = farm.workers()

        async def refuse(*args: Any, **kwargs: Any) -> dict[str, Any]:
            return {}

        def retire() -> None:
            plugin = farm.scheduler.plugins[DaskpsScheduler.name]
            monkeypatch.setattr(plugin, "_retire", refuse)
            assert farm.client.retire_workers([first]) == {}

        told = [
            at_clock(4, in_background(retire)),
            Scaled(2, lambda: signal.raise_signal(signal.SIGINT), after=1),
        ]
        outcome = train(farm.client, "bsp", seen, *told, clocks_per_pass=1, max_iter=100_000)
    assert [m.n_shards for m in seen.of(ev.Moved)] == [1, 2]
    assert bits(outcome) == bits(calm(clocks_per_pass=1, max_iter=outcome.clock))


class Scaled:
    """Does something once slots have moved to `n` workers, and to `after` before."""

    def __init__(self, n: int, do: Callable[[], None], *, after: int | None = None) -> None:
        self._waited_for = [x for x in (after, n) if x is not None]
        self._do = do

    def __call__(self, told: Any, coordinator: Any) -> None:
        if isinstance(told, ev.Moved) and self._waited_for[:1] == [told.n_shards]:
            del self._waited_for[0]
            if not self._waited_for:
                self._do()
