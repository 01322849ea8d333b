"""A quorum in a run: whoever is late holds up nobody, and what he pushes still counts once."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

import numpy as np
import pytest
from counter import ROWS, Counter

from daskps.data import as_dataset
from daskps.run.launch import RunOptions, run_training
from daskps.run.plan import StepServer
from daskps.server.keys import KeySet

PARTITIONS, CLOCKS, FAR = 4, 8, 6


class Late(Counter):
    """Partition 3 does not push its first clock before another is `FAR` ahead."""

    far = threading.Event()

    def step(self, data: KeySet, server: StepServer) -> Mapping[str, float]:
        """Add 1 to every row, late or not."""
        if server.partition == 3 and server.clock == 0:
            assert self.far.wait(30), "the others waited for a partition that is not needed"
        if server.partition == 0 and server.clock == FAR:
            self.far.set()
        return super().step(data, server)


def test_late_pushes_of_a_quorum_are_counted_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})  # a thread for who is late
    dataset = as_dataset(np.ones((PARTITIONS, 1), np.float32), n_partitions=PARTITIONS)
    options = RunOptions(consistency="ssp", staleness=1, quorum=0.75, max_iter=CLOCKS)
    outcome = run_training(Late(), dataset, options)
    np.testing.assert_array_equal(
        outcome.values["sum"][1][:, 0], np.full(ROWS, PARTITIONS * CLOCKS)
    )
    # of tasks when they ended: the one that lets the late one go on may end after it
    assert int(outcome.ledger.to_xarray().staleness.max()) >= FAR - 1
