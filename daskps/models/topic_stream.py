"""From a topic model and documents, a batch at a time, to weights of words: online fits.

Owns where a fit begins, how many steps it takes and what is read off at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from daskps.data import Dataset
from daskps.models.linear import state_of
from daskps.models.topic_online import LAMBDA, LOGS, TOTALS, Course, OnlineTopicModel
from daskps.run.launch import N_SLOTS, RunOptions, run_training
from daskps.run.state import State

F64 = NDArray[np.float64]

LARGEST = 1e300
"""What tables hold stays below this times the number of documents."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """What an online run leaves."""

    weights: F64
    """lambda - eta, shape (n_words, K)."""
    alpha: F64
    steps: int
    """Steps taken, those of earlier runs included."""
    passes: int
    reason: str
    history: xr.Dataset


@dataclass(frozen=True, slots=True)
class Start:
    """Where a fit begins."""

    weights: F64
    """lambda - eta, shape (n_words, K)."""
    alpha: F64
    eta: float
    steps: int
    """Steps that were taken."""

    @classmethod
    def of(
        cls, estimator: Any, dataset: Dataset, priors: tuple[F64, float], *, went_on: bool
    ) -> Start:
        """Return the model that is there if it is gone on with, or a random one."""
        alpha, eta = priors
        if went_on:
            steps = estimator.n_batch_iter_ - 1
            return cls(estimator._weights(), estimator.doc_topic_prior_, eta, steps)
        weights = first_weights(dataset.n_features, len(alpha), eta, estimator.random_state)
        return cls(weights, alpha, eta, 0)


def first_weights(n_words: int, K: int, eta: float, seed: int | None) -> F64:
    """Return lambda - eta before any document was seen, as scikit-learn draws lambda."""
    return np.random.default_rng(seed).gamma(100.0, 0.01, (n_words, K)) - eta


def cells(weights: F64) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.float32]]:
    """Return all weights as rows of cells: where rows begin, topics, weights."""
    n, K = weights.shape
    topics = np.tile(np.arange(K, dtype=np.uint32), n)
    return np.arange(n + 1, dtype=np.int64) * K, topics, weights.astype(np.float32).ravel()


def steps_per_pass(dataset: Dataset, batch_size: int) -> int:
    """Return into how many steps a pass is cut: about `batch_size` documents each."""
    return int(min(max(dataset.partition_rows), -(-dataset.n_rows // batch_size)))


def model(
    estimator: Any,
    n_docs: int,
    documents: float,
    start: Start,
    options: RunOptions,
) -> OnlineTopicModel:
    """Return what is trained.

    Raises
    ------
    ValueError
        If so many steps would forget so much that the weights cannot be kept in the tables.
    """
    steps = options.max_iter * options.clocks_per_pass
    rates = float(estimator.learning_decay), float(estimator.learning_offset)
    course = Course(*rates, start.steps, steps)
    if course.rates()[1][-1] < 1 / LARGEST:
        raise ValueError(
            f"{type(estimator).__name__}(learning_decay={course.learning_decay!r}, learning_offset="
            f"{course.learning_offset!r}) forgets too fast for {steps} steps in one fit; raise one "
            "of them or batch_size, or call partial_fit for some of the passes at a time."
        )
    return OnlineTopicModel(
        len(start.weights),
        tuple(start.alpha.tolist()),
        start.eta,
        course,
        n_docs / options.clocks_per_pass,
        documents,
        estimator.max_doc_update_iter,
        estimator.mean_change_tol,
        isinstance(estimator.doc_topic_prior, str),
    )


def fit_online(
    model: OnlineTopicModel, dataset: Dataset, options: RunOptions, weights: F64, client: Any
) -> Streamed:
    """Train from `weights`, which are lambda - eta."""
    outcome = run_training(model, dataset, options, start=_state(model, weights), client=client)
    _, c = model.course.rates()
    found, alpha = model.result(outcome.values, float(c[outcome.clock]))
    passes = outcome.clock // options.clocks_per_pass
    steps = model.course.begun + outcome.clock
    return Streamed(found, alpha, steps, passes, outcome.reason, outcome.ledger.to_xarray())


def _state(model: OnlineTopicModel, weights: F64) -> State:
    values: dict[str, Any] = {LAMBDA: weights, TOTALS: weights.sum(axis=0)[None]}
    if model.learn:
        values[LOGS] = np.zeros((1, weights.shape[1]))
    return state_of(model.tables(), values, {}, N_SLOTS)
