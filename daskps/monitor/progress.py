"""A progress bar in the terminal, and one log line a pass; listens to a run's events."""

from __future__ import annotations

import logging
import math
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.driver import Listener

logger = logging.getLogger("daskps")


def progress_listener(wanted: bool | None) -> list[Listener]:
    """Return the listeners that show how training goes.

    Parameters
    ----------
    wanted
        Whether to draw a bar on standard error; None draws it where that is a terminal.
    """
    shown = sys.stderr.isatty() if wanted is None else wanted
    return [ProgressBar(), log_passes] if shown else [log_passes]


def log_passes(told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
    """Log losses, recoveries and failed checkpoints, and the training loss of each pass."""
    match told:
        case ev.TaskDone() if coordinator.min_clock:
            number, rest = divmod(coordinator.min_clock, coordinator.policy.clocks_per_pass)
            first = coordinator.ledger.parts.get(coordinator.min_clock)
            if rest == 0 and not first:
                loss = coordinator.ledger.pass_loss(number - 1)
                logger.info("pass %d: training loss %.5f", number, loss)
        case ev.WorkerLost(worker, shards):
            logger.warning("worker %s was lost, with shards %s", worker, list(shards))
        case ev.Recovered(clocks=clocks, cut=cut, seconds=seconds):
            since = cut or "the beginning"
            logger.warning("recovered from %s in %.2f s; clock %d", since, seconds, min(clocks.values()))
        case _:
            pass


class ProgressBar:
    """Draws clocks done, loss, staleness and what was lost; ends with the run."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("daskps"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("clocks  {task.fields[said]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._bar = None

    def __call__(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        """Take an event or action."""
        if self._bar is None:
            self._progress.start()
            self._bar = self._progress.add_task("", total=coordinator.target, said="")
        match told:
            case ev.WorkerLost(worker, shards):
                self._progress.console.print(f"lost worker {worker}, with shards {list(shards)}")
            case ev.Recovered(cut=cut, seconds=seconds):
                since = cut or "the beginning"
                self._progress.console.print(f"recovered from {since} in {seconds:.2f} s")
            case _:
                pass
        loss = recent_loss(coordinator)
        said = "" if math.isnan(loss) else f"loss {loss:.4f}"
        self._progress.update(
            self._bar, completed=coordinator.min_clock, total=coordinator.target, said=said
        )
        if isinstance(told, (ev.Finish, ev.Fail)):
            self._progress.stop()


def recent_loss(coordinator: Coordinator) -> float:
    """Return the mean training loss of the last clock that all partitions finished."""
    tasks = coordinator.ledger.parts.get(coordinator.min_clock - 1, {}).values()
    samples = sum(m["samples"] for m in tasks)
    return sum(m["loss"] for m in tasks) / samples if samples else math.nan
