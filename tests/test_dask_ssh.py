"""`examples/dask_ssh.sh` on hosts that are sshd processes on loopback addresses."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from cluster_tools import PATIENCE, problem, wait_until

import daskps

ROOT = Path(__file__).resolve().parent.parent
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not Path(SSHD).exists()
        or importlib.util.find_spec("paramiko") is None
        or os.geteuid() != 0,
        reason="needs sshd, paramiko and root",
    ),
]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@contextlib.contextmanager
def ssh_hosts(folder: Path, port: int) -> Iterator[Path]:
    """Run an sshd on each address; yield the private key that opens them."""
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    options = {
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PermitRootLogin": "yes",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
        "Port": port,
    }
    words = [w for name, value in options.items() for w in ("-o", f"{name}={value}")]
    daemons = [
        subprocess.Popen([SSHD, "-D", "-f", "/dev/null", *words, "-o", f"ListenAddress={host}"])
        for host in HOSTS
    ]
    try:
        yield folder / "user"
    finally:
        for daemon in daemons:
            for process in (*psutil.Process(daemon.pid).children(recursive=True), daemon):
                with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
            daemon.wait(PATIENCE)


def kill_host(host: str) -> None:
    """SIGKILL the worker of a host and what started it."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if "--host" in words and host in words and "distributed.cli.dask_worker" in words:
                for child in (process, *process.children(recursive=True)):
                    child.kill()
                return
    raise AssertionError(f"no worker on {host}")


def test_a_cluster_by_ssh_loses_a_host_and_ends_with_the_model_of_the_calm_run(
    tmp_path: Path,
) -> None:
    X, y = problem()
    dataset = daskps.from_arrays(X, y, str(tmp_path / "data.zarr"))
    (tmp_path / "job.toml").write_text(
        f'model = "LogisticRegression"\ndata = "{tmp_path}/data.zarr"\n'
        f'save = "{tmp_path}/model.zarr"\n[parameters]\nmax_iter = 30\nrows_per_clock = 500\n'
        f'alpha = 1e-4\ncheckpoint = "{tmp_path}/ckpt.zarr"\ncheckpoint_every = 20\n'
        "n_iter_no_change = 1000\n"
    )
    (tmp_path / "hosts").write_text("\n".join(HOSTS) + "\n")
    port = free_port()
    with ssh_hosts(tmp_path, port) as key, (tmp_path / "log").open("w") as log:
        tools = str(Path(sys.executable).parent)
        environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PORT": str(free_port()),
            "REMOTE_PYTHON": sys.executable,
            "SSH_OPTIONS": f"--ssh-private-key {key} --ssh-port {port} --ssh-username root",
        }
        command = [str(ROOT / "examples" / "dask_ssh.sh"), "hosts", "job.toml"]
        run = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            cuts = tmp_path / "ckpt.zarr"
            wait_until(lambda: any(cuts.glob("cut-*")) or run.poll() is not None, 150)
            kill_host(HOSTS[2])
            out, _ = run.communicate(timeout=PATIENCE * 4)
        finally:
            run.terminate()
            run.wait(PATIENCE)
    assert run.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    assert "127.0.0.4" in (tmp_path / "log").read_text().split("lost worker")[-1]
    assert json.loads(out)["passes"] == 30
    calm = daskps.LogisticRegression(
        max_iter=30, rows_per_clock=500, alpha=1e-4, n_iter_no_change=1000, progress=False
    ).fit(dataset)
    np.testing.assert_array_equal(daskps.load(tmp_path / "model.zarr").coef_, calm.coef_)
