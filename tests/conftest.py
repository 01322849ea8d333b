"""Settings and fixtures of every test: hypothesis profiles, fault time limits, leak checks."""

from __future__ import annotations

import os
from collections.abc import Iterator

import leaks
import pytest
from hypothesis import HealthCheck, settings

FAULT_TIMEOUT = 300  # seconds

settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that kill processes more time than the default, unless they say how much."""
    for item in items:
        if item.get_closest_marker("faults") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(FAULT_TIMEOUT))


@pytest.fixture(scope="session")
def _warm_process() -> None:
    leaks.warm_up()


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a `cluster` or `faults` test that leaves a thread, a process or a descriptor."""
    markers = ("cluster", "faults")
    if not any(request.node.get_closest_marker(name) for name in markers):
        yield
        return
    request.getfixturevalue("_warm_process")
    before = leaks.snapshot()
    yield
    left = leaks.leaks(before)
    if left:
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)
