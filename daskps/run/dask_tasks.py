"""Tasks on their way to the scheduler, and those that are done: in as few messages as can be.

Owns no task: each is retried, released and cancelled by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from distributed import Client, Future

from daskps.run import dask_worker
from daskps.run import events as ev
from daskps.run.dask_hub import task_key
from daskps.run.plan import Plan
from daskps.server.layout import Layout


class Starting:
    """Tasks that are to be started, kept until no more of them can follow.

    The tasks of a clock begin together. Each in a message of its own would wait for all those
    before it: the scheduler takes a message up only after it has left its event loop and come back.
    """

    def __init__(self) -> None:
        self._wanted: list[tuple[ev.Launch, dict[str, Any]]] = []

    def add(self, action: ev.Launch, where: dict[str, Any]) -> None:
        """Take a task, and the options of `Client.map` that say where it should run."""
        self._wanted.append((action, where))

    def submit(
        self, client: Client, plan: Plan, layout: Layout, data: Sequence[Future[Any]]
    ) -> Iterator[tuple[int, Future[Any]]]:
        """Start all, in their order: one message for those that may run at the same places.

        Yields
        ------
        token, future
            Of each task, once it has been started.
        """
        wanted, self._wanted = self._wanted, []
        for where, group in groupby(wanted, key=lambda pair: pair[1]):
            actions = [action for action, _ in group]
            numbers = [(a.token, a.partition, a.clock) for a in actions]
            futures = client.map(
                dask_worker.work,
                [data[p] for _, p, _ in numbers],
                [plan] * len(numbers),
                *map(list, zip(*numbers, strict=True)),
                [layout] * len(numbers),
                key=[task_key("step", plan.run, p, clock, token) for token, p, clock in numbers],
                pure=False,  # else Dask looks through all arguments for a name that is not used
                **where,
            )
            yield from zip((a.token for a in actions), futures, strict=True)


def evaluations(
    client: Client, plan: Plan, layout: Layout, data: Sequence[Future[Any]], clock: int
) -> list[Future[Any]]:
    """Start the evaluation of each partition of held-out data, in one message."""
    numbers = range(len(data))
    return client.map(
        dask_worker.evaluate,
        data,
        [plan] * len(data),
        numbers,
        [clock] * len(data),
        [layout] * len(data),
        key=[task_key("evaluate", plan.run, p, clock, layout.generation) for p in numbers],
        pure=False,
    )


class Spent:
    """Tasks that are done, let go of after the next ones have been started.

    Dask sends the first message after a pause at once and gathers those of the next milliseconds
    (`daskps.run.dask_hub.SOON`): a task whose forerunner is released first starts that much later.
    """

    def __init__(self) -> None:
        self._futures: list[Future[Any]] = []
        self._started = False

    def add(self, future: Future[Any] | None) -> None:
        """Take a future that nobody needs, if there is one."""
        if future is not None:
            self._futures.append(future)

    def started(self) -> None:
        """Note that a task was started."""
        self._started = True

    def rest(self, *, idle: bool) -> None:
        """Let go of all if tasks were started since the last time, and nothing is to be done."""
        if self._started and idle:
            self._started = False
            self.release()

    def release(self) -> None:
        """Let go of all."""
        for future in self._futures:
            future.release()
        self._futures.clear()
