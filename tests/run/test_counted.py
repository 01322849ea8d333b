"""Rows of features are counted once, whatever is done twice or lost, and moves with the slots."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from town import run
from training import FEATURES, PARTITIONS, SHARDS, data, losing, losses, model, train

from daskps.models.admission import PROBES
from daskps.run import events as ev

LEAST = 50
HOW: dict[str, Any] = {"n_features": 0, "admission": LEAST, "cells": PROBES * 2**14}
MOMENTS = losses(0, 24)


@functools.cache
def occurrences() -> np.ndarray:
    rows = [data().partition(p).to_scipy() for p in range(PARTITIONS)]
    return sum(np.bincount(x.indices, minlength=FEATURES) for x in rows)


@functools.cache
def calm() -> Any:
    return train(model(**HOW))


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("staleness", [0, 2])
def test_each_row_is_counted_in_the_first_pass_and_in_no_other(passes: int, staleness: int) -> None:
    found = train(model(**HOW, discount=staleness > 0), passes=passes, staleness=staleness)
    counts = found.values["_counts"][:, 0]
    expected = np.minimum(occurrences(), LEAST)  # no two features share a cell
    np.testing.assert_array_equal(np.sort(counts[counts > 0]), np.sort(np.repeat(expected, PROBES)))
    assert (expected < LEAST).any()


def test_a_feature_has_a_weight_from_its_nth_row_on() -> None:
    expected = np.flatnonzero(occurrences() >= LEAST)
    assert 0 < len(expected) < FEATURES
    assert len(calm().values["coef"]) == len(expected)


@settings(max_examples=5)
@given(moments=MOMENTS, checkpointed=st.booleans())
def test_losses_at_any_moment_change_neither_counts_nor_weights(
    tmp_path_factory: Any, checkpointed: bool, moments: dict[int, tuple[int, ...]]
) -> None:
    store = str(tmp_path_factory.mktemp("ckpt") / "c.zarr") if checkpointed else None
    how = {"n_shards": SHARDS, "checkpoint": store, "trouble": losing(moments)}
    assert train(model(**HOW), **how).bits == calm().bits


@settings(max_examples=5)
@given(moments=MOMENTS, staleness=st.sampled_from([1, np.inf]))
def test_with_staleness_a_loss_may_forget_rows_but_counts_none_twice(
    tmp_path_factory: Any, staleness: float, moments: dict[int, tuple[int, ...]]
) -> None:
    found = train(
        model(**HOW, discount=True),
        n_shards=SHARDS,
        staleness=staleness,
        checkpoint=str(tmp_path_factory.mktemp("ckpt") / "c.zarr"),
        every=1,
        trouble=losing(moments),
    )
    assert (found.values["_counts"] <= calm().values["_counts"]).all()


def test_counts_move_with_their_slots() -> None:
    joined = []

    def trouble(town: Any, number: int, action: ev.Action) -> None:
        if isinstance(action, ev.Launch) and action.clock == 1 and not joined:
            joined.append("w1")
            town.join("w1")

    here, *_ = run(model(**HOW))
    moved, _, town = run(model(**HOW), trouble)
    assert town.moves
    for name in here.values:
        assert moved.values[name][1].tobytes() == here.values[name][1].tobytes()
