"""Bad parameters and bad data get an error that names them, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse as sp
from sklearn.exceptions import NotFittedError
from small import Data, fitted

import daskps
from daskps import LogisticRegression
from daskps.errors import CheckpointError, DataError

BAD_PARAMETERS: list[tuple[str, Any]] = [
    *(("alpha", x) for x in (-1, np.inf, np.nan, "1", None, True)),
    *(("l1_ratio", x) for x in (-0.1, 1.1, None)),
    *(("eta0", x) for x in (0, -1, np.inf, "fast")),
    *(("fit_intercept", x) for x in (None, 1, "yes")),
    *(("solver", x) for x in ("newton", None, 3)),
    *(("keys", x) for x in ("hashed", None)),
    *(("compression", x) for x in ("float16", True, 0, 1.0)),
    *(("admission", x) for x in (0, 1.1, 3.0, 256, True, None, "few")),
    *(("consistency", x) for x in ("BSP", None)),
    *(("staleness", x) for x in (0, 1.5, None)),
    *(("quorum", x) for x in (0, 1.1, None)),
    *(("max_iter", x) for x in (0, 2.5, None)),
    *(("tol", x) for x in ("small", np.nan)),
    *(("n_iter_no_change", x) for x in (0, None)),
    *(("rows_per_clock", x) for x in (0, 10.0)),
    *(("class_weight", x) for x in ("equal", 3, {0: -1.0}, {0: np.nan}, {0: "heavy"})),
    *(("warm_start", x) for x in (None, "no")),
    *(("random_state", x) for x in (-1, 0.5, "seed")),
    *(("checkpoint", x) for x in (3, "", True)),
    *(("replicas", x) for x in (-1, 2, 0.5, None)),
    *(("checkpoint_every", x) for x in (0, "soon", "-3s", 1.5)),
    *(("keep", x) for x in (0, None)),
    *(("n_shards", x) for x in (0, 1.5)),
    *(("progress", x) for x in (1, "bar")),
]


def test_every_parameter_is_checked() -> None:
    assert {name for name, _ in BAD_PARAMETERS} == set(LogisticRegression().get_params())


@pytest.mark.parametrize(("name", "value"), BAD_PARAMETERS)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_bad_parameter_is_named(binary: Data, method: str, name: str, value: Any) -> None:
    clf = LogisticRegression(**{name: value})
    with pytest.raises(ValueError, match=rf"{name}=.*expected"):
        getattr(clf, method)(binary.X, binary.y)
    assert not hasattr(clf, "coef_")


def test_numbers_of_numpy_are_good_parameters(binary: Data) -> None:
    options = {"alpha": np.float32(0.1), "max_iter": np.int64(1), "random_state": np.int32(2)}
    assert fitted(binary.X, binary.y, **options).n_iter_ == 1


def nan(X: Any) -> Any:
    X = X.copy()
    X[3, 2] = np.nan
    return X


BAD_DATA: dict[str, tuple[Any, Any, str]] = {
    "one class": (lambda X: X, lambda y: np.zeros_like(y), "one class only, \\[0\\]"),
    "no labels": (lambda X: X, lambda y: None, "no labels"),
    "too few labels": (lambda X: X, lambda y: y[:-1], "399 labels but X has 400 rows"),
    "quantity": (lambda X: X, lambda y: y + 0.25, "label 0.25 is no class"),
    "missing label": (lambda X: X, lambda y: np.where(y, y, np.nan), "finite"),
    "missing string": (lambda X: X, lambda y: ["a", None] * 200, "None of row 1 is missing"),
    "mixed labels": (lambda X: X, lambda y: np.array(["a", 1] * 200, object), "of types"),
    "labels of two columns": (lambda X: X, lambda y: np.stack([y, y], 1), "shape"),
    "not a number": (nan, lambda y: y, "row 3, column 2 holds nan"),
    "sparse, not a number": (lambda X: sp.csr_array(nan(X)), lambda y: y, "row 3, column 2"),
    "one dimension": (lambda X: X[:, 0], lambda y: y, "reshape"),
    "words": (lambda X: X.astype(str), lambda y: y, "dtype"),
    "no rows": (lambda X: X[:0], lambda y: y[:0], "0 rows"),
}


@pytest.mark.parametrize("name", BAD_DATA)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_bad_data_are_refused(binary: Data, method: str, name: str) -> None:
    change_X, change_y, message = BAD_DATA[name]
    clf = LogisticRegression()
    with pytest.raises(DataError, match=message):
        getattr(clf, method)(change_X(binary.X), change_y(binary.y))
    assert not hasattr(clf, "coef_")


def test_unknown_container_is_refused(binary: Data) -> None:
    with pytest.raises(TypeError, match="got 'builtins"):
        LogisticRegression().fit(object(), binary.y)


def test_bad_weights_are_refused(binary: Data) -> None:
    with pytest.raises(DataError, match="sample_weight"):
        LogisticRegression().fit(binary.X, binary.y, -np.ones(400))
    with pytest.raises(DataError, match="class_weight has 7, which is none"):
        LogisticRegression(class_weight={7: 1.0}).fit(binary.X, binary.y)


def test_dataset_brings_its_own_labels(binary: Data) -> None:
    dataset = daskps.from_arrays(binary.X, binary.y)
    with pytest.raises(DataError, match="y cannot be given with a dataset"):
        LogisticRegression().fit(dataset, binary.y)


def test_path_to_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no dataset"):
        LogisticRegression().fit(tmp_path / "nowhere.zarr")


def test_held_out_data_must_fit_the_training_data(binary: Data) -> None:
    clf = LogisticRegression()
    with pytest.raises(DataError, match=r"label 6 of eval_set is none of the classes \[0, 1\]"):
        clf.fit(binary.X, binary.y, eval_set=(binary.X, binary.y + 5 * (binary.y == 1)))
    for X, n in (np.hstack([binary.X, binary.X]), 16), (binary.X[:, :7], 7):
        with pytest.raises(DataError, match=f"eval_set has {n} features, the training data 8"):
            clf.fit(binary.X, binary.y, eval_set=(X, binary.y))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "score"])
def test_model_that_is_not_fitted_says_so(binary: Data, method: str) -> None:
    with pytest.raises(NotFittedError):
        getattr(LogisticRegression(), method)(binary.X)


def test_model_that_is_not_fitted_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        LogisticRegression().save(tmp_path / "m.zarr")
    assert not (tmp_path / "m.zarr").exists()


@pytest.mark.parametrize("columns", [7, 9])
def test_other_number_of_features_is_refused(binary: Data, columns: int) -> None:
    clf = fitted(binary.X, binary.y)
    X = np.zeros((4, columns), np.float32)
    for call in (clf.predict, clf.predict_proba, lambda X: clf.partial_fit(X, [0, 1, 0, 1])):
        with pytest.raises(DataError, match=f"X has {columns} features.*expecting 8"):
            call(X)


def test_dataset_with_more_features_is_refused(binary: Data) -> None:
    clf = fitted(binary.X, binary.y)
    wide = daskps.from_arrays(np.hstack([binary.X, binary.X]), binary.y)
    with pytest.raises(DataError, match="X has 16 features"):
        clf.score(wide)


def test_score_needs_labels(binary: Data) -> None:
    clf = fitted(binary.X, binary.y)
    with pytest.raises(DataError, match="no labels"):
        clf.score(binary.X)
    with pytest.raises(DataError, match="400 labels but X has 10 rows"):
        clf.score(binary.X[:10], binary.y)
    with pytest.raises(DataError, match="label 9 of the data is none"):
        clf.log_loss(binary.X, np.where(binary.y, 9, 0))
    assert clf.score(binary.X, np.full(400, 9)) == 0


def test_partial_fit_refuses_new_classes(binary: Data) -> None:
    names = np.array(["a", "b"])[binary.y]
    clf = LogisticRegression().partial_fit(binary.X, names)
    with pytest.raises(DataError, match="label 'c' of the training data is none"):
        clf.partial_fit(binary.X, np.where(binary.y, "c", "a"))
    with pytest.raises(DataError, match="are not those of the model"):
        clf.partial_fit(binary.X, names, classes=["a", "b", "c"])


def test_resume_needs_a_checkpoint(binary: Data) -> None:
    with pytest.raises(CheckpointError, match="resume=True without a checkpoint"):
        LogisticRegression().fit(binary.X, binary.y, resume=True)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"alpha": 0.5}, "the model"),
        ({"consistency": "ssp"}, "the model"),
        ({"rows_per_clock": 100}, "rows_per_clock"),
    ],
)
def test_resume_with_other_settings_is_refused(
    binary: Data, tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    options = {"checkpoint": tmp_path / "c.zarr", "rows_per_clock": 50, "eta0": 0.1}
    clf = fitted(binary.X, binary.y, **options)
    with pytest.raises(CheckpointError, match=f"another setting of {what}"):
        clf.set_params(**change).fit(binary.X, binary.y, resume=True)


def test_resume_with_other_data_is_refused(binary: Data, tmp_path: Path) -> None:
    clf = fitted(binary.X, binary.y, checkpoint=tmp_path / "c.zarr", eta0=0.1)
    with pytest.raises(CheckpointError, match="partitions"):
        clf.fit(binary.X[:200], binary.y[:200], resume=True)
