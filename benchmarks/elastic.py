"""What elasticity and safety cost: replicas, checkpoints, and clusters that grow and shrink.

Trains logistic regression with AdaGrad on a cluster of worker processes, in pairs of runs that are
taken in turns, loading and compilation outside the clock. Run it from the project's root, on a
machine that does nothing else::

    python -m benchmarks.elastic --data /tmp/daskps                       # all three
    python -m benchmarks.elastic --data /tmp/daskps --only replicas
    python -m benchmarks.elastic --data /tmp/daskps --rows 20000 --features 10000 --wide 10000
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from distributed import Client
from rich.console import Console
from rich.table import Table

import daskps
from benchmarks.lr import WORKERS
from benchmarks.memory import Watch, dataset
from daskps.data import Dataset

Report = dict[str, Any]
console = Console(soft_wrap=True)
SIZES = (1, 2, 4, 1)
"""Workers, one after the other in one fit."""


def fit(train: Dataset, **given: Any) -> daskps.LogisticRegression:
    options = {"alpha": 1e-5, "tol": None, "progress": False, **given}
    return daskps.LogisticRegression(**options).fit(train)


def speed(clf: daskps.LogisticRegression) -> float:
    """Return the rows/s from the end of the first clock to that of the last."""
    seconds, samples = clf.history_.seconds.values, clf.history_.samples.values
    return float(samples[1:].sum() / (seconds[-1] - seconds[0]))


def in_turns(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(repeats):
        for name in list(runs)[:: 1 if i % 2 else -1]:
            found[name].append(runs[name]())
    return found


def measure_replicas(options: argparse.Namespace) -> Report:
    """Return rows/s without and with replicas, and what they cost."""
    train, report = dataset(options, options.features), {}
    with daskps.local_cluster(WORKERS) as cluster, Client(cluster):
        for consistency in ("bsp", "ssp"):
            given = {"consistency": consistency, "max_iter": options.passes}
            fit(train, **given, replicas=1)
            runs = {
                str(n): lambda n=n, given=given: speed(fit(train, **given, replicas=n))
                for n in (0, 1)
            }
            found = in_turns(runs, options.repeats)
            pairs = zip(found["0"], found["1"], strict=True)
            price = 1 - median(doubled / alone for alone, doubled in pairs)
            report[consistency] = {**{n: median(x) for n, x in found.items()}, "price": price}
    return report


def measure_checkpoints(options: argparse.Namespace) -> Report:
    """Return rows/s and the workers' memory without and with a checkpoint every second clock."""
    train, store = dataset(options, options.wide), options.data / "elastic-cuts.zarr"
    peaks: dict[str, list[int]] = {"none": [], "every 2": []}

    def run(name: str, pids: Sequence[int]) -> float:
        shutil.rmtree(store, ignore_errors=True)
        cuts = {} if name == "none" else {"checkpoint": store, "checkpoint_every": 2}
        with Watch({str(pid): pid for pid in pids}) as watch:
            clf = fit(train, max_iter=options.passes, **cuts)
        grown = [watch.peaks[str(pid)] - watch.before[str(pid)] for pid in pids]
        peaks[name].append(max(grown))
        shutil.rmtree(store, ignore_errors=True)
        return speed(clf)

    with daskps.local_cluster(WORKERS, memory_limit=0) as cluster, Client(cluster) as client:
        pids = list(client.run(os.getpid).values())
        fit(train, max_iter=1)
        found = in_turns({name: lambda n=name: run(n, pids) for name in peaks}, options.repeats)
    pairs = zip(*found.values(), strict=True)
    return {
        "rows_per_s": {name: median(x) for name, x in found.items()},
        "price": 1 - median(stored / plain for plain, stored in pairs),
        "peak_mb": {name: median(x) / 1e6 for name, x in peaks.items()},
        "memory": median(peaks["every 2"]) / median(peaks["none"]),
    }


