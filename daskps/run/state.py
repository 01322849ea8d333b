"""The rows of all tables in the driver's memory, between two runs (warm start, partial_fit)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daskps.server.layout import Layout
from daskps.server.shard import Frozen
from daskps.server.spec import ServerSpec


@dataclass(frozen=True, slots=True)
class State:
    """Rows with their updater state by table and slot, and the samples that they come from."""

    samples: float
    tables: Frozen

    @classmethod
    def gather(cls, layout: Layout, parts: Mapping[int, tuple[float, Frozen]]) -> State:
        """Put what every shard dumped together."""
        tables: Frozen = {}
        for _, frozen in parts.values():
            for name, slots in frozen.items():
                tables.setdefault(name, {}).update(slots)
        # shards without slots have seen nothing
        seen = [parts[s][0] for s in parts if layout.slots_of(s)]
        return cls(min(seen), tables)

    def fits(self, spec: ServerSpec) -> bool:
        """Return whether a run of `spec` can start from this: same tables, fields and slots."""
        if set(self.tables) != {t.name for t in spec.tables}:
            return False
        return all(
            len(self.tables[t.name]) == place.n_used
            and all(
                rows.shape[1:] == (t.updater.n_fields, t.width)
                and (t.keys != "range" or len(rows) == place.slot_rows(slot))
                for slot, (_, rows) in self.tables[t.name].items()
            )
            for t, place in ((t, spec.placements()[t.name]) for t in spec.tables)
        )

    def of(self, slots: Sequence[int], spec: ServerSpec) -> tuple[float, Frozen]:
        """Return the part that a shard with `slots` holds; it may change the rows."""
        parts: Frozen = {}
        for name, place in spec.placements().items():
            entries = {s: self.tables[name][s] for s in place.used(slots)}
            parts[name] = {s: (keys, rows.copy()) for s, (keys, rows) in entries.items()}
        return self.samples, parts
