"""How a topic model's fit goes through the data: slices of the vocabulary, sweeps of each clock.

While topics form, every clock is a few sweeps, because partitions that form them without a look at
each other take two topics for one. Later a sweep changes little, and a clock may be more of them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

LATER = ((20, 5), (40, 10), (100, 20))
"""From so many sweeps on, so many are a clock: about a quarter of what was done before."""


@dataclass(frozen=True, slots=True)
class Course:
    """How passes over the data go; a pass is a clock for each slice.

    The first pass draws at random. The sweeps of a pass depend on its number alone, so that a
    longer fit begins as a shorter one.
    """

    slices: int
    first: int
    """Sweeps of the first passes."""
    most: int
    """Sweeps of a pass, at most; `first` lets them all be alike."""

    def sweeps(self, number: int) -> int:
        """Return the sweeps of a pass, counted from 0 at the one that draws at random."""
        return _sweeps(self.first, self.most, number)

    def done(self, passes: int) -> int:
        """Return the sweeps of so many passes."""
        return sum(map(self.sweeps, range(passes)))

    def passes(self, sweeps: int) -> int:
        """Return the passes in which at least so many sweeps are done."""
        n = 1
        while self.done(n) < sweeps:
            n += 1
        return n


@functools.cache
def _sweeps(first: int, most: int, number: int) -> int:
    if number == 0:
        return 0
    before = sum(_sweeps(first, most, n) for n in range(number))
    grown = max((n for start, n in LATER if before >= start), default=0)
    return max(first, min(grown, most))
