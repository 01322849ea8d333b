"""News from the scheduler: who came, who goes, who went, which task is done."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Container, Sequence
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from dask.typing import Key
from distributed import Client, Scheduler, SchedulerPlugin
from distributed.scheduler import TaskStateState

from daskps.run.dask_worker import TOPIC

RETIRE = "retire_workers"
STARTED = 60.0
"""Seconds in which a worker that has registered must have started."""
SOON = 0.001
"""Seconds for which a driver's messages to the scheduler are gathered during a run. Dask's 10 ms
let every second task of a clock, and all if another message went before, start that much later."""
DRAINED = 60.0
"""Seconds in which a worker that retires must have given its shards away."""
_SHARD = "('daskps-shard-"
_SETTLED = frozenset({"memory", "released", "erred", "forgotten"})

Listener = Callable[[dict[str, Any]], None]


class DaskpsScheduler(SchedulerPlugin):
    """Publishes who comes and goes; lets workers give their shards away before they retire."""

    name = "daskps"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Stand before the scheduler's handler for retirements, which all ways of leaving use."""
        self._scheduler = scheduler
        self.runs: dict[str, dict[str, Any]] = {}
        """What is known of detached runs, by name; see `daskps.run.detached`."""
        self._announcing: set[asyncio.Task[None]] = set()
        self._retire = scheduler.handlers[RETIRE]
        scheduler.handlers[RETIRE] = self.retire_workers

    async def close(self) -> None:
        """Take the place in front of the handler away."""
        self._scheduler.handlers[RETIRE] = self._retire
        for task in self._announcing:
            task.cancel()

    async def retire_workers(
        self,
        names: Sequence[Any] | None = None,
        workers: Sequence[Any] | None = None,
        close_workers: bool = False,
        remove: bool = True,
        stimulus_id: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Retire workers as Dask does, once no run needs what they hold.

        Dask refuses a worker that holds an actor, and `cluster.scale` then closes it all the same.
        """
        rest = {"close_workers": close_workers, "remove": remove, "stimulus_id": stimulus_id}
        wanted = names if names is not None else workers
        if wanted is None:
            wanted = self._scheduler.workers_to_close(**kwargs)
        # `cluster.scale` gives names where addresses are expected
        known = {str(w.name): w.address for w in self._scheduler.workers.values()}
        leaving = {known.get(str(w), w) for w in wanted}
        if not any(map(self._holds_shard, self._scheduler.workers)) or not self._stays(leaving):
            return await self._retire(names=names, workers=workers, **rest, **kwargs)
        # also those that hold nothing: a move that is under way may be about to change that
        for address in leaving:
            self._scheduler.log_event(TOPIC, {"leaving": address})
        deadline = time.monotonic() + DRAINED
        while any(map(self._holds_shard, leaving)) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        try:
            return await self._retire(workers=sorted(leaving), **rest)
        finally:
            for address in leaving:
                if self._scheduler.workers.get(address) in self._scheduler.running:  # Dask refused
                    self._scheduler.log_event(TOPIC, {"joined": address})

    def _holds_shard(self, address: str) -> bool:
        worker = self._scheduler.workers.get(address)
        # one that is being made there counts: `actors` may not name it yet, or name it elsewhere
        tasks = () if worker is None else (*worker.actors, *worker.processing)
        return any(is_shard(task.key) for task in tasks)

    def _stays(self, leaving: Container[str]) -> bool:
        return any(w.address not in leaving for w in self._scheduler.running)

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
        """Tell the drivers that a worker came, once it has started its plugins and takes tasks."""
        task = asyncio.create_task(self._announce(worker))
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)

    async def _announce(self, worker: str) -> None:
        deadline = time.monotonic() + STARTED
        while (state := self._scheduler.workers.get(worker)) and time.monotonic() < deadline:
            if state in self._scheduler.running:
                self._go_on()
                self._scheduler.log_event(TOPIC, {"joined": worker})
                return
            await asyncio.sleep(0.02)

    def _go_on(self) -> None:
        """Let tasks go elsewhere that had better be on a worker that is gone.

        Dask looks for another when it takes such a task. If there is none just then, the task waits
        for the one that is gone, whoever comes; with the last worker a moving shard may do so.
        """
        held: dict[Key, TaskStateState] = {
            t.key: "processing" for t in self._scheduler.unrunnable if t.loose_restrictions
        }
        self._scheduler.transitions(held, stimulus_id="daskps-go-on")

    def remove_worker(
        self, scheduler: Scheduler, worker: str, *, stimulus_id: str, **kwargs: Any
    ) -> None:
        """Tell the drivers that a worker went, about 30 ms after it did."""
        scheduler.log_event(TOPIC, {"lost": worker})

    def valid_workers_downscaling(self, scheduler: Scheduler, workers: list[Any]) -> list[Any]:
        """Keep a worker that holds a shard: it looks idle and empty to Dask between two tasks."""
        holders = [w for w in scheduler.workers.values() if self._holds_shard(w.address)]
        if holders and set(holders) <= set(workers):
            return [w for w in workers if w is not holders[0]]
        return workers


def shard_key(run: str, shard: int, incarnation: int) -> str:
    """Return the Dask key of one incarnation of a shard.

    It has the form of a chunk's, which makes it a group of its own: Dask queues the tasks of large
    groups, and places a queued actor without regard to where the others are.
    """
    return f"{_SHARD}{run}-{shard}-i{incarnation}', 0)"


def task_key(what: str, run: str, *numbers: int) -> tuple[str, int]:
    """Return a key that makes a task group of its own.

    Dask takes the tasks of a group that is large beside the cluster and has few dependencies for
    roots, and places them wherever there is room, whoever holds their data.
    """
    return f"daskps-{what}-{run}-" + "-".join(map(str, numbers)), 0


def rather(worker: str | None) -> dict[str, Any]:
    """Return options of `submit` for a task that had better be on `worker`."""
    return {} if worker is None else {"workers": [worker], "allow_other_workers": True}


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
        assert client.scheduler_comm is not None, "the client is not connected"
        self._stream = client.scheduler_comm
        self._usual = self._stream.interval
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
        self._stream.interval = SOON

    def detach(self, run: str) -> None:
        """Stop calling the listener of `run`."""
        self._listeners.pop(run, None)
        if not self._listeners:
            self._stream.interval = self._usual

    def _receive(self, event: tuple[float, dict[str, Any]]) -> None:
        _, message = event
        run = message.get("run")
        for name, listener in list(self._listeners.items()):
            if run is None or run == name:
                listener(message)
