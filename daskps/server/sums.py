"""Rules of plain sums: what a shard does with counts, statistics and what partitions agree on.

Owns those whose rows are values and nothing else. Rules of steps are in `daskps.server.updaters`,
which says what each method is for.
"""

# What each method does is said once, in the protocol.
# ruff: noqa: D102

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Index = NDArray[Any] | None


class Add(msgspec.Struct, frozen=True, tag=True):
    """Plain sum of deltas, for counts and statistics; exact for integers in any order.

    Fields of a row: the value.
    """

    dtype_name: str = "float32"
    short: ClassVar[bool] = False

    @property
    def n_fields(self) -> int:
        return 1

    @property
    def n_pull(self) -> int:
        return 1

    @property
    def n_push(self) -> int:
        return 1

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype_name)

    @property
    def push_dtype(self) -> np.dtype[Any]:
        return self.dtype

    @property
    def recalls(self) -> bool:
        return False

    def recall(self, rows: Array, idx: Index, pulled: Array, T: float) -> None:
        raise AssertionError("a push that is missing changes a sum")

    def init(self, rows: Array, values: Array) -> None:
        rows[:, 0] = values

    def pull(self, rows: Array, T: float, out: Array, idx: Index = None) -> None:
        out[:] = rows if idx is None else rows[idx]

    @property
    def shrinks(self) -> bool:
        return False

    def shrink(self, rows: Array, idx: Index, but: Array, T: float, R: float) -> None:
        raise AssertionError("nothing shrinks")

    def commit(self, rows: Array, idx: Index, acc: Array, T: float, R: float) -> None:
        self.apply(rows, idx, acc, T, R)

    def apply(self, rows: Array, idx: Index, push: Array, T: float, R: float) -> None:
        if idx is None:
            rows += push
        else:
            rows[idx] += push

    def values(self, rows: Array, T: float) -> Array:
        return rows[:, 0].copy()


class Total(Add, frozen=True, tag=True):
    """The sum of what was pushed in the last clock, and nothing older: a gradient, say.

    Fields of a row: the sum. Without a barrier (SSP, ASP) it is the last push.
    """

    @property
    def shrinks(self) -> bool:
        return True  # to nothing

    def shrink(self, rows: Array, idx: Index, but: Array, T: float, R: float) -> None:
        kept = rows[but]
        rows[slice(None) if idx is None else idx] = 0
        rows[but] = kept

    def commit(self, rows: Array, idx: Index, acc: Array, T: float, R: float) -> None:
        rows[slice(None) if idx is None else idx] = acc

    def apply(self, rows: Array, idx: Index, push: Array, T: float, R: float) -> None:
        rows[slice(None) if idx is None else idx] = push


class Consensus(Add, frozen=True, tag=True):
    """Where the pushes of a clock agree: the least of their parabolas and the penalty; BSP.

    Fields of a row: the value z. Push: rho v and rho of ``rho / 2 (z - v)^2``; without any, a row
    stays. The penalty is of the objective itself, not of a number of samples.

    References
    ----------
    Boyd et al. (2011), "Distributed Optimization and Statistical Learning via the Alternating
    Direction Method of Multipliers", section 7.2.
    """

    alpha: float = 0.0
    l1_ratio: float = 0.0

    @property
    def n_push(self) -> int:
        return 2

    def commit(self, rows: Array, idx: Index, acc: Array, T: float, R: float) -> None:
        at = slice(None) if idx is None else idx
        force, rho = acc[:, 0], acc[:, 1]
        l2, l1 = self.alpha * (1 - self.l1_ratio), self.alpha * self.l1_ratio
        z = np.copysign(np.maximum(np.abs(force) - np.float32(l1), 0), force)
        rows[at, 0] = np.divide(z, rho + np.float32(l2), out=rows[at, 0].copy(), where=rho > 0)

    def apply(self, rows: Array, idx: Index, push: Array, T: float, R: float) -> None:
        raise AssertionError("pushes that come one by one have nothing to agree on")


class Tally(Add, frozen=True, tag=True):
    """Counts that stop at `most`, of a byte each: for what matters only up to there.

    Fields of a row: the count. Pushes are wider than rows: the sum of a clock must not overflow.
    """

    dtype_name: str = "uint8"
    most: int = 255

    @property
    def push_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint32)

    def apply(self, rows: Array, idx: Index, push: Array, T: float, R: float) -> None:
        at = slice(None) if idx is None else idx
        rows[at] = np.minimum(rows[at] + push, np.uint32(self.most))
