"""Checks of estimators' parameters, before any data is touched."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.data import Dataset
from daskps.errors import DataError
from daskps.kernels import linear as kernel
from daskps.models.admission import LEAST, MOST


def _real(low: float, high: float, *, open_low: bool = False) -> Callable[[Any], bool]:
    def check(x: Any) -> bool:
        if isinstance(x, bool) or not isinstance(x, (int, float, np.number)):
            return False
        return bool((low < x if open_low else low <= x) and x <= high and math.isfinite(x))

    return check


def _whole(low: int) -> Callable[[Any], bool]:
    def check(x: Any) -> bool:
        return isinstance(x, (int, np.integer)) and not isinstance(x, bool) and bool(x >= low)

    return check


def _place(x: Any) -> bool:
    return isinstance(x, (str, os.PathLike)) and bool(os.fspath(x))


def _optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda x: x is None or check(x)


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda x: isinstance(x, str) and x in values


def _period(x: Any) -> bool:
    from dask.utils import parse_timedelta

    if not isinstance(x, str):
        return _whole(1)(x)
    try:
        return bool(parse_timedelta(x) > 0)
    except (ValueError, KeyError):
        return False


def _boolean(x: Any) -> bool:
    return isinstance(x, (bool, np.bool_))


def _class_weight(x: Any) -> bool:
    if isinstance(x, dict):  # its keys wait for the labels
        return all(_real(0, math.inf)(factor) for factor in x.values())
    return isinstance(x, str) and x == "balanced"


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "fit_intercept": (_boolean, "True or False"),
    "warm_start": (_boolean, "True or False"),
    "user_store": (_optional(_place), "a path, a URL or None"),
    "progress": (_optional(_boolean), "True, False or None"),
    "random_state": (_optional(_whole(0)), "an integer >= 0 or None"),
    "class_weight": (
        _optional(_class_weight),
        "None, 'balanced' or a dict from classes to finite factors >= 0",
    ),
    "checkpoint": (_optional(_place), "a path, a URL or None"),
    "alpha": (_real(0, math.inf), "a finite number >= 0"),
    "factor_alpha": (_real(0, math.inf), "a finite number >= 0"),
    "init_scale": (_real(0, math.inf, open_low=True), "a finite number > 0"),
    "n_components": (_whole(1), "an integer >= 1"),
    "slices": (_optional(_whole(1)), "an integer >= 1 or None"),
    "sweeps_per_clock": (_optional(_whole(1)), "an integer >= 1 or None"),
    "topic_word_prior": (
        _optional(lambda x: _one_of("auto")(x) or _real(0, math.inf, open_low=True)(x)),
        "a finite number > 0, 'auto' or None",
    ),
    "n_factors": (_whole(1), "an integer >= 1"),
    "l1_ratio": (_real(0, 1), "a number in [0, 1]"),
    "epsilon": (_real(0, math.inf, open_low=True), "a finite number > 0"),
    "eta0": (_optional(_real(0, math.inf, open_low=True)), "a finite number > 0 or None"),
    "solver": (_one_of("adagrad", "ftrl", "lbfgs", "admm"), "'adagrad', 'ftrl', 'lbfgs' or 'admm'"),
    "keys": (_one_of("range", "hash"), "'range' or 'hash'"),
    "admission": (
        lambda x: _real(0, 1, open_low=True)(x) or (_whole(LEAST)(x) and bool(x <= MOST)),
        f"a probability above 0 and at most 1, or rows, an integer from {LEAST} to {MOST}",
    ),
    "compression": (
        _optional(lambda x: _one_of("bfloat16")(x) or (_real(0, 1, open_low=True)(x) and x < 1)),
        "'bfloat16', a share of rows above 0 and below 1, or None",
    ),
    "consistency": (_one_of("bsp", "ssp", "asp"), "'bsp', 'ssp' or 'asp'"),
    "staleness": (_whole(1), "an integer >= 1"),
    "quorum": (_real(0, 1, open_low=True), "a number above 0 and at most 1"),
    "max_iter": (_whole(1), "an integer >= 1"),
    "tol": (_optional(_real(-math.inf, math.inf)), "a number or None"),
    "n_iter_no_change": (_whole(1), "an integer >= 1"),
    "rows_per_clock": (_optional(_whole(1)), "an integer >= 1 or None"),
    "checkpoint_every": (_optional(_period), "clocks >= 1, a time such as '30s', or None"),
    "keep": (_whole(1), "an integer >= 1"),
    "n_shards": (_optional(_whole(1)), "an integer >= 1 or None"),
    "replicas": (lambda x: _whole(0)(x) and x <= 1, "0 or 1"),
}


def check_parameters(estimator: Any) -> None:
    """Check every parameter that an estimator has.

    Raises
    ------
    ValueError
        Naming the parameter, its value and what was expected.
    """
    losses: tuple[str, ...] = getattr(estimator, "_losses", ())
    own = {"loss": (_one_of(*losses), " or ".join(map(repr, losses)))} if losses else {}
    solvers: tuple[str, ...] = getattr(estimator, "_solvers", ())
    if solvers:
        own["solver"] = (_one_of(*solvers), " or ".join(map(repr, solvers)))
    own |= getattr(estimator, "_checks", {})
    for name, (good, expected) in {**_CHECKS, **own}.items():
        value = getattr(estimator, name, None)
        if hasattr(estimator, name) and not good(value):
            raise ValueError(f"{type(estimator).__name__}({name}={value!r}); expected {expected}.")
    admission, keys = getattr(estimator, "admission", 1), getattr(estimator, "keys", "hash")
    if admission != 1 and keys != "hash":
        raise ValueError(
            f"{type(estimator).__name__}(admission={admission!r}, keys={keys!r}); expected "
            "keys='hash': a range has a weight for each feature, whether it is admitted or not."
        )


def class_weights(
    wanted: Any, classes: NDArray[Any], counts: NDArray[np.int64]
) -> tuple[float, ...] | None:
    """Return the factor of each class.

    Parameters
    ----------
    wanted
        None, ``"balanced"`` (``N / (n_classes x count)``), or a dict; classes it lacks weigh 1.
    classes
        Classes, ascending.
    counts
        Rows of each class.

    Raises
    ------
    DataError
        If the dict names a class that the data has not.
    """
    if wanted is None:
        return None
    if isinstance(wanted, str) and wanted == "balanced":
        present = np.maximum(counts, 1)
        return tuple(float(x) for x in counts.sum() / (np.count_nonzero(counts) * present))
    known = classes.tolist()
    if strangers := [label for label in wanted if label not in known]:
        raise DataError(
            f"class_weight has {strangers[0]!r}, which is none of the classes {known!r}; leave it "
            "out or correct it."
        )
    return tuple(float(wanted.get(x, 1.0)) for x in known)


def clocks_per_pass(dataset: Dataset, rows_per_clock: int | None) -> int:
    """Return the clocks that make a pass.

    Parameters
    ----------
    dataset
        Training data; the choice depends on its shape alone, so that BSP gives the same bits
        wherever it runs.
    rows_per_clock
        Rows of a partition between pull and push; None chooses.
    """
    largest = int(dataset.partition_rows.max())
    if rows_per_clock is None:
        rows_per_clock = kernel.rows_per_clock(largest, dataset.n_partitions)
    return max(1, -(-largest // rows_per_clock))


def step_rates(
    dataset: Dataset,
    loss: kernel.Loss,
    eta0: float | None,
    before: tuple[float, float] | None,
    *,
    kappa: float = 0.0,
) -> tuple[float, float]:
    """Return eta and beta: of `eta0`, or as `before`, or those that suit the data and the loss.

    One partition stands for all: its rows are a random part, and reading it costs no pass.
    """
    if eta0 is not None:
        return float(eta0), 1.0
    if before is not None:  # another eta would give the state of FTRL another meaning
        return before
    part = dataset.partition(0)
    x = np.ones(part.nnz, np.float32) if part.values is None else part.values
    nnz, squares = int(np.count_nonzero(x)), float(np.dot(x, x))
    return kernel.default_rates(part.n_rows, nnz, squares, loss, kappa=kappa)


def absolute(store: str | os.PathLike[str] | None) -> str | None:
    """Return a path or URL as workers in other folders can use it."""
    text = None if store is None else os.fspath(store)
    return text if text is None or "://" in text else os.path.abspath(text)
