"""What a task uses to pull rows and push deltas: one message a shard, none to one in process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daskps.server.buffers import Buffers
from daskps.server.keys import KeySet
from daskps.server.layout import Layout, ShardRef
from daskps.server.messages import Pull, Pulled, Push, Want
from daskps.server.shard import ServerSpec, Shard
from daskps.server.tables import Placement

Call = tuple[ShardRef, str, Any]
"""(where, ``pull`` or ``push``, message)."""


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
        calls: list[Call] = [
            (ref, "pull", Pull(generation, partition, clock, self._wants(keysets, slots)))
            for _, ref, slots in far
        ]
        wait = self._transport.send(calls)  # the shards elsewhere work while the one here does
        seen: list[float] = []
        for shard, _, slots in near:
            msg = Pull(generation, partition, clock, self._wants(keysets, slots))
            views = [_views(r, k, self._used(k, slots)) for r, k in zip(rows, keysets, strict=True)]
            seen.append(shard.pull(msg, out=views).samples)
        answers: list[Pulled] = wait()
        for (_, _, slots), pulled in zip(far, answers, strict=True):
            seen.append(pulled.samples)
            for whole, part, keyset in zip(rows, pulled.rows, keysets, strict=True):
                self.traffic.pulled += part.nbytes
                _scatter(part, whole, keyset, self._used(keyset, slots))
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

        def message(ref: ShardRef, slots: list[int]) -> Push:
            pairs = enumerate(zip(deltas, keysets, strict=True))
            parts = tuple(self._part(f"part {ref.shard} {i}", d, k, slots) for i, (d, k) in pairs)
            wants = self._wants(keysets, slots)
            return Push(self.layout.generation, partition, clock, samples, wants, parts)

        calls: list[Call] = [(ref, "push", message(ref, slots)) for _, ref, slots in far]
        wait = self._transport.send(calls)
        acks = [shard.push(message(ref, slots)) for shard, ref, slots in near]
        acks += wait()
        self.traffic.pushed += sum(d.nbytes for _, _, msg in calls for d in msg.deltas)
        return any(a.applied for a in acks)

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

    def _part(
        self, purpose: str, deltas: NDArray[Any], keyset: KeySet, slots: list[int]
    ) -> NDArray[Any]:
        """Return the rows of `deltas` that stand in `slots`, in memory that is used again."""
        used = self._used(keyset, slots)
        n = sum(int(keyset.bounds[s + 1] - keyset.bounds[s]) for s in used)
        out = self._transport.buffers.take(purpose, (n, *deltas.shape[1:]), deltas.dtype)
        return _gather(deltas, keyset, used, out)

    def _wants(self, keysets: Sequence[KeySet], slots: list[int]) -> tuple[Want, ...]:
        return tuple(_want(k, self._used(k, slots)) for k in keysets)

    def _used(self, keyset: KeySet, slots: list[int]) -> list[int]:
        return self._places[keyset.table].used(slots)


def _want(keyset: KeySet, slots: list[int]) -> Want:
    if keyset.at is None:
        return Want(keyset.table, None, None)
    sizes = np.diff(keyset.bounds)[slots]
    return Want(keyset.table, sizes, _gather(keyset.at, keyset, slots))


def _views(whole: NDArray[Any], keyset: KeySet, slots: list[int]) -> list[NDArray[Any]]:
    b = keyset.bounds
    return [whole[b[s] : b[s + 1]] for s in slots]


def _gather(
    whole: NDArray[Any], keyset: KeySet, slots: list[int], out: NDArray[Any] | None = None
) -> NDArray[Any]:
    pieces = _views(whole, keyset, slots)
    if sum(map(len, pieces)) == len(whole):
        return whole
    return np.concatenate(pieces, out=out) if pieces else whole[:0]


def _scatter(part: NDArray[Any], whole: NDArray[Any], keyset: KeySet, slots: list[int]) -> None:
    start = 0
    for view in _views(whole, keyset, slots):
        view[:] = part[start : start + len(view)]
        start += len(view)


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
        Keys of a hash table, ascending; None for a range table, whose rows come in row order.
    values
        Shape (rows, width).
    """
    spec = place.spec
    if spec.keys == "hash":
        found = [entry for part in parts for entry in part.values()]
        keys = np.concatenate([k for k, _ in found])  # type: ignore[misc]
        order = np.argsort(keys)
        return keys[order], np.concatenate([values for _, values in found])[order]
    out = np.empty((spec.n_rows, spec.width), spec.updater.dtype)
    for part in parts:
        for slot, (_, values) in part.items():
            place.scatter(slot, values, out)
    return None, out
