"""What compressed pushes save and cost: bytes, seconds and test log-loss by `compression`.

Each trains on a cluster of 2 worker processes of one thread, compiled before; the last pass's test
log-loss is measured after the clock. Run it from the project's root::

    python -m benchmarks.lr_compression --data /tmp/daskps --partitions 4
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from statistics import median
from typing import Any

from distributed import Client
from rich.table import Table

import daskps
from benchmarks._reference import Settings, load
from benchmarks.lr import WORKERS, Report, console, dataset_of, estimator, parse, pass_seconds

WAYS: tuple[Any, ...] = (None, "bfloat16", 0.3, 0.1, 0.03, 0.01)


def measure(data: Sequence[Any], options: Any) -> list[Report]:
    """Train with each way of compression in turns."""
    train = dataset_of(data[0], options.features, options.partitions)
    test = dataset_of(data[1], options.features, 1)
    seconds: dict[Any, list[float]] = {how: [] for how in WAYS}
    found = []
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(daskps.local_cluster(WORKERS))
        client = stack.enter_context(Client(cluster, set_as_default=False))
        stack.enter_context(client.as_current())
        models = {how: estimator(options, compression=how, max_iter=1).fit(train) for how in WAYS}
        for _ in range(options.repeats):
            for how in WAYS:
                models[how] = estimator(options, compression=how).fit(train)
                seconds[how].append(float(pass_seconds(models[how])[-1]))
    for how, clf in models.items():
        history = clf.history_
        found.append(
            {
                "compression": how,
                "seconds": median(seconds[how]),
                "pushed": float(history.pushed_bytes.sum()),
                "pulled": float(history.pulled_bytes.sum()),
                "log_loss": clf.log_loss(test),
            }
        )
    return found


def show(report: list[Report]) -> None:
    table = Table(title="by compression", title_justify="left")
    for column in ("", "MB pushed", "MB pulled", "seconds", "test log-loss"):
        table.add_column(column, justify="right" if column else "left")
    for row in report:
        megabytes = [f"{row[k] / 1e6:.1f}" for k in ("pushed", "pulled")]
        name, loss = str(row["compression"]), f"{row['log_loss']:.4f}"
        table.add_row(name, *megabytes, f"{row['seconds']:.2f}", loss)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    settings = Settings(options.rows, max(options.rows // 5, 1), options.features)
    report = measure(load(options.data, settings), options)
    show(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
