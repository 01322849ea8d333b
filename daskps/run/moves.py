"""Parts of the coordinator: a task that runs; moves of slots because workers came or leave."""

from __future__ import annotations

from dataclasses import dataclass, field

from daskps.run import events as ev
from daskps.run.policy import Policy

ATTEMPTS = 3
"""How often a move is tried before the next worker comes or leaves."""


@dataclass(slots=True)
class Running:
    """A task that was started and has not ended."""

    partition: int
    clock: int
    since: float = 0.0
    """When the coordinator started it."""
    copied: bool = False
    """Whether it has, or is, a speculative copy."""


@dataclass(slots=True)
class Moves:
    """What is wanted, and what is under way."""

    rebalance: bool
    replicas: bool = False
    """Whether every shard is to have a replica, as soon as there is a moment to make it."""
    wanted: bool = False
    leaving: set[str] = field(default_factory=set)
    """Workers that are about to be retired."""
    number: int = 0
    failed: int = 0

    @classmethod
    def of(cls, policy: Policy) -> Moves:
        """Return what a run begins with."""
        doubled = policy.replicas > 0
        return cls(policy.rebalance, doubled, wanted=doubled)

    def note(self, event: ev.WorkerJoined | ev.WorkerLeaving | ev.WorkerLost) -> None:
        """Take news of a worker."""
        self.leaving.discard(event.worker)
        match event:
            case ev.WorkerLeaving(worker, holds):
                self.leaving.add(worker)
                self.wanted, self.failed = self.wanted or holds, 0
            case ev.WorkerJoined():
                self.wanted, self.failed = self.wanted or self.rebalance or self.replicas, 0

    def begin(self, clocks: ev.Clocks) -> ev.Move:
        """Return the action."""
        self.wanted, self.number = False, self.number + 1
        return ev.Move(self.number, tuple(sorted(self.leaving)), dict(clocks))

    def end(self, event: ev.Moved | ev.MoveFailed) -> None:
        """Take the answer; a failure mostly means a loss, of which there will be news."""
        if isinstance(event, ev.MoveFailed) or not event.whole:
            self.failed += 1
            self.wanted |= self.failed < ATTEMPTS

    def recovered(self) -> None:
        """Take note that shards stand again, without a replica, or on a worker that leaves."""
        self.wanted, self.failed = self.wanted or self.replicas or bool(self.leaving), 0
