"""The rules a shard applies to pushes: SGD, AdaGrad, FTRL; sums are in `daskps.server.sums`.

An updater is a frozen value (it stands in manifests and travels to workers) with functions over
arrays; the state is in the rows it is given. Three moments: `pull` copies rows out, `commit`
merges the sum of the pushes of a clock at a barrier (BSP), `apply` merges one push on arrival
(SSP, ASP). How concurrent pushes merge is explained in docs/explanation/merging.md; the objective
and the meaning of T are in `daskps.kernels.linear`. Owns no slots, ids or messages.

Arrays are C-contiguous, (rows, fields, width): `width` values a row, `fields` numbers a value.
"""

# What each method does is said once, in the protocol.
# ruff: noqa: D102

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from daskps.server import _merge
from daskps.server._rows import EVERYTHING, frozen, gather, rows_of
from daskps.server.sums import Add, Consensus, Tally, Total

__all__ = [
    "FTRL",
    "SGD",
    "AdaGrad",
    "Add",
    "AnyUpdater",
    "Consensus",
    "Tally",
    "Total",
    "Updater",
]

Array = NDArray[Any]
Index = NDArray[Any] | None


class Updater(Protocol):
    """What a shard needs of a rule; `idx` are sorted unique row positions, None means all."""

    @property
    def n_fields(self) -> int:
        """Numbers a shard stores for each value."""

    @property
    def n_pull(self) -> int:
        """Numbers a pull carries for each value."""

    @property
    def n_push(self) -> int:
        """Numbers a push carries for each value."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of rows and pulls."""

    @property
    def push_dtype(self) -> np.dtype[Any]:
        """Type of what travels in a push."""

    short: bool
    """Whether pushes travel as bfloat16 (`daskps.server.short`)."""

    @property
    def recalls(self) -> bool:
        """Whether what a task has pulled may stand in for rows that are lost (`recall`).

        Where the merge rule discounts what came since a pull: there rows of different ages may
        stand side by side, as in any pull. And there steps leave what they pull as it is.
        """

    def recall(self, rows: Array, idx: Index, pulled: Array, T: float) -> None:
        """Set rows `idx` to what was `pulled` of them, (k, n_pull, width), after T samples."""

    def init(self, rows: Array, values: Array) -> None:
        """Set fresh `rows` (m, n_fields, width) to hold `values` (m, width)."""

    def pull(self, rows: Array, T: float, out: Array, idx: Index = None) -> None:
        """Copy what a worker needs of rows `idx` into `out` (k, n_pull, width)."""

    def commit(self, rows: Array, idx: Index, acc: Array, T: float, R: float) -> None:
        """Merge a clock, `acc` (k, n_push, width) being the sum of its pushes.

        T samples were seen before it, R in it, by all partitions.
        """

    @property
    def shrinks(self) -> bool:
        """Whether a clock's penalty changes rows that nobody pushed to."""

    def shrink(self, rows: Array, idx: Index, but: Array, T: float, R: float) -> None:
        """Apply a clock's penalty to rows `idx`, without those in `but`; T, R as of `commit`."""

    def apply(self, rows: Array, idx: Index, push: Array, T: float, R: float) -> None:
        """Merge one push on arrival: T samples were seen before it, R are its own."""

    def values(self, rows: Array, T: float) -> Array:
        """Return the parameters, (m, width), after T samples."""


class _Local(msgspec.Struct, frozen=True):
    """What the rules for local steps share: float32 rows that begin with value and n."""

    discount: bool = False
    """True for SSP and ASP: rows also hold Lam, the sum of responses; pushes repeat the pulled."""
    refined_after: float | None = None
    """Samples after which steps have the penalty in them (`daskps.kernels.refine`) and pushes are
    counts x changes, nothing, counts: a commit adds the mean change and nothing else; BSP."""
    short: bool = False

    def refined(self, T: float) -> bool:
        """Return whether pushes after `T` samples are means of changes."""
        return self.refined_after is not None and self.refined_after <= T

    @property
    def n_pull(self) -> int:
        return 3 if self.discount else 2

    @property
    def n_push(self) -> int:
        return 5 if self.discount else 3

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    @property
    def push_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint16 if self.short else np.float32)

    @property
    def recalls(self) -> bool:
        return self.discount

    def recall(self, rows: Array, idx: Index, pulled: Array, T: float) -> None:
        rows[slice(None) if idx is None else idx, : self.n_pull] = pulled

    @property
    def shrinks(self) -> bool:
        return False

    def shrink(self, rows: Array, idx: Index, but: Array, T: float, R: float) -> None:
        raise AssertionError("nothing shrinks")


