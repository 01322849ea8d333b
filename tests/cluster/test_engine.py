"""Training on a Dask cluster by the public estimator: same bits, same errors, nothing left behind.

Clusters live in this process (`gen_cluster`) unless a test needs processes; `fit` runs in a thread,
with a synchronous client of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from cluster_tools import (
    CONDUCTED,
    PATIENCE,
    Recorder,
    assert_clean,
    at,
    at_clock,
    bits,
    calm,
    calm_movers,
    ended,
    left_behind,
    logistic,
    loss,
    memory_dataset,
    problem,
    start_python,
    train,
    wait_until,
)
from distributed import Client, LocalCluster, Scheduler, Security, Worker
from distributed.utils_test import async_poll_for, gen_cluster
from movers import Kept, Movers

import daskps
from daskps import LogisticRegression
from daskps.data import from_arrays
from daskps.errors import CorruptChunk, DataError, RunFailed, RunTimeout
from daskps.run import events as ev
from daskps.run.dask_engine import DaskEngine
from daskps.run.launch import Outcome

pytestmark = pytest.mark.cluster


async def in_thread(address: str, work: Callable[[Client], Any], **kwargs: Any) -> Any:
    """Call `work` with a synchronous client, in a thread."""

    def run() -> Any:
        with Client(address, **kwargs) as client:
            return work(client)

    return await asyncio.to_thread(run)


async def assert_empty(scheduler: Scheduler, *workers: Worker) -> None:
    """Assert that no actor, future or task of a run is left, soon."""
    await async_poll_for(lambda: not left_behind(scheduler), timeout=5)
    await async_poll_for(lambda: not any(w.state.actors for w in workers), timeout=5)
    await async_poll_for(lambda: not any(w.state.executing_count for w in workers), timeout=5)


def on_cluster(n_workers: int, **kwargs: Any) -> Callable[[Any], Any]:
    # our own check for leaked threads knows those that stay for the life of the process
    options = {"timeout": 50, "clean_kwargs": {"threads": False}, **kwargs}
    return gen_cluster(nthreads=[("127.0.0.1", 1)] * n_workers, **options)


# -- results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_workers", "n_shards"), [(1, 1), (1, 4), (2, 2), (3, 4)])
def test_bsp_has_the_same_bits_on_any_number_of_workers_and_shards(
    n_workers: int, n_shards: int
) -> None:
    @on_cluster(n_workers)
    async def run(s: Scheduler, *workers: Worker) -> None:
        outcome = await in_thread(s.address, lambda c: train(c, "bsp", n_shards=n_shards))
        assert bits(outcome) == bits(calm())
        run = {**CONDUCTED, "n_shards": n_shards}
        outcome = await in_thread(s.address, lambda c: train(c, "bsp", **run))
        assert bits(outcome) == bits(calm(**CONDUCTED))
        await assert_empty(s, *workers)

    run()


@gen_cluster(nthreads=[("127.0.0.1", 1)] * 3 + [("127.0.0.1", 2)], clean_kwargs={"threads": False})
async def test_partitions_are_dealt_by_threads(s: Scheduler, *workers: Worker) -> None:
    held: list[int] = []

    def look() -> None:  # once no partition is waited for
        data = [t for k, t in s.tasks.items() if str(k).startswith("daskps-data")]
        # Dask does not give a task that waits for one worker to another that comes
        assert not any(t.worker_restrictions for t in data)
        held.extend(sum(w.address in {x.address for x in t.who_has} for t in data) for w in workers)

    await in_thread(s.address, lambda c: train(c, "bsp", at_clock(1, look)))
    assert sorted(held) == [1, 2, 2, 3]
    assert held[-1] == 3


FREE = threading.Event()


def block() -> None:
    """Task: keep a thread of this process busy until it is free."""
    FREE.wait(30)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)], clean_kwargs={"threads": False})
async def test_the_only_worker_goes_while_it_reads_and_another_one_comes(
    c: Client, s: Scheduler, a: Worker
) -> None:
    def unread() -> list[Any]:
        return [t for k, t in s.tasks.items() if str(k).startswith("daskps-data")]

    FREE.clear()
    busy = c.submit(block)
    await async_poll_for(lambda: a.state.executing_count, timeout=5)
    run = asyncio.create_task(in_thread(s.address, lambda c: train(c, "bsp")))
    await async_poll_for(unread, timeout=10)
    await a.close(executor_wait=False)
    FREE.set()
    busy.release()
    await async_poll_for(lambda: not any(t.worker_restrictions for t in unread()), timeout=5)
    async with Worker(s.address, nthreads=1) as b:
        outcome = await asyncio.wait_for(run, 30)
        assert bits(outcome) == bits(calm())
        await assert_empty(s, b)


@pytest.mark.parametrize(("n_workers", "n_shards"), [(1, 1), (2, 2), (3, 4)])
def test_what_partitions_keep_has_the_same_bits_on_any_number_of_workers(
    n_workers: int, n_shards: int
) -> None:
    @on_cluster(n_workers)
    async def run(s: Scheduler, *workers: Worker) -> None:
        kept = Kept()
        run = {"model": Movers(), "collect": kept, "n_shards": n_shards}
        outcome = await in_thread(s.address, lambda c: train(c, "bsp", **run))
        assert kept.bits == calm_movers().bits
        np.testing.assert_array_equal(kept.counts, outcome.values["count"][1][:, 0])
        await assert_empty(s, *workers)

    run()


@pytest.mark.parametrize("consistency", ["ssp", "asp"])
@on_cluster(2)
async def test_staleness_costs_no_quality(
    s: Scheduler, a: Worker, b: Worker, consistency: str
) -> None:
    outcome = await in_thread(s.address, lambda c: train(c, consistency))
    assert loss(outcome) == pytest.approx(loss(calm()), rel=0.01)
    await assert_empty(s, a, b)


def fit(**options: Any) -> LogisticRegression:
    return LogisticRegression(**{"max_iter": 2, "alpha": 1e-3, "progress": False, **options})


@on_cluster(2)
async def test_data_on_disk_gives_the_bits_of_data_in_memory(
    s: Scheduler, a: Worker, b: Worker, tmp_path: Path
) -> None:
    on_disk = from_arrays(*problem(2000), tmp_path / "d.zarr", n_partitions=4)
    in_memory = from_arrays(*problem(2000), n_partitions=4)
    alone = fit().fit(in_memory)
    for data in (on_disk, str(tmp_path / "d.zarr"), in_memory):
        model = await in_thread(s.address, lambda _, data=data: fit().fit(data))
        assert model.coef_.tobytes() == alone.coef_.tobytes()


@on_cluster(2)
async def test_dask_arrays_of_unknown_chunks(s: Scheduler, a: Worker, b: Worker) -> None:
    X, y = (np.asarray(x) for x in (problem(2000)[0].toarray(), problem(2000)[1]))

    def work(client: Client) -> LogisticRegression:
        keep = da.from_array(y >= 0, chunks=500)
        lazy = da.from_array(X, chunks=(500, -1))[keep], da.from_array(y, chunks=500)[keep]
        assert np.isnan(lazy[0].shape[0])
        return fit().fit(*lazy)

    model = await in_thread(s.address, work)
    assert model.score(X, y) > 0.7
    await assert_empty(s, a, b)


@on_cluster(2)
async def test_an_evaluation_set_is_evaluated_after_each_pass(
    s: Scheduler, a: Worker, b: Worker
) -> None:
    data, held_out = memory_dataset().split(0.9)
    model = await in_thread(s.address, lambda _: fit().fit(data, eval_set=held_out))
    losses = model.history_.eval_loss.dropna("clock")
    assert len(losses) == 2
    assert float(losses[-1]) == pytest.approx(model.log_loss(held_out), rel=1e-4)
    await assert_empty(s, a, b)


# -- errors ----------------------------------------------------------------------------------------


@on_cluster(2)
async def test_a_corrupt_chunk_is_named_before_any_training(
    s: Scheduler, a: Worker, b: Worker, tmp_path: Path
) -> None:
    data = from_arrays(*problem(2000), tmp_path / "d.zarr", n_partitions=4)
    chunk = next(p for p in (tmp_path / "d.zarr/values/c").rglob("*") if p.is_file())
    chunk.write_bytes(bytes(x ^ 0xFF for x in chunk.read_bytes()))
    seen = Recorder()
    with pytest.raises(CorruptChunk, match="values"):
        await in_thread(s.address, lambda c: train(c, "bsp", seen, dataset=data))
    assert not seen.told
    await assert_empty(s, a, b)


@on_cluster(1)
async def test_one_class_is_refused(s: Scheduler, a: Worker) -> None:
    X, y = problem(2000)
    with pytest.raises(DataError, match="one class"):
        await in_thread(s.address, lambda _: fit().fit(X, np.zeros_like(y)))
    await assert_empty(s, a)


class Unlucky:
    """The model, but one step raises."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.__dict__["model"], name)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("by the model itself")


