"""xgboost's linear booster: parallel coordinate descent ("shotgun")."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks._peers import THREADS, Method, Point, Settings, Task


def train(task: Task, settings: Settings) -> Iterator[Point]:
    """Boost round by round; a round goes over all columns."""
    import xgboost

    X, judged = task.matrices()
    fixed = {"booster": "gblinear", "objective": "binary:logistic", "updater": "shotgun"}
    given = {**fixed, "nthread": THREADS, "base_score": float(task.train.y.mean()), **settings}
    rows = xgboost.DMatrix(X, task.train.y, nthread=THREADS)
    others = xgboost.DMatrix(judged, nthread=THREADS)
    booster = xgboost.Booster(given, [rows])
    seconds = 0.0
    for round_ in range(task.passes):
        start = time.perf_counter()
        booster.update(rows, round_)
        seconds += time.perf_counter() - start
        yield Point(seconds, booster.predict(others, output_margin=True))


def _setting(eta: float, alpha: float) -> dict[str, Any]:
    return {"eta": eta, "lambda": alpha, "alpha": 0}  # its alpha is the L1 penalty


METHODS = {
    "xgboost gblinear": Method(
        train,
        "xgboost",
        _setting(0.8, 1.7e-5),
        tuple(_setting(eta, alpha) for eta in (0.5, 0.8) for alpha in (1e-5, 1.7e-5)),
        tuple(range(1, 11)),
    )
}
