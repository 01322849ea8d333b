"""The checks of a cluster before a run, on one that is well and on ones that are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from cluster_tools import Farm

import daskps
from daskps.cli import checks
from daskps.cli import daskps as command
from daskps.run.size import planned

pytestmark = pytest.mark.cluster


def doctor(*args: Any) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(command, ["doctor", "--json", *map(str, args)])
    assert done.stdout, done.stderr
    return done.exit_code, json.loads(done.stdout)


def test_a_well_cluster_passes_and_a_missing_path_is_told(tmp_path: Path) -> None:
    X, y = np.eye(8), np.arange(8) % 2
    data = tmp_path / "data.zarr"
    daskps.from_arrays(X, y, str(data))
    (tmp_path / "job.toml").write_text(
        f'model = "LogisticRegression"\ndata = "{data}"\n'
        f'[parameters]\ncheckpoint = "{tmp_path}/ckpt.zarr"\n'
    )
    with Farm(2, tmp_path) as cluster:
        at = ("--scheduler", cluster.address)
        code, found = doctor(*at, "--job", tmp_path / "job.toml")
        assert (code, found["good"]) == (0, True), found
        names = ["workers", "versions", "clocks", "ports", "data", "checkpoint", "memory"]
        assert list(found["checks"]) == names
        assert not list((tmp_path / "ckpt.zarr").glob("doctor-*"))
        code, found = doctor(*at, "--data", tmp_path / "nothing.zarr")
        assert (code, found["good"]) == (3, False)
        assert "nothing.zarr" in found["checks"]["data"]


class Answers:
    """A client whose workers, when they are asked, say what they are told to say."""

    def __init__(self, workers: dict[str, Any], scheduler: Any = None, limit: int = 0) -> None:
        self.workers, self.scheduler, self.limit = workers, scheduler, limit

    def run(self, function: Any, **kwargs: Any) -> dict[str, Any]:
        return self.workers

    def run_on_scheduler(self, function: Any) -> Any:
        return self.scheduler

    def register_plugin(self, plugin: Any) -> None: ...

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        info = {"nthreads": 1, "memory_limit": self.limit, "resources": {}}
        return {"workers": dict.fromkeys(self.workers, info)}


def test_other_versions_are_told_with_both_values() -> None:
    mine = checks.version_table()
    found = checks.versions(Answers({"w": {**mine, "numpy": "0.1"}}, mine))
    assert not found.good
    assert f"numpy of w is '0.1', here {mine['numpy']!r}" in found.said


def test_a_clock_that_is_off_is_told() -> None:
    found = checks.clocks(Answers({"w": 0.0}))
    assert not found.good
    assert "NTP" in found.said


def test_a_data_port_that_nobody_reaches_is_told() -> None:
    closed = {"w": ("127.0.0.1", 1)}
    assert checks.dial(closed) == ["w at 127.0.0.1:1"]
    assert not checks.ports(Answers({"w": None})).good


def test_no_worker_is_told() -> None:
    assert not checks.workers(Answers({})).good


def test_a_job_that_is_too_large_is_told(tmp_path: Path) -> None:
    from daskps.cli.job import Job

    daskps.from_arrays(np.eye(8), np.arange(8) % 2, str(tmp_path / "d"))
    job = Job(model="LogisticRegression", data=str(tmp_path / "d"))
    small, large = (Answers({"w": 0}, limit=n) for n in (100, 2**30))
    assert not checks.memory(small, job).good
    assert checks.memory(large, job).good


@pytest.mark.parametrize("n_features", [10, 1000])
def test_the_size_counts_weights_with_their_state(n_features: int) -> None:
    X, y = np.eye(8, n_features), np.arange(8) % 2
    found = planned(lambda: daskps.LogisticRegression(solver="adagrad").fit(X, y))
    # weight, sum of squares, and at most three more floats that the merge rule keeps
    assert 8 * n_features <= found.parameters <= 20 * n_features + 100
    assert found.frozen == 0
