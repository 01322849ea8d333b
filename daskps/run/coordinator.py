"""The state machine of a run: events in, actions out.

Owns which (partition, clock) may start, when a cut is taken, what follows a loss and when training
ends. It has no clock, thread, socket or sleep of its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from daskps.run import events as ev
from daskps.run import verdicts
from daskps.run.clocks import Clocks, Waiting
from daskps.run.interval import CutTimes
from daskps.run.ledger import Ledger
from daskps.run.losses import Losses
from daskps.run.moves import Moves, Running
from daskps.run.policy import Policy
from daskps.run.turning import Turning
from daskps.run.vigil import Vigil


@dataclass(slots=True)
class Coordinator:
    """Turns events into actions.

    Admission: (p, c) may start when p has finished c clocks and c - min_clock <= staleness, in ASP
    `Policy.lead`; with a quorum in min_clock's place the clock that so many have finished.
    """

    policy: Policy
    clocks: Clocks
    ledger: Ledger
    moves: Moves
    losses: Losses
    times: CutTimes
    vigil: Vigil
    now: float = 0.0
    target: int = 0
    running: dict[int, Running] = field(default_factory=dict)
    ended: str | None = None
    _busy: str | None = None
    """What keeps tasks from starting: turning, freezing, evaluating, moving or recovering."""
    _unsure: set[int] = field(default_factory=set)
    """Partitions whose task ended without success: some shards may have counted its push, so it
    must be done again before a cut, and before the end."""
    _ahead: dict[int, int] = field(default_factory=dict)
    """Clocks that some shards hold already while they are done again for those that lost them: a
    cut must not fall between."""
    _turns: Turning = field(default_factory=Turning)
    _n_shards: int = 0
    _want_cut: bool = False
    _want_evaluation: bool = False
    _writing: str | None = None
    _last_cut: tuple[str | None, int, float] = (None, 0, 0.0)
    _pass: int = 0
    _tokens: int = 0
    _failures: verdicts.Failures = field(default_factory=verdicts.Failures)
    _recoveries: int = 0
    _recovery: int = 0
    _waiting: Waiting | None = None
    """Partitions that do not run; None when that must be looked up."""
    _stop: str | None = None

    @classmethod
    def start(
        cls, policy: Policy, clocks: ev.Clocks | None = None, ledger: Ledger | None = None
    ) -> Coordinator:
        """Return a coordinator at clock 0, or at the clocks of a cut that is resumed."""
        start = Clocks(clocks or dict.fromkeys(range(policy.n_partitions), 0))
        ledger, moves = ledger or Ledger(policy.clocks_per_pass), Moves.of(policy)
        parts = (moves, Losses(policy), CutTimes(policy), Vigil(policy))
        self = cls(policy, start, ledger, *parts, target=policy.n_clocks)
        self._n_shards = policy.n_shards
        self._pass = self.min_clock // policy.clocks_per_pass
        self._last_cut = (None, self.min_clock, 0.0)
        self.losses.safe = dict(clocks) if clocks is not None else None
        if self.min_clock == self._pass * policy.clocks_per_pass:
            self._judge()  # a run that had stalled is over
        last = self.ledger.turns.get(self.min_clock)
        if last is not None and last.converged:
            self._stop_soon("tol")
        return self

    @property
    def min_clock(self) -> int:
        """Clocks that every partition has finished."""
        return self.clocks.low

    def handle(self, event: ev.Event) -> list[ev.Action]:
        """Take one event and return what is to be done, in order."""
        if self.ended is not None:
            return []
        match event:
            case ev.Tick(now):
                actions = self._tick(now)
            case ev.TaskDone():
                actions = self._done(event)
            case ev.TaskFailed():
                actions = self._failed(event)
            case ev.WorkerLost(_, shards, replicas):
                self.moves.note(event)
                actions = self._lost(event) if shards or replicas else []
            case ev.Moved() | ev.MoveFailed():
                actions = self._moved(event)
            case ev.Recovered():
                actions = self._recovered(event)
            case ev.RecoveryFailed(error):
                actions = self._fail(error)
            case ev.CutFrozen() | ev.CutPublished() | ev.CutFailed():
                actions = self._cut_event(event)
            case ev.Evaluated(clock, metrics):
                actions = self._evaluated(clock, metrics["loss"])
            case ev.EvaluationFailed():
                actions = []  # still wanted: tried again once all is quiet
                if self._busy == "evaluating":
                    self._busy = None
            case ev.TurnTaken() | ev.TurnFailed():
                actions = self._turned(event)
            case ev.StopRequested(reason):
                actions = self._stop_soon(reason)
            case ev.WorkerJoined() | ev.WorkerLeaving():
                self.moves.note(event)
                actions = []
        return actions if self.ended else actions + self._advance()

    # -- going on ----------------------------------------------------------------------------

    def _advance(self) -> list[ev.Action]:
        """Start whatever may start now."""
        if self._busy is not None:
            return []
        if self.min_clock >= self.target:
            self._want_cut |= self._behind_cut()
        whole, over = not self._ahead, self.min_clock >= self.target
        # a cut that is due while the one before is being written waits, and training goes on
        cut_now = self._want_cut and whole and (self._writing is None or over)
        # at the end only if what a worker holds would go with it
        wanted = self.moves.wanted and (bool(self.moves.leaving) or not over)
        move_now = wanted and whole and self._writing is None
        stands_still = move_now or cut_now or self._want_evaluation
        if self._turns.due and self.policy.looks_on and not (stands_still or over):
            return self._look_on()
        if self._turns.due or stands_still:
            again = self._admit(self._unsure)
            wait = again or self.running or self._turns.asked
            return again if wait else self._quiet(move_now)
        if over:
            return [] if self.running or self._writing else self._finish()
        return self._admit()

    def _admit(self, only: Collection[int] | None = None) -> list[ev.Action]:
        if self._waiting is None:
            self._waiting = Waiting(self.clocks, {r.partition for r in self.running.values()})
        # laggards first, so that the barrier or the staleness bound opens soonest
        common = self.clocks.passed(self.policy.enough)
        lead = self.policy.lead(self.target - common)
        ready = self._waiting.take(common + lead, self.target, only)
        return [self._launch(p, c) for c, p in ready]

    def _launch(self, partition: int, clock: int, copy_of: int | None = None) -> ev.Launch:
        if not self.running:
            self.vigil.begin(self.now)
        self._tokens += 1
        self.running[self._tokens] = Running(partition, clock, self.now)
        return ev.Launch(self._tokens, partition, clock, copy_of)

    def _look_on(self) -> list[ev.Action]:
        """Start the next clock, and then let the model look at the one that is over."""
        # with two due the next clock would change what the model has not looked at
        begun = self._admit() if len(self._turns.due) == 1 else []
        return begun if self._turns.asked else [*begun, self._turns.ask()]

    def _quiet(self, move: bool) -> list[ev.Action]:
        """Nothing runs: take the turn, the move, the evaluation or the cut that waited for it."""
        if self._turns.due:  # first: the clock is not over without it
            self._busy = "turning"
            return [self._turns.ask()]
        if move:
            self._busy = "moving"
            return [self.moves.begin(self.clocks)]
        if self._want_evaluation:
            # before the cut, which then holds its outcome: a resumed run stops where this one does
            self._busy = "evaluating"
            return [ev.Evaluate(self.min_clock)]
        if self._writing:
            return []
        self._want_cut, self._busy = False, "freezing"
        self.times.order(self.now)
        self._writing = f"cut-{self.min_clock:08d}"
        return [ev.FreezeCut(self._writing, dict(self.clocks))]

    def _finish(self) -> list[ev.Action]:
        self.ended = self._stop or "max_iter"
        return [ev.Finish(self.ended)]

    def _fail(self, error: BaseException) -> list[ev.Action]:
        self.ended = "failed"
        return [ev.Fail(error)]

    # -- tasks -------------------------------------------------------------------------------

    def _done(self, event: ev.TaskDone) -> list[ev.Action]:
        run = self.running.pop(event.token, None)
        if run is None or run.clock != self.clocks[run.partition]:
            return []  # abandoned, or the copy of a task that is done: counted by the winner
        before = self.min_clock
        self._unsure.discard(run.partition)
        self.clocks[run.partition] = run.clock + 1
        self.vigil.begin(self.now)
        self.vigil.took(self.now - run.since)
        self.ledger.add(run.clock, run.partition, run.clock - before, event.metrics, self.now)
        if self._ahead.get(run.partition, math.inf) <= run.clock + 1:
            del self._ahead[run.partition]
        twins = self.running.items() if run.copied else ()
        losers = [t for t, r in twins if r.partition == run.partition]
        for token in losers:
            del self.running[token]
        if self._waiting is not None:
            self._waiting.add(run.partition, run.clock + 1)
        if self.min_clock > before:
            self._clock_over()
        return [ev.Abandon(t) for t in losers]

    def _failed(self, event: ev.TaskFailed) -> list[ev.Action]:
        run = self.running.pop(event.token, None)
        if run is None or run.clock != self.clocks[run.partition]:
            return []
        self._unsure.add(run.partition)
        self._waiting = None
        for twin in self.running.values():
            twin.copied &= twin.partition != run.partition  # it may need another copy
        # admitted again as soon as nothing stands against it
        hopeless = self._failures.task((run.partition, run.clock), event, self.policy)
        return [] if hopeless is None else self._fail(hopeless)

    def _clock_over(self) -> None:
        """Decide what the clock that every partition has now finished brings about."""
        self._recoveries = 0
        self._turns.due += [self.min_clock] if self.policy.takes_turns else []
        every = self.times.clocks
        if every and self.min_clock - self._last_cut[1] >= every:
            self._want_cut = True
        if self.min_clock // self.policy.clocks_per_pass > self._pass:
            self._pass = self.min_clock // self.policy.clocks_per_pass
            self._want_evaluation |= self.policy.evaluate
            if not self.policy.evaluate:
                self._judge()

    def _judge(self) -> None:
        tol, patience = self.policy.tol, self.policy.n_iter_no_change
        if tol is not None and self.ledger.stalled(tol, patience):
            self._stop_soon("tol")

    def _stop_soon(self, reason: str) -> list[ev.Action]:
        """End at the first clock that is common to everybody."""
        if self._stop is None:
            begun = self._unsure.union(r.partition for r in self.running.values())
            ahead = max(c + (p in begun) for p, c in self.clocks.items())
            ahead = max(ahead, *self._ahead.values(), 0)
            self._stop, self.target = reason, min(self.target, ahead)
        elif self._stop == "tol":
            self._stop = reason  # which a roll-back does not take back
        return []

    def _tick(self, now: float) -> list[ev.Action]:
        self.now = now
        if self.vigil.progress == 0.0:
            self.vigil.begin(now)
            self._last_cut = (*self._last_cut[:2], now)
            self.ledger.go_on(now)
            self.times.began(now)
        seconds = self.times.seconds(now, self._n_shards)
        due = seconds and self._writing is None and now - self._last_cut[2] >= seconds
        if due and self._behind_cut():
            self._want_cut = True
        return self._watch() if self.running else []

    def _watch(self) -> list[ev.Action]:
        """Look after tasks that take long."""
        if (silent := self.vigil.silent(self.now)) >= self.policy.patience:
            tasks = ((r.partition, r.clock) for r in self.running.values())
            return self._fail(verdicts.silence(silent, tasks))
        actions: list[ev.Action] = [ev.Probe()] if self.vigil.wants_probe(self.now) else []
        for token in self.vigil.late(self.now, self.running, self.clocks):
            run = self.running[token]
            run.copied = True
            copy = self._launch(run.partition, run.clock, copy_of=token)
            self.running[copy.token].copied = True
            actions.append(copy)
        return actions

    # -- cuts, evaluation, losses ------------------------------------------------------------

    def _behind_cut(self) -> bool:
        return self.policy.keeps_cuts and self.min_clock > self._last_cut[1]

    def _cut_event(self, event: ev.CutFrozen | ev.CutPublished | ev.CutFailed) -> list[ev.Action]:
        if isinstance(event, ev.CutPublished):
            self._note_published(event.clocks)
        if event.cut != self._writing:
            return []
        match event:
            case ev.CutFrozen(cut):
                self._busy, self._last_cut = None, (cut, self.min_clock, self.now)
            case ev.CutPublished():
                self._writing = None
                self.times.published(self.now)
            case ev.CutFailed():
                # training goes on: the cut before stays the one to go back to
                self._writing, self._last_cut = None, (event.cut, self.min_clock, self.now)
                self._busy = None if self._busy == "freezing" else self._busy
        return []

    def _note_published(self, clocks: ev.Clocks) -> None:
        # also one that a loss overtook on its way here: unless the run went back behind it
        if all(c <= self.clocks[p] for p, c in clocks.items()):
            self.losses.safe = dict(clocks)
            cut, clock, when = self._last_cut
            self._last_cut = (cut, max(clock, min(clocks.values())), when)

    def _evaluated(self, clock: int, loss: float) -> list[ev.Action]:
        if self._busy != "evaluating":
            return []  # a loss came between: the state that was evaluated may be gone
        self._busy, self._want_evaluation = None, False
        self.ledger.evaluated(clock, loss)
        self._judge()
        return []

    def _turned(self, event: ev.TurnTaken | ev.TurnFailed) -> list[ev.Action]:
        if (clock := self._turns.answered(event)) is None:
            return []
        self._busy = None
        if isinstance(event, ev.TurnFailed):  # tried again, unless that is hopeless
            hopeless = self._failures.turn(clock, self.policy)
            return self._fail(event.error) if hopeless else []
        self.ledger.turned(clock, event.turn)
        return self._stop_soon("tol") if event.turn.converged else []

    def _moved(self, event: ev.Moved | ev.MoveFailed) -> list[ev.Action]:
        if self._busy == "moving" and event.number == self.moves.number:  # no loss came between
            self._busy = None
            self.vigil.begin(self.now)
            self.moves.end(event)
            if isinstance(event, ev.Moved):
                self._n_shards = event.n_shards
        return []

    def _lost(self, event: ev.WorkerLost) -> list[ev.Action]:
        self._recoveries += 1
        if self._recoveries > self.policy.max_recoveries:
            return self._fail(verdicts.losses(self._recoveries, self.policy.max_recoveries))
        if self._writing:  # nobody will publish it
            self._last_cut = (None, min((self.losses.safe or {0: 0}).values()), self.now)
        self._busy, self._writing, self._waiting = "recovering", None, None
        self._turns.interrupted()
        self.vigil.begin(self.now)
        self.losses.note(event, self._n_shards)
        self.times.losses += self.losses.bare
        # what still runs would be refused as stale; and its success could be old news by then
        dropped: list[ev.Action] = [ev.Abandon(t) for t in self.running]
        self._unsure |= {r.partition for r in self.running.values()}
        self.running.clear()
        self._recovery += 1
        how = self.losses.how(self.clocks, self.target, self._n_shards)
        if how == "rollback":
            self._ahead.clear()
        elif how == "replay":
            done = {p: c + (p in self._unsure) for p, c in self.clocks.items()}
            self._ahead = {p: max(c, self._ahead.get(p, 0)) for p, c in done.items()}
        there = self.losses.safe is not None
        return [*dropped, ev.Recover(self._recovery, event.shards, how, dict(self.clocks), there)]

    def _recovered(self, event: ev.Recovered) -> list[ev.Action]:
        if event.number != self._recovery:
            return []  # another loss came meanwhile; its recovery counts
        if self.losses.rolling:
            self._unsure.clear()
        self._busy = None
        self.vigil.begin(self.now)
        self.losses.over(went_back=dict(event.clocks) != self.clocks)
        self.moves.recovered()
        self.ledger.recovered(self.min_clock, event.seconds)
        if dict(event.clocks) != self.clocks:
            self.clocks, self._waiting = Clocks(event.clocks), None
            # without a cut everybody has begun again
            ahead = self._ahead.items() if event.cut else ()
            self._ahead = {p: c for p, c in ahead if c > self.clocks[p]}
            self._unsure.clear()
            self.ledger.rewind(self.clocks)
            self._pass = self.min_clock // self.policy.clocks_per_pass
            self._want_cut = self._want_evaluation = False
            self._turns.rewound()  # a cut is taken after the turn of its clock
            self.losses.safe = None if event.cut is None else dict(event.clocks)
            if self._stop == "tol":
                self._stop, self.target = None, self.policy.n_clocks
        self._last_cut = (event.cut, min(self._last_cut[1], self.min_clock), self.now)
        return []
