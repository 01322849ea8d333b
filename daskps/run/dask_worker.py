"""What daskps adds to every Dask worker: the handler that reaches shards, and the tasks.

The shard stays a Dask actor: Dask creates, places, owns and errs it. Only its messages go another
way, as those of Dask's own P2P shuffle do: a handler finds the actor among the worker's and
answers. Worker handlers are no documented interface, therefore `setup` checks for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker
from distributed.comm import get_address_host
from distributed.protocol import to_serialize
from distributed.utils import parse_ports

from daskps import config
from daskps.data import Dataset, Partition
from daskps.errors import RunFailed, ShardLost
from daskps.run import events as ev
from daskps.run import shield
from daskps.run.answers import Answers
from daskps.run.dask_calls import HANDLER, refusal
from daskps.run.door import DoorKeeper
from daskps.run.host import ShardHost
from daskps.run.mover import Source, question
from daskps.run.peers import Peers
from daskps.run.plan import Plan, Prepared
from daskps.run.task import run_evaluation, run_task
from daskps.server.buffers import Buffers
from daskps.server.client import Call
from daskps.server.layout import Layout, ShardRef
from daskps.server.messages import Ask, Push
from daskps.server.shard import Shard
from daskps.version import VERSION

TOPIC = "daskps"
IDLE = 10.0
"""Seconds without a task after which a worker's scratch memory is freed."""
NOTICE = 6.0
"""Seconds that a worker takes to give its shards away after SIGTERM."""
MOVE = 50.0
"""Seconds in which a shard must hand over what moves."""
HAND_ON = 5.0
"""Seconds in which a replica must take what its shard hands on; a task's call may take longer."""


class DaskpsWorker(WorkerPlugin):
    """Answers for the shards of a worker, and lets its tasks reach those of others."""

    name = "daskps"
    idempotent = True

    def __init__(self) -> None:
        self.version = VERSION
        """Of the client's daskps: an instance travels with what it holds, not with its class."""

    def setup(self, worker: Worker) -> None:
        """Install the handler.

        Raises
        ------
        RunFailed
            If this worker has another version of daskps, or one of distributed without such
            handlers.
        """
        if self.version != VERSION:
            raise RunFailed(
                f"worker {worker.address} has daskps {VERSION}, the client {self.version}; "
                "install the same everywhere. 'dask daskps doctor' compares."
            )
        for place, wanted in ((worker.handlers, "run"), (worker.stream_handlers, "remove-worker")):
            if not isinstance(place, dict) or wanted not in place:
                raise RunFailed(
                    f"distributed's Worker has no handler {wanted!r} where daskps expects it; "
                    "install the version of distributed that daskps names."
                )
        shield.dask_setup(worker)
        self.worker = worker
        self.buffers = Buffers()
        security = worker.security if worker.address.startswith("tls://") else None
        self.peers = Peers(_context(security, "connection"))
        self.keeper = self._open_door(_context(security, "listen"))
        self._last_task = 0.0
        self._before = worker.stream_handlers["remove-worker"]
        worker.handlers[HANDLER] = self.answer
        worker.stream_handlers["remove-worker"] = self._remove_worker
        self._close: Any = worker.close
        worker.close = self._drain_and_close  # type: ignore[method-assign]  # shards move first

    def teardown(self, worker: Worker) -> None:
        """Take the handler away."""
        if worker.handlers.pop(HANDLER, None) is None:
            return  # setup refused this worker
        worker.stream_handlers["remove-worker"] = self._before
        worker.close = self._close  # type: ignore[method-assign]  # as it was
        self.keeper.close()
        self.peers.rest()
        self.buffers.clear()

    def _open_door(self, tls: ssl.SSLContext | None) -> DoorKeeper:
        local = self.worker.address.startswith("inproc://")
        host = "127.0.0.1" if local else get_address_host(self.worker.address)
        wanted = config.get("data-port")
        ports = [port or 0 for port in parse_ports(wanted)]
        for port in ports:
            try:
                return DoorKeeper(host, port, self.shard, tls)
            except OSError as error:
                failure = error
        raise RunFailed(
            f"no port of {wanted!r} is free on {host} ({failure}); name a wider range in Dask's "
            f"configuration as daskps.data-port, such as '9100:9200'."
        )

    def tend(self) -> None:
        """Note that a task begins; when none has begun for a while, scratch memory is freed."""
        idle_before = not self._last_task
        self._last_task = time.monotonic()
        if idle_before:
            self.worker.loop.add_callback(self.worker.loop.call_later, IDLE, self._free_if_idle)

    def _free_if_idle(self) -> None:
        rest = self._last_task + IDLE - time.monotonic()
        if rest > 0:
            self.worker.loop.call_later(rest, self._free_if_idle)
            return
        self._last_task = 0.0
        self.buffers.clear()
        self.keeper.free()
        self.peers.rest()

    async def _drain_and_close(
        self, *args: Any, reason: str = "worker-close", **kwargs: Any
    ) -> str | None:
        """Close the worker; after SIGTERM, the notice of pre-emption, give its shards away first.

        The nanny that got the signal kills the process after 8 s.
        """
        holds = any(isinstance(a, ShardHost) for a in self.worker.state.actors.values())
        if holds and reason == f"signal-{int(signal.SIGTERM)}":
            retire = self.worker.scheduler.retire_workers
            asked = retire(workers=[self.worker.address], close_workers=False, remove=False)
            with contextlib.suppress(Exception):  # then it is a loss like any other
                await asyncio.wait_for(asked, NOTICE)
        closed: str | None = await self._close(*args, reason=reason, **kwargs)
        return closed

    def _remove_worker(self, worker: str, stimulus_id: str) -> None:
        # peers learn of a loss within milliseconds: nothing may go on waiting for it
        self.peers.lose(worker)
        self._before(worker=worker, stimulus_id=stimulus_id)

    def host(self, ref: ShardRef) -> ShardHost:
        """Return the shard that `ref` names.

        Raises
        ------
        ShardLost
            If it is not here, or another incarnation is.
        """
        host = self.worker.state.actors.get(ref.key)
        if not isinstance(host, ShardHost):
            raise ShardLost(
                f"shard {ref.shard} incarnation {ref.incarnation} is not on {ref.address}."
            )
        host.check(ref)
        return host

    def shard(self, number: int, incarnation: int, key: str) -> Shard:
        """Return the shard that a message through the door is for; see `host`."""
        return self.host(ShardRef(number, incarnation, self.worker.address, key)).shard

    async def answer(
        self, shard: int, incarnation: int, key: str, operation: str, message: Any
    ) -> dict[str, Any]:
        """Answer a message to one of the shards here; the handler itself."""
        ref = ShardRef(shard, incarnation, self.worker.address, key)
        loop = asyncio.get_running_loop()
        try:
            if operation == "recent":  # of the process, not of a shard
                look = functools.partial(self.buffers.recent.of, **message)
                found = await loop.run_in_executor(None, look)
                return {"status": "OK", "result": to_serialize(found)}
            host = self.host(ref)
            if operation == "ping":
                return {"status": "OK", "result": host.ping()}
            if operation == "door":
                return {"status": "OK", "result": self.keeper.door}
            if operation == "mirror":
                self._mirror(host, **message)
                return {"status": "OK", "result": None}
            if operation == "move_in":
                take = functools.partial(self._move_in, host, **message)
                result: Any = await loop.run_in_executor(None, take)
            else:
                result = await loop.run_in_executor(None, host.operate, operation, message)
        except Exception as error:  # an exception that escapes a handler would be logged and lost
            return refusal(error)
        return {"status": "OK", "result": to_serialize(result)}

    def _move_in(
        self, host: ShardHost, generation: int, clocks: ev.Clocks, sources: Sequence[Source]
    ) -> None:
        """Let a shard take what others hold: by reference if they are here."""
        here = [s for s in sources if s[0].address == self.worker.address]
        there = [s for s in sources if s[0].address != self.worker.address]
        wait = self.peers.send([(s[0], question(s, generation), ()) for s in there], MOVE)
        parts = [self.host(s[0]).shard.ask(question(s, generation)) or {} for s in here]
        host.move_in(generation, clocks, [*parts, *wait()])

    def _mirror(self, host: ShardHost, replica: ShardRef) -> None:
        """Let a shard hand on what it counts to its replica on another worker."""

        def send(msg: Push | Ask) -> None:
            self.peers.send([(replica, msg, ())], HAND_ON)()

        host.mirror(send, HAND_ON)


