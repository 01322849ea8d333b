"""Saved models come back whole, open with xarray, and nothing is overwritten by accident."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from small import Data, fitted

import daskps
from daskps import LogisticRegression
from daskps.errors import DatasetFormatError

LABELS = {
    "int": np.array([4, -1, 9]),
    "float": np.array([0.0, 1.0, 2.0]),
    "string": np.array(["zebra", "ant", "Ω is long"]),
}


@pytest.fixture
def model(binary: Data) -> LogisticRegression:
    return fitted(binary.X, binary.y)


@pytest.mark.parametrize("kind", LABELS)
def test_model_comes_back_whole(multinomial: Data, kind: str, tmp_path: Path) -> None:
    y = LABELS[kind][multinomial.y]
    weights = {LABELS[kind][0].item(): 2.0}
    clf = fitted(multinomial.X, y, class_weight=weights, checkpoint=tmp_path / "c.zarr")
    clf.save(tmp_path / "m.zarr")
    read = daskps.load(tmp_path / "m.zarr")
    assert {**read.get_params(), "checkpoint": None} == {**clf.get_params(), "checkpoint": None}
    assert read.checkpoint == os.fspath(tmp_path / "c.zarr")
    for name in ("coef_", "intercept_", "classes_"):
        before, after = getattr(clf, name), getattr(read, name)
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype, name
    for name in ("n_iter_", "n_features_in_", "stop_reason_"):
        assert getattr(clf, name) == getattr(read, name)
    xr.testing.assert_identical(clf.history_, read.history_)
    np.testing.assert_array_equal(clf.predict(multinomial.X), read.predict(multinomial.X))


def test_boolean_classes_come_back(binary: Data, tmp_path: Path) -> None:
    clf = fitted(binary.X, binary.y == 1)
    clf.save(tmp_path / "m.zarr")
    assert daskps.load(tmp_path / "m.zarr").classes_.dtype == bool


def test_xarray_opens_a_model_with_its_names(multinomial: Data, tmp_path: Path) -> None:
    clf = fitted(multinomial.X, np.array(["a", "b", "c"])[multinomial.y])
    clf.save(tmp_path / "m.zarr")
    opened = xr.open_zarr(tmp_path / "m.zarr")
    assert dict(opened.sizes) == {"class": 3, "feature": 8}
    np.testing.assert_array_equal(opened["coef"], clf.coef_)
    assert opened["classes"].values.tolist() == ["a", "b", "c"]
    history = xr.open_zarr(tmp_path / "m.zarr", group="history", consolidated=False)
    assert "loss" in history


def test_nothing_in_a_model_is_a_pickle(model: LogisticRegression, tmp_path: Path) -> None:
    model.save(tmp_path / "m.zarr")
    for file in (tmp_path / "m.zarr").rglob("zarr.json"):
        assert "pickle" not in json.dumps(json.loads(file.read_text()))


def test_model_is_read_by_another_process(model: LogisticRegression, tmp_path: Path) -> None:
    model.save(tmp_path / "m.zarr")
    code = f"import daskps; print(daskps.load({str(tmp_path / 'm.zarr')!r}).coef_.sum())"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert float(done.stdout) == pytest.approx(float(model.coef_.sum()), rel=1e-4)


def test_model_is_overwritten_only_if_asked(model: LogisticRegression, tmp_path: Path) -> None:
    model.save(tmp_path / "m.zarr")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(tmp_path / "m.zarr")
    model.coef_ = model.coef_ * 2
    model.save(str(tmp_path / "m.zarr"), overwrite=True)
    np.testing.assert_array_equal(daskps.load(tmp_path / "m.zarr").coef_, model.coef_)


def test_other_files_are_never_overwritten(model: LogisticRegression, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(FileExistsError, match="no Zarr group"):
            model.save(place, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_nothing_to_load_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no saved model"):
        daskps.load(tmp_path / "nowhere.zarr")


def test_something_else_is_not_loaded(binary: Data, tmp_path: Path) -> None:
    daskps.from_arrays(binary.X, binary.y, tmp_path / "d.zarr")
    zarr.open_group(tmp_path / "g.zarr", mode="w")
    for name in ("d.zarr", "g.zarr"):
        with pytest.raises(DatasetFormatError, match="no complete saved model"):
            daskps.load(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99.*newer daskps"),
        ({"kind": "Oracle"}, "Oracle.*newer daskps"),
        ({"parameters": 3}, "damaged"),
    ],
)
def test_model_of_another_version_is_not_loaded(
    model: LogisticRegression, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    model.save(tmp_path / "m.zarr")
    group = zarr.open_group(tmp_path / "m.zarr")
    group.attrs["daskps"] = {**group.attrs["daskps"], **change}
    with pytest.raises(DatasetFormatError, match=message):
        daskps.load(tmp_path / "m.zarr")
