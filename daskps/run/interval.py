"""How long to train between two checkpoints, when nobody says: pure arithmetic.

Too many cost time by themselves, too few by what a loss takes with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from daskps.run.policy import Policy

LIFE = 86_400.0
"""Seconds between two losses of one worker, assumed before any was seen: pre-emptible machines live
for about a day, others for weeks; the interval goes with the square root."""
SHORTEST = 1.0
"""Seconds between two checkpoints, at the least."""


def between_losses(seconds: float, losses: int, n_workers: int) -> float:
    """Return the mean time between losses of any worker, in seconds.

    The mean of the posterior of a Gamma prior that is worth one loss in `LIFE / n_workers`.

    Parameters
    ----------
    seconds
        That the run has been watched.
    losses
        Seen in them, of workers that hold parameters.
    n_workers
        Workers that hold parameters.
    """
    return (LIFE / max(n_workers, 1) + seconds) / (1 + losses)


def interval(cost: float, mean_time: float) -> float:
    """Return the seconds between checkpoints that cost least time in all.

    Parameters
    ----------
    cost
        Seconds that a checkpoint takes, > 0.
    mean_time
        Mean time between losses, > 0 s, exponentially distributed.

    References
    ----------
    Young (1974), "A First Order Approximation to the Optimum Checkpoint Interval". Daly (2006), "A
    Higher Order Estimate of the Optimum Checkpoint Interval for Restart Dumps", eq. 37.
    """
    if cost >= 2 * mean_time:
        return max(mean_time, SHORTEST)
    x = cost / (2 * mean_time)
    best = math.sqrt(2 * cost * mean_time) * (1 + math.sqrt(x) / 3 + x / 9) - cost
    return max(best, SHORTEST)


@dataclass(slots=True)
class CutTimes:
    """When the next cut is due: as the user said, or by what one took and how often losses come."""

    policy: Policy
    begun: float | None = None
    losses: int = 0
    """Of shards without a replica."""
    cost: float | None = None
    """Seconds from the order of the last cut until it was published; training goes on meanwhile,
    so that this is more than it costs."""
    ordered: float = 0.0

    @property
    def clocks(self) -> int | None:
        """Clocks between two cuts; if nobody said anything, the first one comes after a pass."""
        if self.policy.checkpoint_chosen and self.cost is None:
            return self.policy.clocks_per_pass
        return self.policy.checkpoint_clocks

    def seconds(self, now: float, n_shards: int) -> float | None:
        """Return the seconds between two cuts."""
        if not self.policy.checkpoint_chosen or self.cost is None:
            return self.policy.checkpoint_seconds
        begun = now if self.begun is None else self.begun
        mean_time = between_losses(now - begun, self.losses, n_shards)
        return interval(max(self.cost, 1e-3), mean_time)

    def began(self, now: float) -> None:
        """Take note that the run begins."""
        self.begun = now

    def order(self, now: float) -> None:
        """Take note that a cut is ordered."""
        self.ordered = now

    def published(self, now: float) -> None:
        """Take note that it was published."""
        self.cost = now - self.ordered
