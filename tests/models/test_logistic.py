"""Logistic regression reaches scikit-learn's optimum, and every parameter does what it says."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse as sp
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.metrics import log_loss
from small import Data, fitted, make

import daskps
from daskps import LogisticRegression
from daskps.errors import CheckpointError
from daskps.run.checkpoint import published

A9A = Path(__file__).parents[3] / "shared" / "data" / "a9a"
# The optimum of small data: so many passes that the last per cent does not depend on the solver.
TO_THE_OPTIMUM = {"max_iter": 150, "rows_per_clock": 25}


def objective(clf: Any, data: Data, alpha: float, l1_ratio: float = 0.0) -> float:
    """Return the mean loss and penalty of any model, in float64."""
    w = np.asarray(clf.coef_, np.float64)
    penalty = (1 - l1_ratio) / 2 * np.sum(w**2) + l1_ratio * np.abs(w).sum()
    return float(log_loss(data.y, clf.predict_proba(data.X)) + alpha * penalty)


def reference(data: Data, alpha: float, **options: Any) -> Any:
    C = 1 / (alpha * len(data.y)) if alpha else np.inf
    options = {"max_iter": 10_000, "tol": 1e-8, **options}
    return Reference(C=C, **options).fit(data.X.astype(np.float64), data.y)


@pytest.mark.parametrize("consistency", ["bsp", "ssp", "asp"])
@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
@pytest.mark.parametrize("k", [2, 3])
def test_l2_reaches_the_objective_of_scikit_learn(k: int, solver: str, consistency: str) -> None:
    data, alpha = make(k), 0.01
    options = {"alpha": alpha, "solver": solver, "consistency": consistency}
    clf = fitted(data.X, data.y, **options, **TO_THE_OPTIMUM)
    best = objective(reference(data, alpha), data, alpha)
    assert best * (1 - 1e-6) < objective(clf, data, alpha) < best * 1.01


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_no_penalty_reaches_the_objective_of_scikit_learn(binary: Data, solver: str) -> None:
    clf = fitted(binary.X, binary.y, alpha=0.0, solver=solver, **TO_THE_OPTIMUM)
    best = objective(reference(binary, 0.0), binary, 0.0)
    assert best * (1 - 1e-6) < objective(clf, binary, 0.0) < best * 1.01


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
def test_l1_gives_the_zeros_of_scikit_learn(solver: str) -> None:
    data, alpha = make(2, n_rows=1000), 0.02
    noise = np.random.default_rng(1).normal(size=(1000, 8)).astype(np.float32)
    data = Data(np.hstack([data.X, noise]), data.y)
    options = {"alpha": alpha, "l1_ratio": 1.0, "solver": solver}
    clf = fitted(data.X, data.y, **options, **TO_THE_OPTIMUM)
    best = reference(data, alpha, l1_ratio=1.0, solver="saga", tol=1e-7)
    assert objective(clf, data, alpha, 1.0) < objective(best, data, alpha, 1.0) * 1.01
    clear = np.abs(best.coef_) > 0.02  # near zero, one of two good answers is as good
    assert np.all(clf.coef_[clear] != 0)
    zero = best.coef_ == 0
    assert np.count_nonzero(zero) >= 4
    # AdaGrad's local steps leave the threshold a little before the next clock takes them back
    np.testing.assert_allclose(clf.coef_[zero], 0, atol=0.01)
    assert np.count_nonzero(clf.coef_[zero]) <= (1 if solver == "ftrl" else zero.sum() - 1)


def test_intercept_is_not_penalised() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 2)).astype(np.float32)
    y = (rng.random(1000) < 0.9).astype(int)
    clf = fitted(X, y, alpha=1.0, **TO_THE_OPTIMUM)
    share = y.mean()
    # 0.1 of the log-odds is a hundredth of the probability
    assert clf.intercept_[0] == pytest.approx(np.log(share / (1 - share)), abs=0.1)
    without = fitted(X, y, alpha=1.0, fit_intercept=False)
    assert without.intercept_.tolist() == [0.0]


def test_sample_weights_are_repeated_rows() -> None:
    data = make(2)
    times = np.random.default_rng(0).integers(0, 3, len(data.y))
    X, y = np.repeat(data.X, times, axis=0), np.repeat(data.y, times)
    weighted = LogisticRegression(alpha=0.01, tol=None, **TO_THE_OPTIMUM)
    weighted.fit(data.X, data.y, times)
    # alpha stands beside the mean over rows, of which there are more now
    repeated = fitted(X, y, alpha=0.01 * len(data.y) / len(y), **TO_THE_OPTIMUM)
    assert weighted.log_loss(X, y) == pytest.approx(repeated.log_loss(X, y), rel=0.01)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=0.1, atol=0.1)
    assert weighted.score(data.X, data.y, times) == pytest.approx(weighted.score(X, y))
    assert weighted.log_loss(data.X, data.y, times) == pytest.approx(weighted.log_loss(X, y))


@pytest.mark.parametrize("class_weight", ["balanced", {"rare": 5.0}])
def test_class_weights_weigh_as_in_scikit_learn(class_weight: Any) -> None:
    data = make(2)
    keep = (data.y == 0) | (np.arange(len(data.y)) % 5 == 0)
    X, y = data.X[keep], np.array(["often", "rare"])[data.y[keep]]
    clf = fitted(X, y, alpha=0.01, class_weight=class_weight, **TO_THE_OPTIMUM)
    C = 1 / (0.01 * len(y))
    best = Reference(C=C, class_weight=class_weight, max_iter=1000).fit(X, y)
    np.testing.assert_allclose(clf.predict_proba(X), best.predict_proba(X), atol=0.03)
    plain = fitted(X, y, alpha=0.01, **TO_THE_OPTIMUM)
    assert np.mean(clf.predict(X) == "rare") > np.mean(plain.predict(X) == "rare")


def test_log_loss_is_that_of_scikit_learn(multinomial: Data) -> None:
    clf = fitted(multinomial.X, multinomial.y)
    expected = log_loss(multinomial.y, clf.predict_proba(multinomial.X))
    assert clf.log_loss(multinomial.X, multinomial.y) == pytest.approx(expected, rel=1e-5)
    some = multinomial.y != 1  # a class that the rows lack
    expected = log_loss(
        multinomial.y[some], clf.predict_proba(multinomial.X[some]), labels=clf.classes_
    )
    found = clf.log_loss(multinomial.X[some], multinomial.y[some])
    assert found == pytest.approx(expected, rel=1e-5)


# -- what each parameter does --------------------------------------------------------------------

CHANGES_THE_MODEL: dict[str, Any] = {
    "alpha": 0.1,
    "l1_ratio": 0.5,
    "fit_intercept": False,
    "solver": "ftrl",
    "eta0": 0.01,
    "consistency": "ssp",
    "max_iter": 2,
    "rows_per_clock": 20,
    "class_weight": {0: 3.0},
    "random_state": 1,
}
CHANGES_SOMETHING_ELSE = {
    "checkpoint": "test_resumed_run_has_the_bits_of_an_uninterrupted_one",
    "checkpoint_every": "test_checkpoints_are_as_many_as_asked_for",
    "keep": "test_checkpoints_are_as_many_as_asked_for",
    "keys": "test_hashed_keys_give_the_bits_of_a_range",
    "n_iter_no_change": "test_training_stops_when_the_loss_stalls",
    "n_shards": "test_number_of_shards_is_that_asked_for",
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


@pytest.mark.xfail(reason="the intercept's step shrinks with the scale of the values", strict=True)
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


# -- going on ------------------------------------------------------------------------------------


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
        clf.fit(binary.X, binary.y, callback=wait_for_cuts(store, {2: 2, None: 4}.get(every)))
        found.append([int(cut.removeprefix("cut-")) for cut in published(str(store))])
    assert found == [[12], [12, 10, 8], [12, 8, 4], [12]]  # the last: only at the end


def wait_for_cuts(store: Path, every: int | None) -> Callable[[int, float], None]:
    """Return a callback that lets each cut be written before the next one is due."""

    def callback(clock: int, loss: float) -> None:
        if not every or clock == 1 or clock % every != 1:
            return
        deadline = time.monotonic() + 20
        while f"cut-{clock - 1:08d}" not in published(str(store)):
            assert time.monotonic() < deadline, f"the cut before clock {clock} was not written"
            time.sleep(0.01)  # polls

    return callback


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


# -- real data -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def a9a() -> tuple[daskps.Dataset, daskps.Dataset]:
    if not A9A.exists():
        pytest.skip(f"real data are not in {A9A}")
    train = daskps.read_svmlight(A9A / "a9a")
    return train, daskps.read_svmlight(A9A / "a9a.t", n_features=train.n_features)


@pytest.fixture(scope="module")
def a9a_best(a9a: tuple[daskps.Dataset, daskps.Dataset]) -> float:
    """Return scikit-learn's test log-loss at its best C."""
    (X, y), (X_test, y_test) = (
        (
            sp.vstack([d.partition(i).to_scipy() for i in range(d.n_partitions)]),
            np.concatenate([d.partition(i).label for i in range(d.n_partitions)]),
        )
        for d in a9a
    )
    losses = [
        log_loss(y_test, Reference(C=C, max_iter=300).fit(X, y).predict_proba(X_test))
        for C in (0.03, 0.1, 0.3, 1.0)
    ]
    return float(min(losses))


@pytest.mark.parametrize("solver", ["adagrad", "ftrl"])
@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_a9a_is_learnt_as_well_as_by_scikit_learn(
    a9a: tuple[daskps.Dataset, daskps.Dataset], a9a_best: float, consistency: str, solver: str
) -> None:
    train, test = a9a
    # after so many passes the last pushes of SSP, in whatever order, move little
    options = {"alpha": 3e-4, "solver": solver, "consistency": consistency, "max_iter": 30}
    clf = fitted(train, **options)
    assert clf.score(test) >= 0.848
    assert clf.log_loss(test) <= 1.005 * a9a_best
