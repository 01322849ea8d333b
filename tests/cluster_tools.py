"""A small problem to train on clusters of processes that may be killed, and what to compare."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import scipy.sparse as sp
from distributed import Client, Event, Future
from movers import Kept, Movers
from numpy.typing import NDArray

from daskps.data import Dataset, as_dataset
from daskps.models.lbfgs import LBFGSModel
from daskps.models.linear import COEF, INTERCEPT, LinearModel
from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.dask_hub import shard_key
from daskps.run.driver import Listener
from daskps.run.host import ShardHost
from daskps.run.launch import Outcome, RunOptions, run_training
from daskps.run.plan import Model
from daskps.server.spec import ServerSpec
from daskps.server.tables import TableSpec
from daskps.server.updaters import Add
from daskps.testing.farm import (
    Farm,
    assert_clean,
    has_shard,
    left_behind,
    start_worker,
    wait_until,
)
from daskps.testing.nursery import start_python, stop_group

__all__ = [
    "Farm",
    "assert_clean",
    "has_shard",
    "left_behind",
    "start_python",
    "start_worker",
    "stop_group",
    "wait_until",
]

Problem = tuple[sp.csr_array, NDArray[np.float64]]

N_FEATURES = 500
N_PARTITIONS = 8
PATIENCE = 30.0
"""Seconds that anything that must happen may take."""


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
    held_out: Dataset | None = None,
    model: Model | None = None,
    collect: Kept | None = None,
    **options: Any,
) -> Outcome:
    """Train the problem on a cluster, or in this process."""
    wanted = {"max_iter": 5, "clocks_per_pass": 4, **options}
    run = RunOptions(consistency=consistency, listeners=listeners, **wanted)
    chosen = model or logistic(consistency)
    data = dataset or memory_dataset()
    return run_training(chosen, data, run, held_out=held_out, collect=collect, client=client)


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


# -- shards without a run --------------------------------------------------------------------------


def spec(n_rows: int = 4) -> ServerSpec:
    return ServerSpec((TableSpec("t", n_rows, 1, Add("float32")),), 1, 1, 0)


def make_shard(client: Client, incarnation: int = 0, **where: Any) -> Future[Any]:
    """Submit a shard as the engine does."""
    key = shard_key("test", 0, incarnation)
    args = (0, incarnation, spec(), [0], 1)
    return client.submit(ShardHost, *args, actor=True, key=key, **where)


def block(name: str) -> None:
    """Task: keep a thread busy until the event is set."""
    Event(name).wait(30)
