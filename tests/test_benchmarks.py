"""The benchmarks run on small data, and their data are what they were."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks import lr
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
