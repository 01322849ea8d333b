"""What tasks ask of shards elsewhere, and how long the answers take: counted by shard.

Owns the form in which these counts travel. Shards in the process of a task are asked without a
message and not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daskps.server.client import Call, Traffic
from daskps.server.messages import Ask, Push

FIELDS = ("pulls", "pull_seconds", "pulled", "pushes", "push_seconds", "pushed")
"""How many pulls were answered, seconds from sending to the answer, bytes; the same of pushes."""
Counts = Mapping[str, Sequence[float]]
"""By the shard's number, as text, since messages have no other keys: one number a field."""


class Answers:
    """Counts the answers of shards; of one thread at a time."""

    def __init__(self) -> None:
        self._counts: dict[str, list[float]] = {}

    def add(self, call: Call, answer: Any, seconds: float) -> None:
        """Count a message, its answer, and the seconds until it came."""
        ref, message, _ = call
        moved = Traffic()
        moved.add(call, answer)
        pushing = isinstance(message, Push) or (isinstance(message, Ask) and message.what == "keep")
        counts = self._counts.setdefault(str(ref.shard), [0.0] * len(FIELDS))
        first = FIELDS.index("pushes" if pushing else "pulls")
        counts[first] += 1
        counts[first + 1] += seconds
        counts[FIELDS.index("pulled")] += moved.pulled
        counts[FIELDS.index("pushed")] += moved.pushed

    def include(self, counts: Counts) -> None:
        """Add what another has counted."""
        for shard, more in counts.items():
            before = self._counts.get(shard, [0.0] * len(FIELDS))
            self._counts[shard] = [a + b for a, b in zip(before, more, strict=True)]

    def told(self) -> dict[str, list[float]]:
        """Return the counts so far."""
        return dict(self._counts)


def since(now: Sequence[float], before: Sequence[float]) -> dict[str, float]:
    """Return by field how much `now` is more than `before`."""
    return {f: a - b for f, a, b in zip(FIELDS, now, before or [0.0] * len(FIELDS), strict=True)}
