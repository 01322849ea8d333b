"""Hosts to reach by ssh, on this machine: an sshd on each of some loopback addresses."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from cluster_tools import PATIENCE, wait_until

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
USABLE = Path(SSHD).exists() and shutil.which("ssh-keygen") is not None and os.geteuid() == 0
WHY = "needs root, sshd and ssh-keygen (Debian: openssh-server)"


@dataclass
class Hosts:
    """Hosts whose sshd listens on `port` of their address, and opens with a key."""

    addresses: tuple[str, ...]
    port: int
    key: Path
    daemons: dict[str, subprocess.Popen[bytes]]

    def kill(self, address: str) -> int:
        """SIGKILL all that runs on a host, sshd first; return how many processes that were."""
        daemon = psutil.Process(self.daemons[address].pid)
        daemon.suspend()  # nobody comes in any more
        some = [daemon, *daemon.children(recursive=True)]
        for process in some:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return len(some)


@contextlib.contextmanager
def ssh_hosts(folder: Path, n: int = 3) -> Iterator[Hosts]:
    """Run an sshd for each of `n` hosts; end them, and all that came by them, in the end."""
    Path("/run/sshd").mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, timeout=PATIENCE)
    port = free_port()
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
    addresses = tuple(f"127.0.0.{2 + i}" for i in range(n))
    daemons = {
        address: subprocess.Popen(
            [SSHD, "-D", "-f", "/dev/null", *words, "-o", f"ListenAddress={address}"],
            stderr=subprocess.DEVNULL,
        )
        for address in addresses
    }
    hosts = Hosts(addresses, port, folder / "user", daemons)
    try:
        for address in addresses:
            wait_until(lambda a=address: _answers(a, port))
        yield hosts
    finally:
        for address, daemon in daemons.items():
            if daemon.poll() is None:
                hosts.kill(address)
            daemon.wait(PATIENCE)


def free_port() -> int:
    """Return a port that nobody uses at this moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True
