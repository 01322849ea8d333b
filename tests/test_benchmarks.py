"""The benchmarks run on small data, and their data are what they were."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from benchmarks import elastic, lda, lr, lr_peers, mf
from benchmarks._mf_implicit import Judge
from benchmarks._mf_peers import Fit, Task
from benchmarks._reference import Settings, load


def crc(array: np.ndarray) -> int:
    return zlib.crc32(array.tobytes())


def test_reference_data_never_change(tmp_path: Path) -> None:
    settings = Settings(rows=3000, test_rows=500, features=5000)
    made = load(tmp_path, settings)
    read = load(tmp_path, settings)
    for rows, again in zip(made[:2], read[:2], strict=True):
        np.testing.assert_array_equal(rows.ids, again.ids)
    assert made[2] == read[2]
    digests = [(crc(rows.ids), crc(rows.y)) for rows in made[:2]]
    assert digests == [(2243866316, 3972953469), (2488509511, 3630030427)]


@pytest.mark.cluster
def test_logistic_regression_benchmark_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--rows", "3000", "--features", "2000", "--passes", "2", "--repeats", "1"]
    lr.main(["--data", str(tmp_path), *size, "--peers", "--json", str(tmp_path / "lr.json")])
    report = json.loads((tmp_path / "lr.json").read_text())
    assert set(report["speed"]["rows_per_s"]) == {"bare kernel", "in process", "cluster"}
    assert len(report["speed"]["passes"]) == 2
    assert min(report["speed"]["efficiency"].values()) > 0
    assert len(report["quality"]) == 8
    shown = capsys.readouterr().out
    assert "million rows/s" in shown
    assert "SGDClassifier" in shown


@pytest.mark.slow
@pytest.mark.cluster
def test_topic_benchmark_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--docs", "300", "--words", "200", "--topics", "20", "--sweeps", "2", "8"]
    lda.main([*size, "--only", "daskps,scikit-learn", "--json", str(tmp_path / "lda.json")])
    ours, theirs = json.loads((tmp_path / "lda.json").read_text())
    assert (ours["name"], theirs["name"]) == ("daskps", "scikit-learn")
    (_, first, early), (_, last, late) = ours["points"]
    assert 0 < first < last
    assert late < early < 200
    assert "million tokens/s" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_what_safety_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--rows", "3000", "--features", "2000", "--wide", "2000", "--passes", "4"]
    files = ["--data", str(tmp_path), "--json", str(tmp_path / "elastic.json")]
    elastic.main([*files, *size, "--repeats", "1", "--only", "replicas,checkpoints"])
    report = json.loads((tmp_path / "elastic.json").read_text())
    assert set(report["replicas"]) == {"bsp", "ssp"}
    assert all(x["price"] < 1 for x in report["replicas"].values())
    assert report["checkpoints"]["memory"]["every 2"] > 0
    assert not (tmp_path / "elastic-cuts.zarr").exists()
    assert "rows/s by replicas" in capsys.readouterr().out


# -- beside peers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ("averaged,SAGA", ["scikit-learn SGD, averaged", "scikit-learn SAGA"]),
        pytest.param(
            "ftrl", ["daskps, ftrl"], marks=[pytest.mark.slow, pytest.mark.cluster], id="daskps"
        ),
    ],
)
@pytest.mark.timeout(240)
def test_methods_run_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], only: str, names: list[str]
) -> None:
    size = ["--rows", "3000", "--features", "2000", "--passes", "2"]
    files = ["--data", str(tmp_path), "--json", str(tmp_path / "peers.json")]
    lr_peers.main([*files, *size, "--only", only, "--timeout", "100"])
    report = json.loads((tmp_path / "peers.json").read_text())
    assert [row["name"] for row in report["methods"]] == names
    for row in report["methods"]:
        assert row["ended"] == ""
        assert row["peak_mb"] > 50
        passes, seconds, losses = zip(*row["points"], strict=True)
        assert passes == (1, 2)
        assert 0 < min(seconds) <= max(seconds) < row["wall"]
        assert all(report["truth"] < loss < 1 for loss in losses)
    assert names[-1] in capsys.readouterr().out


def test_a_peer_that_fails_or_takes_too_long_is_shown_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--data", str(tmp_path), "--rows", "300", "--features", "200"]
    options = ["--only", "averaged", "--timeout", "0.2", "--json", str(tmp_path / "peers.json")]
    lr_peers.main([*files, *options])
    (row,) = json.loads((tmp_path / "peers.json").read_text())["methods"]
    assert row["points"] == []
    assert row["ended"] == "stopped after 0 s"
    assert "stopped after 0 s" in capsys.readouterr().out


def test_everybody_has_a_grid_of_the_same_size_that_holds_the_settings() -> None:
    methods = lr_peers.methods()
    assert {len(method.grid) for method in methods.values()} == {4}
    for name, method in methods.items():
        assert method.settings in method.grid, name


def test_the_grid_is_judged_on_validation_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Mapping[str, Any]] = []

    def fake(job: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        asked.append(job)
        eta0 = job["settings"]["eta0"]
        curves = {
            0.02: [[1, 0.1, 0.49], [2, 0.2, 0.48]],  # the best, in more passes
            0.03: [[1, 1.0, 0.4804]],  # near it, but the other is nearer
            0.05: [[1, 2.0, 0.4803]],
        }
        curve = curves.get(eta0, [[1, 0.1, 0.5]])
        return {"points": curve, "ended": "", "wall": 1.0, "peak_mb": 1.0}

    monkeypatch.setattr(lr_peers, "run", fake)
    files = ["--data", str(tmp_path), "--rows", "300", "--features", "200"]
    lr_peers.main([*files, "--only", "averaged", "--grid"])
    assert [job["settings"]["eta0"] for job in asked] == [0.01, 0.02, 0.03, 0.05]
    assert all(job["validate"] for job in asked)
    chosen = capsys.readouterr().out.partition("chosen on validation rows")[2]
    assert "'eta0': 0.05" in chosen


def test_times_are_compared_with_those_of_the_best_peer() -> None:
    rows = [
        {"name": "ours", "peer": False, "points": [[1, 1.0, 0.49], [2, 2.0, 0.48]]},
        {"name": "slow", "peer": True, "points": [[1, 20.0, 0.47]]},
        {"name": "better", "peer": True, "points": [[1, 1.0, 0.50], [2, 10.0, 0.485]]},
    ]
    assert lr_peers.seconds_to(0.485, rows[0]["points"]) == 2.0
    assert lr_peers.ratios(rows, 0.485) == {"ours": (2.0, "better", 5.0)}
    assert lr_peers.ratios(rows, 0.475) == {}
    assert lr_peers.ratios(rows[:1], 0.485)["ours"][2] == math.inf


@pytest.mark.slow
@pytest.mark.cluster
def test_factorisation_benchmark_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    fields = np.dtype([("u", "<i4"), ("i", "<i4"), ("r", "<f4")])
    for name, n in (("train", 3000), ("test", 300)):
        rows = np.empty(n, fields)
        rows["u"], rows["i"] = np.divmod(rng.choice(200 * 50, n, replace=False), 50)
        rows["r"] = rng.integers(1, 6, n)
        np.save(tmp_path / f"{name}.npy", rows)
    files = ["--train", str(tmp_path / "train.npy"), "--test", str(tmp_path / "test.npy")]
    mf.main([*files, "--passes", "2", "--implicit", "1", "--lists", "50", "--peers", "libmf:2"])
    shown = capsys.readouterr().out
    assert "M ratings/s a pass, test RMSE" in shown
    assert "implicit feedback, daskps, seed 0" in shown
    assert "LIBMF" in shown  # its figures, or that it is not installed
    with pytest.raises(SystemExit):
        mf.main([*files, "--peers", "nobody"])


def test_peers_of_factorisation_are_compared_where_errors_are_equal() -> None:
    ours = [Fit(1, 1.0, 0.60), Fit(2, 2.0, 0.50)]
    theirs = [Fit(2, 10.0, 0.70), Fit(4, 16.0, 0.55)]
    told = mf.compared("X", theirs, ours, 6_000_000)
    # 2 iterations took 6 s more
    assert (
        told == "X: 2.00 M ratings/s an iteration; 0.5500 after 16.0 s, daskps 2.0 s, 8.0 x as fast"
    )
    assert "where daskps did not get" in mf.compared("X", theirs, ours[:1], 1)


def test_recall_is_of_all_users_with_test_ratings() -> None:
    test = pd.DataFrame({"user": [0, 0, 3, 3, 9], "item": [1, 2, 0, 1, 0]})
    judge = Judge(sparse.csr_array((5, 4)), test, n_lists=2)
    assert judge.timed.tolist() == [0, 1]
    assert judge.others.tolist() == [3]
    users, items = np.array([0, 0, 1, 3, 3]), np.array([2, 3, 1, 0, 1])
    assert judge.recalls(users, items).tolist() == [0.5, 1.0]


def test_error_of_peers_counts_mean_and_biases() -> None:
    train = pd.DataFrame({"user": [0, 1], "item": [0, 2], "rating": [2.0, 4.0]})
    test = pd.DataFrame({"user": [0, 1], "item": [1, 2], "rating": [3.5, 7.0]})
    task = Task(train, test, 2)
    assert task.shape == (2, 3)
    P, Q = np.ones((2, 2)), np.zeros((3, 2))
    Q[2] = 1.0
    # 3 + 0.5, and 3 + 2 + 0.5 + 0.5
    assert task.error(P, Q, 0.5, np.array([0, 0, 0.5])) == pytest.approx(np.sqrt(1 / 2))
