"""Factorisation machines as scikit-learn's users know estimators.

Owns parameters, attributes, and what the two losses make of labels. Tables and steps are in
`factors`, the course of training in `estimator`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import ClassifierTags, RegressorTags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from daskps.data import Dataset
from daskps.errors import DataError
from daskps.kernels import linear as kernel
from daskps.models import evaluation, predict, saved
from daskps.models.admission import admission_of
from daskps.models.classes import CodedDataset, Labels, agreed_classes, training_classes
from daskps.models.estimator import LinearEstimator
from daskps.models.factors import FACTORS, FactorModel, FactorScore
from daskps.models.linear import COEF, INTERCEPT, LinearModel
from daskps.models.parameters import step_rates
from daskps.models.quantities import Explained, Scale, ScaledDataset, check_quantities
from daskps.models.target import Target
from daskps.run.launch import Outcome


def _classifies(estimator: Any) -> bool:
    return bool(estimator.loss == "logistic")


@saved.kind
class FactorizationMachine(LinearEstimator):
    """Second-order factorisation machine: a linear model with a factorised weight for every pair.

    The margin of a row x is ::

        s(x) = b + sum_j w_j x_j + sum_{j<l} <v_j, v_l> x_j x_l

    with a weight w_j and `n_factors` factors v_j a feature, so that pairs that never met in
    training are told by the company that each kept. Minimises ::

        (1/N) sum_i s_i loss_i + alpha/2 ||w||^2 + factor_alpha/2 ||V||^2

    by local steps with a rate for each coordinate (AdaGrad). With ``loss="logistic"`` it is a
    classifier of two classes, with ``loss="squared"`` a regressor.

    Parameters
    ----------
    n_factors
        Factors of a feature, >= 1.
    loss
        ``"logistic"``, or ``"squared"``, r^2 / 2 of a row's residual r.
    alpha
        Penalty of the weights, >= 0.
    factor_alpha
        Penalty of the factors, >= 0.
    init_scale
        Standard deviation of the initial factors, > 0, for values whose root mean square is 1 and
        quantities whose deviation is 1; other data get it in their scale.
    fit_intercept, eta0, consistency, staleness, quorum, max_iter, tol, n_iter_no_change,\
    rows_per_clock
        As in `LogisticRegression`. Factors take a third of the step of weights.
    keys, admission
        As in `LogisticRegression`; weight and factors of a feature come together.
    warm_start
        Whether `fit` starts from the model that is there.
    random_state
        Seed of the initial factors, of `admission`, and of the shuffle of matrices given to `fit`.
    checkpoint, checkpoint_every, keep, n_shards, replicas, progress
        As in `LogisticRegression`.

    Attributes
    ----------
    coef_
        Weights, shape (n_features,), float32; with ``keys="hash"`` one for each of `coef_keys_`.
    factors_
        Shape (n_features, n_factors), float32; with ``keys="hash"`` a row for each of `coef_keys_`.
    intercept_
        Shape (1,), float64.
    classes_
        The two labels, ascending; with ``loss="logistic"``.
    coef_keys_, hashing_, history_, n_iter_, n_features_in_, stop_reason_
        As in `LogisticRegression`.

    References
    ----------
    Rendle (2010), "Factorization Machines". Duchi, Hazan and Singer (2011), "Adaptive Subgradient
    Methods for Online Learning and Stochastic Optimization".

    Examples
    --------
    >>> X = [[1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 0.0]] * 50
    >>> fm = FactorizationMachine(2, max_iter=50).fit(X, [0, 1, 1, 0] * 50)
    >>> fm.predict(X[:4])  # no linear model can tell these
    array([0, 1, 1, 0])
    """

    _losses: ClassVar[tuple[str, ...]] = ("logistic", "squared")
    _scale: Scale | None = None
    """Of the quantities that the model was trained on first."""

    classes_: NDArray[Any]
    factors_: NDArray[np.float32]

    def __init__(
        self,
        n_factors: int = 8,
        *,
        loss: Literal["logistic", "squared"] = "logistic",
        alpha: float = 1e-4,
        factor_alpha: float = 3e-4,
        init_scale: float = 0.05,
        fit_intercept: bool = True,
        eta0: float | None = None,
        consistency: Literal["bsp", "ssp", "asp"] = "bsp",
        staleness: int = 2,
        quorum: float = 1.0,
        max_iter: int = 20,
        tol: float | None = 1e-4,
        n_iter_no_change: int = 3,
        rows_per_clock: int | None = None,
        keys: Literal["range", "hash"] = "range",
        admission: float = 1.0,
        warm_start: bool = False,
        random_state: int | None = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | str | None = None,
        keep: int = 2,
        n_shards: int | None = None,
        replicas: int = 0,
        progress: bool | None = None,
    ) -> None:
        self.n_factors = n_factors
        self.loss = loss
        self.alpha = alpha
        self.factor_alpha = factor_alpha
        self.init_scale = init_scale
        self.fit_intercept = fit_intercept
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
        self.warm_start = warm_start
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.keep = keep
        self.n_shards = n_shards
        self.replicas = replicas
        self.progress = progress

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> Self:
        """Go over `X` once, starting from the model that is there; no checkpoints are made.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes
            Both labels, needed the first time if `X` may lack one; with ``loss="logistic"``.

        Raises
        ------
        DataError
            If a label is none of the classes, or the number of features differs.
        """
        return self._partial_fit(X, y, sample_weight, classes=classes)

    # -- training ----------------------------------------------------------------------------

    def _target(self, dataset: Dataset, y: Any, *, start: bool, classes: Any = None) -> Target:
        if _classifies(self):
            return self._classes_of(dataset, y, start, classes)
        if classes is not None:
            raise DataError(f"classes={classes!r} with loss='squared'; quantities have none.")
        check_quantities(dataset)
        scale = self._scale if start else None
        if scale is None:  # another scale would give rows that are gone on from another meaning
            scale = Scale.of(dataset, centered=self.fit_intercept, robust=False)
        return Target(ScaledDataset(dataset, scale), scale=scale)

    def _classes_of(self, dataset: Dataset, y: Any, start: bool, classes: Any) -> Target:
        labels = Labels.of(dataset, y)
        known = agreed_classes(classes, self.classes_ if start else None)
        found = training_classes(labels, known)
        if len(found) > 2:
            raise DataError(
                "Only binary classification is supported. The type of the target is multiclass: "
                f"it has {len(found)} classes, {found[:3].tolist()!r} for some. Use "
                "LogisticRegression, or sklearn.multiclass.OneVsRestClassifier."
            )
        return Target(CodedDataset(dataset, found, "the training data"), found)

    def _held_out(self, dataset: Dataset, target: Target) -> Dataset:
        if target.classes is not None:
            return CodedDataset(dataset, target.classes, "eval_set")
        check_quantities(dataset)
        return ScaledDataset(dataset, target.scale)

    def _loss(self, target: Target) -> kernel.Loss:
        return kernel.LOG_LOSS if _classifies(self) else kernel.Loss("squared")

    def _model(self, n_features: int, target: Target, *, start: bool) -> FactorModel:
        loss = self._loss(target)
        rates = self.eta0, self._rates.get(self.solver) if start else None
        eta, beta = step_rates(target.dataset, loss, *rates)
        linear = LinearModel(
            n_features=0 if self.keys == "hash" else n_features,
            classes=() if target.classes is None else tuple(target.classes.tolist()),
            class_weight=None,
            solver="adagrad",
            eta=eta,
            beta=beta,
            alpha=float(self.alpha),
            l1_ratio=0.0,
            fit_intercept=self.fit_intercept,
            discount=self.consistency != "bsp",
            loss=loss,
            **admission_of(self, target.dataset, start=start),
        )
        seed = int(np.random.SeedSequence(self.random_state).generate_state(1)[0])
        # margins are of second degree in the factors, which so have the unit's root
        factor_alpha = float(self.factor_alpha) / target.scale.unit
        return FactorModel(linear, self.n_factors, factor_alpha, self.init_scale / beta, seed)

    def _values(self, target: Target) -> Mapping[str, NDArray[np.float32]]:
        center, unit = target.scale.center, target.scale.unit
        intercept = ((self.intercept_ - center) / unit).astype(np.float32)
        return {
            COEF: self.coef_[:, None] / np.float32(unit),
            FACTORS: self.factors_ / np.float32(np.sqrt(unit)),
            INTERCEPT: intercept[None],
        }

    def _take(self, outcome: Outcome, model: FactorModel, target: Target) -> None:
        center, unit = target.scale.center, target.scale.unit
        (keys, weights), factors = outcome.values[COEF], outcome.values[FACTORS][1]
        if keys is not None:  # factors are pushed with the weights, to the same keys
            learnt = weights.any(axis=1)
            self.coef_keys_, weights, factors = keys[learnt], weights[learnt], factors[learnt]
        self.coef_ = weights[:, 0] * np.float32(unit)
        self.factors_ = factors * np.float32(np.sqrt(unit))
        self.intercept_ = np.full(1, center)
        if model.linear.fit_intercept:
            self.intercept_ += outcome.values[INTERCEPT][1][0].astype(np.float64) * unit
        self._scale = target.scale
        if target.classes is not None:
            self.classes_ = target.classes

    def _arrays(self) -> dict[str, tuple[NDArray[Any], tuple[str, ...]]]:
        arrays: dict[str, tuple[NDArray[Any], tuple[str, ...]]] = {
            "coef": (self.coef_, ("feature",)),
            "factors": (self.factors_, ("feature", "factor")),
            "intercept": (self.intercept_, ("margin",)),
        }
        return arrays | ({"classes": (self.classes_, ("class",))} if _classifies(self) else {})

    # -- use ---------------------------------------------------------------------------------

    def _figures(self) -> evaluation.Figures:
        if _classifies(self):
            return {"log_loss": evaluation.log_losses, "accuracy": evaluation.hits}
        return evaluation.errors(0.0)  # margins have the intercept

    def _compared(self, dataset: Dataset) -> Dataset:
        if _classifies(self):
            return predict.coded(dataset, self.classes_, "the data")
        check_quantities(dataset)
        return dataset

    def _score(self) -> predict.Score:
        return self._keyed(FactorScore(self.coef_, self.factors_, float(self.intercept_[0])))

    @available_if(_classifies)
    def decision_function(self, X: Any) -> Any:
        """Return margins, shape (n_rows,), in a container as of `predict`."""
        return self._answer(X, predict.one_margin, np.float64)

    @available_if(_classifies)
    def predict_proba(self, X: Any) -> Any:
        """Return P(class | row), shape (n_rows, 2), in a container as of `predict`."""
        check_is_fitted(self)
        return self._answer(X, predict.probabilities, np.float64, self.classes_)

    def predict(self, X: Any) -> Any:
        """Return the more probable class, or the expected quantity, of each row, shape (n_rows,).

        Rows come in the order of `X`; those of a dataset in the order in which it holds them.

        Parameters
        ----------
        X
            As in `fit`.

        Returns
        -------
        answers
            For dask arrays and DataFrames and for xarray lazily in the same container, the one
            with the same chunks, the other with its coordinates; for a dataset on disk or its
            path a dask array with a chunk for each partition; else numpy.
        """
        check_is_fitted(self)
        if not _classifies(self):
            return self._answer(X, predict.one_margin, np.float64)
        name = partial(predict.names_of, classes=self.classes_)
        return self._answer(X, name, self.classes_.dtype)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy, or R^2, on `X`; a dataset brings its own labels and weights."""
        dataset = self._in_order(X, y, sample_weight)
        if _classifies(self):
            return predict.accuracy(dataset, self.classes_, self._score())
        check_quantities(dataset)
        explained = Explained()
        for margin, part in predict.margins(dataset, self._score()):
            explained.add(np.asarray(part.label), margin[:, 0], part.weight)
        return explained.value()

    @available_if(_classifies)
    def log_loss(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the mean log-loss on `X`; a dataset brings its own labels and weights."""
        dataset = self._in_order(X, y, sample_weight)
        return predict.log_loss(dataset, self.classes_, self._score())

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn whether this is a classifier, which depends on the loss."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        if _classifies(self):
            tags.estimator_type = "classifier"
            tags.classifier_tags = ClassifierTags(multi_class=False)
        else:
            tags.estimator_type = "regressor"
            tags.regressor_tags = RegressorTags()
        return tags
