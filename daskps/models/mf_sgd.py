"""Explicit matrix factorisation by SGD, as the parameter server sees it.

Items are the tables, users the state of partitions. A pass has a clock for each block of items;
at clock s partition p visits block (p + s) modulo the number of blocks, so that at a barrier (BSP)
no two tasks ever hold the same item: nothing conflicts, and a task pulls one block only. Without
a barrier (SSP, ASP) blocks are cut in the same way, tasks may meet, and what they push is merged
on arrival by the rule of docs/explanation/merging.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.data import Partition
from daskps.errors import Diverged
from daskps.kernels import mf
from daskps.models.mf_rebuilt import AgainstItems
from daskps.run.plan import StepServer
from daskps.server.keys import KeySet, localise
from daskps.server.messages import Arrays
from daskps.server.tables import Init, Placement, TableSpec
from daskps.server.updaters import SGD, Add

F32 = NDArray[np.float32]

ITEMS, ITEM_BIAS, ITEM_SUMS = "item_factors", "item_bias", "item_sums"
USERS, BESIDE = "user_factors", "user_side"

GROWTH = 1e4
"""A fit whose mean squared error is this many times the variance of the ratings has diverged."""


@dataclass(frozen=True, slots=True)
class BlockData:
    """The ratings of a partition's users for one block of items; items are positions in keysets."""

    ratings: mf.Block
    n_users: int
    keysets: tuple[KeySet, ...]

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        arrays = (self.ratings.users, self.ratings.items, self.ratings.ratings)
        return sum(a.nbytes for a in arrays) + self.keysets[0].__sizeof__()


