"""What elasticity and safety cost: replicas, checkpoints, clusters that change, a worker's death.

Trains logistic regression with AdaGrad on a cluster of worker processes, in pairs of runs that are
taken in turns, loading and compilation outside the clock. Run it from the project's root, on a
machine that does nothing else::

    python -m benchmarks.elastic --data /tmp/daskps                       # all four
    python -m benchmarks.elastic --data /tmp/daskps --only replicas
    python -m benchmarks.elastic --data /tmp/daskps --rows 20000 --features 10000 --wide 10000
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
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
from daskps.run import events as ev
from daskps.run.driver import listening
from daskps.testing.farm import Farm

Report = dict[str, Any]
console = Console(soft_wrap=True)
SIZES = (1, 2, 4, 1)
"""Workers, one after the other in one fit."""
ENOUGH = 0.85
"""Share of a fixed cluster's speed from which on a scaled one counts as settled."""
BEFORE, AFTER = 6.0, 16.0
"""Seconds before and after a kill that are looked at."""
EVERY = (2, 8)
"""Clocks between two checkpoints."""


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
    """Return rows/s and memory of workers without and with checkpoints, and what the disk does."""
    train, store = dataset(options, options.wide), options.data / "elastic-cuts.zarr"
    every: dict[str, int | None] = {"none": None, **{f"every {n}": n for n in EVERY}}
    peaks: dict[str, list[int]] = {name: [] for name in every}
    clock: list[float] = []

    def run(name: str, pids: Sequence[int]) -> float:
        shutil.rmtree(store, ignore_errors=True)
        n = every[name]
        cuts = {} if n is None else {"checkpoint": store, "checkpoint_every": n}
        clf = fit(train, max_iter=options.passes, **cuts)
        if n is None:
            clock.append(float(np.diff(clf.history_.seconds.values).mean()))
        # who samples holds up whoever asks for memory: peaks are those of another run
        shutil.rmtree(store, ignore_errors=True)
        with Watch({str(pid): pid for pid in pids}) as watch:
            fit(train, max_iter=options.passes, **cuts)
        grown = [watch.peaks[str(pid)] - watch.before[str(pid)] for pid in pids]
        peaks[name].append(max(grown))
        shutil.rmtree(store, ignore_errors=True)
        return speed(clf)

    with daskps.local_cluster(WORKERS, memory_limit=0) as cluster, Client(cluster) as client:
        pids = list(client.run(os.getpid).values())
        fit(train, max_iter=1)
        found = in_turns({name: lambda n=name: run(n, pids) for name in peaks}, options.repeats)
    plain, before = found["none"], median(peaks["none"])
    ratios = {n: [x / y for x, y in zip(found[n], plain, strict=True)] for n in found}
    nbytes = 8 * options.wide
    return {
        "rows_per_s": {name: median(x) for name, x in found.items()},
        "price": {name: 1 - median(x) for name, x in ratios.items()},
        "peak_mb": {name: median(x) / 1e6 for name, x in peaks.items()},
        "memory": {name: median(x) / before for name, x in peaks.items()},
        "clock": median(clock),
        "mb": nbytes / 1e6,
        "disk": disk(options.data / "elastic-disk", nbytes),
    }