class WorkerTransport:
    """Reaches shards from a task's thread; shards of this worker without any message."""

    def __init__(self, plugin: DaskpsWorker, timeout: float) -> None:
        self._plugin = plugin
        self._timeout = timeout
        self.buffers = plugin.buffers
        self.answers = Answers()
        plugin.tend()

    def local(self, ref: ShardRef) -> Shard | None:
        """Return the shard itself if it lives here."""
        if ref.address != self._plugin.worker.address:
            return None
        return self._plugin.host(ref).shard

    def send(self, calls: Sequence[Call]) -> Callable[[], list[Any]]:
        """See `daskps.server.client.Transport.send`."""
        return self._plugin.peers.send(calls, self._timeout, self.answers.add)


def _context(security: Any, what: str) -> ssl.SSLContext | None:
    """Return the TLS context that Dask itself uses."""
    if security is None:
        return None
    context: ssl.SSLContext = getattr(security, f"get_{what}_args")("worker")["ssl_context"]
    return context


def _transport(plan: Plan) -> WorkerTransport:
    plugin = get_worker().plugins.get(DaskpsWorker.name)
    if not isinstance(plugin, DaskpsWorker):
        raise RunFailed("this worker has no daskps plugin; was it unregistered during the run?")
    return WorkerTransport(plugin, plan.call_timeout)


def load(source: Dataset | Partition, number: int, plan: Plan, *, held_out: bool) -> Prepared:
    """Task: read and prepare one partition."""
    partition = source.partition(number) if isinstance(source, Dataset) else source
    return (plan.prepare_whole if held_out else plan.prepare)(partition, number)


def work(
    data: Prepared, plan: Plan, token: int, partition: int, clock: int, layout: Layout
) -> None:
    """Task: run (partition, clock); the figures go to the driver as an event, the fast way."""
    transport = _transport(plan)
    figures = run_task(plan, data, partition, clock, layout, transport)
    worker = get_worker()
    message = {"run": plan.run, "token": token, "worker": worker.address, "metrics": figures}
    message["answers"] = transport.answers.told()
    worker.log_event(TOPIC, message)


def evaluate(
    data: Prepared, plan: Plan, partition: int, clock: int, layout: Layout
) -> dict[str, float]:
    """Task: evaluate one held-out partition."""
    return dict(run_evaluation(plan, data, partition, clock, layout, _transport(plan)))
