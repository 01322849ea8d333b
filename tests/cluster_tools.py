"""Clusters of real processes that may be killed, a small problem to train, and what to compare.

A `Farm` starts every nanny as a child of its own, so that a test may kill a worker with or without
its nanny. Only processes that a farm started are ever killed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import dask
import numpy as np
import psutil
import pytest
import scipy.sparse as sp
from distributed import Client, LocalCluster, Scheduler
from movers import Kept, Movers
from numpy.typing import NDArray

from daskps.data import Dataset, as_dataset
from daskps.models.lbfgs import LBFGSModel
from daskps.models.linear import COEF, INTERCEPT, LinearModel
from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.dask_hub import is_shard
from daskps.run.driver import Listener
from daskps.run.launch import Outcome, RunOptions, run_training
from daskps.run.plan import Model

Problem = tuple[sp.csr_array, NDArray[np.float64]]

N_FEATURES = 500
N_PARTITIONS = 8
PATIENCE = 30.0
"""Seconds that anything that must happen may take."""


def wait_until(what: Callable[[], Any], timeout: float = PATIENCE) -> Any:
    """Return the first true answer of `what`; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (answer := what()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.005)
    return answer


# -- clusters --------------------------------------------------------------------------------------


class Farm:
    """A scheduler in this process and workers, each under a nanny, in processes of their own."""

    def __init__(self, n_workers: int, directory: Path, *, threads: int = 1) -> None:
        options: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
        self._directory = directory
        self._threads = threads
        self._nannies: dict[str, subprocess.Popen[bytes]] = {}
        self._numbers = itertools.count()
        self.cluster = LocalCluster(n_workers=0, **options)
        try:
            self.client = Client(self.cluster)
            self.add(n_workers)
        except BaseException:
            self.close()
            raise

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler itself, to look at and not to touch."""
        return self.cluster.scheduler

    @property
    def address(self) -> str:
        """Where the scheduler is."""
        return str(self.cluster.scheduler_address)

    def add(self, n_workers: int) -> list[str]:
        """Start workers, wait for them, and return their names."""
        names = [f"w{next(self._numbers)}" for _ in range(n_workers)]
        for name in names:
            self._nannies[name] = start_worker(
                self.address, name, self._directory, threads=self._threads
            )
        wait_until(lambda: set(names) <= set(self.workers().values()))
        return names

    def repair(self, n_workers: int) -> None:
        """Wait for workers that nannies start again, and replace those whose nanny is gone."""
        gone = [name for name, process in self._nannies.items() if process.poll() is not None]
        for name in gone:
            stop_group(self._nannies.pop(name))
        wait_until(lambda: set(self._nannies) <= set(self.workers().values()))
        self.add(n_workers - len(self._nannies))

    def workers(self) -> dict[str, str]:
        """Return the name of the worker at each address."""
        return {a: str(ws.name) for a, ws in list(self.scheduler.workers.items())}

    def holders(self) -> list[str]:
        """Return the names of the workers that hold a shard."""
        return [str(w.name) for w in list(self.scheduler.workers.values()) if has_shard(w)]

    def others(self) -> list[str]:
        """Return the names of the workers that hold none."""
        return sorted(set(self.workers().values()) - set(self.holders()))

    def kill(self, name: str, *, nanny: bool = False) -> None:
        """SIGKILL a worker process; with `nanny` nothing starts it again."""
        if nanny:
            os.killpg(self._nannies[name].pid, signal.SIGKILL)
        else:
            self.signal(name, signal.SIGKILL)

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a worker process, not to its nanny."""
        for process in psutil.Process(self._nannies[name].pid).children():
            if "spawn_main" in " ".join(process.cmdline()):
                process.send_signal(number)

    def close(self) -> None:
        """End everything that was started."""
        if hasattr(self, "client"):
            self.client.close()
        for process in self._nannies.values():
            stop_group(process)
        self.cluster.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def start_worker(
    scheduler: str, name: str, directory: Path, *, threads: int = 1
) -> subprocess.Popen[bytes]:
    """Start a nanny, which starts a worker, as leader of a process group."""
    options = ["--nthreads", str(threads), "--memory-limit", "0", "--no-dashboard"]
    place = [
        "--death-timeout",
        "60",
        "--name",
        name,
        "--local-directory",
        str(directory),
        "--host",
        "127.0.0.1",
    ]
    return start_python("-m", "distributed.cli.dask_worker", scheduler, *options, *place)


