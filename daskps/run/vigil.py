"""When a task that runs is too slow, or everything too silent: pure arithmetic on times."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from daskps.run.clocks import Clocks
from daskps.run.moves import Running
from daskps.run.policy import Policy

MOST = 0.75
"""Share of the partitions that must have finished a clock before the others count as late."""
USUAL = 0.7
"""Share of the tasks that take no longer than usual, waiting for their turn included: below
`MOST`, so that what is late does not count as usual, and well above the half, since of the tasks
of a clock that one worker runs after each other the last takes longest."""
SLOW = 1.5
"""A task is late when it has run so many times as long as is usual."""
FEW = 5
"""Finished tasks without which nobody knows how long one takes."""


@dataclass(slots=True)
class Vigil:
    """Watches over the running tasks of a coordinator."""

    policy: Policy
    progress: float = 0.0
    """When a task ended last, or anything else was over that tasks wait for."""
    _probed: float = 0.0
    _look_at: float = 0.0
    _took: deque[float] = field(default_factory=lambda: deque(maxlen=200))

    def begin(self, now: float) -> None:
        """Take note that something goes on at `now`."""
        self.progress = self._probed = now

    def took(self, seconds: float) -> None:
        """Note how long a task took, from its start by the coordinator to its end."""
        self._took.append(seconds)

    def silent(self, now: float) -> float:
        """Return the seconds for which nothing has ended."""
        return now - self.progress

    def wants_probe(self, now: float) -> bool:
        """Return whether it is time to ask workers whether they are alive."""
        if now - self._probed < self.policy.probe:
            return False
        self._probed = now
        return True

    def late(self, now: float, running: Mapping[int, Running], clocks: Clocks) -> list[int]:
        """Return the tokens of tasks that had better have a copy.

        All when nothing has ended for as long as the policy's lease. Otherwise, once most
        partitions have finished a clock (Dean and Ghemawat 2004, section 3.6), those that keep it
        open for longer than such tasks take.
        """
        if now - self.progress >= self.policy.lease:
            return [t for t, r in running.items() if not r.copied]
        if not self.policy.speculate or now < self._look_at or len(self._took) < FEW:
            return []
        usual = sorted(self._took)[int(USUAL * len(self._took))]
        bound = max(self.policy.slowest, SLOW * usual)
        self._look_at = now + bound / 8  # the look is at every task that runs
        if clocks.lagging > (1 - MOST) * len(clocks):
            return []
        return [
            t
            for t, r in running.items()
            if r.clock == clocks.low and not r.copied and now - r.since > bound
        ]
