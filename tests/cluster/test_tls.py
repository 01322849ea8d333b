"""A cluster with TLS lets in whoever has a certificate of its authority, and nobody else.

Holds for Dask's own connections, for the sockets of pulls and pushes, and on the command line.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cluster_tools import bits, calm, problem, start_python, train
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed import Client, LocalCluster, Security

import daskps
from daskps.cli import checks
from daskps.cli import daskps as command

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

SOON = {"distributed.comm.timeouts.connect": "3s"}


class Authority:
    """A certificate authority with one certificate, in files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.ca, self.cert, self.key = (folder / f"{name}.pem" for name in ("ca", "cert", "key"))
        own_key = ec.generate_private_key(ec.SECP256R1())
        own = _certificate("authority", own_key, "authority", own_key, authority=True)
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _certificate("somebody", key, "authority", own_key, authority=False)
        self.ca.write_bytes(own.public_bytes(serialization.Encoding.PEM))
        self.cert.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def security(self) -> Security:
        """Return what Dask needs to be either side of a connection."""
        roles = ("scheduler", "worker", "client")
        files = {f"tls_{r}_{n}": str(getattr(self, n)) for r in roles for n in ("cert", "key")}
        return Security(tls_ca_file=str(self.ca), require_encryption=True, **files)

    def options(self) -> tuple[str, ...]:
        """Return options of the command line."""
        return (
            "--tls-ca-file",
            str(self.ca),
            "--tls-cert",
            str(self.cert),
            "--tls-key",
            str(self.key),
        )

    def context(self, shown: Authority | None) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority and shows that of another."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.check_hostname = False
        if shown is not None:
            context.load_cert_chain(shown.cert, shown.key)
        return context


def _certificate(name: str, key: Any, issuer: str, issuer_key: Any, *, authority: bool) -> Any:
    now = datetime.datetime.now(datetime.UTC)
    subject, by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (name, issuer))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


@contextlib.contextmanager
def tls_cluster(security: Security, n_workers: int = 2) -> Iterator[LocalCluster]:
    options: dict[str, Any] = {
        "host": "127.0.0.1",
        "protocol": "tls://",
        "dashboard_address": "127.0.0.1:0",
    }
    with LocalCluster(n_workers, threads_per_worker=1, security=security, **options) as cluster:
        yield cluster


def run(*args: Any) -> Result:
    return CliRunner().invoke(command, [str(a) for a in args])


def start(*args: Any) -> subprocess.Popen[bytes]:
    """Start a command that will not wait long for a connection."""
    words = [str(a) for a in args]
    code = f"import dask, runpy, sys; dask.config.set({SOON}); sys.argv[1:] = {words!r}"
    code += "; runpy.run_module('daskps.cli', run_name='__main__')"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return start_python("-c", code, **pipes)


def greets(door: tuple[str, int], token: str, context: ssl.SSLContext | None) -> bool:
    """Return whether the door keeps a connection open that shows its token."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(socket.create_connection(door, timeout=10))
        try:
            if context is not None:
                stream = stack.enter_context(context.wrap_socket(stream))
            stream.sendall(token.encode())
            stream.settimeout(1.0)
            return stream.recv(1) != b""
        except TimeoutError:
            return True  # it waits for a message
        except OSError:
            return False


def token_of(dask_worker: Any) -> str:
    found: str = dask_worker.plugins["daskps"].keeper.door.token
    return found


def test_whoever_has_no_certificate_is_refused_by_the_cluster_and_by_the_data_path(
    tmp_path: Path,
) -> None:
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    X, y = problem()
    daskps.from_arrays(X, y, tmp_path / "data.zarr")
    with tls_cluster(ours.security()) as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tls://")

        with Client(cluster, security=ours.security()) as client:
            assert bits(train(client)) == bits(calm())
            doors = client.run(checks.door_of)
            tokens = client.run(token_of)
        for worker, door in doors.items():
            assert worker.startswith("tls://")
            token = tokens[worker]
            assert greets(door, token, ours.context(ours))
            assert not greets(door, "x" * len(token), ours.context(ours))
            for context in (None, ours.context(None), ours.context(others)):
                assert not greets(door, token, context)

        job = ("train", tmp_path / "data.zarr", "--model", "LogisticRegression", "-p", "max_iter=2")
        done = run(*job, "--json", "--scheduler", address, *ours.options())
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["passes"] == 2
        plain = address.replace("tls://", "tcp://")
        refused = (
            ("--scheduler", plain),
            ("--scheduler", address),
            ("--scheduler", plain, *ours.options()),
            ("--scheduler", address, *others.options()),
        )
        # in processes of their own: a client that could not connect keeps its thread
        for process in [start(*job, *options) for options in refused]:
            out, said = process.communicate(timeout=60)
            assert (process.returncode, out) == (1, b""), said
            assert b"no Dask scheduler answers" in said
            assert b"Traceback" not in said
