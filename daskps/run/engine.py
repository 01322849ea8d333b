"""What every engine does: place shards, freeze and write cuts, recover, reduce.

An engine executes the coordinator's actions and hands its events to the driver. Subclasses say how
a shard is made, how it is called, and where tasks run.
"""

from __future__ import annotations

import logging
import math
import queue
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from daskps.errors import ShardLost, StaleLayout
from daskps.run import checkpoint
from daskps.run import events as ev
from daskps.run.checkpoint import Checkpoints
from daskps.run.cut_writer import CutWriter
from daskps.run.host import Frost
from daskps.run.ledger import Ledger
from daskps.run.mover import move
from daskps.run.plan import Plan
from daskps.run.recovery import recover
from daskps.run.replicas import loss_of
from daskps.run.state import State
from daskps.run.turns import take_turn
from daskps.run.verdicts import raise_first
from daskps.server.client import batches, merge_values
from daskps.server.functions import FUNCTIONS
from daskps.server.layout import Layout, ShardRef
from daskps.server.messages import Arrays, Stats

logger = logging.getLogger("daskps")

SLOWEST = 10e6
"""Bytes a second that a store or a network moves at the least."""
SCAN = 200e6
"""Bytes a second that a server function goes through at the least."""
PING = 5.0
"""Seconds in which a shard that is under suspicion must answer."""


ControlCall = tuple[ShardRef, str, Mapping[str, Any]]
"""(where, operation, keyword arguments)."""


