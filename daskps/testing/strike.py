"""Making faults happen to a farm's workers and to a checkpoint's store, and taking them back."""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from daskps.run import checkpoint
from daskps.testing import schedule as sd
from daskps.testing.farm import Farm

SLICE = 0.05
"""Seconds in which a slow worker stands still once and runs once."""
AWAY = 1.0
"""Seconds between two looks of a cluster's manager: so long, at the most, a lost host is missed."""
TORN = 64
"""Bytes that fit in a file when the disk is full."""


class Striker:
    """Strikes at once, from any thread; what takes time goes on in the background.

    Parameters
    ----------
    farm
        Whose workers are hit.
    store
        The checkpoint's folder, which is made here.
    n_workers
        Workers there should be: one whose nanny is gone is replaced, as a cluster's manager would
        do.
    """

    def __init__(self, farm: Farm, store: Path, n_workers: int) -> None:
        self._farm = farm
        self._store = store
        self._kept = store.with_suffix(".kept")
        self._kept.mkdir()
        store.symlink_to(self._kept)
        self._n_workers = n_workers
        self._over = threading.Event()
        self._busy: list[threading.Thread] = []
        self._full = threading.Lock()
        self._away = threading.Lock()
        self._later(self._manage)
        self.struck: list[tuple[float, sd.AnyFault, str]] = []
        """When, what, and the worker or the file that was hit."""

    def __call__(self, fault: sd.AnyFault) -> None:
        """Make a fault happen; one that finds nobody to hit does not."""
        match fault:
            case sd.Join():
                hit: str | None = self._farm.start(1)[0]
            case sd.DiskFull(seconds=seconds):
                hit = self._later(self._fill, seconds)
            case sd.StoreGone(seconds=seconds):
                hit = self._later(self._take_away, seconds)
            case sd.TornChunk(which=which):
                hit = tear(self._store, which)
            case _:
                hit = self._hit_worker(fault)
        if hit is not None:
            self.struck.append((time.monotonic(), fault, hit))

    def end(self) -> None:
        """Take back what has not ended by itself."""
        self._over.set()
        for thread in self._busy:
            thread.join(90.0)

    def _hit_worker(self, fault: sd.Kill | sd.Stop | sd.Slow | sd.Retire) -> str | None:
        there = [n for n in self._farm.workers().values() if self._farm.processes(n)]
        name = sd.victim(fault.victim, there)
        if name is None:
            return None
        match fault:
            case sd.Kill(nanny=nanny):
                self._farm.kill(name, nanny=nanny)
            case sd.Stop(seconds=seconds):
                self._later(self._stop, name, seconds)
            case sd.Slow(seconds=seconds, share=share):
                self._later(self._slow, name, seconds, share)
            case sd.Retire():
                if len(there) < 2:
                    return None
                self._later(self._retire, name)
        return name

    def _later(self, work: Callable[..., None], *args: object) -> str:
        name = f"chaos-{work.__name__.strip('_')}"
        thread = threading.Thread(target=work, args=args, name=name, daemon=True)
        self._busy.append(thread)
        thread.start()
        return str(self._store)

    def _manage(self) -> None:
        while not self._over.wait(AWAY):
            missing = self._n_workers - len(self._farm.alive())
            self._farm.start(max(0, missing))

    def _stop(self, name: str, seconds: float) -> None:
        stopped = self._farm.processes(name)
        try:
            _signal(stopped, signal.SIGSTOP)
            self._over.wait(seconds)
        finally:
            _signal(stopped, signal.SIGCONT)

    def _slow(self, name: str, seconds: float, share: float) -> None:
        until = time.monotonic() + seconds
        slowed = self._farm.processes(name)
        while time.monotonic() < until and not self._over.is_set():
            try:
                _signal(slowed, signal.SIGSTOP)
                self._over.wait(SLICE * (1 - share))
            finally:
                _signal(slowed, signal.SIGCONT)
            self._over.wait(SLICE * share)

    def _retire(self, name: str) -> None:
        client = self._farm.client
        with contextlib.suppress(Exception):  # it may have died, or hold what nobody else can take
            client.retire_workers(names=[name], close_workers=True, remove=True)

    def _fill(self, seconds: float) -> None:
        """Let no worker write more than a few bytes to a file; those that come later may."""
        with self._full:
            limited = [p for n in self._farm.workers().values() for p in self._farm.processes(n)]
            before = []
            for process in limited:
                with contextlib.suppress(ProcessLookupError):
                    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (TORN, hard))
                    before.append((process, soft, hard))
            self._over.wait(seconds)
            for process, soft, hard in before:
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))

    def _take_away(self, seconds: float) -> None:
        """Put a file where the store is, so that nobody can open it or make another.

        The store is a link, which is replaced in one step: there is no moment in which a worker
        that writes finds nothing there, and makes a folder.
        """
        with self._away:
            link = self._store.with_suffix(".link")
            link.touch()
            link.replace(self._store)
            self._over.wait(seconds)
            link.symlink_to(self._kept)
            link.replace(self._store)


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def tear(store: Path, which: int) -> str | None:
    """Cut a chunk of the newest published cut in half; return its path, or None without a cut."""
    cuts = checkpoint.published(str(store)) if store.is_dir() else []
    chunks = sorted((store / cuts[0]).glob("*/c.*")) if cuts else []
    files = [f for f in chunks if f.is_file()]
    if not files:
        return None
    torn = files[int(np.random.default_rng(which).integers(len(files)))]
    try:
        content = torn.read_bytes()
        torn.write_bytes(content[: len(content) // 2])
    except FileNotFoundError:  # it was pruned meanwhile
        return None
    return str(torn)
