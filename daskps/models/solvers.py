"""Which solvers there are, what each can do, and the models of those that go over all data at once.

`adagrad` and `ftrl` take local steps; `lbfgs` and `admm` are conducted between clocks, and a clock
is a pass.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from daskps.data import Dataset
from daskps.models.admm import ADMMModel
from daskps.models.compressed import CompressedModel, SparsifiedModel
from daskps.models.lbfgs import STIFFEST, LBFGSModel
from daskps.models.linear import LinearModel
from daskps.models.refined import RefinedModel, refine_later
from daskps.run.launch import RunOptions
from daskps.run.state import State

LOCAL, BATCH = ("adagrad", "ftrl"), ("lbfgs", "admm")


def check_solver(estimator: Any, *, partial: bool = False) -> None:
    """Refuse what the estimator's solver cannot do, or would not look at.

    Parameters
    ----------
    estimator
        With parameters that are good by themselves.
    partial
        Whether `partial_fit` was called.

    Raises
    ------
    ValueError
        Naming the parameter, its value and what was expected.
    """
    solver = estimator.solver
    if solver not in BATCH:
        _check_compression(estimator)
        return
    name = f"{type(estimator).__name__}(solver={solver!r}"
    if partial:
        raise ValueError(
            f"partial_fit of {name}), whose steps need more than one pass; use solver='adagrad' "
            "or 'ftrl', or fit with warm_start=True."
        )
    if estimator.keys == "hash" and solver == "lbfgs":
        raise ValueError(
            f"{name}, keys='hash'); its vectors need a row for each feature: use keys='range', on "
            "data with hash_features if ids are too large, or solver='adagrad' or 'ftrl'."
        )
    only_one = {"consistency": "bsp", "eta0": None, "rows_per_clock": None, "admission": 1.0}
    only_one |= {"compression": None}
    for parameter, only in only_one.items():
        value = getattr(estimator, parameter, only)
        if value != only:
            raise ValueError(
                f"{name}, {parameter}={value!r}); expected {parameter}={only!r}: each of its steps "
                "looks at all data at once. solver='adagrad' and 'ftrl' take others."
            )
    loss = getattr(estimator, "loss", None)
    if loss == "hinge":
        raise ValueError(
            f"{name}, loss={loss!r}), which has no gradient at its kink; use "
            "loss='squared_hinge', or solver='adagrad'."
        )


def batch_model(estimator: Any, linear: LinearModel, *, evaluated: bool) -> LBFGSModel | ADMMModel:
    """Return the model of a solver that goes over all data at once.

    Parameters
    ----------
    estimator
        Says which solver, and when to stop.
    linear
        What to minimise.
    evaluated
        Whether held-out data says when to stop.
    """
    assert linear.loss.name in STIFFEST, linear.loss
    tol = None if evaluated else estimator.tol
    kind = LBFGSModel if estimator.solver == "lbfgs" else ADMMModel
    return kind(linear, tol, estimator.n_iter_no_change)


def _check_compression(estimator: Any) -> None:
    if estimator.compression is None:
        return
    for parameter, only in {"consistency": "bsp", "admission": 1.0}.items():
        value = getattr(estimator, parameter)
        if value != only:
            raise ValueError(
                f"{type(estimator).__name__}(compression={estimator.compression!r}, "
                f"{parameter}={value!r}); expected {parameter}={only!r}: what a push leaves out "
                "goes with a later one of the same rows."
            )


def local_model(
    estimator: Any, linear: LinearModel, start: State | None, dataset: Dataset, options: RunOptions
) -> tuple[LinearModel | RefinedModel | CompressedModel | SparsifiedModel, State | None]:
    """Return the model of a solver that takes local steps, and the rows that it starts from."""
    clocks = options.clocks_per_pass
    if estimator.compression == "bfloat16":
        return CompressedModel(replace(linear, short=True), clocks), start
    if estimator.compression is not None:
        return SparsifiedModel(linear, float(estimator.compression)), start
    return refine_later(linear, start, dataset, options)
