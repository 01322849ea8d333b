"""A fake engine for the coordinator: shards that only count, tasks that advance when told to.

It executes actions as the real engines do (synchronously, outcomes as queued events) and checks
at every step what must hold whatever happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.policy import Policy

Counted = dict[int, set[int]]
TURN = ev.Turn({}, {"objective": 1.0})


@dataclass
class FakeShard:
    """Which clocks of each partition it has counted, and after which it was acted upon."""

    clocks: dict[int, int]
    counted: Counted
    turns: set[int] = field(default_factory=set)
    alive: bool = True
    partial: bool = False
    """Whether it lost updates in a partial recovery, so that clocks may be missing in `counted`."""

    def check(self) -> None:
        for p, c in self.clocks.items():
            assert self.partial or self.counted[p] == set(range(c)), (p, c, self.counted)


@dataclass
class FakeTask:
    partition: int
    clock: int
    generation: int
    steps: Iterator[None] = field(init=False)


@dataclass
class Cut:
    name: str
    clocks: dict[int, int]
    counted: list[tuple[Counted, set[int], bool]]
    generation: int


class World:
    """A run under `policy`, moved on by `step`."""

    def __init__(self, policy: Policy, start: dict[int, int] | None = None) -> None:
        self.policy = policy
        self.coordinator = Coordinator.start(policy, start)
        clocks = dict(self.coordinator.clocks)
        for c, p in ((c, p) for p, n in clocks.items() for c in range(n)):
            self.coordinator.ledger.add(c, p, 0, {"loss": 1.0, "samples": 1.0}, 0.0)
        if policy.takes_turns:
            for c in range(1, self.coordinator.min_clock + 1):
                self.coordinator.ledger.turned(c, TURN)
        self.events: deque[ev.Event] = deque()
        self.tasks: dict[int, FakeTask] = {}
        self.done: list[ev.TaskDone] = []
        self.writing: Cut | None = None
        self.published: dict[str, Cut] = {}
        self.generation = 1
        self.now = 1.0
        self.shards: list[FakeShard] = []
        self.initial = Cut("", clocks, [], 0)
        counted = {p: set(range(c)) for p, c in clocks.items()}
        turned = set(range(1, self.coordinator.min_clock + 1)) if policy.takes_turns else set()
        self.initial.counted = [(counted, turned, False)] * policy.n_shards
        if start is not None:
            self.published["cut-00000000"] = self.initial
        for _ in range(policy.n_shards):
            self.shards.append(FakeShard({}, {}))
        self.restore(range(policy.n_shards), self.initial, clocks)
        self.failed: BaseException | None = None
        self.actions: list[ev.Action] = []
        self.loss_during_recovery: tuple[int, ...] = ()
        self.losses = 0
        self.tell(ev.Tick(self.now))

    # -- coordinator -------------------------------------------------------------------------

    def tell(self, event: ev.Event) -> None:
        coordinator = self.coordinator
        before, was_running = coordinator.min_clock, len(coordinator.running)
        actions = coordinator.handle(event)
        low = coordinator.min_clock
        assert low >= before or isinstance(event, ev.Recovered), event
        done = {(c, p) for c, entry in coordinator.ledger.parts.items() for p in entry}
        assert done == {(c, p) for p, n in coordinator.clocks.items() for c in range(n)}
        if self.policy.takes_turns:
            turned = set(coordinator.ledger.turns)
            behind = 2 if self.policy.looks_on else 1
            assert any(turned == set(range(1, low + 1 - n)) for n in range(behind + 1))
        assert coordinator.ended or coordinator.running or self.outcome_pending(actions), (
            was_running
        )
        for action in actions:
            self.actions.append(action)
            self.execute(action)

    def outcome_pending(self, actions: list[ev.Action]) -> bool:
        """Return whether something is under way that will tell the coordinator."""
        return bool(actions or self.events or self.writing or self.tasks)

    def execute(self, action: ev.Action) -> None:
        coordinator = self.coordinator
        match action:
            case ev.Launch(token, partition, clock, copy_of):
                assert clock == coordinator.clocks[partition] < coordinator.target
                common = coordinator.clocks.passed(self.policy.enough)
                assert clock - common <= self.policy.lead(coordinator.target - common)
                twins = [t for t, r in coordinator.running.items() if r.partition == partition]
                assert len(twins) == (1 if copy_of is None else 2), twins
                self.check_turned(clock, behind=self.policy.looks_on)
                self.tasks[token] = FakeTask(partition, clock, self.generation)
                self.tasks[token].steps = self.run(token)
            case ev.Abandon(token):
                assert token not in coordinator.running
            case ev.Probe():
                assert coordinator.running
            case ev.FreezeCut(cut, clocks):
                assert not coordinator.running
                assert clocks == coordinator.clocks
                self.check_turned(min(clocks.values()))
                self.freeze(cut, dict(clocks))
            case ev.Evaluate(clock):
                self.check_turned(clock)
                self.evaluate(clock)
            case ev.TakeTurn(number, clock):
                assert self.policy.looks_on or not coordinator.running
                self.take_turn(number, clock)
            case ev.Recover():
                self.recover(action)
            case ev.Finish():
                assert not coordinator.running
                assert set(coordinator.clocks.values()) == {coordinator.min_clock}
                self.check_turned(coordinator.min_clock)
            case ev.Fail(error):
                self.failed = error

    # -- tasks -------------------------------------------------------------------------------

    def run(self, token: int) -> Iterator[None]:
        """Pull from every shard, push to one after the other, and tell."""
        task = self.tasks[token]
        p, c, s = task.partition, task.clock, self.policy.staleness
        order = list(range(self.policy.n_shards))[:: 1 if token % 2 else -1]
        for kind, number in [*(("pull", n) for n in order), *(("push", n) for n in order)]:
            shard = self.shards[number]
            if not shard.alive or task.generation != self.generation:
                why = "stale" if shard.alive else "lost"
                self.events.append(ev.TaskFailed(token, why))
                return
            if kind == "pull":
                assert c - min(shard.clocks.values()) <= s, (c, shard.clocks)
            elif c >= shard.clocks[p]:
                assert c not in shard.counted[p]
                assert c == shard.clocks[p] or shard.partial
                shard.counted[p].add(c)
                shard.clocks[p] = c + 1
            yield
        self.done.append(ev.TaskDone(token, {"loss": 1.0 / (1 + c), "samples": 1.0}))
        self.events.append(self.done[-1])

    def advance(self, choice: int) -> None:
        if self.tasks:
            token = sorted(self.tasks)[choice % len(self.tasks)]
            if next(self.tasks[token].steps, "over") == "over":
                del self.tasks[token]

    # -- shards ------------------------------------------------------------------------------

    def restore(self, numbers: range | set[int], cut: Cut, clocks: dict[int, int]) -> None:
        for n in numbers:
            counted, turns, partial = cut.counted[n]
            partial |= clocks != cut.clocks
            copy = {p: set(x) for p, x in counted.items()}
            self.shards[n] = FakeShard(dict(clocks), copy, set(turns), partial=partial)

    def lose(self, shards: tuple[int, ...]) -> None:
        alive = tuple(n for n in shards if self.shards[n].alive)
        for n in alive:
            self.shards[n].alive = False
        if alive:
            self.losses += 1
            self.events.append(ev.WorkerLost("w", alive))

    def recover(self, action: ev.Recover) -> None:
        self.generation += 1
        lost = {*action.shards, *self.loss_during_recovery}
        self.lose(self.loss_during_recovery)
        lost |= {n for n, s in enumerate(self.shards) if not s.alive}
        self.loss_during_recovery = ()
        clocks = dict(action.clocks)
        usable = [
            c
            for c in sorted(self.published.values(), key=lambda c: c.name, reverse=True)
            if all(n <= clocks[p] for p, n in c.clocks.items())
        ]
        cut = usable[0] if usable else self.initial
        if action.how == "rollback" or not usable or len(lost) == len(self.shards):
            clocks = cut.clocks
            self.restore(range(len(self.shards)), cut, clocks)
        else:
            clocks = dict(cut.clocks) if action.how == "replay" else clocks
            self.restore(lost, cut, clocks)
            for n, shard in enumerate(self.shards):
                if n not in lost:
                    shard.clocks = {p: max(c, clocks[p]) for p, c in shard.clocks.items()}
        for shard in self.shards:
            shard.check()
        name = cut.name if usable else None
        self.events.append(ev.Recovered(action.number, dict(clocks), name, 1.0))

    def freeze(self, name: str, clocks: dict[int, int]) -> None:
        if not all(s.alive for s in self.shards):
            self.events.append(ev.CutFailed(name, ConnectionError()))
            return
        for shard in self.shards:
            shard.check()
            assert shard.clocks == clocks
        counted = [
            ({p: set(x) for p, x in s.counted.items()}, set(s.turns), s.partial)
            for s in self.shards
        ]
        self.writing = Cut(name, clocks, counted, self.generation)
        self.events.append(ev.CutFrozen(name))

    def write(self, *, ok: bool) -> None:
        cut, self.writing = self.writing, None
        if cut is None or cut.generation != self.generation:
            return
        if ok:
            self.published[cut.name] = cut
            self.events.append(ev.CutPublished(cut.name, cut.clocks))
        else:
            self.events.append(ev.CutFailed(cut.name, OSError()))

    def take_turn(self, number: int, clock: int) -> None:
        """Act on one shard after the other; each does a turn once, however often it is asked."""
        for shard in self.shards:
            if not shard.alive:
                self.events.append(ev.TurnFailed(number, ConnectionError()))
                return
            shard.check()
            # some or all partitions may be a clock ahead of what is only looked at
            clocks = set(shard.clocks.values())
            assert clock <= min(clocks) <= max(clocks) <= clock + self.policy.looks_on
            assert shard.turns | {clock} == set(range(1, clock + 1))
            shard.turns.add(clock)
        turn = TURN if clock < 5 else replace(TURN, converged=True)
        self.events.append(ev.TurnTaken(number, turn))

    def check_turned(self, clock: int, *, behind: bool = False) -> None:
        """Check that every shard was acted upon after each clock before this one, and no other.

        With `behind` the last of them may be missing.
        """
        expected = set(range(1, clock + 1)) if self.policy.takes_turns else set()
        last = {clock} if behind else set()
        assert all(s.turns | last == expected | last for s in self.shards if s.alive), clock

    def evaluate(self, clock: int) -> None:
        if not all(s.alive for s in self.shards):
            self.events.append(ev.EvaluationFailed(ConnectionError()))
            return
        for shard in self.shards:
            assert min(shard.clocks.values()) == clock
        self.events.append(ev.Evaluated(clock, {"loss": 1.0 / (1 + clock // 4)}))

    # -- moving on ---------------------------------------------------------------------------

    def step(self, choice: int) -> None:
        """Let one thing happen, good or bad."""
        kind, which = choice % 16, choice // 16
        n = self.policy.n_shards
        if kind < 5:
            self.deliver()
        elif kind < 9:
            self.advance(which)
        elif kind == 9:
            self.write(ok=which % 3 > 0)
        elif kind == 10:
            self.tell(ev.Tick(self.later(which % 50)))
        elif kind == 11 and self.losses < 8:
            self.lose((which % n,) if which % 4 else tuple(range(n)))
        elif kind == 12 and self.losses < 8:
            self.loss_during_recovery = (which % n,)
        elif kind == 13 and self.done:
            self.events.append(self.done[which % len(self.done)])
        elif kind == 14 and self.tasks:
            token = sorted(self.tasks)[which % len(self.tasks)]
            del self.tasks[token]
            self.events.append(ev.TaskFailed(token, "lost"))
        elif kind == 15 and which % 8 == 0:
            self.tell(ev.StopRequested("interrupted"))

    def deliver(self) -> None:
        if self.events:
            self.tell(self.events.popleft())

    def later(self, seconds: float) -> float:
        self.now += seconds
        return self.now

    def drain(self) -> None:
        """Let the run end without any further trouble."""
        for _ in range(20_000):
            if self.coordinator.ended is not None:
                return
            self.deliver()
            if not self.events:
                self.advance(0)
                self.write(ok=True)
        raise AssertionError(("no end", self.coordinator))


def calm(**settings: object) -> World:
    """Return a world that has ended without any trouble."""
    world = World(policy(**settings))
    world.drain()
    return world


def policy(**settings: object) -> Policy:
    base: dict[str, object] = {"n_partitions": 3, "n_shards": 2, "n_clocks": 4}
    return Policy(**(base | settings))
