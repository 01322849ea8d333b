"""What each clock brought: losses, samples, bytes, seconds, staleness, evaluations, recoveries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from daskps.run.events import Turn


@dataclass(slots=True)
class Ledger:
    """Figures by clock; goes back with a roll-back, and into checkpoints.

    Parameters
    ----------
    clocks_per_pass
        Clocks that make one pass over the data.
    """

    clocks_per_pass: int
    parts: dict[int, dict[int, dict[str, float]]] = field(default_factory=dict)
    """clock -> partition -> figures."""
    evaluations: dict[int, float] = field(default_factory=dict)
    """clock -> loss on the held-out dataset."""
    turns: dict[int, Turn] = field(default_factory=dict)
    """finished clocks -> what the model did then, for those that act between clocks."""
    recoveries: list[tuple[int, float]] = field(default_factory=list)
    """(clock at the loss, seconds until all shards stood again); survives a roll-back."""
    _losses: list[float] = field(default_factory=list)
    """Of the passes that are complete, as far as they have been looked at."""

    def add(
        self, clock: int, partition: int, behind: int, metrics: Mapping[str, float], now: float
    ) -> None:
        """Note a finished task; each (partition, clock) comes once."""
        entry = self.parts.setdefault(clock, {})
        assert partition not in entry, (clock, partition)
        entry[partition] = {**metrics, "staleness": behind, "at": now}

    def pass_loss(self, number: int) -> float:
        """Return the mean training loss of a pass, each sample before it was learnt from."""
        first = number * self.clocks_per_pass
        tasks = [
            m
            for c in range(first, first + self.clocks_per_pass)
            for _, m in sorted(self.parts.get(c, {}).items())
        ]
        samples = sum(m["samples"] for m in tasks)
        return sum(m["loss"] for m in tasks) / samples if samples else math.nan

    def evaluated(self, clock: int, loss: float) -> None:
        """Note the loss on the held-out dataset."""
        self.evaluations[clock] = loss

    def turned(self, clock: int, turn: Turn) -> None:
        """Note what the model did after `clock` finished clocks."""
        self.turns[clock] = turn

    def sums(self, clock: int) -> dict[str, float]:
        """Return the figures of a clock, summed in the order of partitions."""
        entries = [m for _, m in sorted(self.parts[clock].items())]
        return {name: sum(m[name] for m in entries) for name in entries[0]}

    def recovered(self, clock: int, seconds: float) -> None:
        """Note a recovery."""
        self.recoveries.append((clock, seconds))

    def go_on(self, now: float) -> None:
        """Let the figures of an earlier process, whose clock was another, end at `now`."""
        figures = [m for entry in self.parts.values() for m in entry.values()]
        latest = max((m["at"] for m in figures), default=now)
        for m in figures:
            m["at"] += now - latest

    def rewind(self, clocks: Mapping[int, int]) -> None:
        """Forget what each partition did from its clock in `clocks` on: it will be done again."""
        kept = {
            c: {p: m for p, m in entry.items() if c < clocks[p]} for c, entry in self.parts.items()
        }
        self.parts = {c: entry for c, entry in kept.items() if entry}
        low = min(clocks.values())
        self.evaluations = {c: loss for c, loss in self.evaluations.items() if c <= low}
        self.turns = {c: turn for c, turn in self.turns.items() if c <= low}
        del self._losses[low // self.clocks_per_pass :]

    def stalled(self, tol: float, patience: int) -> bool:
        """Return whether the last `patience` losses all missed the best before by `tol`."""
        losses = [self.evaluations[c] for c in sorted(self.evaluations)] or self._pass_losses()
        if len(losses) <= patience:
            return False
        best = min(losses[:-patience])
        return all(x > best - tol for x in losses[-patience:])

    def _pass_losses(self) -> list[float]:
        # a pass that is complete stays so: with thousands of partitions, each is summed once
        n_partitions = len(self.parts.get(0, ()))
        while n_partitions and self._complete(len(self._losses), n_partitions):
            self._losses.append(self.pass_loss(len(self._losses)))
        return self._losses

    def _complete(self, number: int, n_partitions: int) -> bool:
        first = number * self.clocks_per_pass
        clocks = range(first, first + self.clocks_per_pass)
        return all(len(self.parts.get(c, {})) == n_partitions for c in clocks)

    def to_xarray(self) -> xr.Dataset:
        """Return the figures over the dimension ``clock``."""
        clocks = sorted(self.parts)

        def total(name: str) -> list[float]:
            return [sum(m.get(name, 0.0) for _, m in sorted(self.parts[c].items())) for c in clocks]

        samples = np.array(total("samples"))
        seconds = np.array([max(m["at"] for m in self.parts[c].values()) for c in clocks])
        first = [m for c in clocks[:1] for m in self.parts[c].values()]
        start = min((m["at"] - m.get("seconds", 0.0) for m in first), default=0.0)
        data: dict[str, Any] = {
            "loss": ("clock", np.array(total("loss")) / np.where(samples > 0, samples, np.nan)),
            "samples": ("clock", samples),
            "seconds": ("clock", seconds - start, {"units": "s", "long_name": "since the start"}),
            "compute_seconds": ("clock", total("compute_seconds"), {"units": "s"}),
            "pulled_bytes": ("clock", total("pulled_bytes"), {"units": "B"}),
            "pushed_bytes": ("clock", total("pushed_bytes"), {"units": "B"}),
            "staleness": (
                "clock",
                [max(m["staleness"] for m in self.parts[c].values()) for c in clocks],
                {"long_name": "largest distance to min_clock when a task ended"},
            ),
        }
        if self.evaluations:
            after = [self.evaluations.get(c + 1, math.nan) for c in clocks]
            data["eval_loss"] = ("clock", after, {"long_name": "loss on the held-out dataset"})
        for name in sorted({n for turn in self.turns.values() for n in turn.figures}):
            turns = [self.turns.get(c + 1) for c in clocks]
            told = [math.nan if t is None else t.figures.get(name, math.nan) for t in turns]
            data[name] = ("clock", told)
        return xr.Dataset(data, coords={"clock": clocks})
