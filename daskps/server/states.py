"""What partitions keep from clock to clock: topic assignments, factors of users, duals.

A state is the arrays that a step kept under its (partition, clock). It is never changed, so it
travels and is frozen by reference; the one before stays until the next step has begun, because a
step that failed halfway is done again.
"""

from __future__ import annotations

from collections.abc import Mapping

from daskps.server.messages import Arrays

LATEST = 2**62
"""Clock by which to ask for the last state, whichever clock that is of."""


class States:
    """States of some partitions; not thread-safe, the shard that holds them has the lock."""

    def __init__(self, states: Mapping[int, Arrays] | None = None) -> None:
        # those of a cut count as kept before the first clock that follows, whichever that is
        self._kept: dict[int, dict[int, Arrays]] = {p: {0: s} for p, s in (states or {}).items()}

    def before(self, partition: int, clock: int) -> Arrays | None:
        """Return what the step at `clock` goes on from; None if nothing was kept yet.

        That step begins only when the one before is over: what is older is forgotten. A step that
        is done again for the sake of other shards gets what is nearest of what was kept since.
        """
        kept = self._kept.get(partition, {})
        past = [c for c in kept if c <= clock]
        for c in past[:-1]:
            del kept[c]
        if past:
            return kept[past[-1]]
        return kept[min(kept)] if kept and clock else None  # at 0 it begins where it began

    def keep(self, partition: int, clock: int, state: Arrays) -> Arrays:
        """Keep what a step at `clock` has made, from now on read-only; return what counts.

        That is what the first attempt of the step kept, whose push may have been counted already.
        """
        for array in state.values():
            array.flags.writeable = False
        kept = self._kept.setdefault(partition, {})
        if kept and max(kept) > clock + 1:
            return state  # an attempt long overtaken, whose push will be refused
        self.before(partition, clock)  # forgets what is older, also where nobody asks for it
        return kept.setdefault(clock + 1, state)

    def newest(self) -> dict[int, Arrays]:
        """Return the last state of each partition."""
        return {p: kept[max(kept)] for p, kept in self._kept.items()}

    @property
    def nbytes(self) -> int:
        """Bytes held, an array that two states share counted once."""
        arrays = {
            id(a): a.nbytes
            for kept in self._kept.values()
            for state in kept.values()
            for a in state.values()
        }
        return sum(arrays.values())
