"""Logistic regression as scikit-learn's users know it, trained by the parameter server."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any, Literal, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, log_loss
from sklearn.utils.validation import check_is_fitted

from daskps.cluster import current_client
from daskps.data import Dataset, as_dataset, from_arrays
from daskps.errors import DataError
from daskps.kernels import linear as kernel
from daskps.models import saved
from daskps.models.linear import COEF, INTERCEPT, LogisticModel
from daskps.models.parameters import check_parameters, class_weights
from daskps.monitor.progress import progress_listener
from daskps.run.launch import Outcome, RunOptions, run_training
from daskps.run.state import State

logger = logging.getLogger("daskps")


class LogisticRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
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
        Step size of the first step on a coordinate, > 0.
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
        Whether `fit` starts from the model that is there.
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

    def __init__(
        self,
        alpha: float = 1e-4,
        *,
        l1_ratio: float = 0.0,
        fit_intercept: bool = True,
        solver: Literal["adagrad", "ftrl"] = "adagrad",
        eta0: float = 0.1,
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
            Held-out data, evaluated after each pass: a Dataset, a path, or a pair (X, y).
        resume
            Whether to go on from the newest usable cut in `checkpoint`, on any number of workers.

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
        dataset = self._dataset(X, y, sample_weight)
        start = getattr(self, "_state", None) if self.warm_start else None
        self._train(dataset, y, self._held_out(eval_set), start, passes=self.max_iter, resume=resume)
        if self.stop_reason_ == "interrupted":
            warnings.warn(
                f"training was interrupted after {self.n_iter_} of {self.max_iter} passes; the "
                "model is usable.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> Self:
        """Go over `X` once, starting from the model that is there.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes
            All labels that will ever come, ascending; needed the first time if `X` may lack some.

        Raises
        ------
        DataError
            If a label is none of the classes, or the number of features differs.
        """
        check_parameters(self)
        dataset = self._dataset(X, y, sample_weight)
        known = getattr(self, "classes_", None)
        if known is None and classes is not None:
            known = np.unique(np.asarray(classes))
        start = getattr(self, "_state", None)
        self._train(dataset, y, None, start, passes=1, known=known, keep=True)
        return self

    # -- training ----------------------------------------------------------------------------

    def _dataset(self, X: Any, y: Any, sample_weight: Any) -> Dataset:
        return as_dataset(X, y, sample_weight, random_state=self.random_state)

    def _held_out(self, eval_set: Any) -> Dataset | None:
        if eval_set is None:
            return None
        pair = eval_set if isinstance(eval_set, tuple) else (eval_set,)
        return as_dataset(*pair, random_state=self.random_state)

    def _train(
        self,
        dataset: Dataset,
        y: Any,
        held_out: Dataset | None,
        start: State | None,
        *,
        passes: int,
        resume: bool = False,
        known: NDArray[Any] | None = None,
        keep: bool = False,
    ) -> None:
        labels, counts, classes = _classes(dataset, y, known)
        model = LogisticModel(
            n_features=dataset.n_features,
            labels=labels,
            class_weight=class_weights(self.class_weight, classes, counts),
            solver=self.solver,
            eta=float(self.eta0),
            beta=1.0,
            alpha=float(self.alpha),
            l1_ratio=float(self.l1_ratio),
            fit_intercept=self.fit_intercept,
            discount=self.consistency != "bsp",
        )
        if held_out is not None and held_out.n_features > dataset.n_features:
            raise DataError(
                f"eval_set has {held_out.n_features} features, the training data "
                f"{dataset.n_features}; read both with the same n_features."
            )
        options = self._options(dataset, passes, resume, one_pass=keep)
        outcome = run_training(
            model,
            dataset,
            options,
            held_out=held_out,
            start=start,
            keep_state=keep or self.warm_start,
            client=current_client(),
        )
        self._take(outcome, model, classes, options.clocks_per_pass)

    def _options(
        self, dataset: Dataset, passes: int, resume: bool, *, one_pass: bool
    ) -> RunOptions:
        clocks = kernel_clocks(dataset, self.rows_per_clock)
        checkpoint = None if self.checkpoint is None or one_pass else _place(self.checkpoint)
        return RunOptions(
            consistency=self.consistency,
            staleness=self.staleness,
            max_iter=passes,
            clocks_per_pass=clocks,
            tol=self.tol,
            n_iter_no_change=self.n_iter_no_change,
            checkpoint=checkpoint,
            checkpoint_every=self.checkpoint_every,
            keep=self.keep,
            n_shards=self.n_shards,
            resume=resume,
            listeners=progress_listener(self.progress),
        )

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
        self._state = outcome.state

    # -- use ---------------------------------------------------------------------------------

    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """Return margins, shape (n_rows,) for two classes, else (n_rows, n_classes).

        Rows come in the order of `X`; those of a dataset in the order in which it holds them.
        """
        margins = np.concatenate([m for m, _ in self._margins(self._ordered(X))])
        return margins[:, 0] if margins.shape[1] == 1 else margins

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return P(class | row), shape (n_rows, n_classes); rows sum to 1."""
        margins = self.decision_function(X).astype(np.float64)
        if margins.ndim == 1:
            margins = np.stack([np.zeros_like(margins), margins], axis=1)
        margins -= margins.max(axis=1, keepdims=True)
        p = np.exp(margins)
        proba: NDArray[np.float64] = p / p.sum(axis=1, keepdims=True)
        return proba

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, shape (n_rows,)."""
        return self._label(self.decision_function(X))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy on `X`; a dataset brings its own labels and weights."""
        truth, weight = self._truth(X, y, sample_weight)
        return float(accuracy_score(truth, self.predict(X), sample_weight=weight))

    def log_loss(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the mean log-loss on `X`; a dataset brings its own labels and weights."""
        truth, weight = self._truth(X, y, sample_weight)
        proba = self.predict_proba(X)
        return float(log_loss(truth, proba, labels=self.classes_, sample_weight=weight))

    def save(self, store: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model to a Zarr group, which `daskps.load` and `xarray.open_zarr` open.

        Raises
        ------
        FileExistsError
            If there is something at `store` and `overwrite` is not given.
        """
        check_is_fitted(self)
        saved.save(self, store, overwrite=overwrite)

    def _ordered(self, X: Any) -> Dataset:
        check_is_fitted(self)
        if isinstance(X, (Dataset, str, os.PathLike)):
            dataset = as_dataset(X)
        else:
            dataset = from_arrays(X, shuffle=False)
        if dataset.n_features > self.n_features_in_ or (
            dataset.n_features != self.n_features_in_ and not isinstance(X, (Dataset, str))
        ):
            raise DataError(
                f"X has {dataset.n_features} features, but LogisticRegression is expecting "
                f"{self.n_features_in_} features as input; use the columns of the training data."
            )
        return dataset

    def _margins(self, dataset: Dataset) -> Any:
        w = np.ascontiguousarray(self.coef_.T)
        for i in range(dataset.n_partitions):
            part = dataset.partition(i)
            args = (part.indptr, part.indices.astype(np.uint32, copy=False), part.values)
            yield kernel.decision(*args, w, self.intercept_), part

    def _truth(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
        if not isinstance(X, (Dataset, str, os.PathLike)):
            return np.asarray(y), sample_weight
        dataset = as_dataset(X, y, sample_weight)
        parts = [dataset.partition(i) for i in range(dataset.n_partitions)]
        if any(p.label is None for p in parts):
            raise DataError(f"{dataset!r} has no labels to compare with; ingest it with labels.")
        label = np.concatenate([p.label for p in parts if p.label is not None])
        if dataset.classes is not None:
            label = dataset.classes[label.astype(np.intp)]
        weights = [p.weight for p in parts if p.weight is not None]
        return label, np.concatenate(weights) if weights else None

    def _label(self, margins: NDArray[np.float32]) -> NDArray[Any]:
        best = (margins > 0).astype(np.intp) if margins.ndim == 1 else margins.argmax(axis=1)
        return self.classes_[best]

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that sparse matrices are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _place(store: str | os.PathLike[str]) -> str:
    text = os.fspath(store)
    return text if "://" in text else os.path.abspath(text)


def _classes(
    dataset: Dataset, y: Any, known: NDArray[Any] | None
) -> tuple[tuple[float, ...], NDArray[np.int64], NDArray[Any]]:
    """Return labels as they stand in partitions, their counts, and what users call them."""
    found = dataset.label_counts()
    if found is None:
        raise DataError(
            f"{dataset!r} has no labels, or more than 10,000 distinct ones; a classifier needs "
            "y, or a dataset that was made with class labels."
        )
    labels, counts = found
    names = labels if dataset.classes is None else dataset.classes[labels.astype(np.intp)]
    kind = getattr(y, "dtype", None)
    if kind is not None and kind.kind in "iu":
        names = names.astype(kind)
    if known is not None:
        return _among(dataset, known, labels, counts, names)
    if len(labels) < 2:
        raise DataError(
            f"the training data has one class only, {names.tolist()!r}; expected at least two. "
            "Check how the labels were read."
        )
    return tuple(float(x) for x in labels), counts, names


def _among(
    dataset: Dataset,
    known: NDArray[Any],
    labels: NDArray[np.float64],
    counts: NDArray[np.int64],
    names: NDArray[Any],
) -> tuple[tuple[float, ...], NDArray[np.int64], NDArray[Any]]:
    """Fit the labels of one call of `partial_fit` into the classes that are known."""
    if missing := [x for x in names.tolist() if x not in set(known.tolist())]:
        raise DataError(
            f"label {missing[0]!r} is none of the classes {known.tolist()!r}; name all of them in "
            "the first call, partial_fit(X, y, classes=...)."
        )
    full = np.zeros(len(known), np.int64)
    full[np.searchsorted(known, names)] = counts
    if dataset.classes is None:
        return tuple(float(x) for x in known), full, known
    # codes of this dataset, which may lack some classes, in the order of the known ones
    code = {x: i for i, x in enumerate(dataset.classes.tolist())}
    absent = -1.0 - np.arange(len(known))
    return (
        tuple(float(code.get(x, absent[i])) for i, x in enumerate(known.tolist())),
        full,
        known,
    )


def kernel_clocks(dataset: Dataset, rows_per_clock: int | None) -> int:
    """Return the clocks that make a pass, from the shape of the data alone."""
    largest = int(dataset.partition_rows.max())
    if rows_per_clock is None:
        rows_per_clock = max(1, 250_000 // dataset.n_partitions)
        rows_per_clock = min(rows_per_clock, max(1, largest // 4))
    return max(1, -(-largest // rows_per_clock))
