"""Models that act between clocks: the same bits however a run is cut up, whatever is lost."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training import SHARDS, Result, TroubledEngine, data, losing, losses, model, train

from daskps.models.admm import ADMMModel
from daskps.models.lbfgs import LBFGSModel
from daskps.run import events as ev
from daskps.run.checkpoint import ledger_to_builtins, published
from daskps.run.launch import RunOptions, run_training

PASSES = 6


def lbfgs(l1_ratio: float = 0.0, tol: float | None = None) -> LBFGSModel:
    return LBFGSModel(model(alpha=1e-3, l1_ratio=l1_ratio), tol, 3)


def admm(l1_ratio: float = 0.0, tol: float | None = None) -> ADMMModel:
    return ADMMModel(model(alpha=1e-3, l1_ratio=l1_ratio), tol, 3)


MADE: dict[str, Any] = {"lbfgs": lbfgs, "admm": admm}


def run(l1_ratio: float = 0.5, *, solver: str = "lbfgs", **options: Any) -> Result:
    return train(MADE[solver](l1_ratio), clocks_per_pass=1, passes=PASSES, **options)


@pytest.fixture(scope="module")
def calm() -> Callable[..., Result]:
    return functools.cache(run)


def same(result: Result, expected: Result) -> bool:
    turns = [
        {c: t.state for c, t in r.coordinator.ledger.turns.items()} for r in (result, expected)
    ]
    return result.bits == expected.bits and turns[0] == turns[1]


def test_bits_of_admm_depend_on_neither_shards_nor_threads(calm: Any) -> None:
    for shards, threads in [(1, 3), (4, 3)]:
        result = run(solver="admm", n_shards=shards, n_threads=threads)
        assert same(result, calm(solver="admm"))
    history = result.coordinator.ledger.to_xarray()
    for name in ("objective", "gap", "primal_residual", "dual_residual"):
        told = history[name].values[1:]  # the first round has nothing to compare with
        assert 0 < told[-1] < told[0]


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
def test_bits_depend_on_neither_shards_nor_threads(calm: Any, l1_ratio: float) -> None:
    for shards, threads in [(1, 3), (2, 1), (4, 3)]:
        result = run(l1_ratio, n_shards=shards, n_threads=threads)
        assert same(result, calm(l1_ratio))
    history = result.coordinator.ledger.to_xarray()
    assert history["objective"].values[-1] < history["objective"].values[0] - 0.2
    assert history["gradient_norm"].values[-1] < history["gradient_norm"].values[0] / 5


# 3 tasks, a turn, an evaluation and perhaps a cut a clock
MOMENTS = losses(0, 34)


@settings(max_examples=8)
@given(moments=MOMENTS, during=st.lists(st.sampled_from([(0,), (1, 2)]), max_size=1))
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("solver", MADE)
def test_bits_survive_losses_at_any_moment(
    tmp_path_factory: Any,
    calm: Any,
    solver: str,
    checkpointed: bool,
    moments: dict[int, tuple[int, ...]],
    during: list[tuple[int, ...]],
) -> None:
    store = str(tmp_path_factory.mktemp("ckpt") / "c.zarr") if checkpointed else None
    _, held_out = data().split(0.8)
    result = run(
        solver=solver,
        n_shards=SHARDS,
        checkpoint=store,
        held_out=held_out,
        trouble=losing(moments),
        at_recovery=tuple(during),
    )
    expected = calm(solver=solver, held_out=held_out)
    assert same(result, expected)
    assert result.coordinator.ledger.evaluations == expected.coordinator.ledger.evaluations
    assert result.coordinator.ledger.recoveries or min(moments) >= result.actions
    if store is not None:
        assert published(store)[0] == f"cut-{PASSES:08d}"


@pytest.mark.parametrize("call", range(4))
@pytest.mark.parametrize("lost", [True, False])
def test_a_turn_that_breaks_off_counts_once(
    monkeypatch: pytest.MonkeyPatch, calm: Any, call: int, lost: bool
) -> None:
    """After some shards have acted, one is lost, or its answer is."""
    calls = iter(range(100))
    apply = TroubledEngine._apply

    def troubled(engine: TroubledEngine, *args: Any) -> Any:
        now = next(calls) == call
        if now and lost:
            engine.lose(2)
        answer = apply(engine, *args)
        if now:
            raise TimeoutError("the answer came too late")
        return answer

    monkeypatch.setattr(TroubledEngine, "_apply", troubled)
    result = run(n_shards=SHARDS)
    assert len(result.coordinator.ledger.recoveries) == lost
    assert same(result, calm())


class Crash(Exception):
    pass


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("solver", MADE)
def test_a_resumed_run_goes_on_with_the_same_bits(tmp_path: Path, solver: str, shards: int) -> None:
    made = MADE[solver]
    options = {"max_iter": PASSES, "n_shards": 2, "checkpoint_every": 2}
    store = str(tmp_path / "c.zarr")

    def crash(told: Any, coordinator: Any) -> None:
        if isinstance(told, ev.CutPublished) and told.clocks[0] >= 4:
            raise Crash

    expected = run_training(made(), data(), RunOptions(**options))
    with pytest.raises(Crash):
        run_training(made(), data(), RunOptions(**options, checkpoint=store, listeners=(crash,)))
    again = {**options, "n_shards": shards, "checkpoint": store, "resume": True}
    resumed = run_training(made(tol=0.0), data(), RunOptions(**again))
    assert list(resumed.values) == ["coef", "intercept"]
    for name, (_, values) in expected.values.items():
        assert resumed.values[name][1].tobytes() == values.tobytes()
    turns = [
        json.dumps(ledger_to_builtins(x.ledger)["turns"])  # tuples or lists: the same to JSON
        for x in (resumed, expected)
    ]
    assert turns[0] == turns[1]


def test_only_bsp_can_be_conducted() -> None:
    with pytest.raises(ValueError, match="consistency='ssp' with LBFGSModel"):
        run_training(lbfgs(), data(), RunOptions(consistency="ssp"))
