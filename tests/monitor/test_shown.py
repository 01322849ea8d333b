"""Representations in notebooks and plots."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cluster_tools import train

import daskps
from daskps import html
from daskps.run.checkpoint import Checkpoints
from daskps.server.layout import Layout, ShardRef


@pytest.fixture(autouse=True)
def no_window(monkeypatch: pytest.MonkeyPatch) -> Any:
    from matplotlib import pyplot

    pyplot.switch_backend("Agg")
    yield
    pyplot.close("all")


def test_text_is_escaped_and_numbers_that_are_none_leave_gaps() -> None:
    assert "&lt;b&gt;" in html.facts("<b>", {"<b>": "<b>"})
    assert "<b></b>" not in html.facts("<b>", {"<b>": "<b>"})
    assert html.line([1.0, float("nan")], "") == ""
    assert html.line([1.0, float("nan"), 2.0], "").count(",") == 2


def test_a_fitted_estimator_tells_how_training_went(fitted: daskps.LogisticRegression) -> None:
    shown = fitted._repr_mimebundle_()["text/html"]
    assert "LogisticRegression, fitted" in shown
    assert "<polyline" in shown
    assert "sk-top-container" in shown  # scikit-learn's own diagram
    assert "fitted</b>" not in daskps.LogisticRegression()._repr_mimebundle_()["text/html"]
    assert "LogisticRegression, fitted" in fitted._repr_html_()


def test_datasets_ratings_checkpoints_layouts_and_runs_have_html(tmp_path: Path) -> None:
    assert "10" in daskps.from_arrays(np.eye(10), np.arange(10))._repr_html_()
    table = pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "rating": [1.0, 2.0]})
    assert "users" in daskps.read_ratings(table)._repr_html_()
    layout = Layout.place(4, {0: ShardRef(0, 2, "tcp://here", "k")}, 7)
    assert "tcp://here" in layout._repr_html_()
    outcome = train(None, max_iter=1, checkpoint=str(tmp_path / "c"))
    assert "max_iter" in outcome._repr_html_()
    assert "cut-00000004" in Checkpoints(str(tmp_path / "c"), "")._repr_html_()


def test_loss_is_drawn_with_that_of_held_out_data(fitted: daskps.LogisticRegression) -> None:
    ax = fitted.plot.loss()
    training, held_out = ax.get_lines()
    np.testing.assert_array_equal(training.get_ydata(), fitted.history_.loss)
    assert len(held_out.get_ydata()) == fitted.n_iter_


def test_staleness_and_throughput_are_drawn(fitted: daskps.LogisticRegression) -> None:
    ax = fitted.plot.staleness()
    assert fitted.plot.throughput(ax=ax) is ax
    rate = ax.get_lines()[-1].get_ydata()
    took = np.diff(fitted.history_.seconds, prepend=0.0)
    np.testing.assert_allclose(rate * took, fitted.history_.samples)


def test_topics_are_drawn_with_their_words(fitted: daskps.LogisticRegression) -> None:
    X = [[4, 4, 0, 0], [5, 3, 0, 0], [0, 0, 4, 4], [0, 0, 3, 6]] * 5
    lda = daskps.LatentDirichletAllocation(2, max_iter=20, progress=False)
    lda.fit(X, vocabulary=["a", "b", "y", "z"])
    ax = lda.plot.topics(2)
    words = sorted("".join(sorted(t.get_text().split(": ")[1].split())) for t in ax.texts)
    assert words == ["ab", "yz"]
    with pytest.raises(TypeError, match="no topics"):
        fitted.plot.topics()


def test_without_matplotlib_the_error_names_the_extra(
    fitted: daskps.LogisticRegression, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"daskps\[viz\]"):
        fitted.plot.loss()


def test_plots_of_what_is_not_fitted_are_refused() -> None:
    with pytest.raises(ValueError, match="not fitted"):
        _ = daskps.LinearSVC().plot
