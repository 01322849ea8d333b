"""Linear support vector machines as scikit-learn's users know them, on the parameter server."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, ClassVar, Literal

from sklearn import svm

from daskps.kernels import linear as kernel
from daskps.models import evaluation, saved
from daskps.models.classifier import LinearClassifier
from daskps.models.target import Target


@saved.kind
class LinearSVC(LinearClassifier):
    """Linear support vector classification on sparse data of any size.

    Minimises over the weights w and the unpenalised intercept b, for each class against the rest ::

        (1/N) sum_i s_i loss_i(w, b) + alpha ((1 - l1_ratio)/2 ||w||^2 + l1_ratio ||w||_1)

    by local steps with a rate for each coordinate; of two classes one has a margin, of more than
    two each has its own, and all are learnt in one pass.

    Parameters
    ----------
    alpha
        Strength of the penalty, >= 0. scikit-learn's ``C`` is ``1 / (alpha N)``; its own
        `LinearSVC` penalises the intercept too.
    loss
        ``"squared_hinge"``, max(0, 1 - m)^2 of a row's margin m, positive on its class's side; or
        ``"hinge"``, max(0, 1 - m).
    l1_ratio, fit_intercept, solver, eta0, consistency, staleness, quorum, max_iter, tol,\
    n_iter_no_change, rows_per_clock
        As in `LogisticRegression`.
    class_weight
        None, ``"balanced"``, or a dict from class to the factor of its rows in all margins.
    keys, admission, compression, warm_start, random_state, checkpoint, checkpoint_every, keep,\
    n_shards, replicas, progress
        As in `LogisticRegression`.

    Attributes
    ----------
    coef_
        Weights, shape (1, n_features) or (n_classes, n_features), float32.
    intercept_
        Shape (1,) or (n_classes,), float32.
    classes_
        Distinct labels, ascending.
    coef_keys_, hashing_, history_, n_iter_, n_features_in_, stop_reason_
        As in `LogisticRegression`.

    References
    ----------
    Shalev-Shwartz, Singer, Srebro and Cotter (2011), "Pegasos: Primal Estimated sub-GrAdient
    SOlver for SVM", for the objective. Rifkin and Klautau (2004), "In Defense of One-Vs-All
    Classification".

    Examples
    --------
    >>> clf = LinearSVC(max_iter=5).fit([[0.0], [1.0]] * 50, [0, 1] * 50)
    >>> clf.predict([[0.0], [1.0]])
    array([0, 1])
    """

    _losses: ClassVar[tuple[str, ...]] = ("squared_hinge", "hinge")

    loss: Literal["squared_hinge", "hinge"]

    def __init__(
        self,
        alpha: float = 1e-4,
        *,
        loss: Literal["squared_hinge", "hinge"] = "squared_hinge",
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
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
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
        self.class_weight = class_weight
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

    def _loss(self, target: Target) -> kernel.Loss:
        return kernel.Loss(self.loss)

    def _figures(self) -> evaluation.Figures:
        loss = partial(evaluation.hinges, squared=self.loss == "squared_hinge")
        return {"loss": loss, "accuracy": evaluation.hits}

    def to_sklearn(self) -> svm.LinearSVC:
        """Return a fitted `sklearn.svm.LinearSVC` that predicts the same."""
        other = svm.LinearSVC(
            loss=self.loss, fit_intercept=self.fit_intercept, class_weight=self.class_weight
        )
        return self._into(other)
