"""Drivers in the cluster: found again from another process, stopped, forgotten, refused."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from cluster_tools import (
    PATIENCE,
    Farm,
    assert_clean,
    problem,
    start_python,
    stop_group,
    wait_until,
)
from distributed import Client, LocalCluster, Scheduler

import daskps
from daskps import DetachedRun, LogisticRegression
from daskps.errors import CheckpointError, DataError, RunFailed, RunTimeout
from daskps.run import detached_driver

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]  # processes start and import

OPTIONS: dict[str, Any] = {"max_iter": 6, "tol": None, "rows_per_clock": 1000}


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    with Farm(2, tmp_path) as farm:
        yield farm
        assert_clean(farm.scheduler)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "d.zarr"
    daskps.from_arrays(*problem(20_000), path, n_partitions=4)
    return str(path)


def endless(store: str, name: str | bool = True, **options: Any) -> DetachedRun:
    """Start a run that lasts until it is stopped."""
    clf = LogisticRegression(**{**OPTIONS, "max_iter": 10**6, **options})
    return clf.fit(store, detach=name)


ATTACHED = """
import sys
from distributed import Client
import daskps

with Client(sys.argv[1]):
    run = daskps.attach("ads")
    model = run.result(timeout=60)
    print(run.status["state"], model.stop_reason_, model.n_iter_, float(model.coef_.sum()))
"""


def test_another_process_finds_the_run_and_fetches_the_model(farm: Farm, store: str) -> None:
    here = LogisticRegression(**OPTIONS).fit(store)
    with Client(farm.address) as client:  # which is gone when the model is asked for
        run = LogisticRegression(**OPTIONS).fit(store, detach="ads")
        assert client.list_datasets() == ("daskps-driver-ads",)
    process = start_python(
        "-c", ATTACHED, farm.address, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        said, errors = process.communicate(timeout=90)
    finally:
        stop_group(process)
    assert said.decode().split()[:3] == ["finished", "max_iter", "6"], errors.decode()
    run = daskps.attach()
    model = run.result(timeout=PATIENCE)
    assert isinstance(model, LogisticRegression)
    np.testing.assert_array_equal(model.coef_, here.coef_)
    assert run.done
    assert "finished" in run._repr_html_()
    run.forget()
    with pytest.raises(KeyError, match=r"no run 'ads' is on the cluster; expected one of \[\]"):
        daskps.attach("ads")


def test_a_run_tells_how_it_goes_and_stops_when_told(farm: Farm, store: str) -> None:
    run = endless(store)
    wait_until(lambda: run.status.get("clock", 0) > 3, 3 * PATIENCE)
    told = run.status
    assert told["state"] == "running"
    assert told["clocks"] > told["clock"]
    assert 0 < told["loss"] < 1
    with pytest.raises(RunTimeout, match=r"has not ended within 0.1 s .*'running'"):
        run.result(timeout=0.1)
    run.stop()
    model = run.result(timeout=30)
    assert model.stop_reason_ == "interrupted"
    assert 0 < model.n_iter_ < 10**6
    run.forget()


def forget(name: str, dask_scheduler: Scheduler) -> list[str]:
    """Forget a run on the scheduler; return its drivers that hold futures right afterwards."""
    detached_driver.forget(name, dask_scheduler)
    return [c for c in dask_scheduler.clients if c.startswith("Client-daskps-driver")]


def test_a_forgotten_driver_holds_nothing_when_it_comes_back(farm: Farm, store: str) -> None:
    run = endless(store, "back")
    wait_until(lambda: run.status.get("clock", 0) > 0, 3 * PATIENCE)
    assert farm.client.run_on_scheduler(forget, "back") == []
    run.forget()
    assert_clean(farm.scheduler)


def test_a_run_that_is_forgotten_ends_at_once_and_errors_reach_who_waits(
    farm: Farm, store: str, tmp_path: Path
) -> None:
    run = endless(store, "long")
    wait_until(lambda: run.status.get("clock", 0) > 0, 3 * PATIENCE)
    with pytest.raises(ValueError, match="a run of the name 'long'"):
        LogisticRegression().fit(store, detach="long")
    run.forget()
    assert_clean(farm.scheduler)
    wait_until(lambda: not [c for c in farm.scheduler.clients if c.startswith("Client-daskps")])
    with pytest.raises(RunFailed, match="was forgotten"):
        run.result(timeout=5)
    assert run.status["state"] == "gone"
    bad = LogisticRegression().fit(np.ones((9, 2)), np.ones(9), detach="bad")
    with pytest.raises(DataError, match="class"):
        bad.result(timeout=60)
    assert bad.status["state"] == "failed"
    bad.forget()
    clf = LogisticRegression(checkpoint=tmp_path / "c.zarr", **OPTIONS).fit(store)
    with pytest.raises(CheckpointError, match="an earlier run"):
        clf.fit(store, detach=True)
    with pytest.raises(ValueError, match="expected True, or a name"):
        clf.fit(store, detach="two words")
    with pytest.raises(ValueError, match="expected None"):
        clf.fit(store, callback=print, detach=True)


def test_without_a_cluster_there_is_nowhere_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daskps.run.detached.current_client", lambda: None)
    with pytest.raises(RunFailed, match="outlives this process"):
        LogisticRegression().fit("x.zarr", detach=True)


@pytest.mark.parametrize("which", [pytest.param("topics", marks=pytest.mark.slow), "factors"])
def test_every_estimator_can_be_detached(which: str) -> None:
    rng = np.random.default_rng(0)
    counts = sp.csr_array(rng.poisson(0.3, (60, 20)).astype(np.float32))
    clf: Any = daskps.MatrixFactorization(2, max_iter=2, random_state=0)
    if which == "topics":
        clf = daskps.LatentDirichletAllocation(3, max_iter=2, random_state=0)
    options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "threads_per_worker": 2}
    with (
        LocalCluster(n_workers=1, processes=False, **options) as cluster,
        Client(cluster),
    ):
        here = copy.copy(clf).fit(counts)
        run = clf.fit(counts, detach=True)
        model = run.result(timeout=PATIENCE)
        run.forget()
    assert not hasattr(clf, "n_iter_")
    for name in ("topic_word_counts_", "item_factors_"):
        if hasattr(model, name):
            assert abs(getattr(model, name) - getattr(here, name)).sum() == 0
    assert model.n_iter_ == here.n_iter_
