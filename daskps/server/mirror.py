"""What ties a shard to its replica: everything it counts is handed on before it is acknowledged.

The replica takes pushes in the order in which the shard has counted them, so that both hold the
same bits in every consistency: updates that are applied on arrival do not commute.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from daskps.errors import ShardLost
from daskps.server.messages import Ask, Push

BEHIND = 5.0
"""Seconds that a replica waits for a push that was counted before another one."""


class Mirror:
    """The way from one shard to its replica.

    Parameters
    ----------
    send
        Hands a message to the replica and waits, within bounds, until it has taken it.
    patience
        Seconds to wait for what other threads are handing on.
    """

    def __init__(self, send: Callable[[Push | Ask], object], patience: float) -> None:
        self.broken = False
        """Whether something could not be handed on: from then on nothing is counted."""
        self._send = send
        self._patience = patience
        self._numbers = 0
        self._under_way: set[tuple[int, int]] = set()
        self._landed = threading.Condition()

    def check(self) -> None:
        """Refuse to count what could not be handed on.

        Raises
        ------
        ShardLost
            If the mirror is broken: the driver must first let go of the replica.
        """
        if self.broken:
            raise ShardLost("a shard's replica does not follow it any more; the run is recovering.")

    def number(self, msg: Push) -> int:
        """Give a push that was just counted its number; the caller has the shard's lock."""
        with self._landed:
            self._numbers += 1
            self._under_way.add((msg.partition, msg.clock))
            return self._numbers

    def hand_on(self, msg: Push, number: int) -> None:
        """Hand a push on; or wait until one that was counted before (`number` 0) has landed.

        Raises
        ------
        ShardLost
            If the replica has not taken it.
        """
        name = msg.partition, msg.clock
        if number:
            try:
                self.send(replace(msg, order=number))
            finally:
                with self._landed:
                    self._under_way.discard(name)
                    self._landed.notify_all()
            return
        with self._landed:
            self._landed.wait_for(lambda: name not in self._under_way, self._patience)
            self.broken |= name in self._under_way
        self.check()

    def send(self, msg: Push | Ask) -> None:
        """Hand a message on.

        Raises
        ------
        ShardLost
            If the replica has not taken it.
        """
        self.check()
        try:
            self._send(msg)
        except Exception as error:
            self.broken = True
            raise ShardLost(f"a shard's replica did not follow it: {error}") from error

    def drain(self) -> bool:
        """Wait for what is under way; return whether the replica has all that the shard has."""
        with self._landed:
            landed = self._landed.wait_for(lambda: not self._under_way, self._patience)
            self.broken |= not landed
        return not self.broken


class Queue:
    """Where a replica lets pushes wait until those before them have come.

    Parameters
    ----------
    lock
        The replica's, which the caller of every method has.
    """

    def __init__(self, lock: Any) -> None:
        self._taken = 0
        self._news = threading.Condition(lock)

    def wait(self, number: int, wanted: Callable[[], bool]) -> None:
        """Wait until push `number` is the next, or is not `wanted` any more.

        Raises
        ------
        ShardLost
            If one before it did not come within `BEHIND` seconds.
        """
        mine = self._news.wait_for(lambda: number == self._taken + 1 or not wanted(), BEHIND)
        if not mine:
            raise ShardLost(f"push {number} came to a replica, push {self._taken + 1} did not.")
        if wanted():
            self._taken = number
            self._news.notify_all()

    def look(self, *, again: bool = False) -> None:
        """Let all look whether they are still wanted; `again` begins at the first number."""
        self._taken = 0 if again else self._taken
        self._news.notify_all()
