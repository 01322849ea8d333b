"""The engine of one process: threads for tasks, plain objects for shards.

The default when there is no Dask client and the data fits, and the reference in tests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
from dask.utils import format_bytes

from daskps.data import Dataset, Partition
from daskps.errors import NotEnoughMemory, ShardLost
from daskps.run import events as ev
from daskps.run.checkpoint import Checkpoints
from daskps.run.engine import ControlCall, Engine
from daskps.run.host import ShardHost
from daskps.run.mover import Source, question
from daskps.run.plan import Plan, Prepared
from daskps.run.replicas import loss_of
from daskps.run.task import mean_metrics, run_evaluation, run_task
from daskps.server.buffers import Buffers
from daskps.server.client import Call
from daskps.server.layout import ShardRef
from daskps.server.messages import Ask, Push
from daskps.server.shard import Shard

ADDRESS = "inproc"


class InProcessTransport:
    """Shards are reached directly."""

    def __init__(self, hosts: Mapping[int, ShardHost]) -> None:
        self._hosts = hosts
        self.buffers = Buffers()

    def local(self, ref: ShardRef) -> Shard | None:
        """Return the shard itself.

        Raises
        ------
        ShardLost
            If it is gone.
        """
        if ref.shard not in self._hosts:
            raise ShardLost(f"shard {ref.shard} is gone; the run is recovering.")
        host = self._hosts[ref.shard]
        host.check(ref)
        return host.shard

    def send(self, calls: Sequence[Call]) -> Callable[[], list[Any]]:
        """Answer an empty list: every shard is local."""
        assert not calls, calls
        return list


class InProcessEngine(Engine):
    """Runs tasks in threads of this process.

    Parameters
    ----------
    plan, n_shards, checkpoints
        See `Engine`.
    dataset
        Training data.
    held_out
        Data to evaluate after each pass, if the coordinator asks for it.
    n_threads
        Tasks that run at once; as many as there are processors by default.
    """

    def __init__(
        self,
        plan: Plan,
        dataset: Dataset,
        held_out: Dataset | None = None,
        *,
        n_shards: int = 1,
        n_threads: int | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        super().__init__(plan, n_shards, dataset.partition_rows.tolist(), checkpoints)
        check_memory(plan, [dataset] if held_out is None else [dataset, held_out])
        threads = n_threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="daskps-task")
        self._hosts: dict[int, ShardHost] = {}
        self._transport = InProcessTransport(self._hosts)
        self._before: dict[int, ShardHost] = {}
        self._abandoned: set[int] = set()
        self._data = self._load(dataset, plan.prepare)
        self._held_out = [] if held_out is None else self._load(held_out, plan.prepare_whole)

    def _load(
        self, dataset: Dataset, prepare: Callable[[Partition, int], Prepared]
    ) -> list[Prepared]:
        numbers = range(dataset.n_partitions)
        return list(self._pool.map(lambda i: prepare(dataset.partition(i), i), numbers))

    def lose(self, *shards: int) -> None:
        """Lose shards as if their worker had died, for tests."""
        for shard in shards:
            self._hosts.pop(shard, None)
        # a recovery that was under way has perhaps placed them again by the time this is read
        self._inbox.put(lambda: loss_of(self, ADDRESS, [s for s in shards if s not in self._hosts]))

    def workers(self) -> list[str]:
        """Return the one address that there is."""
        return [ADDRESS]

    @property
    def shards(self) -> dict[int, ShardHost]:
        """What keeps each shard alive."""
        return self._hosts

    def all_moved(self) -> None:
        """Let go of the shards that others took their rows from."""
        self._before = {}

    def _make(
        self,
        incarnations: Mapping[int, int],
        generation: int,
        slots: Mapping[int, Sequence[int]],
        where: Mapping[int, str] | None = None,
    ) -> dict[int, ShardRef]:
        # a move takes rows from those that are replaced
        self._before = {s: self._hosts[s] for s in incarnations if s in self._hosts}
        for shard, incarnation in incarnations.items():
            args = (shard, incarnation, self.plan.server, slots[shard], generation)
            self._hosts[shard] = ShardHost(*args)
        at = where or {}
        return {
            s: ShardRef(s, i, at.get(s, ADDRESS), f"shard-{s}-i{i}")
            for s, i in incarnations.items()
        }

    def _move_in(
        self, host: ShardHost, generation: int, clocks: ev.Clocks, sources: Sequence[Source]
    ) -> None:
        shards = {**self._hosts, **self._before}
        parts = []
        for source in sources:
            number = source[0].shard
            found = shards[number].shard.ask(question(source, generation)) or {}
            # a shard that stays must not share with its replica what both will change
            stays = number in self._hosts and number not in self._before
            parts.append({k: a.copy() for k, a in found.items()} if stays else found)
        host.move_in(generation, clocks, parts)

    def _mirror(self, host: ShardHost, replica: ShardRef) -> None:
        def send(msg: Push | Ask) -> None:
            shard = self._transport.local(replica)
            assert shard is not None, replica
            shard.push(msg) if isinstance(msg, Push) else shard.ask(msg)

        host.mirror(send, self.plan.call_timeout)

    def _call(self, calls: Sequence[ControlCall], timeout: float) -> list[Any]:
        def one(ref: ShardRef, operation: str, kwargs: Mapping[str, Any]) -> Any:
            try:
                if operation == "recent":  # of the process, not of a shard
                    return self._transport.buffers.recent.of(**kwargs)
                self._transport.local(ref)
                if operation == "move_in":
                    return self._move_in(self._hosts[ref.shard], **kwargs)
                if operation == "mirror":
                    return self._mirror(self._hosts[ref.shard], **kwargs)
                return self._hosts[ref.shard].operate(operation, kwargs)
            except Exception as error:
                return error

        return [one(*call) for call in calls]

    def _launch(self, action: ev.Launch) -> None:
        layout = self.layout

        def task() -> None:
            if action.token in self._abandoned:
                return
            data = self._data[action.partition]
            args = (self.plan, data, action.partition, action.clock, layout, self._transport)
            try:
                self.post(ev.TaskDone(action.token, run_task(*args), ADDRESS))
            except Exception as error:
                self.post(self._failure(action.token, error))

        self._pool.submit(task)

    def _abandon(self, token: int) -> None:
        self._abandoned.add(token)

    def _evaluate(self, clock: int) -> None:
        layout = self.layout
        futures = [
            self._pool.submit(run_evaluation, self.plan, data, i, clock, layout, self._transport)
            for i, data in enumerate(self._held_out)
        ]
        try:
            parts = [f.result(timeout=self.recovery_timeout) for f in futures]
        except (ShardLost, TimeoutError) as error:
            self.post(ev.EvaluationFailed(error))
            return
        self.post(ev.Evaluated(clock, mean_metrics(parts)))

    def _close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._hosts.clear()


def check_memory(plan: Plan, datasets: Sequence[Dataset]) -> None:
    """Refuse data that this process cannot hold beside the parameters.

    Raises
    ------
    NotEnoughMemory
        If the estimate is above what the machine has available.
    """
    # an index and a value of 4 bytes a non-zero; row bounds, label and weight
    data = sum(8 * d.nnz + 16 * d.n_rows for d in datasets)
    tables = sum(
        t.n_rows * t.width * t.updater.n_fields * t.updater.dtype.itemsize
        for t in plan.server.tables
    )
    # rows on the shard, gathered for the barrier, and as pulled, stepped and pushed by a thread
    needed, available = data + 5 * tables, psutil.virtual_memory().available
    if needed > available:
        raise NotEnoughMemory(
            f"training in this process needs about {format_bytes(needed)}: {format_bytes(data)} "
            f"of data and {format_bytes(5 * tables)} around the parameters; "
            f"{format_bytes(available)} are available. Use a Dask cluster, whose workers spill "
            "data to disk: Client(daskps.local_cluster())."
        )
