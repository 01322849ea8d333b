"""Rows/s by worker processes, beside what the machine itself gives to a second process.

Passes of daskps on clusters of 1 and 2 worker processes, of one thread each, in turns; and between
them passes of the bare kernel, in one process on half of the rows and in two that know nothing of
each other on a half each. Two processes share the way to memory, so the second one adds less than
the first had: what the bare kernel gains is the bound of what an engine can. Run it from the
project's root, on a machine that does nothing else::

    python -m benchmarks.lr_workers --data /tmp/daskps --passes 6
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing as mp
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np
from distributed import Client
from rich.table import Table

import daskps
from benchmarks._bare import BareKernel
from benchmarks._reference import Rows, Settings, load
from benchmarks.lr import Report, console, dataset_of, estimator, parse, pass_seconds
from daskps.kernels.linear import LOG_LOSS, Rule, curvature_of
from daskps.models.parameters import step_rates


def serve(pipe: Connection, rows: Rows, options: argparse.Namespace) -> None:
    """Take as many passes over `rows` as asked for, again and again; 0 ends it."""
    train = dataset_of(rows, options.features, 1)
    ftrl = options.solver == "ftrl"
    kappa = curvature_of(LOG_LOSS, ftrl=ftrl)
    rates = step_rates(train, LOG_LOSS, None, None, kappa=kappa)
    bare = BareKernel(train, Rule(ftrl, *rates, alpha2=options.alpha, kappa=kappa))
    bare.seconds_of_a_pass()
    pipe.send([])
    while n := pipe.recv():
        pipe.send([bare.seconds_of_a_pass() for _ in range(n)])


@contextlib.contextmanager
def bare_processes(rows: Rows, options: argparse.Namespace) -> Iterator[list[Connection]]:
    """Start two processes that have a half of the rows each."""
    context, middle = mp.get_context("spawn"), len(rows.y) // 2
    pipes, processes = [], []
    for half in (slice(middle), slice(middle, None)):
        here, there = context.Pipe()
        given = (there, Rows(rows.ids[half], rows.y[half]), options)
        processes.append(context.Process(target=serve, args=given, daemon=True))
        processes[-1].start()
        pipes.append(here)
    for pipe in pipes:
        pipe.recv()  # compiled
    yield pipes
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(0)
        process.join(30)


def passes_of(pipes: Sequence[Connection], n: int) -> list[float]:
    """Let some processes take passes at the same time."""
    for pipe in pipes:
        pipe.send(n)
    return [s for pipe in pipes for s in pipe.recv()]


def measure(rows: Rows, options: argparse.Namespace) -> Report:
    """Take passes of all four in turns."""
    train = dataset_of(rows, options.features, 2)
    taken: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        pipes = stack.enter_context(bare_processes(rows, options))
        clients = {}
        for n in (1, 2):
            cluster = stack.enter_context(daskps.local_cluster(n))
            clients[n] = stack.enter_context(Client(cluster, set_as_default=False))
            with clients[n].as_current():
                estimator(options, max_iter=1).fit(train)  # compiles
        for _ in range(options.repeats):
            for n in (1, 2):
                name = f"bare kernel {n}"
                taken.setdefault(name, []).extend(passes_of(pipes[:n], options.passes))
                with clients[n].as_current():
                    seconds = pass_seconds(estimator(options).fit(train))
                # the first holds what the others do not: the way to the workers and back
                taken.setdefault(f"daskps {n}", []).extend(np.diff(seconds).tolist())
    half = len(rows.y) / 2
    rows_in_a_pass = {"bare kernel 1": half}
    speed = {k: rows_in_a_pass.get(k, 2 * half) / median(v) for k, v in taken.items()}
    gain = {name: speed[f"{name} 2"] / speed[f"{name} 1"] for name in ("bare kernel", "daskps")}
    return {"rows_per_s": speed, "gain": gain, "of_bound": gain["daskps"] / gain["bare kernel"]}


def show(report: Report) -> None:
    table = Table(title="million rows/s a pass, by processes", title_justify="left")
    for column in ("", "1", "2", "gain"):
        table.add_column(column, justify="right" if column else "left")
    for name, gain in report["gain"].items():
        cells = [f"{report['rows_per_s'][f'{name} {n}'] / 1e6:.2f}" for n in (1, 2)]
        table.add_row(name, *cells, f"{gain:.2f}")
    console.print(table)
    console.print(f"daskps gains {report['of_bound']:.2f} of what the bare kernel does")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    settings = Settings(options.rows, max(options.rows // 5, 1), options.features)
    rows: Any = load(options.data, settings)[0]
    report = measure(rows, options)
    show(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
