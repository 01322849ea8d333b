"""What a run tells a user's callback: small frozen events, one class a kind.

`fit(callback=)` and `daskps.train(callback=)` take a function of (clock, loss), or an object with a
method ``on_event(event)``, which is called with each of these, in the thread that called `fit`.
What it raises ends training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from daskps.monitor.figures import recent_loss
from daskps.run import events as ev
from daskps.run.coordinator import Coordinator


@dataclass(frozen=True, slots=True)
class ClockDone:
    """All partitions have finished a clock; after a loss of parameters, clocks come again."""

    clock: int
    """Clocks that all have finished."""
    n_clocks: int
    """Clocks that they will finish, unless training stops early."""
    loss: float
    """Mean training loss of the last one."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The held-out data was evaluated."""

    clock: int
    loss: float


@dataclass(frozen=True, slots=True)
class CheckpointWritten:
    """A checkpoint is complete."""

    cut: str
    """Its name."""
    clock: int
    """Clocks that the slowest partition had finished in it."""


@dataclass(frozen=True, slots=True)
class CheckpointFailed:
    """A checkpoint could not be written; the one before stays the last."""

    cut: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker came."""

    worker: str
    """Its address."""


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker went."""

    worker: str
    shards: tuple[int, ...]
    """Shards that went with it."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """Every shard stands again."""

    clock: int
    """Where the slowest partition goes on from."""
    cut: str | None
    """The checkpoint that was used; None: from the beginning."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """Training is over."""

    reason: str
    """``max_iter``, ``tol``, ``interrupted``, or ``callback``: one of scikit-learn's wanted it."""


Event = (
    ClockDone
    | Evaluated
    | CheckpointWritten
    | CheckpointFailed
    | WorkerJoined
    | WorkerLost
    | Recovered
    | Ended
)


@runtime_checkable
class Callback(Protocol):
    """An object that is told of a run."""

    def on_event(self, event: Event) -> None:
        """Take an event."""
        ...


class EventListener:
    """Tells a callback what happens in a run.

    Parameters
    ----------
    tell
        Takes each event.
    unit
        What a loss of 1 in the run is for the user.
    """

    def __init__(self, tell: Callable[[Event], None], unit: float) -> None:
        self._tell = tell
        self._unit = unit
        self._clock = 0

    def __call__(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        """Take an event or action of the run."""
        for event in self._events(told, coordinator):
            self._tell(event)

    def _events(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> list[Event]:
        before, self._clock = self._clock, coordinator.min_clock
        match told:
            case ev.TaskDone() if self._clock > before:
                loss = recent_loss(coordinator) * self._unit
                return [ClockDone(self._clock, coordinator.target, loss)]
            case ev.Evaluated(clock):
                found = coordinator.ledger.evaluations.get(clock)
                return [] if found is None else [Evaluated(clock, found * self._unit)]
            case ev.CutPublished(cut, clocks):
                return [CheckpointWritten(cut, min(clocks.values()))]
            case ev.CutFailed(cut, error):
                return [CheckpointFailed(cut, error)]
            case ev.WorkerJoined(worker):
                return [WorkerJoined(worker)]
            case ev.WorkerLost(worker, shards):
                return [WorkerLost(worker, shards)]
            case ev.Recovered(_, _, cut, seconds):
                return [Recovered(self._clock, cut, seconds)]
            case ev.Finish(reason):
                return [Ended(reason)]
        return []
