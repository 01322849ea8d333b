"""A model whose partitions keep state: tokens that move between boxes, and the counts of boxes.

Where a token goes depends on the counts, so any update that is lost, doubled or mixed up shows; in
every consistency the counts must be those of the boxes that the partitions keep.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np

from daskps.data import Partition
from daskps.run.plan import StepServer
from daskps.server.keys import KeySet, whole_table
from daskps.server.tables import Placement, TableSpec
from daskps.server.updaters import Add

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers have no tests to import

BOXES = 40


@dataclass(frozen=True)
class Tokens:
    """Tokens [start, stop) of a partition, which moves them at one clock of a pass."""

    start: int
    stop: int
    n: int
    keyset: KeySet


@dataclass(frozen=True)
class Movers:
    """Moves every token of a slice once a pass."""

    seed: int = 0

    @property
    def keeps(self) -> tuple[str, ...]:
        return ("box", "moves")

    def tables(self) -> tuple[TableSpec, ...]:
        return (TableSpec("count", BOXES, 1, Add("int64")),)

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> Tokens:
        raise AssertionError("this model cuts partitions by itself")

    def cut(
        self,
        partition: Partition,
        number: int,
        clocks_per_pass: int,
        placements: Mapping[str, Placement],
    ) -> Sequence[Tokens]:
        n, keyset = partition.nnz, whole_table(placements["count"])
        # every partition begins at another slice
        order = [(s + number) % clocks_per_pass for s in range(clocks_per_pass)]
        edges = [n * s // clocks_per_pass for s in range(clocks_per_pass + 1)]
        return [Tokens(edges[s], edges[s + 1], n, keyset) for s in order]

    def step(self, data: Tokens, server: StepServer) -> Mapping[str, float]:
        before = server.state()
        (counts,), _ = server.pull([data.keyset])
        rng = np.random.default_rng([self.seed, server.partition, server.clock])
        if before is None:
            box = rng.integers(BOXES, size=data.n).astype(np.uint16)
            old = np.zeros(BOXES, np.int64)
        else:
            box = before["box"].copy()
            old = np.bincount(box, minlength=BOXES)
            crowd = np.argsort(counts[:, 0, 0], kind="stable")[:: 1 if server.clock % 2 else -1]
            box[data.start : data.stop] = crowd[
                rng.integers(BOXES // 2, size=data.stop - data.start)
            ]
        moves = np.array(0 if before is None else int(before["moves"]) + 1)
        kept = server.keep({"box": box, "moves": moves})
        new = np.bincount(kept["box"], minlength=BOXES)
        # rows of a key set stand in order of slots
        delta = self._rows(data.keyset, new - old)
        server.push([data.keyset], [delta], samples=data.stop - data.start)
        return {"loss": float(new.max()), "samples": float(data.stop - data.start)}

    def evaluate(self, data: Any, server: StepServer) -> Mapping[str, float]:
        raise AssertionError

    def _rows(self, keyset: KeySet, by_box: np.ndarray) -> np.ndarray:
        place = Placement(self.tables()[0], len(keyset.bounds) - 1)
        rows = [place.gather(s, by_box[:, None]) for s in place.used(range(place.n_slots))]
        return np.concatenate(rows)[:, None].astype(np.int64)


class Kept(dict[int, Mapping[str, np.ndarray]]):
    """What partitions kept at the end."""

    def __call__(self, partition: int, state: Mapping[str, np.ndarray]) -> None:
        self[partition] = {name: a.copy() for name, a in state.items()}

    @property
    def bits(self) -> list[bytes]:
        return [a.tobytes() for p in sorted(self) for _, a in sorted(self[p].items())]

    @property
    def counts(self) -> np.ndarray:
        return sum(np.bincount(s["box"], minlength=BOXES) for s in self.values())
