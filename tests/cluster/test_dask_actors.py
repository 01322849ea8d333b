"""What Dask actors do that is not in their documentation, and how daskps gets around it.

Each test shows that the naive way fails, within a time limit of ours, and that daskps's way holds.
Should a naive way begin to work in a later distributed, its test fails: daskps may then be made
simpler.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_tools import Farm, block, logistic, make_shard, memory_dataset, spec, wait_until
from distributed import (
    Client,
    Event,
    Future,
    LocalCluster,
    Scheduler,
    Worker,
    get_client,
    get_worker,
    wait,
)
from distributed.actor import Actor
from distributed.utils_test import async_poll_for, gen_cluster

from daskps.errors import RunFailed, ShardLost
from daskps.run.dask_calls import Caller, Line
from daskps.run.dask_engine import DaskEngine
from daskps.run.dask_hub import DaskpsScheduler, Hub, shard_key
from daskps.run.dask_worker import DaskpsWorker
from daskps.run.host import ShardHost
from daskps.run.plan import Plan
from daskps.server.layout import ShardRef
from daskps.server.messages import Pull, Want
from daskps.server.spec import ServerSpec

pytestmark = pytest.mark.cluster

SOON = 1.0
"""Seconds within which a loss must be known."""


class Naive:
    """A parameter shard as one would write it first."""

    def __init__(self, n: int = 4) -> None:
        self.w = np.zeros(n, np.float32)

    def pull(self) -> Any:
        return self.w

    def add(self, x: float) -> None:
        self.w += x

    def numbers(self) -> float:
        time.sleep(60)  # an answer that does not come before the worker dies
        return 0.0


PULL = Pull(1, 0, 0, (Want("t", 0, 1, None, None),))


def door_of(dask_worker: Worker) -> Any:
    """Return where a worker takes pulls; for `Client.run`."""
    return dask_worker.plugins[DaskpsWorker.name].keeper.door


def pull_for_ever(ref: ShardRef) -> tuple[str, float]:
    """Task: pull until that fails; return how, and for how long the last pull was waited for."""
    peers = get_worker().plugins[DaskpsWorker.name].peers
    Event("pulling").set()
    while True:
        start = time.monotonic()
        try:
            peers.send([(ref, PULL, [np.empty((4, 1, 1), np.float32)])], 10.0)()
        except ShardLost as error:
            return str(error), time.monotonic() - start


class Opaque:
    """Hides a proxy from Dask, which would make a task depend on it."""

    def __init__(self, actor: Actor) -> None:
        self.parts = (actor._cls, actor._address, actor.key)


def call_proxy(hidden: Opaque, patience: float) -> str:
    """Task: call the actor by a proxy; return what came of it."""
    get_client()
    proxy = Actor(*hidden.parts)
    Event("calling").set()
    try:
        proxy.numbers().result(timeout=patience)
    except Exception as error:
        return type(error).__name__
    return "answered"


# -- what needs a death: real processes ------------------------------------------------------------


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    with Farm(2, tmp_path, threads=2) as farm:
        farm.client.register_plugin(DaskpsScheduler())
        farm.client.register_plugin(DaskpsWorker())
        yield farm


def test_a_proxy_in_a_task_waits_for_ever_and_a_daskps_call_ends_at_once(farm: Farm) -> None:
    client, patience = farm.client, 4.0
    naive, shard = client.submit(Naive, actor=True, workers="w0"), make_shard(client, workers="w0")
    address = shard_address(farm, shard)
    (door,) = client.run(door_of, workers=[address]).values()
    ref = ShardRef(0, 0, address, shard.key, door)
    hidden = Opaque(naive.result(timeout=10))
    theirs = client.submit(call_proxy, hidden, patience, workers="w1")
    ours = client.submit(pull_for_ever, ref, workers="w1")
    for name in ("calling", "pulling"):
        assert Event(name, client=client).wait(timeout=10)
    started = time.monotonic()
    farm.kill("w0", nanny=True)
    said, waited = ours.result(timeout=20)
    assert time.monotonic() - started < SOON
    assert "shard 0 incarnation 0" in said
    assert waited < SOON
    # the worker has long gone, and still the proxy waits until its caller gives up
    assert theirs.result(timeout=20) == "TimeoutError"
    assert time.monotonic() - started > patience - SOON


def shard_address(farm: Farm, shard: Future[Any]) -> str:
    wait(shard, timeout=10)
    return str(next(iter(farm.client.who_has([shard])[shard.key])))


def busy(x: object) -> str:
    """Task that is about something else than the shard."""
    Event("go").wait(timeout=20)
    return "done"


def test_a_task_that_holds_an_actor_errs_with_it_and_one_with_a_reference_goes_on(
    farm: Farm,
) -> None:
    client = farm.client
    naive, shard = client.submit(Naive, actor=True, workers="w0"), make_shard(client, workers="w0")
    ref = ShardRef(0, 0, shard_address(farm, shard), shard.key)
    actor = naive.result(timeout=10)
    depends = client.submit(busy, actor, workers="w1")
    refers = client.submit(busy, ref, workers="w1")
    farm.kill("w0", nanny=True)
    with pytest.raises(RuntimeError, match="Worker holding Actor was lost"):
        depends.result(timeout=10)
    Event("go", client=client).set()
    assert refers.result(timeout=10) == "done"


def test_a_lost_actor_stays_lost_and_the_engine_makes_another_incarnation(farm: Farm) -> None:
    client = farm.client
    naive = client.submit(Naive, actor=True)
    wait(naive, timeout=10)
    plan = Plan("test", logistic(), server_spec(), 1, (20_000 // 8,) * 8)
    engine = DaskEngine(plan, memory_dataset(), None, client, n_shards=1)
    try:
        engine.start(None, dict.fromkeys(range(8), 0))
        old = engine.layout.refs[0]
        farm.kill(farm.workers()[old.address], nanny=False)
        lost = wait_until(lambda: engine.next_event(0.1))
        assert lost.shards == (0,)
        made = engine._make({0: old.incarnation + 1}, 2, {0: [0]})[0]
        assert (made.incarnation, made.key != old.key) == (1, True)
        (answer, stale) = engine._call([(made, "ping", {}), (old, "ping", {})], 5)
        assert answer is False  # it has no replica that does not follow
        assert isinstance(stale, ShardLost)
    finally:
        engine.close()
    for name in list(farm.workers().values()):
        farm.kill(name)
    wait_until(lambda: naive.status == "error")
    farm.repair(2)
    assert naive.status == "error"  # workers are back, and Dask has the task: it does not run it


def server_spec() -> ServerSpec:
    return ServerSpec(logistic().tables(), 64, 8, 0)


def test_losses_reach_the_driver_at_once(farm: Farm) -> None:
    news: list[tuple[float, dict[str, Any]]] = []
    hub = Hub.of(farm.client)
    hub.attach("test", lambda m: news.append((time.monotonic(), m)))
    address = {name: address for address, name in farm.workers().items()}["w0"]
    killed = time.monotonic()
    farm.kill("w0", nanny=True)
    wait_until(lambda: any(m.get("lost") == address for _, m in news))
    assert next(t for t, m in news if "lost" in m) - killed < SOON
    hub.detach("test")


def test_messages_of_a_client_are_not_held_back_during_runs(farm: Farm) -> None:
    hub, stream = Hub.of(farm.client), farm.client.scheduler_comm
    usual = stream.interval
    hub.attach("one", lambda m: None)
    hub.attach("two", lambda m: None)
    assert stream.interval < usual
    hub.detach("one")
    assert stream.interval < usual
    hub.detach("two")
    assert stream.interval == usual


# -- what needs none: everything in one process ----------------------------------------------------


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 2)
async def test_an_actor_answers_with_its_live_array_and_a_shard_with_a_copy(
    c: Client, s: Scheduler, a: Worker, b: Worker
) -> None:
    naive = c.submit(Naive, actor=True, workers=[a.address])
    await naive
    live = a.state.actors[naive.key]
    answer = await a.actor_execute(actor=naive.key, function="pull", args=(), kwargs={})
    # what goes to the connection, to be sent bit by bit, is the array that the next call changes
    assert np.shares_memory(answer["result"].data, live.w)
    live.add(1.0)
    assert answer["result"].data[0] == 1.0

    await c.register_plugin(DaskpsWorker())
    shard = make_shard(c, workers=[a.address])
    await shard
    ref = ShardRef(0, 0, a.address, shard.key, door_of(a))
    pulled = np.empty((4, 1, 1), np.float32)
    peers = b.plugins[DaskpsWorker.name].peers
    await asyncio.to_thread(lambda: peers.send([(ref, PULL, [pulled])], 5.0)())
    a.state.actors[shard.key].shard._tables["t"][0].rows += 1
    assert not pulled.any()


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 2)
async def test_a_stale_reference_is_refused(c: Client, s: Scheduler, a: Worker, b: Worker) -> None:
    """Dask's own proxy reaches whatever has the address and the key."""
    key = shard_key("test", 0, 0)
    await c.register_plugin(DaskpsWorker())
    first = c.submit(ShardHost, 0, 0, spec(), [0], 1, actor=True, key=key, workers=[a.address])
    proxy = await first
    hidden = Opaque(proxy)
    del proxy
    first.release()
    await async_poll_for(lambda: not a.state.actors, timeout=5)
    second = c.submit(ShardHost, 0, 1, spec(), [0], 1, actor=True, key=key, workers=[a.address])
    await second
    assert await Actor(*hidden.parts).ping() is False  # a stranger answers
    caller = Caller(lambda address: Line(b.rpc, address))
    with pytest.raises(ShardLost, match=r"incarnation 0 is gone from .*; shard 0 incarnation 1"):
        await caller.call(ShardRef(0, 0, a.address, key), "ping", {}, 5.0)
    with pytest.raises(ShardLost, match="is not on"):
        await caller.call(ShardRef(0, 0, a.address, "other"), "ping", {}, 5.0)
    assert await caller.call(ShardRef(0, 1, a.address, key), "ping", {}, 5.0) is False


