"""Runs with faults: an estimator is fitted while a schedule strikes; what must hold is checked."""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from sklearn.base import clone

from daskps.errors import DaskpsError
from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.driver import listening
from daskps.run.engine import Engine
from daskps.testing.farm import Farm, left_behind, wait_until
from daskps.testing.schedule import Kill, Schedule
from daskps.testing.strike import Striker
from daskps.testing.watch import Watcher, fingerprint

Fit = Callable[[Any], Any]
"""Fits an estimator, on the current Dask client if there is one."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run with faults came to."""

    schedule: Schedule
    consistency: str
    failures: tuple[str, ...]
    """What did not hold; empty when all is well."""
    struck: tuple[tuple[float, str, str], ...]
    """Seconds since the beginning, kind of fault and whom it hit, of those that happened."""
    seconds: float
    tasks: int
    """Tasks that ended with success, those done again included."""
    recoveries: tuple[float, ...]
    """Seconds that each took."""
    moves: int
    copies: int
    """Speculative copies."""
    longest_pause: float
    """Seconds without a finished task."""
    equal: bool
    """Whether the model has the bits of the calm run."""
    off: float
    """Percent by which its quality is off that of the calm run; NaN if nothing measures it."""

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return not self.failures

    @property
    def kills(self) -> int:
        """Kills that happened."""
        return sum(kind == "kill" for _, kind, _ in self.struck)

    def check(self) -> None:
        """Raise an AssertionError that says what did not hold, and how to run it again."""
        if self.failures:
            raise AssertionError(
                f"{'; '.join(self.failures)}. To run it again: Schedule.from_json("
                f"{self.schedule.to_json().decode()!r})"
            )


class Calm(msgspec.Struct, frozen=True):
    """The same training without any fault, in this process."""

    bits: dict[str, bytes]
    quality: float
    tasks: int


def calm_run(estimator: Any, fit: Fit, quality: Callable[[Any], float] | None = None) -> Calm:
    """Fit a clone of `estimator` without a cluster, to compare with.

    Call it where there is no current Dask client.

    Raises
    ------
    ValueError
        If the fitted estimator has no arrays to compare.
    """
    watcher = Watcher()
    model = clone(estimator)
    try:
        with listening(watcher):
            fit(model)
    finally:
        watcher.end()
    if not (bits := fingerprint(model)):
        raise ValueError(
            f"{model!r} has learnt no arrays, expected some in attributes such as coef_; without "
            "them every run would look equal."
        )
    return Calm(bits, _quality(model, quality), watcher.finished)


def chaos(
    estimator: Any,
    fit: Fit,
    schedule: Schedule,
    *,
    farm: Farm,
    calm: Calm,
    n_workers: int = 3,
    quality: Callable[[Any], float] | None = None,
    tolerance: float = 1.0,
    bound: float = 120.0,
    pause: float = 30.0,
    check: Callable[[Any], None] | None = None,
) -> Report:
    """Fit a clone of `estimator` on `farm` while `schedule` strikes, and check what must hold.

    - The fit ends, and no task is waited for longer than `bound` seconds.
    - In BSP the model has the bits of the calm run; else its quality is within `tolerance`.
    - Every (partition, clock) is counted once, by the run and by every shard.
    - No partition starts further ahead than the staleness bound.
    - After a fault, while there is a worker that runs, tasks end again within `pause` seconds.
    - No actor, task, or thread is left behind.

    Parameters
    ----------
    estimator
        Not changed. Its clone gets a checkpoint, if it has that parameter and none is named.
    fit
        Fits what it is given, such as ``lambda model: model.fit("train.zarr")``.
    schedule
        What goes wrong.
    farm
        A cluster; repaired to `n_workers` before the run begins.
    calm
        What `calm_run` returned.
    n_workers
        Workers to begin with.
    quality
        Measures a fitted model; None takes the training loss of the last clock.
    tolerance
        Percent that the quality may be off in SSP and ASP.
    bound, pause
        Seconds.
    check
        Raises an AssertionError about a fitted model that is not as it must be.

    Returns
    -------
    report
        Its `check` raises if anything did not hold.
    """
    farm.repair(n_workers)
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "chaos.zarr"
        model = _checkpointed(clone(estimator), store)
        watcher, striker = Watcher(bound), Striker(farm, store, n_workers)
        trigger = _Trigger(schedule, striker)
        failures, start = [], time.monotonic()
        try:
            with farm.client.as_current(), listening(watcher, trigger):
                fit(model)
        except (DaskpsError, AssertionError, OSError, RuntimeError) as error:
            failures.append(f"the run failed: {type(error).__name__}: {error}")
        finally:
            watcher.end()
            striker.end()
        seconds = time.monotonic() - start
    consistency = str(getattr(model, "consistency", "bsp"))
    equal, off = False, math.nan
    if not failures:
        equal = fingerprint(model) == calm.bits
        off = 100 * (_quality(model, quality) / calm.quality - 1)
        failures += _compared(consistency, equal, off, tolerance)
        failures += _checked(check, model)
    failures += [*watcher.broken, *_pauses(watcher, trigger, pause), *_left(farm)]
    return Report(
        schedule=schedule,
        consistency=consistency,
        failures=tuple(failures),
        struck=tuple(
            (round(at - start, 2), type(f).__name__.lower(), hit) for at, f, hit in striker.struck
        ),
        seconds=seconds,
        tasks=watcher.finished,
        recoveries=tuple(watcher.recoveries),
        moves=watcher.moves,
        copies=watcher.copies,
        longest_pause=max((length for _, length in watcher.pauses), default=0.0),
        equal=equal,
        off=off,
    )


