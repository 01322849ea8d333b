"""An interrupted notebook or terminal must not take the workers with it.

Ctrl-C, and the interruption of a notebook's kernel, reach every process of the group: the workers
of a cluster on this machine as well, which would die while `fit` waits for them. Also a preload of
Dask's workers.
"""

from __future__ import annotations

import signal
import threading
from typing import Any


def dask_setup(worker: Any) -> None:
    """Let a process that a nanny looks after ignore SIGINT: the nanny ends it in other ways."""
    if worker.nanny is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
