"""What a topic model's fit is to do, by its parameters and the data: priors, words, slices, sweeps.

The choices depend on the data's shape alone, so that BSP gives the same counts wherever it runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.data import Dataset
from daskps.errors import DataError
from daskps.models.parameters import _optional, _real, _whole, check_parameters
from daskps.models.topic_course import Course
from daskps.models.topic_model import ConductedTopicModel, TopicModel

CELLS = 2**25
"""Cells that a partition pulls at a clock, at most; a token has one."""
TOKENS = 5_000_000, 8_000_000
"""Tokens that a partition should draw at a clock, at first and later: fewer take less time than
what is around them."""
PATIENCE = 10
"""Sweeps after which priors are learnt anew."""
MOST = 4
"""Sweeps of a clock, at most, while topics form: more would be over counts that are too old."""

SOLVERS = ("gibbs", "online")
ONLY: dict[str, dict[str, Any]] = {
    "gibbs": {
        "learning_decay": 0.7,
        "learning_offset": 10.0,
        "batch_size": 128,
        "total_samples": 1e6,
        "mean_change_tol": 1e-3,
        "max_doc_update_iter": 100,
    },
    "online": {"slices": None, "sweeps_per_clock": None},
}
"""What a solver does not look at, and its value."""
CHECKS = {
    "max_iter": (_optional(_whole(1)), "an integer >= 1 or None"),
    "learning_decay": (_real(0, 1, open_low=True), "a number above 0 and at most 1"),
    "learning_offset": (_real(0, math.inf), "a finite number >= 0"),
    "batch_size": (_whole(1), "an integer >= 1"),
    "total_samples": (_real(1, math.inf), "a finite number >= 1"),
    "mean_change_tol": (_real(0, math.inf), "a finite number >= 0"),
    "max_doc_update_iter": (_whole(1), "an integer >= 1"),
}
Priors = tuple[NDArray[np.float64], float]
"""Alpha, shape (K,), and eta."""


def check(estimator: Any, *, partial: bool = False) -> None:
    """Check every parameter, and that none is given that its solver would not look at.

    Raises
    ------
    ValueError
        Naming the parameter, its value and what was expected.
    """
    check_parameters(estimator)
    solver = estimator.solver
    name = f"{type(estimator).__name__}(solver={solver!r}"
    if partial and solver != "online":
        raise ValueError(
            f"partial_fit of {name}), which draws the topics of all documents again and again; use "
            "solver='online'."
        )
    for parameter, only in ONLY[solver].items():
        if (value := getattr(estimator, parameter)) != only:
            other = SOLVERS[1 - SOLVERS.index(solver)]
            raise ValueError(
                f"{name}, {parameter}={value!r}); expected {only!r}: it is of solver={other!r}."
            )
    if solver == "online" and _learnt(estimator.topic_word_prior):
        raise ValueError(
            f"{name}, topic_word_prior='auto'); expected a number or None: solver='gibbs' learns "
            "it. doc_topic_prior='auto' is learnt by both."
        )


def course_of(estimator: Any, tokens: int, n_partitions: int) -> Course:
    """Return the course for data of `tokens`; what the estimator is given stays."""
    slices, sweeps = estimator.slices, estimator.sweeps_per_clock
    if slices is None:
        slices = max(1, -(-tokens // CELLS))
    if sweeps is not None:
        return Course(slices, sweeps, sweeps)
    few, more = (max(1, n * n_partitions * slices // tokens) for n in TOKENS)
    first = min(MOST, few)
    # priors are learnt between clocks, and with staleness counts are older than a clock
    grows = estimator.consistency == "bsp" and not _learns(estimator)
    return Course(slices, first, more if grows else first)


def words_of(dataset: Dataset, vocabulary: Sequence[str] | None) -> NDArray[Any] | None:
    """Return the words of the columns.

    Raises
    ------
    DataError
        If there is another number of them, or one comes twice.
    """
    if vocabulary is None:
        return dataset.feature_names
    words = np.array([str(w) for w in vocabulary])
    if len(words) != dataset.n_features:
        raise DataError(
            f"vocabulary has {len(words)} words, the data {dataset.n_features} columns; give one "
            "word for each column."
        )
    if len(set(words.tolist())) < len(words):
        raise DataError("vocabulary has a word twice; expected each once.")
    return words


def prior_of(given: Any, K: int) -> NDArray[np.float64]:
    """Return alpha, shape (K,).

    Raises
    ------
    ValueError
        If it is not a number above 0, or K of them.
    """
    try:
        alpha = np.asarray(1 / K if given is None or _learnt(given) else given, np.float64)
        good = alpha.shape in ((), (K,)) and bool((np.isfinite(alpha) & (alpha > 0)).all())
    except (TypeError, ValueError):
        good = False
    if not good or isinstance(given, bool):
        raise ValueError(
            f"LatentDirichletAllocation(doc_topic_prior={given!r}); expected None, 'auto', a "
            f"number > 0 or {K} of them, one for each topic."
        )
    return np.broadcast_to(alpha, K).copy()


def _learnt(given: Any) -> bool:
    return isinstance(given, str) and given == "auto"


def _learns(estimator: Any) -> tuple[str, ...]:
    """Return which priors are learnt."""
    priors = {"alpha": estimator.doc_topic_prior, "beta": estimator.topic_word_prior}
    return tuple(name for name, given in priors.items() if _learnt(given))


def priors(estimator: Any) -> Priors:
    """Return alpha and eta as they are at first."""
    K = estimator.n_components
    return prior_of(estimator.doc_topic_prior, K), beta_of(estimator.topic_word_prior, K)


def beta_of(given: Any, K: int) -> float:
    """Return the first eta."""
    return 1 / K if given is None or _learnt(given) else float(given)


def model(
    estimator: Any, n_words: int, alpha: NDArray[np.float64], beta: float, how: Course
) -> TopicModel:
    """Return what is trained."""
    kind = ConductedTopicModel if estimator.consistency == "bsp" else TopicModel
    learn = _learns(estimator)
    every = how.slices * max(1, PATIENCE // how.first)
    seed = np.random.SeedSequence(estimator.random_state).generate_state(1, np.uint64)[0]
    return kind(n_words, tuple(alpha.tolist()), beta, how, int(seed), learn, every)
