"""What travels between a client and a shard. Plain arrays and numbers, no class of Dask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from numpy.typing import NDArray

Blocks = Sequence[NDArray[Any]]
"""For each want its rows, one slot after the other."""
Arrays = Mapping[str, NDArray[Any]]
"""Arrays by name, of any shape; whoever has them must not change them."""


@dataclass(frozen=True, slots=True)
class Want:
    """Rows of one table in slots that follow each other, all of them on one shard.

    `sizes` gives the rows in each slot; `at` their positions or keys, one slot after the other.
    Both are None for all rows.
    """

    table: str
    first: int
    """First slot."""
    stop: int
    """Slot behind the last one."""
    sizes: Sequence[int] | None
    at: NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class Pull:
    """Request for rows on behalf of (partition, clock)."""

    generation: int
    partition: int
    clock: int
    wants: tuple[Want, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a shard had taken when it answered a pull."""

    samples: float
    clocks: bytes = b""
    """Pushes that it had counted of each partition, int64; empty in BSP, where the clock tells."""


@dataclass(frozen=True, slots=True)
class Push:
    """Deltas of (partition, clock): for each want an array of shape (rows, n_push, width)."""

    generation: int
    partition: int
    clock: int
    samples: float
    """Weight of the samples that the deltas come from; the regulariser grows with it."""
    wants: tuple[Want, ...]
    deltas: Blocks
    order: int = 0
    """Number that a shard gave it before it handed it on to its replica; 0 from a task."""

    def copy(self) -> Push:
        """Return the same with memory of its own."""
        wants = tuple(w if w.at is None else replace(w, at=w.at.copy()) for w in self.wants)
        return replace(self, wants=wants, deltas=[d.copy() for d in self.deltas])


@dataclass(frozen=True, slots=True)
class Ack:
    """Answer to a push."""

    applied: bool
    """False when the push had been applied before: nothing was counted twice."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Question on behalf of (partition, clock), the size of whose answer only the shard knows.

    ``state`` is for what the partition kept before, or None; ``keep`` hands over what it keeps and
    is answered by what counts. ``rows`` is for rows of cells in ``slots``, which are the first and
    the one behind the last: positions ``at``, ``sizes`` of them in each, or neither for all rows.
    ``histogram`` is for how many cells have which count.
    ``move`` is for everything in ``slots`` and of ``partitions``; see `daskps.server.moving`.
    """

    generation: int
    partition: int
    clock: int
    what: Literal["state", "keep", "rows", "histogram", "move"]
    arrays: Arrays = field(default_factory=dict)
    table: str = ""
    """Of rows."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What a shard holds and has done; bytes and counts since it was made."""

    rows_nbytes: int
    pending_nbytes: int
    frozen_nbytes: int
    states_nbytes: int = 0
    """What partitions keep."""
    pulls: int = 0
    pushes: int = 0
    duplicates: int = 0
    clocks: dict[int, int] = field(default_factory=dict)
    """Finished clocks of each partition, as far as this shard knows."""
