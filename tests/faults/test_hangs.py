"""Workers that stop answering without dying, and a scheduler or a driver that dies."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from cluster_tools import (
    N_PARTITIONS,
    PATIENCE,
    Farm,
    Recorder,
    assert_clean,
    at,
    at_clock,
    bits,
    calm,
    ended,
    problem,
    start_python,
    start_worker,
    stop_group,
    train,
    wait_until,
)
from distributed import Client, KilledWorker

from daskps.data import from_arrays
from daskps.errors import RunFailed
from daskps.run import checkpoint, engine
from daskps.run import events as ev

pytestmark = pytest.mark.faults


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shorten what calls and tasks may take."""
    monkeypatch.setattr(engine, "PING", 1.0)
    with dask.config.set({"daskps.call-timeout": "1s", "daskps.lease": "2s"}):
        yield


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "holds",
    [
        pytest.param(True, id="with a shard"),
        pytest.param(False, id="without a shard", marks=pytest.mark.slow),
    ],
)
def test_a_worker_hangs(tmp_path: Path, holds: bool) -> None:
    seen = Recorder()
    stopped: list[str] = []
    options = {"checkpoint": str(tmp_path / "c.zarr"), "checkpoint_every": 2, "n_shards": 1}
    with Farm(2, tmp_path) as farm:

        def stop() -> None:
            stopped.append((farm.holders() if holds else farm.others())[0])
            farm.signal(stopped[0], signal.SIGSTOP)

        hang = at_clock(6, stop)
        outcome = train(farm.client, "bsp", seen, hang, **options)
        assert hang.at is not None
        assert seen.pause_after(hang.at) < 15
        farm.signal(stopped[0], signal.SIGCONT)
        # whether it closes itself or comes back, the next run does not mind
        again = train(farm.client, "bsp")
        assert_clean(farm.scheduler)
    assert bits(outcome) == bits(again) == bits(calm())
    assert [bool(x.shards) for x in seen.of(ev.WorkerLost)][:1] == [holds]


@pytest.mark.slow
@pytest.mark.parametrize("moment", [ev.FreezeCut, ev.Evaluate])
def test_a_worker_hangs_while_the_driver_waits_for_it(tmp_path: Path, moment: type) -> None:
    """No task runs then whose silence would be noticed; what shards are asked may take long."""
    seen = Recorder()
    options = {"checkpoint": str(tmp_path / "c.zarr"), "checkpoint_every": 4, "n_shards": 1}
    options["held_out"] = held_out = from_arrays(*problem(held_out=True), n_partitions=4)
    with Farm(2, tmp_path) as farm:
        hang = at(moment, lambda: farm.signal(farm.holders()[0], signal.SIGSTOP))
        outcome = train(farm.client, "bsp", seen, hang, **options)
        assert hang.at is not None
        assert seen.pause_after(hang.at) < 14
    assert bits(outcome) == bits(train(None, "bsp", held_out=held_out))
    assert [bool(x.shards) for x in seen.of(ev.WorkerLost)][:1] == [True]


def test_the_scheduler_dies_and_the_error_comes_soon(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    options = [
        "--port",
        "0",
        "--host",
        "127.0.0.1",
        "--no-dashboard",
        "--scheduler-file",
        str(file),
    ]
    with ended(start_python("-m", "distributed.cli.dask_scheduler", *options)) as scheduler:
        wait_until(lambda: file.exists() and file.read_text().endswith("}"))
        address = json.loads(file.read_text())["address"]
        with ended(start_worker(address, "w", tmp_path)), Client(address) as client:
            kill = at_clock(4, lambda: stop_group(scheduler))
            with pytest.raises(RunFailed, match=r"scheduler at tcp://.* is gone"):
                train(client, "bsp", kill, max_iter=100)
            assert kill.at is not None
            assert time.monotonic() - kill.at < 15


@pytest.mark.slow
def test_a_restart_of_the_cluster_ends_the_run_with_a_clear_error(tmp_path: Path) -> None:
    with Farm(2, tmp_path) as farm:
        restart = at_clock(4, lambda: farm.client.restart(wait_for_workers=False))
        with pytest.raises(RunFailed, match="cancelled the run's futures"):
            train(farm.client, "bsp", restart, max_iter=100)
        assert restart.at is not None
        assert time.monotonic() - restart.at < 20
        farm.repair(2)
        assert bits(train(farm.client)) == bits(calm())


@pytest.mark.slow
def test_tasks_that_dask_gives_up_are_started_again(tmp_path: Path) -> None:
    seen = Recorder()
    # Dask errs every task that was on a worker that died
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), Farm(2, tmp_path) as farm:
        kill = at_clock(6, lambda: farm.kill(farm.others()[0]))
        outcome = train(farm.client, "bsp", seen, kill, n_shards=1)
    assert {type(x.error) for x in seen.of(ev.TaskFailed)} == {KilledWorker}
    assert bits(outcome) == bits(calm())


DRIVER = """
import sys
from cluster_tools import logistic
from distributed import Client
from daskps.data import open_dataset
from daskps.run.launch import RunOptions, run_training

address, data, store = sys.argv[1:]
options = RunOptions(max_iter=1000, clocks_per_pass=4, checkpoint=store, checkpoint_every=2)
with Client(address) as client:
    run_training(logistic(), open_dataset(data), options, client=client)
"""


@pytest.mark.parametrize(
    "then", [pytest.param(4, id="on double"), pytest.param(1, id="on half", marks=pytest.mark.slow)]
)
def test_the_driver_dies_and_another_resumes_on_other_workers(tmp_path: Path, then: int) -> None:
    store = str(tmp_path / "c.zarr")
    data = from_arrays(*problem(), tmp_path / "d.zarr", n_partitions=N_PARTITIONS)
    with Farm(2, tmp_path) as farm:
        arguments = (farm.address, str(tmp_path / "d.zarr"), store)
        with ended(start_python("-c", DRIVER, *arguments, stderr=subprocess.PIPE)) as driver:
            # a process that imports and compiles first
            wait_until(
                lambda: len(checkpoint.published(store)) > 1 or driver.poll() is not None,
                timeout=4 * PATIENCE,
            )
            assert driver.poll() is None, driver.communicate(timeout=PATIENCE)
        assert_clean(farm.scheduler)
        clock = min(checkpoint.read_manifest(store, checkpoint.published(store)[0]).clocks)
        passes = clock // 4 + 3
        assert not any(ws.actors for ws in farm.scheduler.workers.values())
        if then < 2:
            farm.kill("w1", nanny=True)
        farm.add(max(0, then - 2))
        wait_until(lambda: len(farm.workers()) == then)
        options = {"dataset": data, "checkpoint": store, "resume": True, "max_iter": passes}
        outcome = train(farm.client, "bsp", **options)
    whole = train(None, "bsp", dataset=data, max_iter=passes)
    assert clock > 0
    assert bits(outcome) == bits(whole)