class Engine(ABC):
    """Executes actions and yields events; used from one thread, the driver's.

    Parameters
    ----------
    plan
        The run.
    n_shards
        Shards to make.
    partition_rows
        Rows of each partition of the training data.
    checkpoints
        Where cuts go; None keeps none.
    """

    one_each = False
    """Whether every worker is to hold one shard, however many there are."""
    recovery_timeout = 60.0
    """Seconds in which lost shards must stand again."""
    last_clock = math.inf
    """Clock at which the run ends: no step after it makes again what a partition kept."""

    def __init__(
        self,
        plan: Plan,
        n_shards: int,
        partition_rows: Sequence[int],
        checkpoints: Checkpoints | None,
    ) -> None:
        self.plan = plan
        self.n_shards = n_shards
        self.partition_rows = list(partition_rows)
        self.checkpoints = checkpoints
        self.layout: Layout
        self._inbox: queue.SimpleQueue[Callable[[], ev.Event | None]] = queue.SimpleQueue()
        self._states_nbytes = 0
        self._writer: CutWriter | None = None
        if checkpoints is not None:
            self._writer = CutWriter(
                plan, checkpoints, partition_rows, self._call, self.post, lambda: self.layout
            )
        self._state: State | None = None
        self.keeps_replicas = False
        """Whether every shard is to have a replica."""
        self.replicas: dict[int, ShardRef] = {}
        """Replicas by the number of their shard."""
        self._used: dict[int, int] = {}
        """Newest incarnation of shards that were moved, or are no more."""

    # -- for the driver ----------------------------------------------------------------------

    def start(
        self, cut: str | None, clocks: ev.Clocks, state: State | None = None, whole: bool = True
    ) -> None:
        """Place the shards, at `state`, or at that of `cut`, of which perhaps not all is needed."""
        self._state = state
        numbers = range(self.n_shards)
        nowhere = {s: ShardRef(s, 0, "", "") for s in numbers}
        slots = Layout.place(self.plan.server.n_slots, nowhere)
        self.layout = slots
        refs = self._make(dict.fromkeys(numbers, 0), 1, slots.by_shard())
        homes = self._homes(refs) if self.plan.keeps_states else ()
        self.layout = Layout(1, slots.owners, refs, homes)
        if cut is not None and self.store is not None:
            listed = checkpoint.read_manifest(self.store, cut).states
            self._states_nbytes = sum(listed.values())
        if cut is not None or state is not None:
            calls = [self._restoring(r, 1, clocks, cut, whole) for r in self.layout.refs.values()]
            raise_first(self._call(calls, self._bulk_timeout))

    def next_event(self, timeout: float) -> ev.Event | None:
        """Return the next event, or None after `timeout` seconds."""
        try:
            return self._inbox.get(timeout=timeout)()
        except queue.Empty:
            return None

    def post(self, event: ev.Event) -> None:
        """Hand an event to the driver, from any thread."""
        self._inbox.put(lambda: event)

    def execute(self, action: ev.Action, ledger: Ledger) -> None:
        """Do what the coordinator wants; the outcome comes as an event."""
        match action:
            case ev.Launch():
                self._launch(action)
            case ev.Abandon(token):
                self._abandon(token)
            case ev.Probe():
                self._probe()
            case ev.FreezeCut(cut, clocks):
                self._freeze(cut, clocks, checkpoint.ledger_to_builtins(ledger))
            case ev.Evaluate(clock):
                self._evaluate(clock)
            case ev.TakeTurn(number, clock):
                self._take_turn(number, clock, ledger)
            case ev.Move():
                self.post(move(self, action))
            case ev.Recover():
                self.post(recover(self, action))
            case ev.Finish() | ev.Fail():
                pass

    def values(self, table: str) -> tuple[NDArray[Any] | None, NDArray[Any]]:
        """Return keys (of hash tables) and parameters of `table`."""
        place = self.plan.server.placements()[table]
        some = (self._all("values", table=table, slots=slots) for slots in batches(place))
        return merge_values(place, (part for parts in some for part in parts.values()))

    def kept(self, partition: int) -> Arrays:
        """Return what a partition kept last."""
        home = self.layout.refs[self.layout.homes[partition]]
        call = (home, "kept", {"partition": partition})
        answer: Arrays = raise_first(self._call([call], self._bulk_timeout))[0]
        return answer

    def state(self) -> State:
        """Return everything that the shards hold, to start another run from."""
        self._all("freeze", cut="state", whole=True)
        return State.gather(self.layout, self._all("dump", cut="state"))

    def stats(self) -> dict[int, Stats]:
        """Return what each shard holds and has done."""
        return self._all("stats")

    def silent(self, lost: Collection[int] = ()) -> ev.WorkerLost | None:
        """Return the first worker whose shard or replica does not answer, but for shards in `lost`.

        A replica that does not follow its shard any more counts as lost, without its worker.
        """
        refs = {s: r for s, r in self.layout.refs.items() if s not in lost}
        asked = [*refs.values(), *self.replicas.values()]
        answers = self._call([(r, "ping", {}) for r in asked], PING)
        for ref, answer in zip(asked, answers, strict=True):
            if isinstance(answer, ShardLost):
                self._expel(ref.address)
                there = [s for s, r in refs.items() if r.address == ref.address]
                return loss_of(self, ref.address, there)
        for shard, broken in zip(refs, answers, strict=False):
            if broken and shard in self.replicas:
                return ev.WorkerLost("", (), (shard,), covered=True)
        return None

    @property
    def replica_numbers(self) -> set[int]:
        """Numbers of the shards that are replicas."""
        return {ref.shard for ref in self.replicas.values()}

    def close(self) -> None:
        """Leave nothing behind: no shard, task, thread or cut that is half-written."""
        if self._writer is not None:
            self._writer.join(self._bulk_timeout)
        self._close()

    # -- for a move --------------------------------------------------------------------------

    def make_at(
        self, where: Mapping[int, str], slots: Mapping[int, Sequence[int]], generation: int
    ) -> dict[int, ShardRef]:
        """Make new incarnations of shards on the workers in `where`, empty."""
        held = self.layout.refs
        before = {s: held[s].incarnation if s in held else self._used.get(s, -1) for s in where}
        numbers = {s: max(n, self._used.get(s, -1)) + 1 for s, n in before.items()}
        self._used |= numbers  # also if they cannot be made, or move: no key may come twice
        refs = self._make(numbers, generation, slots, where)
        self._used |= {s: ref.incarnation for s, ref in refs.items()}
        return refs

    @abstractmethod
    def all_moved(self) -> None:
        """Take note that everything has moved."""

    def call(self, calls: Sequence[ControlCall]) -> list[Any]:
        """Call operations that may move all that a shard holds."""
        return self._call(calls, self._bulk_timeout)

    def ask(self, calls: Sequence[ControlCall], timeout: float) -> list[Any]:
        """Call operations for an answer within `timeout` seconds."""
        return self._call(calls, timeout)

    def addresses(self) -> list[str]:
        """Return the addresses of all workers."""
        return self.workers()

    # -- for subclasses ----------------------------------------------------------------------

    @abstractmethod
    def _make(
        self,
        incarnations: Mapping[int, int],
        generation: int,
        slots: Mapping[int, Sequence[int]],
        where: Mapping[int, str] | None = None,
    ) -> dict[int, ShardRef]:
        """Make new incarnations of shards, with initial values, and wait for them.

        Parameters
        ----------
        incarnations
            Number of each shard's new incarnation.
        slots
            What each is to hold.
        where
            Workers that they had better be on; anywhere by default.
        """

    @abstractmethod
    def workers(self) -> list[str]:
        """Return the addresses of the workers that can hold shards."""

    @property
    @abstractmethod
    def shards(self) -> dict[int, Any]:
        """What keeps each shard alive."""

    @abstractmethod
    def _call(self, calls: Sequence[ControlCall], timeout: float) -> list[Any]:
        """Call operations of shards at once; answers or exceptions, in order."""

    @abstractmethod
    def _launch(self, action: ev.Launch) -> None: ...

    @abstractmethod
    def _abandon(self, token: int) -> None: ...

    @abstractmethod
    def _evaluate(self, clock: int) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...

    def _homes(self, refs: Mapping[int, ShardRef]) -> tuple[int, ...]:
        """Return the shard that each partition's state lives in: a near one, if any is."""
        return tuple(p % self.n_shards for p in range(self.plan.server.n_partitions))

    def _expel(self, address: str) -> None:  # noqa: B027  # nothing hangs in one process
        """Keep a worker that does not answer from getting anything again."""

    def _probe(self) -> None:  # noqa: B027  # nothing hangs in one process
        """Have workers expelled that do not answer, in the background."""

    # -- shared ------------------------------------------------------------------------------

    @property
    def store(self) -> str | None:
        """Where cuts go."""
        return None if self.checkpoints is None else self.checkpoints.store

    @property
    def nbytes(self) -> int:
        """Bytes of all range tables."""
        return sum(
            t.n_rows * t.width * t.updater.n_fields * t.updater.dtype.itemsize
            for t in self.plan.server.tables
        )

    @property
    def _bulk_timeout(self) -> float:
        """Seconds in which every shard must have moved all that it holds."""
        return self.recovery_timeout + (self.nbytes + self._states_nbytes) / SLOWEST

    def _all(
        self, operation: str, *, within: float | None = None, twice: bool = False, **kwargs: Any
    ) -> dict[int, Any]:
        """Return what every shard answers; `twice` asks their replicas, too."""
        refs = self.layout.refs
        asked = [*refs.values(), *(self.replicas.values() if twice else ())]
        calls = [(ref, operation, kwargs) for ref in asked]
        answers = raise_first(self._call(calls, within or self._bulk_timeout))
        return dict(zip(refs, answers, strict=False))

    def _failure(self, token: int, error: BaseException) -> ev.TaskFailed:
        """Classify what ended a task."""
        if isinstance(error, StaleLayout):
            return ev.TaskFailed(token, "stale", error)
        return ev.TaskFailed(token, "lost" if isinstance(error, ShardLost) else "error", error)

    def _apply(self, function: str, params: Mapping[str, Any], once: tuple[int, int]) -> Any:
        within = self.plan.call_timeout + self.nbytes / SCAN
        call: dict[str, Any] = {"function": function, "params": params}
        call["generation"] = self.layout.generation
        looks = self.plan.looks_on
        call |= {"clock": once[0]} if looks else {"once": once}
        # replicas are acted upon as their shards are; what they hold need not be looked at
        answers = self._all("apply", within=within, twice=not looks, **call)
        parts = {slot: x for a in answers.values() for slot, x in a.items()}
        return FUNCTIONS[function].merge([parts[s] for s in sorted(parts)])

    def _take_turn(self, number: int, clock: int, ledger: Ledger) -> None:
        event = take_turn(self.plan.model, number, clock, ledger, self._apply)
        # looked for when it is read: by then the news of a loss may have come by itself
        failed = isinstance(event, ev.TurnFailed)
        self._inbox.put(lambda: (self.silent() if failed else None) or event)

    def _freeze(self, cut: str, clocks: ev.Clocks, ledger: dict[str, Any]) -> None:
        assert self._writer is not None
        try:
            frozen: dict[int, Frost] = self._all("freeze", within=self.plan.call_timeout, cut=cut)
        except (ShardLost, StaleLayout, TimeoutError) as error:
            self.post(ev.CutFailed(cut, error))
            return
        self.post(ev.CutFrozen(cut))
        self._states_nbytes = sum(n for f in frozen.values() for n in f.states.values())
        self._writer.start(cut, clocks, ledger, self.layout, frozen, self._bulk_timeout)

    def stand_up(
        self, lost: set[int], action: ev.Recover, cut: str | None, whole: bool
    ) -> tuple[set[int], ev.Clocks]:
        """Make lost shards again and bring all to one state; return which were lost meanwhile."""
        refs = self.layout.refs
        numbers = {s: max(refs[s].incarnation, self._used.get(s, -1)) + 1 for s in lost}
        generation = self.layout.generation + 1
        self.layout = self.layout.replace(
            self._make(numbers, generation, {s: self.layout.slots_of(s) for s in numbers})
        )
        clocks = action.clocks
        if action.how != "partial":
            clocks = self._clocks_of(cut)
        calls: list[ControlCall] = []
        for shard, ref in self.layout.refs.items():
            if action.how == "rollback" or shard in action.shards or shard in lost:
                calls.append(self._restoring(ref, generation, clocks, cut, whole))
            else:
                calls.append((ref, "advance", {"generation": generation, "clocks": dict(clocks)}))
        gone = set()
        for (ref, _, _), answer in zip(calls, self._call(calls, self._bulk_timeout), strict=True):
            if isinstance(answer, ShardLost):
                gone.add(ref.shard)
            elif isinstance(answer, BaseException):
                raise answer
        return gone, clocks

    def _restoring(
        self, ref: ShardRef, generation: int, clocks: ev.Clocks, cut: str | None, whole: bool
    ) -> ControlCall:
        kwargs: dict[str, Any] = {"generation": generation, "clocks": dict(clocks)}
        if cut is not None:
            partitions = self.layout.partitions_of(ref.shard)
            kwargs |= {"store": self.store, "cut": cut, "partitions": partitions, "whole": whole}
        elif self._state is not None:
            here = self.layout.slots_of(ref.shard), self.layout.partitions_of(ref.shard)
            kwargs["start"] = self._state.of(*here, self.plan.server)
        return ref, "restore", kwargs

    def _clocks_of(self, cut: str | None) -> dict[int, int]:
        n = self.plan.server.n_partitions
        if cut is None or self.store is None:
            return dict.fromkeys(range(n), 0)
        return dict(enumerate(checkpoint.read_manifest(self.store, cut).clocks))
