"""What is told of a run while it goes on: figures, the panel, lines in the log."""

from __future__ import annotations

import copy
import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from cluster_tools import train

from daskps.monitor.figures import Figures, Watch
from daskps.monitor.panel import Panel, in_notebook
from daskps.monitor.progress import ClockLog, progress_listeners


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


def test_the_panel_stays_in_one_place_and_ends_with_the_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import IPython.display

    handles: list[Handle] = []

    def display(shown: Any, *, display_id: bool) -> Handle:
        handles.append(Handle())
        return handles[-1]

    monkeypatch.setattr(IPython.display, "display", display)
    train(None, "bsp", Watch(Panel(), period=0.0), max_iter=2)
    (handle,) = handles
    assert "trained LinearModel (max_iter)" in handle.shown[-1]
    assert "8 of 8" in handle.shown[-1]
    assert "<polyline" in handle.shown[-1]


def test_what_went_back_is_taken_from_the_panels_line() -> None:
    panel = Panel()
    for clock in (1, 2, 3, 4, 2):
        panel._remember(Figures(clock=clock, loss=float(clock)))
    assert panel._losses == [1.0, 2.0]


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
