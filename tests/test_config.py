"""Settings under ``daskps`` in Dask's configuration: each is described, read, and checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dask
import pytest
from cluster_tools import Recorder, train

from daskps import config
from daskps.monitor import progress
from daskps.run import launch
from daskps.run.coordinator import Coordinator
from daskps.run.inprocess import InProcessEngine

PACKAGE = Path(config.__file__).parent
TYPES = {"integer": int, "string": str, "boolean": bool, "null": type(None)}


def test_every_key_has_a_description_and_a_default_of_its_type() -> None:
    schema = config.schema()
    assert list(schema) == list(config.DEFAULTS)
    for key, entry in schema.items():
        assert entry["description"].strip().endswith(".")
        kinds = entry["type"] if isinstance(entry["type"], list) else [entry["type"]]
        assert type(config.DEFAULTS[key]) in [TYPES[k] for k in kinds], key


@pytest.mark.parametrize("key", config.DEFAULTS)
def test_every_key_is_read_somewhere(key: str) -> None:
    sources = [p.read_text(encoding="utf-8") for p in PACKAGE.rglob("*.py")]
    assert [s for s in sources if re.search(rf'config\.\w+\("{key}"\)', s)]


def test_defaults_stand_in_dasks_configuration_and_what_is_set_comes_first() -> None:
    assert dask.config.get("daskps.lease") == "30s"
    assert config.seconds("lease") == 30.0
    with dask.config.set({"daskps.lease": "2 minutes", "daskps.max-recoveries": 0}):
        assert config.seconds("lease") == 120.0
        assert config.count("max-recoveries") == 0


@pytest.mark.parametrize(
    ("read", "key", "value", "expected"),
    [
        (config.seconds, "lease", "soon", "a time above 0"),
        (config.seconds, "lease", 0, "a time above 0"),
        (config.seconds, "lease", True, "a time above 0"),
        (config.seconds, "lease", None, "a time above 0"),
        (config.count, "max-recoveries", -1, "an integer >= 0"),
        (config.count, "max-recoveries", "many", "an integer >= 0"),
        (config.switch, "dashboard", None, "true or false[.]"),
        (config.switch, "progress", "no", "true or false or null"),
        (config.name, "shard-resource", 3, "a name or null"),
    ],
)
def test_value_that_cannot_be_used_is_named(read: Any, key: str, value: Any, expected: str) -> None:
    said = rf"daskps\.{key} is {value!r} .*expected {expected}"
    with dask.config.set({f"daskps.{key}": value}), pytest.raises(ValueError, match=said):
        read(key)


def test_a_run_goes_by_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[Any] = []

    class Kept(InProcessEngine):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            engines.append(self)

    monkeypatch.setattr(launch, "InProcessEngine", Kept)
    policies: list[Any] = []

    def listen(told: Any, coordinator: Coordinator) -> None:
        policies.append(coordinator.policy)

    times = {"call-timeout": "33s", "lease": "44s", "patience": "55s", "recovery-timeout": "66s"}
    settings = {f"daskps.{key}": value for key, value in times.items()}
    with dask.config.set({**settings, "daskps.max-recoveries": 7}):
        train(None, "bsp", Recorder(), listen, max_iter=1, clocks_per_pass=1)
    (engine,), policy = engines, policies[0]
    assert (engine.plan.call_timeout, engine.recovery_timeout) == (33.0, 66.0)
    assert (policy.lease, policy.patience, policy.max_recoveries) == (44.0, 55.0, 7)


@pytest.mark.parametrize(("setting", "argument", "drawn"), [(True, None, 1), (True, False, 0)])
def test_progress_is_drawn_as_configured_unless_the_argument_says(
    setting: bool, argument: bool | None, drawn: int
) -> None:
    with dask.config.set({"daskps.progress": setting}):
        found = progress.progress_listeners(argument)
    assert sum(isinstance(x, progress.ProgressBar) for x in found) == drawn


@pytest.mark.parametrize("wanted", [True, False])
def test_dashboard_is_left_alone_if_configured(
    wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        asynchronous = False

    made: list[Any] = []
    monkeypatch.setattr(progress, "current_client", Client)
    monkeypatch.setattr("daskps.monitor.dashboard.Publisher", made.append)
    with dask.config.set({"daskps.dashboard": wanted}):
        progress.progress_listeners(False)
    assert len(made) == wanted