def start_python(*args: str, **kwargs: Any) -> subprocess.Popen[bytes]:
    """Start Python with this process's import path, as leader of a process group."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **kwargs}
    return subprocess.Popen(
        [sys.executable, *args], env=environment, start_new_session=True, **streams
    )


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a process that `start_python` started, and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def has_shard(worker: Any) -> bool:
    """Return whether a worker, as the scheduler sees it, holds a shard."""
    return any(is_shard(ts.key) for ts in worker.actors)


def left_behind(scheduler: Scheduler) -> list[str]:
    """Return what a run left on a cluster: keys of actors, futures and tasks."""
    return [str(k) for k in list(scheduler.tasks) if "daskps-" in str(k)]


def assert_clean(scheduler: Scheduler) -> None:
    """Assert that no actor, future or task of a run is left, soon."""
    wait_until(lambda: not left_behind(scheduler), 10)
    wait_until(lambda: not any(w.actors for w in scheduler.workers.values()), 10)


@pytest.fixture(autouse=True)
def own_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep Dask's scratch directories apart from those of other processes, whose locks it tries."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with dask.config.set({"temporary-directory": str(tmp_path)}):
        yield


# -- a problem and its runs ------------------------------------------------------------------------


@cache
def problem(n_rows: int = 60_000, *, held_out: bool = False) -> Problem:
    """Return rows and labels of a sparse binary problem, seeded; held out: others of its kind."""
    truth = np.random.default_rng(0).normal(size=N_FEATURES)
    rng = np.random.default_rng([0, int(held_out)])
    nnz = 10
    # squared: some features are hot, as in real data
    columns = (N_FEATURES * rng.random((n_rows, nnz)) ** 2).astype(np.int64)
    values = rng.random(n_rows * nnz, np.float32) + 0.5
    indptr = np.arange(0, n_rows * nnz + 1, nnz)
    X = sp.csr_array((values, columns.ravel(), indptr), shape=(n_rows, N_FEATURES))
    X.sum_duplicates()
    y = (rng.random(n_rows) < 1 / (1 + np.exp(-(X @ truth)))).astype(np.float64)
    return X, y


@cache
def memory_dataset() -> Dataset:
    """Return the problem as a dataset of 8 partitions in memory."""
    return as_dataset(*problem(), n_partitions=N_PARTITIONS, random_state=0)


def logistic(consistency: str = "bsp", n_features: int = N_FEATURES) -> LinearModel:
    """Return a binary model of the problem; more features than it has make a bigger model."""
    labels = (0.0, 1.0)
    eta, beta, alpha, l1_ratio = 0.1, 1.0, 1e-3, 0.0
    return LinearModel(
        *(n_features, labels, None, "adagrad", eta, beta, alpha, l1_ratio),
        fit_intercept=True,
        discount=consistency != "bsp",
    )


CONDUCTED = {"model": LBFGSModel(logistic(), None, 3), "clocks_per_pass": 1, "max_iter": 12}
"""A run whose model acts between clocks: each is one evaluation of L-BFGS."""


@dataclass
class Recorder:
    """A listener that keeps what it is told."""

    told: list[tuple[float, ev.Event | ev.Action]] = field(default_factory=list)

    def __call__(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        if not isinstance(told, ev.Tick):
            self.told.append((time.monotonic(), told))

    def of(self, kind: type) -> list[Any]:
        """Return what was told of one kind."""
        return [x for _, x in self.told if isinstance(x, kind)]

    def pause_after(self, moment: float) -> float:
        """Return the longest time without a finished task after `moment`, in seconds."""
        done = [t for t, x in self.told if isinstance(x, ev.TaskDone) and t > moment]
        return max(np.diff([moment, *done]), default=0.0)


@dataclass
class Once:
    """A listener that acts once, when `when` is true of what it is told."""

    when: Callable[[ev.Event | ev.Action, Coordinator], bool]
    act: Callable[[], object]
    at: float | None = None
    """When it acted."""

    def __call__(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        if self.at is None and self.when(told, coordinator):
            self.at = time.monotonic()
            self.act()


def at_clock(clock: int, act: Callable[[], object]) -> Once:
    """Return a listener that acts when every partition has finished `clock` clocks."""
    return Once(lambda told, c: c.min_clock >= clock, act)


def at(kind: type, act: Callable[[], object], *, nth: int = 1) -> Once:
    """Return a listener that acts when it is told the `nth` of a kind."""
    count = iter(range(1, 10**6))
    return Once(lambda told, _: isinstance(told, kind) and next(count) == nth, act)


def train(
    client: Client | None,
    consistency: str = "bsp",
    *listeners: Listener,
    dataset: Dataset | None = None,
    model: Model | None = None,
    collect: Kept | None = None,
    **options: Any,
) -> Outcome:
    """Train the problem on a cluster, or in this process."""
    wanted = {"max_iter": 5, "clocks_per_pass": 4, **options}
    run = RunOptions(consistency=consistency, listeners=listeners, **wanted)
    chosen = model or logistic(consistency)
    data = dataset or memory_dataset()
    return run_training(chosen, data, run, collect=collect, client=client)


@cache
def calm(consistency: str = "bsp", **options: Any) -> Outcome:
    """Return the same run in this process, which nothing disturbs."""
    return train(None, consistency, **options)


@cache
def calm_movers() -> Kept:
    """Return what the partitions of a model with state keep after a run that nothing disturbs."""
    kept = Kept()
    train(None, model=Movers(), collect=kept)
    return kept


@cache
def calm_loss(consistency: str, **options: Any) -> float:
    """Return the mean loss of some calm runs: with staleness they differ, by 0.1 % at most."""
    return statistics.mean(loss(train(None, consistency, **options)) for _ in range(6))


def off(outcome: Outcome, consistency: str, **options: Any) -> float:
    """Return by how many percent the loss differs from that of calm runs, with sign."""
    return 100 * (loss(outcome) / calm_loss(consistency, **options) - 1)


def bits(outcome: Outcome) -> bytes:
    """Return the parameters, to the bit."""
    return outcome.values[COEF][1].tobytes() + outcome.values[INTERCEPT][1].tobytes()


def loss(outcome: Outcome) -> float:
    """Return the mean log-loss of the parameters on rows that were not trained on."""
    X, y = problem(held_out=True)
    margins = X @ outcome.values[COEF][1][:N_FEATURES, 0].astype(np.float64)
    margins += float(outcome.values[INTERCEPT][1][0, 0])
    return float(np.mean(np.logaddexp(0, margins) - y * margins))


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process that `start_python` started, whatever happens."""
    try:
        yield process
    finally:
        stop_group(process)
