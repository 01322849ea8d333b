"""What a run is to do: consistency, checkpoints, when to stop, what to put up with."""

from __future__ import annotations

import math
from dataclasses import dataclass

from daskps.server.spec import enough


@dataclass(frozen=True, slots=True)
class Policy:
    """What the coordinator is to do; fixed for a run."""

    n_partitions: int
    n_shards: int
    n_clocks: int
    """Clocks that every partition finishes unless training stops early."""
    clocks_per_pass: int = 1
    staleness: float = 0
    """0 is BSP, `math.inf` is ASP."""
    quorum: float = 1.0
    """Share of the partitions that the bound looks at, the fastest; below 1 in SSP only."""
    checkpoint_clocks: int | None = None
    checkpoint_seconds: float | None = None
    checkpoint_chosen: bool = False
    """Choose the time between checkpoints by what they take and how often workers are lost."""
    evaluate: bool = False
    """Evaluate the held-out dataset after each pass."""
    keeps_states: bool = False
    """Partitions keep arrays that must agree with tables: after a loss everybody goes back."""
    takes_turns: bool = False
    """Let the model act on the tables after each clock; BSP only."""
    looks_on: bool = False
    """It only looks at them: the next clock may begin before it has."""
    tol: float | None = None
    """Stop when the loss of a pass is not better than the best by this much ..."""
    n_iter_no_change: int = 2
    """... for so many passes in a row."""
    max_attempts: int = 3
    """How often one (partition, clock) may fail by an error of its own."""
    max_refusals: int = 50
    """How often it may fail because shards or the layout were others than it was told."""
    replicas: int = 0
    """Copies of every shard on other workers, 0 or 1."""
    rebalance: bool = True
    """Give slots to workers that join."""
    max_recoveries: int = 10
    """Losses in a row, without a finished clock between them, that are survived."""
    lease: float = 30.0
    """Seconds without any progress after which running tasks get a speculative copy."""
    probe: float = 3.0
    """Seconds without any progress after which workers are asked whether they are alive."""
    speculate: bool = True
    """Copy also single tasks that keep a clock open which most partitions have finished."""
    slowest: float = 0.5
    """Seconds that any task may take without being late."""
    patience: float = 900.0
    """Seconds without any progress after which the run ends with an error."""

    @property
    def enough(self) -> int:
        """Partitions that must have finished a clock for the others to go on."""
        return enough(self.quorum, self.n_partitions)

    def lead(self, left: int) -> float:
        """Return how many clocks one may be ahead of the others, who have so many `left`.

        In ASP half of these: who has done all when others have half to do, learns nothing any more
        of what they find out. It costs hardly any time, because he would wait for them at the end.
        """
        return max(1, left // 2) if math.isinf(self.staleness) else self.staleness

    @property
    def keeps_cuts(self) -> bool:
        """Whether checkpoints are taken."""
        given = self.checkpoint_clocks is not None or self.checkpoint_seconds is not None
        return given or self.checkpoint_chosen


def staleness_of(consistency: str, staleness: int, quorum: float = 1.0) -> float:
    """Return the staleness bound of a consistency name.

    Raises
    ------
    ValueError
        If the name is unknown, or SSP has no positive bound, or another one has a quorum.
    """
    if quorum < 1 and consistency != "ssp":
        raise ValueError(
            f"quorum={quorum!r} with consistency={consistency!r}; expected consistency='ssp': "
            "'bsp' waits for everybody, so that its bits do not depend on who is late, and 'asp' "
            "for nobody."
        )
    if consistency not in ("bsp", "ssp", "asp"):
        raise ValueError(f"consistency={consistency!r}; expected 'bsp', 'ssp' or 'asp'.")
    if consistency == "ssp" and staleness < 1:
        raise ValueError(
            f"staleness={staleness!r} with consistency='ssp'; expected an integer of at least 1 "
            "(use consistency='bsp' for none)."
        )
    return {"bsp": 0, "ssp": staleness, "asp": math.inf}[consistency]
