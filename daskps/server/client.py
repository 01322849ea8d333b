"""What a task uses to pull rows and push deltas: one message a shard, none to one in process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daskps.server.buffers import Buffers
from daskps.server.cells import in_slot_order
from daskps.server.keys import KeySet
from daskps.server.layout import Layout, ShardRef
from daskps.server.messages import Arrays, Ask, Pieces, Pull, Push, Want
from daskps.server.shard import ServerSpec, Shard
from daskps.server.tables import Placement

Call = tuple[ShardRef, Pull | Push | Ask, Pieces]
"""(where, message, where the rows go that answer a pull)."""


class Transport(Protocol):
    """How messages reach shards; the narrow seam behind which faster paths may stand.

    Every call is bounded in time. The actor stays the owner of state and life cycle.
    """

    buffers: Buffers
    """Scratch memory of this process."""

    def local(self, ref: ShardRef) -> Shard | None:
        """Return the shard itself if it lives in this process."""
        ...

    def send(self, calls: Sequence[Call]) -> Callable[[], list[Any]]:
        """Send all messages at once; what is returned waits for their answers, in order.

        The answers are what the shard's method of the message's name returns.

        The wait raises `ShardLost` if a shard does not answer in time, is gone or is another
        incarnation, and `StaleLayout` if a shard is of another layout generation.
        """
        ...


@dataclass(slots=True)
class Traffic:
    """Bytes that crossed a process boundary on behalf of one task."""

    pulled: int = 0
    pushed: int = 0


class ParameterClient:
    """Reads and writes the tables of one run by one layout.

    Parameters
    ----------
    spec
        Tables and consistency of the run.
    layout
        Where the slots are.
    transport
        How to get there.
    """

    def __init__(self, spec: ServerSpec, layout: Layout, transport: Transport) -> None:
        self.spec = spec
        self.layout = layout
        self.traffic = Traffic()
        self._tables = {t.name: t for t in spec.tables}
        self._transport = transport
        self._places = spec.placements()
        self._held = {s: slots for s, slots in layout.by_shard().items() if slots}

    def pull(
        self, keysets: Sequence[KeySet], *, partition: int, clock: int
    ) -> tuple[list[NDArray[Any]], float]:
        """Read the rows of each key set.

        Returns
        -------
        rows
            One array a key set in its order, shape (len(keyset), n_pull, width); valid until
            this thread pulls again.
        samples
            Samples that the shards had seen (the least of them where they differ).
        """
        rows = [self._empty(i, k) for i, k in enumerate(keysets)]
        near, far = self._split()
        generation = self.layout.generation

        def message(slots: list[int]) -> tuple[Pull, Pieces]:
            wants = self._wants(keysets, slots)
            return Pull(generation, partition, clock, wants), self._pieces(rows, keysets, slots)

        # the shards elsewhere work while the one here does
        wait = self._transport.send([(ref, *message(slots)) for _, ref, slots in far])
        seen = [shard.pull(*message(slots)) for shard, _, slots in near]
        seen += wait()
        self.traffic.pulled += self._nbytes(rows, keysets, far)
        return rows, min(seen)

    def push(
        self,
        keysets: Sequence[KeySet],
        deltas: Sequence[NDArray[Any]],
        *,
        partition: int,
        clock: int,
        samples: float,
    ) -> bool:
        """Send the deltas of (partition, clock) to every shard; safe to repeat.

        Parameters
        ----------
        keysets
            As pulled.
        deltas
            One array a key set, shape (len(keyset), n_push, width).
        partition, clock
            The push's id.
        samples
            Weight of the samples behind the deltas.

        Returns
        -------
        applied
            Whether any shard counted it; False for a duplicate.
        """
        near, far = self._split()

        def message(slots: list[int]) -> Push:
            wants, parts = self._wants(keysets, slots), self._pieces(deltas, keysets, slots)
            return Push(self.layout.generation, partition, clock, samples, wants, parts)

        wait = self._transport.send([(ref, message(slots), ()) for _, ref, slots in far])
        acks = [shard.push(message(slots)) for shard, _, slots in near]
        acks += wait()
        self.traffic.pushed += self._nbytes(deltas, keysets, far)
        return any(a.applied for a in acks)

    def rows(self, keyset: KeySet, *, partition: int, clock: int) -> Arrays:
        """Read rows of cells; see `CellSlot.gather`, the order of rows is that of `keyset`."""
        near, far = self._split()

        def message(slots: list[int]) -> Ask:
            want = _want(keyset, self._used(keyset, slots))
            whose = (self.layout.generation, partition, clock, "rows")
            if want.at is None or want.sizes is None:
                return Ask(*whose, table=keyset.table)  # type: ignore[arg-type]
            arrays = {"sizes": want.sizes, "at": want.at}
            return Ask(*whose, arrays, keyset.table)  # type: ignore[arg-type]

        wait = self._transport.send([(ref, message(slots), ()) for _, ref, slots in far])
        answers = [shard.ask(message(slots)) for shard, _, slots in near]
        from_afar = wait()
        self.traffic.pulled += sum(a.nbytes for answer in from_afar for a in answer.values())
        slots = [self._used(keyset, slots) for _, _, slots in [*near, *far]]
        return in_slot_order(keyset.bounds, slots, [*answers, *from_afar])  # type: ignore[list-item]

    def state(self, *, partition: int, clock: int) -> Arrays | None:
        """Return what a partition kept before its step at `clock`; None if there is nothing."""
        return self._at_home(Ask(self.layout.generation, partition, clock, "state"))

    def keep(self, arrays: Arrays, *, partition: int, clock: int) -> Arrays:
        """Keep what a step has made; return what counts, which an earlier attempt may have kept."""
        kept = self._at_home(Ask(self.layout.generation, partition, clock, "keep", arrays))
        assert kept is not None
        return kept

    def _at_home(self, msg: Ask) -> Arrays | None:
        ref = self.layout.refs[self.layout.homes[msg.partition]]
        here = self._transport.local(ref)
        if here is not None:
            return here.ask(msg)
        answer: Arrays | None = self._transport.send([(ref, msg, ())])()[0]
        self.traffic.pushed += sum(a.nbytes for a in msg.arrays.values())
        self.traffic.pulled += sum(a.nbytes for a in (answer or {}).values())
        return answer

    def _split(self) -> tuple[list[tuple[Shard, ShardRef, list[int]]], list[Any]]:
        near, far = [], []
        for shard, slots in self._held.items():
            ref = self.layout.refs[shard]
            here = self._transport.local(ref)
            if here is None:
                far.append((None, ref, slots))
            else:
                near.append((here, ref, slots))
        return near, far

    def _empty(self, number: int, keyset: KeySet) -> NDArray[Any]:
        t = self._tables[keyset.table]
        shape = (len(keyset), t.updater.n_pull, t.width)
        return self._transport.buffers.take(f"pull {number}", shape, t.updater.dtype)

    def _pieces(
        self, arrays: Sequence[NDArray[Any]], keysets: Sequence[KeySet], slots: list[int]
    ) -> Pieces:
        """Return the rows that stand in `slots`, without a copy: rows stand in slot order."""
        pairs = zip(arrays, keysets, strict=True)
        return [[a[k.bounds[s] : k.bounds[s + 1]] for s in self._used(k, slots)] for a, k in pairs]

    def _nbytes(
        self,
        arrays: Sequence[NDArray[Any]],
        keysets: Sequence[KeySet],
        shards: Sequence[tuple[Any, ShardRef, list[int]]],
    ) -> int:
        pieces = (self._pieces(arrays, keysets, slots) for _, _, slots in shards)
        return sum(x.nbytes for shard in pieces for want in shard for x in want)

    def _wants(self, keysets: Sequence[KeySet], slots: list[int]) -> tuple[Want, ...]:
        return tuple(_want(k, self._used(k, slots)) for k in keysets)

    def _used(self, keyset: KeySet, slots: list[int]) -> list[int]:
        return self._places[keyset.table].used(slots)


def _want(keyset: KeySet, slots: list[int]) -> Want:
    at, b = keyset.at, keyset.bounds
    if at is None:
        return Want(keyset.table, None, None)
    pieces = [at[b[s] : b[s + 1]] for s in slots]
    everything = len(slots) == len(b) - 1
    mine = at if everything else np.concatenate([at[:0], *pieces])
    return Want(keyset.table, np.diff(b)[slots], mine)


def merge_values(
    place: Placement, parts: Iterable[Mapping[int, tuple[NDArray[Any] | None, NDArray[Any]]]]
) -> tuple[NDArray[Any] | None, NDArray[Any]]:
    """Put the answers of `Shard.values` together.

    Parameters
    ----------
    place
        Of the table.
    parts
        Answers, each of some slots of one shard; those of a range table are used up one by one.

    Returns
    -------
    keys
        Keys of a hash table or of cells, ascending; None for a range table, whose rows come in row
        order.
    values
        Shape (rows, width).
    """
    spec = place.spec
    if spec.keys != "range":
        found = [entry for part in parts for entry in part.values()]
        keys = np.concatenate([k for k, _ in found])
        order = np.argsort(keys)
        return keys[order], np.concatenate([values for _, values in found])[order]
    out = np.empty((spec.n_rows, spec.width), spec.updater.dtype)
    for part in parts:
        for slot, (_, values) in part.items():
            place.scatter(slot, values, out)
    return None, out
