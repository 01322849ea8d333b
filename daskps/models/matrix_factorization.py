"""Matrix factorisation: parameters, the course of `fit`, saving.

Tables and steps are in `mf_sgd` and `mf_als`, what the fitted model is asked in `recommender`.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
import xarray as xr
import zarr
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

from daskps.cluster import current_client
from daskps.data.ratings import Ratings
from daskps.data.read_ratings import as_ratings
from daskps.models import mf_saved, mf_setup, saved
from daskps.models.factored import Factored
from daskps.models.mf_als import ALSFactors
from daskps.models.mf_sgd import SGDFactors
from daskps.models.mf_start import going_on
from daskps.models.mf_summary import Summary, check_ratings, summary
from daskps.models.mf_users import UserRows
from daskps.models.parameters import _one_of, _optional, _real, _whole, absolute, check_parameters
from daskps.models.recommender import Recommender
from daskps.monitor.progress import ClockCallback, progress_listeners
from daskps.run.detached import DetachedRun, start_detached
from daskps.run.launch import Outcome, RunOptions, run_training

_POSITIVE = _real(0, math.inf, open_low=True)


@saved.kind
class MatrixFactorization(Recommender, BaseEstimator):
    """Recommendations from ratings, or from what users did, by factors of users and items.

    With ``loss="squared"`` a rating r of user u and item i is modelled by
    ``s = mean + b_u + b_i + <p_u, q_i>``, and ::

        sum over ratings of (r - s)^2 + reg (|p_u|^2 + |q_i|^2 + b_u^2 + b_i^2)

    is minimised: the penalty of a row grows with its ratings. With ``loss="implicit"`` a rating is
    a count of events, and over all pairs, also those that never met, ::

        sum c (a - <p_u, q_i>)^2 + reg (|P|^2 + |Q|^2),   c = 1 + confidence r

    is, with a = 1 where r > 0 and 0 elsewhere.

    Trains on the current `distributed.Client` if there is one, else with threads in this process.
    Factors of users stay with the partitions of the ratings; workers pull those of items only.

    Parameters
    ----------
    n_factors
        Numbers that make up a user or an item.
    loss
        ``"squared"`` for ratings, ``"implicit"`` for counts >= 0.
    solver
        ``"sgd"``: stochastic gradient descent with a rate for each row, squared loss only;
        ``"als"``: alternating least squares, each half by conjugate gradients. None takes the one
        that suits the loss.
    biases
        Whether users and items have biases; None means with squared loss, the only one that can.
    reg
        Penalty, >= 0, see above; with ``"als"`` 1e-6 stands for less.
    confidence
        How much more an event counts than its absence, > 0; implicit loss only.
    learning_rate
        Step size of ``"sgd"``; it falls to a tenth, linearly, over `max_iter` passes. A row's
        steps are it over the root of the sum of the row's squared gradients.
    max_iter
        Passes over the ratings.
    tol
        Stop when the loss of `n_iter_no_change` passes in a row was not better than the best before
        by `tol`; None never stops early. The loss is half the mean squared error, of held-out
        ratings if `fit` is given some, else of the training data (with ``"sgd"`` each rating's
        before it was learnt from); with implicit loss the objective by ratings.
    n_iter_no_change
        See `tol`.
    cg_steps
        Conjugate gradient steps of a half of ``"als"``.
    init_scale
        Standard deviation of an initial product of a user and an item, > 0, where that of the
        ratings is 1. None takes 0.01; with counts what suits the numbers of users and items.
    consistency
        ``"bsp"``: items are cut into as many blocks as there are partitions, which visit them in
        rotation: no two tasks hold an item, the result depends on data, seed and partitions only,
        to the bit. ``"ssp"``, ``"asp"``: blocks may meet, and what is pushed is merged on arrival;
        ``"sgd"`` only.
    staleness, quorum
        As in `LogisticRegression`.
    duplicates
        What to do with several ratings of one pair: ``"error"``, ``"last"`` or ``"mean"``.
    warm_start
        Whether `fit` goes on from the factors of the fit before, of the users and items that it
        knew, rather than from the beginning. Steps begin as long as in a first fit.
    random_state
        Seed of initial factors and of the order of visits.
    user_store
        Path or URL where the factors of users are left, for as many users as no process should
        hold: the fitted model reads them from there, a chunk at a time, and `user_factors_` is
        lazy. A fit replaces what the fit before left. None holds them in memory.
    checkpoint, checkpoint_every, keep, n_shards, replicas, progress
        As in `LogisticRegression`.

    Attributes
    ----------
    user_factors_, item_factors_, user_bias_, item_bias_
        `xarray.DataArray` with ids as coordinates, in the unit of the ratings. Users and items
        without ratings have zeros.
    mean_
        Mean rating; 0 with implicit loss.
    history_
        `xarray.Dataset` over ``clock``: loss, samples, seconds, bytes, staleness; with an
        `eval_set`, ``eval_loss``.
    n_iter_
        Passes that were finished.
    stop_reason_
        ``"max_iter"``, ``"tol"`` or ``"interrupted"``.

    References
    ----------
    Gemulla et al. (2011), "Large-Scale Matrix Factorization with Distributed Stochastic Gradient
    Descent". Chin et al. (2015), "A Learning-rate Schedule for Stochastic Gradient Methods to
    Matrix Factorization". Hu, Koren and Volinsky (2008), "Collaborative Filtering for Implicit
    Feedback Datasets". Takács, Pilászy and Tikk (2011), "Applications of the Conjugate Gradient
    Method for Implicit Feedback Collaborative Filtering".

    Examples
    --------
    >>> import pandas as pd
    >>> rows = [
    ...     ("ann", "tea", 5.0),
    ...     ("ann", "cake", 4.0),
    ...     ("bob", "tea", 1.0),
    ...     ("bob", "gin", 5.0),
    ... ]
    >>> ratings = pd.DataFrame(rows, columns=["user", "item", "rating"])
    >>> model = MatrixFactorization(2, max_iter=5).fit(ratings)
    >>> model.recommend("ann", k=2).item.tolist()
    ['gin']
    """

    _losses: ClassVar[tuple[str, ...]] = ("squared", "implicit")
    _checks: ClassVar[dict[str, Any]] = {
        "solver": (_optional(_one_of("sgd", "als")), "'sgd', 'als' or None"),
        "biases": (lambda x: x is None or isinstance(x, (bool, np.bool_)), "True, False or None"),
        "reg": (_real(0, math.inf), "a finite number >= 0"),
        "confidence": (_POSITIVE, "a finite number > 0"),
        "learning_rate": (_POSITIVE, "a finite number > 0"),
        "init_scale": (_optional(_POSITIVE), "a finite number > 0 or None"),
        "cg_steps": (_whole(1), "an integer >= 1"),
        "duplicates": (_one_of("error", "last", "mean"), "'error', 'last' or 'mean'"),
    }

    history_: xr.Dataset
    n_iter_: int
    stop_reason_: str

    def __init__(
        self,
        n_factors: int = 32,
        *,
        loss: Literal["squared", "implicit"] = "squared",
        solver: Literal["sgd", "als"] | None = None,
        biases: bool | None = None,
        reg: float = 0.05,
        confidence: float = 1.0,
        learning_rate: float = 0.1,
        max_iter: int = 20,
        tol: float | None = None,
        n_iter_no_change: int = 3,
        cg_steps: int = 3,
        init_scale: float | None = None,
        consistency: Literal["bsp", "ssp", "asp"] = "bsp",
        staleness: int = 2,
        quorum: float = 1.0,
        duplicates: Literal["error", "last", "mean"] = "error",
        warm_start: bool = False,
        random_state: int | None = 0,
        user_store: str | os.PathLike[str] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | str | None = None,
        keep: int = 2,
        n_shards: int | None = None,
        replicas: int = 0,
        progress: bool | None = None,
    ) -> None:
        self.n_factors = n_factors
        self.loss = loss
        self.solver = solver
        self.biases = biases
        self.reg = reg
        self.confidence = confidence
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.cg_steps = cg_steps
        self.init_scale = init_scale
        self.consistency = consistency
        self.staleness = staleness
        self.quorum = quorum
        self.duplicates = duplicates
        self.warm_start = warm_start
        self.random_state = random_state
        self.user_store = user_store
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.keep = keep
        self.n_shards = n_shards
        self.replicas = replicas
        self.progress = progress

    @overload
    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        resume: bool = False,
        callback: ClockCallback | None = None,
        detach: Literal[False] = False,
    ) -> Self: ...

    @overload
    def fit(
        self, X: Any, y: None = None, *, resume: bool = False, detach: str | Literal[True]
    ) -> DetachedRun: ...

    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        eval_set: Any = None,
        resume: bool = False,
        callback: ClockCallback | None = None,
        detach: bool | str = False,
    ) -> Self | DetachedRun:
        """Train on ratings.

        Parameters
        ----------
        X
            `Ratings`; a DataFrame of pandas or Dask, or files, with the columns user, item and
            rating (`read_ratings` takes others); or a matrix, shape (n_users, n_items), whose
            stored entries are ratings: scipy.sparse, pydata/sparse, numpy or dask arrays, xarray,
            a `Dataset`, or the path of one.
        y
            Not used; there for scikit-learn's sake.
        eval_set
            Held-out ratings, as `X`, of which half the mean squared error is measured after each
            pass: ``history_.eval_loss``, and `tol` looks at it. Those of users or items that are
            not in `X` do not count. Squared loss only.
        resume, callback, detach
            As in `LogisticRegression.fit`.

        Raises
        ------
        DataError
            If ratings cannot be used; before any training.
        Diverged
            If steps were too long.
        CheckpointError
            If `checkpoint` holds cuts of another run.
        """
        check_parameters(self)
        mf_setup.check_together(self)
        if detach:
            return start_detached(self, detach, resume, callback, {"X": X, "eval_set": eval_set})
        ratings = as_ratings(X, duplicates=self.duplicates)
        held_out = mf_setup.held_out(self, eval_set, ratings)
        found = summary(ratings.dataset)
        check_ratings(found, implicit=self.loss == "implicit")
        before = mf_setup.before(self)
        tol = self.tol if held_out is None else None
        model = mf_setup.to_train(self, ratings.dataset, found, warm=before is not None, tol=tol)
        users = UserRows(ratings.dataset, self.n_factors, model.user_rows, self.user_store)
        outcome = run_training(
            model,
            ratings.dataset,
            self._options(model.n_clocks, resume, callback),
            held_out=held_out,
            start=None if before is None else going_on(model, before, ratings),
            collect=users.take,
            client=current_client(),
        )
        self._take(ratings, found, model, users, outcome)
        if self.stop_reason_ == "interrupted":
            done = f"training was interrupted after {self.n_iter_} of {self.max_iter} passes"
            warnings.warn(f"{done}; the model is usable.", ConvergenceWarning, stacklevel=3)
        return self

    # -- training ----------------------------------------------------------------------------

    def _options(self, clocks: int, resume: bool, callback: ClockCallback | None) -> RunOptions:
        return RunOptions(
            consistency=self.consistency,
            staleness=self.staleness,
            quorum=self.quorum,
            max_iter=self.max_iter,
            clocks_per_pass=clocks,
            tol=self.tol,
            n_iter_no_change=self.n_iter_no_change,
            checkpoint=absolute(self.checkpoint),
            checkpoint_every=self.checkpoint_every,
            keep=self.keep,
            n_shards=self.n_shards,
            replicas=self.replicas,
            resume=resume,
            listeners=progress_listeners(self.progress, callback, title=type(self).__name__),
        )

    def _take(
        self,
        ratings: Ratings,
        found: Summary,
        model: SGDFactors | ALSFactors,
        users: UserRows,
        outcome: Outcome,
    ) -> None:
        Q, bias = model.item_rows({name: rows for name, (_, rows) in outcome.values.items()})
        never = found.counts == 0
        Q[never], bias[never] = 0, 0
        ids = {"users": ratings.users, "items": ratings.items}
        biases = {"user_bias": users.bias, "item_bias": bias}
        self._factored = Factored(
            P=users.finish(), Q=Q, center=model.center, counts=found.counts, **ids, **biases
        )
        self._ratings = ratings
        self.history_ = outcome.ledger.to_xarray()
        self.n_iter_ = outcome.clock // model.n_clocks
        self.stop_reason_ = outcome.reason

    # -- saving ------------------------------------------------------------------------------

    def save(
        self, store: str | os.PathLike[str], *, overwrite: bool = False, seen: bool = True
    ) -> None:
        """Write the model to a Zarr group, which `daskps.load` and `xarray.open_zarr` open.

        Parameters
        ----------
        store
            A path or URL.
        overwrite
            Whether a Zarr group that is there may be replaced.
        seen
            Whether to write what users rated, which lists leave out.

        Raises
        ------
        FileExistsError
            If there is something at `store` and `overwrite` is not given.
        DataTypeError
            If ids have no plain form.
        """
        self._model()
        saved.save_own(self, store, overwrite=overwrite, seen=seen)

    def _write(self, group: zarr.Group, *, seen: bool) -> Mapping[str, Any]:
        return mf_saved.write(group, self._factored, self._ratings if seen else None)

    def _read(self, group: zarr.Group, own: dict[str, Any]) -> None:
        self._factored, self._ratings = mf_saved.read(group, own)
