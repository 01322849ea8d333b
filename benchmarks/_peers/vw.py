"""Vowpal Wabbit: FTRL-proximal, one thread that reads and one that learns."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks._peers import Method, Point, Settings, Task
from benchmarks._reference import Rows

COMMAND = [sys.executable, "-m", "vowpalwabbit"]


def train(task: Task, settings: Settings) -> Iterator[Point]:
    """Run it from the beginning for each number of passes, on a cache made before.

    The start of the interpreter that its package wraps it in is taken off.
    """
    rows, judged = (_text(task, name) for name in ("train", "judged"))
    bits = max(math.ceil(math.log2(task.n_features)), 8)
    common = ["--loss_function", "logistic", "-b", str(bits), "--quiet", "--ftrl"]
    learn = [*common, *(f"--{name}={value}" for name, value in settings.items())]
    cached = ["-d", str(rows), "--cache_file", f"{rows}.{bits}.cache"]
    model, scores = task.folder / "vw.model", task.folder / "vw.scores"
    _run([*learn, *cached])
    start = _run(["--version"])
    for passes in task.stops:
        often = ["--passes", str(passes), "--holdout_off"] if passes > 1 else []
        seconds = _run([*learn, *cached, *often, "-f", str(model)]) - start
        _run(["-d", str(judged), "-t", "-i", str(model), "-r", str(scores), "--quiet"])
        found = [float(line.split()[0].split(":")[-1]) for line in scores.read_text().splitlines()]
        yield Point(seconds, np.asarray(found))


def _run(arguments: Sequence[str]) -> float:
    """Return how long it took."""
    start = time.perf_counter()
    subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _text(task: Task, name: str) -> Path:
    """Return the file of its own format, made once."""
    rows: Rows = getattr(task, name)
    path = task.folder / f"{name}-{len(rows.y)}.vw"
    if not path.exists():
        half = path.with_suffix(".part")
        with half.open("w") as file:
            for ids, y in zip(rows.ids, rows.y, strict=True):
                file.write(("1 |f " if y else "-1 |f ") + " ".join(map(str, ids.tolist())) + "\n")
        half.rename(path)
    return path


METHODS = {
    "Vowpal Wabbit": Method(
        train,
        "vowpalwabbit",
        {"ftrl_alpha": 0.05, "ftrl_beta": 1},
        tuple({"ftrl_alpha": rate, "ftrl_beta": 1} for rate in (0.02, 0.03, 0.05, 0.1)),
        (1, 2, 3, 4),
    )
}
