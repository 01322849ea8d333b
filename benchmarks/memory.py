"""Memory of a training run by the number of features: driver, workers, the whole cluster.

Trains logistic regression with AdaGrad on a cluster of 2 worker processes, the data on disk, and
samples the private memory (USS) of every process all the while. What is reported is the highest
sum of them at one time, less what they took before the run and what the data take in memory.
Seconds a pass are those of a second run, which nobody samples. Every number of features has
processes of its own. Run it from the project's root::

    python -m benchmarks.memory --data /tmp/daskps                   # 1, 10, 50, 100 million
    python -m benchmarks.memory --data /tmp/daskps --rows 20000 --features 10000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from distributed import Client
from rich.console import Console
from rich.table import Table

import daskps
from benchmarks._reference import Settings, load
from benchmarks.lr import WORKERS, csr, pass_seconds
from daskps.data import Dataset

BEAT = 0.05
"""Seconds between samples."""

Report = dict[str, Any]
console = Console(soft_wrap=True)


class Watch:
    """Samples the private memory of processes in a thread; `peak` holds the highest sum."""

    def __init__(self, processes: dict[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in processes.items()}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.before = self.sample()
        self.peak = self.before
        self.peaks = dict(self.before)

    def sample(self) -> dict[str, int]:
        """Return the private bytes of each process."""
        return {name: p.memory_full_info().uss for name, p in self._processes.items()}

    def _run(self) -> None:
        while not self._over.wait(BEAT):
            now = self.sample()
            self.peaks = {name: max(n, self.peaks[name]) for name, n in now.items()}
            if sum(now.values()) > sum(self.peak.values()):
                self.peak = now

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()


def dataset(options: argparse.Namespace, features: int) -> Dataset:
    """Return the training data on disk; made once a folder."""
    settings = Settings(options.rows, max(options.rows // 5, 1), features)
    store = options.data / f"memory-{options.rows}-{features}-{options.partitions}.zarr"
    if not store.exists():
        rows, _, _ = load(options.data, settings)
        n = options.partitions
        daskps.from_arrays(csr(rows, features), rows.y, store, n_partitions=n)
    return daskps.open_dataset(store)


def measure(options: argparse.Namespace, features: int) -> Report:
    """Train once and return the bytes of each process."""
    train = dataset(options, features)
    clf = daskps.LogisticRegression(
        1e-5, solver=options.solver, keys=options.keys, max_iter=options.passes, tol=None
    ).set_params(progress=False)
    small = daskps.from_arrays(np.eye(64, dtype=np.float32), np.arange(64) % 2, n_partitions=2)
    with daskps.local_cluster(WORKERS) as cluster, Client(cluster) as client:
        client.wait_for_workers(WORKERS)
        clf.fit(small)  # compiles, imports
        pids = {f"worker {i}": pid for i, pid in enumerate(client.run(os.getpid).values())}
        with Watch({"driver": os.getpid(), **pids}) as watch:
            clf.fit(train)
        # who samples holds up whoever asks for memory, longer the more a process has
        seconds = pass_seconds(clf.fit(train))
    return {
        "features": features,
        "before": watch.before,
        "peak": watch.peak,
        "peaks": watch.peaks,
        "data": 4 * train.nnz + 12 * train.n_rows,  # positions; row bounds and labels
        "seconds_a_pass": float(np.median(np.diff(seconds, prepend=0))),
    }


def beyond(report: Report) -> int:
    """Return the bytes of the cluster beyond the data."""
    taken = sum(report["peak"].values()) - sum(report["before"].values())
    return int(taken - report["data"])


def in_process_of_its_own(options: argparse.Namespace, features: int) -> Report:
    there = Path(options.data) / "memory.json"
    names = ("data", "rows", "partitions", "passes", "solver", "keys")
    settings = [x for name in names for x in (f"--{name}", str(getattr(options, name)))]
    alone = ["--features", str(features), "--alone", str(there)]
    subprocess.run([sys.executable, "-m", "benchmarks.memory", *settings, *alone], check=True)
    report: Report = json.loads(there.read_text())
    there.unlink()
    return report


def show(reports: Sequence[Report]) -> None:
    table = Table(title="MB at the peak, beyond what was there before", title_justify="left")
    columns = ("features", *reports[0]["peak"], "cluster", "data", "beyond the data", "s a pass")
    for column in columns:
        table.add_column(column, justify="right")
    for r in reports:
        more = [r["peak"][name] - r["before"][name] for name in r["peak"]]
        sizes = [f"{n / 1e6:,.0f}" for n in (*more, sum(more), r["data"], beyond(r))]
        table.add_row(f"{r['features']:,}", *sizes, f"{r['seconds_a_pass']:.2f}")
    console.print(table)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that keeps the data")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, nargs="+", default=[10**6, 10**7, 5 * 10**7, 10**8])
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--partitions", type=int, default=WORKERS)
    parser.add_argument("--solver", choices=["adagrad", "ftrl"], default="adagrad")
    parser.add_argument("--keys", choices=["range", "hash"], default="range")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.data.mkdir(parents=True, exist_ok=True)
    if options.alone is not None:
        options.alone.write_text(json.dumps(measure(options, options.features[0])))
        return
    reports = [in_process_of_its_own(options, features) for features in options.features]
    show(reports)
    if options.json is not None:
        options.json.write_text(json.dumps(reports, indent=1))


if __name__ == "__main__":
    main()
