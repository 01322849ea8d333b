"""One shard: some slots of every table, and the rules by which pushes reach them.

A plain object without any Dask in it; `run` wraps it into an actor or uses it in process.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.errors import StaleLayout
from daskps.server import moving, pieces
from daskps.server.barrier import Barrier
from daskps.server.cells import histogram, stacked
from daskps.server.finite import checked
from daskps.server.frozen import Frozen, cut_of, nbytes_beside
from daskps.server.functions import FUNCTIONS, Partial, check_tables
from daskps.server.gather import Index, Rows
from daskps.server.messages import Ack, Arrays, Ask, Blocks, Pull, Push, Seen, Stats, Want
from daskps.server.mirror import Mirror, Queue
from daskps.server.recent import newest_last
from daskps.server.slot import slot_of
from daskps.server.spec import ServerSpec
from daskps.server.states import States


class Shard:
    """Holds rows, answers pulls, applies each push once.

    In BSP the pushes of a clock are folded in partition order and committed together (`Barrier`),
    so the result does not depend on the order of arrival; with staleness they are applied on
    arrival. `clocks[p]` is the number of clocks of partition p that were applied: a
    push of an earlier clock is acknowledged and not counted.

    Parameters
    ----------
    spec
        Shared by all shards of the run.
    slots
        Slots held here.
    generation
        Generation of the layout that put them here.
    """

    def __init__(self, spec: ServerSpec, slots: Sequence[int], generation: int) -> None:
        self.spec = spec
        self.generation = generation
        self.samples = 0.0
        self._placements = spec.placements()
        self._slots = sorted(slots)
        self._tables = {
            name: {s: slot_of(p, s) for s in p.used(self._slots)}
            for name, p in self._placements.items()
        }
        self.clocks = dict.fromkeys(range(spec.n_partitions), 0)
        self._barrier = Barrier(spec.n_partitions)
        self._frozen: dict[str, Frozen] = {}
        self._states = States()
        self._frozen_states: dict[str, dict[int, Arrays]] = {}
        self._answers: dict[tuple[int, int], dict[int, Partial]] = {}
        self._counts = {"pulls": 0, "pushes": 0, "duplicates": 0}
        self._lock = threading.RLock()
        self.mirror: Mirror | None = None  # to the replica, if there is one
        self._queue = Queue(self._lock)

    # -- data path ---------------------------------------------------------------------------

    def pull(self, msg: Pull, out: Blocks) -> Seen:
        """Copy rows to `out` and return what they have seen: nothing there changes afterwards.

        Parameters
        ----------
        msg
            Which rows, for which (partition, clock).
        out
            One array a want, shape (rows, n_pull, width).

        Raises
        ------
        StaleLayout
            If the message is of another generation.
        """
        with self._lock:
            self._check_generation(msg.generation)
            self._admit(msg.clock)
            for want, rows in zip(msg.wants, out, strict=True):
                pieces.pull(self._tables[want.table], want, self.samples, rows)
            counted = [] if self.spec.sync else [self.clocks[p] for p in sorted(self.clocks)]
            return Seen(self.samples, np.array(counted, np.int64).tobytes())

    def push(self, msg: Push) -> Ack:
        """Take the deltas of (partition, clock) once; their arrays may be used again afterwards.

        Raises
        ------
        StaleLayout
            If the message is of another generation.
        NonFinitePush
            If a delta is NaN or infinite; nothing was applied.
        ShardLost
            If there is a replica and it did not take them.
        """
        with self._lock:
            self._await_turn(msg)
            if (mirror := self.mirror) is not None:
                mirror.check()
            number = mirror.number(msg) if (applied := self._count(msg)) and mirror else 0
        if mirror is not None:
            mirror.hand_on(msg, number)
        return Ack(applied)

    def _await_turn(self, msg: Push) -> None:
        """Let what a shard hands on to this replica wait for what it has counted before."""
        self._check_generation(msg.generation)
        if msg.order:
            self._queue.wait(msg.order, lambda: self.generation == msg.generation)
            self._check_generation(msg.generation)

    def _count(self, msg: Push) -> bool:
        """Take the deltas of a push unless they were taken before."""
        if msg.clock < self.clocks[msg.partition]:
            self._counts["duplicates"] += 1
            return False
        assert msg.clock == self.clocks[msg.partition] or not self.spec.sync, msg.clock
        self._settle(msg.clock)
        msg = checked(msg, self._placements)
        self._counts["pushes"] += 1
        self.clocks[msg.partition] = msg.clock + 1
        if self.spec.sync:
            self._barrier.gather(msg, self._fold)
        else:
            self._each(msg, lambda t, idx, d: t.apply(idx, d, self.samples, msg.samples))
            self.samples += msg.samples
        return True

    def ask(self, msg: Ask) -> Arrays | None:
        """Answer a question; see `Ask`.

        Raises
        ------
        StaleLayout
            If the message is of another generation.
        """
        if msg.what == "keep":
            return self._keep(msg)
        with self._lock:
            self._check_generation(msg.generation)
            if msg.what == "rows":
                return self._rows(msg)
            if msg.what == "move":
                return self._packed(msg)
            if msg.what == "histogram":
                self._settle(msg.clock)
                return histogram(list(self._tables[msg.table].values()))
            return self._states.before(msg.partition, msg.clock)

    def _keep(self, msg: Ask) -> Arrays:
        with self._lock:
            self._check_generation(msg.generation)
            kept = self._states.keep(msg.partition, msg.clock, msg.arrays)
            mirror = self.mirror
        if mirror is not None:
            mirror.send(replace(msg, arrays=kept))
        return kept

    def _packed(self, msg: Ask) -> Arrays:
        self._settle()
        assert self._barrier.empty, "a move needs a quiet shard"
        slots, partitions = msg.arrays["slots"].tolist(), msg.arrays["partitions"].tolist()
        tables = {n: {s: t[s].freeze() for s in slots if s in t} for n, t in self._tables.items()}
        states = {p: x for p, x in self._states.newest().items() if p in partitions}
        return moving.pack(self.samples if slots else None, tables, states)

    def _rows(self, msg: Ask) -> Arrays:
        self._admit(msg.clock)
        sizes, (first, stop) = msg.arrays.get("sizes"), msg.arrays["slots"].tolist()
        some = None if sizes is None else sizes.tolist()
        want = Want(msg.table, first, stop, some, msg.arrays.get("at"))
        parts = pieces.parts(self._tables[msg.table], want)
        return stacked([slot.gather(at) for slot, at, _ in parts])

    def _fold(self, msg: Push) -> None:
        self._each(msg, lambda t, idx, d: t.fold(idx, d))

    def _settle(self, clock: float = math.inf) -> None:
        """Commit what is complete if `clock` is asked for, which comes after it: it is over."""
        if self._barrier.complete and clock >= min(self.clocks.values(), default=0):
            slots = (slot for table in self._tables.values() for slot in table.values())
            self.samples += self._barrier.commit(slots, self.samples)

    def _each(self, msg: Push, act: Callable[[Any, Index, Rows], None]) -> None:
        parts = []
        for want, deltas in zip(msg.wants, msg.deltas, strict=True):
            for slot, at, delta in pieces.of_rows(self._tables[want.table], want, deltas):
                if len(delta):  # an empty change would still copy a slot that a cut shares
                    idx = None if at is None else slot.locate(at, create=True)
                    parts.append((slot, idx, delta))
        for slot, idx, delta in parts:  # all rows were found: nothing is applied by halves
            act(slot, idx, delta)

    def _admit(self, clock: int) -> None:
        self._counts["pulls"] += 1
        self._settle(clock)
        least = clock - self.spec.staleness
        if min(self.clocks.values(), default=least) < least:
            near = sum(c >= least for c in self.clocks.values())
            assert near >= self.spec.enough, (clock, self.clocks)

    def _check_generation(self, generation: int) -> None:
        if generation != self.generation:
            raise StaleLayout(
                f"message of layout generation {generation} reached a shard of generation "
                f"{self.generation}; refresh the layout and send it again."
            )

    # -- control -----------------------------------------------------------------------------

    def apply(
        self,
        function: str,
        params: Mapping[str, Any],
        *,
        generation: int | None = None,
        once: tuple[int, int] | None = None,
        clock: float = math.inf,
    ) -> dict[int, Partial]:
        """Run a server function and return its partial result of each slot.

        Parameters
        ----------
        function, params
            One of `daskps.server.functions.FUNCTIONS`, and its parameters.
        generation
            Of the layout that the caller goes by; None goes by the shard's own.
        once
            (clock, number) of the call: one that comes again is not run again, and has the same
            answer. Answers are kept until a call of another clock.
        clock
            Finished clocks that the tables are to have: what is pushed of the next one is not seen.

        Raises
        ------
        StaleLayout
            If `generation` is another one than the shard's: the tables may have gone back since.
        ValueError
            If there is no such function.
        """
        if function not in FUNCTIONS:
            known = sorted(FUNCTIONS)
            raise ValueError(f"unknown server function {function!r}; expected one of {known}.")
        named = [params[n] for n in ("table", "other", "into") if n in params]
        check_tables(named, self.spec.tables)
        with self._lock:
            if generation is not None:
                self._check_generation(generation)
            if once is not None and once in self._answers:
                return self._answers[once]
            self._settle(clock)
            partial = FUNCTIONS[function].partial
            held = {s: {n: t[s] for n, t in self._tables.items() if s in t} for s in self._slots}
            answer = {s: partial(tables, self.samples, **params) for s, tables in held.items()}
            if once is not None:
                assert self._barrier.empty, "a function that is run once needs a quiet shard"
                self._answers = {k: x for k, x in self._answers.items() if k[0] == once[0]}
                self._answers[once] = answer
            return answer

    def values(
        self, table: str, slots: Sequence[int] | None = None
    ) -> dict[int, tuple[NDArray[np.uint64] | None, Rows]]:
        """Return keys and parameters of those of `slots` that are here (None: all), by slot."""
        with self._lock:
            self._settle()
            held = self._tables[table]
            some = held if slots is None else [s for s in slots if s in held]
            return {s: held[s].keys_and_values(self.samples) for s in some}

    def freeze(self, cut: str, *, whole: bool = False) -> dict[str, dict[int, int]]:
        """Keep the present state as `cut`, copy-on-write, and return rows by table and slot.

        Of tables of which few rows have changed it is these, unless the `whole` is wanted.
        """
        with self._lock:
            self._settle()
            assert self._barrier.empty, "a cut needs a quiet shard"
            frozen = {
                name: {s: t[s].freeze() for s in t} if whole else cut_of(t)
                for name, t in self._tables.items()
            }
            self._frozen = {cut: frozen}  # one before that nobody wrote would keep its rows
            self._frozen_states = {cut: self._states.newest()}
            return {n: {s: len(rows) for s, (_, rows) in t.items()} for n, t in frozen.items()}

    def frozen(self, cut: str) -> Frozen:
        """Return the arrays of `cut`, which do not change; hash tables in any order of keys."""
        return self._frozen[cut]

    def frozen_states(self, cut: str) -> dict[int, Arrays]:
        """Return what the partitions whose home this is had kept at `cut`."""
        return self._frozen_states[cut]

    def kept(self, partition: int) -> Arrays:
        """Return what `partition` kept last; empty if it never did."""
        with self._lock:
            return self._states.newest().get(partition, {})

    def written(self, cut: str, table: str, slots: Sequence[int]) -> None:
        """Forget slots of `cut` that are stored: they are not copied any more when they change."""
        with self._lock:
            frozen = self._frozen.get(cut, {}).get(table, {})
            for s in set(slots) & set(frozen):
                self._tables[table][s].thaw(frozen.pop(s)[1])

    def thaw(self, cut: str) -> None:
        """Forget `cut`."""
        self._frozen.pop(cut, None)
        self._frozen_states.pop(cut, None)

    def advance(
        self, generation: int, clocks: Mapping[int, int], *, mirrored: bool = False
    ) -> bool:
        """Enter a layout generation; return whether the replica, kept if `mirrored`, has it all."""
        with self._lock:
            self.generation = generation
            self._queue.look()
            self.mirror = self.mirror if mirrored else None
            mirror = self.mirror
            self._frozen_states.clear()
            self._frozen.clear()  # the cut is not consistent without the lost slots
            self.clocks = {p: max(c, clocks[p]) for p, c in self.clocks.items()}
        return mirror is not None and mirror.drain()

    def restore(
        self,
        generation: int,
        clocks: Mapping[int, int],
        samples: float,
        tables: Frozen | None,
        states: Mapping[int, Arrays] | None = None,
    ) -> None:
        """Enter a layout generation with the rows of a cut, or with initial values (None)."""
        with self._lock:
            self.generation, self.clocks, self.samples = generation, dict(clocks), samples
            self.mirror = None
            self._queue.look(again=True)
            self._barrier.clear()
            for gone in (self._answers, self._frozen, self._frozen_states):
                gone.clear()
            self._states = States(states)
            for name, place in self._placements.items():
                rows = (tables or {}).get(name)  # a shorter run may have had no use for the table
                for s in self._tables[name]:
                    if rows is None:
                        self._tables[name][s] = slot_of(place, s)
                    else:
                        self._tables[name][s].load(*rows[s])

    def recall(self, parts: Sequence[Arrays]) -> int:
        """Bring rows of a cut nearer to what was lost, by what tasks had pulled of them since.

        `parts` are those of `Recent.of`; of a row the newest counts, and none older than the cut.
        Pushes that it has seen are counted, too. Returns how many rows were set, with repetitions.
        """
        n = 0
        with self._lock:
            for part, slot, samples in newest_last(parts, self.samples):
                for name, table in self._tables.items():
                    if (rows := part.get(f"row/{name}/{slot}")) is not None:
                        n += table[slot].recall(part.get(f"at/{name}/{slot}"), rows, samples)
                clocks = enumerate(part[f"clocks/{slot}"].tolist())
                self.clocks |= {p: max(clock, self.clocks[p]) for p, clock in clocks}
                self.samples = samples
        return n

    def stats(self) -> Stats:
        """Return bytes held and calls answered."""
        with self._lock:
            slots = [t for table in self._tables.values() for t in table.values()]
            return Stats(
                rows_nbytes=sum(t.nbytes for t in slots),
                pending_nbytes=self._barrier.waiting_nbytes + sum(t.pending_nbytes for t in slots),
                frozen_nbytes=nbytes_beside(self._frozen.values(), slots),
                states_nbytes=self._states.nbytes,
                clocks=dict(self.clocks),
                **self._counts,
            )