def disk(path: Path, nbytes: int) -> dict[str, float]:
    """Return seconds, and those of a processor, that writing `nbytes` takes at the least here."""
    zeros, found = np.zeros(nbytes // 4, np.float32), {}
    for _ in range(2):  # the second time, the system has memory for the file
        start, used = time.perf_counter(), time.process_time()
        zeros.tofile(path)
        found = {"wall": time.perf_counter() - start, "processor": time.process_time() - used}
    path.unlink()
    return found


class Scaled:
    """Hears a run and scales its cluster: on to the next of `SIZES` after so many calm clocks.

    A step is calm from the moment on that every worker has its share of the slots. Before, workers
    start: processes that import, on the same cores.
    """

    def __init__(self, cluster: Any, clocks: int) -> None:
        self._cluster, self._clocks = cluster, clocks
        self._step, self._clock, self._calm = 0, 0, 0
        self._there = True
        self.asked = [time.monotonic()]
        """When each size was asked for."""
        self.ends: list[list[float]] = [[] for _ in SIZES]
        """When the clocks of each step ended."""

    def attach(self, engine: Any) -> None:
        """Take the engine, which ends the run."""
        self._engine = engine

    def __call__(self, told: Any, coordinator: Any) -> None:
        """Take an event or action of the run."""
        if self._step == len(SIZES):
            return
        if isinstance(told, ev.Moved):
            self._there |= told.n_shards == SIZES[self._step]
        if coordinator.min_clock > self._clock:
            self._clock = coordinator.min_clock
            self.ends[self._step].append(time.monotonic())
            self._calm += self._there
            # the clock after this one is common to everybody, and the last of a pass
            last = (self._clock + 1) % coordinator.policy.clocks_per_pass == 0
            if self._calm > self._clocks and (last or self._step + 1 < len(SIZES)):
                self._next()

    def _next(self) -> None:
        self._step, self._calm, self._there = self._step + 1, 0, False
        if self._step == len(SIZES):
            self._engine.post(ev.StopRequested("callback"))
            return
        self.asked.append(time.monotonic())
        # not in the driver's thread: a worker that leaves waits for the driver
        size = SIZES[self._step]
        threading.Thread(target=self._cluster.scale, args=(size,), daemon=True).start()

    def step(self, i: int, fixed: float) -> dict[str, float]:
        """Return seconds a clock of step `i` beside those of a fixed cluster, and when it is calm.

        ``back`` is how many seconds after the call five clocks begin of which the median takes no
        longer than 1 / 0.85 of what it does in a fixed cluster.
        """
        ends = np.array([self.asked[i], *self.ends[i]])
        took = np.diff(ends)
        five = np.median(np.lib.stride_tricks.sliding_window_view(took, 5), axis=1)
        good = np.flatnonzero(five <= fixed / ENOUGH)
        back = float(ends[good[0]] - ends[0]) if len(good) else np.inf
        calm = float(np.median(took[-self._clocks :]))
        return {"clock": calm, "of_fixed": fixed / calm, "back": back}


def measure_scale(options: argparse.Namespace) -> Report:
    """Return seconds a clock of clusters of fixed sizes, and of one that is scaled in a run."""
    train = dataset(argparse.Namespace(**{**vars(options), "partitions": 8}), options.features)
    runs = [_scaled(train, options.clocks) for _ in range(options.repeats)]
    steps = [
        {name: median(run["steps"][i][name] for run in runs) for name in runs[0]["steps"][i]}
        for i in range(len(SIZES))
    ]
    fixed = {n: median(run["fixed"][n] for run in runs) for n in set(SIZES)}
    all_ratios = [[step["of_fixed"] for step in run["steps"]] for run in runs]
    same = all(run["same"] for run in runs)
    return {"fixed": fixed, "steps": steps, "ratios": all_ratios, "bits_equal": same}


def _scaled(train: Dataset, clocks: int) -> Report:
    # without it passes after the tenth are others, which look at the data twice
    alike, fixed = {"compression": "bfloat16"}, {}
    with daskps.local_cluster(SIZES[0]) as cluster, Client(cluster):
        fit(train, max_iter=1, **alike)
        scaled = Scaled(cluster, clocks)
        with listening(scaled):
            elastic = fit(train, max_iter=10**6, **alike)
    for n in sorted(set(SIZES)):
        with daskps.local_cluster(n) as cluster, Client(cluster) as client:
            client.wait_for_workers(n)
            fit(train, max_iter=1, **alike)
            seconds = fit(train, max_iter=max(2, clocks // 4), **alike).history_.seconds.values
            fixed[n] = float(np.median(np.diff(seconds)))
    calm = fit(train, max_iter=elastic.n_iter_, **alike)
    same = bool((elastic.coef_ == calm.coef_).all())
    steps = [scaled.step(i, fixed[n]) for i, n in enumerate(SIZES)]
    return {"fixed": fixed, "steps": steps, "same": same}


def measure_kill(options: argparse.Namespace) -> Report:
    """Return what the others do, in SSP on four workers, once a shard's holder is killed."""
    train = dataset(argparse.Namespace(**{**vars(options), "partitions": 16}), options.features)
    runs = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder, Farm(4, Path(folder)) as farm:
            fit(train, max_iter=1)
            runs.append(_killed(train, farm, Path(folder) / "cuts.zarr"))
    return {name: median(run[name] for run in runs) for name in runs[0]}


def _killed(train: Dataset, farm: Farm, store: Path) -> dict[str, float]:
    done: list[tuple[float, float]] = []
    killed: list[float] = []

    def told(event: Any, _: Any) -> None:
        now = time.monotonic()
        if isinstance(event, ev.TaskDone):
            done.append((now, event.metrics["samples"]))
        if done and not killed and now - done[0][0] > BEFORE + 2:
            killed.append(now)
            farm.kill(farm.holders()[0])
        if killed and now - killed[0] > AFTER:
            raise KeyboardInterrupt

    ssp = {"consistency": "ssp", "staleness": 3, "checkpoint": store}
    with listening(told), contextlib.suppress(KeyboardInterrupt):
        fit(train, max_iter=10**6, **ssp)
    at, times, rows = killed[0], *map(np.array, zip(*done, strict=True))

    def rate(start: float, stop: float) -> float:
        return float(rows[(times >= start) & (times < stop)].sum()) / (stop - start)

    before = rate(at - BEFORE, at)
    back = (t for t in np.arange(0.0, AFTER - 2, 0.1) if rate(at + t, at + t + 2) > 0.9 * before)
    after = times[times >= at]
    return {
        "before": before,
        "others": rate(at, at + 8) / (0.75 * before),
        "stopped": float(np.diff(after, prepend=at).max()),
        "back": float(next(back, np.inf)),
    }


def show(report: Report) -> None:
    if "replicas" in report:
        table = Table("", "0", "1", "price", title="rows/s by replicas", title_justify="left")
        for name, x in report["replicas"].items():
            table.add_row(name, f"{x['0']:,.0f}", f"{x['1']:,.0f}", f"{x['price']:.1%}")
        console.print(table)
    if "checkpoints" in report:
        x = report["checkpoints"]
        table = Table("clocks", *x["rows_per_s"], title="checkpoints", title_justify="left")
        for name, row, form in (
            ("rows/s", "rows_per_s", ",.0f"),
            ("price", "price", ".1%"),
            ("peak MB", "peak_mb", ",.0f"),
            ("beside none", "memory", ".2f"),
        ):
            table.add_row(name, *(format(v, form) for v in x[row].values()))
        console.print(table)
        console.print(
            f"a clock takes {x['clock']:.2f} s; {x['mb']:,.0f} MB to the disk in one piece, "
            f"without a checksum: {x['disk']['wall']:.2f} s, {x['disk']['processor']:.2f} s of a "
            "processor"
        )
    if "kill" in report:
        x = report["kill"]
        console.print(
            f"one of four workers killed, SSP(3): {x['before']:,.0f} rows/s before; the others' in "
            f"the 8 s after: {x['others']:.0%} of their share; nothing ended for "
            f"{x['stopped']:.1f} s; as before after {x['back']:.1f} s"
        )
    if "scale" in report:
        x = report["scale"]
        names = ("workers", "s a clock", "fixed", "of a fixed cluster", "s until it is")
        table = Table(*names, title="one fit", title_justify="left")
        for i, step in enumerate(x["steps"]):
            each = ", ".join(f"{ratios[i]:.2f}" for ratios in x["ratios"])
            table.add_row(
                *(str(SIZES[i]), f"{step['clock']:.3f}", f"{x['fixed'][SIZES[i]]:.3f}"),
                f"{step['of_fixed']:.2f} ({each})",
                f"{step['back']:.1f}",
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
    parser.add_argument("--clocks", type=int, default=48, help="calm clocks at each size")
    parser.add_argument("--partitions", type=int, default=WORKERS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help="replicas, checkpoints, scale, kill, or some with commas")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    options = parser.parse_args(arguments)
    options.data.mkdir(parents=True, exist_ok=True)
    parts = {
        "replicas": measure_replicas,
        "checkpoints": measure_checkpoints,
        "scale": measure_scale,
        "kill": measure_kill,
    }
    chosen = options.only.split(",") if options.only else list(parts)
    report = {name: parts[name](options) for name in chosen}
    show(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
