"""The demo runs to its end on a small svmlight file, and refuses what it cannot use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import sparse
from sklearn.datasets import dump_svmlight_file

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 240  # seconds; about 20 on a free machine, with compilation 60


def run_demo(folder: Path, y: np.ndarray) -> subprocess.CompletedProcess[str]:
    """Run the demo on random rows with labels `y`, as `make demo DATA=...` does."""
    rng = np.random.default_rng(0)
    X = sparse.random_array((len(y), 29), density=0.4, rng=rng)
    X = sparse.hstack([y[:, None], X], format="csr")  # something to learn
    dump_svmlight_file(X, y, str(folder / "rows.svm"), zero_based=False)
    demo = ["examples/demo.py", "--data", str(folder / "rows.svm"), "--out", str(folder / "out")]
    command = [sys.executable, *demo]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)


@pytest.mark.faults
def test_demo_survives_the_kill_to_the_bit(tmp_path: Path) -> None:
    done = run_demo(tmp_path, np.random.default_rng(1).integers(1, 4, 2000))
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("dashboard", "kill -9", "the next clock was done", "bit for bit: yes"):
        assert part in done.stdout
    for noise in ("Traceback", "WARNING", "ERROR", "Warning"):
        assert noise not in done.stdout + done.stderr
    model = xr.open_zarr(tmp_path / "out" / "model.zarr")
    assert model["coef"].shape == (3, 30)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(DEADLINE)
def test_demo_says_that_a_quantity_is_no_class(tmp_path: Path) -> None:
    done = run_demo(tmp_path, np.random.default_rng(1).normal(size=200))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "looks like a quantity" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