@dataclass(frozen=True, slots=True)
class SGDFactors:
    """Factors and biases by stochastic gradient descent.

    Ratings are learnt as distances from `center` in units of `unit`, which makes steps and the
    initial factors fit any scale; penalties are meant in the ratings' own.

    Parameters
    ----------
    n_items
        Columns.
    n_factors
        Numbers that make up a user or an item.
    biases
        Whether users and items have biases.
    eta
        Step size in the first pass; it falls to a tenth, linearly, in the last.
    reg
        Penalty, see `daskps.kernels.mf`.
    center, unit
        Mean and standard deviation of the ratings.
    n_passes
        Passes to come.
    n_blocks
        Blocks of items, as many as there are clocks in a pass, and at least as many as partitions.
    discount
        Whether pushes are merged on arrival (SSP, ASP).
    init_scale
        Standard deviation of an initial product of a user and an item, roughly, in units.
    seed
        Of initial factors and of the order of visits.
    warm
        Whether the run goes on from the factors of another: then all of them learn at once.
    """

    n_items: int
    n_factors: int
    biases: bool
    eta: float
    reg: float
    center: float
    unit: float
    n_passes: int
    n_blocks: int
    discount: bool
    init_scale: float
    seed: int
    warm: bool = False

    @property
    def n_clocks(self) -> int:
        """Clocks of a pass."""
        return self.n_blocks

    @property
    def keeps(self) -> tuple[str, ...]:
        """Names of what partitions keep."""
        return USERS, BESIDE

    def tables(self) -> tuple[TableSpec, ...]:
        """Return the tables of items."""
        updater = SGD(discount=True) if self.discount else Add()
        init = Init("normal", self._deviation, self.seed)
        factors = TableSpec(ITEMS, self.n_items, self.n_factors, updater, init=init)
        sums = TableSpec(ITEM_SUMS, self.n_items, mf.N_SIDE - 1, Add(), init=Init(scale=1.0))
        if not self.biases:
            return factors, sums
        return factors, sums, TableSpec(ITEM_BIAS, self.n_items, 1, updater)

    @property
    def _deviation(self) -> float:
        # the product of two such rows of k numbers has the variance k s^4
        return float(math.sqrt(self.init_scale) / self.n_factors**0.25)

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> BlockData:
        """Return all ratings of a partition as one block, in any order."""
        (block,) = self._blocks(partition, 1)
        keyset, local = localise(placements[ITEMS], block.items)
        keysets = tuple(replace(keyset, table=t.name) for t in self.tables())
        return BlockData(replace(block, items=local), partition.n_rows, keysets)

    def cut(
        self,
        partition: Partition,
        number: int,
        clocks_per_pass: int,
        placements: Mapping[str, Placement],
    ) -> Sequence[BlockData]:
        """Return the blocks of items in the order in which this partition visits them."""
        seed = int(np.random.SeedSequence([self.seed, 2, number]).generate_state(1)[0])
        blocks = self._blocks(partition, clocks_per_pass)
        order = [(number + s) % clocks_per_pass for s in range(clocks_per_pass)]
        return [self._located(blocks[b], partition.n_rows, placements, seed + b) for b in order]

    def _blocks(self, partition: Partition, n: int) -> list[mf.Block]:
        columns = partition.indices.astype(np.uint32, copy=False)
        arrays = (partition.indptr, columns, partition.values)
        return mf.blocks(*arrays, n, center=self.center, unit=self.unit)

    def _located(
        self, block: mf.Block, n_users: int, places: Mapping[str, Placement], seed: int
    ) -> BlockData:
        # no item of another block: what happens to it in another task must not happen here too
        keyset, local = localise(places[ITEMS], block.items, exact=self.n_blocks > 1)
        keysets = tuple(replace(keyset, table=t.name) for t in self.tables())
        visits = mf.in_order(block, local, mf.padded(self.n_factors), seed)
        return BlockData(visits, n_users, keysets)

    def step(self, data: BlockData, server: StepServer) -> Mapping[str, float]:
        """Visit the ratings of a block; keep the users, push what changed of the items."""
        before = server.state() or self._begin(data.n_users, server.partition)
        pulled, _ = server.pull(data.keysets)
        Q, side = self._items(pulled, server)
        P, beside = mf.rows(*before[USERS].shape), before[BESIDE].copy()
        P[:] = before[USERS]
        number, slice_ = divmod(server.clock, self.n_blocks)
        if number and not slice_:  # at a barrier every item is in one task's hands
            mf.forget(beside)
            mf.forget(side)
        response = np.zeros((len(Q), 2), np.float32) if self.discount else None
        squares = mf.sgd(
            *(data.ratings, self._rule(number), P, Q, beside, side),
            all_factors=number > 0 or self.n_passes == 1 or self.warm,
            response=response,
        )
        n = len(data.ratings.ratings)
        self._check(squares, n, server)
        server.keep({USERS: P, BESIDE: beside})
        server.push(data.keysets, self._deltas(pulled, Q, side, response), samples=n)
        return {"loss": squares / 2 * self.unit**2, "samples": float(n)}

    def rebuild_state(self, data: Sequence[BlockData], server: StepServer) -> Arrays:
        """Return users that are solved for against the items: half a step of least squares."""

        def items(block: int) -> tuple[F32, F32]:
            return self._items(server.pull(data[block].keysets)[0], server)

        ratings, rule = [block.ratings for block in data], self._rule(0)
        P, beside = AgainstItems(ratings, data[0].n_users, items, rule).users()
        return {USERS: P, BESIDE: beside}

    def user_rows(self, state: Arrays) -> tuple[F32, F32]:
        """Return factors and biases of users in the unit of the ratings."""
        root = np.float32(math.sqrt(self.unit))
        bias = state[BESIDE][:, mf.BIAS] * np.float32(self.unit)
        return state[USERS][:, : self.n_factors] * root, bias

    def item_rows(self, values: Mapping[str, NDArray[Any]]) -> tuple[F32, F32]:
        """Return factors and biases of items in the unit of the ratings."""
        bias = values[ITEM_BIAS][:, 0] if self.biases else np.zeros(self.n_items, np.float32)
        root = np.float32(math.sqrt(self.unit))
        return values[ITEMS] * root, bias * np.float32(self.unit)

    def item_tables(self, Q: F32, bias: F32) -> dict[str, F32]:
        """Return what tables hold of items that are known from another fit."""
        found = {ITEMS: Q / np.float32(math.sqrt(self.unit))}
        return found | ({ITEM_BIAS: bias[:, None] / np.float32(self.unit)} if self.biases else {})

    def user_state(self, partition: int, P: F32, bias: F32, known: NDArray[np.bool_]) -> Arrays:
        """Return what a partition keeps of users of whom some are known from another fit."""
        state = self._begin(len(P), partition)
        state[USERS][known, : self.n_factors] = P[known] / np.float32(math.sqrt(self.unit))
        if self.biases:
            state[BESIDE][known, mf.BIAS] = bias[known] / np.float32(self.unit)
        return state

    def evaluate(self, data: BlockData, server: StepServer) -> Mapping[str, float]:
        """Return half the sum of squared errors over held-out ratings of a partition's users."""
        pulled, _ = server.pull(data.keysets)
        kept = server.state() or self._begin(data.n_users, server.partition)
        Q, side = self._items(pulled, server)
        squares = mf.squares(data.ratings, kept[USERS], Q, kept[BESIDE], side)
        return {"loss": squares / 2 * self.unit**2, "samples": float(len(data.ratings.ratings))}

    def _rule(self, number: int) -> mf.Rule:
        eta = self.eta * (1 - 0.9 * number / max(1, self.n_passes - 1))
        # with ratings in units, a bias is as much shorter, a factor by the root of that
        return mf.Rule(self.n_factors, eta, self.reg / self.unit, self.reg, self.biases)

    def _begin(self, n_users: int, partition: int) -> Arrays:
        """Return the users of a partition before the first step."""
        P = mf.rows(n_users, mf.padded(self.n_factors))
        rng = np.random.default_rng([self.seed, 1, partition])
        shape = (n_users, self.n_factors)
        P[:, : self.n_factors] = rng.standard_normal(shape, np.float32) * self._deviation
        beside = np.ones((n_users, mf.N_SIDE), np.float32)
        beside[:, mf.BIAS] = 0
        return {USERS: P, BESIDE: beside}

    def _items(self, pulled: Sequence[NDArray[Any]], server: StepServer) -> tuple[F32, F32]:
        """Return working copies of factors, and of biases and sums, of the items pulled."""
        factors, sums, *bias = pulled
        Q = server.scratch("items", (len(factors), mf.padded(self.n_factors)), np.float32)
        Q[:, : self.n_factors] = factors[:, 0]
        Q[:, self.n_factors :] = 0
        side = server.scratch("beside", (len(factors), mf.N_SIDE), np.float32)
        side[:, mf.BIAS] = bias[0][:, 0, 0] if bias else 0
        side[:, mf.BIAS + 1 :] = sums[:, 0]
        return Q, side

    def _deltas(
        self, pulled: Sequence[NDArray[Any]], Q: F32, side: F32, response: F32 | None
    ) -> list[NDArray[Any]]:
        """Return what is pushed: differences, on which others' pushes to the same rows may fall."""
        factors, sums, *bias = pulled
        moved = Q[:, : self.n_factors] - factors[:, 0]
        pushed = [moved, side[:, mf.BIAS + 1 :] - sums[:, 0]]
        if bias:
            pushed.append(side[:, mf.BIAS, None] - bias[0][:, 0])
        if response is None:
            return [x[:, None] for x in pushed]
        deltas = [_merged(factors, pushed[0], response[:, :1] * self._shared), pushed[1][:, None]]
        return deltas + [_merged(b, pushed[2], response[:, 1:]) for b in bias]

    @property
    def _shared(self) -> np.float32:
        """Share of the curvature along a user that stands for each factor of an item.

        Users point in all directions: it is 1/k of the whole where they do so evenly, all of it
        where they agree; the geometric mean is between the two, as for the features of a row.
        """
        return np.float32(1 / math.sqrt(self.n_factors))

    def _check(self, squares: float, n: int, server: StepServer) -> None:
        if math.isfinite(squares) and squares <= GROWTH * max(n, 1):
            return
        raise Diverged(
            f"the fit diverged: at clock {server.clock} the mean squared error of partition "
            f"{server.partition} is {squares / max(n, 1) * self.unit**2:.3g}, that of the mean "
            f"rating {self.unit**2:.3g}; nothing was pushed. Use a smaller learning_rate than "
            f"{self.eta!r}, a larger reg than {self.reg!r}, or look for ratings far from the rest."
        )


def _merged(pulled: NDArray[Any], moved: F32, response: F32) -> NDArray[Any]:
    """Return what the updater `SGD` takes on arrival: forces, responses, and what was pulled."""
    push = np.empty((len(moved), 4, moved.shape[1]), np.float32)
    push[:, 0] = (1 + response) * moved
    push[:, 1] = response
    push[:, 2:] = pulled
    return push
