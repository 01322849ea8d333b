"""What stands in a worker's process for a shard: the shard, its incarnation, its file access."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daskps.errors import ShardLost
from daskps.run import checkpoint, partition_states
from daskps.server import moving
from daskps.server.frozen import Frozen
from daskps.server.functions import Partial
from daskps.server.layout import ShardRef
from daskps.server.messages import Arrays, Ask, Push, Stats
from daskps.server.mirror import Mirror
from daskps.server.shard import Shard
from daskps.server.spec import ServerSpec


@dataclass(frozen=True, slots=True)
class Frost:
    """What one shard froze."""

    rows: dict[str, dict[int, int]]
    """Rows by table and slot."""
    samples: float
    states: dict[str, int]
    """Bytes of the arrays that partitions keep; see `partition_states.sizes`."""


class ShardHost:
    """One incarnation of a shard, and every operation that may be asked of it by name.

    The Dask actor is an instance of this class, created with the number of its incarnation: a
    stale reference that reaches another incarnation (same address, later life) is refused.
    """

    OPERATIONS = frozenset(
        (
            *("apply", "values", "kept", "freeze", "write_cut", "thaw", "dump"),
            *("advance", "restore", "recall", "stats", "ping"),
        )
    )

    def __init__(
        self, shard: int, incarnation: int, spec: ServerSpec, slots: Sequence[int], generation: int
    ) -> None:
        self.shard = Shard(spec, slots, generation)
        self.number = shard
        self.incarnation = incarnation
        self._slots = list(slots)

    def check(self, ref: ShardRef) -> None:
        """Refuse a reference to another shard or incarnation."""
        if (ref.shard, ref.incarnation) != (self.number, self.incarnation):
            raise ShardLost(
                f"shard {ref.shard} incarnation {ref.incarnation} is gone from {ref.address}; "
                f"shard {self.number} incarnation {self.incarnation} is there now."
            )

    def operate(self, operation: str, message: Mapping[str, Any]) -> Any:
        """Run `operation` with keyword arguments."""
        assert operation in self.OPERATIONS, operation
        return getattr(self, operation)(**message)

    def apply(
        self,
        function: str,
        params: Mapping[str, Any],
        generation: int,
        once: tuple[int, int] | None = None,
        clock: float = math.inf,
    ) -> dict[int, Partial]:
        """See `Shard.apply`."""
        return self.shard.apply(function, params, generation=generation, once=once, clock=clock)

    def values(self, table: str, slots: Sequence[int] | None = None) -> Any:
        """See `Shard.values`."""
        return self.shard.values(table, slots)

    def kept(self, partition: int) -> Arrays:
        """See `Shard.kept`."""
        return self.shard.kept(partition)

    def freeze(self, cut: str, whole: bool = False) -> Frost:
        """Keep the present state as `cut`; say what is in it."""
        rows = self.shard.freeze(cut, whole=whole)
        states = self.shard.frozen_states(cut)
        return Frost(rows, self.shard.samples, partition_states.sizes(states))

    def write_cut(self, store: str, cut: str) -> None:
        """Write the slots of `cut` as chunks; the driver publishes them."""
        try:
            written = functools.partial(self.shard.written, cut)
            checkpoint.write_slots(store, cut, self.shard.frozen(cut), written)
            partition_states.write(store, cut, self.shard.frozen_states(cut))
        finally:
            self.shard.thaw(cut)

    def thaw(self, cut: str) -> None:
        """See `Shard.thaw`."""
        self.shard.thaw(cut)

    def advance(self, generation: int, clocks: Mapping[int, int], mirrored: bool = False) -> bool:
        """See `Shard.advance`."""
        return self.shard.advance(generation, clocks, mirrored=mirrored)

    def mirror(self, send: Callable[[Push | Ask], object], patience: float) -> None:
        """Hand on from now on what the shard counts."""
        self.shard.mirror = Mirror(send, patience)

    def dump(self, cut: str) -> tuple[float, Frozen]:
        """Return the samples seen and the rows of `cut`, and forget it."""
        tables = self.shard.frozen(cut)
        self.shard.thaw(cut)
        return self.shard.samples, tables

    def restore(
        self,
        generation: int,
        clocks: Mapping[int, int],
        store: str | None = None,
        cut: str | None = None,
        start: tuple[float, Frozen, Mapping[int, Arrays]] | None = None,
        partitions: Sequence[int] = (),
        whole: bool = True,
    ) -> None:
        """Load the slots of `cut`, or the rows of `start`, or initial values.

        With a cut comes what `partitions` kept, whose home this is; without those of which not all
        can be read, unless the `whole` is needed.
        """
        if store is None or cut is None:
            self.shard.restore(generation, clocks, *(start or (0.0, None)))
            return
        manifest = checkpoint.read_manifest(store, cut)
        tables = checkpoint.read_slots(store, cut, manifest, self._slots)
        # slots of shards that had lost updates have seen fewer samples
        samples = min(manifest.samples[s] for s in self._slots) if self._slots else 0.0
        states = partition_states.read(store, cut, manifest.states, partitions, whole=whole)
        self.shard.restore(generation, clocks, samples, tables, states)

    def recall(self, parts: Sequence[Arrays]) -> int:
        """See `Shard.recall`."""
        return self.shard.recall(parts)

    def move_in(self, generation: int, clocks: Mapping[int, int], parts: Sequence[Arrays]) -> None:
        """Begin with what other shards have handed over."""
        names = [t.name for t in self.shard.spec.tables]
        samples, tables, states = moving.unpack(parts, names)
        self.shard.restore(generation, clocks, samples, tables, states)

    def stats(self) -> Stats:
        """See `Shard.stats`."""
        return self.shard.stats()

    def ping(self) -> bool:
        """Return whether there is a replica that does not follow any more."""
        mirror = self.shard.mirror
        return mirror is not None and mirror.broken
