"""What a run is doing at a moment, told now and then to whoever shows it; listens to its events."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from daskps.run import events as ev
from daskps.run.answers import Answers
from daskps.run.coordinator import Coordinator
from daskps.run.engine import Engine

STOPPING = "stopping at the next clock; interrupt again to stop at once"
"""What is said of a run that was interrupted, until it ends."""


@dataclass(slots=True)
class Figures:
    """A run at a moment."""

    run: str = ""
    """Its id; empty for one that has not begun."""
    model: str = ""
    clock: int = 0
    """Clocks that all partitions have finished."""
    target: int = 0
    """Clocks that they will finish."""
    clocks: list[int] = field(default_factory=list)
    """Finished clocks of each partition."""
    loss: float = math.nan
    """Mean training loss of the last clock that all finished."""
    samples: float = 0.0
    """Since the start; so are the bytes."""
    pulled: float = 0.0
    pushed: float = 0.0
    rate: float = 0.0
    """Samples a second, of late."""
    answers: dict[str, list[float]] = field(default_factory=dict)
    """What shards answered to tasks elsewhere since the start; see `daskps.run.answers.Counts`."""
    places: dict[str, str] = field(default_factory=dict)
    """Worker of each shard, by the number that `answers` has."""
    slots: dict[str, int] = field(default_factory=dict)
    """Slots that shards hold, by worker."""
    workers: int = 0
    shards: int = 0
    cut: str = ""
    """Newest checkpoint."""
    recoveries: int = 0
    stopping: bool = False
    """Whether somebody has interrupted it."""
    ended: str = ""
    """Why the run ended; empty while it goes on."""
    happened: list[str] = field(default_factory=list)
    """Checkpoints, losses and recoveries since the last time."""

    @property
    def staleness(self) -> int:
        """How far the fastest partition is ahead of the slowest."""
        return max(self.clocks, default=0) - min(self.clocks, default=0)

    def message(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return asdict(self)


class Watch:
    """A listener that tells `Figures`, now and then and when something has happened.

    Parameters
    ----------
    tell
        Called in the driver's thread.
    unit
        What a loss of 1 in the run is for the user.
    period
        Seconds between two times, at least; the end is told in any case.
    title
        What the model is called; empty for its own name.
    """

    def __init__(
        self,
        tell: Callable[[Figures], None],
        unit: float = 1.0,
        period: float = 0.5,
        title: str = "",
    ) -> None:
        self._tell = tell
        self._unit = unit
        self._period = period
        self._title = title
        self._told = -math.inf
        self._before = (time.monotonic(), 0.0)
        self._engine: Engine | None = None
        self._seen: set[str] = set()
        self._answers = Answers()
        self.figures = Figures()

    def attach(self, engine: Engine) -> None:
        """Learn where the shards of the run are; called before its first event."""
        self._engine = engine
        self.figures.run = engine.plan.run
        model = engine.plan.model
        self.figures.model = self._title or getattr(model, "title", type(model).__name__)

    def __call__(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        """Take an event or action."""
        stopping = self.figures.stopping
        self._note(told)
        now = time.monotonic()
        over = isinstance(told, (ev.Finish, ev.Fail)) or self.figures.stopping > stopping
        if over or now - self._told >= self._period:
            self._look(coordinator, now)
            self._tell(self.figures)
            self._told, self.figures.happened = now, []

    def _note(self, told: ev.Event | ev.Action) -> None:
        figures = self.figures
        match told:
            case ev.TaskDone(_, metrics, worker, answers):
                figures.samples += metrics.get("samples", 0.0)
                figures.pulled += metrics.get("pulled_bytes", 0.0)
                figures.pushed += metrics.get("pushed_bytes", 0.0)
                self._seen.add(worker)
                self._answers.include(answers)
            case ev.CutPublished(cut):
                figures.cut = cut
                figures.happened.append(f"checkpoint {cut}")
            case ev.CutFailed(cut):
                figures.happened.append(f"checkpoint {cut} failed")
            case ev.WorkerJoined(worker):
                figures.happened.append(f"joined {worker}")
                self._seen.add(worker)
            case ev.WorkerLost(worker):
                figures.happened.append(f"lost {worker}")
                self._seen.discard(worker)
            case ev.Recovered(_, _, _, seconds):
                figures.happened.append(f"recovered in {seconds:.2f} s")
            case ev.StopRequested("interrupted"):
                figures.stopping = True
            case ev.Finish(reason):
                figures.ended = reason
            case ev.Fail():
                figures.ended = "failed"
            case _:
                pass

    def _look(self, coordinator: Coordinator, now: float) -> None:
        figures = self.figures
        figures.clock, figures.target = coordinator.min_clock, coordinator.target
        figures.clocks = [coordinator.clocks[p] for p in sorted(coordinator.clocks)]
        figures.loss = recent_loss(coordinator) * self._unit
        figures.recoveries = len(coordinator.ledger.recoveries)
        figures.shards = coordinator.policy.n_shards
        then, samples = self._before
        if now - then >= self._period:
            figures.rate = (figures.samples - samples) / (now - then)
            self._before = (now, figures.samples)
        if self._engine is not None:
            layout = self._engine.layout
            held = Counter(layout.refs[shard].address for shard in layout.owners)
            figures.slots = dict(sorted(held.items()))
            figures.places = {str(n): ref.address for n, ref in sorted(layout.refs.items())}
        figures.answers = self._answers.told()
        figures.workers = len(self._seen.union(figures.slots) - {""})


def recent_loss(coordinator: Coordinator) -> float:
    """Return the mean training loss of the last clock that all partitions finished."""
    tasks = coordinator.ledger.parts.get(coordinator.min_clock - 1, {}).values()
    samples = sum(m["samples"] for m in tasks)
    return sum(m["loss"] for m in tasks) / samples if samples else math.nan


def quantity(value: float) -> str:
    """Return a large number with a unit letter."""
    for letter, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {letter}"
    return f"{value:.3g} "
