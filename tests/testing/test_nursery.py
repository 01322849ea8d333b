"""A farm's nannies are forks of one process, and each stands alone as a fresh Python would."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from daskps.errors import RunFailed
from daskps.testing import Farm, wait_until
from daskps.testing.nursery import Nursery, stop_group

pytestmark = pytest.mark.faults


def gone(process: psutil.Process) -> bool:
    """Return whether a process has ended, whether or not somebody has asked how."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_workers_that_were_forked_die_and_come_back_one_by_one(tmp_path: Path) -> None:
    with Farm(2, tmp_path) as farm:
        everybody = [p for n in farm.alive() for p in farm.processes(n)]
        first, second = everybody
        nanny = psutil.Process(os.getpgid(first.pid))
        assert os.getpgid(second.pid) != nanny.pid

        farm.kill("w0")
        wait_until(lambda: [p.pid for p in farm.processes("w0")] not in ([], [first.pid]))
        (again,) = farm.processes("w0")
        assert os.getpgid(again.pid) == nanny.pid
        wait_until(lambda: len(farm.workers()) == 2)

        # alone: nobody else may hold the pipe by which a worker learns that its nanny is gone
        os.kill(nanny.pid, signal.SIGKILL)
        wait_until(lambda: "w0" not in farm.workers().values())
        wait_until(lambda: gone(again))
        assert farm.alive() == ["w1"]
        assert farm.processes("w0") == []

        farm.repair(2)
        assert sorted(farm.workers().values()) == ["w1", "w2"]
        assert farm.processes("w1") == [second]
    wait_until(lambda: gone(second))


def test_what_has_ended_is_seen_to_have_ended() -> None:
    nursery = Nursery()
    try:
        nanny = nursery.start(["--help"])
        wait_until(lambda: nanny.poll() is not None)
        nanny.terminate()
        stop_group(nanny)
        (forking,) = [p for p in psutil.Process().children() if "--nursery" in p.cmdline()]
        forking.kill()
        with pytest.raises(RunFailed, match="ended with -9"):
            nursery.start(["--help"])
    finally:
        nursery.close()
