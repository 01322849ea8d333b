"""The pushes of one clock in BSP, on their way to the rows.

They are folded in partition order, whatever the order of arrival: float sums are not associative.
They are committed together, and not before somebody asks for the next clock. Until then rows are
what they were when the clock began, so that a task which has to be done again, because its push
reached some shards and not others, finds what it found the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from daskps.server.messages import Push


class Barrier:
    """Pushes of one clock; not thread-safe, the shard that has it has the lock.

    Parameters
    ----------
    n_partitions
        Pushes that make a clock.
    """

    def __init__(self, n_partitions: int) -> None:
        self._n = n_partitions
        self._waiting: dict[int, Push] = {}
        self._samples: list[float] = []

    @property
    def complete(self) -> bool:
        """Whether every partition has pushed, and the clock can be committed."""
        return len(self._samples) == self._n

    @property
    def empty(self) -> bool:
        """Whether no partition has pushed since the last commit."""
        return not self._waiting and not self._samples

    @property
    def waiting_nbytes(self) -> int:
        """Bytes of pushes that came too early."""
        return sum(d.nbytes for m in self._waiting.values() for d in m.deltas)

    def gather(self, msg: Push, fold: Callable[[Push], None]) -> None:
        """Fold a push, and those that waited for it; or let it wait."""
        if msg.partition != len(self._samples):
            msg = msg.copy()  # it must wait, and the sender uses his memory again
        self._waiting[msg.partition] = msg
        while (ready := self._waiting.pop(len(self._samples), None)) is not None:
            fold(ready)
            self._samples.append(ready.samples)

    def commit(self, slots: Iterable[Any], samples: float) -> float:
        """Apply what was folded, after `samples` samples; return the samples of this clock."""
        assert self.complete, (len(self._samples), self._n)
        R = sum(self._samples)
        for slot in slots:
            slot.commit(samples, R)
        self._samples.clear()
        return R

    def clear(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._samples.clear()
