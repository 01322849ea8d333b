"""What a task uses to pull rows and push deltas: one message a shard, none to one in process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daskps.server.buffers import Buffers
from daskps.server.cells import added_histograms, in_slot_order
from daskps.server.keys import KeySet
from daskps.server.layout import Layout, ShardRef
from daskps.server.messages import Arrays, Ask, Blocks, Pull, Push, Want
from daskps.server.shard import Shard
from daskps.server.spec import ServerSpec
from daskps.server.tables import Placement

Call = tuple[ShardRef, Pull | Push | Ask, Blocks]
"""(where, message, where the rows go that answer a pull)."""


VALUES = 64 * 2**20
"""Bytes of a range table's parameters that are on their way to the driver at a time."""

Runs = Sequence[tuple[int, int]]
"""First slot, and slot behind the last, of slots that follow each other on one shard."""


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

    def add(self, call: Call, answer: Any) -> None:
        """Count a message and its answer: rows, deltas and states, not the ids that name them."""
        _, message, out = call
        match message:
            case Pull():
                self.pulled += sum(block.nbytes for block in out)
            case Push():
                self.pushed += sum(block.nbytes for block in message.deltas)
            case Ask():
                if message.what == "keep":
                    self.pushed += sum(a.nbytes for a in message.arrays.values())
                if answer is not message.arrays:  # what was kept as it came does not come back
                    self.pulled += sum(a.nbytes for a in (answer or {}).values())


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
    run
        Name under which pulls are remembered in case of a loss; None does not.
    """

    def __init__(
        self, spec: ServerSpec, layout: Layout, transport: Transport, run: str | None = None
    ) -> None:
        self.spec = spec
        self.layout = layout
        self.traffic = Traffic()
        self._run = run
        self._tables = {t.name: t for t in spec.tables}
        self._transport = transport
        self._places = spec.placements()
        self._held = layout.runs()

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
        recent, place = self._transport.buffers.recent, 0
        if self._run is not None:
            place = recent.begin(sum(map(self._nbytes, keysets)))
        rows = [self._empty(f"pull {i} {place}", k) for i, k in enumerate(keysets)]
        near, far = self._split()

        def message(runs: Runs) -> tuple[Pull, Blocks]:
            wants = self._wants(keysets, runs)
            pull = Pull(self.layout.generation, partition, clock, wants)
            return pull, self._blocks(rows, keysets, runs)

        calls = [(ref, *message(runs)) for ref, runs in far]
        # the shards elsewhere work while the one here does
        wait = self._send(calls)
        seen = [shard.pull(*message(runs)) for shard, runs in near]
        seen += wait()
        if self._run is not None:
            # an answer is of all slots of a shard
            runs_seen = zip((runs for _, runs in [*near, *far]), seen, strict=True)
            by_slot = {s: x for runs, x in runs_seen for run in runs for s in range(*run)}
            recent.note(self._run, place, keysets, rows, by_slot)
        return rows, min(x.samples for x in seen)

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
        deltas = [np.ascontiguousarray(d) for d in deltas]  # memory goes to the socket as it is

        def message(runs: Runs) -> Push:
            wants, blocks = self._wants(keysets, runs), self._blocks(deltas, keysets, runs)
            return Push(self.layout.generation, partition, clock, samples, wants, blocks)

        wait = self._send([(ref, message(runs), ()) for ref, runs in far])
        acks = [shard.push(message(runs)) for shard, runs in near]
        acks += wait()
        return any(a.applied for a in acks)

    def rows(self, keyset: KeySet, *, partition: int, clock: int) -> Arrays:
        """Read rows of cells; see `CellSlot.gather`, the order of rows is that of `keyset`."""
        near, far = self._split()

        def messages(runs: Runs) -> list[tuple[int, Ask]]:
            return [
                (run[0], self._ask_rows(keyset, run, partition, clock))
                for run in self._used(keyset, runs)
            ]

        asked = [(first, ref, ask) for ref, runs in far for first, ask in messages(runs)]
        wait = self._send([(ref, ask, ()) for _, ref, ask in asked])
        found = [(first, shard.ask(ask)) for shard, runs in near for first, ask in messages(runs)]
        found += zip([first for first, _, _ in asked], wait(), strict=True)
        return in_slot_order(found)

    def _ask_rows(self, keyset: KeySet, run: tuple[int, int], partition: int, clock: int) -> Ask:
        want = keyset.want(*run)
        arrays: dict[str, NDArray[Any]] = {"slots": np.array(run)}
        if want.at is not None and want.sizes is not None:
            arrays |= {"sizes": np.array(want.sizes), "at": want.at}
        return Ask(self.layout.generation, partition, clock, "rows", arrays, keyset.table)

    def histogram(self, table: str, *, partition: int, clock: int) -> Arrays:
        """Return how many cells of a table have which count; see `daskps.server.cells`."""
        ask = Ask(self.layout.generation, partition, clock, "histogram", table=table)
        near, far = self._split()
        wait = self._send([(ref, ask, ()) for ref, _ in far])
        return added_histograms([*(shard.ask(ask) for shard, _ in near), *wait()])

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
        answer: Arrays | None = self._send([(ref, msg, ())])()[0]
        return answer

    def _send(self, calls: Sequence[Call]) -> Callable[[], list[Any]]:
        """Send messages to shards elsewhere, and count them once their answers are there."""
        wait = self._transport.send(calls)

        def counted() -> list[Any]:
            answers = wait()
            for call, answer in zip(calls, answers, strict=True):
                self.traffic.add(call, answer)
            return answers

        return counted

    def _split(self) -> tuple[list[tuple[Shard, Runs]], list[tuple[ShardRef, Runs]]]:
        near: list[tuple[Shard, Runs]] = []
        far: list[tuple[ShardRef, Runs]] = []
        for number, runs in self._held.items():
            ref = self.layout.refs[number]
            here = self._transport.local(ref)
            if here is None:
                far.append((ref, runs))
            else:
                near.append((here, runs))
        return near, far

    def _nbytes(self, keyset: KeySet) -> int:
        t = self._tables[keyset.table]
        return len(keyset) * t.updater.n_pull * t.width * t.updater.dtype.itemsize

    def _empty(self, purpose: str, keyset: KeySet) -> NDArray[Any]:
        t = self._tables[keyset.table]
        shape = (len(keyset), t.updater.n_pull, t.width)
        return self._transport.buffers.take(purpose, shape, t.updater.dtype)

    def _blocks(
        self, arrays: Sequence[NDArray[Any]], keysets: Sequence[KeySet], runs: Runs
    ) -> list[NDArray[Any]]:
        """Return the rows that stand in `runs`, without a copy: rows stand in slot order."""
        pairs = zip(arrays, keysets, strict=True)
        return [a[slice(*k.span(*run))] for a, k in pairs for run in self._used(k, runs)]

    def _wants(self, keysets: Sequence[KeySet], runs: Runs) -> tuple[Want, ...]:
        return tuple(k.want(*run) for k in keysets for run in self._used(k, runs))

    def _used(self, keyset: KeySet, runs: Runs) -> Runs:
        """Return the part of `runs` that can hold rows of a table."""
        n = self._places[keyset.table].n_used
        return runs if runs[-1][1] <= n else [(a, min(b, n)) for a, b in runs if a < n]


def batches(place: Placement) -> Iterator[list[int]]:
    """Yield the slots of a table, some at a time: never is all of it on its way at once."""
    spec = place.spec
    nbytes = spec.n_rows * spec.width * spec.updater.dtype.itemsize
    step = place.n_used if nbytes <= VALUES else max(1, VALUES * place.n_used // nbytes)
    for first in range(0, place.n_used, step):
        yield list(range(first, min(first + step, place.n_used)))


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
