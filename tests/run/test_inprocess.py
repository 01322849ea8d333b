"""The in-process engine: identical bits however it is cut up, and in spite of any loss."""

from __future__ import annotations

import functools
import logging
import math
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training import (
    PARTITIONS,
    ROWS,
    SHARDS,
    Result,
    TroubledEngine,
    Wrapped,
    data,
    log_loss,
    losing,
    losses,
    model,
    train,
)

from daskps.errors import NonFinitePush, RunFailed
from daskps.run import checkpoint, recovery
from daskps.run import events as ev
from daskps.run.checkpoint import published, read_manifest

# 3 partitions x 6 clocks, 3 evaluations, 3 cuts, the end
MOMENTS = losses(0, 24)


@pytest.fixture(scope="module")
def calm() -> Any:
    return functools.cache(train)


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_bsp_bits_depend_on_neither_shards_nor_threads(solver: str) -> None:
    runs = [
        train(model(solver=solver), n_shards=s, n_threads=t)
        for s, t in [(1, 1), (1, 3), (2, 2), (4, 1), (4, 3)]
    ]
    assert all(run.bits == runs[0].bits for run in runs[1:])
    assert runs[0].loss < 0.5 < math.log(2)


@pytest.mark.parametrize("consistency", [1, math.inf])
def test_with_staleness_the_model_is_as_good(calm: Any, consistency: float) -> None:
    for shards, threads in [(1, 1), (3, 3)]:
        result = train(staleness=consistency, n_shards=shards, n_threads=threads)
        assert result.loss == pytest.approx(calm().loss, abs=0.03)


@settings(max_examples=25)
@given(moments=MOMENTS, during=st.lists(st.sampled_from([(0,), (1, 2)]), max_size=1))
@pytest.mark.parametrize("checkpointed", [False, True])
def test_bsp_bits_survive_losses_at_any_moment(
    tmp_path_factory: Any,
    calm: Any,
    checkpointed: bool,
    moments: dict[int, tuple[int, ...]],
    during: list[tuple[int, ...]],
) -> None:
    store = str(tmp_path_factory.mktemp("ckpt") / "c.zarr") if checkpointed else None
    _, held_out = data().split(0.8)
    result = train(
        n_shards=SHARDS,
        checkpoint=store,
        held_out=held_out,
        trouble=losing(moments),
        at_recovery=tuple(during),
    )
    expected = calm(held_out=held_out)
    assert result.bits == expected.bits
    assert result.coordinator.ledger.evaluations == expected.coordinator.ledger.evaluations
    assert result.coordinator.ledger.recoveries or min(moments) >= result.actions
    if store is not None:
        assert published(store)[0] == "cut-00000006"


@settings(max_examples=10)
@given(moments=MOMENTS, staleness=st.sampled_from([1, math.inf]))
def test_training_with_staleness_survives_losses_at_any_moment(
    tmp_path_factory: Any, calm: Any, staleness: float, moments: dict[int, tuple[int, ...]]
) -> None:
    store = str(tmp_path_factory.mktemp("ckpt") / "c.zarr")
    result = train(
        n_shards=SHARDS,
        staleness=staleness,
        checkpoint=store,
        every=1,
        trouble=losing(moments),
        settled=True,  # what is lost are updates since the newest cut
    )
    assert result.loss == pytest.approx(calm().loss, abs=0.05)
    assert set(result.coordinator.clocks.values()) == {6}


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("when", ["before pull", "before push", "after push"])
def test_a_loss_in_the_middle_of_a_step(
    tmp_path: Path, calm: Any, staleness: float, when: str
) -> None:
    engines: list[TroubledEngine] = []
    calls = iter(range(1000))

    def step(inner: Any, rows: Any, server: Any) -> Any:
        now = next(calls) == 8

        class Watched:
            def __getattr__(self, name: str) -> Any:
                return getattr(server, name)

            def push(self, *args: Any, **kwargs: Any) -> None:
                if now and when == "before push":
                    engines[0].lose(0)
                server.push(*args, **kwargs)

        if now and when == "before pull":
            engines[0].lose(0)
        metrics = inner.step(rows, Watched())
        if now and when == "after push":
            engines[0].lose(0)
        return metrics

    result = train(
        Wrapped(step, discount=staleness > 0),
        staleness=staleness,
        checkpoint=str(tmp_path / "c.zarr"),
        trouble=lambda engine, number, action: engines.append(engine),
    )
    assert len(result.coordinator.ledger.recoveries) == 1
    if staleness == 0:
        assert result.bits == calm().bits
    assert result.loss == pytest.approx(calm().loss, abs=0.05)


