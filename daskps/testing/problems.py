"""Small problems of every model family, drawn from a seed, to run chaos on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import dask
import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.base import clone

from daskps._api import (
    Dataset,
    FactorizationMachine,
    LatentDirichletAllocation,
    LinearRegression,
    LinearSVC,
    LogisticRegression,
    MatrixFactorization,
    from_arrays,
    read_ratings,
)

Consistency = Literal["bsp", "ssp", "asp"]

PARTITIONS = 8


@dataclass(frozen=True)
class Problem:
    """An estimator, what it is fitted to, and how good it must be."""

    estimator: Any
    fit: Callable[[Any], Any]
    quality: Callable[[Any], float] | None = None
    check: Callable[[Any], None] | None = None


@cache
def rows(n_rows: int = 60_000, *, held_out: bool = False) -> tuple[sp.csr_array, Any]:
    """Return sparse rows whose first columns are hot, and labels of a planted model."""
    n_features, nnz = 500, 10
    truth = np.random.default_rng(0).normal(size=n_features)
    rng = np.random.default_rng([0, int(held_out)])
    columns = (n_features * rng.random((n_rows, nnz)) ** 2).astype(np.int64)
    values = rng.random(n_rows * nnz, np.float32) + 0.5
    indptr = np.arange(0, n_rows * nnz + 1, nnz)
    X = sp.csr_array((values, columns.ravel(), indptr), shape=(n_rows, n_features))
    X.sum_duplicates()
    y = (rng.random(n_rows) < 1 / (1 + np.exp(-(X @ truth)))).astype(np.float64)
    return X, y


@cache
def _dataset() -> Dataset:
    return from_arrays(*rows(), n_partitions=PARTITIONS)


def _logistic_loss(scores: Any, y: Any) -> Any:
    return np.logaddexp(0, scores) - y * scores


def _hinge_loss(scores: Any, y: Any) -> Any:
    return np.maximum(0, 1 - (2 * y - 1) * scores)


def _squared_error(scores: Any, y: Any) -> Any:
    return (scores - y) ** 2


def _steps(
    model: Any, loss: Callable[[Any, Any], Any], *, scores: str = "decision_function", **given: Any
) -> Problem:
    """Return a problem of a model that takes steps over rows, whose held-out `loss` counts."""
    options = {"tol": None, "rows_per_clock": 2000, "random_state": 0, "progress": False, **given}

    def quality(fitted: Any) -> float:
        X, y = rows(20_000, held_out=True)
        return float(np.mean(loss(getattr(fitted, scores)(X), y)))

    return Problem(model(max_iter=10, **options), lambda m: m.fit(_dataset()), quality)


def _logistic(consistency: Consistency, replicas: int = 0) -> Problem:
    options: dict[str, Any] = {"consistency": consistency, "replicas": replicas}
    return _steps(LogisticRegression, _logistic_loss, alpha=1e-3, **options)


def _vectors(consistency: Consistency) -> Problem:
    return _steps(LinearSVC, _hinge_loss, consistency=consistency, alpha=1e-3)


def _least_squares(consistency: Consistency) -> Problem:
    options: dict[str, Any] = {"consistency": consistency, "alpha": 1e-3}
    return _steps(LinearRegression, _squared_error, scores="predict", **options)


def _machine(consistency: Consistency) -> Problem:
    options: dict[str, Any] = {"n_factors": 4, "consistency": consistency, "alpha": 1e-3}
    return _steps(FactorizationMachine, _logistic_loss, **options)


@cache
def _ratings() -> Any:
    rng = np.random.default_rng(0)
    keys = rng.choice(2000 * 300, 60_000, replace=False)
    users, items = np.divmod(keys, 300)
    taste = np.sin(users * 0.7) * np.cos(items * 1.3)
    stars = np.clip(np.rint(3 + 1.5 * taste + 0.5 * rng.normal(size=len(keys))), 1, 5)
    frame = {"user": users, "item": items, "rating": stars}
    return read_ratings(pd.DataFrame(frame), n_partitions=4)


def _factors(**options: Any) -> Problem:
    model = MatrixFactorization(8, random_state=0, **options)
    explicit = options.get("loss") != "implicit"
    quality = (lambda m: float(m.rmse(_ratings()))) if explicit else None
    return Problem(model, lambda m: m.fit(_ratings()), quality)


@cache
def corpus() -> sp.csr_array:
    """Return counts of words in documents of planted topics, some of them empty.

    So few topics, in documents so long, are found from any beginning and in any order (200 calm
    runs of 200). Of six topics in documents half as long a calm run takes two for one in one of
    twelve times, and is off by 2.5 % then.
    """
    rng = np.random.default_rng(0)
    phi = rng.dirichlet(np.full(120, 0.05), 3)
    theta = rng.dirichlet(np.full(3, 0.3), 240)
    lengths = rng.integers(60, 120, 240) * (rng.random(240) < 0.95)
    counts = [rng.multinomial(n, t @ phi) for n, t in zip(lengths, theta, strict=True)]
    return sp.csr_array(np.array(counts))


@cache
def _documents() -> Dataset:
    return from_arrays(corpus(), n_partitions=4, shuffle=False)


def _exact(model: Any) -> None:
    """Assert that every token is counted once in the words' and in the documents' counts."""
    X = corpus()
    words, docs = model.topic_word_counts_, model.doc_topic_counts_
    np.testing.assert_array_equal(words.sum(axis=0), X.sum(axis=0))
    np.testing.assert_array_equal(docs.sum(axis=1), X.sum(axis=1))
    np.testing.assert_array_equal(docs.sum(axis=0), words.sum(axis=1))


def _topics(consistency: Consistency) -> Problem:
    model = LatentDirichletAllocation(
        3,
        doc_topic_prior=0.2,
        topic_word_prior=0.05,
        max_iter=60,
        sweeps_per_clock=1,
        consistency=consistency,
        random_state=0,
        progress=False,
    )
    return Problem(model, lambda m: m.fit(_documents()), check=_exact)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "lr-bsp": lambda: _logistic("bsp"),
    "lr-ssp": lambda: _logistic("ssp"),
    "lr-asp": lambda: _logistic("asp"),
    "lr-bsp-replicas": lambda: _logistic("bsp", replicas=1),
    "lr-ssp-replicas": lambda: _logistic("ssp", replicas=1),
    "svm-bsp": lambda: _vectors("bsp"),
    "svm-ssp": lambda: _vectors("ssp"),
    "svm-asp": lambda: _vectors("asp"),
    "linear-bsp": lambda: _least_squares("bsp"),
    "linear-ssp": lambda: _least_squares("ssp"),
    "linear-asp": lambda: _least_squares("asp"),
    "fm-bsp": lambda: _machine("bsp"),
    "fm-ssp": lambda: _machine("ssp"),
    "fm-asp": lambda: _machine("asp"),
    "mf-sgd": lambda: _factors(max_iter=10),
    "mf-ssp": lambda: _factors(max_iter=10, consistency="ssp"),
    "mf-asp": lambda: _factors(max_iter=10, consistency="asp"),
    "mf-als": lambda: _factors(loss="implicit", max_iter=6),
    "lda-bsp": lambda: _topics("bsp"),
    "lda-ssp": lambda: _topics("ssp"),
    "lda-asp": lambda: _topics("asp"),
}
"""By name: the model and the consistency."""


def warm() -> None:
    """Train each model a little, so that what it needs is compiled here."""
    # threads would be lost in a fork: those of Dask end here
    with ThreadPoolExecutor(1) as pool, dask.config.set(pool=pool):
        for make in PROBLEMS.values():
            problem = make()
            problem.fit(clone(problem.estimator).set_params(max_iter=1))
