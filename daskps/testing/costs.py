"""What things cost in a simulated run, and what such a run comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What everything takes; the defaults are of one machine, see `docs/scaling.md`."""

    compute: float
    """Seconds that a task computes."""
    spread: float = 0.0
    """Standard deviation of the logarithm of that."""
    dispatch: float = 1.5e-3
    """Seconds that driver and scheduler need for one task, one task after the other."""
    overhead: float = 5e-3
    """Seconds of a task that are not computing, transfer or dispatch."""
    pulled: float = 0.0
    """Bytes that a task pulls."""
    pushed: float = 0.0
    """Bytes that it pushes."""
    bandwidth: float = 1e9
    """Bytes a second of the link of a worker, in each direction."""
    latency: float = 1e-3
    freeze: float = 0.02
    """Seconds for which a cut holds training up, once running tasks have ended."""
    cut: float = 0.0
    """Bytes of a cut."""
    store: float = 1e8
    """Bytes a second that one worker writes to the store or reads from it."""
    detect: float = 0.03
    """Seconds from a loss to the news of it."""
    restore: float = 0.3
    """Seconds of a recovery, besides reading what was lost."""
    restart: float = 10.0
    """Seconds after which a worker that died is replaced."""
    mean_life: float = math.inf
    """Seconds that a worker lives on average."""
    slow: Mapping[int, float] = field(default_factory=dict)
    """How many times as long some workers compute."""
    delayed: float = 0.0
    """Share of the tasks that are delayed ..."""
    delay: float = 5.0
    """... and how many times as long they compute."""
    spare: bool = True
    """Whether slow workers get one task at a time, as the engine has it."""
    roam: bool = True
    """Whether tasks may run elsewhere than where their data is, as Dask has it; a worker of a plain
    parameter server has its own and does nothing else."""
    steal: float = 0.1
    """Seconds after which a worker without anything to do takes a task that waits for another."""
    laggards_first: bool = False
    """Whether shards serve the messages of the clocks that lag first."""


@dataclass
class Result:
    """What a simulated run came to."""

    seconds: float
    clocks: int
    ended: str
    tasks: int = 0
    """That ended with success, those done again included."""
    losses: int = 0
    recoveries: int = 0
    recovering: float = 0.0
    """Seconds without any task because of recoveries."""
    copies: int = 0
    cuts: int = 0
    busy: float = 0.0
    """Share of the time in which a worker computed, of all workers."""
    waited: float = 0.0
    """Seconds that the average worker had nothing to do: no task, not even a copy."""
    driver: float = 0.0
    """Share of the time in which driver and scheduler were busy."""

    @property
    def seconds_per_clock(self) -> float:
        """Return the mean; infinite if no clock was finished."""
        return self.seconds / self.clocks if self.clocks else math.inf
