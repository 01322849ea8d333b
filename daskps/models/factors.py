"""Factorisation machines as the parameter server sees them: a linear model and a table of factors.

The linear part, its tables and its data are those of `linear`; the factors of a key stand at the
same position of their table as its weight, so one key set serves both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.data import Partition
from daskps.kernels import fm
from daskps.kernels import linear as kernel
from daskps.models.admission import COUNTS, in_model
from daskps.models.linear import LinearData, LinearModel
from daskps.run.plan import StepServer
from daskps.server.tables import Init, Placement, TableSpec
from daskps.server.updaters import AdaGrad

FACTORS = "factors"
FACTOR_PACE = 1 / 3
"""Step of a factor over that of a weight: pairs make as many terms again, of both signs."""


@dataclass(frozen=True, slots=True)
class FactorModel:
    """A second-order factorisation machine by local steps of AdaGrad.

    Parameters
    ----------
    linear
        Weights and intercept, of one margin; solver ``adagrad``, L2.
    n_factors
        Numbers that make up a feature's factors.
    factor_alpha
        Penalty of the factors.
    init_scale
        Standard deviation of the initial factors.
    seed
        Of the initial factors.
    """

    linear: LinearModel
    n_factors: int
    factor_alpha: float
    init_scale: float
    seed: int

    @property
    def eta(self) -> float:
        """Step size of weights."""
        return self.linear.eta

    @property
    def beta(self) -> float:
        """What is added to the root of the sum of squared gradients."""
        return self.linear.beta

    @property
    def factor_rule(self) -> kernel.Rule:
        """How the kernels step factors."""
        return kernel.Rule(False, FACTOR_PACE * self.eta, self.beta)

    @property
    def _rules(self) -> tuple[kernel.Rule, ...]:
        return self.linear.rule, self.factor_rule, self.linear.rule.unpenalised()

    def tables(self) -> tuple[TableSpec, ...]:
        """Return the tables of weights, factors and intercept, and of counts if there is one."""
        coef, *others = self.linear.tables()
        updater = AdaGrad(
            discount=self.linear.discount,
            eta=self.factor_rule.eta,
            beta=self.beta,
            alpha=self.factor_alpha,
        )
        init = Init(kind="normal", scale=self.init_scale, seed=self.seed)
        factors = TableSpec(FACTORS, coef.n_rows, self.n_factors, updater, coef.keys, init)
        return coef, factors, *others

    @property
    def results(self) -> tuple[str, ...]:
        """Tables of weights, factors and intercept."""
        return tuple(t.name for t in self.tables() if t.name != COUNTS)

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> LinearData:
        """Rewrite indices to positions in the key set, for weights and factors alike."""
        data = self.linear.prepare(partition, placements)
        coef, *intercept = data.keysets
        factors = dataclasses.replace(coef, table=FACTORS)
        return dataclasses.replace(data, keysets=(coef, factors, *intercept))

    def step(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Take local steps over the rows on a snapshot and push what they changed."""
        data, pulled, _ = data.pull(server)
        states = self._begin(pulled, server)
        state, factors, bias = states
        loss = fm.train(
            *(self.linear.rule, self.factor_rule, data.rows, 0, data.n_rows, state, factors, bias),
            loss=self.linear.loss,
            fit_intercept=self.linear.fit_intercept,
        )
        deltas: list[NDArray[Any]] = []
        for rule, p, state in zip(self._rules, pulled, states, strict=False):
            shape = (len(p), 3 if server.sync else 5, p.shape[2])
            deltas.append(server.scratch(f"push {len(deltas)}", shape, np.float32))
            kernel.end(rule, p, state, 0.0, deltas[-1])
        data.push(deltas, server)
        return {"loss": loss, "samples": float(data.n_rows)}

    def evaluate(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Return the sum of losses at the present parameters."""
        pulled, _ = server.pull(data.keysets)
        if data.keysets[0].hashed:  # the factors of features that nobody learnt say nothing
            data, pulled = data.only(in_model(pulled[0]), pulled)
        w, V = (np.ascontiguousarray(rows[:, 0]) for rows in pulled[:2])
        b = float(pulled[2][0, 0, 0]) if self.linear.fit_intercept else 0.0
        scores = fm.decision(*data.rows[:3], w[:, 0], V, b)
        loss = kernel.total_loss(self.linear.loss, scores, data.rows.y, data.rows.weight)
        return {"loss": loss, "samples": float(data.n_rows)}

    def _begin(self, pulled: list[NDArray[Any]], server: StepServer) -> list[NDArray[np.float32]]:
        """Return working states of weights, factors and intercept, which may be nobody's."""
        states: list[NDArray[np.float32]] = []
        for rule, rows in zip(self._rules, pulled, strict=False):
            shape = (len(rows), kernel.STATE_FIELDS, rows.shape[2])
            states.append(server.scratch(f"state {len(states)}", shape, np.float32))
            kernel.begin(rule, rows, 0.0, states[-1])
        if not self.linear.fit_intercept:
            states.append(np.zeros((1, kernel.STATE_FIELDS, 1), np.float32))
        return states


@dataclass(frozen=True, slots=True)
class FactorScore:
    """Margins of a factorisation machine."""

    w: NDArray[np.float32]
    """Shape (n_features,)."""
    V: NDArray[np.float32]
    """Shape (n_features, n_factors), C-contiguous."""
    intercept: float

    def __call__(self, part: Partition) -> NDArray[np.float64]:
        """Return the margins of the rows of `part`, shape (n_rows, 1).

        The intercept is added in float64, where it may be far from 0 beside how rows vary.
        """
        indices = part.indices.astype(np.uint32, copy=False)  # below the number of rows of w
        margin = fm.decision(part.indptr, indices, part.values, self.w, self.V, 0.0)
        return margin.astype(np.float64) + self.intercept

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        return int(self.w.nbytes + self.V.nbytes)
