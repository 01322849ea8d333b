"""What all shards of a run agree on."""

from __future__ import annotations

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
    """

    tables: tuple[TableSpec, ...]
    n_slots: int
    n_partitions: int
    staleness: float

    @property
    def sync(self) -> bool:
        """Whether pushes of a clock are gathered and applied together (BSP)."""
        return self.staleness == 0

    def placements(self) -> dict[str, Placement]:
        """Return the placement of every table."""
        return {t.name: Placement(t, self.n_slots) for t in self.tables}
