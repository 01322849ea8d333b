"""Plots of a run's history, with matplotlib, which is an extra."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr


class Plots:
    """Draws what `history_` holds; every method takes `ax` and returns the axes.

    Parameters
    ----------
    history
        As of an estimator.
    """

    def __init__(self, history: xr.Dataset) -> None:
        self._history = history

    def loss(self, *, ax: Any = None) -> Any:
        """Draw the training loss by clock, and that on held-out data where there is one."""
        ax = axes(ax)
        ax.plot(self._history.clock, self._history.loss, label="training")
        if "eval_loss" in self._history:
            told = self._history.eval_loss.dropna("clock")
            ax.plot(told.clock, told, "o-", label="held out")
            ax.legend()
        return named(ax, "clock", "loss")

    def staleness(self, *, ax: Any = None) -> Any:
        """Draw by clock how far ahead of the slowest partition the fastest task ended."""
        ax = axes(ax)
        ax.step(self._history.clock, self._history.staleness, where="mid")
        ax.set_ylim(bottom=0)
        return named(ax, "clock", "staleness (clocks)")

    def throughput(self, *, ax: Any = None) -> Any:
        """Draw samples a second, over the time since the start."""
        ax = axes(ax)
        seconds = self._history.seconds.to_numpy()
        took = np.diff(seconds, prepend=0.0)
        rate = self._history.samples.to_numpy() / np.where(took > 0, took, np.nan)
        ax.plot(seconds, rate, drawstyle="steps")
        ax.set_ylim(bottom=0)
        return named(ax, "seconds", "samples / s")


def axes(ax: Any) -> Any:
    """Return `ax`, or axes of a new figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib, which is not installed; use pip install 'daskps[viz]'."
        ) from error
    return pyplot.subplots(layout="constrained")[1]


def named(ax: Any, x: str, y: str) -> Any:
    """Return the axes with names and without the upper and right line."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
