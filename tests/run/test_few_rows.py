"""Cuts that hold only the rows that have changed: any loss, resume or move gives the calm bits."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from town import bits, run
from training import SHARDS, Result, losing, losses, model, train

from daskps.run import events as ev
from daskps.run.checkpoint import published, read_manifest
from daskps.server import changed

N = 4000
"""Features, of which the data have 40: they stand in two of 16 or 64 slots."""


@pytest.fixture(autouse=True)
def _tell_all_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed, "LEAST", 2)


@functools.cache
def calm(solver: str) -> Result:
    return train(wide(solver=solver))


def wide(**changes: Any) -> Any:
    return model(n_features=N, **changes)


def stored(store: Path | str) -> dict[str, int]:
    cut = published(str(store))[0]
    return {name: sum(n) for name, n in read_manifest(str(store), cut).rows.items()}


@settings(max_examples=10)
@given(moments=losses(0, 24))
@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_bsp_bits_survive_losses_at_any_moment(
    tmp_path_factory: Any, solver: str, moments: dict[int, tuple[int, ...]]
) -> None:
    store = tmp_path_factory.mktemp("ckpt") / "c.zarr"
    trouble, to = losing(moments), str(store)
    result = train(
        wide(solver=solver), n_shards=SHARDS, checkpoint=to, trouble=trouble, settled=True
    )
    assert result.bits == calm(solver).bits
    assert 0 < stored(store)["coef"] <= 40


@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_cuts_hold_few_rows_also_after_a_loss_a_join_and_a_resume(
    tmp_path: Path, consistency: str
) -> None:
    store = tmp_path / "c.zarr"
    options: dict[str, Any] = {"consistency": consistency, "max_iter": 4}
    cuts = {"checkpoint": str(store), "checkpoint_every": 1, "keep": 100}
    trained = wide(discount=consistency != "bsp")

    def trouble(engine: Any, number: int, action: ev.Action) -> None:
        if number == 4:
            engine.join("w1")
        if number == 12:
            engine.lose(0)

    run(trained, trouble, **options, **cuts)
    for cut in published(str(store)):
        assert sum(read_manifest(str(store), cut).rows["coef"]) <= 40
    again, _, _ = run(trained, **{**options, "max_iter": 6}, **cuts, resume=True, n_shards=3)
    assert 0 < stored(store)["coef"] <= 40
    if consistency == "bsp":
        assert bits(again) == bits(run(trained, max_iter=6)[0])
