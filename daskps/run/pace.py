"""Which workers are slow beside the others, and how little they are given: pure arithmetic."""

from __future__ import annotations

import statistics
from collections import deque

SLOW = 2.0
"""A worker is slow that takes so many times as long for a task as the others."""
LEAST = 0.25
"""Seconds that a task must take longer there: what short tasks take says little."""
KNOWN = 3
"""Tasks by which a worker is judged at the least: of two, one that was held up by chance, or that
loaded what was compiled, would be enough."""
CHANCE = 64
"""Tasks after which a worker that is too slow for any gets one, for it may be as fast again."""
MEMORY = 8
"""Tasks after which what was before is forgotten."""


class Pace:
    """Seconds that tasks took on each worker of a run of `n_partitions`.

    Dask gives a task to the worker that holds its data, and knows how long tasks of a kind take,
    but not that one worker takes five times as long. It would be given its share all the same, and
    everybody would wait for it, or for copies of what it has.
    """

    def __init__(self, n_partitions: int) -> None:
        self._n_partitions = n_partitions
        self._took: dict[str, deque[float]] = {}
        self._slow: dict[str, float] = {}
        self._spared = 0
        self._given: dict[int, str] = {}
        self._unjudged = 0

    def joined(self, worker: str) -> None:
        """Take note of a worker."""
        self._took.setdefault(worker, deque(maxlen=MEMORY))

    def left(self, worker: str) -> None:
        """Forget a worker."""
        self._took.pop(worker, None)
        self._slow.pop(worker, None)

    def ended(self, token: int) -> None:
        """Take note that a task is over, however it ended."""
        self._given.pop(token, None)

    def took(self, worker: str, seconds: float) -> None:
        """Note a task that a worker has finished, also one whose copy was faster."""
        if worker not in self._took:  # it is gone: tasks for it would wait for ever
            return
        self._took[worker].append(seconds)
        self._unjudged += 1
        if self._unjudged >= len(self._took):  # the time for all of them, for each of them once
            self._judge()

    def _judge(self) -> None:
        self._unjudged = 0
        known = {w: statistics.median(t) for w, t in self._took.items() if len(t) >= KNOWN}
        usual = statistics.median_low(known.values()) if known else 0.0
        bound = max(SLOW * usual, usual + LEAST)
        self._slow = {w: own / max(usual, 1e-9) for w, own in known.items() if own > bound}

    @property
    def slow(self) -> list[str]:
        """Workers that are slow; not half of them."""
        return list(self._slow)

    def give(self, token: int) -> list[str]:
        """Return the workers that a new task may go to; none when it may go anywhere.

        A slow worker gets one task at a time, if that is done before the others are through with
        all of theirs.
        """
        if not self._slow:
            return []
        busy = set(self._given.values())
        others = [w for w in self._took if w not in self._slow]
        share = 0.8 * self._n_partitions / max(1, len(others))  # for it begins later
        self._spared += 1
        for worker in [w for w in self._slow if w not in busy]:
            if self._slow[worker] <= share or self._spared > CHANCE:
                self._given[token], self._spared = worker, 0
                return [worker]
        return others
