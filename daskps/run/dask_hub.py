"""News from the scheduler: who came, who went, which task is done; and shards kept from `adapt`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from distributed import Client, Scheduler, SchedulerPlugin

from daskps.run.dask_worker import TOPIC

_SHARD = "('daskps-shard-"
_SETTLED = frozenset({"memory", "released", "erred", "forgotten"})

Listener = Callable[[dict[str, Any]], None]


class DaskpsScheduler(SchedulerPlugin):
    """Publishes joins and losses, and keeps `adapt` from closing a worker that holds a shard."""

    name = "daskps"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Remember the scheduler, whose hook for transitions does not name it."""
        self._scheduler = scheduler

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Correct the scheduler's lists of actors once a shard is somewhere, or nowhere.

        Work stealing moves an actor that waits for its turn to another worker and leaves it in the
        list of the first, for ever; `adapt` and `retire_workers` go by these lists.
        """
        if finish in _SETTLED and is_shard(key):
            task = self._scheduler.tasks[key]
            for worker in self._scheduler.workers.values():
                holds = worker in (task.who_has or ())
                (worker.actors.add if holds else worker.actors.discard)(task)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Tell the drivers that a worker came."""
        scheduler.log_event(TOPIC, {"joined": worker})

    def remove_worker(
        self, scheduler: Scheduler, worker: str, *, stimulus_id: str, **kwargs: Any
    ) -> None:
        """Tell the drivers that a worker went, about 30 ms after it did."""
        scheduler.log_event(TOPIC, {"lost": worker})

    def valid_workers_downscaling(self, scheduler: Scheduler, workers: list[Any]) -> list[Any]:
        """Return the workers without shards: a shard's worker looks idle and empty to Dask."""
        return [w for w in workers if not any(is_shard(ts.key) for ts in w.actors)]


def shard_key(run: str, shard: int, incarnation: int) -> str:
    """Return the Dask key of one incarnation of a shard.

    It has the form of a chunk's, which makes it a group of its own: Dask queues the tasks of large
    groups, and places a queued actor without regard to where the others are.
    """
    return f"{_SHARD}{run}-{shard}-i{incarnation}', 0)"


def is_shard(key: Any) -> bool:
    """Return whether `key` is that of a shard."""
    return isinstance(key, str) and key.startswith(_SHARD)


async def expel(address: str, dask_scheduler: Scheduler) -> None:
    """Make the scheduler drop a worker that does not answer; runs on the scheduler."""
    if address in dask_scheduler.workers:
        await dask_scheduler.remove_worker(address, stimulus_id="daskps-silent")


class Hub:
    """One subscription a client, shared by the runs on it."""

    _hubs: ClassVar[WeakKeyDictionary[Client, Hub]] = WeakKeyDictionary()
    _lock = threading.Lock()

    def __init__(self, client: Client) -> None:
        self._listeners: dict[str, Listener] = {}
        client.subscribe_topic(TOPIC, self._receive)

    @classmethod
    def of(cls, client: Client) -> Hub:
        """Return the hub of `client`."""
        with cls._lock:
            if client not in cls._hubs:
                cls._hubs[client] = cls(client)
            return cls._hubs[client]

    def attach(self, run: str, listener: Listener) -> None:
        """Call `listener`, on the client's event loop, with the news that concern `run`."""
        self._listeners[run] = listener

    def detach(self, run: str) -> None:
        """Stop calling the listener of `run`."""
        self._listeners.pop(run, None)

    def _receive(self, event: tuple[float, dict[str, Any]]) -> None:
        _, message = event
        run = message.get("run")
        for name, listener in list(self._listeners.items()):
            if run is None or run == name:
                listener(message)