def sockets() -> list[socket.socket]:
    gc.collect()
    # type(x): isinstance would follow a weak proxy, perhaps to nowhere
    found = [x for x in gc.get_objects() if issubclass(type(x), socket.socket)]
    return [x for x in found if x.fileno() >= 0]


def cut_short(call: Callable[[Client], Coroutine[Any, Any, Any]]) -> int:
    """Return how many sockets are left when calls to the scheduler were cancelled at any step."""
    before = {id(x) for x in sockets()}
    options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
    with LocalCluster(n_workers=0, **options) as cluster, Client(cluster) as client:

        async def calls() -> None:
            for steps in range(60):
                for comms in client.rpc.available.values():
                    for comm in list(comms):  # each call needs a new connection
                        comm.abort()
                asked = asyncio.ensure_future(call(client))
                for _ in range(steps):
                    await asyncio.sleep(0)
                asked.cancel()
                await asyncio.wait([asked])

        client.sync(calls)
    left = [x for x in sockets() if id(x) not in before]
    for lost in left:
        lost.close()
    return len(left)


def test_a_call_that_is_cancelled_while_hands_are_shaken_loses_a_socket_but_not_ours() -> None:
    assert cut_short(lambda client: client.scheduler.identity()) > 0
    assert cut_short(lambda client: Line(client.rpc, client.scheduler.address).ask("identity")) == 0


