"""scikit-learn's callbacks hear of a fit and its passes, and may end it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small import Data

import daskps

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn has no callbacks")


class Heard:
    """Follows the protocol `FitCallback`; wants to stop after some passes."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.told: list[tuple[str, str]] = []
        self.fitted: list[Any] = []
        self._stop_after = stop_after

    def setup(self, estimator: Any, context: Any) -> None:
        self.told.append(("setup", context.task_name))

    def teardown(self, estimator: Any, context: Any) -> None:
        self.told.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator: Any, context: Any, *, X: Any = None) -> None:
        assert X is not None
        self.told.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator: Any, context: Any, *, fitted_estimator: Any = None) -> Any:
        self.told.append(("end", context.task_name))
        self.fitted.append(fitted_estimator)
        return context.task_name == "pass" and context.task_id + 1 == self._stop_after


PASS = [("begin", "pass"), ("end", "pass")]


def around(passes: int) -> list[tuple[str, str]]:
    inside = [("begin", "fit"), *PASS * passes, ("end", "fit")]
    return [("setup", "fit"), *inside, ("teardown", "fit")]


@pytest.mark.parametrize("solver", ["adagrad", "lbfgs"])
def test_callbacks_hear_of_the_fit_and_of_each_pass(binary: Data, solver: Any) -> None:
    heard = Heard()
    model = daskps.LogisticRegression(solver=solver, max_iter=3, tol=None).set_callbacks(heard)
    model.fit(binary.X, binary.y)
    assert heard.told == around(3)
    *before, last = heard.fitted
    assert before == [None] * 3
    np.testing.assert_array_equal(last.predict(binary.X), model.predict(binary.X))
    assert heard.told == around(3)


@pytest.mark.parametrize(
    "kind",
    [
        daskps.MatrixFactorization,
        # its kernels take long to compile
        pytest.param(daskps.LatentDirichletAllocation, marks=pytest.mark.slow),
    ],
)
def test_every_estimator_takes_them(kind: Any) -> None:
    heard = Heard()
    X = np.random.default_rng(0).integers(1, 4, (30, 12)).astype(np.float32)
    kind(max_iter=2).set_callbacks(heard).fit(X)
    assert heard.told[0] == ("setup", "fit")
    assert heard.told.count(("end", "pass")) in (1, 2)  # sweeps of small data go together
    assert heard.told[-1] == ("teardown", "fit")


def test_callback_ends_training(binary: Data) -> None:
    model = daskps.LogisticRegression(max_iter=9, tol=None).set_callbacks(Heard(stop_after=2))
    model.fit(binary.X, binary.y)
    assert model.n_iter_ < 9
    assert model.stop_reason_ == "callback"


def test_callbacks_are_torn_down_when_fit_fails(binary: Data) -> None:
    heard = Heard()
    with pytest.raises(ValueError, match="max_iter"):
        daskps.LogisticRegression(max_iter=0).set_callbacks(heard).fit(binary.X, binary.y)
    assert heard.told in ([], [("setup", "fit"), ("begin", "fit"), ("teardown", "fit")])


def test_progress_bar_of_scikit_learn_is_drawn(
    binary: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    model = daskps.LogisticRegression(max_iter=2).set_callbacks(callback.ProgressBar())
    model.fit(binary.X, binary.y)
    shown = capsys.readouterr()
    assert "fit" in shown.out + shown.err