class SGD(_Local, frozen=True, tag=True):
    """Local steps of plain SGD, with whatever step size and penalty the worker likes.

    Fields of a row: w, with `discount` also Lam. Push: (1 + lam) dw, lam, with `discount` also w
    and Lam as pulled; lam is the sum of step x curvature over the slice, 0 where deltas should
    just add.
    """

    @property
    def n_fields(self) -> int:
        return 2 if self.discount else 1

    @property
    def n_pull(self) -> int:
        return self.n_fields

    @property
    def n_push(self) -> int:
        return 4 if self.discount else 2

    def init(self, rows: Array, values: Array) -> None:
        rows[:, 0] = values
        rows[:, 1:] = 0

    def pull(self, rows: Array, T: float, out: Array, idx: Index = None) -> None:
        gather(rows, idx, out)

    def commit(self, rows: Array, idx: Index, acc: Array, T: float, R: float) -> None:
        _merge.commit_sgd(rows, *rows_of(idx), frozen(acc))

    def apply(self, rows: Array, idx: Index, push: Array, T: float, R: float) -> None:
        _merge.apply_sgd(rows, *rows_of(idx), frozen(push))

    def values(self, rows: Array, T: float) -> Array:
        return rows[:, 0].copy()


class AdaGrad(_Local, frozen=True, tag=True):
    """Steps ``1 / ((beta + sqrt(n)) / eta + kappa n)``; the shard applies the penalty.

    Fields of a row: w, n; with `discount` also Lam and t, the samples seen when w last changed,
    because rows that nobody touches shrink too and are brought up to date when read.
    Pull: w, n[, Lam]. Push: (1 + lam) dw, dn, lam[, w and Lam as pulled].

    References
    ----------
    Duchi, Hazan and Singer (2011), "Adaptive Subgradient Methods for Online Learning and
    Stochastic Optimization".
    """

    eta: float = 0.1
    beta: float = 1.0
    alpha: float = 0.0
    l1_ratio: float = 0.0
    kappa: float = 0.0

    @property
    def n_fields(self) -> int:
        return 4 if self.discount else 2

    def init(self, rows: Array, values: Array) -> None:
        rows[:, 0] = values
        rows[:, 1:] = 0

    def pull(self, rows: Array, T: float, out: Array, idx: Index = None) -> None:
        gather(rows, idx, out)
        if self.discount:
            _merge.flush_adagrad(frozen(rows), *rows_of(idx), *self._pace(), float(T), out)

    def recall(self, rows: Array, idx: Index, pulled: Array, T: float) -> None:
        _Local.recall(self, rows, idx, pulled, T)
        rows[slice(None) if idx is None else idx, 3] = T

    @property
    def shrinks(self) -> bool:
        return self.alpha > 0 and not self.discount

    def shrink(self, rows: Array, idx: Index, but: Array, T: float, R: float) -> None:
        if not self.refined(T):
            _merge.shrink_adagrad(rows, *rows_of(idx), frozen(but), *self._step_and_penalty(R))

    def commit(self, rows: Array, idx: Index, acc: Array, T: float, R: float) -> None:
        if self.refined(T):
            _merge.commit_mean(rows, *rows_of(idx), frozen(acc))
            return
        _merge.commit_adagrad(rows, *rows_of(idx), frozen(acc), *self._step_and_penalty(R))

    def _pace(self) -> tuple[Any, Any, Any, Any, Any]:
        """Return eta, beta, kappa, alpha2, alpha1."""
        eta, beta, alpha2, alpha1 = _rates(self)
        return eta, beta, np.float32(self.kappa), alpha2, alpha1

    def _step_and_penalty(self, R: float) -> tuple[Any, Any, Any, Any, Any]:
        eta, beta, kappa, alpha2, alpha1 = self._pace()
        return eta, beta, kappa, np.float32(alpha2 * R), np.float32(alpha1 * R)

    def apply(self, rows: Array, idx: Index, push: Array, T: float, R: float) -> None:
        _merge.apply_adagrad(rows, *rows_of(idx), frozen(push), *self._pace(), float(T), float(R))

    def values(self, rows: Array, T: float) -> Array:
        out = np.empty((rows.shape[0], 1, rows.shape[2]), np.float32)
        if self.discount:
            _merge.flush_adagrad(frozen(rows), EVERYTHING, True, *self._pace(), float(T), out)
        else:
            out[:] = rows[:, :1]
        return out[:, 0]


