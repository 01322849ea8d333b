"""Users whose rows are lost: solved for against the items, which the tables have.

Half a step of alternating least squares, by conjugate gradients for all users at once, that go
over the blocks of items one after the other: no more than one block is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daskps.kernels import mf

F32 = NDArray[np.float32]

COLD_STEPS = 10
"""Steps of conjugate gradients that start from zero."""


@dataclass(frozen=True, slots=True)
class AgainstItems:
    """The least squares of a partition's users.

    Parameters
    ----------
    blocks
        The partition's ratings.
    n_users
        Its rows.
    items
        Returns factors of the items of a block, and what stands beside them; they are valid until
        it is called again.
    rule
        Penalties, as of SGD.
    """

    blocks: Sequence[mf.Block]
    n_users: int
    items: Callable[[int], tuple[F32, F32]]
    rule: mf.Rule

    def users(self) -> tuple[F32, F32]:
        """Return factors of users, and what stands beside them, as `mf.sgd` takes them.

        The sums of squared gradients are those that a pass leaves that begins here.
        """
        k, X = self.rule.n_factors, self._solved()
        P = mf.rows(self.n_users, mf.padded(k))
        P[:, :k] = X[:, :k]
        beside = np.ones((self.n_users, mf.N_SIDE), np.float32)
        beside[:, mf.BIAS] = X[:, k] if self.rule.biases else 0
        for b, block in enumerate(self.blocks):
            Q, side = self.items(b)
            mf.add_squares(block, P, Q, beside, side, k)
        return P, beside

    def _solved(self) -> F32:
        """Return rows of users, with their bias behind the factors."""
        X, penalty = mf.rows(self.n_users, self._width), self._penalty()
        R = self._sums(X, residual=True)
        D, square = R.copy(), _squares(R)
        for _ in range(COLD_STEPS):
            Z = self._sums(D, residual=False) + penalty * D
            step = _ratio(square, np.einsum("uf,uf->u", D, Z))
            X += step * D
            R -= step * Z
            before, square = square, _squares(R)
            D = R + _ratio(square, before) * D
        return X

    @property
    def _width(self) -> int:
        return mf.padded(self.rule.n_factors + self.rule.biases)

    def _penalty(self) -> F32:
        """Return what each number of a row is punished with: once for each rating."""
        own = np.zeros(self._width, np.float32)
        own[: self.rule.n_factors] = self.rule.l2
        own[self.rule.n_factors :][: self.rule.biases] = self.rule.bias_l2
        ratings = np.zeros(self.n_users, np.float32)
        for block in self.blocks:
            ratings += np.bincount(block.users, minlength=self.n_users)
        return ratings[:, None] * own

    def _sums(self, rows: F32, *, residual: bool) -> F32:
        """Return ``(t - <x, y>) y``, or ``<x, y> y``, of each user over its ratings."""
        k, out = self.rule.n_factors, mf.rows(self.n_users, self._width)
        for b, block in enumerate(self.blocks):
            Q, side = self.items(b)
            Y = mf.rows(len(Q), self._width)
            Y[:, :k] = Q[:, :k]
            Y[:, k : k + self.rule.biases] = 1  # which the bias of a user is multiplied by
            targets = block.ratings - side[block.items, mf.BIAS] if residual else None
            mf.user_sums(block, targets, Y, rows, out)
        return out


def _squares(rows: F32) -> F32:
    squares: F32 = np.einsum("uf,uf->u", rows, rows)
    return squares


def _ratio(a: F32, b: F32) -> F32:
    """Return quotients, as a column; 0 where a user is solved for, or has no ratings."""
    quotient: F32 = np.divide(a, b, out=np.zeros_like(a), where=b > 1e-20)[:, None]
    return quotient
