"""Matrix factorisation by alternating least squares, as the parameter server sees it.

Users are the state of partitions, each of which has all ratings of its users and solves for them
alone. An item's ratings are in many partitions, and their normal equations would be k^2 numbers an
item; so items are solved by conjugate gradients between clocks: partitions add up residuals or
products with a direction, k numbers an item, and server functions step (`Systems`). A pass is

====================  =====================================  =====================================
clock                 partitions                             then, on the shards
====================  =====================================  =====================================
0                     push residuals of items                begin
1 .. `cg_steps`       pull directions, push products         step; after the last, the Gram matrix
`cg_steps` + 1        pull items, solve for users            (implicit: the objective)
====================  =====================================  =====================================

With implicit feedback two Gram matrices stand for all pairs that never met: that of items is put
into a table of one row, that of users is pushed and fetched from one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.data import Partition
from daskps.kernels import mf
from daskps.models.mf_rebuilt import COLD_STEPS
from daskps.models.mf_sgd import ITEMS, USERS
from daskps.run.events import Turn
from daskps.run.plan import ServerFunctions, StepServer
from daskps.server.functions import Systems
from daskps.server.keys import KeySet, localise, whole_table
from daskps.server.messages import Arrays
from daskps.server.tables import Init, Placement, TableSpec
from daskps.server.updaters import Add, Total

F32 = NDArray[np.float32]

PUSHED, RESIDUAL, DIRECTION = "item_pushed", "item_residual", "item_direction"
GRAM_ITEMS, GRAM_USERS = "gram_items", "gram_users"


@dataclass(frozen=True, slots=True)
class ALSData:
    """A partition's ratings and the key sets of its items."""

    entries: mf.Entries
    """Values are ratings as distances from the mean, or weights of counts."""
    keysets: Mapping[str, KeySet]

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        items = self.keysets[ITEMS].__sizeof__()
        return self.entries.nbytes + items