@on_cluster(2)
async def test_an_error_of_a_step_reaches_the_caller_as_it_is(
    s: Scheduler, a: Worker, b: Worker
) -> None:
    model: Any = Unlucky(logistic())
    with pytest.raises(ZeroDivisionError, match="by the model itself"):
        await in_thread(s.address, lambda c: train(c, "bsp", model=model))
    await assert_empty(s, a, b)


@gen_cluster(client=False, nthreads=[])
async def test_without_a_worker_the_wait_is_bounded(s: Scheduler) -> None:
    def work(client: Client) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DaskEngine, "patience", 0.3)
            train(client)

    with pytest.raises(RunTimeout, match="no Dask worker at tcp"):
        await in_thread(s.address, work)


@on_cluster(1, client=True)
async def test_fit_on_the_loop_of_an_asynchronous_client_is_refused(
    c: Client, s: Scheduler, a: Worker
) -> None:
    with pytest.raises(RunFailed, match=r"asyncio\.to_thread"):
        train(c)


# -- life ------------------------------------------------------------------------------------------


@on_cluster(2)
async def test_two_fits_at_once_do_not_meet(s: Scheduler, a: Worker, b: Worker) -> None:
    def both(client: Client) -> list[Outcome]:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda c: train(client, c), ["bsp", "ssp"]))

    outcomes = await in_thread(s.address, both)
    assert bits(outcomes[0]) == bits(calm())
    assert loss(outcomes[1]) == pytest.approx(loss(calm()), rel=0.01)
    await assert_empty(s, a, b)


