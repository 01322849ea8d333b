"""Linear models trained by L-BFGS, with L1 by OWL-QN: the tables, the step, and the turns.

A clock is one evaluation: each partition adds its rows' loss and gradient at the trial point, and
between clocks server functions judge it and set the next one. What they are told to do is decided
in `quasi_newton`, by scalars alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.data import Partition
from daskps.kernels import linear as kernel
from daskps.models import quasi_newton
from daskps.models.linear import COEF, INTERCEPT, LinearData, LinearModel
from daskps.run.events import Turn
from daskps.run.plan import ServerFunctions, StepServer
from daskps.server.functions import Block
from daskps.server.keys import KeySet
from daskps.server.tables import Placement, TableSpec
from daskps.server.updaters import Add, Total

TRIAL, GRADIENT, CURVATURE, MEMORY = "_trial", "_gradient", "_curvature", "_memory"
"""Endings of the names of tables beside that of the iterate, which has none."""

STIFFEST = {"log_loss": 0.25, "squared_hinge": 2.0, "squared": 1.0, "huber": 1.0}
"""Largest second derivative of each loss that has one."""


@dataclass(frozen=True, slots=True)
class LBFGSModel:
    """A linear model whose smooth loss, and L1 penalty, L-BFGS minimises.

    Parameters
    ----------
    linear
        The model, which says what is minimised; how its solver would step is not looked at.
    tol, patience
        Training is over when the last `patience` iterates together lowered the objective by less
        than `tol`; with None when rounding hides any gain.
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
        """Tables of weights and intercepts at the iterate."""
        return (COEF, INTERCEPT) if self.fit_intercept else (COEF,)

    def tables(self) -> tuple[TableSpec, ...]:
        """Return the tables of each block: iterate, trial point, gradient, curvature, memory."""
        found = []
        for name in self.results:
            n_rows = self.linear.n_features if name == COEF else 1
            memory = self.width * (2 + 2 * quasi_newton.N_PAIRS)
            found += [
                TableSpec(name, n_rows, self.width, Add()),
                TableSpec(name + TRIAL, n_rows, self.width, Add()),
                TableSpec(name + GRADIENT, n_rows, self.width, Total()),
                TableSpec(name + CURVATURE, n_rows, self.width, Add()),
                TableSpec(name + MEMORY, n_rows, memory, Add()),
            ]
        return tuple(found)

    def starting_at(
        self, values: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Return what the tables hold to start from weights and intercepts."""
        found = {t.name: np.zeros((t.n_rows, t.width), np.float32) for t in self.tables()}
        for name in self.results:
            found[name] = found[name + TRIAL] = values[name]
        return found

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> LinearData:
        """See `LinearModel.prepare`."""
        return self.linear.prepare(partition, placements)

    def step(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Push loss gradients at the trial point, and in the first clock also curvatures."""
        (w, b), seen = self._pull(data, TRIAL, server)
        loss, *gradients = kernel.gradient(self.linear.loss, data.rows, w, b)
        found = {GRADIENT: gradients}
        if seen == 0:
            stiffest = STIFFEST[self.linear.loss.name]
            squares = kernel.sums_of_squares(data.rows, len(w))
            # a class's weights share the squares: in scale they do not differ
            found[CURVATURE] = [
                np.repeat(stiffest * s[:, None], self.width, axis=1) for s in squares
            ]
        keysets: list[KeySet] = []
        deltas: list[NDArray[Any]] = []
        for ending, arrays in found.items():
            for keyset, array in zip(data.keysets, arrays, strict=False):
                keysets.append(replace(keyset, table=keyset.table + ending))
                shape = (len(keyset), 1, self.width)
                delta = server.scratch(f"push {len(deltas)}", shape, np.float32)
                delta[:, 0] = array
                deltas.append(delta)
        server.push(keysets, deltas, samples=data.n_rows)
        return {"loss": loss, "samples": float(data.n_rows)}

    def evaluate(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Return the sum of losses at the iterate."""
        (w, b), _ = self._pull(data, "", server)
        scores = kernel.decision(*data.rows[:3], w, b)
        loss = kernel.total_loss(self.linear.loss, scores, data.rows.y, data.rows.weight)
        return {"loss": loss, "samples": float(data.n_rows)}

    def _pull(
        self, data: LinearData, ending: str, server: StepServer
    ) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], float]:
        """Return weights (m, width) and intercept (width,), and the samples seen."""
        pulled, seen = server.pull([replace(k, table=k.table + ending) for k in data.keysets])
        b = pulled[1][0, 0] if self.fit_intercept else np.zeros(self.width, np.float32)
        return (pulled[0][:, 0], b), seen

    def take_turn(
        self, server: ServerFunctions, sums: Mapping[str, float], before: Mapping[str, Any] | None
    ) -> Turn:
        """Judge the trial point, and set the next one."""
        n = sums["samples"]
        blocks = [self._block(name) for name in self.results]
        m = quasi_newton.Products.of(
            server("lbfgs_measure", blocks=blocks, n=n, pairs=quasi_newton.N_PAIRS)
        )
        objective = sums["loss"] / n + m.penalty
        if before is None:
            search, move = quasi_newton.begin(objective, m)
        else:
            search, move = quasi_newton.go_on(
                quasi_newton.from_state(before), objective, m, self.tol, self.patience
            )
        server("lbfgs_move", blocks=blocks, n=n, **asdict(move))
        figures = {
            "objective": search.objective,
            "gradient_norm": math.sqrt(search.norm2),
            "accepted": float(move.accept),
        }
        return Turn(quasi_newton.to_state(search), figures, search.converged)

    def _block(self, name: str) -> Block:
        linear, penalised = self.linear, name == COEF
        l2 = linear.alpha * (1 - linear.l1_ratio) if penalised else 0.0
        l1 = linear.alpha * linear.l1_ratio if penalised else 0.0
        return Block(
            iterate=name,
            trial=name + TRIAL,
            gradient=name + GRADIENT,
            curvature=name + CURVATURE,
            memory=name + MEMORY,
            l2=l2,
            l1=l1,
        )
