"""Rows that the tasks of a process read together, asked for by the first of them.

In BSP the rows of a table are the same for all tasks of a clock. Those that read all rows need them
once for a process, however many partitions it works on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from daskps.server.messages import Arrays

Version = tuple[int, int]
"""Generation of the layout, and clock."""


class Together:
    """The newest rows of each table of a run; used by all threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str], tuple[Version, Future[Arrays]]] = {}

    def rows(self, run: str, table: str, version: Version, ask: Callable[[], Arrays]) -> Arrays:
        """Return what `ask` does, read-only: the same for all who come with this version.

        Whoever comes while the first is asking waits as long as that takes, and fails as it does;
        the next one asks again.
        """
        name, mine = (run, table), False
        with self._lock:
            held = self._held.get(name)
            if held is None or held[0] != version:
                held, mine = (version, Future()), True
                self._held[name] = held
        if mine:
            self._fill(name, held[1], ask)
        return held[1].result()

    def _fill(
        self, name: tuple[str, str], found: Future[Arrays], ask: Callable[[], Arrays]
    ) -> None:
        try:
            arrays = ask()
            for array in arrays.values():
                array.setflags(write=False)
            found.set_result(arrays)
        except BaseException as error:
            with self._lock:
                if self._held.get(name, (None, None))[1] is found:
                    del self._held[name]
            found.set_exception(error)

    def clear(self) -> None:
        """Let go of all rows; those in use stay valid."""
        with self._lock:
            self._held.clear()
