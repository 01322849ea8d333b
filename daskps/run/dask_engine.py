"""The engine on a Dask cluster: shards are actors, tasks are Dask tasks.

Dask places, reschedules and recomputes; daskps bounds every wait and says what is done. Tasks hold
opaque references to shards and are never pinned to an address.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

from distributed import Client, Future, wait
from msgspec.structs import replace

from daskps import config
from daskps.data import Dataset
from daskps.errors import RunFailed, RunTimeout, ShardLost
from daskps.run import dask_data, dask_probe, dask_tasks, placing, plugins
from daskps.run import events as ev
from daskps.run.checkpoint import Checkpoints
from daskps.run.dask_calls import Caller, Line
from daskps.run.dask_hub import Hub, expel, rather, shard_key
from daskps.run.dask_start import cut_off, wait_for_worker
from daskps.run.engine import PING, ControlCall, Engine
from daskps.run.host import ShardHost
from daskps.run.ledger import Ledger
from daskps.run.pace import Pace
from daskps.run.plan import Plan
from daskps.run.replicas import leaving, loss_of
from daskps.run.task import mean_metrics
from daskps.server.layout import Door, ShardRef

ASK = 30.0
"""Seconds in which the scheduler must answer."""
GRACE = 5.0
"""Seconds beyond its own timeout after which a call that did not end is given up."""
PLACINGS = 5
"""How often a shard is placed anew because its worker died while it was being placed."""


class DaskEngine(Engine):
    """Runs on the cluster of `client`; must not be used from the client's event loop.

    Parameters
    ----------
    plan, n_shards, checkpoints
        See `Engine`; a shard on each worker that may hold one by default.
    dataset
        Training data. On disk, workers read it and Dask reads it again elsewhere after a loss; in
        memory, its partitions are part of the tasks that the scheduler keeps.
    held_out
        Data to evaluate after each pass, if the coordinator asks for it.
    client
        Connected to the cluster.

    Raises
    ------
    RunTimeout
        If no worker is there within `patience` seconds.
    """

    patience = 30.0
    """Seconds in which at least one worker must be there."""

    def __init__(
        self,
        plan: Plan,
        dataset: Dataset,
        held_out: Dataset | None,
        client: Client,
        *,
        n_shards: int | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        if client.asynchronous:
            raise RunFailed(
                "fit was called on the event loop of an asynchronous client, which it would "
                "block; call it with asyncio.to_thread, or use a synchronous Client."
            )
        self._client = client
        if not n_shards:
            wait_for_worker(client, self.patience)
        n, self.one_each = n_shards or len(self.workers()), n_shards is None
        super().__init__(plan, n, dataset.partition_rows.tolist(), checkpoints)
        plugins.register(client)
        self._caller = Caller(self._line)
        self._quiet = config.seconds("probe")
        self._pace = Pace(plan.server.n_partitions)
        self._tasks: dict[int, tuple[Future[Any], int]] = {}
        self._starting, self._spent = dask_tasks.Starting(), dask_tasks.Spent()
        self._futures: dict[int, Future[Any]] = {}
        self._made: weakref.WeakSet[Future[Any]] = weakref.WeakSet()
        self._data: list[Future[Any]] = []
        self._held_out: list[Future[Any]] = []
        Hub.of(client).attach(plan.run, self._news)
        for worker in self._running():
            self._pace.joined(worker)
        try:
            self._data = self._load(dataset, held_out=False)
            if held_out is not None:
                self._held_out = self._load(held_out, held_out=True)
        except BaseException:
            self._close()
            raise

    @property
    def _scheduler(self) -> Any:
        return self._client.scheduler

    @property
    def shards(self) -> dict[int, Future[Any]]:
        """What keeps each shard alive."""
        return self._futures

    def workers(self) -> list[str]:
        """Return the addresses of the workers that may hold shards."""
        return placing.may_hold(self._running())

    def addresses(self) -> list[str]:
        """Return the addresses of all workers."""
        return list(self._running())

    def _running(self) -> dict[str, Any]:
        found = self._ask(self._scheduler.identity, n_workers=-1)["workers"]
        return {address: w for address, w in found.items() if w["status"] == "running"}

    def _ask(self, question: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Return the scheduler's answer, within bounds."""
        try:
            return self._client.sync(question, *args, callback_timeout=ASK, **kwargs)
        except (TimeoutError, OSError) as error:
            raise self._cut_off() from error

    def _cut_off(self) -> RunFailed:
        return cut_off(self._scheduler.address)

    def next_event(self, timeout: float) -> ev.Event | None:
        """Return the next event; without the scheduler there is no other than the end."""
        if self._client.status != "running":
            return ev.RecoveryFailed(self._cut_off())
        self._start()
        self._spent.rest(idle=self._inbox.empty())
        return super().next_event(timeout)

    def _wait(
        self, futures: Sequence[Future[Any]], timeout: float, *, probing: bool = True
    ) -> list[Future[Any]]:
        """Wait for futures for at most `timeout` seconds; return those that are still pending.

        A worker that hangs meanwhile is found if `probing`.

        Raises
        ------
        RunFailed
            If the scheduler is gone or somebody cancelled them.
        """
        asked = time.monotonic()
        deadline = asked + timeout
        while left := [f for f in futures if f.status in ("pending", "lost")]:
            rest = deadline - time.monotonic()
            if self._client.status != "running":
                raise self._cut_off()
            if rest <= 0:
                break
            if probing and time.monotonic() - asked > self._quiet:
                asked = time.monotonic()
                self._probe(left)
            with contextlib.suppress(TimeoutError, CancelledError):
                wait(left, timeout=min(rest, 1.0))
        if any(f.status == "cancelled" for f in futures):
            raise self._cut_off()
        return left

    def _line(self, address: str) -> Line:
        straight = self._client.direct_to_workers
        return Line(self._client.rpc, address, None if straight else self._scheduler.address)

    # -- data --------------------------------------------------------------------------------

    def _load(self, dataset: Dataset, *, held_out: bool) -> list[Future[Any]]:
        near = dask_data.turns({a: w["nthreads"] for a, w in self._running().items()})
        futures = dask_data.submit(self._client, dataset, self.plan, near, held_out=held_out)
        # whoever reads files of others may hold Python's lock for long
        waiting = partial(self._wait, probing=False)
        # where no other worker is left, a partition waits for the one it was dealt to for ever
        free = dict.fromkeys(f.key for f in futures)
        anywhere = partial(self._ask, self._scheduler.set_restrictions, worker=free)
        dask_data.wait_for(futures, waiting, self.workers, self.patience, anywhere)
        return futures

    # -- shards ------------------------------------------------------------------------------

    def _make(
        self,
        incarnations: Mapping[int, int],
        generation: int,
        slots: Mapping[int, Sequence[int]],
        where: Mapping[int, str] | None = None,
    ) -> dict[int, ShardRef]:
        refs: dict[int, ShardRef] = {}
        wanted = dict(incarnations)
        for again in reversed(range(PLACINGS)):
            placed = self._place(wanted, generation, slots, where or {}, last=not again)
            refs |= placed
            wanted = {s: n + 1 for s, n in wanted.items() if s not in placed}
            if not wanted:
                break
        return refs

    def _place(
        self,
        incarnations: Mapping[int, int],
        generation: int,
        slots: Mapping[int, Sequence[int]],
        where: Mapping[int, str],
        *,
        last: bool,
    ) -> dict[int, ShardRef]:
        """Make shards and return where they are, without those whose worker died meanwhile."""
        futures, resources = {}, placing.demand(self._running())
        for shard, number in incarnations.items():
            # a new key for each incarnation: no reference to the old one can reach the new
            futures[shard] = self._client.submit(
                ShardHost,
                *(shard, number, self.plan.server, list(slots[shard]), generation),
                actor=True,
                key=shard_key(self.plan.run, shard, number),
                resources=resources,
                # never only there: it would be waited for if that worker went
                **rather(where.get(shard)),
            )
        self._futures.update(futures)
        self._made.update(futures.values())
        if left := self._wait(list(futures.values()), self.recovery_timeout):
            raise RunTimeout(
                f"{len(left)} shards were not placed within {self.recovery_timeout:g} s; expected "
                "a worker that runs tasks. Look whether workers are paused for want of memory."
            )
        if last:
            for future in futures.values():
                future.result(timeout=PING)
        # who_has, not the proxy: a proxy binds to whatever client is the default one
        found = self._ask(self._scheduler.who_has, keys=[f.key for f in futures.values()])
        refs = [
            ShardRef(shard, incarnations[shard], found[future.key][0], str(future.key))
            for shard, future in futures.items()
            if found.get(future.key)
        ]
        doors = self._call([(ref, "door", {}) for ref in refs], PING)
        pairs = zip(refs, doors, strict=True)
        return {r.shard: replace(r, door=d) for r, d in pairs if isinstance(d, Door)}

    def _homes(self, refs: Mapping[int, ShardRef]) -> tuple[int, ...]:
        # where a partition's data is its tasks will run, and what it keeps need not travel
        at = {ref.address: shard for shard, ref in refs.items()}
        keys = [f.key for f in self._data]
        where = self._ask(self._scheduler.who_has, keys=keys)
        near = (next((at[w] for w in where.get(k, ()) if w in at), None) for k in keys)
        far = super()._homes(refs)
        return tuple(far[p] if home is None else home for p, home in enumerate(near))

    def _call(self, calls: Sequence[ControlCall], timeout: float) -> list[Any]:
        loop: Any = self._client.loop
        sent = asyncio.run_coroutine_threadsafe(
            self._caller.call_all(calls, timeout), loop.asyncio_loop
        )
        return dask_probe.outcome(sent, timeout + GRACE, self._quiet, self._probe)

    # -- news --------------------------------------------------------------------------------

    def _news(self, message: Mapping[str, Any]) -> None:
        """Take news on the client's event loop."""
        if "token" in message:
            token, *figures = (message[n] for n in ("token", "metrics", "worker", "answers"))
            self._inbox.put(lambda: self._finished(token, ev.TaskDone(token, *figures)))
        elif "leaving" in message:
            self._inbox.put(lambda: leaving(self, message["leaving"]))
        elif "joined" in message:
            self._inbox.put(lambda: self._joined(message["joined"]))
        elif "lost" in message:
            self._caller.lose(message["lost"])
            self._inbox.put(lambda: self._lost(message["lost"]))

    def _joined(self, address: str) -> ev.Event:
        self._pace.joined(address)
        return ev.WorkerJoined(address)

    def _lost(self, address: str) -> ev.Event:
        self._pace.left(address)
        return loss_of(self, address)

    def _finished(self, token: int, done: ev.TaskDone) -> ev.Event:
        self._pace.ended(token)
        self._spent.add(self._tasks.pop(token, (None,))[0])
        self._pace.took(done.worker, done.metrics["seconds"])
        return done

    # -- tasks -------------------------------------------------------------------------------

    def execute(self, action: ev.Action, ledger: Ledger) -> None:
        """Do what the coordinator wants; tasks are started together, before anything else."""
        if not isinstance(action, ev.Launch):
            self._start()
        super().execute(action, ledger)

    def _launch(self, action: ev.Launch) -> None:
        self._starting.add(action, self._placing(action))

    def _start(self) -> None:
        where = self._client, self.plan, self.layout, self._data
        for token, future in self._starting.submit(*where):
            self._tasks[token] = (future, self.layout.generation)
            future.add_done_callback(self._ended(token))
            self._spent.started()

    def _placing(self, action: ev.Launch) -> dict[str, Any]:
        """Return where a task should run: mostly Dask knows best."""
        if action.copy_of in self._tasks:
            running = self._ask(self._scheduler.processing, workers=None)
            original = self._tasks[action.copy_of][0].key
            return dask_probe.elsewhere(running, original, self._pace.slow)
        wanted = self._pace.give(action.token)
        # a worker that is to be spared would steal
        return {"workers": wanted, "allow_other_workers": len(wanted) == 1} if wanted else {}

    def _probe(self, waited_for: Sequence[Future[Any]] = ()) -> None:
        holders = {r.address for r in (*self.layout.refs.values(), *self.replicas.values())}
        keys = [f.key for f in (*waited_for, *(f for f, _ in list(self._tasks.values())))]
        dask_probe.probe(self._client, self._line, holders, keys, PING)

    def _ended(self, token: int) -> Callable[[Future[Any]], None]:
        def callback(future: Future[Any]) -> None:
            if future.status == "finished":
                return  # its event, which comes first by the same way, has told
            self._inbox.put(lambda: self._failed(token, future))

        return callback

    def _failed(self, token: int, future: Future[Any]) -> ev.Event | None:
        known = self._tasks.get(token)
        if known is None or known[0] is not future:
            return None
        generation, status = known[1], future.status
        error = future.exception(timeout=PING) if status == "error" else None
        self._abandon(token)
        if status == "cancelled":
            return ev.RecoveryFailed(self._cut_off())
        if generation != self.layout.generation or error is None:
            return ev.TaskFailed(token, "stale", error)
        failure = self._failure(token, error)
        if failure.reason == "lost" and (silent := self.silent()):
            self.post(failure)
            return silent
        return failure

    def all_moved(self) -> None:
        """Let the data follow the shards, while training goes on."""
        for old in set(self._made) - set(self._futures.values()):
            old.release()  # the traceback of a failure may hold it for long
        workers = placing.for_data(self._running(), self.layout)
        dask_data.follow(self._client, self._data, workers)

    def _expel(self, address: str) -> None:
        # a process that hangs looks alive to Dask, which would put the shard there again
        self._ask(self._client._run_on_scheduler, expel, address)

    def _abandon(self, token: int) -> None:
        self._pace.ended(token)
        if known := self._tasks.pop(token, None):
            known[0].release()

    def _evaluate(self, clock: int) -> None:
        where = self._client, self.plan, self.layout, self._held_out
        futures = dask_tasks.evaluations(*where, clock)
        try:
            if left := self._wait(futures, self.recovery_timeout):
                raise RunTimeout(f"{len(left)} evaluation tasks did not end.")
            parts = [f.result(timeout=self.recovery_timeout) for f in futures]
        except (ShardLost, TimeoutError) as error:
            self.post(ev.EvaluationFailed(error))
            return
        self.post(ev.Evaluated(clock, mean_metrics(parts)))

    def _close(self) -> None:
        Hub.of(self._client).detach(self.plan.run)
        tasks = (f for f, _ in self._tasks.values())
        for future in (*tasks, *self._made, *self._data, *self._held_out):
            future.release()
        self._spent.release()
        self._tasks.clear()
        self._futures.clear()
        self._data = self._held_out = []
