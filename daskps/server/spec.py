"""What all shards of a run agree on."""

from __future__ import annotations

import math

import msgspec

from daskps.server.tables import Placement, TableSpec


class ServerSpec(msgspec.Struct, frozen=True):
    """What all shards of a run agree on.

    Parameters
    ----------
    tables
        Every table; each shard holds some slots of each.
    n_slots
        Slots a table is cut into.
    n_partitions
        Partitions that push.
    staleness
        Clocks that a partition may run ahead of the slowest; 0 is BSP.
    quorum
        Share of the partitions that this bound looks at, the fastest, in (0, 1].
    """

    tables: tuple[TableSpec, ...]
    n_slots: int
    n_partitions: int
    staleness: float
    quorum: float = 1.0

    @property
    def enough(self) -> int:
        """Partitions that must have finished a clock for the others to go on."""
        return enough(self.quorum, self.n_partitions)

    @property
    def sync(self) -> bool:
        """Whether pushes of a clock are gathered and applied together (BSP)."""
        return self.staleness == 0

    def placements(self) -> dict[str, Placement]:
        """Return the placement of every table."""
        return {t.name: Placement(t, self.n_slots) for t in self.tables}


def enough(quorum: float, n_partitions: int) -> int:
    """Return how many of `n_partitions` are a share of `quorum`."""
    # a product such as 0.07 x 100 may be a bit above the number that is meant
    return max(1, math.ceil(quorum * n_partitions - 1e-9))
