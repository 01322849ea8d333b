"""What the linear estimators share: the course of `fit`, warm start, prediction's way in, saving.

Owns how parameters become a run and a run's outcome becomes attributes. What labels mean, and what
users ask of the result, is the business of `classifier` and its siblings; an estimator names its
parameters itself, as scikit-learn demands.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, Self, overload

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from daskps.cluster import current_client
from daskps.data import Dataset, Hashing, as_dataset
from daskps.errors import DataError
from daskps.kernels import linear as kernel
from daskps.models import answers, predict, saved
from daskps.models.admission import admission_of
from daskps.models.evaluation import Evaluated
from daskps.models.features import KeyedScore, hashed_alike
from daskps.models.linear import COEF, INTERCEPT, LinearModel, goes_on_from, state_of
from daskps.models.parameters import absolute, check_parameters, clocks_per_pass, step_rates
from daskps.models.refined import without_anchors
from daskps.models.solvers import BATCH, batch_model, check_solver, local_model
from daskps.models.target import Target
from daskps.monitor.progress import ClockCallback, progress_listeners
from daskps.run.detached import DetachedRun, start_detached
from daskps.run.driver import Listener
from daskps.run.launch import N_SLOTS, Outcome, RunOptions, run_training
from daskps.run.state import State
from daskps.server.tables import TableSpec


class LinearEstimator(Evaluated, BaseEstimator, ABC):
    """Base of the estimators that are tables of weights and an intercept.

    A subclass lists its parameters in `__init__`, says in `_target` what labels mean, in `_model`
    what is trained, and where it has more than `coef_` and `intercept_`, in `_values`, `_take`
    and `_arrays` as well.
    """

    alpha: float
    l1_ratio: float
    fit_intercept: bool
    solver: Literal["adagrad", "ftrl", "lbfgs", "admm"] = "adagrad"
    eta0: float | None
    consistency: Literal["bsp", "ssp", "asp"]
    staleness: int
    quorum: float
    max_iter: int
    tol: float | None
    n_iter_no_change: int
    rows_per_clock: int | None
    warm_start: bool
    keys: Literal["range", "hash"] = "range"
    admission: float = 1.0
    compression: Literal["bfloat16"] | float | None = None
    random_state: int | None
    checkpoint: str | os.PathLike[str] | None
    checkpoint_every: int | str | None
    keep: int
    n_shards: int | None
    replicas: int
    progress: bool | None

    coef_: NDArray[np.float32]
    coef_keys_: NDArray[np.uint64]
    intercept_: NDArray[np.floating[Any]]
    history_: xr.Dataset
    n_iter_: int
    n_features_in_: int
    hashing_: Hashing | None = None
    stop_reason_: str

    _state: tuple[State, tuple[TableSpec, ...]] | None = None
    """Rows to start from, and what they mean; None without `warm_start` and `partial_fit`."""
    _rates: Mapping[str, tuple[float, float]] = MappingProxyType({})
    """Eta and beta by solver, if they were chosen by the data."""

    @overload
    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        eval_set: Any = None,
        resume: bool = False,
        callback: ClockCallback | None = None,
        detach: Literal[False] = False,
    ) -> Self: ...

    @overload
    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        eval_set: Any = None,
        resume: bool = False,
        detach: str | Literal[True],
    ) -> DetachedRun: ...

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        eval_set: Any = None,
        resume: bool = False,
        callback: ClockCallback | None = None,
        detach: bool | str = False,
    ) -> Self | DetachedRun:
        """Train on `X`.

        Ctrl-C ends training at the next clock, with a usable model; a second one ends it at once.

        Parameters
        ----------
        X
            A `daskps.Dataset`, the path or URL of one, or a matrix, shape (n_rows, n_features):
            numpy, scipy.sparse, pydata/sparse, pandas, dask (unknown chunks too), xarray.
        y
            Labels, shape (n_rows,): of a classifier numbers, strings or booleans, else
            quantities; None for a dataset, which holds its own.
        sample_weight
            Shape (n_rows,), >= 0; None for a dataset.
        eval_set
            Held-out data of as many columns, evaluated after each pass: a Dataset, a path, or a
            tuple (X, y) or (X, y, sample_weight).
        resume
            Whether to go on from the newest usable cut in `checkpoint`, on any number of workers.
        callback
            Called in this thread with the number of clocks that all partitions have finished, and
            the mean training loss of the last one, after a loss of parameters again; or an object
            with ``on_event``, see `daskps.monitor.callbacks`. What it raises ends training.
        detach
            True, or a name for the run, lets the driver run in the cluster too. A `DetachedRun` is
            returned at once; `daskps.attach` finds it again.

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
        check_solver(self)
        if detach:
            given = {"X": X, "y": y, "sample_weight": sample_weight, "eval_set": eval_set}
            return start_detached(self, detach, resume, callback, given)
        start = self.warm_start and self._fitted
        dataset = self._dataset(X, y, sample_weight, start=start)
        target = self._target(dataset, y, start=start)
        name = type(self).__name__
        heard = progress_listeners(self.progress, callback, target.unit_of_loss, name)
        options = self._options(dataset, self.max_iter, resume, heard)
        self._train(target, options, start=start, exact=y is not None, eval_set=eval_set)
        if self.stop_reason_ == "interrupted":
            done = f"training was interrupted after {self.n_iter_} of {self.max_iter} passes"
            warnings.warn(f"{done}; the model is usable.", ConvergenceWarning, stacklevel=3)
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Self:
        """Go over `X` once, from the model that is there."""
        check_parameters(self)
        check_solver(self, partial=True)
        dataset = self._dataset(X, y, sample_weight, start=self._fitted)
        target = self._target(dataset, y, start=self._fitted, classes=classes)
        name = type(self).__name__
        heard = progress_listeners(self.progress, None, target.unit_of_loss, name)
        options = replace(self._options(dataset, 1, False, heard), checkpoint=None)
        self._train(target, options, start=self._fitted, exact=y is not None, keep_state=True)
        return self

    # -- what subclasses say -----------------------------------------------------------------

    @abstractmethod
    def _target(self, dataset: Dataset, y: Any, *, start: bool, classes: Any = None) -> Target:
        """Return the labels of `dataset`, made from `y`, as they are learnt, or raise DataError.

        `start` tells whether training goes on from the model that is there; `classes` is what
        `partial_fit` of a classifier was told.
        """

    @abstractmethod
    def _loss(self, target: Target) -> kernel.Loss:
        """Return what is minimised, in the scale of `target`."""

    @abstractmethod
    def _held_out(self, dataset: Dataset, target: Target) -> Dataset:
        """Return held-out data with labels like those of `target`."""

    def _model(self, n_features: int, target: Target, *, start: bool) -> Any:
        """Return the model to train; `start` tells whether it goes on from what is there."""
        loss = self._loss(target)
        kappa = kernel.curvature_of(loss, ftrl=self.solver != "adagrad")
        rates = self.eta0, self._rates.get(self.solver) if start else None
        eta, beta = step_rates(target.dataset, loss, *rates, kappa=kappa)
        classes = () if target.classes is None else tuple(target.classes.tolist())
        alpha, l1_ratio = target.scale.penalty(float(self.alpha), float(self.l1_ratio))
        return LinearModel(
            n_features=0 if self.keys == "hash" else n_features,
            classes=classes,
            class_weight=target.class_weight,
            solver=self.solver,
            eta=eta,
            beta=beta,
            alpha=alpha,
            l1_ratio=l1_ratio,
            fit_intercept=self.fit_intercept,
            discount=self.consistency != "bsp",
            loss=loss,
            kappa=kappa,
            **admission_of(self, target.dataset, start=start),
        )

    def _values(self, target: Target) -> Mapping[str, NDArray[np.float32]]:
        """Return the fitted parameters, (n_rows, width), by the table they start for `target`."""
        return {COEF: self.coef_.T, INTERCEPT: self.intercept_[None]}

    def _take(self, outcome: Outcome, model: Any, target: Target) -> None:
        """Set the fitted parameters by the outcome of a run."""
        keys, weights = outcome.values[COEF]
        if keys is not None:  # a weight of zero needs no key
            some = weights.any(axis=1)
            self.coef_keys_, weights = keys[some], weights[some]
        self.coef_ = np.ascontiguousarray(weights.T)
        self.intercept_ = np.zeros(model.width, np.float32)
        if model.fit_intercept:
            self.intercept_ = outcome.values[INTERCEPT][1][0].copy()
        if target.classes is not None:
            self.classes_ = target.classes

    def _arrays(self) -> dict[str, tuple[NDArray[Any], tuple[str, ...]]]:
        """Return what is saved: by the attribute's name, without "_", its value and dimensions."""
        rows = "class" if len(self.coef_) > 1 else "margin"
        return {
            "coef": (self.coef_, (rows, "feature")),
            "intercept": (self.intercept_, (rows,)),
        }

    def _dataset(self, X: Any, y: Any, sample_weight: Any, *, start: bool) -> Dataset:
        dataset = as_dataset(X, y, sample_weight, random_state=self.random_state)
        if sample_weight is not None and not np.asarray(sample_weight).any():
            raise DataError(
                "sample_weight is zero for every row; give the rows that count a weight above 0."
            )
        return self._hashed(dataset) if start else dataset

    # -- training ----------------------------------------------------------------------------

    @property
    def _fitted(self) -> bool:
        return hasattr(self, "coef_")

    def _train(
        self,
        target: Target,
        options: RunOptions,
        *,
        start: bool,
        exact: bool,
        eval_set: Any = None,
        keep_state: bool = False,
    ) -> None:
        n_features = target.dataset.n_features
        if start:
            n_features = self._check_width(target.dataset, exact=exact)
        base = self._model(n_features, target, start=start)
        batch = self.solver in BATCH
        model = batch_model(self, base, evaluated=eval_set is not None) if batch else base
        rows = self._start(model, target) if start else None
        if isinstance(model, LinearModel):
            model, rows = local_model(self, model, rows, target.dataset, options)
        how = target.dataset.hashing
        held_out = predict.held_out(eval_set, n_features, how, any_width=self.keys == "hash")
        outcome = run_training(
            model,
            target.dataset,
            options,
            held_out=None if held_out is None else self._held_out(held_out, target),
            start=rows,
            keep_state=keep_state or self.warm_start,
            client=current_client(),
        )
        self._take(outcome, model, target)
        self.history_ = target.history(outcome.ledger.to_xarray())
        self.n_iter_ = outcome.clock // options.clocks_per_pass
        self.n_features_in_ = n_features
        self.hashing_ = how
        self.stop_reason_ = outcome.reason
        self._state = None
        if outcome.state is not None:
            self._state = without_anchors(outcome.state, model), base.tables()
        self._rates = {} if self.eta0 is not None else {self.solver: (base.eta, base.beta)}

    def _options(
        self, dataset: Dataset, passes: int, resume: bool, listeners: Sequence[Listener]
    ) -> RunOptions:
        batch = self.solver in BATCH
        clocks = 1 if batch else clocks_per_pass(dataset, self.rows_per_clock)
        same = ("consistency", "staleness", "quorum", "tol", "n_iter_no_change")
        stored = ("checkpoint_every", "keep", "n_shards", "replicas")
        return RunOptions(
            max_iter=passes,
            clocks_per_pass=clocks,
            checkpoint=absolute(self.checkpoint),
            resume=resume,
            listeners=listeners,
            **{name: getattr(self, name) for name in (*same, *stored)},
        )

    def _start(self, model: Any, target: Target) -> State:
        """Return the rows to start from: as they were, or from the weights alone."""
        tables = model.tables()
        if self._state is not None and goes_on_from(self._state[1], tables):
            return self._state[0]
        values = self._values(target)
        if self.solver in BATCH:
            values = model.starting_at(values)
        keys = {t.name: self.coef_keys_ for t in tables if t.keys == "hash"}
        return state_of(tables, values, keys, N_SLOTS)

    # -- use ---------------------------------------------------------------------------------

    def save(self, store: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model to a Zarr group, which `daskps.load` and `xarray.open_zarr` open.

        Raises
        ------
        FileExistsError
            If there is something at `store` and `overwrite` is not given.
        """
        check_is_fitted(self)
        saved.save(self, self._arrays(), store, overwrite=overwrite)

    def _score(self) -> predict.Score:
        """Return what tells margins by rows."""
        return self._keyed(predict.LinearScore(np.ascontiguousarray(self.coef_.T), self.intercept_))

    def _keyed(self, score: predict.Score) -> predict.Score:
        return KeyedScore(self.coef_keys_, score) if self.keys == "hash" else score

    def _answer(
        self,
        X: Any,
        finish: Callable[[NDArray[Any]], NDArray[Any]],
        dtype: DTypeLike,
        columns: NDArray[Any] | None = None,
    ) -> Any:
        """Return `finish` of the margins of each row, in a container like `X`; see `answers`."""
        check_is_fitted(self)
        of = answers.Question(
            *(self._score(), finish, np.dtype(dtype), columns),
            *(self.n_features_in_, type(self).__name__),
            hashing=self.hashing_,
            any_width=self.keys == "hash",
        )
        return answers.answer(of, X)

    def _in_order(self, X: Any, y: Any = None, sample_weight: Any = None) -> Dataset:
        """Return `X` as a dataset whose rows stand in the order of `X`."""
        check_is_fitted(self)
        dataset, stored = predict.in_order(X, y, sample_weight)
        dataset = self._hashed(dataset)
        self._check_width(dataset, exact=not stored)
        return dataset

    def _hashed(self, dataset: Dataset) -> Dataset:
        return hashed_alike(dataset, self.hashing_, type(self).__name__)

    def _check_width(self, dataset: Dataset, *, exact: bool) -> int:
        if self.keys == "hash":
            return max(dataset.n_features, self.n_features_in_)
        name = type(self).__name__
        return predict.check_width(dataset.n_features, self.n_features_in_, name, exact=exact)

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that sparse matrices are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
