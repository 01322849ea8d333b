"""Several hosts on one machine: each worker in a network namespace of its own, which can be cut.

Needs Linux, ``ip``, ``unshare`` and ``nsenter``, and a process that may make namespaces (root) and
is alone in one: ``unshare --net python script.py``, so that nothing of the machine's own network is
touched.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from daskps.errors import RunFailed
from daskps.testing.farm import Farm, start_worker, wait_until
from daskps.testing.nursery import stop_group

NETWORK = "10.77.0"
BRIDGE = "daskps0"


class Hosts(Farm):
    """A farm whose workers are on hosts of their own, joined by a bridge.

    Parameters are those of `Farm`.

    Raises
    ------
    RunFailed
        If this process sees a network that somebody uses.
    """

    host = f"{NETWORK}.1"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        found = psutil.net_if_stats().items()
        if others := [name for name, state in found if state.isup and name != "lo"]:
            raise RunFailed(
                f"Hosts would change the network of this machine, which has {others}; start the "
                "script by `unshare --net`, as root, so that it has one of its own."
            )
        self._spaces: dict[str, subprocess.Popen[bytes]] = {}
        _ip("link", "set", "lo", "up")
        _ip("link", "add", "name", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{self.host}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        super().__init__(*args, **kwargs)

    def cut(self, name: str) -> None:
        """Take the cable of a worker's host out: nobody is told, messages just do not arrive."""
        _ip("link", "set", f"v-{name}", "down")

    def heal(self, name: str) -> None:
        """Put it in again."""
        _ip("link", "set", f"v-{name}", "up")

    def slow(self, name: str, megabits: float) -> None:
        """Let the link of a worker's host carry so many Mb/s each way; see `can_slow`."""
        inside = ("nsenter", "--target", str(self._spaces[name].pid), "--net")
        for end, prefix in ((f"v-{name}", ()), (f"e-{name}", inside)):
            _run(*_bucket(end, megabits), prefix=prefix)

    def close(self) -> None:
        """End everything that was started."""
        super().close()
        for space in self._spaces.values():
            stop_group(space)  # its end of the cable goes with it
        self._spaces.clear()
        _ip("link", "delete", BRIDGE)

    def _start(self, name: str, options: Iterable[str]) -> subprocess.Popen[bytes]:
        address = f"{NETWORK}.{10 + int(name[1:])}"
        sleeper = ["unshare", "--net", "sleep", "infinity"]
        space = self._spaces[name] = subprocess.Popen(sleeper, start_new_session=True)
        inside = ("nsenter", "--target", str(space.pid), "--net")
        _wait_for_namespace(space.pid)
        _ip("link", "add", "name", f"v-{name}", "type", "veth", "peer", "name", f"e-{name}")
        _ip("link", "set", f"e-{name}", "netns", str(space.pid))
        _ip("link", "set", f"v-{name}", "master", BRIDGE, "up")
        _ip("addr", "add", f"{address}/24", "dev", f"e-{name}", prefix=inside)
        _ip("link", "set", f"e-{name}", "up", prefix=inside)
        _ip("link", "set", "lo", "up", prefix=inside)
        place = (self.address, name, self._directory)
        return start_worker(
            *place, threads=self._threads, host=address, options=options, prefix=inside
        )


def can_slow() -> bool:
    """Return whether the kernel can limit a link (``tc``, ``tbf``); this process has a network."""
    try:
        _ip("link", "add", "name", "daskps-probe", "type", "bridge")
        try:
            _run(*_bucket("daskps-probe", 1))
        finally:
            _ip("link", "delete", "daskps-probe")
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _bucket(end: str, megabits: float) -> tuple[str, ...]:
    # not netem, which delays and drops: few kernels have it
    rate = ("rate", f"{megabits:g}mbit", "burst", "64kb", "latency", "200ms")
    return ("tc", "qdisc", "replace", "dev", end, "root", "tbf", *rate)


def _ip(*words: str, prefix: Iterable[str] = ()) -> None:
    _run("ip", *words, prefix=prefix)


def _run(*words: str, prefix: Iterable[str] = ()) -> None:
    subprocess.run([*prefix, *words], check=True, timeout=20, capture_output=True)


def _namespace(process: str) -> str:
    return str(Path(f"/proc/{process}/ns/net").readlink())


def _wait_for_namespace(pid: int) -> None:
    wait_until(lambda: _namespace(str(pid)) != _namespace("self"))
