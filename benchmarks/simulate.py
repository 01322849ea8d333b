"""The simulator beside real runs, and what it says about many workers.

``check`` trains models whose steps sleep, on clusters of 2 to 8 worker processes of this machine,
and compares seconds per clock with the simulation; what a task costs is measured at 2 workers
first. The other parts only simulate; `docs/scaling.md` is about what they say::

    python -m benchmarks.simulate --only check     # two minutes, if nothing else runs
    python -m benchmarks.simulate                  # all of it, ten minutes
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import cloudpickle  # noqa: TID251  # so that workers need not find this file
import numpy as np
from distributed import Client, LocalCluster, get_worker
from rich.console import Console
from rich.table import Table

from daskps.data import Dataset, Partition, as_dataset
from daskps.run.launch import RunOptions, run_training
from daskps.run.plan import StepServer
from daskps.run.policy import Policy
from daskps.server.keys import KeySet, whole_table
from daskps.server.tables import Placement, TableSpec
from daskps.server.updaters import Add
from daskps.testing.costs import Costs, Result
from daskps.testing.simulator import simulate

cloudpickle.register_pickle_by_value(sys.modules[__name__])

console = Console(soft_wrap=True)
CLOCKS = 10
DAY = 86400.0


@dataclass(frozen=True)
class Sleeper:
    """A model whose steps sleep, longer on some workers, so that cores are not what is short."""

    seconds: float
    rows: int = 64
    slow: Mapping[str, float] | None = None
    delayed: float = 0.0
    """Share of the tasks that take five times as long, by chance."""

    def tables(self) -> tuple[TableSpec, ...]:
        """Return one small table."""
        return (TableSpec("w", self.rows, 1, Add("float32")),)

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> KeySet:
        """Return all keys."""
        return whole_table(placements["w"])

    def step(self, data: KeySet, server: StepServer) -> Mapping[str, float]:
        """Pull, sleep, push."""
        (rows,), _ = server.pull([data])
        factor = (self.slow or {}).get(str(get_worker().name), 1.0)
        factor *= 5.0 if random.random() < self.delayed else 1.0  # a copy may be lucky
        time.sleep(self.seconds * factor)
        server.push([data], [np.ones_like(rows)], samples=1)
        return {"loss": 1.0, "samples": 1.0}

    def evaluate(self, data: Any, server: StepServer) -> Mapping[str, float]:
        """Refuse: nothing is held out."""
        raise AssertionError


def data(n_partitions: int) -> Dataset:
    return as_dataset(np.ones((n_partitions, 1), np.float32), n_partitions=n_partitions)


def real(
    cluster: LocalCluster, client: Client, n: int, per_worker: int, staleness: int, model: Sleeper
) -> tuple[float, float]:
    """Return seconds per clock of a real run, the first clock aside, and the tasks' own seconds."""
    cluster.scale(n)
    client.wait_for_workers(n, timeout=120)
    options = RunOptions(
        consistency="ssp" if staleness else "bsp",
        staleness=max(1, staleness),
        max_iter=CLOCKS,
    )
    # workers that have just come import, and meet each other, in their first clocks
    run_training(model, data(n * per_worker), replace(options, max_iter=2), client=client)
    ledger = run_training(model, data(n * per_worker), options, client=client).ledger
    ends = ledger.to_xarray()["seconds"].to_numpy()
    own = median(m["seconds"] for c in range(1, CLOCKS) for m in ledger.parts[c].values())
    return float(ends[-1] - ends[0]) / (CLOCKS - 1), own


def simulated(
    n: int, per_worker: int, staleness: float, costs: Costs, *, seed: int = 0, **policy: Any
) -> Result:
    wanted = {"n_shards": n, "n_clocks": CLOCKS, "staleness": staleness, **policy}
    return simulate(Policy(n_partitions=n * per_worker, **wanted), costs, n, seed=seed)


def calibrate(cluster: LocalCluster, client: Client) -> Costs:
    """Measure what a task costs besides its computing, at 2 workers."""
    per_worker = 16
    clock, own = real(cluster, client, 2, per_worker, 0, Sleeper(0.0))
    # one after the other through driver and scheduler, which are slower than 2 workers here
    serial = clock / (2 * per_worker)
    console.print(f"a task without work: {own * 1e3:.1f} ms on its worker, {serial * 1e3:.2f} each")
    return Costs(compute=0.0, dispatch=serial, overhead=own, latency=0.0)


