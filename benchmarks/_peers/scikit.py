"""scikit-learn: averaged and plain stochastic gradients, and SAGA; one thread, it has no more."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier

from benchmarks._peers import Method, Point, Settings, Task


def sgd(task: Task, settings: Settings) -> Iterator[Point]:
    """Go over the rows pass by pass."""
    X, judged = task.matrices(np.float64)  # it would copy float32 in every pass
    clf = SGDClassifier(loss="log_loss", random_state=0, **settings)
    seconds = 0.0
    for _ in range(task.passes):
        start = time.perf_counter()
        clf.partial_fit(X, task.train.y, classes=[0, 1])
        seconds += time.perf_counter() - start
        yield Point(seconds, clf.decision_function(judged))


def saga(task: Task, settings: Settings) -> Iterator[Point]:
    """Fit from the beginning for each number of passes: its gradients are not kept."""
    X, judged = task.matrices()
    C = 1 / (settings["alpha"] * X.shape[0])
    for passes in task.stops:
        clf = LogisticRegression(solver="saga", C=C, tol=0, max_iter=passes, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped on purpose
            start = time.perf_counter()
            clf.fit(X, task.train.y)
            seconds = time.perf_counter() - start
        yield Point(seconds, clf.decision_function(judged))


AVERAGED = {"average": True, "learning_rate": "constant", "alpha": 1e-6}
PLAIN = {"learning_rate": "invscaling", "power_t": 0.15}
METHODS = {
    "scikit-learn SGD, averaged": Method(
        sgd,
        "sklearn",
        {**AVERAGED, "eta0": 0.02},
        tuple({**AVERAGED, "eta0": eta0} for eta0 in (0.01, 0.02, 0.03, 0.05)),
        (1, 2, 3, 4, 5, 6),
    ),
    "scikit-learn SGD, plain": Method(
        sgd,
        "sklearn",
        {**PLAIN, "alpha": 1e-6, "eta0": 0.05},
        tuple({**PLAIN, "alpha": a, "eta0": e} for a in (1e-6, 1e-5) for e in (0.05, 0.1)),
        (1, 2, 3, 4, 5, 6),
    ),
    "scikit-learn SAGA": Method(
        saga,
        "sklearn",
        {"alpha": 3e-5},
        tuple({"alpha": alpha} for alpha in (3e-6, 1e-5, 1.7e-5, 3e-5)),
        (1, 2, 5, 10),
    ),
}
