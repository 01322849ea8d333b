"""What compressed pushes leave out stays with the partition: no loss forgets or doubles it."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from town import run
from training import CLOCKS_PER_PASS, SHARDS, Result, losing, losses, model, train

from daskps.models.compressed import CompressedModel, SparsifiedModel
from daskps.run import events as ev

MODELS: dict[str, Any] = {
    "bfloat16": CompressedModel(model(short=True), CLOCKS_PER_PASS),
    "share": SparsifiedModel(model(), 0.2),
    "share, ftrl": SparsifiedModel(model(solver="ftrl"), 0.2),
}
MOMENTS = losses(0, 24)


@functools.cache
def calm(name: str) -> Result:
    return train(MODELS[name], keeps_states=True)


@settings(max_examples=5)
@given(moments=MOMENTS, checkpointed=st.booleans())
@pytest.mark.parametrize("name", MODELS)
def test_bits_survive_losses_at_any_moment(
    tmp_path_factory: Any, name: str, checkpointed: bool, moments: dict[int, tuple[int, ...]]
) -> None:
    store = str(tmp_path_factory.mktemp("ckpt") / "c.zarr") if checkpointed else None
    options = {"n_shards": SHARDS, "checkpoint": store, "keeps_states": True}
    assert train(MODELS[name], trouble=losing(moments), **options).bits == calm(name).bits


def test_what_waits_moves_with_its_partition() -> None:
    joined = []

    def trouble(town: Any, number: int, action: ev.Action) -> None:
        if isinstance(action, ev.Launch) and action.clock == 1 and not joined:
            joined.append("w1")
            town.join("w1")

    here, *_ = run(MODELS["share"])
    moved, _, town = run(MODELS["share"], trouble)
    assert town.moves
    for name in here.values:
        assert moved.values[name][1].tobytes() == here.values[name][1].tobytes()
