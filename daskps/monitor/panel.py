"""A live panel under the cell of a notebook that trains."""

from __future__ import annotations

import sys
from typing import Any

from daskps import html
from daskps.monitor.figures import Figures, quantity


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class Panel:
    """Shows figures, in one place that changes."""

    def __init__(self) -> None:
        self._losses: list[float] = []
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
            del self._losses[figures.clock :]
        elif figures.clock > self._clock:
            self._losses.append(figures.loss)
        self._clock = figures.clock
        self._recent = [*self._recent, *figures.happened][-3:]

    def html(self, figures: Figures) -> str:
        """Return the panel."""
        done = 100 * figures.clock / max(1, figures.target)
        found = {
            "clock": f"{figures.clock} of {figures.target}",
            "loss": f"{figures.loss:.5g}",
            "staleness": figures.staleness,
            "samples / s": quantity(figures.rate),
            "pulled, pushed": f"{quantity(figures.pulled)}B, {quantity(figures.pushed)}B",
            "workers, shards": f"{figures.workers}, {figures.shards}",
            "last checkpoint": figures.cut or "none",
            "recoveries": figures.recoveries,
        }
        if self._recent:
            found["lately"] = "; ".join(self._recent)
        bar = f"<progress max='100' value='{done:.1f}' style='width:220px'></progress><br>"
        title = f"training {figures.model}"
        if figures.ended:
            title = f"trained {figures.model} ({figures.ended})"
        return html.facts(title, found, bar + html.line(self._losses, "training loss"))