CASES = (
    *((2, 4, 0, ""), (4, 4, 0, ""), (4, 4, 3, "1, by 5 x"), (8, 2, 0, ""), (8, 2, 3, "")),
    *((4, 4, 3, "5 % of tasks"), (4, 8, 3, "5 % of tasks")),
)
"""Workers, partitions a worker, staleness, what is slow."""
SEEDS = 20
"""Simulated runs of which the mean is taken where delays come by chance."""


def check() -> None:
    """Compare with real runs whose steps sleep."""
    seconds, slow = 0.2, {"0": 5.0}
    table = Table("workers", "partitions", "staleness", "slow", "real s", "simulated s", "off")
    options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster) as client:
        costs = replace(calibrate(cluster, client), compute=seconds)
        for n, per_worker, bound, late in CASES:
            one, some = late.startswith("1"), late.startswith("5")
            model = Sleeper(seconds, slow=slow if one else None, delayed=0.05 * some)
            measured, _ = real(cluster, client, n, per_worker, bound, model)
            planned = replace(costs, slow={0: 5.0} if one else {}, delayed=0.05 * some)
            runs = [
                simulated(n, per_worker, bound, planned, seed=seed).seconds_per_clock
                for seed in range(SEEDS if some else 1)
            ]
            expected = sum(runs) / len(runs)
            table.add_row(
                *(str(n), str(n * per_worker), str(bound), late),
                *(f"{measured:.3f}", f"{expected:.3f}", f"{expected / measured - 1:+.0%}"),
            )
    console.print(table)


def stragglers() -> None:
    """Print what a slow worker, or tasks that are delayed, cost beside the calm run."""
    base = Costs(compute=1.0, spread=0.1)
    for title, late in (
        ("one of four workers 5 x slower", replace(base, slow={0: 5.0})),
        ("5 % of the tasks 5 x slower", replace(base, delayed=0.05)),
    ):
        table = Table(
            *("partitions/worker", "consistency", "calm s", "plain", "tasks roam", "copies"),
            *("spared too", "idle s", "less"),
            title=f"{title}; means of {SEEDS} runs",
        )
        for k in (1, 2, 4, 8):
            for staleness in (0, 3):
                _straggle(table, base, late, k, staleness)
        console.print(table)


def _straggle(table: Table, base: Costs, late: Costs, k: int, staleness: int) -> None:
    def mean(costs: Costs, **policy: Any) -> tuple[float, float]:
        runs = [
            simulated(4, k, staleness, costs, n_clocks=20, seed=seed, **policy)
            for seed in range(SEEDS)
        ]
        return sum(r.seconds for r in runs) / SEEDS, sum(r.waited for r in runs) / SEEDS

    calm, _ = mean(base)
    alone = replace(late, spare=False)
    runs = [
        mean(replace(alone, roam=False), speculate=False),
        mean(alone, speculate=False),
        mean(alone),
        mean(late),
    ]
    name = "BSP" if staleness == 0 else f"SSP({staleness})"
    ratios = [f"{seconds / calm:.2f} x" for seconds, _ in runs]
    plain, least = runs[0][1], runs[-1][1]
    idle = f"{plain:.1f} to {least:.1f}", f"{plain / least:.1f} x"
    table.add_row(str(k), name, f"{calm:.1f}", *ratios, *idle)


def scale() -> None:
    """Print from where on driver and scheduler are the limit."""
    table = Table(
        *("workers", "task s", "s/clock", "ideal", "driver busy", "losses", "recoveries"),
        *("recovering s", "wall s"),
        title="2 partitions a worker, SSP(3), a worker lives 30 days, a cut every 2 clocks",
    )
    for n in (10, 100, 1000, 10_000):
        for seconds in (1.0, 10.0, 60.0):
            clocks = 20 if n < 10_000 else 6
            costs = Costs(compute=seconds, spread=0.1, mean_life=30 * DAY, cut=4e9)
            begun = time.perf_counter()
            run = simulated(n, 2, 3, costs, n_clocks=clocks, checkpoint_clocks=2)
            table.add_row(
                *(str(n), f"{seconds:g}", f"{run.seconds_per_clock:.1f}", f"{2 * seconds:g}"),
                *(f"{run.driver:.0%}", str(run.losses), str(run.recoveries)),
                *(f"{run.recovering:.0f}", f"{time.perf_counter() - begun:.0f}"),
            )
    console.print(table)


