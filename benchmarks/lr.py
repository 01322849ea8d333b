"""Logistic regression on the reference data: speed, quality by passes, efficiency, concurrency.

Trains on a cluster of 2 worker processes with 1 thread each and in this process, data in memory,
beside the bare kernel on 2 threads; loading, compilation and evaluation are outside the clock. Run
it from the project's root, on a machine that does nothing else::

    python -m benchmarks.lr --data /tmp/daskps                  # two minutes
    python -m benchmarks.lr --data /tmp/daskps --rows 20000 --features 10000 --only speed
    python -m benchmarks.lr --data /tmp/daskps --peers --json lr.json

Rows/s vary with the machine and its neighbours; the efficiency is a ratio of passes that were taken
in turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import sparse
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss

import daskps
from benchmarks._bare import BareKernel
from benchmarks._reference import Rows, Settings, load
from daskps.data import Dataset
from daskps.kernels.linear import LOG_LOSS, Rule, curvature_of
from daskps.models.parameters import step_rates
from daskps.run import launch
from daskps.run.inprocess import InProcessEngine

WORKERS = 2
CONCURRENT = (1, 2, 8, 32)
GOAL = 0.490
"""Test log-loss whose time is reported."""

Report = dict[str, Any]
console = Console(soft_wrap=True)


def csr(rows: Rows, n_features: int) -> sparse.csr_array:
    n, width = rows.ids.shape
    ones = np.ones(n * width, np.float32)
    indptr = np.arange(0, n * width + 1, width, dtype=np.int32)  # scikit-learn takes no int64
    return sparse.csr_array((ones, rows.ids.ravel(), indptr), shape=(n, n_features))


def dataset_of(rows: Rows, n_features: int, n_partitions: int) -> Dataset:
    return daskps.from_arrays(csr(rows, n_features), rows.y, n_partitions=n_partitions)


def estimator(options: argparse.Namespace, **changes: Any) -> daskps.LogisticRegression:
    given = {
        "alpha": options.alpha,
        "solver": options.solver,
        "consistency": options.consistency,
        "max_iter": options.passes,
        "tol": None,
        "progress": False,
    }
    return daskps.LogisticRegression(**{**given, **changes})


def pass_seconds(clf: daskps.LogisticRegression) -> NDArray[np.float64]:
    """Return the seconds from the start of training to the end of each pass."""
    seconds = clf.history_.seconds.values
    return np.asarray(seconds.reshape(clf.n_iter_, -1).max(axis=1))


# -- speed ---------------------------------------------------------------------------------------


def measure_speed(train: Dataset, test: Dataset, options: argparse.Namespace) -> Report:
    """Take passes of the bare kernel, of this process and of a cluster in turns."""
    ftrl = options.solver == "ftrl"
    kappa = curvature_of(LOG_LOSS, ftrl=ftrl)
    rates = step_rates(train, LOG_LOSS, None, None, kappa=kappa)
    bare = BareKernel(train, Rule(ftrl, *rates, alpha2=options.alpha, kappa=kappa))
    bare.seconds_of_a_pass()
    taken: dict[str, list[float]] = {"bare kernel": [], "in process": [], "cluster": []}
    ratios: dict[str, list[float]] = {"in process": [], "cluster": []}
    ends: list[NDArray[np.float64]] = []
    with daskps.local_cluster(WORKERS) as cluster, Client(cluster, set_as_default=False) as client:
        with client.as_current():
            judged = estimator(options).fit(train, eval_set=test)  # compiles, outside the clock
        estimator(options, max_iter=1).fit(train)
        for _ in range(options.repeats):
            yardstick = [bare.seconds_of_a_pass() for _ in range(options.passes)]
            taken["bare kernel"] += yardstick
            alone = estimator(options).fit(train)
            with client.as_current():
                together = estimator(options).fit(train)
            ends.append(pass_seconds(together))
            for name, clf in (("in process", alone), ("cluster", together)):
                seconds = np.diff(pass_seconds(clf), prepend=0).tolist()
                taken[name] += seconds
                ratios[name].append(median(yardstick) / median(seconds))  # taken side by side
    loss = judged.history_.eval_loss.dropna("clock").values
    return {
        "rows_per_s": {k: _speeds(train.n_rows, v) for k, v in taken.items()},
        "efficiency": {name: median(found) for name, found in ratios.items()},
        "passes": [
            {"log_loss": float(x), "seconds": float(s)}
            for x, s in zip(loss, np.median(ends, axis=0), strict=True)
        ],
        "bytes_a_pass": {
            name: float(together.history_[f"{name}_bytes"].sum()) / options.passes
            for name in ("pulled", "pushed")
        },
        "clocks_a_pass": together.history_.sizes["clock"] // options.passes,
    }


def _speeds(n_rows: int, seconds: Sequence[float]) -> dict[str, float]:
    return {
        "median": n_rows / median(seconds),
        "slowest": n_rows / max(seconds),
        "fastest": n_rows / min(seconds),
    }


def show_speed(report: Report) -> None:
    table = Table(title="million rows/s a pass", title_justify="left")
    for column in ("", "median", "slowest", "fastest", "of the bare kernel"):
        table.add_column(column, justify="right" if column else "left")
    for name, speed in report["rows_per_s"].items():
        share = report["efficiency"].get(name)
        cells = [f"{speed[k] / 1e6:.2f}" for k in ("median", "slowest", "fastest")]
        table.add_row(name, *cells, "" if share is None else f"{share:.2f}")
    console.print(table)
    traffic = " and ".join(f"{n / 1e6:.1f} MB {k}" for k, n in report["bytes_a_pass"].items())
    console.print(f"a pass is {report['clocks_a_pass']} clocks; {traffic}\n")
    table = Table(title="on the cluster, by passes", title_justify="left")
    for column in ("pass", "seconds", "test log-loss"):
        table.add_column(column, justify="right")
    for number, row in enumerate(report["passes"], 1):
        table.add_row(str(number), f"{row['seconds']:.2f}", f"{row['log_loss']:.4f}")
    console.print(table)
    there = [row["seconds"] for row in report["passes"] if row["log_loss"] <= GOAL]
    said = f"after {there[0]:.2f} s" if there else "not reached"
    console.print(f"test log-loss {GOAL}: {said}\n")


# -- concurrency ---------------------------------------------------------------------------------


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Give the in-process engine a thread for each partition, however many processors there are."""
    before = launch.InProcessEngine
    launch.InProcessEngine = partial(InProcessEngine, n_threads=n)
    try:
        yield
    finally:
        launch.InProcessEngine = before