def measure_scale(options: argparse.Namespace) -> Report:
    """Return rows/s of clusters of fixed sizes, and of one that is scaled while it trains."""
    train = dataset(argparse.Namespace(**{**vars(options), "partitions": 8}), options.features)
    clocks = options.clocks
    fixed: dict[int, float] = {}
    for n in sorted(set(SIZES)):
        with daskps.local_cluster(n) as cluster, Client(cluster) as client:
            client.wait_for_workers(n)
            fit(train, max_iter=1)
            fixed[n] = speed(fit(train, max_iter=max(3, clocks // 4)))
    with daskps.local_cluster(SIZES[0]) as cluster, Client(cluster):
        fit(train, max_iter=1)
        elastic = daskps.LogisticRegression(
            alpha=1e-5, tol=None, progress=False, max_iter=clocks * len(SIZES)
        )

        def scale(clock: int, _: float) -> None:
            if clock % clocks == 0 and clock // clocks < len(SIZES):
                n = SIZES[clock // clocks]
                # not in the driver's thread: a worker that leaves waits for the driver
                threading.Thread(target=cluster.scale, args=(n,), daemon=True).start()

        elastic.fit(train, callback=scale)
    per_pass = len(elastic.history_.seconds) // elastic.n_iter_
    ends = elastic.history_.seconds.values[per_pass - 1 :: per_pass]
    calm = fit(train, max_iter=clocks * len(SIZES))
    steps = []
    for i, n in enumerate(SIZES):
        # the later half of a step: workers have come, slots and data have moved
        part = np.diff(ends[i * clocks + clocks // 2 : (i + 1) * clocks])
        steps.append({"workers": n, "rows_per_s": train.n_rows / float(np.median(part))})
        steps[-1]["of_fixed"] = steps[-1]["rows_per_s"] / fixed[n]
    same = bool((elastic.coef_ == calm.coef_).all())
    return {"fixed": fixed, "steps": steps, "bits_equal": same}


def show(report: Report) -> None:
    if "replicas" in report:
        table = Table("", "0", "1", "price", title="rows/s by replicas", title_justify="left")
        for name, x in report["replicas"].items():
            table.add_row(name, f"{x['0']:,.0f}", f"{x['1']:,.0f}", f"{x['price']:.1%}")
        console.print(table)
    if "checkpoints" in report:
        x = report["checkpoints"]
        table = Table("", *x["rows_per_s"], "", title="checkpoints", title_justify="left")
        table.add_row(
            "rows/s", *(f"{v:,.0f}" for v in x["rows_per_s"].values()), f"-{x['price']:.1%}"
        )
        table.add_row(
            "peak MB", *(f"{v:,.0f}" for v in x["peak_mb"].values()), f"x {x['memory']:.2f}"
        )
        console.print(table)
    if "scale" in report:
        x = report["scale"]
        table = Table("workers", "rows/s", "of a fixed cluster", title="one fit")
        for step in x["steps"]:
            table.add_row(
                str(step["workers"]), f"{step['rows_per_s']:,.0f}", f"{step['of_fixed']:.2f}"
            )
        console.print(table)
        console.print(f"bits as in a fixed cluster: {x['bits_equal']}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that keeps the data")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=1_000_000)
    parser.add_argument("--wide", type=int, default=10**8, help="features beside checkpoints")
    parser.add_argument("--passes", type=int, default=8)
    parser.add_argument("--clocks", type=int, default=16, help="passes at each size")
    parser.add_argument("--partitions", type=int, default=WORKERS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help="replicas, checkpoints, scale, or some with commas")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    options = parser.parse_args(arguments)
    options.data.mkdir(parents=True, exist_ok=True)
    parts = {
        "replicas": measure_replicas,
        "checkpoints": measure_checkpoints,
        "scale": measure_scale,
    }
    chosen = options.only.split(",") if options.only else list(parts)
    report = {name: parts[name](options) for name in chosen}
    show(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
