"""Linear regression as scikit-learn's users know it, trained by the parameter server."""

from __future__ import annotations

import os
from typing import ClassVar, Literal

from sklearn import linear_model

from daskps.kernels import linear as kernel
from daskps.models import saved
from daskps.models.regressor import LinearRegressor
from daskps.models.target import Target


@saved.kind
class LinearRegression(LinearRegressor):
    """Least squares or robust regression on sparse data of any size.

    Minimises over the weights w and the unpenalised intercept b ::

        (1/N) sum_i s_i loss_i(w, b) + alpha ((1 - l1_ratio)/2 ||w||^2 + l1_ratio ||w||_1)

    by local steps with a rate for each coordinate. Targets may have any unit and any offset.

    Parameters
    ----------
    alpha
        Strength of the penalty, >= 0. With L2 it is the ``alpha`` of scikit-learn's `Ridge`
        divided by N, with L1 that of its `Lasso`.
    loss
        ``"squared"``, r^2 / 2 of a row's residual r; or ``"huber"``, the same up to `epsilon` and
        ``epsilon (|r| - epsilon / 2)`` beyond, which outliers move less.
    epsilon
        Where the Huber loss turns from a parabola into a line, > 0, in units of y.
    l1_ratio, fit_intercept, solver, eta0, consistency, staleness, quorum, max_iter
        As in `LogisticRegression`; step sizes are those for targets of deviation 1.
    tol
        As in `LogisticRegression`, in units of the variance of y.
    n_iter_no_change, rows_per_clock, keys, admission, compression, warm_start, random_state,\
    checkpoint, checkpoint_every, keep, n_shards, replicas, progress
        As in `LogisticRegression`.

    Attributes
    ----------
    coef_
        Weights, shape (n_features,), float32.
    intercept_
        Shape (1,), float64.
    coef_keys_, hashing_, history_, n_iter_, n_features_in_, stop_reason_
        As in `LogisticRegression`.

    References
    ----------
    Huber (1964), "Robust Estimation of a Location Parameter".

    Examples
    --------
    >>> model = LinearRegression(max_iter=50).fit([[0.0], [1.0]] * 50, [3.0, 5.0] * 50)
    >>> model.predict([[0.5]]).round(1)
    array([4.])
    """

    _losses: ClassVar[tuple[str, ...]] = ("squared", "huber")

    loss: Literal["squared", "huber"]
    epsilon: float

    def __init__(
        self,
        alpha: float = 1e-4,
        *,
        loss: Literal["squared", "huber"] = "squared",
        epsilon: float = 1.35,
        l1_ratio: float = 0.0,
        fit_intercept: bool = True,
        solver: Literal["adagrad", "ftrl", "lbfgs", "admm"] = "adagrad",
        eta0: float | None = None,
        consistency: Literal["bsp", "ssp", "asp"] = "bsp",
        staleness: int = 2,
        quorum: float = 1.0,
        max_iter: int = 10,
        tol: float | None = 1e-4,
        n_iter_no_change: int = 3,
        rows_per_clock: int | None = None,
        keys: Literal["range", "hash"] = "range",
        admission: float = 1.0,
        compression: Literal["bfloat16"] | float | None = None,
        warm_start: bool = False,
        random_state: int | None = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | str | None = None,
        keep: int = 2,
        n_shards: int | None = None,
        replicas: int = 0,
        progress: bool | None = None,
    ) -> None:
        self.alpha = alpha
        self.loss = loss
        self.epsilon = epsilon
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.eta0 = eta0
        self.consistency = consistency
        self.staleness = staleness
        self.quorum = quorum
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.rows_per_clock = rows_per_clock
        self.keys = keys
        self.admission = admission
        self.compression = compression
        self.warm_start = warm_start
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.keep = keep
        self.n_shards = n_shards
        self.replicas = replicas
        self.progress = progress

    @property
    def _robust(self) -> bool:
        return self.loss == "huber"

    def _loss(self, target: Target) -> kernel.Loss:
        if not self._robust:
            return kernel.Loss("squared")
        return kernel.Loss("huber", self.epsilon / target.scale.unit)

    def to_sklearn(self) -> linear_model.LinearRegression:
        """Return a fitted `sklearn.linear_model.LinearRegression` that predicts the same."""
        return self._into(linear_model.LinearRegression(fit_intercept=self.fit_intercept))
