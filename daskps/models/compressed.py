"""Linear models by local steps that push fewer bytes, and lose nothing for good (error feedback).

Two ways. `CompressedModel` pushes changes of weights and sums of squares as bfloat16
(`daskps.server.short`); what that cuts off is kept with the partition and added to its next push of
the same rows: what the shards have been told of a partition differs from what it learnt by the last
rounding, at most 1/256 of the last push, and not by the sum of all. Responses stand for themselves
and are rounded only. `SparsifiedModel` pushes the rows that changed most, whole; changes of the
others wait with the partition, and its next steps on them begin where the last ones ended, so that
nothing is learnt twice while it waits. What waits is partition state: a cut holds it, and a step
that is repeated begins with the same. The intercept is pushed as it is.

References
----------
Seide, Fu, Droppo, Li and Yu (2014), "1-Bit Stochastic Gradient Descent and its Application to
Data-Parallel Distributed Training of Speech DNNs". Stich, Cordonnier and Jaggi (2018), "Sparsified
SGD with Memory", algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.data import Partition
from daskps.kernels import waiting
from daskps.models.linear import LinearData, LinearModel
from daskps.run.plan import StepServer
from daskps.server.messages import Arrays
from daskps.server.short import shorten, widen
from daskps.server.tables import Placement, TableSpec

FED_BACK = 2
"""Fields of a push that add up over clocks: force and sum of squares; the third is the response."""
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _FedBack:
    """What both ways share; BSP only.

    Parameters
    ----------
    linear
        The model.
    """

    linear: LinearModel

    @property
    def width(self) -> int:
        """Numbers a feature: one weight, or one for each class."""
        return self.linear.width

    @property
    def fit_intercept(self) -> bool:
        """Whether there is an unpenalised intercept."""
        return self.linear.fit_intercept

    def tables(self) -> tuple[TableSpec, ...]:
        """Return the tables of weights and intercepts."""
        return self.linear.tables()

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> LinearData:
        """See `LinearModel.prepare`."""
        return self.linear.prepare(partition, placements)

    def evaluate(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Return the sum of losses at the present weights."""
        return self.linear.evaluate(data, server)


@dataclass(frozen=True, slots=True)
class CompressedModel(_FedBack):
    """A linear model with shortened pushes; its `linear` has `short` set.

    Parameters
    ----------
    clocks_per_pass
        Of the run.
    """

    clocks_per_pass: int

    @property
    def keeps(self) -> tuple[str, ...]:
        """What was cut off the last push of each slice."""
        return tuple(f"rest {s}" for s in range(self.clocks_per_pass))

    def step(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Take local steps, and push what they changed and what the last push cut off."""
        data, deltas, figures = self.linear.learn(data, server)
        kept = server.state() or dict.fromkeys(
            self.keeps, np.zeros((0, FED_BACK, self.width), np.float32)
        )
        name = self.keeps[server.clock % self.clocks_per_pass]
        told = deltas[0]
        if len(kept[name]):
            told[:, :FED_BACK] += kept[name]
        short = shorten(told)
        server.keep({**kept, name: (told - widen(short))[:, :FED_BACK].copy()})
        server.push(data.keysets, [short, *deltas[1:]], samples=data.n_rows)
        return figures


@dataclass(frozen=True, slots=True)
class SparsifiedModel(_FedBack):
    """A linear model that pushes some rows.

    Parameters
    ----------
    share
        Of the rows of a slice, those whose values changed most; > 0 and < 1.
    """

    share: float

    @property
    def keeps(self) -> tuple[str, ...]:
        """Pushes that wait, and the rows that they are for, of all slices together."""
        return ("ids", "rest")

    def step(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Take local steps from where the last ones ended; push the rows that changed most."""
        coef, *others = data.keysets
        rest = _Waiting.of(server.state(), coef.ids(), self.width)
        pulled, seen = server.pull(data.keysets)
        T_end = seen + server.samples_together
        # as a shard would take it, but for the penalty, which the shard applies itself
        self.tables()[0].updater.commit(pulled[0], None, rest.mine, T_end, 0.0)
        deltas, figures = self.linear.steps(data, pulled, T_end, server)
        change = together(rest.mine, deltas[0])
        size = np.abs(change[:, 0] / (1 + change[:, 2])).sum(axis=1)
        chosen = largest(size, int(np.ceil(self.share * len(size))))
        server.keep(rest.after(change, ~chosen))
        told = [change[chosen], *deltas[1:]]
        server.push([coef.only(chosen), *others], told, samples=data.n_rows)
        return figures


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What waits in a partition, as one slice sees it."""

    kept: Arrays
    ids: NDArray[np.uint64]
    """Rows of the slice, ascending."""
    order: NDArray[np.intp] | None
    """Where they stand in the slice; None: in order."""
    mine: F32
    """Their pushes in the order of the slice, (m, 3, width); zero where nothing waits."""
    taken: NDArray[np.bool_]
    """Which of what is kept is theirs."""

    @classmethod
    def of(cls, kept: Arrays | None, ids: NDArray[np.uint64], width: int) -> _Waiting:
        if kept is None:
            nothing = np.empty((0, 3, width), np.float32)
            kept = {"ids": np.empty(0, np.uint64), "rest": nothing}
        order = None
        if not bool((ids[1:] > ids[:-1]).all()):  # keys stand by slots
            order = np.argsort(ids)
            ids = ids[order]
        found, taken = waiting.take(kept["ids"], _flat(kept["rest"]), ids)
        mine = found.reshape(-1, 3, width)
        if order is not None:
            mine = np.empty_like(mine)
            mine[order] = found.reshape(-1, 3, width)
        return cls(kept, ids, order, mine, taken)

    def after(self, change: F32, waits: NDArray[np.bool_]) -> Arrays:
        """Return what to keep when of `change` the rows that wait do."""
        waits = waits & change.any(axis=(1, 2))
        if self.order is not None:
            change, waits = change[self.order], waits[self.order]
        before = self.kept["ids"], _flat(self.kept["rest"]), self.taken
        ids, rest = waiting.put(*before, self.ids, _flat(change), waits)
        return {"ids": ids, "rest": rest.reshape(-1, *change.shape[1:])}


def _flat(rows: F32) -> F32:
    return rows.reshape(len(rows), rows.shape[1] * rows.shape[2])


def together(a: F32, b: F32) -> F32:
    """Return the push of two runs of steps one after another, each (m, 3, width)."""
    lam = a[:, 2] + b[:, 2]
    value = a[:, 0] / (1 + a[:, 2]) + b[:, 0] / (1 + b[:, 2])
    return np.stack([value * (1 + lam), a[:, 1] + b[:, 1], lam], axis=1)


def largest(size: NDArray[Any], k: int) -> NDArray[np.bool_]:
    """Return which of the numbers >= 0 are the `k` largest, the first of equal ones; never 0."""
    if k >= len(size):
        return np.asarray(size > 0)
    edge = np.partition(size, len(size) - k)[len(size) - k]
    chosen = np.asarray(size > edge)
    if edge > 0:
        chosen[np.flatnonzero(size == edge)[: k - np.count_nonzero(chosen)]] = True
    return chosen
