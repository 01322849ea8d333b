"""Patience that Dask's configuration names reaches the coordinator and the workers."""

from __future__ import annotations

import dask
from training import model

from daskps.data import as_dataset
from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.launch import RunOptions, run_training
from daskps.run.policy import Policy


def test_a_run_goes_by_it() -> None:
    seen: list[Policy] = []

    def note(told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        seen.append(coordinator.policy)

    rows = as_dataset([[1.0] * 40, [0.0] * 40], [0.0, 1.0])
    with dask.config.set({"daskps.probe": "2s", "daskps.lease": "1m"}):
        run_training(model(), rows, RunOptions(max_iter=1, listeners=(note,)))
    assert {(p.probe, p.lease) for p in seen} == {(2.0, 60.0)}
