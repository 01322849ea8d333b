"""Workers on hosts of their own, one of which is cut off without a word, and comes back.

The hosts are network namespaces, which only root may make; in a process that has a private network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SCRIPT = """
import sys, threading, time
from pathlib import Path
from cluster_tools import Recorder, assert_clean, at_clock, bits, calm, train
from daskps.run import events as ev
from daskps.testing.hosts import Hosts

if __name__ == "__main__":
    directory, seen, cut = Path(sys.argv[1]), Recorder(), []
    with Hosts(3, directory) as hosts:

        def strike():
            cut.append(hosts.holders()[0])
            hosts.cut(cut[0])

        strikes = at_clock(6, strike)
        cuts = {"checkpoint": str(directory / "c.zarr"), "checkpoint_every": 2}
        outcome = train(hosts.client, "bsp", seen, strikes, n_shards=2, max_iter=8, **cuts)
        hosts.heal(cut[0])
        again = train(hosts.client, "bsp", max_iter=8)
        assert_clean(hosts.scheduler)
    assert bits(outcome) == bits(again) == bits(calm(max_iter=8))
    print("lost", len(seen.of(ev.WorkerLost)), "pause", round(seen.pause_after(strikes.at), 1))
    assert seen.of(ev.Recovered)
    assert seen.pause_after(strikes.at) < 15
"""


SLOW = """
import sys, time
from pathlib import Path
import numpy as np
import scipy.sparse as sp
from cluster_tools import Recorder, assert_clean, bits, logistic, train
from daskps.data import as_dataset
from daskps.run import events as ev
from daskps.testing.hosts import Hosts, can_slow

if __name__ == "__main__":
    if not can_slow():
        print("the kernel cannot slow a link")
        sys.exit()
    directory, seen = Path(sys.argv[1]), Recorder()
    # half a MB of rows a task: a quarter of a second at 16 Mb/s, nearly nothing at full speed
    X = sp.random_array((16_000, 50_000), density=6e-4, rng=0, format="csr", dtype=np.float32)
    big = {
        "dataset": as_dataset(X, (X @ np.ones(50_000) > 15) * 1.0, n_partitions=8),
        "model": logistic(n_features=50_000),
        "clocks_per_pass": 1,
        "max_iter": 3,
    }
    with Hosts(2, directory) as hosts:
        (name, *_) = hosts.workers().values()
        start = time.monotonic()
        train(hosts.client, "bsp", **big)
        full = time.monotonic() - start
        hosts.slow(name, 16)
        start = time.monotonic()
        outcome = train(hosts.client, "bsp", seen, **big)
        slow = time.monotonic() - start
        assert_clean(hosts.scheduler)
    print("full", round(full, 1), "slow", round(slow, 1))
    assert bits(outcome) == bits(train(None, **big))
    assert not seen.of(ev.WorkerLost)
    assert slow > full + 1
"""


def may_make_namespaces() -> bool:
    if os.name != "posix" or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        return False
    probe = "ip link add name probe0 type bridge"
    return (
        subprocess.run(["unshare", "--net", "sh", "-c", probe], capture_output=True).returncode == 0
    )


ROOT = pytest.mark.skipif(not may_make_namespaces(), reason="network namespaces need root")


@ROOT
def test_a_host_is_cut_off_and_comes_back_and_does_no_harm(tmp_path: Path) -> None:
    run(SCRIPT, tmp_path)


@ROOT
def test_a_slow_link_delays_and_loses_nothing(tmp_path: Path) -> None:
    if "cannot slow" in run(SLOW, tmp_path):
        pytest.skip("the kernel has no token bucket (tc qdisc tbf)")


def run(text: str, tmp_path: Path) -> str:
    script = tmp_path / "script.py"
    script.write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        ["unshare", "--net", sys.executable, str(script), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    print(done.stdout[-300:])
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
