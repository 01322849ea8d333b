"""A progress bar, a notebook's panel, or lines in the log; listens to a run's events.

Owns what is said while training goes on, and nothing that changes it.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from daskps import config
from daskps.cluster import current_client
from daskps.monitor.callbacks import Callback, EventListener
from daskps.monitor.figures import STOPPING, Watch, quantity, recent_loss
from daskps.monitor.panel import Panel, in_notebook
from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.driver import Listener

logger = logging.getLogger("daskps")

ClockCallback = Callable[[int, float], None] | Callback
"""Takes the clocks that all partitions have finished, and the mean loss of the last one; or is an
object that takes all of `daskps.monitor.callbacks`."""


def progress_listeners(
    shown: bool | None, callback: ClockCallback | None = None, unit: float = 1.0, title: str = ""
) -> list[Listener]:
    """Return the listeners that show how training goes.

    Parameters
    ----------
    shown
        Whether to draw a bar on standard error, or in a notebook a panel; None draws where the
        configuration says so, or somebody looks: in a terminal or a notebook.
    callback
        Called after each clock, or of each event.
    unit
        What a loss of 1 in the run is for the user.
    title
        What panel and dashboard call the model, if not by its own name.

    Raises
    ------
    TypeError
        If `callback` can be told nothing.
    """
    if not (callback is None or callable(callback) or isinstance(callback, Callback)):
        raise TypeError(
            f"callback={callback!r}; expected a function of (clock, loss), or an object with a "
            "method on_event(event)."
        )
    notebook = in_notebook()
    if shown is None:
        shown = config.switch("progress")
    drawn = (notebook or sys.stderr.isatty()) if shown is None else shown
    # what the bar says needs no second line from a logger that nobody has set up
    listeners: list[Listener] = [PassLog(logging.INFO if drawn else logging.WARNING, unit)]
    if drawn:
        listeners.append(Watch(Panel(), unit, title=title) if notebook else ProgressBar(unit))
    else:
        listeners.append(ClockLog(unit))
    client = current_client()
    if client is not None and not client.asynchronous and config.switch("dashboard"):
        from daskps.monitor.dashboard import Publisher

        listeners.append(Watch(Publisher(client), unit, title=title))
    if isinstance(callback, Callback):
        listeners.append(EventListener(callback.on_event, unit))
    elif callback is not None:
        listeners.append(ClockListener(callback, unit))
    return listeners


class PassLog:
    """Logs the training loss of each pass; losses of workers and recoveries at `level`."""

    def __init__(self, level: int, unit: float) -> None:
        self._level = level
        self._unit = unit
        self._passes = 0

    def __call__(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        """Take an event or action."""
        match told:
            case ev.TaskDone():
                self._log_pass(coordinator)
            case ev.WorkerLost(worker, shards):
                logger.log(self._level, "lost worker %s%s", worker, _with_shards(shards))
            case ev.Recovered():
                clock = coordinator.min_clock
                logger.log(self._level, "%s; going on at clock %d", _recovery(told), clock)
            case _:
                pass

    def _log_pass(self, coordinator: Coordinator) -> None:
        passes = coordinator.min_clock // coordinator.policy.clocks_per_pass
        if passes > self._passes:
            loss = coordinator.ledger.pass_loss(passes - 1) * self._unit
            logger.info("pass %d: training loss %.5f", passes, loss)
        self._passes = passes  # falls back with a roll-back


class ClockLog:
    """Logs each clock that all partitions have finished, at most one a second."""

    def __init__(self, unit: float) -> None:
        self._unit = unit
        self._clock = 0
        self._samples = 0.0
        self._at = time.monotonic()

    def __call__(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        """Take an event or action."""
        if not isinstance(told, ev.TaskDone):
            return
        self._samples += told.metrics.get("samples", 0.0)
        now = time.monotonic()
        clock, seconds = coordinator.min_clock, now - self._at
        if clock == self._clock or seconds < 1.0:
            return
        loss, rate = recent_loss(coordinator) * self._unit, self._samples / seconds
        text = "clock %d of %d: loss %.5f, %ssamples/s"
        logger.info(text, clock, coordinator.target, loss, quantity(rate))
        self._clock, self._samples, self._at = clock, 0.0, now


class ProgressBar:
    """Draws clocks done, loss and what was lost; ends with the run."""

    def __init__(self, unit: float) -> None:
        self._unit = unit
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("clocks{task.fields[said]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._bar = self._progress.add_task("", total=None, said="")

    def __call__(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        """Take an event or action."""
        self._progress.start()
        match told:
            case ev.WorkerLost(worker, shards):
                self._say(f"lost worker {worker}{_with_shards(shards)}")
            case ev.Recovered():
                self._say(_recovery(told))
            case ev.StopRequested("interrupted"):
                self._say(STOPPING)
            case ev.TaskDone() | ev.Finish():
                self._draw(coordinator)
            case _:
                pass
        if isinstance(told, (ev.Finish, ev.Fail)):
            self._progress.stop()

    def _say(self, line: str) -> None:
        self._progress.console.print(line, highlight=False)

    def _draw(self, coordinator: Coordinator) -> None:
        loss = recent_loss(coordinator) * self._unit
        said = "" if math.isnan(loss) else f", loss {loss:.4f}"
        done, total = coordinator.min_clock, coordinator.target
        self._progress.update(self._bar, completed=done, total=total, said=said)


class ClockListener:
    """Calls `callback` whenever the slowest partition has finished one more clock."""

    def __init__(self, callback: Callable[[int, float], None], unit: float) -> None:
        self._callback = callback
        self._unit = unit
        self._clock = 0

    def __call__(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        """Take an event or action."""
        if isinstance(told, ev.TaskDone) and coordinator.min_clock > self._clock:
            self._callback(coordinator.min_clock, recent_loss(coordinator) * self._unit)
        self._clock = coordinator.min_clock


def _with_shards(shards: tuple[int, ...]) -> str:
    if not shards:
        return ""
    return f", and with it shard{'s' * (len(shards) > 1)} {', '.join(map(str, shards))}"


def _recovery(told: ev.Recovered) -> str:
    if told.by_replicas:
        return f"replicas took the places of what was lost in {told.seconds:.2f} s"
    since = "the beginning" if told.cut is None else f"checkpoint {told.cut}"
    return f"recovered from {since} in {told.seconds:.2f} s"