class _Trigger:
    """A listener that strikes when its time has come, and notes when no worker was there."""

    def __init__(self, schedule: Schedule, striker: Striker) -> None:
        self._due = list(schedule.faults)
        self._striker = striker
        self._done = 0
        self._workers: set[str] = set()
        self.alone: list[tuple[float, float]] = []
        """When there was no worker that could run tasks."""

    def attach(self, engine: Engine) -> None:
        self._workers = set(engine.workers())

    def __call__(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        now = time.monotonic()
        if isinstance(told, ev.WorkerLost):
            self._workers.discard(told.worker)
            if not self._workers:
                self.alone.append((now, math.inf))
        elif isinstance(told, ev.WorkerJoined):
            self._workers.add(told.worker)
            if self.alone and math.isinf(self.alone[-1][1]):
                self.alone[-1] = (self.alone[-1][0], now)
        elif isinstance(told, ev.TaskDone):
            self._done += 1
        while self._due and self._done >= self._due[0].after:
            self._striker(self._due.pop(0))


def _checkpointed(model: Any, store: Path) -> Any:
    given = model.get_params()
    if "checkpoint" in given and given["checkpoint"] is None:
        model.set_params(checkpoint=str(store))
        if "checkpoint_every" in given and given["checkpoint_every"] is None:
            model.set_params(checkpoint_every=3)
    return model


def _quality(model: Any, quality: Callable[[Any], float] | None) -> float:
    return quality(model) if quality is not None else float(model.history_["loss"][-1])


def _compared(consistency: str, equal: bool, off: float, tolerance: float) -> list[str]:
    if consistency == "bsp":
        return [] if equal else ["the model has other bits than that of the calm run"]
    good = abs(off) <= tolerance
    return [] if good else [f"quality is off by {off:+.2f} %, allowed are {tolerance:g} %"]


def _checked(check: Callable[[Any], None] | None, model: Any) -> list[str]:
    try:
        if check is not None:
            check(model)
    except AssertionError as error:
        return [f"the model is not as it must be: {error}"]
    return []


def _pauses(watcher: Watcher, trigger: _Trigger, bound: float) -> list[str]:
    found = []
    for start, length in watcher.pauses:
        alone = sum(max(0.0, min(start + length, b) - max(start, a)) for a, b in trigger.alone)
        if length - alone > bound:
            found.append(f"no task ended for {length - alone:.1f} s, with workers there")
    return found


def _left(farm: Farm) -> list[str]:
    try:
        wait_until(lambda: not left_behind(farm.scheduler), 10)
        wait_until(lambda: not _threads(), 10)
    except AssertionError:
        return [f"left behind: {[*left_behind(farm.scheduler), *_threads()]}"]
    return []


def _threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("daskps-", "chaos-"))]


def summary(reports: Mapping[str, Report]) -> dict[str, float]:
    """Return what many runs came to, in one line."""
    some = list(reports.values())
    return {
        "runs": len(some),
        "held": sum(r.ok for r in some),
        "kills": sum(r.kills for r in some),
        "runs without a kill": sum(not r.kills for r in some),
        "kills scheduled": sum(r.schedule.count(Kill) for r in some),
        "seconds": sum(r.seconds for r in some),
    }
