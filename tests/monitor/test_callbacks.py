"""Callbacks are told of a run by events that do not change."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from cluster_tools import memory_dataset

import daskps
from daskps.monitor import callbacks as told
from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.policy import Policy


class Heard:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_event(self, event: Any) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [e for e in self.events if type(e) is kind]


def test_clocks_evaluations_checkpoints_and_the_end_are_told(tmp_path: Path) -> None:
    train, test = memory_dataset().split(0.9)
    heard = Heard()
    model = daskps.LogisticRegression(
        max_iter=2, rows_per_clock=4000, tol=None, checkpoint=tmp_path / "c.zarr"
    )
    model.fit(train, eval_set=test, callback=heard)
    clocks = heard.of(told.ClockDone)
    n = model.history_.clock.size
    assert [(c.clock, c.n_clocks) for c in clocks] == [(i, n) for i in range(1, n + 1)]
    assert [c.loss for c in clocks] == pytest.approx(model.history_.loss.to_numpy().tolist())
    losses = model.history_.eval_loss.dropna("clock").to_numpy().tolist()
    assert [e.loss for e in heard.of(told.Evaluated)] == losses
    assert heard.of(told.CheckpointWritten)
    assert heard.events[-1] == told.Ended("max_iter")


def test_events_are_frozen() -> None:
    for kind in told.Event.__args__:
        assert dataclasses.is_dataclass(kind)
        assert kind.__dataclass_params__.frozen


def test_losses_of_workers_and_recoveries_are_told() -> None:
    heard = Heard()
    listener = told.EventListener(heard.on_event, 1.0)
    coordinator = Coordinator.start(Policy(n_partitions=1, n_shards=1, n_clocks=1), None, None)
    error = OSError("full")
    for event in (
        *(ev.WorkerJoined("w"), ev.WorkerLost("w", (0,)), ev.Recovered(1, {0: 0}, "cut-1", 0.5)),
        *(ev.CutFailed("cut-2", error), ev.Tick(1.0)),
    ):
        listener(event, coordinator)
    assert heard.events == [
        *(told.WorkerJoined("w"), told.WorkerLost("w", (0,)), told.Recovered(0, "cut-1", 0.5)),
        told.CheckpointFailed("cut-2", error),
    ]


def test_what_can_be_told_nothing_is_refused_before_training() -> None:
    with pytest.raises(TypeError, match=r"callback=3; expected a function of \(clock, loss\)"):
        daskps.LogisticRegression().fit([[0.0], [1.0]], [0, 1], callback=3)


def test_what_a_callback_raises_ends_training() -> None:
    class Stop:
        def on_event(self, event: Any) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        daskps.LogisticRegression(max_iter=2).fit(memory_dataset(), callback=Stop())
