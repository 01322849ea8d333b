"""Linear models by local steps that end at the optimum: after some passes, steps without noise.

The first passes are those of `LinearModel`, to the bit. Their steps end near the optimum: the noise
of single rows decays with the root of the passes, and what concurrent partitions learnt is merged
by a rule that is exact only where features do not go together. From pass `AFTER` on, passes come in
pairs. In the first of a pair nobody moves: partitions keep each row's slope and push what it
changes in the gradient of all. In the second they take steps from there that are zero at the
optimum (`daskps.kernels.refine`), and the barrier averages, by the rows that have a feature, where
they came to. Whatever the average, its fixed point is the optimum: with local problems instead of
passes this is DANE.

References
----------
Johnson and Zhang (2013), "Accelerating Stochastic Gradient Descent using Predictive Variance
Reduction". Shamir, Srebro and Zhang (2014), "Communication-Efficient Distributed Optimization
using an Approximate Newton-type Method".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.data import Dataset, Partition
from daskps.kernels import refine
from daskps.models.lbfgs import STIFFEST
from daskps.models.linear import COEF, INTERCEPT, LinearData, LinearModel
from daskps.run.launch import RunOptions
from daskps.run.plan import StepServer
from daskps.run.state import State
from daskps.server.keys import KeySet
from daskps.server.tables import Placement, TableSpec
from daskps.server.updaters import Add

AFTER = 10
"""Passes of plain local steps; also the default of `max_iter`."""
ANCHOR = "_anchor"
"""Ending of the tables of gradients at the anchor, with the rows that have a feature behind."""
F64 = NDArray[np.float64]


def pace_of(n_partitions: int) -> float:
    """Return how far a row may move its margin: an average over partitions goes less far."""
    return float(min(1.0, 0.25 * n_partitions**0.5))


@dataclass(frozen=True, slots=True)
class RefinedModel:
    """A linear model by local steps, refined after some passes; BSP only.

    Parameters
    ----------
    linear
        The model, with `refined_after` set.
    clocks_per_pass
        Of the run.
    n_rows, n_partitions
        Of the training data.
    after
        Passes before the first pair.
    """

    linear: LinearModel
    clocks_per_pass: int
    n_rows: int
    n_partitions: int
    after: int = AFTER

    @property
    def width(self) -> int:
        """Numbers a feature: one weight, or one for each class."""
        return self.linear.width

    @property
    def fit_intercept(self) -> bool:
        """Whether there is an unpenalised intercept."""
        return self.linear.fit_intercept

    @property
    def earlier(self) -> LinearModel:
        """The model of a run that ends before the first pair: its cuts are good to go on from."""
        return replace(self.linear, refined_after=None)

    @property
    def results(self) -> tuple[str, ...]:
        """Tables of weights and intercepts."""
        return (COEF, INTERCEPT) if self.fit_intercept else (COEF,)

    @property
    def keeps(self) -> tuple[str, ...]:
        """Slopes of the rows of each slice."""
        return tuple(f"slopes {s}" for s in range(self.clocks_per_pass))

    def tables(self) -> tuple[TableSpec, ...]:
        """Return the tables of weights and intercepts, and of their anchors."""
        found = self.linear.tables()
        anchors = [
            TableSpec(t.name + ANCHOR, t.n_rows, self.width + 1, Add(), t.keys) for t in found
        ]
        return (*found, *anchors)

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> LinearData:
        """See `LinearModel.prepare`."""
        return self.linear.prepare(partition, placements)

    def step(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Take local steps, or measure at an anchor, or take steps from it."""
        number = server.clock // self.clocks_per_pass - self.after
        if number < 0:
            return self.linear.step(data, server)
        return self._refine(data, server) if number % 2 else self._measure(data, server)

    def evaluate(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Return the sum of losses at the present weights."""
        return self.linear.evaluate(data, server)

    def _measure(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Keep each row's slope, and push how that changes the gradient of all rows."""
        w, b = self._weights(data, server.pull(data.keysets), server)
        loss, slopes = refine.slopes(self.linear.loss, data.rows, w, b)
        name = self._name(server)
        kept = server.state() or {n: np.zeros((0, self.width), np.float32) for n in self.keeps}
        first = len(kept[name]) == 0
        change = slopes.astype(np.float64)
        if not first:
            change -= kept[name]
        server.keep({**kept, name: slopes})
        m, counts = len(w), np.zeros(len(w))
        if first:
            counts = refine.visits(data.rows, m)
        told = [np.column_stack([refine.add_up(data.rows, change, m), counts])]
        if self.fit_intercept:
            told.append(np.append(change.sum(axis=0), float(first) * data.n_rows)[None])
        deltas = [x[:, None].astype(np.float32) for x in told]
        server.push(_anchored(data.keysets), deltas, samples=data.n_rows)
        return {"loss": loss, "samples": float(data.n_rows)}

    def _refine(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Take steps from the common weights, and push where they led."""
        pulled, seen = server.pull([*data.keysets, *_anchored(data.keysets)])
        w, b = self._weights(data, (pulled[: len(data.keysets)], seen), server)
        known = [p[:, 0].astype(np.float64) for p in pulled[len(data.keysets) :]]
        of_intercept = known[1][0, :-1] if self.fit_intercept else np.zeros(self.width)
        anchor = refine.Anchor(known[0][:, :-1], known[0][:, -1], of_intercept, self.n_rows)
        state = server.state()
        assert state is not None, server.clock  # the pass before kept it
        rule = self.linear.rule
        before = [w.copy(), b.copy()]
        loss = refine.train(
            *(self.linear.loss, data.rows, w, b, state[self._name(server)], anchor),
            (rule.alpha2 * self.n_rows, rule.alpha1 * self.n_rows),
            pace_of(self.n_partitions),
            STIFFEST[self.linear.loss.name],
            fit_intercept=self.fit_intercept,
        )
        weights = [refine.visits(data.rows, len(w)), np.full(1, float(data.n_rows))]
        deltas: list[NDArray[Any]] = []
        for keyset, now, then, n in zip(data.keysets, (w, b[None]), before, weights, strict=False):
            delta = np.zeros((len(keyset), 3, self.width), np.float32)
            delta[:, 0], delta[:, 2] = n[:, None] * (now - then), n[:, None]
            deltas.append(delta)
        server.push(data.keysets, deltas, samples=data.n_rows)
        return {"loss": loss, "samples": float(data.n_rows)}

    def _weights(
        self, data: LinearData, found: tuple[list[NDArray[Any]], float], server: StepServer
    ) -> tuple[F64, F64]:
        w, b = self.linear.weights(*found, server)
        return w.astype(np.float64), b.astype(np.float64)

    def _name(self, server: StepServer) -> str:
        return self.keeps[server.clock % self.clocks_per_pass]


def _anchored(keysets: tuple[KeySet, ...]) -> list[KeySet]:
    return [replace(k, table=k.table + ANCHOR) for k in keysets]


def refine_later(
    linear: LinearModel, start: State | None, dataset: Dataset, options: RunOptions
) -> tuple[LinearModel | RefinedModel, State | None]:
    """Return the model to train and its start: refined after `AFTER` passes, where that can be.

    It cannot in a run that is over by then, where partitions do not wait for each other, of a loss
    that has a kink, and where features come and go by admission.
    """
    able = linear.loss.name in STIFFEST and linear.admission == 1
    if options.max_iter <= AFTER or options.consistency != "bsp" or not able:
        return linear, start
    n_rows = dataset.n_rows
    seen = 0.0 if start is None else start.samples
    later = replace(linear, refined_after=seen + AFTER * n_rows)
    model = RefinedModel(later, options.clocks_per_pass, n_rows, dataset.n_partitions)
    if start is not None:
        anchors = {
            name + ANCHOR: {
                slot: (keys, np.zeros((len(rows), 1, linear.width + 1), np.float32))
                for slot, (keys, rows) in slots.items()
            }
            for name, slots in start.tables.items()
        }
        start = State(seen, {**start.tables, **anchors})
    return model, start


def without_anchors(state: State, model: Any) -> State:
    """Return what the shards held at the end of `model`'s run as the start of another run."""
    if not isinstance(model, RefinedModel):
        return state
    after = model.linear.refined_after
    assert after is not None, model
    tables = {name: state.tables[name] for name in model.results}
    return State(min(state.samples, after), tables)  # later samples have made no penalty grow
