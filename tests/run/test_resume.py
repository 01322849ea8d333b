"""`run_training`: resume from checkpoints, warm start, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from training import TroubledEngine, data, log_loss, model

from daskps.data import as_dataset
from daskps.errors import CheckpointError
from daskps.run import events as ev
from daskps.run import launch
from daskps.run.checkpoint import published, read_manifest
from daskps.run.launch import Outcome, RunOptions, run_training

BSP = RunOptions(max_iter=4, clocks_per_pass=2, checkpoint_every=3, n_shards=2)


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    return replace(BSP, checkpoint=str(tmp_path / "c.zarr"))


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> list[TroubledEngine]:
    """Let training wait for checkpoints; return the engines that are made."""
    made: list[TroubledEngine] = []

    def make(*args: Any, **kwargs: Any) -> TroubledEngine:
        made.append(TroubledEngine(*args, **kwargs))
        made[-1].settled = True
        return made[-1]

    monkeypatch.setattr(launch, "InProcessEngine", make)
    return made


def run(options: RunOptions, trained: Any = None, **kwargs: Any) -> Outcome:
    discount = options.consistency != "bsp"
    return run_training(trained or model(discount=discount), data(), options, **kwargs)


def bits(outcome: Outcome) -> dict[str, bytes]:
    return {name: values.tobytes() for name, (_, values) in outcome.values.items()}


class Crash(Exception):
    pass


def crash(options: RunOptions, clock: int, **kwargs: Any) -> None:
    """Run until some task of `clock` would start."""

    def listener(told: Any, coordinator: Any) -> None:
        if isinstance(told, ev.Launch) and told.clock >= clock:
            raise Crash

    with pytest.raises(Crash):
        run(replace(options, listeners=(listener,)), **kwargs)


@pytest.mark.parametrize("shards", [1, 3, 5])
@pytest.mark.parametrize("clock", [2, 4, 7])
def test_resuming_on_any_number_of_shards_gives_the_calm_bits(
    options: RunOptions, shards: int, clock: int
) -> None:
    _, held_out = data().split(0.8)
    expected = run(BSP, held_out=held_out)
    crash(options, clock, held_out=held_out)
    resumed = run(replace(options, resume=True, n_shards=shards), held_out=held_out)
    assert bits(resumed) == bits(expected)
    assert (resumed.reason, resumed.clock) == ("max_iter", 8)
    assert resumed.ledger.evaluations == expected.ledger.evaluations
    history, calm = resumed.ledger.to_xarray(), expected.ledger.to_xarray()
    np.testing.assert_array_equal(history["loss"], calm["loss"])
    assert (np.diff(history["seconds"]) > 0).all()


@pytest.mark.parametrize("consistency", ["ssp", "asp"])
def test_resuming_with_staleness_gives_as_good_a_model(
    options: RunOptions, consistency: str
) -> None:
    options = replace(options, consistency=consistency)
    crash(options, 7)
    resumed = run(replace(options, resume=True, n_shards=3))
    values = {name: v for name, (_, v) in resumed.values.items()}
    calm = {name: v for name, (_, v) in run(BSP).values.items()}
    assert log_loss(values, data()) == pytest.approx(log_loss(calm, data()), abs=0.05)


def test_resuming_goes_on_to_more_passes_and_a_finished_run_is_just_read(
    options: RunOptions,
) -> None:
    first = run(options)
    assert published(str(options.checkpoint))[0] == "cut-00000008"
    again = run(replace(options, resume=True))
    assert bits(again) == bits(first)
    more = run(replace(options, resume=True, max_iter=6))
    assert bits(more) == bits(run(replace(BSP, max_iter=6)))


@pytest.mark.parametrize("held_out", [False, True])
def test_a_run_that_stalled_stays_stopped_when_resumed(options: RunOptions, held_out: bool) -> None:
    options = replace(options, tol=1.0, max_iter=20)
    other = data().split(0.8)[1] if held_out else None
    first = run(options, held_out=other)
    assert (first.reason, first.clock) == ("tol", 6)
    again = run(replace(options, resume=True), held_out=other)
    assert (again.reason, again.clock, bits(again)) == ("tol", 6, bits(first))


def test_resuming_from_nothing_begins_anew(options: RunOptions) -> None:
    assert bits(run(replace(options, resume=True))) == bits(run(BSP))


def damage(store: str, cut: str) -> None:
    chunk = next((Path(store) / cut / "coef").glob("c.*"))
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")


def test_a_damaged_cut_is_passed_over_with_a_warning(
    options: RunOptions, caplog: pytest.LogCaptureFixture
) -> None:
    store = str(options.checkpoint)
    crash(options, 7)
    assert published(store) == ["cut-00000006", "cut-00000003"]
    damage(store, "cut-00000006")
    resumed = run(replace(options, resume=True))
    assert bits(resumed) == bits(run(BSP))
    assert "cut-00000006" in caplog.text
    assert published(store) == ["cut-00000008", "cut-00000006"]  # written anew


def test_resuming_from_damaged_cuts_only_is_refused(options: RunOptions) -> None:
    store = str(options.checkpoint)
    crash(options, 7)
    for cut in published(store):
        damage(store, cut)
    with pytest.raises(CheckpointError, match=r"none of the 2 cuts .* can be used.*cut-00000003"):
        run(replace(options, resume=True))
    assert len(published(store)) == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        pytest.param({"trained": model(alpha=0.5)}, "the model", id="model"),
        pytest.param({"consistency": "ssp"}, "consistency", id="consistency"),
        pytest.param({"clocks_per_pass": 1}, "rows_per_clock", id="slices"),
        pytest.param({"rows": 200}, "the training data's partitions", id="data"),
    ],
)
def test_resuming_with_other_settings_is_refused(
    options: RunOptions, change: dict[str, Any], what: str
) -> None:
    crash(options, 4)
    trained, rows = change.pop("trained", model()), change.pop("rows", None)
    dataset = data()
    if rows is not None:
        X = dataset.partition(0).to_scipy()[:90]
        dataset = as_dataset(X, np.arange(90) % 2.0, n_partitions=3)
    with pytest.raises(
        CheckpointError, match=f"another setting of {what}: .*, now .*same settings"
    ):
        run_training(trained, dataset, replace(options, resume=True, **change))


def test_an_earlier_run_is_not_overwritten(options: RunOptions) -> None:
    crash(options, 4)
    with pytest.raises(CheckpointError, match="earlier run; pass resume=True"):
        run(options)
    shutil.rmtree(str(options.checkpoint))
    run(options)


def test_resuming_needs_a_place() -> None:
    with pytest.raises(CheckpointError, match="resume=True without a checkpoint"):
        run(replace(BSP, resume=True))


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_cuts_are_kept_as_asked_for(options: RunOptions, keep: int) -> None:
    run(replace(options, keep=keep, checkpoint_every=1))
    store = str(options.checkpoint)
    assert len(published(store)) == keep
    assert len(list(zarr.open_group(store, mode="r").group_keys())) == keep
    assert read_manifest(store, published(store)[0]).clocks == [8, 8, 8]


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
@pytest.mark.parametrize("shards", [1, 4])
def test_a_warm_start_goes_on_from_the_state(consistency: str, shards: int) -> None:
    options = replace(BSP, consistency=consistency, max_iter=2)
    first = run(options, keep_state=True)
    assert first.state is not None
    copies = {n: {s: r.copy() for s, (_, r) in t.items()} for n, t in first.state.tables.items()}
    second = run(replace(options, n_shards=shards), start=first.state)
    if consistency == "bsp":  # 2 + 2 passes are 4
        assert bits(second) == bits(run(BSP))
    for name, slots in copies.items():
        for s, rows in slots.items():
            np.testing.assert_array_equal(first.state.tables[name][s][1], rows)
    other = run(options, model(discount=consistency != "bsp", solver="ftrl"), keep_state=True)
    assert other.state is not None
    assert other.state.samples == 600


def test_a_roll_back_of_a_warm_start_goes_back_to_its_state(engines: list[TroubledEngine]) -> None:
    first = run(replace(BSP, max_iter=2), keep_state=True)

    def listener(told: Any, coordinator: Any) -> None:
        if isinstance(told, ev.Launch) and told.clock == 2 and not coordinator.ledger.recoveries:
            engines[-1].lose(1)

    second = run(replace(BSP, max_iter=2, listeners=(listener,)), start=first.state)
    assert second.ledger.recoveries
    assert bits(second) == bits(run(BSP))


def test_a_listener_hears_events_and_actions_in_order() -> None:
    told: list[Any] = []
    run(replace(BSP, max_iter=1, listeners=(lambda what, _: told.append(what),)))
    assert isinstance(told[0], ev.Tick)
    assert isinstance(told[1], ev.Launch)
    assert isinstance(told[-1], ev.Finish)
    assert sum(isinstance(t, ev.TaskDone) for t in told) == 6
