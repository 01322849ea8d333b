"""Runs whose later passes are refined: the same bits however they are spread, whatever is lost."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from training import (
    CLOCKS_PER_PASS,
    PARTITIONS,
    ROWS,
    SHARDS,
    Result,
    data,
    losing,
    losses,
    model,
    train,
)

from daskps.models.refined import RefinedModel, refine_later, without_anchors
from daskps.run import events as ev
from daskps.run.launch import RunOptions, run_training
from daskps.run.state import State

AFTER, PASSES = 2, 6


def refined(solver: Any = "adagrad", after: int = AFTER, **changes: Any) -> RefinedModel:
    linear = model(solver=solver, alpha=1e-3, refined_after=after * ROWS, **changes)
    return RefinedModel(linear, CLOCKS_PER_PASS, ROWS, PARTITIONS, after)


def run(solver: Any = "adagrad", **options: Any) -> Result:
    return train(refined(solver, l1_ratio=0.5), passes=PASSES, **options)


@pytest.fixture(scope="module")
def calm() -> Callable[..., Result]:
    return functools.cache(run)


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_bits_depend_on_neither_shards_nor_threads(calm: Any, solver: str) -> None:
    for shards, threads in [(1, 3), (2, 1), (4, 3)]:
        assert run(solver, n_shards=shards, n_threads=threads).bits == calm(solver).bits


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_first_passes_are_those_of_the_plain_model(solver: str) -> None:
    plain = train(model(solver=solver, alpha=1e-3), passes=AFTER)
    found = train(refined(solver), passes=AFTER)
    for name in ("coef", "intercept"):
        assert found.bits[name] == plain.bits[name]
    # the pass after only measures, and its loss is that of where the first passes have led
    measured = train(refined(solver), passes=AFTER + 1)
    assert measured.bits["coef"] == plain.bits["coef"]
    loss = measured.coordinator.ledger.pass_loss(AFTER)
    assert loss == pytest.approx(plain.loss, rel=1e-6)


def test_anchors_hold_the_gradient_of_all_rows_and_how_many_have_a_feature() -> None:
    found = train(refined(after=0), passes=3).values  # measured, moved, measured again
    rows = [data().partition(i) for i in range(PARTITIONS)]
    gradient, counts = np.zeros(found["coef"].shape), np.zeros(len(found["coef"]))
    for part in rows:
        X = part.to_scipy()
        scores = X @ found["coef"].astype(np.float64) + found["intercept"]
        gradient += X.T @ (1 / (1 + np.exp(-scores)) - np.asarray(part.label)[:, None])
        counts += (X != 0).sum(axis=0)
    np.testing.assert_allclose(found["coef_anchor"][:, :1], gradient, atol=1e-4)
    np.testing.assert_array_equal(found["coef_anchor"][:, 1], counts)
    assert found["intercept_anchor"][0, 1] == ROWS


# 6 tasks a pass, and cuts
MOMENTS = losses(6, 40, most=2)


@settings(max_examples=6)
@given(moments=MOMENTS)
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_bits_survive_losses_at_any_moment(
    tmp_path_factory: Any, calm: Any, solver: str, checkpointed: bool, moments: dict[int, Any]
) -> None:
    store = str(tmp_path_factory.mktemp("ckpt") / "c.zarr") if checkpointed else None
    result = run(solver, n_shards=SHARDS, checkpoint=store, trouble=losing(moments))
    assert result.bits == calm(solver).bits
    assert result.coordinator.ledger.recoveries or min(moments) >= result.actions


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_a_resumed_run_goes_on_with_the_same_bits(tmp_path: Path, solver: str) -> None:
    class Crash(Exception):
        pass

    def crash(told: Any, coordinator: Any) -> None:
        if isinstance(told, ev.CutPublished) and told.clocks[0] >= 2 * AFTER + 3:
            raise Crash  # between two passes of a pair, or within one

    options = {"max_iter": PASSES, "clocks_per_pass": CLOCKS_PER_PASS}
    stored = {**options, "checkpoint": str(tmp_path / "c.zarr"), "checkpoint_every": 1}
    expected = run_training(refined(solver), data(), RunOptions(**options))
    assert list(expected.values) == ["coef", "intercept"]
    with pytest.raises(Crash):
        run_training(refined(solver), data(), RunOptions(**stored, listeners=(crash,)))
    again = RunOptions(**stored, n_shards=2, resume=True)
    resumed = run_training(refined(solver), data(), again)
    for name, (_, values) in expected.values.items():
        assert resumed.values[name][1].tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"max_iter": 10}, {}),
        ({"consistency": "ssp", "max_iter": 20}, {"discount": True}),
        ({"max_iter": 20}, {"loss": model().loss._replace(name="hinge")}),
        ({"max_iter": 20}, {"admission": 0.5}),
    ],
    ids=["short", "ssp", "hinge", "admission"],
)
def test_some_runs_are_not_refined(options: Any, changes: Any) -> None:
    plain, start = model(**changes), State(5.0, {})
    found = refine_later(plain, start, data(), RunOptions(**options))
    assert found == (plain, start)
    assert without_anchors(start, found[0]) is start
