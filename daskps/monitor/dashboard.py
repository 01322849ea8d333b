"""The scheduler's part of the ``daskps`` page and metrics: what runs tell, kept for them.

A run's driver sends its figures as events; a plugin on the scheduler keeps the newest, and adds the
page (`page`) where the scheduler has a dashboard and the metrics where it has prometheus_client. It
comes with the first fit on a cluster; ``dask scheduler --preload daskps.monitor.dashboard`` has it
from the start.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

from distributed import Client, Scheduler, SchedulerPlugin

from daskps.monitor.figures import Figures
from daskps.run.answers import Counts, since

logger = logging.getLogger("daskps")

TOPIC = "daskps-figures"
RUNS = 4
"""Runs that are kept."""
POINTS = 2000
"""Moments that are kept of each."""

_known: WeakSet[Client] = WeakSet()


@dataclass
class RunView:
    """What the page shows of a run."""

    latest: dict[str, Any] = field(default_factory=dict)
    losses: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=POINTS))
    """(clock, loss)."""
    rates: deque[tuple[float, float, float]] = field(default_factory=lambda: deque(maxlen=POINTS))
    """(time in ms, bytes pulled a second, bytes pushed a second)."""
    happened: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=POINTS))
    """(time in ms, what)."""

    answers: dict[str, dict[str, float]] = field(default_factory=dict)
    """By shard, of late: bytes a second that were pulled of it and pushed to it, and the mean
    milliseconds until it had answered a pull and a push."""

    def take(self, message: dict[str, Any], now: float) -> None:
        """Take newer figures; `now` is in seconds."""
        clock, before = message["clock"], self.latest
        while self.losses and self.losses[-1][0] >= clock:
            self.losses.pop()  # done again after a recovery
        if math.isfinite(message["loss"]):
            self.losses.append((clock, message["loss"]))
        if before:
            seconds = max(1e-3, now - before["at"])
            moved = [(message[n] - before[n]) / seconds for n in ("pulled", "pushed")]
            self.rates.append((1e3 * now, *moved))
            self._hear(message["answers"], before["answers"], seconds)
        self.happened.extend((1e3 * now, what) for what in message["happened"])
        self.latest = {**message, "at": now}

    def _hear(self, counts: Counts, before: Counts, seconds: float) -> None:
        for shard, now in counts.items():
            of_late = since(now, before.get(shard, ()))
            shown = self.answers.setdefault(shard, {"pull_ms": 0.0, "push_ms": 0.0})
            for name, n in (("pull", "pulls"), ("push", "pushes")):
                shown[f"{name}ed"] = of_late[f"{name}ed"] / seconds
                if of_late[n]:  # else the time of those before stands
                    shown[f"{name}_ms"] = 1e3 * of_late[f"{name}_seconds"] / of_late[n]


class DaskpsDashboard(SchedulerPlugin):
    """Keeps what runs tell, and serves it."""

    name = "daskps-dashboard"
    idempotent = True

    def __init__(self) -> None:
        self.runs: dict[str, RunView] = {}

    async def start(self, scheduler: Scheduler) -> None:
        """Add the page and the metrics, each where there is what it needs."""
        self.scheduler = scheduler
        with contextlib.suppress(ImportError):  # no bokeh: no page
            from daskps.monitor import page

            page.add(scheduler, self.runs)
        with contextlib.suppress(ImportError):  # no prometheus_client: no metrics
            from daskps.monitor import metrics

            metrics.add(self.runs)

    def log_event(self, topic: str, msg: Any) -> None:
        """Take the figures that a driver sends."""
        if topic != TOPIC:
            return
        view = self.runs.setdefault(msg["run"], RunView())
        view.take(msg, time.time())
        while len(self.runs) > RUNS:
            del self.runs[next(iter(self.runs))]


class Publisher:
    """Sends a run's figures to the scheduler, without waiting and without ever failing."""

    def __init__(self, client: Client) -> None:
        self._client: Any = client
        with contextlib.suppress(OSError, TimeoutError, ImportError):  # the engine says what it is
            _register(client)

    def __call__(self, figures: Figures) -> None:
        """Send the figures."""
        self._client.loop.add_callback(self._send, figures.message())

    async def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(Exception):  # what is shown must not disturb what is trained
            await self._client.scheduler.log_event(topic=TOPIC, msg=message)


def _register(client: Client) -> None:
    if client not in _known:
        client.register_plugin(DaskpsDashboard())
        _known.add(client)


def serve(client: Client) -> bool:
    """Have the page served from now on; return whether the scheduler has a dashboard for it."""
    _register(client)
    return bool(client.run_on_scheduler(_serves))


def _serves(dask_scheduler: Scheduler) -> bool:
    """Return whether the page is there; runs on the scheduler."""
    served: Any = getattr(dask_scheduler, "http_application", None)
    found = [getattr(app, "app_paths", ()) for app in getattr(served, "applications", [])]
    return any("/daskps" in paths for paths in found)


async def dask_setup(scheduler: Scheduler) -> None:
    """Preload: serve the page before the first fit."""
    if isinstance(scheduler, Scheduler):
        plugin = DaskpsDashboard()
        await plugin.start(scheduler)
        scheduler.add_plugin(plugin, idempotent=True, name=plugin.name)
