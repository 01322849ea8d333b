"""A driver in the cluster: a Dask task with a client of its own, which owns the run's shards.

When its worker dies, Dask runs it again elsewhere, and it goes on from the newest checkpoint. What
it says of the run, and the wish that it stop, stand in the plugin on the scheduler.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daskps.errors import RunFailed
from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.driver import listening

if TYPE_CHECKING:
    from distributed import Client, Scheduler

    from daskps.run.engine import Engine

ASK = 30.0
"""Seconds in which the scheduler must answer."""
BEAT = 0.5
"""Seconds between two reports of a driver, at the least."""


def key_of(name: str) -> str:
    """Return the Dask key of a run's driver, which is also the name it is published by."""
    return f"daskps-driver-{name}"


def ask(client: Client, question: Callable[..., Any], *args: Any) -> Any:
    """Return what a function says that runs on the scheduler, within bounds."""
    try:
        # not run_on_scheduler, which has no bound
        return client.sync(client._run_on_scheduler, question, *args, callback_timeout=ASK)
    except (TimeoutError, OSError) as error:
        raise RunFailed(
            f"the Dask scheduler does not answer within {ASK:g} s ({error}); is the cluster gone?"
        ) from error


# -- on the scheduler ------------------------------------------------------------------------------


def _runs(scheduler: Scheduler) -> dict[str, dict[str, Any]]:
    plugin: Any = scheduler.plugins["daskps"]
    runs: dict[str, dict[str, Any]] = plugin.runs
    return runs


def report(name: str, news: dict[str, Any], dask_scheduler: Scheduler) -> bool:
    """Take news of a run; return whether it is to stop."""
    run = _runs(dask_scheduler).setdefault(name, {})
    run.update(news)
    return bool(run.get("stop"))


def begin(name: str, me: str, worker: str, dask_scheduler: Scheduler) -> None:
    """Note a driver's start, and end those that were taken for dead but are not."""
    _evict(name, dask_scheduler, but=me)
    run = _runs(dask_scheduler).setdefault(name, {})
    run.update(worker=worker, starts=run.get("starts", 0) + 1)


def _evict(name: str, scheduler: Scheduler, *, but: str = "") -> None:
    for client in [c for c in scheduler.clients if c != but and _is_driver(c, name)]:
        # its futures go, and its shards with them, before it can come back by the same name:
        # the scheduler would take the new one's for all that it had, and never let go of the rest
        scheduler.remove_client(client, stimulus_id="daskps-evict")
        scheduler.client_comms[client].abort()  # it is told


def _is_driver(client: str, name: str) -> bool:
    return re.fullmatch(rf"Client-{re.escape(key_of(name))}-[0-9a-f-]{{36}}", client) is not None


def forgive(name: str, dask_scheduler: Scheduler) -> None:
    """Let Dask count anew how often the driver's worker died: there is a newer checkpoint."""
    if (task := dask_scheduler.tasks.get(key_of(name))) is not None:
        task.suspicious = 0


def read(name: str, dask_scheduler: Scheduler) -> dict[str, Any]:
    """Return what is known of a run, and the state of its driver as ``task``."""
    task = dask_scheduler.tasks.get(key_of(name))
    state = "gone" if task is None else task.state
    return {**_runs(dask_scheduler).get(name, {}), "task": state}


def forget(name: str, dask_scheduler: Scheduler) -> None:
    """Drop what is known of a run, and end its driver."""
    _runs(dask_scheduler).pop(name, None)
    _evict(name, dask_scheduler)


# -- in the task -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """An estimator and the arguments of its `fit`; opaque, so that Dask does not look into it."""

    name: str
    estimator: Any
    arguments: Mapping[str, Any]


def work(job: Job) -> Any:
    """Task: fit an estimator as a driver in the cluster, and return it."""
    from distributed import Client, get_worker, secede

    worker = get_worker()
    secede()  # a driver mostly waits: its thread must not keep tasks out
    with (
        Client(
            worker.scheduler.address,
            name=key_of(job.name),
            security=worker.security,
            set_as_default=False,
            direct_to_workers=True,
        ) as client,
        client.as_current(),
    ):
        companion = Companion(job.name, client)
        companion.ask(begin, client.id, worker.address)
        with listening(companion):
            return job.estimator.fit(**job.arguments)


class Companion:
    """Listens to a run: reports how it goes, and hands on the wish to stop.

    Parameters
    ----------
    name
        Of the run.
    client
        Of its driver.
    """

    def __init__(self, name: str, client: Client) -> None:
        self._name = name
        self._client = client
        self._engine: Engine | None = None
        self._at = 0.0

    def ask(self, question: Callable[..., Any], *args: Any) -> Any:
        """Run a function on the scheduler, within bounds."""
        return ask(self._client, question, self._name, *args)

    def attach(self, engine: Engine) -> None:
        """Take the engine that stops if it is told to."""
        self._engine = engine

    def __call__(self, told: ev.Event | ev.Action, coordinator: Coordinator) -> None:
        """Take an event or action."""
        if isinstance(told, ev.CutPublished):
            self.ask(forgive)
        over = isinstance(told, (ev.Finish, ev.Fail))
        if not over and time.monotonic() - self._at < BEAT:
            return
        self._at = time.monotonic()
        clock = coordinator.min_clock
        news: dict[str, Any] = {"clock": clock, "clocks": coordinator.target}
        if clock:
            sums = coordinator.ledger.sums(clock - 1)
            news["loss"] = sums["loss"] / sums["samples"] if sums["samples"] else float("nan")
        news["recoveries"] = len(coordinator.ledger.recoveries)
        if self.ask(report, news) and self._engine is not None and not over:
            self._engine.post(ev.StopRequested("interrupted"))
