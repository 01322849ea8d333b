"""What a test leaves behind: threads, child processes and open file descriptors.

`tests/conftest.py` applies it to tests marked `cluster` or `faults`. Actors and futures left on
a cluster are the business of those tests: here the cluster is already gone.
"""

from __future__ import annotations

import gc
import multiprocessing.resource_tracker
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import zarr

LAZY_THREADS = (
    "Dask-Offload",  # distributed's executor for large messages, one a process, for ever
    "TCP-Executor",  # distributed's executor for blocking comm calls, the same
    "zarr_io",  # zarr's event loop, one a process, for ever
    "zarr_pool",  # zarr's codec executor, the same
    "asyncio_",  # the default executor of those loops, which zarr reads and writes files with
    "Dask-Callback",  # distributed's executor for callbacks of futures, one a process
    "ThreadPoolExecutor-",  # Dask's threaded scheduler, the same; pools of this project have names
    "watch message queue",  # distributed.process, of a killed child: ends when its pipe breaks
)
FD_DIRECTORY = Path("/proc/self/fd")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the process holds at one moment."""

    threads: frozenset[threading.Thread]
    children: dict[int, str]
    """Process id to command line, grandchildren included."""
    descriptors: dict[int, str]
    """Number to target; empty where there is no /proc."""


def warm_up() -> None:
    """Start what a process keeps for its lifetime, so that no test is blamed for it."""
    multiprocessing.resource_tracker.ensure_running()
    zarr.create_group({})


def snapshot() -> Snapshot:
    """Take stock, after a garbage collection."""
    gc.collect()
    return Snapshot(
        threads=frozenset(t for t in threading.enumerate() if not t.name.startswith(LAZY_THREADS)),
        children=dict(_children()),
        descriptors=dict(_descriptors()),
    )


def leaks(before: Snapshot, *, patience: float = 10.0) -> list[str]:
    """List what is there now and was not before, waiting up to `patience` seconds for it to go."""
    deadline = time.monotonic() + patience
    while (found := _difference(before, snapshot())) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _difference(before: Snapshot, now: Snapshot) -> list[str]:
    threads = [f"thread {t.name!r}" for t in now.threads - before.threads]
    children = [
        f"process {pid}: {line}" for pid, line in now.children.items() if pid not in before.children
    ]
    descriptors = [
        f"descriptor {fd} -> {target}"
        for fd, target in now.descriptors.items()
        if before.descriptors.get(fd) != target
    ]
    return threads + children + descriptors


def _children() -> Iterable[tuple[int, str]]:
    for child in psutil.Process().children(recursive=True):
        try:
            # A zombie holds nothing but its number until the parent asks how it ended.
            if child.status() != psutil.STATUS_ZOMBIE:
                yield child.pid, " ".join(child.cmdline())
        except psutil.NoSuchProcess:
            continue


def _descriptors() -> Iterable[tuple[int, str]]:
    if not FD_DIRECTORY.is_dir():
        return
    for entry in os.listdir(FD_DIRECTORY):
        try:
            yield int(entry), os.readlink(FD_DIRECTORY / entry)
        except FileNotFoundError:  # the one that listed the directory
            continue
