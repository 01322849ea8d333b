"""The loop between coordinator and engine; lives where `fit` was called."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.engine import Engine

Listener = Callable[[ev.Event | ev.Action, Coordinator], None]
"""Called in the driver's thread after each event and each action. One that has a method `attach`
is given the engine before, when its shards stand."""

BEAT = 0.5
"""Seconds between ticks when nothing else happens."""

_overhear: ContextVar[tuple[Listener, ...]] = ContextVar("daskps_overhear", default=())


@contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Let `listeners` hear every run that begins in this context, whoever calls `fit`."""
    token = _overhear.set((*_overhear.get(), *listeners))
    try:
        yield
    finally:
        _overhear.reset(token)


def overhearing() -> tuple[Listener, ...]:
    """Return the listeners of `listening`."""
    return _overhear.get()


def drive(
    engine: Engine,
    coordinator: Coordinator,
    listeners: Sequence[Listener] = (),
    *,
    lost: ev.WorkerLost | None = None,
) -> str:
    """Run until the coordinator ends; return why it did.

    The first Ctrl-C ends training at the next common clock, the second one at once.

    Parameters
    ----------
    engine, coordinator, listeners
        Who does, who decides, who is told.
    lost
        A loss that took the result of a run that had ended: it goes on from there.

    Raises
    ------
    DaskpsError
        Or whatever else a task raised, if training could not go on.
    """
    with _interrupts(engine):
        if lost is not None:
            coordinator.ended = None
            _take(engine, coordinator, lost, listeners)
        pending: list[ev.Event] = []
        while coordinator.ended is None:
            for event in [ev.Tick(time.monotonic()), *pending]:
                _take(engine, coordinator, event, listeners)
            if coordinator.ended is None:
                arrived = engine.next_event(BEAT)
                pending = [] if arrived is None else [arrived]
    return coordinator.ended


def _take(
    engine: Engine, coordinator: Coordinator, event: ev.Event, listeners: Sequence[Listener]
) -> None:
    for action in _tell(coordinator, event, listeners):
        if isinstance(action, ev.Fail):
            raise action.error
        engine.execute(action, coordinator.ledger)


def _tell(
    coordinator: Coordinator, event: ev.Event, listeners: Sequence[Listener]
) -> list[ev.Action]:
    actions = coordinator.handle(event)
    for listener in listeners:
        for told in (event, *actions):
            listener(told, coordinator)
    return actions


@contextmanager
def _interrupts(engine: Engine) -> Iterator[None]:
    """Turn the first SIGINT into a request to stop; only the main thread may do so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def handler(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        engine.post(ev.StopRequested("interrupted"))

    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
