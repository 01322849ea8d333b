"""``dask worker`` whose processes are forked from one that has imported what they need.

A fresh Python takes seconds to import numba and Dask; a worker that died, and a host that comes in
its place, are here in a fraction of that. With ``--nursery`` this process is the one that they are
forked from; else it is a nanny itself, and only its workers come fast.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from itertools import pairwise
from multiprocessing import forkserver, util
from typing import Any

from distributed import utils
from distributed.cli.dask_worker import main

PRELOAD = ["distributed", "daskps._api", "daskps.run.dask_worker"]
NURSERY = "--nursery"


def prepare() -> None:
    """Let worker processes be forked from one that imports `PRELOAD`."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
    utils._forkserver_preload_set = True  # or Dask would replace the list by its own


def hatch(warm: str = "") -> None:
    """Fork a nanny for every line that comes in: the arguments of ``dask worker``, as JSON.

    Its process id goes out. There are no threads here, so that nobody holds a lock at a fork.

    Parameters
    ----------
    warm
        ``module:function``, called before.

    Raises
    ------
    RuntimeError
        If there are threads all the same.
    """
    for name in PRELOAD:
        importlib.import_module(name)
    if warm:
        module, _, function = warm.partition(":")
        getattr(importlib.import_module(module), function)()
    if others := threading.enumerate()[1:]:
        raise RuntimeError(f"threads would be lost in a fork: {others}.")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for nannies that have ended
    gc.freeze()
    for line in iter(sys.stdin.readline, ""):
        if not (pid := os.fork()):
            be_nanny(json.loads(line))
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)  # by whoever comes first
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def be_nanny(arguments: Sequence[str]) -> None:
    """Go on as a nanny that leads a process group, and return when it has ended."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)
    sys.argv[1:] = arguments
    fork_server()
    sys.exit(main(list(arguments)))


def fork_server() -> None:
    """Start the process that forks workers: as a fork of this one, not as a fresh Python."""
    before = util.spawnv_passfds
    util.spawnv_passfds = _forked
    try:
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = before


def _forked(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
    """Run ``python -c command`` in a fork of this process, which keeps some of its files."""
    if pid := os.fork():
        return pid
    try:
        for low, high in pairwise([2, *sorted(passfds), os.sysconf("SC_OPEN_MAX")]):
            os.closerange(low + 1, high)
        exec(args[-1], {})  # what multiprocessing would have given to a fresh Python
    finally:
        os._exit(0)


if __name__ == "__main__":
    prepare()
    if NURSERY in sys.argv[1:2]:
        hatch(*sys.argv[2:])
    else:
        main()