@on_cluster(1)
async def test_a_worker_that_joins_in_the_middle_does_no_harm(s: Scheduler, a: Worker) -> None:
    loop, seen, joined = asyncio.get_running_loop(), Recorder(), []

    async def join() -> None:
        joined.append(await Worker(s.address, nthreads=1))

    def add() -> None:
        asyncio.run_coroutine_threadsafe(join(), loop).result(10)

    outcome = await in_thread(s.address, lambda c: train(c, "bsp", seen, at_clock(2, add)))
    assert bits(outcome) == bits(calm())
    await assert_empty(s, a, *joined)
    assert [x.worker for x in seen.of(ev.WorkerJoined)] == [joined[0].address]
    await joined[0].close()


def test_an_encrypted_cluster_trains() -> None:
    pytest.importorskip("cryptography", reason="Dask makes temporary certificates with it")
    security = Security.temporary()

    @on_cluster(2, security=security, scheduler="tls://127.0.0.1")
    async def run(s: Scheduler, a: Worker, b: Worker) -> None:
        refs: list[str] = []

        def look() -> None:
            refs.extend(w.address for w in (a, b) if w.state.actors)

        def work(client: Client) -> Outcome:
            return train(client, "bsp", at_clock(2, look))

        outcome = await in_thread(s.address, work, security=security)
        assert bits(outcome) == bits(calm())
        assert [x.split(":")[0] for x in refs] == ["tls", "tls"]

    run()


def test_the_embedded_cluster_is_reachable_from_this_machine_only() -> None:
    with daskps.local_cluster(n_workers=1, processes=True) as cluster, Client(cluster) as client:
        addresses = [cluster.scheduler_address, *client.scheduler_info()["workers"]]
        addresses.append(cluster.dashboard_link)
        assert all("//127.0.0.1:" in x for x in addresses)
        assert bits(train(client, n_shards=1)) == bits(calm())
        assert_clean(cluster.scheduler)


DRIVER = """
import signal
import sys
from cluster_tools import memory_dataset
from distributed import Client
from daskps import LogisticRegression

signal.signal(signal.SIGINT, signal.default_int_handler)
with Client(sys.argv[1]) as client:
    model = LogisticRegression(max_iter=100_000, tol=None, progress=False)
    print("started", flush=True)
    model.fit(memory_dataset())
    print(model.stop_reason_, model.n_iter_, model.score(memory_dataset()) > 0.7, flush=True)
"""


def test_ctrl_c_leaves_a_usable_model_and_a_clean_cluster() -> None:
    options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "threads_per_worker": 1}
    with LocalCluster(n_workers=2, processes=False, protocol="tcp", **options) as cluster:
        s = cluster.scheduler
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with ended(start_python("-c", DRIVER, cluster.scheduler_address, **pipes)) as driver:
            wait_until(lambda: any("-step-" in k for k in left_behind(s)) or driver.poll())
            driver.send_signal(signal.SIGINT)
            out, err = driver.communicate(timeout=PATIENCE)
        assert_clean(s)
    assert b"interrupted" in out, err
    assert out.split()[-1] == b"True"
    assert b"ConvergenceWarning" in err
    assert driver.returncode == 0


def test_a_second_ctrl_c_ends_at_once_and_leaves_a_clean_cluster() -> None:
    # a shell that runs tests in the background lets them ignore the signal
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _end_at_once()
    finally:
        signal.signal(signal.SIGINT, before)


def _end_at_once() -> None:
    options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "threads_per_worker": 1}
    with (
        LocalCluster(n_workers=2, processes=False, **options) as cluster,
        Client(cluster) as client,
    ):
        first = at_clock(2, lambda: signal.raise_signal(signal.SIGINT))
        second = at(ev.StopRequested, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train(client, "bsp", first, second, max_iter=1000)
        assert first.at is not None
        assert time.monotonic() - first.at < 5
        assert_clean(cluster.scheduler)
