"""Clusters of real processes that may be killed, stopped and slowed, one by one.

A `Farm` starts every nanny as a child of its own, so that a worker may be killed with or without
its nanny. Only processes that a farm started are ever signalled.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self, cast

import dask
import psutil
from distributed import Client, LocalCluster, Scheduler

from daskps.run.dask_hub import is_shard
from daskps.testing.nursery import PATIENCE, Nanny, Nursery, start_python, stop_group


def wait_until(what: Callable[[], Any], timeout: float = PATIENCE) -> Any:
    """Return the first true answer of `what`.

    Raises
    ------
    AssertionError
        If there was none for `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (answer := what()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.005)
    return answer


class Farm:
    """A scheduler in this process, and workers, each under a nanny, in processes of their own.

    Parameters
    ----------
    n_workers
        Workers to begin with.
    directory
        For Dask's scratch files; a temporary one by default.
    threads
        Tasks that a worker runs at once.
    warm
        ``module:function`` that has been called in every worker's process before it begins: it
        trains some models, so that new workers need not compile.
    """

    host = "127.0.0.1"
    """Where the scheduler is."""

    def __init__(
        self,
        n_workers: int,
        directory: str | os.PathLike[str] | None = None,
        *,
        threads: int = 1,
        warm: str | None = None,
    ) -> None:
        options: dict[str, Any] = {"host": self.host, "dashboard_address": f"{self.host}:0"}
        self._own = tempfile.TemporaryDirectory() if directory is None else None
        self._directory = Path(self._own.name if self._own else str(directory))
        self._threads = threads
        self._lock = threading.Lock()
        self._nannies: dict[str, subprocess.Popen[bytes] | Nanny] = {}
        self._nursery = Nursery(warm)
        self._numbers = itertools.count()
        with dask.config.set({"temporary-directory": str(self._directory)}):
            self.cluster = LocalCluster(n_workers=0, **options)
        try:
            self.client = Client(self.cluster)
            self.add(n_workers)
        except BaseException:
            self.close()
            raise

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler itself, to look at and not to touch."""
        return cast("Scheduler", self.cluster.scheduler)

    @property
    def address(self) -> str:
        """Where the scheduler is."""
        return str(self.cluster.scheduler_address)

    def start(self, n_workers: int, options: Iterable[str] = ()) -> list[str]:
        """Start workers and return their names, without waiting for them.

        `options` are further ones of ``dask worker``.
        """
        with self._lock:
            names = [f"w{next(self._numbers)}" for _ in range(n_workers)]
            for name in names:
                self._nannies[name] = self._start(name, options)
        return names

    def _start(self, name: str, options: Iterable[str]) -> subprocess.Popen[bytes] | Nanny:
        """Start the nanny of one worker."""
        place = (self.address, name, self._directory, self._threads, "127.0.0.1")
        return self._nursery.start(_arguments(*place, options))

    def add(self, n_workers: int) -> list[str]:
        """Start workers, wait for them, and return their names."""
        names = self.start(n_workers)
        wait_until(lambda: set(names) <= set(self.workers().values()))
        # a worker that dies before its nanny has started is not started again: nannies that have
        # not do not answer
        here = [address for address, name in self.workers().items() if name in names]
        self.client.run(os.getpid, workers=here, nanny=True, on_error="ignore")
        return names

    def repair(self, n_workers: int) -> None:
        """Have `n_workers` again: wait for those that nannies start, end and start others.

        A nanny whose worker dies while it starts may give up, or wait for ever.
        """
        for name in set(self._nannies) - set(self.alive()):
            self.dismiss(name)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: set(self._nannies) <= set(self.workers().values()), 15)
        for name in set(self._nannies) - set(self.workers().values()):
            self.dismiss(name)
        self.add(max(0, n_workers - len(self._nannies)))
        for name in sorted(self._nannies, key=lambda n: int(n[1:]))[n_workers:]:
            self.dismiss(name)

    def dismiss(self, name: str) -> None:
        """End a worker with its nanny, at once."""
        with self._lock:
            stop_group(self._nannies.pop(name))
        wait_until(lambda: name not in self.workers().values())

    def alive(self) -> list[str]:
        """Return the names of the workers whose nanny is there, whether they run or start."""
        return [name for name, process in list(self._nannies.items()) if process.poll() is None]

    def workers(self) -> dict[str, str]:
        """Return the name of the worker at each address."""
        return {a: str(ws.name) for a, ws in list(self.scheduler.workers.items())}

    def holders(self) -> list[str]:
        """Return the names of the workers that hold a shard."""
        return [str(w.name) for w in list(self.scheduler.workers.values()) if has_shard(w)]

    def others(self) -> list[str]:
        """Return the names of the workers that hold none."""
        return sorted(set(self.workers().values()) - set(self.holders()))

    def kill(self, name: str, *, nanny: bool = False) -> None:
        """SIGKILL a worker process; with `nanny` nothing starts it again."""
        if nanny:
            os.killpg(self._nannies[name].pid, signal.SIGKILL)
        else:
            self.signal(name, signal.SIGKILL)

    def terminate(self, name: str) -> None:
        """SIGTERM a nanny: the notice that its host is taken away."""
        self._nannies[name].terminate()

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the worker process under a nanny; none while it is started again."""
        try:
            # the nanny has a process that forks, and the worker is a child of that
            forking = psutil.Process(self._nannies[name].pid).children()
            return [worker for process in forking for worker in process.children()]
        except (psutil.NoSuchProcess, KeyError):
            return []

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a worker process, not to its nanny."""
        for process in self.processes(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def close(self) -> None:
        """End everything that was started."""
        if hasattr(self, "client"):
            self.client.close()
        for process in self._nannies.values():
            stop_group(process)
        self._nursery.close()
        self.cluster.close()
        if self._own is not None:
            self._own.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def start_worker(
    scheduler: str,
    name: str,
    directory: Path,
    *,
    threads: int = 1,
    host: str = "127.0.0.1",
    options: Iterable[str] = (),
    prefix: Iterable[str] = (),
) -> subprocess.Popen[bytes]:
    """Start a nanny, which starts a worker, as leader of a process group.

    Parameters
    ----------
    scheduler, name, directory, threads, host
        As ``dask worker`` has them.
    options
        More of its options.
    prefix
        A command that runs it, such as one that enters a network namespace.
    """
    arguments = _arguments(scheduler, name, directory, threads, host, options)
    return start_python("-m", "daskps.testing.nanny", *arguments, prefix=prefix)


def _arguments(
    scheduler: str, name: str, directory: Path, threads: int, host: str, options: Iterable[str]
) -> list[str]:
    place = {"name": name, "local-directory": directory, "host": host, "death-timeout": 60}
    limits = {"nthreads": threads, "memory-limit": 0}
    named = [word for k, v in {**limits, **place}.items() for word in (f"--{k}", str(v))]
    return [scheduler, "--no-dashboard", *named, *options]


def has_shard(worker: Any) -> bool:
    """Return whether a worker, as the scheduler sees it, holds a shard."""
    return any(is_shard(ts.key) for ts in worker.actors)


def left_behind(scheduler: Scheduler) -> list[str]:
    """Return what runs left on a cluster: keys of actors, futures and tasks."""
    tasks = [f"task {k}" for k in list(scheduler.tasks) if "daskps-" in str(k)]
    workers = list(scheduler.workers.values())
    return tasks + [f"actor {t.key} on {w.name}" for w in workers for t in list(w.actors)]


def assert_clean(scheduler: Scheduler) -> None:
    """Assert that no actor, future or task of a run is left, soon."""
    wait_until(lambda: not left_behind(scheduler), 10)
