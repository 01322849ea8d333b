"""The worker of a driver in the cluster dies or hangs: the run only takes longer."""

from __future__ import annotations

import signal
from pathlib import Path

import dask
import numpy as np
import pytest
from cluster_tools import PATIENCE, Farm, assert_clean, problem, wait_until

import daskps
from daskps import DetachedRun, LogisticRegression
from daskps.run.checkpoint import published

pytestmark = pytest.mark.faults


def begin(directory: Path, passes: int) -> tuple[DetachedRun, LogisticRegression]:
    """Start a run in the cluster, and return what it should come to."""
    options = {"max_iter": passes, "tol": None, "rows_per_clock": 2500}
    data = directory / "d.zarr"
    daskps.from_arrays(*problem(20_000), data, n_partitions=4)
    store = str(directory / "c.zarr")
    clf = LogisticRegression(checkpoint=store, checkpoint_every=4, **options)
    run = clf.fit(data, detach="ads")
    wait_until(lambda: len(published(store)) > 1, 4 * PATIENCE)
    rows = daskps.from_arrays(*problem(20_000), n_partitions=4)
    with pytest.MonkeyPatch.context() as patch:  # the calm run needs no cluster
        patch.setattr("daskps.models.estimator.current_client", lambda: None)
        calm = LogisticRegression(**options).fit(rows)
    return run, calm


def driver_of(farm: Farm, run: DetachedRun) -> str:
    """Return the name of the worker where the driver is."""
    return farm.workers()[run.status["worker"]]


def test_the_worker_of_the_driver_dies_and_dask_runs_it_again(tmp_path: Path) -> None:
    with Farm(2, tmp_path) as farm:
        run, calm = begin(tmp_path, 60)
        before = run.status
        assert before["starts"] == 1
        farm.kill(driver_of(farm, run), nanny=True)
        wait_until(lambda: run.status["starts"] == 2)
        model = run.result(timeout=120)
        after = run.status
        run.forget()
        assert_clean(farm.scheduler)
    np.testing.assert_array_equal(model.coef_, calm.coef_)
    # it went on from a cut: the figures of all clocks are there
    assert model.history_.clock.size == calm.history_.clock.size
    assert (after["starts"], after["recoveries"]) == (2, 0)
    assert before["worker"] != after["worker"]


@pytest.mark.slow
def test_the_worker_of_the_driver_hangs_and_comes_back_too_late(tmp_path: Path) -> None:
    with dask.config.set({"distributed.scheduler.worker-ttl": "10s"}), Farm(3, tmp_path) as farm:
        run, calm = begin(tmp_path, 60)
        hung = driver_of(farm, run)
        farm.signal(hung, signal.SIGSTOP)
        wait_until(lambda: run.status["starts"] == 2, 2 * PATIENCE)
        farm.signal(hung, signal.SIGCONT)
        model = run.result(timeout=120)
        run.forget()
        assert_clean(farm.scheduler)
    np.testing.assert_array_equal(model.coef_, calm.coef_)