def test_adapt_closes_a_worker_with_an_actor_but_not_the_last_one_with_a_shard() -> None:
    options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, **options) as cluster,
        Client(cluster) as client,
    ):
        workers = cluster.scheduler.workers
        naive = [client.submit(Naive, actor=True, pure=False, workers=[w]) for w in workers]
        wait(naive, timeout=10)
        adaptive = cluster.adapt(minimum=0, maximum=3, interval="50 ms", wait_count=1)
        wait_until(lambda: any(f.status == "error" for f in naive))
        adaptive.stop()

        client.register_plugin(DaskpsScheduler())
        cluster.scale(3)
        wait_until(lambda: len(workers) == 3)
        shards = [make_shard(client, i, workers=[w]) for i, w in zip((0, 1), workers, strict=False)]
        wait(shards, timeout=10)
        holders = {w for f in shards for w in client.who_has([f])[f.key]}
        closing = set(cluster.scheduler.workers_to_close(n=3))
        assert len(closing) == 2  # a holder stays: there must be somebody to take the others'
        assert len(holders - closing) == 1


@gen_cluster(
    client=True,
    nthreads=[("127.0.0.1", 1)] * 2,
    scheduler_kwargs={"validate": False},  # it asserts what stealing breaks
    config={"distributed.scheduler.work-stealing": True},
)
async def test_a_stolen_actor_stays_in_the_list_of_the_first_worker_and_a_shard_does_not(
    c: Client, s: Scheduler, a: Worker, b: Worker
) -> None:
    await c.register_plugin(DaskpsScheduler())
    stealing = s.extensions["stealing"]
    busy = c.submit(block, "free", workers=[a.address])
    await async_poll_for(lambda: a.state.executing_count, timeout=5)
    first, thief = s.workers[a.address], s.workers[b.address]
    where = {"workers": [a.address], "allow_other_workers": True}
    naive, shard = c.submit(Naive, actor=True, **where), make_shard(c, **where)
    for future in (naive, shard):
        await async_poll_for(lambda key=future.key: key in a.state.tasks, timeout=5)
        stealing.move_task_request(s.tasks[future.key], first, thief)
    await wait([naive, shard], timeout=10)
    assert set(b.state.actors) == {naive.key, shard.key}
    assert {ts.key for ts in first.actors} == {naive.key}
    assert {ts.key for ts in thief.actors} == {shard.key}
    for future in (naive, shard):
        future.release()
    await async_poll_for(lambda: not b.state.actors, timeout=5)
    assert {ts.key for ts in first.actors} == {naive.key}
    assert not thief.actors
    await Event("free").set()
    await busy


