"""An interruption that reaches all processes of a group ends the driver's run and no worker."""

from __future__ import annotations

import os
import signal
import subprocess
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cluster_tools import PATIENCE, ended, start_python

import daskps
from daskps.run import shield

IN_A_GROUP = """
import signal
import numpy as np
import daskps
from distributed import Client


def running(clock, loss):
    if clock == 3:
        print("running", flush=True)


signal.signal(signal.SIGINT, signal.default_int_handler)
with daskps.local_cluster(2) as cluster, Client(cluster) as client:
    before = sorted(client.scheduler_info()["workers"])
    model = daskps.LogisticRegression(max_iter=10**6, tol=None, progress=False)
    model.fit(np.eye(8), np.arange(8) % 2, callback=running)
    print(model.stop_reason_, sorted(client.scheduler_info()["workers"]) == before, flush=True)
"""


@pytest.mark.cluster
def test_ctrl_c_does_not_end_the_workers_of_a_cluster_in_the_same_process_group() -> None:
    # a terminal, and the kernel of a notebook that is interrupted, signal the whole group
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ended(start_python("-c", IN_A_GROUP, **pipes)) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"running\n"
        os.killpg(driver.pid, signal.SIGINT)
        out, err = driver.communicate(timeout=PATIENCE)
    assert out.split() == [b"interrupted", b"True"], err
    assert b"KeyboardInterrupt" not in err
    assert driver.returncode == 0


def test_only_a_process_that_a_nanny_looks_after_ignores_ctrl_c(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(signal, "signal", lambda *args: told.append(args))
    shield.dask_setup(SimpleNamespace(nanny=None))
    assert told == []
    shield.dask_setup(SimpleNamespace(nanny="tcp://127.0.0.1:1"))
    assert told == [(signal.SIGINT, signal.SIG_IGN)]


def interrupt(clock: int, loss: float) -> None:
    if clock == 1:  # a second one would end training at once
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("kind", [daskps.LogisticRegression, daskps.LatentDirichletAllocation])
def test_the_warning_of_an_interrupted_fit_points_to_the_call(kind: Any) -> None:
    topics = {"n_components": 2} if kind is daskps.LatentDirichletAllocation else {}
    model = kind(max_iter=1000, progress=False, **topics)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows = np.eye(8, dtype=np.float32)
            model.fit(rows, np.arange(8) % 2, callback=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    (told,) = caught
    assert "interrupted" in str(told.message)
    assert told.filename == __file__
