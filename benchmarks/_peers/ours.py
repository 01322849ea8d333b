"""daskps itself, on a cluster of 2 worker processes with 1 thread each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

import daskps
from benchmarks._peers import THREADS, Method, Point, Settings, Task


def train(task: Task, settings: Settings) -> Iterator[Point]:
    """Take the times from one fit, and the models of its first passes from fits that end there.

    In BSP they have the same bits. The fit whose times count comes last: by then all is compiled.
    """
    data = daskps.from_arrays(task.matrices()[0], task.train.y, n_partitions=THREADS)
    given = {**settings, "tol": None, "progress": False}
    with daskps.local_cluster(THREADS) as cluster, Client(cluster):
        scores = []
        for passes in task.stops:
            first = daskps.LogisticRegression(**given, max_iter=passes).fit(data)
            scores.append(_scores(first, task))
        clf = daskps.LogisticRegression(**given, max_iter=task.passes).fit(data)
        if not np.array_equal(clf.coef_, first.coef_):
            raise RuntimeError("the passes that were timed are not those that were judged")
        ends = clf.history_.seconds.values.reshape(task.passes, -1).max(axis=1)
    for passes, found in zip(task.stops, scores, strict=True):
        yield Point(float(ends[passes - 1]), found)


def _scores(clf: Any, task: Task) -> NDArray[Any]:
    return clf.coef_[0][task.judged.ids].sum(axis=1, dtype=np.float64) + clf.intercept_[0]


def _method(solver: str, passes: tuple[int, ...]) -> Method:
    grid = tuple({"solver": solver, "alpha": alpha} for alpha in (5e-6, 1e-5, 2e-5, 4e-5))
    return Method(train, "daskps", grid[2], grid, passes, peer=False)


METHODS = {
    "daskps, adagrad": _method("adagrad", (1, 2, 3, 4, 5, 6)),
    "daskps, ftrl": _method("ftrl", (1, 2, 3, 4, 5, 6)),
    "daskps, lbfgs": _method("lbfgs", (5, 8, 12, 16, 20)),
}
