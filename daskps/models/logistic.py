"""Logistic regression as scikit-learn's users know it, trained by the parameter server.

Owns parameters, attributes and the course of `fit`. Labels are in `classes`, tables and steps in
`linear`, prediction in `predict`, files in `saved`.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from daskps.cluster import current_client
from daskps.data import Dataset, as_dataset
from daskps.models import predict, saved
from daskps.models.classes import CodedDataset, Labels, agreed_classes, training_classes
from daskps.models.linear import COEF, INTERCEPT, LogisticModel, goes_on_from, state_of
from daskps.models.parameters import (
    absolute,
    check_parameters,
    class_weights,
    clocks_per_pass,
    step_rates,
)
from daskps.monitor.progress import ClockCallback, progress_listeners
from daskps.run.launch import N_SLOTS, Outcome, RunOptions, run_training
from daskps.run.state import State
from daskps.server.tables import TableSpec


class LogisticRegression(ClassifierMixin, BaseEstimator):
    """Binary or multinomial logistic regression on sparse data of any size.

    Minimises over the weights w and the unpenalised intercept b ::

        (1/N) sum_i s_i loss_i(w, b) + alpha ((1 - l1_ratio)/2 ||w||^2 + l1_ratio ||w||_1)

    by local steps with a rate for each coordinate. Trains on the current `distributed.Client` if
    there is one, else with threads in this process.

    Parameters
    ----------
    alpha
        Strength of the penalty, >= 0. scikit-learn's ``C`` is ``1 / (alpha N)``.
    l1_ratio
        Share of the L1 penalty, in [0, 1].
    fit_intercept
        Whether there is an intercept.
    solver
        ``"adagrad"``, or ``"ftrl"`` (FTRL-proximal), which gives more exact zeros with L1.
    eta0
        Step sizes are ``eta0 / (1 + sqrt(n))``, n being a coordinate's sum of squared gradients;
        None chooses by the scale of the data.
    consistency
        ``"bsp"``: the result depends on data, seed and partitions only, to the bit; ``"ssp"``:
        a partition may run `staleness` clocks ahead of the slowest; ``"asp"``: without bound.
    staleness
        Bound for ``"ssp"``, >= 1.
    max_iter
        Passes over the data.
    tol
        Stop when the loss of `n_iter_no_change` passes in a row was not better than the best
        before by `tol`. The loss is that on `eval_set` where one is given to `fit`, else the
        training loss, each sample's before it was learnt from. None never stops early.
    n_iter_no_change
        See `tol`.
    rows_per_clock
        Rows of a partition between pull and push. None chooses the largest number that keeps the
        quality of a sequential run, from the shape of the data alone.
    class_weight
        None, ``"balanced"``, or a dict from class to factor.
    warm_start
        Whether `fit` starts from the model that is there and keeps its classes. Step sizes go on
        as well, unless the model came from a file or `solver` or `consistency` changed.
    random_state
        Seed of the shuffle of matrices given to `fit`; datasets were shuffled when made.
    checkpoint
        Path or URL of a Zarr group for checkpoints, which every worker can reach. None keeps
        none: the loss of a shard then starts training over from the beginning, by itself.
    checkpoint_every
        Clocks, or a time such as ``"30s"``, between checkpoints. None means once a pass.
    keep
        Complete checkpoints that are kept.
    n_shards
        Shards that hold the parameters; None means one a worker.
    progress
        Whether to show a progress bar. None shows it on a terminal only.

    Attributes
    ----------
    coef_
        Weights, shape (1, n_features) or (n_classes, n_features), float32.
    intercept_
        Shape (1,) or (n_classes,), float32.
    classes_
        Distinct labels, ascending.
    history_
        `xarray.Dataset` over ``clock``: loss, samples, seconds, bytes, staleness.
    n_iter_
        Passes that were finished.
    n_features_in_
        Features of the training data.
    stop_reason_
        ``"max_iter"``, ``"tol"`` or ``"interrupted"``.

    References
    ----------
    Duchi, Hazan and Singer (2011), "Adaptive Subgradient Methods for Online Learning and
    Stochastic Optimization". McMahan et al. (2013), "Ad Click Prediction: a View from the
    Trenches".

    Examples
    --------
    >>> clf = LogisticRegression(max_iter=5).fit([[0.0], [1.0]] * 50, [0, 1] * 50)
    >>> clf.predict([[0.0], [1.0]])
    array([0, 1])
    """

    _state: tuple[State, tuple[TableSpec, ...]] | None = None
    """Rows to start from, and what they mean; None without `warm_start` and `partial_fit`."""
    _rates: tuple[float, float] | None = None
    """Eta and beta, if they were chosen by the data."""

    def __init__(
        self,
        alpha: float = 1e-4,
        *,
        l1_ratio: float = 0.0,
        fit_intercept: bool = True,
        solver: Literal["adagrad", "ftrl"] = "adagrad",
        eta0: float | None = None,
        consistency: Literal["bsp", "ssp", "asp"] = "bsp",
        staleness: int = 2,
        max_iter: int = 10,
        tol: float | None = 1e-4,
        n_iter_no_change: int = 3,
        rows_per_clock: int | None = None,
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
        warm_start: bool = False,
        random_state: int | None = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | str | None = None,
        keep: int = 2,
        n_shards: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.eta0 = eta0
        self.consistency = consistency
        self.staleness = staleness
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.rows_per_clock = rows_per_clock
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.keep = keep
        self.n_shards = n_shards
        self.progress = progress

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        eval_set: Any = None,
        resume: bool = False,
        callback: ClockCallback | None = None,
    ) -> Self:
        """Train on `X`.

        Ctrl-C ends training at the next clock and leaves a usable model; a second one ends it at
        once.

        Parameters
        ----------
        X
            A `daskps.Dataset`, the path or URL of one, or a matrix, shape (n_rows, n_features):
            numpy, scipy.sparse, pydata/sparse, pandas, dask (unknown chunks too), xarray.
        y
            Labels, shape (n_rows,), numbers, strings or booleans; None for a dataset, which
            holds its own.
        sample_weight
            Shape (n_rows,), >= 0; None for a dataset.
        eval_set
            Held-out data, evaluated after each pass: a Dataset, a path, or a tuple (X, y) or
            (X, y, sample_weight).
        resume
            Whether to go on from the newest usable cut in `checkpoint`, on any number of workers.
        callback
            Called in this thread with the number of clocks that all partitions have finished, and
            the mean training loss of the last one. After a loss of parameters clocks come again.
            What it raises ends training.

        Raises
        ------
        DataError
            If the data cannot be used; before any training.
        CheckpointError
            If `checkpoint` holds cuts of another run.
        RunFailed
            If training could not go on.
        """
        check_parameters(self)
        dataset = as_dataset(X, y, sample_weight, random_state=self.random_state)
        known = getattr(self, "classes_", None) if self.warm_start else None
        options = self._options(dataset, self.max_iter, resume, callback)
        self._train(dataset, y, options, known=known, start=known is not None, eval_set=eval_set)
        if self.stop_reason_ == "interrupted":
            done = f"training was interrupted after {self.n_iter_} of {self.max_iter} passes"
            warnings.warn(f"{done}; the model is usable.", ConvergenceWarning, stacklevel=2)
        return self

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> Self:
        """Go over `X` once, starting from the model that is there; no checkpoints are made.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes
            All labels that will ever come; needed the first time if `X` may lack some.

        Raises
        ------
        DataError
            If a label is none of the classes, or the number of features differs.
        """
        check_parameters(self)
        dataset = as_dataset(X, y, sample_weight, random_state=self.random_state)
        fitted = hasattr(self, "classes_")
        known = agreed_classes(classes, self.classes_ if fitted else None)
        options = replace(self._options(dataset, 1), checkpoint=None)
        self._train(dataset, y, options, known=known, start=fitted, keep_state=True)
        return self

    # -- training ----------------------------------------------------------------------------

    def _train(
        self,
        dataset: Dataset,
        y: Any,
        options: RunOptions,
        *,
        known: NDArray[Any] | None,
        start: bool,
        eval_set: Any = None,
        keep_state: bool = False,
    ) -> None:
        labels = Labels.of(dataset, y)
        classes = training_classes(labels, known)
        counts = labels.counts_in(classes, "the training data")
        n_features = dataset.n_features
        if start:
            n_features = predict.check_width(dataset, self.n_features_in_, exact=y is not None)
        rates = step_rates(dataset, self.eta0, self._rates if start else None)
        model = self._model(n_features, classes, counts, rates)
        outcome = run_training(
            model,
            CodedDataset(dataset, classes, "the training data"),
            options,
            held_out=predict.held_out(eval_set, n_features, classes),
            start=self._start(model.tables()) if start else None,
            keep_state=keep_state or self.warm_start,
            client=current_client(),
        )
        self._take(outcome, model, classes, options.clocks_per_pass)

    def _model(
        self,
        n_features: int,
        classes: NDArray[Any],
        counts: NDArray[np.int64],
        rates: tuple[float, float],
    ) -> LogisticModel:
        return LogisticModel(
            n_features=n_features,
            classes=tuple(classes.tolist()),
            class_weight=class_weights(self.class_weight, classes, counts),
            solver=self.solver,
            eta=rates[0],
            beta=rates[1],
            alpha=float(self.alpha),
            l1_ratio=float(self.l1_ratio),
            fit_intercept=self.fit_intercept,
            discount=self.consistency != "bsp",
        )

    def _options(
        self,
        dataset: Dataset,
        passes: int,
        resume: bool = False,
        callback: ClockCallback | None = None,
    ) -> RunOptions:
        return RunOptions(
            consistency=self.consistency,
            staleness=self.staleness,
            max_iter=passes,
            clocks_per_pass=clocks_per_pass(dataset, self.rows_per_clock),
            tol=self.tol,
            n_iter_no_change=self.n_iter_no_change,
            checkpoint=absolute(self.checkpoint),
            checkpoint_every=self.checkpoint_every,
            keep=self.keep,
            n_shards=self.n_shards,
            resume=resume,
            listeners=progress_listeners(self.progress, callback),
        )

    def _start(self, tables: tuple[TableSpec, ...]) -> State:
        """Return the rows to start from: as they were, or from the weights alone."""
        if self._state is not None and goes_on_from(self._state[1], tables):
            return self._state[0]
        values = {COEF: self.coef_.T, INTERCEPT: self.intercept_[None]}
        return state_of(tables, values, N_SLOTS)

    def _take(
        self, outcome: Outcome, model: LogisticModel, classes: NDArray[Any], clocks: int
    ) -> None:
        self.classes_ = classes
        self.coef_ = np.ascontiguousarray(outcome.values[COEF][1].T)
        self.intercept_ = np.zeros(model.width, np.float32)
        if model.fit_intercept:
            self.intercept_ = outcome.values[INTERCEPT][1][0].copy()
        self.history_: xr.Dataset = outcome.ledger.to_xarray()
        self.n_iter_ = outcome.clock // clocks
        self.n_features_in_ = model.n_features
        self.stop_reason_ = outcome.reason
        self._state = None if outcome.state is None else (outcome.state, model.tables())
        self._rates = None if self.eta0 is not None else (model.eta, model.beta)

    # -- use ---------------------------------------------------------------------------------

    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """Return margins, shape (n_rows,) for two classes, else (n_rows, n_classes).

        Rows come in the order of `X`; those of a dataset in the order in which it holds them.
        """
        parts = predict.margins(self._in_order(X), self.coef_, self.intercept_)
        margins: NDArray[np.float32] = np.concatenate([m for m, _ in parts])
        return margins[:, 0] if margins.shape[1] == 1 else margins

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return P(class | row), shape (n_rows, n_classes); rows sum to 1."""
        return predict.probabilities(self.decision_function(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, shape (n_rows,)."""
        margins = self.decision_function(X)
        return self.classes_[predict.best(margins)]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy on `X`; a dataset brings its own labels and weights."""
        dataset = self._in_order(X, y, sample_weight)
        return predict.accuracy(dataset, self.classes_, self.coef_, self.intercept_)

    def log_loss(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the mean log-loss on `X`; a dataset brings its own labels and weights."""
        dataset = self._in_order(X, y, sample_weight)
        return predict.log_loss(dataset, self.classes_, self.coef_, self.intercept_)

    def save(self, store: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model to a Zarr group, which `daskps.load` and `xarray.open_zarr` open.

        Raises
        ------
        FileExistsError
            If there is something at `store` and `overwrite` is not given.
        """
        check_is_fitted(self)
        saved.save(self, store, overwrite=overwrite)

    def _in_order(self, X: Any, y: Any = None, sample_weight: Any = None) -> Dataset:
        check_is_fitted(self)
        return predict.in_order(X, y, sample_weight, self.n_features_in_)

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that sparse matrices are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