def test_a_damaged_cut_is_passed_over_in_a_recovery(
    tmp_path: Path, calm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "c.zarr"

    def trouble(engine: TroubledEngine, number: int, action: ev.Action) -> None:
        if isinstance(action, ev.Launch) and action.clock == 4:
            for chunk in (store / "cut-00000004" / "coef").glob("c.*"):
                chunk.write_bytes(b"damaged")
            engine.trouble = None
            engine.lose(1)

    result = train(checkpoint=str(store), trouble=trouble, settled=True)
    assert result.bits == calm().bits
    assert "cut-00000004" in caplog.text
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("launch", [pytest.param(8, id="early"), pytest.param(36, id="late")])
def test_a_loss_while_no_cut_can_be_read_takes_everybody_back_to_the_beginning(
    tmp_path: Path, launch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost slots must not begin again beside others that go on."""
    monkeypatch.setattr(recovery, "AWAY", 0.0)
    store, launches = tmp_path / "c.zarr", list[tuple[int, int]]()

    def trouble(engine: TroubledEngine, number: int, action: ev.Action) -> None:
        if isinstance(action, ev.Launch):
            launches.append((action.partition, action.clock))
            if len(launches) == launch * PARTITIONS:
                engine.settle()
                store.rename(tmp_path / "away")
                engine.lose(1)

    options = {"staleness": 1, "n_shards": 3, "n_threads": 1, "trouble": trouble}
    result = train(checkpoint=str(store), passes=20, settled=True, **options)
    assert len(result.coordinator.ledger.recoveries) == 1
    assert sum(c == 0 for _, c in launches) == 2 * PARTITIONS
    assert all(s.duplicates == 0 for s in result.stats)  # those that stayed have begun again, too


def test_a_store_that_is_away_for_a_moment_is_waited_for(
    tmp_path: Path, calm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, away, asked = tmp_path / "c.zarr", tmp_path / "away", list[int]()

    def usable(*given: Any) -> list[str]:
        found = checkpoint.usable(*given)
        asked.append(len(found))
        if away.exists():
            away.rename(store)
        return found

    def trouble(engine: TroubledEngine, number: int, action: ev.Action) -> None:
        if isinstance(action, ev.Launch) and action.clock == 4:
            engine.settle()
            store.rename(away)
            engine.trouble = None
            engine.lose(1)

    monkeypatch.setattr(recovery, "checkpoint", SimpleNamespace(usable=usable))
    monkeypatch.setattr(recovery, "AWAY", 30.0)
    result = train(checkpoint=str(store), trouble=trouble, settled=True)
    assert result.bits == calm().bits
    assert asked[0] == 0 < asked[1]


def test_a_store_that_cannot_be_written_does_not_stop_training(
    tmp_path: Path, calm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "full"
    file.write_text("no folder")
    result = train(checkpoint=str(file), settled=True)
    assert result.bits == calm().bits
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 3
    assert "checkpoint cut-00000002 could not be written" in warnings[0].getMessage()
    assert all(s.frozen_nbytes == 0 for s in result.stats)


def test_history_is_that_of_the_run(calm: Any) -> None:
    _, held_out = data().split(0.8)
    result = train(held_out=held_out)
    history = result.coordinator.ledger.to_xarray()
    assert history.sizes["clock"] == 6
    assert history["samples"].values.reshape(3, 2).sum(axis=1).tolist() == [ROWS] * 3
    assert history["loss"][0] == pytest.approx(math.log(2), abs=0.1)
    assert history["loss"][-1] < history["loss"][0] - 0.1
    assert (history["staleness"] == 0).all()
    assert (np.diff(history["seconds"]) > 0).all()
    assert (history["pulled_bytes"] == 0).all()  # nothing left this process
    evaluated = history["eval_loss"]
    assert np.isnan(evaluated[::2]).all()
    assert evaluated[-1] == pytest.approx(log_loss(result.values, held_out), rel=1e-5)
    assert np.array_equal(history["samples"], calm().coordinator.ledger.to_xarray()["samples"])


@pytest.mark.parametrize("staleness", [0, 2])
def test_early_stopping_ends_at_a_pass(staleness: float) -> None:
    _, held_out = data().split(0.8)
    result = train(held_out=held_out, staleness=staleness, passes=20, tol=1.0, n_iter_no_change=2)
    assert result.coordinator.ended == "tol"
    # with staleness, partitions that had run ahead into the next pass are waited for
    assert sorted(result.coordinator.ledger.evaluations)[:3] == [2, 4, 6]
    assert result.coordinator.min_clock <= 6 + 1 + staleness
    assert len(set(result.coordinator.clocks.values())) == 1


def test_a_request_to_stop_leaves_a_checkpointed_model(tmp_path: Path) -> None:
    def trouble(engine: TroubledEngine, number: int, action: ev.Action) -> None:
        if isinstance(action, ev.Launch) and action.clock == 3 and action.partition == 0:
            engine.post(ev.StopRequested("interrupted"))

    store = str(tmp_path / "c.zarr")
    result = train(passes=50, checkpoint=store, every=100, trouble=trouble)
    clock = result.coordinator.min_clock
    assert (result.coordinator.ended, clock in (4, 5)) == ("interrupted", True)
    assert read_manifest(store, published(store)[0]).clocks == [clock] * PARTITIONS
    assert result.bits == train(passes=50, trouble=None, n_clocks=clock).bits


def test_the_first_interrupt_stops_softly_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)

    def trouble(engine: TroubledEngine, number: int, action: ev.Action) -> None:
        if number == 4:
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is before  # a second one ends at once

    assert train(passes=50, trouble=trouble).coordinator.ended == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_step_that_fails_now_and_then_changes_nothing(calm: Any) -> None:
    calls = iter(range(1000))

    def step(inner: Any, rows: Any, server: Any) -> Any:
        number = next(calls)
        if number % 5 == 1:
            raise OSError("flaky disk")
        metrics = inner.step(rows, server)
        if number % 5 == 3:
            raise OSError("after the push")
        return metrics

    assert train(Wrapped(step)).bits == calm().bits


def raising(inner: Any, rows: Any, server: Any) -> Any:
    raise ZeroDivisionError("mine")


def pushing_nothing(inner: Any, rows: Any, server: Any) -> Any:
    return {"loss": 0.0, "samples": 1.0}


def pushing_twice(inner: Any, rows: Any, server: Any) -> Any:
    inner.step(rows, server)
    return inner.step(rows, server)


def pushing_nan(inner: Any, rows: Any, server: Any) -> Any:
    pulled, _ = server.pull(rows.keysets)
    server.push(rows.keysets, [np.full((len(p), 3, 1), np.nan, "f4") for p in pulled], samples=1)


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        pytest.param(raising, ZeroDivisionError, "mine", id="exception"),
        pytest.param(pushing_nothing, RuntimeError, "pushed nothing for partition", id="no push"),
        pytest.param(pushing_twice, RuntimeError, "more than once", id="two pushes"),
        pytest.param(pushing_nan, NonFinitePush, "partition . at clock 0 .*'coef', row", id="nan"),
    ],
)
def test_a_step_that_always_fails_ends_the_run_with_its_error(
    step: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(Wrapped(step))


def test_figures_of_a_step_may_be_numpy_numbers(tmp_path: Path) -> None:
    def step(inner: Any, rows: Any, server: Any) -> Any:
        return {name: np.float32(x) for name, x in inner.step(rows, server).items()}

    store = str(tmp_path / "c.zarr")
    train(Wrapped(step), checkpoint=store, settled=True)
    assert published(store) == ["cut-00000006", "cut-00000004"]


def test_losses_without_end_are_given_up() -> None:
    def trouble(engine: TroubledEngine, number: int, action: ev.Action) -> None:
        if isinstance(action, ev.Launch):
            engine.lose(0)

    with pytest.raises(RunFailed, match="4 losses of shards without a finished clock"):
        train(trouble=trouble, max_recoveries=3)


def test_nothing_is_left_after_a_run(calm: Any) -> None:
    kept: list[TroubledEngine] = []

    def trouble(engine: TroubledEngine, number: int, action: ev.Action) -> None:
        kept.append(engine)

    result: Result = train(trouble=trouble)
    assert result.bits == calm().bits
    assert not kept[0]._hosts
    assert not [t for t in threading.enumerate() if t.name.startswith("daskps")]
    with pytest.raises(RuntimeError, match="after shutdown"):
        kept[0]._pool.submit(print)
