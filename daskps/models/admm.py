"""Linear models by consensus ADMM: every partition solves a problem of its own, and they agree.

A clock is one round. A partition keeps weights w and scaled duals u for the features that it has,
as its state; the common weights z, with the penalty, are rows of the shards, whose updater takes
the proximal step. A coordinate's rho is ``c`` times the partition's own curvature there, an upper
bound of it: a partition has as much to say as it knows, one that does not have a feature takes no
part in it, and the scale of features does not matter. The common factor c adapts between clocks.

References
----------
Boyd, Parikh, Chu, Peleato and Eckstein (2011), "Distributed Optimization and Statistical Learning
via the Alternating Direction Method of Multipliers", sections 3.3, 3.4, 7.2 and 8.2. Wohlberg
(2017), "ADMM Penalty Parameter Selection by Residual Balancing", for relative residuals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import fmin_l_bfgs_b

from daskps.data import Partition
from daskps.kernels import linear as kernel
from daskps.models.lbfgs import STIFFEST
from daskps.models.linear import COEF, INTERCEPT, LinearData, LinearModel
from daskps.run.events import Turn
from daskps.run.plan import ServerFunctions, StepServer
from daskps.server.keys import KeySet, whole_table
from daskps.server.tables import Init, Placement, TableSpec
from daskps.server.updaters import Add, Consensus

F64 = NDArray[np.float64]

FACTOR = "_factor"
"""Table of one number, c."""
LOCAL_STEPS = 20
"""Iterations of a partition's own solver, which begins where it ended the last time."""
UNEQUAL, CHANGE = 3.0, 2.0
"""A residual that is so many times the other lets c change by so much (eq. 3.13); each is taken by
what it is a difference of, which also serves where a penalty is weak: without that a9a takes 100
rounds to 1e-4 of the objective, with it 27 to 53."""
RELAXED = 1.6
"""Over-relaxation (section 3.4.3)."""
LAST_CHANGE = 100
"""Rounds after which c stays, as convergence is proved for."""


@dataclass(frozen=True, slots=True)
class ADMMData:
    """Rows, and how much they curve each coordinate."""

    linear: LinearData
    curvature: F64
    """Largest second derivatives, summed over the rows, by key; the last is the intercept's."""
    factor: KeySet

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        own = int(self.curvature.nbytes) + self.factor.__sizeof__()
        return self.linear.__sizeof__() + own


