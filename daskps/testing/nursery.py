"""Where the nannies of a farm come from: a process that has imported what they need, and forks."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Any, cast

import dask
import psutil

from daskps.errors import RunFailed

PATIENCE = 60.0
"""Seconds that anything that must happen may take."""


class Nanny:
    """A process that a nursery forked; has what a farm needs of a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._process: psutil.Process | None = None
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended already
            self._process = psutil.Process(pid)

    def poll(self) -> int | None:
        """Return None as long as it runs."""
        return None if self._process is not None and self._process.is_running() else -1

    def terminate(self) -> None:
        """Send it SIGTERM."""
        if self._process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.terminate()

    def wait(self, timeout: float) -> None:
        """Wait until it has ended."""
        if self._process is not None:
            self._process.wait(timeout)


class Nursery:
    """Forks nannies from one process, which is started when the first is asked for.

    Parameters
    ----------
    warm
        ``module:function`` that this process calls before, so that its forks need not compile.
    """

    def __init__(self, warm: str | None = None) -> None:
        self._warm = [warm] if warm else []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, arguments: Iterable[str]) -> Nanny:
        """Start a nanny as leader of a process group.

        Parameters
        ----------
        arguments
            Those of ``dask worker``.

        Raises
        ------
        RunFailed
            If the process that forks is gone.
        """
        if self._process is None:
            self._process = self._start()
        forking = cast("Any", self._process)
        with contextlib.suppress(BrokenPipeError):
            forking.stdin.write(json.dumps(list(arguments)).encode() + b"\n")
            forking.stdin.flush()
        if not select.select([forking.stdout], [], [], PATIENCE)[0]:
            forking.kill()  # it hangs
        if not (answer := forking.stdout.readline()):
            raise RunFailed(
                f"the process that forks nannies ended with {forking.wait(PATIENCE)}: "
                f"{forking.stderr.read().decode()[-1000:]!r}; expected the number of a process."
            )
        return Nanny(int(answer))

    def _start(self) -> subprocess.Popen[bytes]:
        # what a nanny would set for a fresh Python must be there before anything is imported
        early = dask.config.get("distributed.nanny.pre-spawn-environ")
        environment = {name: str(value) for name, value in early.items() if value is not None}
        arguments, pipe = ("-m", "daskps.testing.nanny", "--nursery", *self._warm), subprocess.PIPE
        return start_python(
            *arguments, environment=environment, stdin=pipe, stdout=pipe, stderr=pipe
        )

    def close(self) -> None:
        """End the process that forks; its nannies go on."""
        if self._process is not None:
            stop_group(self._process)
            self._process = None


def start_python(
    *args: str,
    prefix: Iterable[str] = (),
    environment: dict[str, str] | None = None,
    **kwargs: Any,
) -> subprocess.Popen[bytes]:
    """Start Python with this process's import path, as leader of a process group."""
    environment = {
        **os.environ,
        **(environment or {}),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver",
    }
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **kwargs}
    command = [*prefix, sys.executable, *args]
    return subprocess.Popen(command, env=environment, start_new_session=True, **streams)


def stop_group(process: subprocess.Popen[bytes] | Nanny) -> None:
    """SIGKILL a process that leads a group, and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
