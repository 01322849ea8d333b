"""What is told of a run while it goes on: figures, the panel, lines in the log."""

from __future__ import annotations

import copy
import logging
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_tools import train

import daskps
from daskps.monitor.figures import STOPPING, Figures, Watch
from daskps.monitor.panel import POINTS, WAITING, Panel, in_notebook
from daskps.monitor.progress import ClockLog, progress_listeners
from daskps.run import events as ev
from daskps.run.coordinator import Coordinator
from daskps.run.policy import Policy


def told_of_a_run(**options: Any) -> list[Figures]:
    told: list[Figures] = []
    watch = Watch(lambda figures: told.append(copy.deepcopy(figures)), unit=2.0, period=0.0)
    train(None, "bsp", watch, max_iter=2, **options)
    return told


def test_figures_rise_to_the_end_of_the_run(tmp_path: Path) -> None:
    told = told_of_a_run(checkpoint=str(tmp_path / "c"), checkpoint_every=4)
    last = told[-1]
    assert (last.clock, last.target, last.ended) == (8, 8, "max_iter")
    assert last.clocks == [8] * 8
    assert last.samples == 2 * 60_000
    assert last.slots == {"inproc": 64} or sum(last.slots.values()) == 64
    assert [f.clock for f in told] == sorted(f.clock for f in told)
    assert last.cut == "cut-00000008"
    assert [w for f in told for w in f.happened] == [
        "checkpoint cut-00000004",
        "checkpoint cut-00000008",
    ]


def test_losses_are_in_the_users_unit() -> None:
    told: list[float] = []
    for unit in (1.0, 2.0):
        watch = Watch(lambda figures: told.append(figures.loss), unit=unit, period=1e9)
        train(None, "bsp", watch, max_iter=1)
    firsts = [x for x in told if x == x]
    assert firsts[1] == pytest.approx(2 * firsts[0])


def test_messages_are_plain() -> None:
    import msgpack

    for figures in told_of_a_run():
        msgpack.packb(figures.message())


class Handle:
    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, shown: Any) -> None:
        self.shown.append(shown.data)


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch) -> list[Handle]:
    """Return what is displayed, each of which may change."""
    import IPython.display

    handles: list[Handle] = []

    def display(shown: Any, *, display_id: bool) -> Handle:
        handles.append(Handle())
        return handles[-1]

    monkeypatch.setattr(IPython.display, "display", display)
    return handles


def test_the_panel_stays_in_one_place_and_ends_with_the_outcome(handles: list[Handle]) -> None:
    train(None, "bsp", Watch(Panel(), period=0.0, title="Ads"), max_iter=2)
    (handle,) = handles
    assert "trained Ads (max_iter)" in handle.shown[-1]
    assert "8 of 8" in handle.shown[-1]
    assert "<polyline" in handle.shown[-1]


def test_a_panel_names_the_estimator(
    handles: list[Handle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daskps.monitor.progress.in_notebook", lambda: True)
    daskps.LogisticRegression(max_iter=1).fit(np.eye(8), np.arange(8) % 2)
    assert "trained LogisticRegression (max_iter)" in handles[0].shown[-1]


def test_what_went_back_is_taken_from_the_panels_line() -> None:
    panel = Panel()
    for clock in (10, 20, 30, 40, 20):
        panel._remember(Figures(clock=clock, loss=float(clock)))
    assert panel._losses == [(10, 10.0), (20, 20.0)]


def test_the_panels_line_of_a_long_run_stays_short() -> None:
    panel = Panel()
    for clock in range(1, 10 * POINTS):
        panel._remember(Figures(clock=clock, loss=float(clock)))
    clocks = [clock for clock, _ in panel._losses]
    assert len(clocks) <= POINTS
    assert (clocks[0], clocks[-1]) == (1, 10 * POINTS - 1)
    assert clocks == sorted(clocks)


def test_the_panel_says_what_it_waits_for() -> None:
    panel = Panel()
    assert WAITING in panel.html(Figures(target=8))
    assert "nan" not in panel.html(Figures(target=8))
    going = Figures(clock=1, target=8, samples=5.0, stopping=True)
    assert WAITING not in panel.html(going)
    assert STOPPING in panel.html(going)
    going.ended = "interrupted"
    assert STOPPING not in panel.html(going)


def test_an_interruption_is_told_at_once() -> None:
    told: list[bool] = []
    watch = Watch(lambda figures: told.append(figures.stopping), period=1e9)
    coordinator = Coordinator.start(Policy(n_partitions=1, n_shards=1, n_clocks=1), None, None)
    for event in (ev.Tick(0.0), ev.StopRequested("interrupted"), ev.StopRequested("interrupted")):
        watch(event, coordinator)
    assert told == [False, True]


@pytest.mark.parametrize("kernel", [True, False])
def test_a_notebook_is_a_shell_with_a_kernel(monkeypatch: pytest.MonkeyPatch, kernel: bool) -> None:
    shell = types.SimpleNamespace(**({"kernel": None} if kernel else {}))
    module = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", module)
    assert in_notebook() is kernel
    kinds = [type(listener) for listener in progress_listeners(None)]
    assert (Watch in kinds, ClockLog in kinds) == (kernel, not kernel)


def test_without_a_terminal_clocks_are_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(range(10**6))
    monkeypatch.setattr("daskps.monitor.progress.time.monotonic", lambda: float(next(moments)))
    with caplog.at_level(logging.INFO, "daskps"):
        train(None, "bsp", ClockLog(1.0), max_iter=1)
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("clock ")]
    assert [line.split(":")[0] for line in lines] == [f"clock {c} of 4" for c in (1, 2, 3, 4)]
    assert all("samples/s" in line for line in lines)
