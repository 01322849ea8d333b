"""Small trainings on the in-process engine, with trouble on demand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
from hypothesis import strategies as st

from daskps.data import Dataset, as_dataset
from daskps.models.linear import LinearData, LinearModel
from daskps.run import events as ev
from daskps.run.checkpoint import Checkpoints
from daskps.run.coordinator import Coordinator
from daskps.run.driver import drive
from daskps.run.inprocess import InProcessEngine
from daskps.run.ledger import Ledger
from daskps.run.plan import Conducted, Plan, StepServer
from daskps.run.policy import Policy
from daskps.server.messages import Stats
from daskps.server.spec import ServerSpec

PARTITIONS, FEATURES, ROWS = 3, 40, 300
CLOCKS_PER_PASS = 2
SHARDS = 3
"""Of trainings that lose some."""

Trouble = Callable[["TroubledEngine", int, ev.Action], None]


@functools.cache
def data() -> Dataset:
    """Return rows whose labels follow a planted model, with a hot first column."""
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array((ROWS, FEATURES), density=0.2, rng=rng, format="csr")
    X = scipy.sparse.csr_array(X + scipy.sparse.csr_array((X @ np.eye(FEATURES, 1)) > 2).toarray())
    w = rng.normal(size=FEATURES) * 3
    y = (X @ w + rng.normal(size=ROWS) > 0).astype(np.float64)
    return as_dataset(X.astype(np.float32), y, n_partitions=PARTITIONS)


def model(**changes: Any) -> LinearModel:
    base = LinearModel(
        n_features=FEATURES,
        classes=(0.0, 1.0),
        class_weight=None,
        solver="adagrad",
        eta=0.5,
        beta=1.0,
        alpha=1e-4,
        l1_ratio=0.0,
        fit_intercept=True,
        discount=False,
    )
    return replace(base, **changes)


class TroubledEngine(InProcessEngine):
    """Calls `trouble` before each action, with its number; and `at_recovery` in every recovery."""

    trouble: Trouble | None = None
    at_recovery: Sequence[tuple[int, ...]] = ()
    told: int = 0
    settled: bool = False
    """Whether training waits for checkpoints: clocks are so short here that cuts come late."""

    def settle(self) -> None:
        if self._writer is not None:
            self._writer.join(60)

    def execute(self, action: ev.Action, ledger: Ledger) -> None:
        if isinstance(action, ev.Launch) and self.settled:
            self.settle()
        if self.trouble is not None:
            self.trouble(self, self.told, action)
        self.told += 1
        super().execute(action, ledger)

    def stand_up(self, *args: Any) -> Any:
        answer = super().stand_up(*args)
        if self.at_recovery:
            lost, *self.at_recovery = self.at_recovery
            self.lose(*lost)
        return answer


@dataclass
class Result:
    values: dict[str, np.ndarray]
    coordinator: Coordinator
    actions: int
    stats: list[Stats]

    @property
    def bits(self) -> dict[str, bytes]:
        return {name: v.tobytes() for name, v in self.values.items()}

    @property
    def loss(self) -> float:
        return log_loss(self.values, data())


def log_loss(values: Mapping[str, np.ndarray], dataset: Dataset) -> float:
    """Return the mean log-loss of a binary model, in float64."""
    total = 0.0
    for i in range(dataset.n_partitions):
        part = dataset.partition(i)
        assert part.label is not None
        scores = part.to_scipy() @ values["coef"].astype(np.float64) + values["intercept"]
        total += float(np.logaddexp(0, np.where(part.label > 0, -1, 1) * scores[:, 0]).sum())
    return total / dataset.n_rows


def train(
    trained: Any = None,
    *,
    n_shards: int = 2,
    n_threads: int = 2,
    staleness: float = 0,
    passes: int = 3,
    checkpoint: str | None = None,
    every: int = 2,
    held_out: Dataset | None = None,
    trouble: Trouble | None = None,
    at_recovery: tuple[tuple[int, ...], ...] = (),
    settled: bool = False,
    clocks_per_pass: int = CLOCKS_PER_PASS,
    **policy: Any,
) -> Result:
    """Train as `run_training` does, on an engine that can be troubled."""
    trained = trained or model(discount=staleness > 0)
    dataset = data()
    spec = ServerSpec(trained.tables(), 16, PARTITIONS, staleness)
    rows = tuple(int(n) for n in dataset.partition_rows)
    plan = Plan("run", trained, spec, clocks_per_pass, rows)
    checkpoints = None if checkpoint is None else Checkpoints(checkpoint, repr(trained))
    settings = {
        "n_partitions": PARTITIONS,
        "n_shards": n_shards,
        "n_clocks": passes * clocks_per_pass,
        "clocks_per_pass": clocks_per_pass,
        "takes_turns": isinstance(trained, Conducted),
        "staleness": staleness,
        "checkpoint_clocks": None if checkpoint is None else every,
        "evaluate": held_out is not None,
        **policy,
    }
    engine = TroubledEngine(
        plan, dataset, held_out, n_shards=n_shards, n_threads=n_threads, checkpoints=checkpoints
    )
    engine.settled = settled
    engine.trouble, engine.at_recovery = trouble, list(at_recovery)
    try:
        engine.start(None, dict.fromkeys(range(PARTITIONS), 0))
        coordinator = Coordinator.start(Policy(**settings))
        drive(engine, coordinator)
        while (lost := engine.silent()) is not None:  # as `run_training`: the result went with it
            drive(engine, coordinator, lost=lost)
        values = {t.name: engine.values(t.name)[1] for t in spec.tables}
        return Result(values, coordinator, engine.told, list(engine.stats().values()))
    finally:
        engine.close()


class Wrapped:
    """A model whose step may be replaced."""

    def __init__(self, step: Callable[[Any, LinearData, StepServer], Any], **changes: Any) -> None:
        self.inner = model(**changes)
        self._step = step

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def step(self, rows: LinearData, server: StepServer) -> Any:
        return self._step(self.inner, rows, server)


def losses(first: int, last: int, most: int = 3) -> st.SearchStrategy[dict[int, tuple[int, ...]]]:
    """Draw which shards are lost before which actions, by their numbers."""
    shards = st.sets(st.integers(0, SHARDS - 1), min_size=1).map(tuple)
    return st.dictionaries(st.integers(first, last), shards, min_size=1, max_size=most)


def losing(moments: Mapping[int, tuple[int, ...]]) -> Trouble:
    """Return trouble that loses shards as of `losses`."""

    def trouble(engine: TroubledEngine, number: int, action: ev.Action) -> None:
        if number in moments:
            engine.lose(*moments[number])

    return trouble
