"""Matrix factorisation of as many users as no process should hold: seconds and memory a pass.

``python -m benchmarks.mf_large --users 10000000 --items 1000000 --ratings 100000000 --data DIR``
makes random ratings of low rank (a partition at a time, so that no process ever has all of them),
fits them on two worker processes with the users left in a store, and samples the memory of the
driver and of each worker every tenth of a second.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr
from distributed import Client

import daskps
from benchmarks.memory import Watch
from daskps import MatrixFactorization, open_ratings
from daskps.data import format as disk
from daskps.data.format import Manifest
from daskps.data.partition import Partition

RANK = 8
NOISE = 0.5
MB = 2**20


def partition(p: int, n_users: int, n_items: int, each: int) -> Partition:
    """Return ratings of `n_users` users: items by a power law, low rank, noise, no pair twice."""
    rng = np.random.default_rng([7, p])
    n = n_users * each
    # a quarter of the items has two thirds of the ratings
    items = (n_items * rng.random(n) ** 2).astype(np.uint32).reshape(n_users, each)
    items.sort(axis=1)
    twice = np.zeros((n_users, each), bool)
    twice[:, 1:] = items[:, 1:] == items[:, :-1]
    kept = ~twice
    indptr = np.concatenate(([0], np.cumsum(kept.sum(axis=1)))).astype(np.int64)
    P = rng.standard_normal((n_users, RANK), np.float32)
    Q = np.random.default_rng(3).standard_normal((n_items, RANK), np.float32)
    values = np.empty(int(indptr[-1]), np.float32)
    for start in range(0, n_users, 2**16):
        rows = slice(start, start + 2**16)
        found = np.einsum("uk,uek->ue", P[rows], Q[items[rows]]) / np.float32(RANK**0.5)
        stop = min(start + 2**16, n_users)
        values[indptr[start] : indptr[stop]] = found[kept[rows]]
    values += 3.5 + NOISE * rng.standard_normal(len(values), np.float32)
    return Partition(indptr, items[kept], values, None, None, n_items)


def make(store: Path, n_users: int, n_items: int, n_ratings: int, n_partitions: int) -> None:
    each, rows = max(1, n_ratings // n_users), n_users // n_partitions
    group = zarr.open_group(store, mode="w", zarr_format=3)
    shape = {"n_partitions": n_partitions, "n_rows": rows * n_partitions, "n_features": n_items}
    disk.create(group, Manifest(**shape, nnz=0), rows, rows * each, frozenset({"values"}))
    sizes = []
    for p in range(n_partitions):
        part = partition(p, rows, n_items, each)
        disk.write_partition(group, p, part)
        sizes.append(part.nnz)
    of = np.full(n_partitions, rows), np.array(sizes, np.int64)
    disk.finish(group, Manifest(**shape, nnz=sum(sizes)), *of, None)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--ratings", type=int, default=100_000_000)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--factors", type=int, default=32)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args(arguments)
    store = args.data / f"mf-{args.users}-{args.items}-{args.ratings}-{args.partitions}.zarr"
    if not store.exists():
        start = time.perf_counter()
        make(store, args.users, args.items, args.ratings, args.partitions)
        print(f"made in {time.perf_counter() - start:.0f} s", flush=True)
    ratings = open_ratings(store)
    print(ratings, flush=True)
    with daskps.local_cluster(n_workers=2, memory_limit=0) as cluster, Client(cluster) as client:
        workers: dict[str, Any] = client.run(lambda: psutil.Process().pid)
        pids = {f"worker {i}": pid for i, pid in enumerate(workers.values())}
        processes = {"driver": psutil.Process().pid, **pids}
        start = time.perf_counter()
        with Watch(processes) as memory:
            model = MatrixFactorization(
                args.factors,
                max_iter=args.passes,
                user_store=args.data / "users.zarr",
                progress=False,
            ).fit(ratings)
        whole = time.perf_counter() - start
    ends = model.history_.seconds.values.reshape(args.passes, -1)[:, -1]
    each = np.diff(ends, prepend=0)
    rows = args.users * args.factors * 4 / MB
    print(
        f"fit {whole:.1f} s, passes {each.round(2)} s, {ratings.n_ratings / each[-1] / 1e6:.1f} M/s"
    )
    loss = model.history_.loss.values.reshape(args.passes, -1)
    print(f"training RMSE by pass {np.sqrt(2 * loss.mean(axis=1)).round(4)} (noise {NOISE})")
    told = ", ".join(
        f"{name} {memory.peaks[name] / MB:,.0f} MB ({before / MB:,.0f} before)"
        for name, before in memory.before.items()
    )
    print(f"factors of all users {rows:,.0f} MB; most in memory: {told}")


if __name__ == "__main__":
    main()