@pytest.mark.parametrize("plugins", [(), (DaskpsScheduler(),)], ids=["naive", "daskps"])
def test_an_actor_waits_for_a_worker_that_is_gone_and_a_shard_does_not(plugins: Any) -> None:
    @gen_cluster(
        client=True,
        nthreads=[("127.0.0.1", 1)],
        scheduler_kwargs={"validate": False},  # it asserts that no actor ever waits
    )
    async def run(c: Client, s: Scheduler, a: Worker) -> None:
        for plugin in plugins:
            await c.register_plugin(plugin)
        await a.close()
        shard = make_shard(c, workers=[a.address], allow_other_workers=True)
        await async_poll_for(lambda: s.unrunnable, timeout=5)
        async with Worker(s.address):
            free = c.submit(Naive, actor=True)
            await wait([free, *([shard] if plugins else [])], timeout=10)
            assert (shard.status == "finished") == bool(plugins)

    run()


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 2)
async def test_a_worker_without_the_handlers_is_refused_with_a_clear_error(
    c: Client, s: Scheduler, a: Worker, b: Worker
) -> None:
    taken = b.stream_handlers.pop("remove-worker")
    with pytest.raises(RunFailed, match=r"no handler 'remove-worker'.*version of distributed"):
        await c.register_plugin(DaskpsWorker())
    await c.unregister_worker_plugin(DaskpsWorker.name)
    b.stream_handlers["remove-worker"] = taken
    await c.register_plugin(DaskpsWorker())
    assert "daskps" in b.handlers
