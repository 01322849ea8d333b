"""How fitted estimators show themselves: a summary in notebooks, and `plot`."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from daskps import html
from daskps.models.hooks import Hooked
from daskps.monitor.plots import Plots, axes, named


class Shown(Hooked):
    """Base of the estimators, before scikit-learn's own."""

    history_: xr.Dataset
    n_iter_: int
    stop_reason_: str

    @property
    def plot(self) -> ModelPlots:
        """Plots of the training: ``plot.loss()``, ``.staleness()``, ``.throughput()``, ..."""
        check_is_fitted(self)
        return ModelPlots(self)

    def _repr_html_inner(self) -> str:
        return self._summary() + str(super()._repr_html_inner())

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        found: dict[str, str] = super()._repr_mimebundle_(**kwargs)
        if "text/html" in found:
            found["text/html"] = self._summary() + found["text/html"]
        return found

    def _summary(self) -> str:
        """Return how training went, as HTML; nothing before it."""
        history = getattr(self, "history_", None)
        if history is None:
            return ""
        found = {"passes": self.n_iter_, "ended by": self.stop_reason_}
        if history.clock.size:
            found["loss"] = f"{float(history.loss[-1]):.5g}"
            found["seconds"] = f"{float(history.seconds[-1]):.1f}"
        losses = html.line(history.loss.to_numpy().tolist(), "training loss by clock")
        return html.facts(f"{type(self).__name__}, fitted", found, losses)


class ModelPlots(Plots):
    """Plots of a fitted estimator."""

    def __init__(self, estimator: Any) -> None:
        super().__init__(estimator.history_)
        self._estimator = estimator

    def topics(self, n: int = 8, *, ax: Any = None) -> Any:
        """Draw how large each topic is, with its top words.

        Parameters
        ----------
        n
            Words a topic.
        ax
            Axes to draw on; None makes some.

        Raises
        ------
        TypeError
            If the estimator has no topics.
        """
        if not hasattr(self._estimator, "top_words"):
            raise TypeError(
                f"{type(self._estimator).__name__} has no topics to plot; "
                "LatentDirichletAllocation has."
            )
        words = self._estimator.top_words(n)
        sizes = np.asarray(self._estimator.topic_counts_, np.float64)
        order = np.argsort(-sizes)[:30]
        ax = axes(ax)
        at = np.arange(len(order))
        ax.barh(at, sizes[order] / sizes.sum(), color="#cfe3f3")
        for y, topic in zip(at, order, strict=True):
            ax.text(0, y, f" {topic}: {' '.join(map(str, words.iloc[topic]))}", va="center")
        ax.invert_yaxis()
        ax.set_yticks([])
        return named(ax, "share of all tokens", "topic")
