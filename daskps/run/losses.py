"""Part of the coordinator: what was lost since all shards stood, and how to stand again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from daskps.run import events as ev
from daskps.run.policy import Policy

How = Literal["promote", "rollback", "replay", "partial"]

SPARED = 0.025
"""Share of a run's clocks whose work may be lost for good; what is more is done again."""


@dataclass(slots=True)
class Losses:
    """Losses that no recovery has answered, and what those before have cost."""

    policy: Policy
    safe: ev.Clocks | None = None
    """Clocks of the newest published cut."""
    down: set[int] = field(default_factory=set)
    """Shards that were lost since all stood the last time."""
    bare: bool = False
    """Whether one of them had no replica."""
    rolling: bool = False
    """Whether a recovery that takes everybody back has not been answered."""
    spent: float = 0.0
    """Clocks of all partitions and slots, whose work nobody does again."""
    _taking: float = 0.0
    """What the recovery under way adds to it."""

    def note(self, event: ev.WorkerLost, n_shards: int) -> None:
        """Take a loss."""
        self.bare |= not event.covered
        if not self.bare:
            return
        self.down |= set(event.shards)
        # BSP replays, so that the result stays that of the calm run; without a cut there is
        # nothing to load a part from
        everything = len(self.down) >= n_shards
        self.rolling |= self.policy.staleness == 0 or self.safe is None or everything
        self.rolling |= self.policy.keeps_states

    def how(self, clocks: ev.Clocks, target: int, n_shards: int) -> How:
        """Return how to stand again."""
        self._taking = 0.0
        if not self.bare:
            return "promote"
        if self.rolling:
            return "rollback"
        assert self.safe is not None
        behind = {p: max(0, c - self.safe[p]) for p, c in clocks.items()}
        # what was lost heals with what the partition still does; near the end there is too little
        heals = min(target - c - behind[p] for p, c in clocks.items())
        taking = sum(behind.values()) / len(behind) * len(self.down) / n_shards
        if heals < self.policy.clocks_per_pass or self.spent + taking > SPARED * target:
            return "replay"
        self._taking = taking
        return "partial"

    def over(self, *, went_back: bool) -> None:
        """Take note that all shards stand."""
        self.spent += 0.0 if went_back else self._taking
        self._taking = 0.0
        self.down.clear()
        self.bare = self.rolling = False
