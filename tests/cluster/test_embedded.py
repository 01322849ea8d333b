"""The cluster that daskps starts itself."""

from __future__ import annotations

import dask
import pytest
from distributed import Client

import daskps
from daskps.cluster import CALM

pytestmark = pytest.mark.cluster

PROFILE, TICK = "distributed.worker.profile.interval", "distributed.admin.tick.interval"


def configured() -> dict[str, str]:
    return {name: dask.config.get(name) for name in CALM}


def test_its_processes_seldom_look_at_themselves_and_those_that_come_later_neither() -> None:
    usual = configured()
    with daskps.local_cluster(1) as cluster, Client(cluster) as client:
        assert cluster.scheduler.periodic_callbacks["tick"].callback_time == 100
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        assert list(client.run(configured).values()) == [CALM, CALM]
    assert configured() == usual, "the configuration of this process is not daskps's to change"


@pytest.mark.parametrize("name", [PROFILE, TICK])
def test_what_somebody_has_configured_stays(name: str) -> None:
    with dask.config.set({name: "50ms"}), daskps.local_cluster(0) as cluster:
        assert cluster.worker_spec == {}
        assert cluster.new_spec["options"]["config"] == {k: CALM[k] for k in CALM if k != name}


def test_workers_that_are_configured_otherwise_stay_so() -> None:
    with daskps.local_cluster(0, config={PROFILE: "1s"}) as cluster:
        assert cluster.new_spec["options"]["config"] == CALM | {PROFILE: "1s"}