@dataclass(frozen=True, slots=True)
class ALSFactors:
    """Factors, and biases of ratings, by alternating least squares.

    Parameters
    ----------
    n_items
        Columns.
    n_factors
        Numbers that make up a user or an item.
    biases
        Whether rows have a bias, which stands behind their factors.
    implicit
        Whether values are counts; else ratings.
    reg
        Penalty; of ratings once for each.
    confidence
        Weight of an event beside the 1 that every pair has.
    center
        What is subtracted from ratings.
    cg_steps
        Steps of conjugate gradients of a half.
    init_scale
        Standard deviation of an initial product of a user and an item, roughly.
    seed
        Of initial factors.
    tol, patience
        See `MatrixFactorization`: training is over when the last `patience` losses all missed the
        best before by `tol`.
    """

    n_items: int
    n_factors: int
    biases: bool
    implicit: bool
    reg: float
    confidence: float
    center: float
    cg_steps: int
    init_scale: float
    seed: int
    tol: float | None
    patience: int

    @property
    def keeps(self) -> tuple[str, ...]:
        """Names of what partitions keep."""
        return (USERS,)

    @property
    def results(self) -> tuple[str, ...]:
        """Tables that hold the result."""
        return (ITEMS,)

    @property
    def n_clocks(self) -> int:
        """Clocks of a pass."""
        return self.cg_steps + 2

    @property
    def width(self) -> int:
        """Numbers of a row: factors, and the bias."""
        return self.n_factors + self.biases

    @property
    def _padded(self) -> int:
        return mf.padded(self.width)

    @property
    def _deviation(self) -> float:
        return float(np.sqrt(self.init_scale) / self.n_factors**0.25)

    def tables(self) -> tuple[TableSpec, ...]:
        """Return the tables of items, of their systems, and with counts of Gram matrices."""
        n, w = self.n_items, self.width
        items = TableSpec(ITEMS, n, w, Add(), init=Init("normal", self._deviation, self.seed))
        # ratings also push how many an item has, which its penalty is multiplied by
        pushed = TableSpec(PUSHED, n, w if self.implicit else w + 1, Total())
        vectors = (TableSpec(name, n, w, Add()) for name in (RESIDUAL, DIRECTION))
        if not self.implicit:
            return items, pushed, *vectors
        grams = (TableSpec(GRAM_ITEMS, 1, w * w, Add()), TableSpec(GRAM_USERS, 1, w * w, Total()))
        return items, pushed, *vectors, *grams

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> ALSData:
        """Return the ratings of a partition in both orders in which they are visited."""
        columns = partition.indices.astype(np.uint32, copy=False)
        keyset, local = localise(placements[ITEMS], columns)
        ones = np.ones(partition.nnz, np.float32)
        values = ones if partition.values is None else partition.values
        values = values * np.float32(self.confidence) if self.implicit else values - self.center
        keysets = {t: KeySet(t, keyset.bounds, keyset.at) for t in (ITEMS, PUSHED, DIRECTION)}
        grams = (GRAM_ITEMS, GRAM_USERS) if self.implicit else ()
        keysets |= {t: whole_table(placements[t]) for t in grams}
        values = values.astype(np.float32, copy=False)
        return ALSData(mf.entries(partition.indptr, local, values, self._padded), keysets)

    def cut(
        self,
        partition: Partition,
        number: int,
        clocks_per_pass: int,
        placements: Mapping[str, Placement],
    ) -> Sequence[ALSData]:
        """Return all of a partition for every clock."""
        return [self.prepare(partition, placements)] * clocks_per_pass

    def step(self, data: ALSData, server: StepServer) -> Mapping[str, float]:
        """Add up what items need, or solve for users."""
        before = server.state()
        n_users = len(data.entries.indptr) - 1
        X = self._begin(n_users, server.partition) if before is None else before[USERS]
        clock = server.clock % self.n_clocks
        if clock <= self.cg_steps:
            return self._for_items(data, server, X, begin=clock == 0)
        return self._for_users(data, server, X)

    def user_rows(self, state: Arrays) -> tuple[F32, F32]:
        """Return factors and biases of users."""
        return self._parts(state[USERS])

    def item_rows(self, values: Mapping[str, NDArray[Any]]) -> tuple[F32, F32]:
        """Return factors and biases of items."""
        return self._parts(values[ITEMS])

    def _parts(self, rows: F32) -> tuple[F32, F32]:
        k = self.n_factors
        bias = rows[:, k].copy() if self.biases else np.zeros(len(rows), np.float32)
        return np.ascontiguousarray(rows[:, :k]), bias

    def item_tables(self, Q: F32, bias: F32) -> dict[str, F32]:
        """Return what tables hold of items that are known from another fit."""
        return {ITEMS: np.column_stack([Q, bias]) if self.biases else Q}

    def user_state(self, partition: int, P: F32, bias: F32, known: NDArray[np.bool_]) -> Arrays:
        """Return what a partition keeps of users of whom some are known from another fit."""
        X = self._begin(len(P), partition)
        X[known, : self.n_factors] = P[known]
        if self.biases:
            X[known, self.n_factors] = bias[known]
        return {USERS: X}

    def evaluate(self, data: ALSData, server: StepServer) -> Mapping[str, float]:
        """Return half the sum of squared errors over held-out ratings of a partition's users."""
        assert not self.implicit, "what did not happen is no rating to be held out"
        (pulled,), _ = server.pull([data.keysets[ITEMS]])
        V, of, kept = self._rows(pulled), data.entries, server.state()
        X = self._begin(len(of.indptr) - 1, server.partition) if kept is None else kept[USERS]
        Y, total = self._with_ones(V), 0.0
        for start in range(0, len(of.rows), 2**16):
            part = slice(start, start + 2**16)
            i = of.columns[part]
            e = of.ordered[part] - np.einsum("nk,nk->n", X[of.rows[part]], Y[i])
            if self.biases:
                e -= V[i, self.n_factors]
            total += float((e.astype(np.float64) ** 2).sum()) / 2
        return {"loss": total, "samples": float(len(of.items))}

    def _begin(self, n_users: int, partition: int) -> F32:
        X = mf.rows(n_users, self._padded)
        rng = np.random.default_rng([self.seed, 1, partition])
        shape = (len(X), self.n_factors)
        X[:, : self.n_factors] = rng.standard_normal(shape, np.float32) * self._deviation
        return X

    # -- items -------------------------------------------------------------------------------

    def _for_items(
        self, data: ALSData, server: StepServer, X: F32, *, begin: bool
    ) -> Mapping[str, float]:
        keyset = data.keysets[ITEMS if begin else DIRECTION]
        (pulled,), _ = server.pull([keyset])
        V, of = self._rows(pulled), data.entries
        out = mf.rows(*V.shape)
        weights = of.ordered if self.implicit else None
        targets = None
        if begin:
            targets = self._targets(of.ordered) if self.implicit else of.ordered
            if self.biases:
                targets = targets - X[of.rows, self.n_factors]
        mf.item_sums(of, weights, targets, self._with_ones(X), V, out)
        pushed = out[:, : self.width]
        if not self.implicit:
            counts = np.bincount(of.items, minlength=len(V)).astype(np.float32)
            pushed = np.column_stack([pushed, counts])
        keysets, deltas = [data.keysets[PUSHED]], [np.ascontiguousarray(pushed)[:, None]]
        if self.implicit and begin:
            keysets.append(data.keysets[GRAM_USERS])
            deltas.append(self._gram(X))
        if server.clock == 0:
            server.keep({USERS: X})
        server.push(keysets, deltas, samples=0.0)
        return {"loss": 0.0, "samples": 0.0}

    def _gram(self, X: F32) -> F32:
        own = X[:, : self.width]
        return np.ascontiguousarray((own.T @ own).reshape(1, 1, -1), np.float32)

    def _targets(self, weights: F32) -> F32:
        return np.where(weights > 0, 1 + weights, np.float32(0)).astype(np.float32)

    def _rows(self, pulled: NDArray[Any]) -> F32:
        rows = pulled[:, 0]
        if self.width == self._padded:
            return rows
        wide = mf.rows(len(rows), self._padded)
        wide[:, : self.width] = rows
        return wide

    def _with_ones(self, rows: F32) -> F32:
        """Return rows with 1 in place of the bias, which the other side's bias is multiplied by."""
        if not self.biases:
            return rows
        rows = rows.copy()
        rows[:, self.n_factors] = 1
        return rows

    # -- users -------------------------------------------------------------------------------

    def _for_users(self, data: ALSData, server: StepServer, before: F32) -> Mapping[str, float]:
        X = mf.rows(*before.shape)
        X[:] = before
        loss = self._solve(data, server, X, self.cg_steps)
        server.keep({USERS: X})
        if self.implicit:
            server.push([data.keysets[GRAM_USERS]], [self._gram(X)], samples=0.0)
        else:
            server.push([], [], samples=0.0)
        return {"loss": loss, "samples": float(len(data.entries.items))}

    def rebuild_state(self, data: Sequence[ALSData], server: StepServer) -> Arrays:
        """Return users that are solved for against the items: half a step, from zero."""
        n_users = len(data[0].entries.indptr) - 1
        if server.clock <= self.cg_steps:  # nobody was solved for yet
            return {USERS: self._begin(n_users, server.partition)}
        X = mf.rows(n_users, self._padded)
        self._solve(data[0], server, X, COLD_STEPS)
        return {USERS: X}

    def _solve(self, data: ALSData, server: StepServer, X: F32, steps: int) -> float:
        """Solve for users, from `X` on, which is changed; return what `mf.solve_users` does."""
        wanted = (ITEMS, GRAM_ITEMS) if self.implicit else (ITEMS,)
        (pulled, *grams), _ = server.pull([data.keysets[name] for name in wanted])
        V, of, gram = self._rows(pulled), data.entries, None
        targets = self._targets(of.values) if self.implicit else of.values
        if self.biases:
            targets = targets - V[of.items, self.n_factors]
        if self.implicit:
            gram = np.zeros((self._padded, self._padded), np.float32)
            gram[: self.width, : self.width] = grams[0].reshape(self.width, self.width)
        weights = of.values if self.implicit else None
        Y = self._with_ones(V)
        return mf.solve_users(of, weights, targets, Y, gram, self.reg, steps, X)

    # -- turns -------------------------------------------------------------------------------

    def take_turn(
        self, server: ServerFunctions, sums: Mapping[str, float], before: Mapping[str, Any] | None
    ) -> Turn:
        """Step the systems of items after each clock of theirs; measure at the end of a pass."""
        state = dict(before or {"clock": 0, "gram": [], "items": [], "losses": []})
        clock = state["clock"] % self.n_clocks
        state["clock"] += 1
        if clock > self.cg_steps:
            return self._pass_over(server, sums, state)
        if clock == 0 and self.implicit:
            state["gram"] = server("fetch", table=GRAM_USERS, width=self.width**2).tolist()
        side = self.width if self.implicit else 0
        common = np.array(state["gram"], np.float64).reshape(side, side)
        of = Systems(ITEMS, PUSHED, RESIDUAL, DIRECTION, self.reg)
        server("cg", of=of, common=common, begin=clock == 0)
        if clock == self.cg_steps and self.implicit:
            state["items"] = server("gram", table=ITEMS, columns=self.width).ravel().tolist()
            server("put", table=GRAM_ITEMS, row=np.array(state["items"]))
        return Turn(state, self._figures(state))

    def _pass_over(
        self, server: ServerFunctions, sums: Mapping[str, float], state: dict[str, Any]
    ) -> Turn:
        loss = sums["loss"]
        if self.implicit:  # what all pairs add that never met, and the penalty
            users = server("fetch", table=GRAM_USERS, width=self.width**2)
            items = np.array(state["items"])
            traces = users.reshape(self.width, -1).trace() + items.reshape(self.width, -1).trace()
            loss += float(users @ items) + self.reg * float(traces)
        state["losses"] = losses = [*state["losses"], loss / max(sums["samples"], 1.0)]
        stalled = False
        if self.tol is not None and len(losses) > self.patience:
            best = min(losses[: -self.patience])
            stalled = all(x > best - self.tol for x in losses[-self.patience :])
        return Turn(state, self._figures(state), converged=stalled)

    def _figures(self, state: Mapping[str, Any]) -> dict[str, float]:
        if not self.implicit:
            return {}
        return {"objective": state["losses"][-1] if state["losses"] else math.inf}
