"""Pull and push between two worker processes, by size, through the client that models use.

A task on one worker pulls and pushes a table of plain sums whose only shard is on the other::

    python -m benchmarks.transport
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from distributed import Client, get_worker
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

import daskps
from daskps.run.dask_hub import DaskpsScheduler, shard_key
from daskps.run.dask_worker import DaskpsWorker, WorkerTransport
from daskps.run.host import ShardHost
from daskps.server.client import ParameterClient
from daskps.server.keys import whole_table
from daskps.server.layout import Layout, ShardRef
from daskps.server.spec import ServerSpec
from daskps.server.tables import TableSpec
from daskps.server.updaters import Add

N_SLOTS = 64
SIZES = (1 << 10, 1 << 20, 1 << 26)


def door_of(dask_worker: Any) -> Any:
    return dask_worker.plugins[DaskpsWorker.name].keeper.door


def exchange(spec: ServerSpec, layout: Layout, repeats: int) -> list[tuple[float, float]]:
    """Task: return the seconds of each pull and push."""
    plugin = get_worker().plugins[DaskpsWorker.name]
    client = ParameterClient(spec, layout, WorkerTransport(plugin, 30.0))
    keysets = [whole_table(spec.placements()["t"])]
    found = []
    for clock in range(repeats):
        start = time.perf_counter()
        rows, _ = client.pull(keysets, partition=0, clock=clock)
        between = time.perf_counter()
        client.push(keysets, rows, partition=0, clock=clock, samples=1.0)
        found.append((between - start, time.perf_counter() - between))
    return found


def measure(client: Client, size: int, repeats: int) -> dict[str, float]:
    """Return the median seconds of a pull and a push of `size` bytes."""
    spec = ServerSpec((TableSpec("t", size // 4, 1, Add("float32")),), N_SLOTS, 1, float("inf"))
    here, there = client.scheduler_info(n_workers=-1)["workers"]
    key = shard_key("transport", size, 0)
    args = (0, 0, spec, range(N_SLOTS), 1)
    shard = client.submit(ShardHost, *args, actor=True, key=key, workers=[there])
    shard.result(timeout=30)
    (door,) = client.run(door_of, workers=[there]).values()
    layout = Layout.place(N_SLOTS, {0: ShardRef(0, 0, there, key)})
    layout = replace(layout, refs={0: replace(layout.refs[0], door=door)})
    seconds = client.submit(exchange, spec, layout, repeats, workers=[here], pure=False).result()
    pulls, pushes = zip(*seconds[repeats // 5 :], strict=True)  # the first ones make buffers
    return {"bytes": size, "pull": median(pulls), "push": median(pushes)}


def show(found: Sequence[dict[str, float]]) -> None:
    table = Table(title="between two worker processes", title_justify="left")
    for column in ("size", "pull ms", "push ms", "pull GB/s", "push GB/s"):
        table.add_column(column, justify="right")
    for row in found:
        speeds = [row["bytes"] / row[k] / 1e9 for k in ("pull", "push")]
        times = [f"{row[k] * 1e3:.2f}" for k in ("pull", "push")]
        table.add_row(f"{row['bytes'] / 1e6:g} MB", *times, *(f"{s:.2f}" for s in speeds))
    Console(soft_wrap=True).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="bytes")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    options = parser.parse_args(arguments)
    with daskps.local_cluster(2) as cluster, Client(cluster, set_as_default=False) as client:
        client.register_plugin(DaskpsScheduler())
        client.register_plugin(DaskpsWorker())
        repeats = options.repeats
        found = [
            measure(client, n, repeats if n < 1 << 24 else max(repeats // 5, 5))
            for n in options.sizes
        ]
    show(found)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
