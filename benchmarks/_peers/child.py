"""One method in a process of its own, its time limit and its memory.

The parent starts ``python -m benchmarks._peers.child`` with the job as its argument; the child
writes a line of JSON for each point, so that a method that is stopped leaves what it had reached.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks._peers import THREADS, Task, methods
from benchmarks._reference import Rows, Settings, load, reference_folder

VALIDATION = 0.2
"""Share of the training rows that chooses settings."""
PERIOD = 0.1
"""Seconds between looks at the memory of a method's processes."""
LIBRARIES = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")


def run(job: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Return the points of a job, how it ended, and the most memory that it took."""
    environment = {**os.environ, **{f"{name}_NUM_THREADS": str(THREADS) for name in LIBRARIES}}
    command = [sys.executable, "-m", "benchmarks._peers.child", json.dumps(job)]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    found: dict[str, Any] = {"points": []}
    start, last, late = time.monotonic(), "", threading.Event()
    with subprocess.Popen(command, env=environment, text=True, **streams) as process:
        watch = _Memory(process.pid)

        def stop() -> None:
            late.set()
            watch.kill()

        timer = threading.Timer(timeout, stop)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith('{"point"'):
                    found["points"].append(json.loads(line)["point"])
                elif line.strip():
                    last = line.strip()
        finally:
            timer.cancel()
            if process.poll() is None and sys.exc_info()[0] is not None:
                watch.kill()
    found["ended"] = f"stopped after {timeout:.0f} s" if late.is_set() else ""
    if process.returncode and not late.is_set():
        found["ended"] = last[:200] or f"ended with {process.returncode}"
    return {**found, "wall": time.monotonic() - start, "peak_mb": watch.end() / 2**20}


class _Memory:
    """Looks at the resident memory of a process and its descendants until it is told to end."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _family(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.Error:
            return []

    def _look(self) -> None:
        while not self._ended.wait(PERIOD):
            total = 0
            for process in self._family():
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self._peak = max(self._peak, total)

    def kill(self) -> None:
        """SIGKILL all of them."""
        for process in self._family():
            try:
                process.kill()
            except psutil.Error:
                continue

    def end(self) -> int:
        """Stop looking and return the most bytes that were seen."""
        self._ended.set()
        self._thread.join()
        return self._peak


# -- in the child ----------------------------------------------------------------------------------


def main(job: Mapping[str, Any]) -> None:
    """Train, and write where the method stood after each pass."""
    method = methods()[job["method"]]
    settings = Settings(**job["reference"])
    train, test, _ = load(Path(job["data"]), settings)
    if job["validate"]:
        train, test = _split(train)
    folder = reference_folder(Path(job["data"]), settings)
    if job["validate"]:
        folder /= "validation"
        folder.mkdir(exist_ok=True)
    stops = tuple(k for k in method.passes if k <= job["passes"])
    task = Task(train, test, settings.features, stops, folder)
    for passes, point in zip(stops, method.train(task, job["settings"]), strict=True):
        row = [passes, point.seconds, mean_log_loss(point.scores, test.y)]
        print("\n" + json.dumps({"point": row}), flush=True)


def mean_log_loss(scores: NDArray[Any], y: NDArray[np.uint8]) -> float:
    """Return the quality of anybody's log-odds, in float64."""
    margins = np.where(y > 0, scores, -np.asarray(scores)).astype(np.float64)
    return float(np.mean(np.logaddexp(0, -margins)))


def _split(rows: Rows) -> tuple[Rows, Rows]:
    n = round(len(rows.y) * (1 - VALIDATION))  # rows are in no order
    return Rows(rows.ids[:n], rows.y[:n]), Rows(rows.ids[n:], rows.y[n:])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
