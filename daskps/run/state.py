"""The rows of all tables in the driver's memory, between two runs (warm start, partial_fit)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daskps.server.frozen import Frozen
from daskps.server.layout import Layout
from daskps.server.messages import Arrays
from daskps.server.slot import TableSlot
from daskps.server.spec import ServerSpec

Known = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Values of all rows of a table, (n_rows, width), and which of them are known, (n_rows,)."""


@dataclass(frozen=True, slots=True)
class State:
    """Rows with their updater state by table and slot, and the samples that they come from."""

    samples: float
    tables: Frozen
    kept: Callable[[int], Arrays] | None = None
    """What a partition begins with, by its number; made when it is sent, not before."""

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

    @classmethod
    def begin(
        cls,
        spec: ServerSpec,
        values: Mapping[str, Known],
        kept: Callable[[int], Arrays] | None = None,
    ) -> State:
        """Return the state of a run of `spec` that has seen nothing, but for some rows.

        Parameters
        ----------
        spec
            Of range tables.
        values
            By table; other rows and tables begin as they would.
        kept
            See `State`.
        """
        tables: Frozen = {}
        for name, place in spec.placements().items():
            update, width = place.spec.updater, place.spec.width
            tables[name] = {}
            for slot in place.used(range(spec.n_slots)):
                rows = TableSlot(place, slot).rows
                if name in values:
                    every, known = values[name]
                    keys = place.slot_keys(slot)
                    own = np.flatnonzero(known[keys])
                    fresh = np.zeros((len(own), update.n_fields, width), update.dtype)
                    update.init(fresh, every[keys[own]].astype(np.float64))
                    rows[own] = fresh
                tables[name][slot] = None, rows
        return cls(0.0, tables, kept)

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

    def of(
        self, slots: Sequence[int], partitions: Sequence[int], spec: ServerSpec
    ) -> tuple[float, Frozen, Mapping[int, Arrays]]:
        """Return what a shard with `slots` holds, the home of `partitions`; it may change it."""
        parts: Frozen = {}
        for name, place in spec.placements().items():
            entries = {s: self.tables[name][s] for s in place.used(slots)}
            parts[name] = {s: (keys, rows.copy()) for s, (keys, rows) in entries.items()}
        kept = {} if self.kept is None else {p: self.kept(p) for p in partitions}
        return self.samples, parts, kept
