"""A live panel under the cell of a notebook that trains."""

from __future__ import annotations

import math
import sys
from typing import Any

from daskps import html
from daskps.monitor.figures import STOPPING, Figures, quantity

POINTS = 440
"""Losses that the line has at most, two a pixel; of a longer run, fewer and fewer of the old."""
WAITING = "waiting for the first slices of work; what runs for the first time is compiled"


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class Panel:
    """Shows figures, in one place that changes."""

    def __init__(self) -> None:
        self._losses: list[tuple[int, float]] = []
        self._clock = 0
        self._recent: list[str] = []
        self._handle: Any = None

    def __call__(self, figures: Figures) -> None:
        """Show the newest figures."""
        from IPython.display import HTML, display

        self._remember(figures)
        shown = HTML(self.html(figures))
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def _remember(self, figures: Figures) -> None:
        if figures.clock < self._clock:  # went back with a recovery
            self._losses = [point for point in self._losses if point[0] <= figures.clock]
        elif figures.clock > self._clock:
            self._losses.append((figures.clock, figures.loss))
        if len(self._losses) > POINTS:
            del self._losses[1:-1:2]
        self._clock = figures.clock
        self._recent = [*self._recent, *figures.happened][-3:]

    def html(self, figures: Figures) -> str:
        """Return the panel."""
        done = 100 * figures.clock / max(1, figures.target)
        found = {
            "clock": f"{figures.clock} of {figures.target}",
            "loss": f"{figures.loss:.5g}" if math.isfinite(figures.loss) else "none yet",
            "staleness": figures.staleness,
            "samples / s": quantity(figures.rate),
            "pulled, pushed": f"{quantity(figures.pulled)}B, {quantity(figures.pushed)}B",
            "workers, shards": f"{figures.workers}, {figures.shards}",
            "last checkpoint": figures.cut or "none",
            "recoveries": figures.recoveries,
        }
        lately = self._recent
        if not figures.samples:
            lately = [*lately, WAITING]
        if figures.stopping and not figures.ended:
            lately = [*lately, STOPPING]
        if lately:
            found["lately"] = "; ".join(lately)
        bar = f"<progress max='100' value='{done:.1f}' style='width:220px'></progress><br>"
        title = f"training {figures.model}"
        if figures.ended:
            title = f"trained {figures.model} ({figures.ended})"
        return html.facts(
            title, found, bar + html.line([x for _, x in self._losses], "training loss")
        )
