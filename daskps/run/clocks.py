"""How far each partition is, and which of them wait to go on: constant time for each finished task.

With ten thousand workers, a look at every partition for every event would be what training waits
for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from daskps.run import events as ev


class Clocks(dict[int, int]):
    """Finished clocks of each partition; changed by assignment only."""

    def __init__(self, clocks: ev.Clocks) -> None:
        super().__init__(clocks)
        self._at = Counter(clocks.values())
        self.low = min(self._at)
        """Clocks that every partition has finished."""

    def __setitem__(self, partition: int, clock: int) -> None:
        """Note that a partition has finished `clock` clocks."""
        before = self[partition]
        super().__setitem__(partition, clock)
        self._at[before] -= 1
        if not self._at[before]:
            del self._at[before]
        self._at[clock] += 1
        if clock < self.low or (before == self.low and before not in self._at):
            self.low = min(self._at)  # there are few different clocks

    def passed(self, n: int) -> int:
        """Return the clocks that at least `n` partitions have finished; `low` for all of them."""
        there = 0
        for clock in sorted(self._at, reverse=True):
            there += self._at[clock]
            if there >= n:
                return clock
        return self.low

    @property
    def lagging(self) -> int:
        """How many partitions have finished no more than every one has."""
        return self._at[self.low]


class Waiting:
    """Partitions without a running task, by the clocks that they have finished."""

    def __init__(self, clocks: Mapping[int, int], running: Collection[int]) -> None:
        self._by_clock: dict[int, set[int]] = {}
        for partition, clock in clocks.items():
            if partition not in running:
                self.add(partition, clock)

    def add(self, partition: int, clock: int) -> None:
        """Let a partition wait that has finished `clock` clocks."""
        self._by_clock.setdefault(clock, set()).add(partition)

    def take(
        self, up_to: float, below: int, only: Collection[int] | None = None
    ) -> list[tuple[int, int]]:
        """Remove and return (clock, partition) of those that may start, laggards first.

        Parameters
        ----------
        up_to, below
            Largest clock that may start, and the first that may not, whatever the other says.
        only
            Partitions to choose from; all by default.
        """
        found: list[tuple[int, int]] = []
        for clock in sorted(c for c in self._by_clock if c <= up_to and c < below):
            here = self._by_clock[clock]
            some = here if only is None else here.intersection(only)
            found += [(clock, p) for p in sorted(some)]
            if len(some) == len(here):
                del self._by_clock[clock]
            else:
                self._by_clock[clock] = here - some
        return found
