"""How long to train between two checkpoints, when nobody says: pure arithmetic.

Too many cost time by themselves, too few by what a loss takes with it.
"""

from __future__ import annotations

import math

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
