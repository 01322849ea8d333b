"""From the parameters of `MatrixFactorization` to what is trained, and what it is measured on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from daskps.data import Dataset
from daskps.data.align import aligned
from daskps.data.ratings import Ratings
from daskps.data.read_ratings import as_ratings
from daskps.errors import DataError
from daskps.models.factored import Factored
from daskps.models.mf_als import ALSFactors
from daskps.models.mf_sgd import SGDFactors
from daskps.models.mf_summary import Summary

if TYPE_CHECKING:
    from daskps.models.matrix_factorization import MatrixFactorization


def solver_of(model: MatrixFactorization) -> str:
    """Return the solver that was asked for, or suits the loss."""
    return model.solver or ("als" if model.loss == "implicit" else "sgd")


def check_together(model: MatrixFactorization) -> None:
    """Refuse parameters that contradict each other, or would not be looked at."""
    name = f"{type(model).__name__}(loss={model.loss!r}"
    if model.loss == "implicit" and solver_of(model) == "sgd":
        raise ValueError(f"{name}, solver='sgd'); expected solver='als', which sees all pairs.")
    if model.loss == "implicit" and model.biases:
        raise ValueError(f"{name}, biases=True); expected biases=False or None.")
    if solver_of(model) == "als" and model.consistency != "bsp":
        raise ValueError(
            f"{name}, solver='als', consistency={model.consistency!r}); expected "
            "consistency='bsp': each half needs all of the other one."
        )


def held_out(model: MatrixFactorization, eval_set: Any, ratings: Ratings) -> Dataset | None:
    """Return `fit`'s `eval_set` where the users of the training data are."""
    if eval_set is None:
        return None
    if model.loss == "implicit":
        raise ValueError(
            "eval_set with loss='implicit'; expected None: counts have no error, ask the "
            "fitted model for its `ranking` against them."
        )
    held_out = aligned(as_ratings(eval_set, duplicates=model.duplicates), ratings)
    if not held_out.nnz:
        raise DataError(
            "eval_set has no rating of a user and an item that are in the training data; "
            "expected at least one."
        )
    return held_out


def before(model: MatrixFactorization) -> Factored | None:
    """Return what to go on from; None to begin anew."""
    if not (model.warm_start and hasattr(model, "_factored")):
        return None
    if (k := model._factored.Q.shape[1]) != model.n_factors:
        raise ValueError(
            f"warm_start=True with n_factors={model.n_factors!r} after a fit with {k}; expected "
            "the same number: pass warm_start=False to begin anew."
        )
    return model._factored


LEAST = 1e-6
"""Penalty of least squares at least: a row of fewer ratings than factors has many solutions, and
along what no rating sees steps would be as long as rounding errors make them."""

GRAM = 6.0
"""What with counts the Gram matrix of n users of n items begins with, times the identity."""


def _init_scale(model: MatrixFactorization, n_users: int, n_items: int) -> float:
    """Return the one that was asked for, or suits the loss.

    With counts items are solved first, against users that mean nothing yet. The best Gram matrix
    of these grew with the root of the items for each user in all that was measured: see
    docs/decisions/0032-counts-begin-with-a-gram-matrix.md.
    """
    if model.init_scale is not None:
        return float(model.init_scale)
    if model.loss == "squared":
        return 0.01
    return GRAM * math.sqrt(model.n_factors * n_items / n_users) / n_users


def to_train(
    model: MatrixFactorization, dataset: Dataset, found: Summary, *, warm: bool, tol: float | None
) -> SGDFactors | ALSFactors:
    """Return tables and steps for ratings of which `found` is known."""
    seed = int(np.random.SeedSequence(model.random_state).generate_state(1)[0])
    biases = model.loss == "squared" if model.biases is None else bool(model.biases)
    init_scale = _init_scale(model, dataset.n_rows, dataset.n_features)
    if solver_of(model) == "als":
        implicit = model.loss == "implicit"
        return ALSFactors(
            n_items=dataset.n_features,
            n_factors=model.n_factors,
            biases=biases,
            implicit=implicit,
            reg=max(float(model.reg), LEAST),
            confidence=float(model.confidence),
            center=0.0 if implicit else found.mean,
            cg_steps=model.cg_steps,
            init_scale=init_scale,
            seed=seed,
            tol=tol,
            patience=model.n_iter_no_change,
        )
    return SGDFactors(
        n_items=dataset.n_features,
        n_factors=model.n_factors,
        biases=biases,
        eta=float(model.learning_rate),
        reg=float(model.reg),
        center=found.mean,
        unit=found.unit,
        n_passes=model.max_iter,
        n_blocks=dataset.n_partitions,
        discount=model.consistency != "bsp",
        init_scale=init_scale,
        seed=seed,
        warm=warm,
    )
