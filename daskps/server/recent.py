"""What the tasks of a process pulled last: the newest values of rows that a loss takes elsewhere.

It takes no time: rows lie where the pull has put them. A thread's pulls go to two places in turn,
so that a pull that fails, because a shard is gone, leaves the one before as it was; large ones go
to one place, and are forgotten when the next begins. Only rows of tables whose updater `recalls`
are of use; see `Shard.recall`.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.server.keys import KeySet
from daskps.server.messages import Arrays, Seen

TWICE = 64 * 2**20
"""Bytes of a pull up to which a thread has two places for pulls."""


@dataclass(frozen=True, slots=True)
class _Pulled:
    run: str
    place: int
    keysets: Sequence[KeySet]
    rows: Sequence[NDArray[Any]]
    seen: Mapping[int, Seen]
    """By the shard of each slot."""


class Recent:
    """The last pull of each thread of a process, of any run."""

    def __init__(self) -> None:
        self._held: dict[int, _Pulled] = {}

    def begin(self, nbytes: int) -> int:
        """Return the place, 0 or 1, for a pull of the calling thread, which it may write over."""
        held = self._held.get(threading.get_ident())
        if held is not None and nbytes <= TWICE:
            return 1 - held.place
        self._held.pop(threading.get_ident(), None)
        return 0

    def note(
        self,
        run: str,
        place: int,
        keysets: Sequence[KeySet],
        rows: Sequence[NDArray[Any]],
        seen: Mapping[int, Seen],
    ) -> None:
        """Take note of what the calling thread has pulled, as `ParameterClient.pull` returns it."""
        pulled = _Pulled(run, place, keysets, rows, seen)
        self._held[threading.get_ident()] = pulled

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()

    def of(self, run: str, tables: Collection[str], slots: Sequence[int]) -> list[Arrays]:
        """Return copies of the pulled rows of some slots, one entry a pull.

        Parameters
        ----------
        run
            Of which pulls are wanted.
        tables, slots
            Of which rows are wanted.

        Returns
        -------
        found
            By name: ``slots``; ``samples``, and of each ``clocks/<slot>``, which its shard had
            seen; ``row/<table>/<slot>`` and, unless they are all rows, ``at/<table>/<slot>``.
        """
        found = []
        for thread, pulled in list(self._held.items()):
            if pulled.run != run:
                continue
            copied = _some(pulled, tables, slots)
            if self._held.get(thread) is pulled:  # else the thread was writing over it
                found.append(copied)
        return found


def _some(pulled: _Pulled, tables: Collection[str], slots: Sequence[int]) -> Arrays:
    samples = np.array([pulled.seen[s].samples for s in slots])
    arrays: dict[str, NDArray[Any]] = {"slots": np.array(slots, np.int64), "samples": samples}
    for slot in slots:
        arrays[f"clocks/{slot}"] = np.frombuffer(pulled.seen[slot].clocks, np.int64)
    for keyset, rows in zip(pulled.keysets, pulled.rows, strict=True):
        if keyset.table not in tables:
            continue
        for slot in slots:
            part = slice(*keyset.span(slot, slot + 1))
            if part.start == part.stop:
                continue
            arrays[f"row/{keyset.table}/{slot}"] = rows[part].copy()
            if keyset.at is not None:
                arrays[f"at/{keyset.table}/{slot}"] = keyset.at[part]
    return arrays


def newest_last(parts: Sequence[Arrays], samples: float) -> Iterator[tuple[Arrays, int, float]]:
    """Yield each part and slot with the samples that its shard had seen, if more than `samples`."""
    found = [
        (seen, i, slot)
        for i, part in enumerate(parts)
        for slot, seen in zip(part["slots"].tolist(), part["samples"].tolist(), strict=True)
        if seen > samples
    ]
    for seen, i, slot in sorted(found):
        yield parts[i], slot, seen
