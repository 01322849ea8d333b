"""Clusters by ssh, on hosts that are sshd processes of this machine: they train, and lose one."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cluster_tools import PATIENCE, at_clock, bits, calm, problem, train, wait_until
from distributed import Client, SSHCluster
from ssh_hosts import USABLE, WHY, free_port, ssh_hosts

import daskps

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not USABLE, reason=WHY),
]


def needs(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"needs {module}: pip install 'daskps[ssh]'")


START = 500.0
"""Seconds until the first checkpoint, and to the end: about ten Pythons start."""
PARAMETERS = {"max_iter": 30, "rows_per_clock": 500, "alpha": 1e-4, "n_iter_no_change": 1000}


def job(folder: Path) -> Path:
    """Write a dataset and the job that trains on it; return the file of the job."""
    daskps.from_arrays(*problem(), folder / "data.zarr")
    lines = [f"{name} = {value}" for name, value in PARAMETERS.items()]
    (folder / "job.toml").write_text(
        f'model = "LogisticRegression"\ndata = "{folder}/data.zarr"\n'
        f'save = "{folder}/model.zarr"\n[parameters]\n' + "\n".join(lines) + "\n"
        f'checkpoint = "{folder}/ckpt.zarr"\ncheckpoint_every = 20\n'
    )
    return folder / "job.toml"


def remote_python(folder: Path) -> str:
    """Return a Python that finds on a host what is found here, installed or not."""
    path = os.pathsep.join(p for p in sys.path if p)
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return str(script)


@needs("paramiko")
def test_the_script_trains_on_although_a_host_dies(tmp_path: Path) -> None:
    file = job(tmp_path)
    with ssh_hosts(tmp_path / "ssh") as hosts, (tmp_path / "log").open("w") as log:
        (tmp_path / "hosts").write_text("\n".join(hosts.addresses) + "\n")
        tools = Path(sys.executable).parent
        environment = {
            **os.environ,
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "PORT": str(free_port()),
            "REMOTE_PYTHON": remote_python(tmp_path),
            "PATIENCE": f"{START:g}",
            "SSH_OPTIONS": f"--ssh-private-key {hosts.key} --ssh-port {hosts.port}",
        }
        run = subprocess.Popen(
            [str(ROOT / "examples" / "dask_ssh.sh"), "hosts", file.name],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            cuts = tmp_path / "ckpt.zarr"
            wait_until(lambda: any(cuts.glob("cut-*")) or run.poll() is not None, START)
            hosts.kill(hosts.addresses[2])
            out, _ = run.communicate(timeout=START)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
            run.communicate(timeout=PATIENCE)
    said = (tmp_path / "log").read_text()
    assert run.returncode == 0, said[-3000:]
    assert "lost worker" in said
    assert hosts.addresses[2] in said.split("lost worker")[1].splitlines()[0]
    assert json.loads(out)["passes"] == PARAMETERS["max_iter"]
    calm_model = daskps.LogisticRegression(progress=False, **PARAMETERS)
    calm_model.fit(tmp_path / "data.zarr")
    trained = daskps.load(tmp_path / "model.zarr")
    np.testing.assert_array_equal(trained.coef_, calm_model.coef_)


@needs("asyncssh")
def test_a_cluster_of_dasks_sshcluster_trains_on_although_a_host_dies(tmp_path: Path) -> None:
    with ssh_hosts(tmp_path / "ssh") as hosts:
        keys = {"client_keys": [str(hosts.key)], "known_hosts": None}
        with (
            SSHCluster(
                [hosts.addresses[0], *hosts.addresses],
                connect_options={"port": hosts.port, "username": "root", **keys},
                worker_options={"nthreads": 1},
                scheduler_options={"host": hosts.addresses[0], "dashboard_address": ":0"},
                remote_python=remote_python(tmp_path),
            ) as cluster,
            Client(cluster) as client,
        ):
            client.wait_for_workers(3, timeout=START)
            killer = at_clock(6, lambda: hosts.kill(hosts.addresses[2]))
            outcome = train(client, "bsp", killer)
            assert len(client.scheduler_info()["workers"]) == 2
    assert killer.at is not None
    assert outcome.ledger.recoveries
    assert bits(outcome) == bits(calm())
