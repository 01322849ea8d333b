"""Which shard holds which slot, and where each shard is.

A layout is immutable; every change (a lost shard's new incarnation, another number of shards) is
a new one with a higher generation.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import msgspec

from daskps import html


class Door(msgspec.Struct, frozen=True):
    """Where pulls and pushes reach a worker."""

    host: str
    port: int
    token: str
    """What a connection must show; of one life of the worker only."""


class ShardRef(msgspec.Struct, frozen=True):
    """Where one incarnation of a shard lives: plain data, so that no Dask task depends on it.

    An `Actor` passed to a task would make the task its dependent, and a lost shard would err
    every such task; a proxy inside a task waits for ever when the shard dies.
    """

    shard: int
    incarnation: int
    address: str
    """Worker's address, or ``inproc`` for a shard in this process."""
    key: str
    """Dask key of the actor."""
    door: Door | None = None
    """None in the process of the shard."""


class Layout(msgspec.Struct, frozen=True):
    """Slots to shards, shards to workers, and a version number.

    Parameters
    ----------
    generation
        Raised by every change; shards refuse messages of another generation.
    owners
        Shard of each slot, length n_slots.
    refs
        Where each shard is.
    homes
        Shard of what each partition keeps, length n_partitions; empty if none keeps anything.
    """

    generation: int
    owners: tuple[int, ...]
    refs: Mapping[int, ShardRef]
    homes: tuple[int, ...] = ()

    @classmethod
    def place(cls, n_slots: int, refs: Mapping[int, ShardRef], generation: int = 1) -> Layout:
        """Spread `n_slots` slots evenly over the shards in `refs`, to each a run of them.

        What one shard sends or takes is contiguous then. Any run is as hot as any other: rows go
        round the slots.
        """
        shards = sorted(refs)
        owners = tuple(shards[s * len(shards) // n_slots] for s in range(n_slots))
        return cls(generation, owners, dict(refs))

    def _repr_html_(self) -> str:
        rows = [
            (shard, ref.incarnation, ref.address, len(self.slots_of(shard)))
            for shard, ref in sorted(self.refs.items())
        ]
        found = {"generation": self.generation, "slots": self.n_slots}
        names = ("shard", "incarnation", "worker", "slots")
        return html.facts("layout", found, html.grid(names, rows))

    @property
    def n_slots(self) -> int:
        """Number of slots; fixed for the life of a run and its checkpoints."""
        return len(self.owners)

    def slots_of(self, shard: int) -> list[int]:
        """Return the slots that `shard` holds, ascending."""
        return [s for s, o in enumerate(self.owners) if o == shard]

    def partitions_of(self, shard: int) -> list[int]:
        """Return the partitions whose home `shard` is, ascending."""
        return [p for p, home in enumerate(self.homes) if home == shard]

    def by_shard(self) -> dict[int, list[int]]:
        """Return the slots of every shard, also of those that hold none."""
        held: dict[int, list[int]] = {shard: [] for shard in sorted(self.refs)}
        for slot, shard in enumerate(self.owners):
            held[shard].append(slot)
        return held

    def runs(self) -> dict[int, list[tuple[int, int]]]:
        """Return the slots of every shard that holds any, as runs [first, stop)."""
        found: dict[int, list[tuple[int, int]]] = {}
        for shard, same in itertools.groupby(enumerate(self.owners), key=lambda pair: pair[1]):
            slots = [slot for slot, _ in same]
            found.setdefault(shard, []).append((slots[0], slots[-1] + 1))
        return found

    def replace(self, refs: Mapping[int, ShardRef]) -> Layout:
        """Return the next generation, with new incarnations of the shards in `refs`."""
        unknown = set(refs) - set(self.refs)
        assert not unknown, unknown
        return Layout(self.generation + 1, self.owners, {**self.refs, **refs}, self.homes)
