"""Shards of one run in this process, and a transport that carries every message to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from daskps.server.buffers import Buffers
from daskps.server.client import Call, ParameterClient, merge_values
from daskps.server.functions import FUNCTIONS
from daskps.server.keys import KeySet, localise, whole_table
from daskps.server.layout import Layout, ShardRef
from daskps.server.messages import Ask, Blocks, Pull, Push, Want
from daskps.server.shard import Shard
from daskps.server.spec import ServerSpec
from daskps.server.tables import TableSpec
from daskps.server.updaters import Add, AnyUpdater

INTEGERS = Add("int64")
N_SLOTS = 8


class Pulled(NamedTuple):
    """What a pull brought."""

    samples: float
    rows: tuple[np.ndarray, ...]


def make_spec(
    *tables: TableSpec, partitions: int = 3, staleness: float = 0, slots: int = N_SLOTS
) -> ServerSpec:
    return ServerSpec(tables, slots, partitions, staleness)


def counters(partitions: int = 3, staleness: float = 0, n_rows: int = 20) -> ServerSpec:
    """Return a run with one table of integers, whose sums are exact."""
    return make_spec(
        TableSpec("count", n_rows, 1, INTEGERS), partitions=partitions, staleness=staleness
    )


def refs(n: int) -> dict[int, ShardRef]:
    return {s: ShardRef(s, 0, "test", f"shard-{s}") for s in range(n)}


def everything(shard: Shard, table: str | None = None) -> Want:
    """Return what asks for all rows of a table, by default the only one, of a shard."""
    slots = list(shard.values(table or shard.spec.tables[0].name))
    assert slots == list(range(slots[0], slots[-1] + 1)), slots
    return Want(table or shard.spec.tables[0].name, slots[0], slots[-1] + 1, None, None)


def push_all(
    shard: Shard, deltas: np.ndarray, *, partition: int, clock: int, samples: float = 1.0
) -> Push:
    """Return a push to all rows of the only table of `shard`."""
    return push_of(
        shard, [everything(shard)], [deltas], partition=partition, clock=clock, samples=samples
    )


def push_of(
    shard: Shard,
    wants: Sequence[Want],
    deltas: Sequence[np.ndarray],
    *,
    partition: int = 0,
    clock: int = 0,
    samples: float = 1.0,
) -> Push:
    """Return a push to what is wanted, deltas in its order."""
    return Push(shard.generation, partition, clock, samples, tuple(wants), list(deltas))


def pull_all(shard: Shard, *, partition: int = 0, clock: int = 0) -> Pulled:
    wants = tuple(everything(shard, t.name) for t in shard.spec.tables)
    return pull(shard, Pull(shard.generation, partition, clock, wants))


def pull(shard: Shard, msg: Pull) -> Pulled:
    """Return what a client would get."""
    specs = {t.name: t for t in shard.spec.tables}
    rows = []
    for want in msg.wants:
        u, width = specs[want.table].updater, specs[want.table].width
        held = shard.values(want.table, range(want.first, want.stop))
        n = sum(len(v) for _, v in held.values()) if want.sizes is None else sum(want.sizes)
        rows.append(np.empty((n, u.n_pull, width), u.dtype))
    return Pulled(shard.pull(msg, rows).samples, tuple(rows))


def alone(spec: ServerSpec) -> Shard:
    """Return a shard that holds every slot."""
    return Shard(spec, range(spec.n_slots), 1)


def floats(updater: AnyUpdater, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return a push of plausible floats: no negative sum of squares, no negative response."""
    push = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    push[:, 1:] = np.abs(push[:, 1:])
    assert push.shape[1] == updater.n_push
    return push


class Group:
    """Shards in this process behind a transport; those in `near` are reached without it."""

    def __init__(self, spec: ServerSpec, n_shards: int, near: Sequence[int] = ()) -> None:
        self.buffers = Buffers()
        self.spec = spec
        self.near = near
        self.layout = Layout.place(spec.n_slots, refs(n_shards))
        self.shards = {s: Shard(spec, self.layout.slots_of(s), 1) for s in range(n_shards)}

    def local(self, ref: ShardRef) -> Shard | None:
        return self.shards[ref.shard] if ref.shard in self.near else None

    def send(self, calls: Sequence[Call]) -> Callable[[], list[Any]]:
        return lambda: [self.deliver(*call) for call in calls]

    def deliver(self, ref: ShardRef, message: Pull | Push | Ask, out: Blocks) -> Any:
        shard = self.shards[ref.shard]
        if isinstance(message, Ask):
            return shard.ask(message)
        return shard.push(message) if isinstance(message, Push) else shard.pull(message, out)

    def client(self) -> ParameterClient:
        return ParameterClient(self.spec, self.layout, self)

    def keyset(self, table: str, keys: np.ndarray | None = None) -> KeySet:
        place = self.spec.placements()[table]
        return whole_table(place) if keys is None else localise(place, keys)[0]

    def values(self, table: str) -> tuple[np.ndarray | None, np.ndarray]:
        parts = (shard.values(table) for shard in self.shards.values())
        return merge_values(self.spec.placements()[table], parts)

    def reduce(self, function: str, **params: Any) -> Any:
        parts: dict[int, Any] = {}
        for shard in self.shards.values():
            parts |= shard.apply(function, params)
        return FUNCTIONS[function].merge([parts[s] for s in sorted(parts)])
