"""Writing frozen cuts in the background: shards write their slots, then the cut is published."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from daskps.run import checkpoint
from daskps.run import events as ev
from daskps.run.checkpoint import Checkpoints
from daskps.run.host import Frost
from daskps.run.plan import Plan
from daskps.server.layout import Layout, ShardRef

logger = logging.getLogger("daskps")

Call = Callable[[Sequence[tuple[ShardRef, str, Mapping[str, Any]]], float], list[Any]]


class CutWriter:
    """Writes one cut after the other, each in a thread of its own.

    Parameters
    ----------
    plan, checkpoints, partition_rows
        The run, where its cuts go, and rows of each partition.
    call
        Calls operations of shards; answers or exceptions, in order.
    post
        Takes events.
    current
        Returns the present layout: a cut of an earlier generation was overtaken by a loss.
    """

    def __init__(
        self,
        plan: Plan,
        checkpoints: Checkpoints,
        partition_rows: Sequence[int],
        call: Call,
        post: Callable[[ev.Event], None],
        current: Callable[[], Layout],
    ) -> None:
        self._plan = plan
        self._checkpoints = checkpoints
        self._partition_rows = list(partition_rows)
        self._call = call
        self._post = post
        self._current = current
        self._threads: list[threading.Thread] = []

    def join(self, timeout: float) -> None:
        """Wait for what is being written, each for at most `timeout` seconds."""
        for thread in list(self._threads):
            thread.join(timeout=timeout)

    def start(
        self,
        cut: str,
        clocks: ev.Clocks,
        ledger: dict[str, Any],
        layout: Layout,
        frozen: Mapping[int, Frost],
        timeout: float,
    ) -> None:
        """Write a frozen cut while training goes on; the outcome comes as an event."""
        args = (cut, dict(clocks), ledger, layout, frozen, timeout, list(self._threads))
        thread = threading.Thread(target=self._run, args=args, name=f"daskps-{cut}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(
        self,
        cut: str,
        clocks: dict[int, int],
        ledger: dict[str, Any],
        layout: Layout,
        frozen: Mapping[int, Frost],
        timeout: float,
        before: Sequence[threading.Thread],
    ) -> None:
        try:
            for thread in before:  # a loss overtook it: it may be at work on a cut of this name
                thread.join(timeout)
            manifest = self._write(cut, clocks, ledger, layout, frozen, timeout)
            if layout.generation == self._current().generation:  # else a loss overtook this cut
                checkpoint.publish(self._checkpoints.store, cut, manifest)
                self._post(ev.CutPublished(cut, clocks))
                checkpoint.prune(self._checkpoints.store, cut, self._checkpoints.keep)
        except Exception as error:  # whatever the store raises: training must not stop
            if layout.generation == self._current().generation:
                logger.warning("checkpoint %s could not be written: %s", cut, error)
            else:  # the next one comes after the recovery
                logger.info("checkpoint %s was given up: a shard was lost meanwhile", cut)
            self._post(ev.CutFailed(cut, error))
            with contextlib.suppress(Exception):  # shards that are gone hold nothing
                self._call([(ref, "thaw", {"cut": cut}) for ref in layout.refs.values()], 5.0)
        finally:
            self._threads.remove(threading.current_thread())

    def _write(
        self,
        cut: str,
        clocks: dict[int, int],
        ledger: dict[str, Any],
        layout: Layout,
        frozen: Mapping[int, Frost],
        timeout: float,
    ) -> checkpoint.Manifest:
        """Write all arrays of a cut; return the manifest that will publish it."""
        plan, store = self._plan, self._checkpoints.store
        rows: dict[str, dict[int, int]] = {}
        for frost in frozen.values():
            for table, by_slot in frost.rows.items():
                rows.setdefault(table, {}).update(by_slot)
        samples = {s: f.samples for n, f in frozen.items() for s in layout.slots_of(n)}
        counts = checkpoint.create(store, cut, plan.server, rows)
        message = {"store": store, "cut": cut}
        calls = [(ref, "write_cut", message) for ref in layout.refs.values()]
        for answer in self._call(calls, timeout):
            if isinstance(answer, BaseException):
                raise answer
        return checkpoint.Manifest(
            model=self._checkpoints.fingerprint,
            server=plan.server,
            clocks_per_pass=plan.clocks_per_pass,
            clocks=[clocks[p] for p in sorted(clocks)],
            samples=[samples[s] for s in sorted(samples)],
            rows=counts,
            partition_rows=self._partition_rows,
            ledger=ledger,
            states={key: n for frost in frozen.values() for key, n in frost.states.items()},
        )
