"""A run on a cluster that is not there: discrete events, and the coordinator of real runs.

Owns a model of what tasks, messages, cuts and losses cost in time; who may start what, and what
follows a loss, is decided by `daskps.run.coordinator.Coordinator` itself. So a question about ten
thousand workers is answered in a minute, on a laptop.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.driver import BEAT
from daskps.run.pace import Pace
from daskps.run.policy import Policy
from daskps.testing.costs import Costs, Result

LOOK = 8
"""Workers that are looked at for one that has least, or most, to do."""


@dataclass
class _Task:
    token: int
    partition: int
    clock: int
    worker: int = -1
    dropped: bool = False
    on: int = -1
    """Worker that it is for, if any."""
    but: set[int] = field(default_factory=set)
    """Workers that it is not for."""


class Simulation:
    """Runs `policy` on `n_workers`, each with one thread and one shard; see `simulate`."""

    def __init__(self, policy: Policy, costs: Costs, n_workers: int, seed: int) -> None:
        self.policy, self.costs, self.n = policy, costs, n_workers
        self.random = random.Random(seed)
        self.coordinator = Coordinator.start(policy)
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._alive = [True] * n_workers
        self._idle: dict[int, float] = dict.fromkeys(range(n_workers), 0.0)
        """Workers that have nothing to do, and since when, in that order."""
        self._queues: list[deque[_Task]] = [deque() for _ in range(n_workers)]
        self._on: list[_Task | None] = [None] * n_workers
        self._began = [0.0] * n_workers
        self._tasks: dict[int, _Task] = {}
        self.pace = Pace(policy.n_partitions)
        for worker in range(n_workers):
            self.pace.joined(str(worker))
        self._driver_free = self._shards_free = 0.0
        self._driver_busy = 0.0
        self._requests: list[tuple[float, int, float, Callable[[], None]]] = []
        self._serving = False
        self._cuts: dict[str, ev.Clocks] = {}
        self.result = Result(0.0, 0, "")
        self._computed = 0.0

    # -- time --------------------------------------------------------------------------------

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        """Let something happen later."""
        heapq.heappush(self._heap, (self.now + seconds, next(self._order), then))

    def run(self, longest: float) -> Result:
        """Go on until the coordinator ends, or `longest` seconds have passed."""
        if math.isfinite(self.costs.mean_life):
            for worker in range(self.n):
                self._live(worker)
        self._tell()
        self._beat()
        while self.coordinator.ended is None and self._heap and self.now < longest:
            self.now, _, then = heapq.heappop(self._heap)
            then()
        found, total = self.result, max(self.now, 1e-9)
        found.seconds, found.clocks = self.now, self.coordinator.min_clock
        found.ended = self.coordinator.ended or "not in time"
        found.busy = self._computed / (self.n * total)
        for worker in list(self._idle):
            self._rested(worker)
        found.waited /= self.n
        found.driver = self._driver_busy / total
        return found

    def _beat(self) -> None:
        self._tell()
        self.after(BEAT, self._beat)

    def _tell(self, *events: ev.Event) -> None:
        for event in (ev.Tick(1.0 + self.now), *events):  # the coordinator's time begins above 0
            for action in self.coordinator.handle(event):
                self._do(action)

    def _driver(self, seconds: float, then: Callable[[], None]) -> None:
        """Do something that driver and scheduler do one after the other."""
        self._driver_free = max(self._driver_free, self.now) + seconds
        self._driver_busy += seconds
        self.after(self._driver_free - self.now, then)

    # -- actions -----------------------------------------------------------------------------

    def _do(self, action: ev.Action) -> None:
        match action:
            case ev.Launch(token, partition, clock, copy_of):
                self.result.copies += copy_of is not None
                task = self._tasks[token] = _Task(token, partition, clock)
                spared = {int(w) for w in self.pace.slow} if self.costs.spare else set()
                if copy_of in self._tasks:
                    task.but = {self._tasks[copy_of].worker, *spared}
                elif spared and len(given := self.pace.give(token)) == 1:
                    task.on = int(given[0])
                else:
                    task.but = spared
                self._driver(self.costs.dispatch, lambda: self._place(task))
            case ev.Abandon(token):
                self._drop(token)
            case ev.FreezeCut(cut, clocks):
                self._freeze(cut, clocks)
            case ev.Evaluate(clock):
                self.after(self.costs.compute, lambda: self._tell(ev.Evaluated(clock, {"loss": 1})))
            case ev.TakeTurn(number):
                turn = ev.Turn({}, {})
                self.after(self.costs.latency, lambda: self._tell(ev.TurnTaken(number, turn)))
            case ev.Move(number):
                moved = ev.Moved(number, sum(self._alive), 0)
                self.after(self.costs.restore, lambda: self._tell(moved))
            case ev.Recover():
                self._recover(action)
            case _:
                pass

    def _freeze(self, cut: str, clocks: ev.Clocks) -> None:
        self.result.cuts += 1
        generation = self.result.recoveries
        alive = max(1, sum(self._alive))

        def frozen() -> None:
            if generation == self.result.recoveries:
                self._tell(ev.CutFrozen(cut))
                self.after(self.costs.cut / alive / self.costs.store, written)

        def written() -> None:
            if generation == self.result.recoveries:
                self._cuts[cut] = clocks
                self._tell(ev.CutPublished(cut, clocks))

        self.after(self.costs.freeze, frozen)

    def _recover(self, action: ev.Recover) -> None:
        start, self.result.recoveries = self.now, self.result.recoveries + 1
        usable = [c for c in sorted(self._cuts) if self._behind(self._cuts[c], action.clocks)]
        cut = usable[-1] if usable else None
        zero = dict.fromkeys(action.clocks, 0)
        back: ev.Clocks = self._cuts[cut] if cut else zero
        clocks = action.clocks if action.how == "partial" and cut else back
        read = self.costs.cut / self.n / self.costs.store
        event = ev.Recovered(action.number, dict(clocks), cut, self.costs.restore)

        def stands() -> None:
            if any(self._alive):
                self.result.recovering += self.now - start
                self._tell(event)
            else:
                self.after(0.1, stands)

        self.after(self.costs.restore + read, stands)

    @staticmethod
    def _behind(cut: ev.Clocks, clocks: ev.Clocks) -> bool:
        return all(c <= clocks[p] for p, c in cut.items())

    # -- tasks -------------------------------------------------------------------------------

    def _place(self, task: _Task) -> None:
        """Put a task where its data is, or where nobody has anything to do."""
        if task.dropped:
            return
        home = task.partition % self.n if task.on < 0 else task.on
        good = home not in task.but and self._alive[home]
        some = itertools.islice(self._idle, len(task.but) + 1)
        free = next((w for w in some if w not in task.but), None)
        bound = task.on == home or not self.costs.roam
        if good and (home in self._idle or bound or free is None):
            worker = home
        else:
            worker = self._somebody(task.but) if free is None else free
        if worker < 0:
            self.after(0.1, lambda: self._place(task))
            return
        task.worker = worker
        self._queues[worker].append(task)
        self._next(worker)

    def _somebody(self, but: set[int]) -> int:
        some = [self.random.randrange(self.n) for _ in range(LOOK)]
        alive = [w for w in some if self._alive[w] and w not in but]
        return min(alive, key=lambda w: len(self._queues[w]), default=-1)

    def _next(self, worker: int) -> None:
        if self._on[worker] is not None or not self._alive[worker]:
            return
        queue = self._queues[worker]
        while queue and queue[0].dropped:
            queue.popleft()
        if not queue:
            self._idle.setdefault(worker, self.now)
            if self.costs.roam:
                self.after(self.costs.steal, lambda: self._steal(worker))
            return
        task = queue.popleft()
        self._rested(worker)
        self._on[worker], self._began[worker] = task, self.now
        self._transfer(task, self.costs.pulled, lambda: self._compute(task))

    def _rested(self, worker: int) -> None:
        self.result.waited += self.now - self._idle.pop(worker, self.now)

    def _steal(self, thief: int) -> None:
        """Let a worker that has had nothing to do take what waits last where most waits."""
        if thief not in self._idle:
            return
        looked_at = self.random.sample(range(self.n), min(self.n, LOOK))
        queue = max((self._queues[w] for w in looked_at), key=len)
        for task in reversed(queue):
            if not task.dropped and task.on < 0 and thief not in task.but:
                queue.remove(task)
                task.worker = thief
                self._queues[thief].append(task)
                self._next(thief)
                return

    def _compute(self, task: _Task) -> None:
        seconds = self.costs.compute * self.costs.slow.get(task.worker, 1.0)
        if self.costs.spread:
            seconds *= self.random.lognormvariate(0.0, self.costs.spread)
        if self.random.random() < self.costs.delayed:
            seconds *= self.costs.delay
        self._computed += seconds
        push = self.costs.pushed
        self.after(
            seconds + self.costs.overhead,
            lambda: self._transfer(task, push, lambda: self._end(task)),
        )

    def _end(self, task: _Task) -> None:
        worker = task.worker
        if self._on[worker] is not task:
            return  # it died meanwhile
        self._on[worker] = None
        took = self.now - self._began[worker]
        self.pace.ended(task.token)
        self.pace.took(str(worker), took)
        if not task.dropped:
            self.result.tasks += 1
            figures = {"loss": 1.0, "samples": 1.0, "seconds": took}
            self._tell(ev.TaskDone(task.token, figures))
            self._tasks.pop(task.token, None)
        self._next(worker)

    def _drop(self, token: int) -> None:
        task = self._tasks.pop(token, None)
        if task is not None:
            task.dropped = True  # what runs goes on to its end, as in Dask
            self.pace.ended(token)

    def _transfer(self, task: _Task, nbytes: float, then: Callable[[], None]) -> None:
        """Move bytes between a worker and all shards, which together serve one after the other."""
        if not nbytes:
            self.after(self.costs.latency, then)
            return
        rank = float(task.clock) if self.costs.laggards_first else 0.0
        done = self.now + self.costs.latency + nbytes / self.costs.bandwidth
        heapq.heappush(
            self._requests,
            (rank, next(self._order), nbytes, lambda: self.after(max(0.0, done - self.now), then)),
        )
        if not self._serving:
            self._serve()

    def _serve(self) -> None:
        self._serving = bool(self._requests)
        if self._serving:
            _, _, nbytes, done = heapq.heappop(self._requests)
            shards = max(1, self.policy.n_shards)

            def served() -> None:
                done()
                self._serve()

            self.after(nbytes / (shards * self.costs.bandwidth), served)

    # -- losses ------------------------------------------------------------------------------

    def _live(self, worker: int) -> None:
        life = self.random.expovariate(1.0 / self.costs.mean_life)
        self.after(life, lambda: self._die(worker))

    def _die(self, worker: int) -> None:
        self.result.losses += 1
        self._alive[worker] = False
        self._rested(worker)
        stranded = [t for t in self._queues[worker] if not t.dropped]
        running = self._on[worker]
        if running is not None and not running.dropped:
            stranded.append(running)
        self._queues[worker].clear()
        self._on[worker] = None
        # it holds a shard, as every worker does: what runs is abandoned, or placed again
        lost = ev.WorkerLost(str(worker), (worker % self.policy.n_shards,))

        def news() -> None:
            self._tell(lost)
            for task in stranded:
                self._place(task)

        def back() -> None:
            self._alive[worker] = True
            self._next(worker)
            self._live(worker)

        self.after(self.costs.detect, news)
        self.after(self.costs.restart, back)


def simulate(
    policy: Policy, costs: Costs, n_workers: int, *, seed: int = 0, longest: float = math.inf
) -> Result:
    """Return what a run comes to.

    Parameters
    ----------
    policy
        As the coordinator of a real run gets it.
    costs
        What tasks, messages, cuts and losses take.
    n_workers
        Each has one thread, and one shard if the policy has as many.
    seed
        Of delays and deaths.
    longest
        Simulated seconds after which the run is given up.

    Examples
    --------
    >>> policy = Policy(n_partitions=40, n_shards=10, n_clocks=5)
    >>> round(simulate(policy, Costs(compute=1.0), 10).seconds_per_clock)
    4
    """
    return Simulation(policy, costs, n_workers, seed).run(longest)
