"""Warm starts, `partial_fit`, resumed runs, and what a run tells of itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_tools import wait_until
from sklearn.base import clone
from small import Data, fitted, make

import daskps
from daskps import LogisticRegression
from daskps.errors import CheckpointError
from daskps.run.checkpoint import published


@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_warm_start_goes_on(binary: Data, solver: str, consistency: str) -> None:
    options = {"solver": solver, "consistency": consistency, "rows_per_clock": 50}
    clf = fitted(binary.X, binary.y, warm_start=True, **options)
    first, reached = clf.history_.loss.values, clf.log_loss(binary.X, binary.y)
    clf.fit(binary.X, binary.y)
    second = clf.history_.loss.values
    assert second[0] < first[0]
    assert clf.log_loss(binary.X, binary.y) <= reached * 1.001
    cold = fitted(binary.X, binary.y, **options)
    assert cold.fit(binary.X, binary.y).history_.loss.values[0] > second[0]


def test_two_warm_fits_are_one_long_fit_in_bsp(binary: Data) -> None:
    warm = fitted(binary.X, binary.y, warm_start=True, max_iter=2)
    warm.fit(binary.X, binary.y)
    np.testing.assert_array_equal(warm.coef_, fitted(binary.X, binary.y, max_iter=4).coef_)


@pytest.mark.parametrize(
    "change",
    [
        {"solver": "ftrl"},
        {"consistency": "ssp"},
        {"alpha": 0.003},
        {"eta0": 0.3},
        {"fit_intercept": False},
    ],
)
@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_warm_start_keeps_the_weights_when_settings_change(
    binary: Data, solver: str, change: dict[str, Any]
) -> None:
    clf = fitted(binary.X, binary.y, solver=solver, warm_start=True, max_iter=20)
    before = clf.coef_.copy()
    clf.set_params(**change, max_iter=1, rows_per_clock=1000).fit(binary.X, binary.y)
    assert np.corrcoef(before[0], clf.coef_[0])[0, 1] > 0.98
    cold = fitted(binary.X, binary.y, max_iter=1, rows_per_clock=1000)
    assert clf.history_.loss.values[0] < cold.history_.loss.values[0]


def test_partial_fit_learns_classes_that_come_late() -> None:
    data = make(3, n_rows=1200)
    y = np.array(["m", "z", "a"])[data.y]
    known = np.flatnonzero(y != "a")  # "a" comes late, though it is the first class
    clf = LogisticRegression()
    for rows in [known, *np.array_split(np.arange(1200), 4)] * 3:
        clf.partial_fit(data.X[rows], y[rows], classes=["z", "m", "a"])
    assert clf.classes_.tolist() == ["a", "m", "z"]
    assert clf.coef_.shape == (3, 8)
    whole = fitted(data.X, y, max_iter=8)
    assert clf.score(data.X, y) > whole.score(data.X, y) - 0.05
    assert set(clf.predict(data.X)) == {"a", "m", "z"}


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_partial_fit_goes_on_after_fit_and_after_load(
    binary: Data, solver: str, tmp_path: Path
) -> None:
    clf = fitted(binary.X, binary.y, solver=solver, max_iter=20)
    clf.save(tmp_path / "m.zarr")
    before = clf.log_loss(binary.X, binary.y)
    for model in (clf, daskps.load(tmp_path / "m.zarr")):
        model.partial_fit(binary.X, binary.y)
        assert model.log_loss(binary.X, binary.y) < before * 1.02


def test_partial_fit_over_the_same_rows_is_a_fit(binary: Data) -> None:
    clf = LogisticRegression(solver="ftrl")
    for _ in range(3):
        clf.partial_fit(binary.X, binary.y)
    np.testing.assert_array_equal(clf.coef_, fitted(binary.X, binary.y, solver="ftrl").coef_)


@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_resumed_run_has_the_bits_of_an_uninterrupted_one(
    binary: Data, tmp_path: Path, consistency: str
) -> None:
    class StopError(Exception):
        pass

    def stop(clock: int, loss: float) -> None:
        if clock == 13:
            raise StopError

    options = {
        "max_iter": 5,
        "rows_per_clock": 100,
        "tol": None,
        "consistency": consistency,
        "checkpoint": tmp_path / "c.zarr",
        "checkpoint_every": 3,
    }
    clf = LogisticRegression(**options)
    with pytest.raises(StopError):
        clf.fit(binary.X, binary.y, callback=stop)
    with pytest.raises(CheckpointError, match="resume=True"):
        clf.fit(binary.X, binary.y)
    clf.fit(binary.X, binary.y, resume=True)
    calm = LogisticRegression(**{**options, "checkpoint": None}).fit(binary.X, binary.y)
    np.testing.assert_array_equal(clf.coef_, calm.coef_)  # one partition: SSP is exact too
    assert clf.history_.sizes == calm.history_.sizes
    np.testing.assert_array_equal(clf.history_.loss, calm.history_.loss)


def test_checkpoints_are_as_many_as_asked_for(binary: Data, tmp_path: Path) -> None:
    found = []
    for i, (every, keep) in enumerate([(2, 1), (2, 3), (None, 9), ("1h", 9)]):
        store = tmp_path / f"{i}.zarr"
        options = {"checkpoint": store, "checkpoint_every": every, "keep": keep}
        clf = LogisticRegression(max_iter=3, tol=None, rows_per_clock=100, **options)
        after = {2: range(3, 12, 2), None: [5]}.get(every, [])
        clf.fit(binary.X, binary.y, callback=wait_for_cuts(store, after))
        found.append([int(cut.removeprefix("cut-")) for cut in published(str(store))])
    # nobody says how often: after the first pass, then not for a minute; "1h": only at the end
    assert found == [[12], [12, 10, 8], [12, 4], [12]]


def wait_for_cuts(store: Path, clocks: Collection[int]) -> Callable[[int, float], None]:
    """Return a callback that, at these clocks, waits until the cut before them is written."""

    def callback(clock: int, loss: float) -> None:
        if clock not in clocks:
            return
        cut = f"cut-{clock - 1:08d}"
        # its writer tells of it after it is there, and until then no other is begun
        wait_until(lambda: cut in published(str(store)) and not writing(cut))

    return callback


def writing(cut: str) -> bool:
    return f"daskps-{cut}" in [t.name for t in threading.enumerate()]


def test_callback_hears_of_every_clock(binary: Data) -> None:
    heard: list[tuple[int, float]] = []
    clf = LogisticRegression(max_iter=2, tol=None, rows_per_clock=100)
    clf.fit(binary.X, binary.y, callback=lambda clock, loss: heard.append((clock, loss)))
    assert [clock for clock, _ in heard] == list(range(1, 9))
    np.testing.assert_allclose([loss for _, loss in heard], clf.history_.loss)


def test_history_is_finite_and_complete(binary: Data) -> None:
    dataset = daskps.from_arrays(binary.X, binary.y, n_partitions=2)
    history = fitted(dataset, rows_per_clock=50).history_
    assert history.sizes == {"clock": 12}
    for name, values in history.items():
        assert np.isfinite(values).all(), name
    assert np.all(np.diff(history.seconds) >= 0)
    assert history.samples.sum() == 3 * 400
    fields = {"loss", "samples", "seconds", "compute_seconds", "pulled_bytes", "pushed_bytes"}
    assert fields | {"staleness"} <= set(history)


def test_estimator_is_cloned_and_shown_as_scikit_learn_does() -> None:
    clf = LogisticRegression(alpha=0.5, class_weight={1: 2.0}, checkpoint="c.zarr")
    assert clone(clf).get_params() == clf.get_params()
    assert repr(LogisticRegression(alpha=0.5)) == "LogisticRegression(alpha=0.5)"


@pytest.mark.parametrize("n_partitions", [1, 3])
@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_a_short_run_that_is_over_goes_on_with_more_passes(
    binary: Data, solver: str, n_partitions: int, tmp_path: Path
) -> None:
    """Later passes need tables that the shorter run did not have."""
    dataset = daskps.from_arrays(binary.X, binary.y, n_partitions=n_partitions)
    whole = fitted(dataset, solver=solver, max_iter=16)
    stored = {"solver": solver, "checkpoint": str(tmp_path / "c.zarr"), "n_shards": 2}
    clf = fitted(dataset, **stored, max_iter=8)
    clf.set_params(max_iter=16).fit(dataset, resume=True)
    np.testing.assert_array_equal(clf.coef_, whole.coef_)
    np.testing.assert_array_equal(clf.intercept_, whole.intercept_)
    assert clf.n_iter_ == 16
