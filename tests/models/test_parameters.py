"""Every parameter of an estimator does what it says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import Data, fitted, make

import daskps
from daskps import LogisticRegression

CHANGES_THE_MODEL: dict[str, Any] = {
    "alpha": 0.1,
    "l1_ratio": 0.5,
    "fit_intercept": False,
    "solver": "ftrl",
    "compression": "bfloat16",
    "eta0": 0.01,
    "consistency": "ssp",
    "max_iter": 2,
    "rows_per_clock": 20,
    "class_weight": {0: 3.0},
    "random_state": 1,
}
CHANGES_SOMETHING_ELSE = {
    "admission": "test_chances_follow_the_number_of_rows_and_no_pass_draws_again",
    "checkpoint": "test_resumed_run_has_the_bits_of_an_uninterrupted_one",
    "checkpoint_every": "test_checkpoints_are_as_many_as_asked_for",
    "keep": "test_checkpoints_are_as_many_as_asked_for",
    "keys": "test_hashed_keys_give_the_bits_of_a_range",
    "n_iter_no_change": "test_training_stops_when_the_loss_stalls",
    "n_shards": "test_number_of_shards_is_that_asked_for",
    "quorum": "test_late_pushes_of_a_quorum_are_counted_once_each",
    "replicas": "test_a_worker_that_dies_costs_no_update",
    "progress": "test_bar_is_drawn_on_stderr_when_asked_for",
    "staleness": "test_staleness_bounds_how_far_partitions_run_ahead",
    "tol": "test_training_stops_when_the_loss_stalls",
    "warm_start": "test_warm_start_goes_on",
}


def test_every_parameter_is_tested_to_do_something() -> None:
    assert {*CHANGES_THE_MODEL, *CHANGES_SOMETHING_ELSE} == set(LogisticRegression().get_params())


@pytest.mark.parametrize("name", CHANGES_THE_MODEL)
def test_parameter_changes_the_model(binary: Data, name: str) -> None:
    # SSP differs from BSP where there are several partitions, the seed where rows are shuffled
    data: Any = (binary.X, binary.y)
    if name == "consistency":
        data = (daskps.from_arrays(binary.X, binary.y, n_partitions=4),)
    given = {"alpha": 0.01, "max_iter": 3, "eta0": 0.1, "rows_per_clock": 50}
    before, again = fitted(*data, **given), fitted(*data, **given)
    changed = fitted(*data, **{**given, name: CHANGES_THE_MODEL[name]})
    np.testing.assert_array_equal(before.coef_, again.coef_)
    assert np.any(before.coef_ != changed.coef_)


def test_scale_of_the_data_hardly_matters(binary: Data) -> None:
    scale = np.float32(2.0**7)
    options = {"alpha": 0.0, "max_iter": 10, "rows_per_clock": 50}
    small = fitted(binary.X, binary.y, **options)
    large = fitted(binary.X * scale, binary.y, **options)
    proba = large.predict_proba(binary.X * scale)
    np.testing.assert_allclose(small.predict_proba(binary.X), proba, atol=0.02)


def test_training_stops_when_the_loss_stalls(binary: Data) -> None:
    options = {"max_iter": 100, "alpha": 0.01}
    patient = fitted(binary.X, binary.y, tol=1e-3, n_iter_no_change=10, **options)
    hasty = fitted(binary.X, binary.y, tol=1e-3, n_iter_no_change=2, **options)
    endless = fitted(binary.X, binary.y, tol=None, **{**options, "max_iter": 30})
    assert hasty.n_iter_ < patient.n_iter_ < 100
    assert hasty.stop_reason_ == patient.stop_reason_ == "tol"
    assert (endless.n_iter_, endless.stop_reason_) == (30, "max_iter")


@pytest.mark.parametrize("kind", ["dataset", "path", "tuple", "weighted tuple"])
def test_held_out_data_decide_when_to_stop(kind: str, tmp_path: Path) -> None:
    data = make(2, n_rows=60, n_features=40)
    held = make(2, n_rows=300, n_features=40, seed=1)  # of another truth: it gets worse
    names = np.array(["no", "yes"])
    y, held_y = names[data.y], names[held.y]
    stored = daskps.from_arrays(held.X, held_y, tmp_path / "held.zarr")
    eval_set = {
        "dataset": stored,
        "path": tmp_path / "held.zarr",
        "tuple": (held.X, held_y),
        "weighted tuple": (held.X, held_y, np.full(300, 2.0)),
    }[kind]
    clf = LogisticRegression(max_iter=50, n_iter_no_change=2).fit(data.X, y, eval_set=eval_set)
    assert clf.stop_reason_ == "tol"
    assert clf.n_iter_ < 20
    last = clf.history_.eval_loss.dropna("clock").values[-1]
    scale = 2.0 if kind == "weighted tuple" else 1.0  # a sum over rows, as the training loss
    assert last == pytest.approx(scale * clf.log_loss(held.X, held_y), rel=1e-4)


def test_held_out_data_may_lack_classes(multinomial: Data) -> None:
    names = np.array(["c", "a", "b"])[multinomial.y]
    some = names != "a"  # whose position in the held-out data's own classes differs
    held = (multinomial.X[some], names[some])
    clf = LogisticRegression(max_iter=2, tol=None).fit(multinomial.X, names, eval_set=held)
    assert clf.history_.eval_loss.values[-1] == pytest.approx(clf.log_loss(*held), rel=1e-4)


def test_staleness_bounds_how_far_partitions_run_ahead() -> None:
    data = make(2, n_rows=8000)
    options = {"consistency": "ssp", "rows_per_clock": 50, "max_iter": 5}
    dataset = daskps.from_arrays(data.X, data.y, n_partitions=8)
    for staleness in (1, 3):
        clf = fitted(dataset, staleness=staleness, **options)
        assert int(clf.history_.staleness.max()) <= staleness
    assert int(fitted(dataset, **{**options, "consistency": "bsp"}).history_.staleness.max()) == 0


def test_number_of_shards_is_that_asked_for(binary: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    from daskps.run import launch

    made = []

    class Watched(launch.InProcessEngine):
        def _close(self) -> None:
            made.append(len(self.layout.refs))
            super()._close()

    monkeypatch.setattr(launch, "InProcessEngine", Watched)
    one, three = (fitted(binary.X, binary.y, n_shards=n) for n in (1, 3))
    assert made == [1, 3]
    np.testing.assert_array_equal(one.coef_, three.coef_)


def test_bar_is_drawn_on_stderr_when_asked_for(
    binary: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted(binary.X, binary.y)
    fitted(binary.X, binary.y, progress=False)
    assert capsys.readouterr() == ("", "")
    fitted(binary.X, binary.y, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "clocks, loss 0." in err


def test_bar_is_drawn_on_a_terminal(binary: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    fitted(binary.X, binary.y)
    assert "clocks, loss 0." in terminal.getvalue()
