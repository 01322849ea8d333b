"""Workers die by SIGKILL in the middle of training; the result is what it would have been."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from cluster_tools import (
    CONDUCTED,
    Farm,
    Once,
    Recorder,
    assert_clean,
    at,
    at_clock,
    bits,
    calm,
    calm_movers,
    logistic,
    off,
    train,
    wait_until,
)
from movers import Kept, Movers

from daskps.errors import DaskpsError
from daskps.models.compressed import SparsifiedModel
from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.launch import Outcome

pytestmark = pytest.mark.faults

RESUMED = 10.0
"""Seconds after a kill within which training must go on."""


def checkpointed(directory: Path) -> dict[str, Any]:
    return {"checkpoint": str(directory / "c.zarr"), "checkpoint_every": 2}


def assert_as_calm(outcome: Outcome, consistency: str, **options: Any) -> None:
    if consistency == "bsp":
        assert bits(outcome) == bits(calm(**options))
    else:
        assert abs(off(outcome, consistency, **options)) < 0.5
    assert outcome.reason == "max_iter"


def after_a_cut(act: Callable[[], object]) -> Once:
    """Return a listener that acts two clocks after the moment of a cut, once that is complete.

    Pulls since then are newer than the cut, and no other one is under way.
    """
    frozen: dict[str, int] = {}
    complete: list[str] = []

    def when(told: ev.Event | ev.Action, coordinator: Coordinator) -> bool:
        if isinstance(told, ev.FreezeCut):
            frozen[told.cut] = min(told.clocks.values())
        if isinstance(told, ev.CutPublished):
            complete.append(told.cut)
        newest = max(frozen, default="")
        return newest in complete and coordinator.min_clock >= frozen[newest] + 2

    return Once(when, act)


@pytest.mark.parametrize(
    ("consistency", "nanny"),
    [
        pytest.param("bsp", False, id="bsp", marks=pytest.mark.slow),
        pytest.param("bsp", True, id="bsp, nanny too", marks=pytest.mark.slow),
        pytest.param("ssp", True, id="ssp, nanny too"),
        pytest.param("asp", False, id="asp", marks=pytest.mark.slow),
    ],
)
def test_a_shard_holder_dies(tmp_path: Path, consistency: str, nanny: bool) -> None:
    seen = Recorder()
    with Farm(2, tmp_path) as farm:
        kill = after_a_cut(lambda: farm.kill(farm.holders()[0], nanny=nanny))
        options = {**checkpointed(tmp_path), "checkpoint_every": 8, "max_iter": 8}
        outcome = train(farm.client, consistency, seen, kill, **options)
        assert_clean(farm.scheduler)
    assert_as_calm(outcome, consistency, max_iter=8)
    (recovered,) = seen.of(ev.Recovered)
    assert recovered.cut is not None
    how = seen.of(ev.Recover)[-1].how  # where a cut takes long, the news may come near the end
    assert how == "rollback" if consistency == "bsp" else how in ("partial", "replay")
    assert (recovered.recalled > 0) == (how == "partial")
    assert kill.at is not None
    assert seen.pause_after(kill.at) < RESUMED


@pytest.mark.slow
@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_what_partitions_keep_agrees_with_the_tables_after_a_kill(
    tmp_path: Path, consistency: str
) -> None:
    seen, kept = Recorder(), Kept()
    with Farm(2, tmp_path) as farm:
        kill = at_clock(6, lambda: farm.kill(farm.holders()[0]))
        run = {"model": Movers(), "collect": kept, **checkpointed(tmp_path)}
        outcome = train(farm.client, consistency, seen, kill, **run)
        assert_clean(farm.scheduler)
    (recovered,) = seen.of(ev.Recovered)
    assert recovered.cut is not None
    np.testing.assert_array_equal(kept.counts, outcome.values["count"][1][:, 0])
    if consistency == "bsp":
        assert kept.bits == calm_movers().bits


@pytest.mark.slow
def test_what_waits_to_be_pushed_is_neither_lost_nor_pushed_twice(tmp_path: Path) -> None:
    seen, few = Recorder(), SparsifiedModel(logistic(), 0.1)
    with Farm(2, tmp_path) as farm:
        kill = at_clock(6, lambda: farm.kill(farm.holders()[0]))
        outcome = train(farm.client, "bsp", seen, kill, model=few, **checkpointed(tmp_path))
        assert_clean(farm.scheduler)
    assert bits(outcome) == bits(calm(model=few))
    assert seen.of(ev.Recovered)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [ev.TaskDone, ev.TakeTurn])
def test_a_shard_holder_dies_while_a_model_acts_between_clocks(
    tmp_path: Path, moment: type
) -> None:
    seen = Recorder()
    with Farm(2, tmp_path) as farm:
        kill = at(moment, lambda: farm.kill(farm.holders()[0]), nth=7)
        outcome = train(farm.client, "bsp", seen, kill, **CONDUCTED, **checkpointed(tmp_path))
        assert_clean(farm.scheduler)
    assert bits(outcome) == bits(calm(**CONDUCTED))
    assert seen.of(ev.Recovered)


def test_a_worker_without_a_shard_dies_and_nothing_goes_back(tmp_path: Path) -> None:
    seen = Recorder()
    with Farm(2, tmp_path) as farm:
        kill = at_clock(6, lambda: farm.kill(farm.others()[0], nanny=True))
        outcome = train(farm.client, "bsp", seen, kill, n_shards=1)
    assert bits(outcome) == bits(calm())
    assert [x.shards for x in seen.of(ev.WorkerLost)] == [()]
    assert not seen.of(ev.Recover)
    assert kill.at is not None
    assert seen.pause_after(kill.at) < RESUMED


@pytest.mark.slow
def test_without_a_checkpoint_training_begins_again(tmp_path: Path) -> None:
    seen = Recorder()
    with Farm(2, tmp_path) as farm:
        kill = at_clock(6, lambda: farm.kill(farm.holders()[0]))
        outcome = train(farm.client, "bsp", seen, kill)
    assert bits(outcome) == bits(calm())
    assert [x.cut for x in seen.of(ev.Recovered)] == [None]


@pytest.mark.slow
def test_every_worker_dies_one_after_the_other(tmp_path: Path) -> None:
    seen = Recorder()
    with Farm(2, tmp_path) as farm:
        first = at_clock(4, lambda: farm.kill("w0"))

        def second() -> None:
            wait_until(lambda: "w0" in farm.workers().values())  # its nanny has brought it back
            farm.kill("w1")

        then = at_clock(9, second)
        outcome = train(farm.client, "bsp", seen, first, then, **checkpointed(tmp_path))
    assert bits(outcome) == bits(calm())
    assert len(seen.of(ev.Recovered)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("moment", [ev.Recover, ev.CutFrozen, ev.Recovered, ev.Finish])
def test_another_dies_at_the_worst_moment(tmp_path: Path, moment: type) -> None:
    """While a cut is written, while another loss is repaired, just after, and at the very end."""
    seen = Recorder()
    with Farm(3, tmp_path) as farm:
        first = at_clock(5, lambda: farm.kill("w0", nanny=True))
        second = at(moment, lambda: farm.kill("w1", nanny=True))
        options = {**checkpointed(tmp_path), "n_shards": 3}
        if moment is ev.CutFrozen:
            options["model"] = logistic(n_features=300_000)
        outcome = train(farm.client, "bsp", seen, first, second, **options)
        assert set(farm.workers().values()) == {"w2"}
    reference = calm() if moment is not ev.CutFrozen else train(None, model=options["model"])
    assert bits(outcome) == bits(reference)


def test_no_worker_is_left_and_the_error_says_so(tmp_path: Path) -> None:
    patience = dask.config.set({"daskps.recovery-timeout": "2s"})
    with patience, Farm(1, tmp_path) as farm:
        kill = at_clock(4, lambda: farm.kill("w0", nanny=True))
        with pytest.raises(DaskpsError, match="within 2 s"):
            train(farm.client, "bsp", kill, **checkpointed(tmp_path))
        assert_clean(farm.scheduler)
