"""Strikes at a checkpoint's store, while somebody writes to it."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from daskps.testing import StoreGone
from daskps.testing.strike import Striker


def test_a_store_goes_away_and_comes_back_while_somebody_makes_folders_in_it(
    tmp_path: Path,
) -> None:
    store, over, refused = tmp_path / "chaos.zarr", threading.Event(), threading.Event()
    farm: Any = SimpleNamespace(alive=list, start=lambda n: [])
    striker = Striker(farm, store, 0)

    def write() -> None:
        while not over.is_set():
            try:
                (store / "part" / "chunk").mkdir(parents=True, exist_ok=True)
            except OSError:  # it is not there just now
                refused.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        (store / "cut").mkdir()
        for _ in range(20):
            striker(StoreGone(0, 0.001))
        assert refused.wait(10)
    finally:
        striker.end()
        over.set()
        writer.join(10)
    assert (store / "cut").is_dir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chaos.kept", "chaos.zarr"]
