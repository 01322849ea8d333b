"""Logistic regression as scikit-learn's users know it, trained by the parameter server.

Owns its parameters and what is said of probabilities; the rest is in `classifier` and `estimator`.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
from sklearn import linear_model
from sklearn.utils.validation import check_is_fitted

from daskps.kernels import linear as kernel
from daskps.models import evaluation, predict, saved
from daskps.models.classifier import LinearClassifier
from daskps.models.target import Target


@saved.kind
class LogisticRegression(LinearClassifier):
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
        ``"adagrad"``, or ``"ftrl"`` (FTRL-proximal), which gives more exact zeros with L1: local
        steps, the fast way to a good model; with BSP, those after the tenth pass also lead to the
        optimum. ``"lbfgs"`` (with L1: OWL-QN): all data at once; with BSP only. ``"admm"``:
        partitions solve their own problems and agree on the outcome, in few rounds of much work
        each; with BSP only.
    eta0
        Step sizes are ``eta0 / (1 + sqrt(n))``, n being a coordinate's sum of squared gradients;
        ``"adagrad"`` divides by ``1 + sqrt(n) + 0.6 eta0 n``, which follows the curvature. None
        chooses by the scale of the data.
    consistency
        ``"bsp"``: the result depends on data, seed and partitions only, to the bit; ``"ssp"``:
        a partition may run `staleness` clocks ahead of the slowest; ``"asp"``: as far as half
        of the clocks that the slowest has left.
    staleness
        Bound for ``"ssp"``, >= 1.
    quorum
        Share of the partitions, in (0, 1], that have to finish a clock before it counts as over
        for the bound of ``"ssp"``: with 0.95 nobody waits for the slowest twentieth, whose pushes
        are merged when they come. Training ends when all have finished.
    max_iter
        Passes over the data. Each evaluation of ``"lbfgs"`` is one; the first only measures. So is
        each round of ``"admm"``, in which a partition looks at its rows up to some 25 times.
    tol
        Stop when the loss of `n_iter_no_change` passes in a row was not better than the best
        before by `tol`. The loss is that on `eval_set` where one is given to `fit`, else the
        training loss, each sample's before it was learnt from. None never stops early.
        ``"lbfgs"``, without `eval_set`: stop when the last `n_iter_no_change` iterates together
        lowered the objective by less than `tol`, or by no more than rounding. ``"admm"``: when a
        bound of the distance from the optimum, ``gap`` in `history_`, was below `tol` as often.
    n_iter_no_change
        See `tol`.
    rows_per_clock
        Rows of a partition between pull and push. None chooses the largest number that keeps the
        quality of a sequential run, from the shape of the data alone.
    class_weight
        None, ``"balanced"``, or a dict from class to factor.
    keys
        ``"range"``: a weight for each of the features. ``"hash"``: a weight for each feature that
        occurs, made when it is first seen; column ids may be anything below 2**64 - 1, and no
        memory is spent on ids that do not occur.
    admission
        With ``keys="hash"``: which features get a weight. A number in (0, 1] is the probability
        with which each row that has a feature brings it into the model, by `random_state`: one of
        k training rows gets a weight with probability ``1 - (1 - admission)^k``, however many
        passes there are; the default lets all in, 0.1 most of those of more than 20 rows. An
        integer n from 2 to 255 counts: a feature gets a weight from its n-th row on, and not
        before, but for a few per cent that share the cells of their counts with others. Rows are
        counted in the first pass of each `fit` or `partial_fit`.
    compression
        ``"bfloat16"``: local steps in BSP push changes of weights with 8 digits of a float32's 24,
        half the bytes; what is cut off goes with the next push. A share in (0, 1), 0.1 say, pushes
        that part of a slice's rows, those that changed most; what the others changed waits in the
        partition until it is enough. None pushes everything as it is. With compression, passes
        after the tenth are like the first.
    warm_start
        Whether `fit` starts from the model that is there and keeps its classes. Step sizes go on
        as well, unless the model came from a file or `solver` or `consistency` changed.
    random_state
        Seed of the shuffle of matrices given to `fit`; datasets were shuffled when made.
    checkpoint
        Path or URL of a Zarr group for checkpoints, which every worker can reach. None keeps
        none: the loss of a shard then starts training over from the beginning, by itself.
    checkpoint_every
        Clocks, or a time such as ``"30s"``, between checkpoints. None takes one after the
        first pass, then as often as costs the least time in all, by what they take and how often
        workers are lost (Young 1974, Daly 2006).
    keep
        Complete checkpoints that are kept.
    n_shards
        Shards that hold the parameters; None means one a worker.
    replicas
        1 keeps every shard once more, on another worker: when a worker is lost its replicas take
        over, and no update is lost and nothing done again but what was running. Costs the memory of
        the parameters once more, and a second trip for every push. 0 goes back to a checkpoint.
    progress
        Whether to show a progress bar. None shows it on a terminal only.

    Attributes
    ----------
    coef_
        Weights, shape (1, n_features) or (n_classes, n_features), float32; with ``keys="hash"``
        one column for each of `coef_keys_`.
    coef_keys_
        With ``keys="hash"``: column ids of the weights that are not zero, ascending, uint64.
    intercept_
        Shape (1,) or (n_classes,), float32.
    classes_
        Distinct labels, ascending.
    history_
        `xarray.Dataset` over ``clock``: loss, samples, seconds, bytes, staleness; of ``"lbfgs"``
        and ``"admm"`` also the objective, and the norm of the gradient or the residuals.
    n_iter_
        Passes that were finished.
    n_features_in_
        Features of the training data.
    hashing_
        How the columns of the training data were hashed, None where they were not. Data for
        `predict` and its siblings that is not hashed is hashed in the same way.
    stop_reason_
        ``"max_iter"``, ``"tol"`` or ``"interrupted"``.

    References
    ----------
    Duchi, Hazan and Singer (2011), "Adaptive Subgradient Methods for Online Learning and
    Stochastic Optimization". McMahan et al. (2013), "Ad Click Prediction: a View from the
    Trenches". Boyd et al. (2011), "Distributed Optimization and Statistical Learning via the
    Alternating Direction Method of Multipliers". Johnson and Zhang (2013), "Accelerating
    Stochastic Gradient Descent using Predictive Variance Reduction", for passes after the tenth.

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
        return kernel.LOG_LOSS

    def predict_proba(self, X: Any) -> Any:
        """Return P(class | row), shape (n_rows, n_classes); rows sum to 1.

        The container is that of `decision_function`; columns are named after the classes.
        """
        check_is_fitted(self)
        return self._answer(X, predict.probabilities, np.float64, self.classes_)

    def log_loss(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the mean log-loss on `X`; a dataset brings its own labels and weights."""
        dataset = self._in_order(X, y, sample_weight)
        return predict.log_loss(dataset, self.classes_, self._score())

    def _figures(self) -> evaluation.Figures:
        return {"log_loss": evaluation.log_losses, "accuracy": evaluation.hits}

    def to_sklearn(self) -> linear_model.LogisticRegression:
        """Return a fitted `sklearn.linear_model.LogisticRegression` that predicts the same."""
        other = linear_model.LogisticRegression(
            fit_intercept=self.fit_intercept, class_weight=self.class_weight
        )
        return self._into(other)