class FTRL(_Local, frozen=True, tag=True):
    """FTRL-proximal whose penalty grows with the samples seen: ``alpha T`` beside T losses.

    Fields of a row: z, n[, Lam]; the weight is ``-z / ((beta + sqrt(n)) / eta + alpha2 T)``,
    thresholded for L1, so rows that nobody touches shrink by themselves. Merging happens in the
    value before the threshold. Pull: z, n[, Lam]. Push: (1 + lam) du, dn, lam[, u and Lam as
    pulled].

    References
    ----------
    McMahan et al. (2013), "Ad Click Prediction: a View from the Trenches".
    """

    eta: float = 0.1
    beta: float = 1.0
    alpha: float = 0.0
    l1_ratio: float = 0.0

    @property
    def n_fields(self) -> int:
        return 3 if self.discount else 2

    def init(self, rows: Array, values: Array) -> None:
        rows[:] = 0
        eta, beta, _, _ = _rates(self)
        _merge.ftrl_duals(frozen(values), eta, beta, rows)

    def pull(self, rows: Array, T: float, out: Array, idx: Index = None) -> None:
        gather(rows, idx, out)

    def commit(self, rows: Array, idx: Index, acc: Array, T: float, R: float) -> None:
        eta, beta, alpha2, alpha1 = _rates(self)
        if self.refined_after is not None and self.refined(T):
            T = self.refined_after
            l2, l1 = np.float32(alpha2 * T), np.float32(alpha1 * T)
            _merge.commit_ftrl_mean(rows, *rows_of(idx), frozen(acc), eta, beta, l2, l1)
            return
        _merge.commit_ftrl(
            rows, *rows_of(idx), frozen(acc), eta, beta, np.float32(alpha2 * (T + R))
        )

    def apply(self, rows: Array, idx: Index, push: Array, T: float, R: float) -> None:
        eta, beta, alpha2, _ = _rates(self)
        l2 = np.float32(alpha2 * (T + R))
        _merge.apply_ftrl(rows, *rows_of(idx), frozen(push), eta, beta, l2)

    def values(self, rows: Array, T: float) -> Array:
        eta, beta, alpha2, alpha1 = _rates(self)
        if self.refined_after is not None:
            T = min(T, self.refined_after)  # the penalty has stopped growing
        out = np.empty((rows.shape[0], rows.shape[2]), np.float32)
        l2, l1 = np.float32(alpha2 * T), np.float32(alpha1 * T)
        _merge.ftrl_values(frozen(rows), eta, beta, l2, l1, out)
        return out


AnyUpdater = Add | Total | Consensus | Tally | SGD | AdaGrad | FTRL


def _rates(updater: AdaGrad | FTRL) -> tuple[Any, Any, Any, Any]:
    """Return eta, beta, alpha2, alpha1."""
    alpha2 = updater.alpha * (1 - updater.l1_ratio)
    alpha1 = updater.alpha * updater.l1_ratio
    return np.float32(updater.eta), np.float32(updater.beta), alpha2, alpha1