def measure_quality(data: tuple[Rows, Rows], options: argparse.Namespace) -> Report:
    """Train with 1 to 32 partitions that all work at the same time."""
    test = dataset_of(data[1], options.features, 1)
    found: Report = {}
    for n in CONCURRENT:
        train = dataset_of(data[0], options.features, n)
        for consistency in ("bsp", "ssp"):
            changes = {"max_iter": 2, "consistency": consistency}
            with threads(n):
                clf = estimator(options, **changes).fit(train, eval_set=test)
            losses = clf.history_.eval_loss.dropna("clock").values
            clocks = clf.history_.sizes["clock"] // clf.n_iter_
            found[f"{consistency} {n}"] = {"log_loss": losses.tolist(), "clocks_a_pass": clocks}
    return found


def show_quality(report: Report) -> None:
    base = report["bsp 1"]["log_loss"][-1]
    table = Table(title="test log-loss, by partitions that work at a time", title_justify="left")
    for column in ("", "clocks a pass", "after pass 1", "after pass 2", "to one partition"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in report.items():
        losses = [f"{x:.4f}" for x in row["log_loss"]]
        table.add_row(
            name, str(row["clocks_a_pass"]), *losses, f"{row['log_loss'][-1] - base:+.4f}"
        )
    console.print(table)


# -- scikit-learn --------------------------------------------------------------------------------


def measure_peers(data: tuple[Rows, Rows], options: argparse.Namespace) -> Report:
    """Take passes with scikit-learn's SGDClassifier, plain and averaged, in one thread."""
    X, X_test = (csr(rows, options.features).astype(np.float64) for rows in data)
    found: Report = {}
    for name, settings in {
        "SGDClassifier": {},
        "SGDClassifier, averaged": {"average": True, "learning_rate": "constant", "eta0": 0.02},
    }.items():
        clf = SGDClassifier(loss="log_loss", alpha=options.alpha, random_state=0, **settings)
        seconds, found[name] = 0.0, []
        for _ in range(options.passes):
            start = time.perf_counter()
            clf.partial_fit(X, data[0].y, classes=[0, 1])
            seconds += time.perf_counter() - start
            loss = log_loss(data[1].y, clf.predict_proba(X_test))
            found[name].append({"seconds": seconds, "log_loss": loss})
    return found


def show_peers(report: Report) -> None:
    table = Table(title="scikit-learn, one thread", title_justify="left")
    for column in ("", "pass", "seconds", "test log-loss"):
        table.add_column(column, justify="right" if column else "left")
    for name, passes in report.items():
        for number, row in enumerate(passes, 1):
            table.add_row(name, str(number), f"{row['seconds']:.2f}", f"{row['log_loss']:.4f}")
    console.print(table)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that keeps the data")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=1_000_000)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alpha", type=float, default=1e-5)
    parser.add_argument("--solver", choices=["adagrad", "ftrl"], default="adagrad")
    parser.add_argument("--consistency", choices=["bsp", "ssp", "asp"], default="bsp")
    parser.add_argument("--partitions", type=int, default=WORKERS)
    parser.add_argument("--only", choices=["speed", "quality"], help="leave the other out")
    parser.add_argument("--peers", action="store_true", help="scikit-learn beside it")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    settings = Settings(options.rows, max(options.rows // 5, 1), options.features)
    *data, best = load(options.data, settings)
    console.print(
        f"{options.rows:,} rows, {options.features:,} features, {options.solver}, "
        f"{options.consistency}; the truth has test log-loss {best:.4f}\n"
    )
    report: Report = {"options": {k: str(v) for k, v in vars(options).items()}, "truth": best}
    if options.only != "quality":
        train = dataset_of(data[0], options.features, options.partitions)
        report["speed"] = measure_speed(
            train, dataset_of(data[1], options.features, WORKERS), options
        )
        show_speed(report["speed"])
    if options.only != "speed":
        report["quality"] = measure_quality((data[0], data[1]), options)
        show_quality(report["quality"])
    if options.peers:
        report["peers"] = measure_peers((data[0], data[1]), options)
        show_peers(report["peers"])
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