def staleness() -> None:
    """Print what waiting for each other costs, by staleness, where 5 % of tasks are delayed."""
    table = Table("staleness", "s/clock", "busy", title="100 workers x 4 tasks of 1 s, 5 % of 5 s")
    for bound in (0, 1, 2, 3, 5, 10):
        costs = Costs(compute=1.0, spread=0.2, delayed=0.05)
        run = simulated(100, 4, bound, costs, n_clocks=40)
        table.add_row(str(bound), f"{run.seconds_per_clock:.2f}", f"{run.busy:.0%}")
    console.print(table)


def quorum() -> None:
    """Print what waiting for most partitions only saves, where 5 % of tasks are delayed."""
    shares = (1.0, 0.95, 0.9, 0.75)
    title = "s/clock: 100 workers, tasks of 1 s, 5 % of 5 s"
    table = Table("partitions/worker", "staleness", *(f"{q:.0%}" for q in shares), title=title)
    costs = Costs(compute=1.0, spread=0.2, delayed=0.05)
    for per_worker in (1, 4):
        for bound in (1, 3):
            runs = [simulated(100, per_worker, bound, costs, n_clocks=40, quorum=q) for q in shares]
            found = (f"{run.seconds_per_clock:.2f}" for run in runs)
            table.add_row(str(per_worker), str(bound), *found)
    console.print(table)


def shards() -> None:
    """Print what few shards cost."""
    table = Table(
        *("shards", "1 Gb/s", "10 Gb/s"),
        title="s/clock: 100 workers, tasks of 10 s that pull and push 100 MB",
    )
    for n in (5, 10, 25, 50, 100):
        found = []
        for bandwidth in (1.25e8, 1.25e9):
            costs = Costs(compute=10.0, spread=0.1, pulled=1e8, pushed=1e8, bandwidth=bandwidth)
            found.append(simulated(100, 1, 3, costs, n_shards=n).seconds_per_clock)
        table.add_row(str(n), *(f"{x:.1f}" for x in found))
    console.print(table)


def intervals() -> None:
    """Print how long a run takes by the clocks between two cuts."""
    table = Table(
        *("clocks between cuts", "BSP s", "losses"),
        title="50 workers, 200 clocks of 20 s; a worker lives a day; a cut holds up for 5 s",
    )
    for every in (1, 2, 4, 8, 16, 32):
        costs = Costs(compute=10.0, spread=0.1, mean_life=DAY, cut=4e9, freeze=5.0, restart=60.0)
        runs = [
            simulate(
                Policy(n_partitions=100, n_shards=50, n_clocks=200, checkpoint_clocks=every),
                *(costs, 50),
                seed=seed,
            )
            for seed in range(3)
        ]
        mean = sum(r.seconds for r in runs) / len(runs)
        table.add_row(str(every), f"{mean:.0f}", str(sum(r.losses for r in runs) / len(runs)))
    console.print(table)


def billion() -> None:
    """Print what a pass over 10^10 rows with 10^9 features takes on 1,000 workers."""
    table = Table(
        *("link", "consistency", "s a pass", "busy", "recoveries"),
        title="2,000 partitions of 5 M rows; 30 M features each; kernel 1.9 M rows/s",
    )
    for gigabits in (1, 10, 25):
        for bound in (0, 3):
            costs = Costs(
                compute=5e6 / 1.9e6,
                spread=0.1,
                delayed=0.05,
                pulled=3e7 * 12,
                pushed=3e7 * 16,
                bandwidth=gigabits * 1.25e8,
                cut=1.2e10,
                mean_life=3 * DAY,
            )
            run = simulated(1000, 2, bound, costs, n_clocks=10, checkpoint_clocks=5)
            name = "BSP" if bound == 0 else f"SSP({bound})"
            spent = f"{run.seconds_per_clock:.0f}"
            table.add_row(f"{gigabits} Gb/s", name, spent, f"{run.busy:.0%}", str(run.recoveries))
    console.print(table)


PARTS = (check, stragglers, scale, staleness, quorum, shards, intervals, billion)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parts = {part.__name__: part for part in PARTS}
    parser.add_argument("--only", default=",".join(parts), help=f"some of {','.join(parts)}")
    for name in parser.parse_args().only.split(","):
        parts[name]()


if __name__ == "__main__":
    main()
