"""What must hold in every run, whatever goes wrong: checked while the run tells what happens."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from daskps.errors import RunTimeout
from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.engine import Engine


@dataclass
class Watcher:
    """A listener that checks the rules of a run, and ends one that hangs.

    Parameters
    ----------
    bound
        Seconds without a finished task after which the run counts as hanging and is ended.
    """

    bound: float = 120.0
    broken: list[str] = field(default_factory=list)
    """Rules that did not hold."""
    finished: int = 0
    """Tasks that ended with success, those done again included."""
    recoveries: list[float] = field(default_factory=list)
    """Seconds from each loss of shards until all stood again."""
    moves: int = 0
    copies: int = 0
    pauses: list[tuple[float, float]] = field(default_factory=list)
    """Moment and length of the time between two finished tasks, if above 0.5 s."""
    hung: bool = False
    _last: float = 0.0
    _tokens: set[int] = field(default_factory=set)
    _engine: Engine | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    def attach(self, engine: Engine) -> None:
        """Begin: from here on something must happen all the time."""
        self._engine, self._last = engine, time.monotonic()
        self._over.clear()
        threading.Thread(target=self._guard, name="chaos-guard", daemon=True).start()

    def end(self, coordinator_ended: bool = True) -> None:
        """Stop guarding."""
        self._over.set()
        self._engine = None

    def __call__(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        """Check one event or action."""
        match told:
            case ev.TaskDone(token=token):
                self._done(token)
            case ev.Launch():
                self._launched(told, coordinator)
            case ev.Recovered(seconds=seconds):
                self.recoveries.append(seconds)
            case ev.Moved():
                self.moves += 1
            case ev.Finish():
                self._finished(coordinator)

    def _done(self, token: int) -> None:
        now = time.monotonic()
        if now - self._last > 0.5:
            self.pauses.append((self._last, now - self._last))
        self._last = now
        self.finished += 1

    def _launched(self, told: ev.Launch, coordinator: Coordinator) -> None:
        self.copies += told.copy_of is not None
        if told.token in self._tokens:
            self.broken.append(f"token {told.token} was given to two tasks")
        self._tokens.add(told.token)
        common = coordinator.clocks.passed(coordinator.policy.enough)
        ahead = told.clock - common
        bound = coordinator.policy.lead(coordinator.target - common)
        if ahead > bound:
            self.broken.append(
                f"(partition, clock) {(told.partition, told.clock)} started {ahead} clocks ahead "
                f"of clock {common}; the bound is {bound}"
            )

    def _finished(self, coordinator: Coordinator) -> None:
        done = {(c, p) for c, entry in coordinator.ledger.parts.items() for p in entry}
        wanted = {(c, p) for p, n in coordinator.clocks.items() for c in range(n)}
        if done != wanted:
            self.broken.append(f"not done once each: {sorted(done ^ wanted)[:5]}")
        if len(set(coordinator.clocks.values())) != 1:
            self.broken.append(f"the run ended with clocks {coordinator.clocks}")
        self._ask_shards(coordinator)

    def _ask_shards(self, coordinator: Coordinator) -> None:
        """Compare what the shards counted; one that was lost meanwhile takes the run back."""
        assert self._engine is not None
        try:
            stats = self._engine.stats()
        except (OSError, RuntimeError, TimeoutError):
            return
        for shard, found in stats.items():
            if any(found.clocks.get(p) != n for p, n in coordinator.clocks.items()):
                self.broken.append(
                    f"shard {shard} counted {found.clocks}; the run {coordinator.clocks}"
                )

    def _guard(self) -> None:
        while not self._over.wait(1.0):
            silent = time.monotonic() - self._last
            if silent > self.bound and not self.hung:
                self.hung = True
                self.broken.append(f"no task ended for {silent:.0f} s")
                error = RunTimeout(f"no task ended for {silent:.0f} s; the run was given up.")
                if self._engine is not None:
                    self._engine.post(ev.RecoveryFailed(error))


def fingerprint(estimator: Any) -> dict[str, bytes]:
    """Return the bits of every array that an estimator has learnt.

    These are its attributes and properties with a trailing underscore that are arrays, sparse
    matrices or xarray objects, apart from ``history_``, which holds times.
    """
    found: dict[str, bytes] = {}
    names = {*vars(estimator), *dir(type(estimator))} - {"history_"}
    for name in sorted(n for n in names if n.endswith("_") and not n.startswith("_")):
        for part, array in _arrays(getattr(estimator, name, None)):
            found[f"{name}{part}"] = array.tobytes()
    return found


def _arrays(value: Any) -> list[tuple[str, Any]]:
    if hasattr(value, "indptr"):
        return [(f".{part}", getattr(value, part)) for part in ("data", "indices", "indptr")]
    if hasattr(value, "data_vars"):
        return [(f".{name}", var.to_numpy()) for name, var in sorted(value.data_vars.items())]
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    kind = getattr(getattr(value, "dtype", None), "kind", "O")
    return [] if kind == "O" else [("", value)]
