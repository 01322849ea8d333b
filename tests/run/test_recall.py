"""What a lost shard had learnt since the last checkpoint comes back from what tasks pulled last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training import TroubledEngine, train

from daskps.errors import ShardLost
from daskps.run import events as ev
from daskps.server.recent import Recent

HOLDS_ALL = 0
"""Shard that has all rows of so small a table."""


def moved_by_a_loss(store: Path) -> float:
    """Return how far a loss moves weights, when the last cut is six clocks old."""
    seen: dict[str, Any] = {}

    def trouble(engine: TroubledEngine, number: int, action: ev.Action) -> None:
        if not isinstance(action, ev.Launch) or "after" in seen:
            return
        try:
            values = np.concatenate([engine.values(t)[1][:, 0] for t in ("coef", "intercept")])
        except ShardLost:
            return  # the news of it has not come yet
        if "before" in seen:
            seen["after"] = values
        elif action.clock == 14:
            seen["before"] = values
            engine.lose(HOLDS_ALL)

    options = {"checkpoint": str(store), "every": 8, "trouble": trouble, "settled": True}
    result = train(staleness=1, passes=30, n_shards=5, n_threads=1, **options)
    assert len(result.coordinator.ledger.recoveries) == 1
    return float(np.abs(seen["after"] - seen["before"]).max())


def test_a_loss_takes_a_clock_or_two_not_all_since_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = moved_by_a_loss(tmp_path / "recalled.zarr")
    monkeypatch.setattr(Recent, "of", lambda self, run, tables, slots: [])
    assert far < 0.5 * moved_by_a_loss(tmp_path / "cut.zarr")
