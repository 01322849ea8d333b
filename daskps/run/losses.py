"""Part of the coordinator: what was lost since all shards stood, and how to stand again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from daskps.run import events as ev
from daskps.run.policy import Policy

How = Literal["promote", "rollback", "replay", "partial"]


@dataclass(slots=True)
class Losses:
    """Losses that no recovery has answered."""

    policy: Policy
    down: set[int] = field(default_factory=set)
    """Shards that were lost since all stood the last time."""
    bare: bool = False
    """Whether one of them had no replica."""
    rolling: bool = False
    """Whether a recovery that takes everybody back has not been answered."""

    def note(self, event: ev.WorkerLost, n_shards: int, safe: int | None) -> None:
        """Take a loss; `safe` is min_clock of the newest published cut."""
        self.bare |= not event.covered
        if not self.bare:
            return
        self.down |= set(event.shards)
        # BSP replays, so that the result stays that of the calm run; without a cut there is
        # nothing to load a part from
        everything = len(self.down) >= n_shards
        self.rolling |= self.policy.staleness == 0 or safe is None or everything
        self.rolling |= self.policy.keeps_states

    def how(self, safe: int | None, min_clock: int, target: int) -> How:
        """Return how to stand again."""
        if not self.bare:
            return "promote"
        if self.rolling:
            return "rollback"
        assert safe is not None
        # what was lost heals with what is still to come; near the end there is too little of it
        lost, left = min_clock - safe, target - min_clock
        return "partial" if left >= lost + self.policy.clocks_per_pass else "replay"

    def over(self) -> None:
        """Take note that all shards stand."""
        self.down.clear()
        self.bare = self.rolling = False