@dataclass(frozen=True, slots=True)
class ADMMModel:
    """A linear model on whose weights the partitions agree.

    Parameters
    ----------
    linear
        The model, which says what is minimised; how its solver would step is not looked at.
    tol
        Training is over when the bound of eq. 3.11 on how far the objective is from its optimum,
        with the size of the weights for their distance, is below `tol`; None never ends it.
    patience
        Rounds in a row that must be so.
    """

    linear: LinearModel
    tol: float | None = field(repr=False)  # a resumed run may have another
    patience: int = field(repr=False)

    @property
    def width(self) -> int:
        """Numbers a feature: one weight, or one for each class."""
        return self.linear.width

    @property
    def fit_intercept(self) -> bool:
        """Whether there is an unpenalised intercept."""
        return self.linear.fit_intercept

    @property
    def results(self) -> tuple[str, ...]:
        """Tables of common weights and intercepts."""
        return (COEF, INTERCEPT) if self.fit_intercept else (COEF,)

    @property
    def keeps(self) -> tuple[str, ...]:
        """Own weights, their scaled duals, the common weights of the round, and its c."""
        return "weights", "duals", "common", "factor"

    def tables(self) -> tuple[TableSpec, ...]:
        """Return the tables of common weights and intercepts, and of c."""
        coef, *intercept = self.linear.tables()
        common = Consensus(alpha=self.linear.alpha, l1_ratio=self.linear.l1_ratio)
        found = [TableSpec(COEF, coef.n_rows, self.width, common, coef.keys)]
        found += [TableSpec(t.name, 1, self.width, Consensus()) for t in intercept]
        return (*found, TableSpec(FACTOR, 1, 1, Add(), init=Init(scale=1.0)))

    def starting_at(
        self, values: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Return what the tables hold to start from weights and intercepts."""
        return {**values, FACTOR: np.ones((1, 1), np.float32)}

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> ADMMData:
        """See `LinearModel.prepare`."""
        data = self.linear.prepare(partition, placements)
        squares, total = kernel.sums_of_squares(data.rows, len(data.keysets[0]))
        if self.fit_intercept:
            squares = np.append(squares, total)
        curvature = STIFFEST[self.linear.loss.name] * squares
        return ADMMData(data, curvature, whole_table(placements[FACTOR]))

    def step(self, data: ADMMData, server: StepServer) -> Mapping[str, float]:
        """Take the common weights in, solve the own problem from there, and tell the outcome."""
        *pulled, factor = server.pull([*data.linear.keysets, data.factor])[0]
        z, c = _joined(pulled), float(factor[0, 0, 0])
        n = float(server.samples_together)
        metric = data.curvature[:, None] / n
        loss, _ = self._loss(data, z)
        w, u, residuals = _met(server.state(), z, c, metric)
        w = _solve(lambda at: self._loss(data, at), w, z - u, c * metric, n)
        kept = server.keep(
            {
                "weights": w.astype(np.float32),
                "duals": u.astype(np.float32),
                "common": z.astype(np.float32),
                "factor": np.array([c]),
            }
        )
        rho = c * metric
        meant = RELAXED * kept["weights"] + (1 - RELAXED) * z + kept["duals"]
        told = np.stack([rho * meant, np.broadcast_to(rho, z.shape)])
        ends = np.cumsum([len(p) for p in pulled])[:-1]
        deltas = [
            part.transpose(1, 0, 2).astype(np.float32) for part in np.split(told, ends, axis=1)
        ]
        nothing = np.zeros((1, 1, 1), np.float32)
        server.push(
            [*data.linear.keysets, data.factor], [*deltas, nothing], samples=data.linear.n_rows
        )
        return {"loss": loss, "samples": float(data.linear.n_rows), **residuals}

    def evaluate(self, data: ADMMData, server: StepServer) -> Mapping[str, float]:
        """Return the sum of losses at the common weights."""
        z = _joined(server.pull(data.linear.keysets)[0])
        rows, m = data.linear.rows, len(data.linear.keysets[0])
        w, b = z[:m].astype(np.float32), self._intercept(z, m).astype(np.float32)
        scores = kernel.decision(*rows[:3], w, b)
        loss = kernel.total_loss(self.linear.loss, scores, rows.y, rows.weight)
        return {"loss": loss, "samples": float(data.linear.n_rows)}

    def _loss(self, data: ADMMData, at: F64) -> tuple[float, F64]:
        """Return the sum of losses and its gradient at weights with the intercept behind them."""
        m = len(data.linear.keysets[0])
        loss, g, g_b = kernel.gradient(
            self.linear.loss, data.linear.rows, at[:m], self._intercept(at, m)
        )
        return loss, np.concatenate([g, g_b[None]]) if self.fit_intercept else g

    def _intercept(self, at: F64, m: int) -> F64:
        return at[m] if self.fit_intercept else np.zeros(self.width)

    def take_turn(
        self, server: ServerFunctions, sums: Mapping[str, float], before: Mapping[str, Any] | None
    ) -> Turn:
        """Tell how far everybody is from agreeing, and adapt c."""
        linear = self.linear
        l2, l1 = linear.alpha * (1 - linear.l1_ratio), linear.alpha * linear.l1_ratio
        penalty = l2 / 2 * server("norm2", table=COEF) ** 2 + l1 * server("norm1", table=COEF)
        if before is None:  # nobody has had weights of his own: no residuals, no penalty of z
            start = {"factor": 1.0, "round": 1, "good": 0, "penalty": penalty}
            return Turn(start, {})
        primal, dual = math.sqrt(sums["primal"]), math.sqrt(sums["dual"])
        tension, size = math.sqrt(sums["tension"]), math.sqrt(sums["size"])
        gap = tension * primal + size * dual
        c, round_ = before["factor"], before["round"] + 1
        good = before["good"] + 1 if self.tol is not None and gap < self.tol else 0
        if round_ <= LAST_CHANGE:
            apart, moved = primal * tension, dual * size  # over size x tension, relative residuals
            if apart > UNEQUAL * moved:
                c *= CHANGE
            elif moved > UNEQUAL * apart:
                c /= CHANGE
        server("fill", table=FACTOR, value=c)
        figures = {
            "objective": sums["loss"] / sums["samples"] + before["penalty"],
            "primal_residual": primal,
            "dual_residual": dual,
            "gap": gap,
            "rho": before["factor"],
        }
        state = {"factor": c, "round": round_, "good": good, "penalty": penalty}
        return Turn(state, figures, good >= self.patience)


def _joined(pulled: list[NDArray[Any]]) -> F64:
    """Return the values of all tables as one array, (rows, width)."""
    return np.concatenate([p[:, 0] for p in pulled]).astype(np.float64)


def _met(
    state: Mapping[str, NDArray[Any]] | None, z: F64, c: float, metric: F64
) -> tuple[F64, F64, dict[str, float]]:
    """Return own weights, updated duals (eq. 7.6) and squared residuals, in units of the loss.

    Residuals are measured in the metric of the curvature, in which rho is c everywhere.
    """
    if state is None:
        nothing = dict.fromkeys(("primal", "dual", "tension", "size"), 0.0)
        return z, np.zeros_like(z), nothing
    w, before = (state[name].astype(np.float64) for name in ("weights", "common"))
    then = float(state["factor"][0])
    relaxed = RELAXED * w + (1 - RELAXED) * before
    u = (state["duals"] + relaxed - z) * (then / c)
    change = z - before
    return (
        w,
        u,
        {
            "primal": float((metric * (w - z) ** 2).sum()),
            "dual": float((metric * (then * change) ** 2).sum()),
            "tension": float((metric * (c * u) ** 2).sum()),
            "size": float((metric * np.maximum(z**2, w**2)).sum()),
        },
    )


def _solve(loss: Any, w: F64, target: F64, rho: F64, n: float) -> F64:
    """Minimise the own loss / n + rho / 2 ||w - target||^2, from `w` on (eq. 7.5)."""
    some = rho > 0
    scale = np.divide(1.0, np.sqrt(rho), out=np.zeros_like(rho), where=some)

    def f(v: F64) -> tuple[float, F64]:
        v = v.reshape(w.shape)
        total, gradient = loss(target + scale * v)
        return total / n + float((v * v).sum()) / 2, (scale * gradient / n + v).ravel()

    start = np.sqrt(rho) * (w - target)
    best, *_ = fmin_l_bfgs_b(f, start.ravel(), m=5, maxiter=LOCAL_STEPS, pgtol=0.0, factr=10.0)
    solved: F64 = target + scale * np.asarray(best).reshape(w.shape)
    return solved
